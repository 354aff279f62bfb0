"""Watches the configuration's files and calls back once they are quiet. Reads none of them.

Directories are watched, not files: editors write a new file and rename it over the old one, and a symlink
may be turned to another target. A burst of writes is one change.
"""

from __future__ import annotations

import asyncio
import os.path
from collections.abc import Callable, Iterable

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from splitwgd.errors import MachineError

QUIET = 0.15  # seconds without an event before a change is believed to be whole
_READING = frozenset({"opened", "closed_no_write"})


class Watcher(FileSystemEventHandler):
    """Watches until closed. `changed` is called on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self.loop = loop
        self.changed = changed
        self._observer: BaseObserver | None = None
        self._directories: frozenset[str] = frozenset()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, files: Iterable[str]) -> None:
        """From now on these, and what their symlinks lead to."""
        directories = frozenset(d for file in files for d in _directories(file) if os.path.isdir(d))
        if directories == self._directories:
            return
        self._stop()
        observer = Observer()
        try:
            for directory in sorted(directories):
                observer.schedule(self, directory)
            observer.start()
        except OSError as error:  # of inotify's limits, mostly
            self._directories = frozenset()
            remedy = "raise fs.inotify.max_user_watches and max_user_instances"
            raise MachineError(f"cannot watch {', '.join(sorted(directories))} ({error.strerror}); {remedy}") from error
        self._observer = observer
        self._directories = directories

    def on_any_event(self, event: FileSystemEvent) -> None:
        """On the observer's thread."""
        if event.event_type not in _READING:
            self.loop.call_soon_threadsafe(self._stir)

    def _stir(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(QUIET, self.changed)

    def _stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def close(self) -> None:
        self._stop()
        if self._timer is not None:
            self._timer.cancel()


def _directories(file: str) -> Iterable[str]:
    """The directory of each link on the way to the file, and of the file itself."""
    for _ in range(40):  # MAXSYMLINKS, include/linux/namei.h
        yield os.path.dirname(os.path.abspath(file))
        if not os.path.islink(file):
            break
        file = os.path.join(os.path.dirname(file), os.readlink(file))
    yield os.path.dirname(os.path.realpath(file))
