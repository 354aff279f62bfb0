"""Watches the configuration's files and calls back once they are quiet. Reads none of them.

Directories are watched, not files: editors write a new file and rename it over the old one. On the way to a file
each directory is watched for the one name that leads on: so a directory may appear later, vanish and come back,
and a symlink in the middle may be turned. What else happens in these directories concerns nobody.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate
from functools import partial

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from splitwgd.errors import MachineError

QUIET = 0.15  # seconds without an event before a change is believed to be whole
PATIENCE = 2.0  # seconds after which a change is told even though it goes on
_LINKS_AT_MOST = 40  # MAXSYMLINKS, include/linux/namei.h
_LOOKS = 10  # at directories that come and go while they are looked at
_READING = frozenset({"opened", "closed", "closed_no_write"})  # what is closed was "modified" before, if it was


class Watcher(FileSystemEventHandler):
    """Watches until closed. `changed` is called on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self.loop = loop
        self.changed = changed
        self._files: tuple[str, ...] = ()
        self._steps: dict[str, _Names] = {}  # directory -> the names in it that matter
        self._observer: BaseObserver | None = None
        self._watches: dict[str, ObservedWatch] = {}
        self._touched: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._stirred: float | None = None

    def watch(self, files: Iterable[str]) -> None:
        """From now on these paths and patterns, whether they exist or not, and what their symlinks lead to."""
        self._files = tuple(files)
        self._follow()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """On the observer's thread."""
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        if event.event_type not in _READING and any(self._matters(path) for path in paths):
            self.loop.call_soon_threadsafe(partial(self._stir, paths))

    def _matters(self, path: str) -> bool:
        directory, name = os.path.split(path)
        steps = self._steps
        return directory in steps and name in steps[directory]

    def _stir(self, paths: Iterable[str]) -> None:
        if self._observer is None:  # closed while this was on its way
            return
        self._touched.update(paths)
        now = self.loop.time()
        if self._stirred is None:
            self._stirred = now
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(min(now + QUIET, self._stirred + PATIENCE), self._settled)

    def _settled(self) -> None:
        self._timer = self._stirred = None
        try:
            # Before anybody reads: what is written from here on is an event again.
            self._follow()
        except MachineError:
            pass  # whoever reads the files now calls `watch` after it, and is told
        self.changed()

    # -- the directories

    def _follow(self) -> None:
        """Watches the directories that lead to the files now, each before what lies in it."""
        try:
            observer = self._observer or self._begin()
            for _ in range(_LOOKS):
                self._steps = steps = _steps(self._files)
                for directory in [d for d in self._watches if d not in steps or self._is_another(d)]:
                    observer.unschedule(self._watches.pop(directory))
                self._touched.clear()
                new = sorted(steps.keys() - self._watches.keys())
                if not new:
                    return
                for directory in new:
                    try:
                        self._watches[directory] = observer.schedule(self, directory, event_filter=_CHANGES)
                    except (FileNotFoundError, NotADirectoryError):
                        pass  # gone meanwhile; the next look finds what there is
                    except PermissionError:
                        pass  # root's alone: whoever writes there has to say so (splitwg reload)
        except OSError as error:  # of inotify's limits, mostly
            self._stop()
            remedy = "raise fs.inotify.max_user_watches and max_user_instances"
            where = ", ".join(sorted(self._steps))
            raise MachineError(f"cannot watch {where} ({error.strerror}); {remedy}") from error

    def _is_another(self, directory: str) -> bool:
        """Whether it, or one above it, was touched: another one may bear its name now."""
        return any(f"{directory}/".startswith(f"{path}/") for path in self._touched)

    def _begin(self) -> BaseObserver:
        observer = Observer()
        observer.start()
        self._observer = observer
        return observer

    def _stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None
        self._watches.clear()

    def close(self) -> None:
        self._stop()
        if self._timer is not None:
            self._timer.cancel()


def _kinds(base: type[FileSystemEvent]) -> Iterator[type[FileSystemEvent]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


def _is_change(kind: type[FileSystemEvent]) -> bool:
    if kind.is_directory:  # its content is told by what lies in it
        return kind.event_type in ("created", "deleted", "moved")
    return kind.event_type not in _READING


# /etc and /run are read by everybody: the kernel is not asked for openings, and no thread is woken by them.
_CHANGES = [kind for kind in _kinds(FileSystemEvent) if _is_change(kind)]


class _Names:
    """Names of one directory: whole ones, and patterns with stars."""

    def __init__(self) -> None:
        self._whole: set[str] = set()
        self._patterns: list[re.Pattern[str]] = []

    def add(self, name: str) -> None:
        if name not in self._whole:
            self._whole.add(name)
            if _is_pattern(name):
                self._patterns.append(_compile(name))

    def __contains__(self, name: str) -> bool:
        return name in self._whole or any(pattern.match(name) for pattern in self._patterns)


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def _compile(name: str) -> re.Pattern[str]:
    return re.compile(("" if name.startswith(".") else r"(?!\.)") + translate(name))  # glob(7): no star for a first dot


def _steps(files: Iterable[str]) -> dict[str, _Names]:
    """Directory -> the names in it that lead to a file: of the file, of its links, of the directories above."""
    steps: defaultdict[str, _Names] = defaultdict(_Names)
    for file in files:
        _walk("/", os.path.abspath(file).split("/")[1:], steps, _LINKS_AT_MOST)
    return dict(steps)


def _walk(directory: str, names: list[str], steps: defaultdict[str, _Names], links: int) -> None:
    """One path, name by name, as the kernel walks it (path_resolution(7)); `directory` has no link in it."""
    for place, name in enumerate(names):
        if name in ("", "."):
            continue
        if name == "..":
            directory = os.path.dirname(directory)
            continue
        steps[directory].add(name)
        rest = names[place + 1 :]
        if _is_pattern(name):
            for found in _matching(directory, _compile(name)):
                _walk(directory, [found, *rest], steps, links)
        path = os.path.join(directory, name)
        target = _target(path)
        if target is not None:
            if links:
                start = "/" if target.startswith("/") else directory
                _walk(start, target.split("/") + rest, steps, links - 1)
            return
        if not rest or not os.path.isdir(path):
            return
        directory = path


def _matching(directory: str, pattern: re.Pattern[str]) -> list[str]:
    try:
        # A name with a star of its own could not be told from a pattern on the way down.
        return [name for name in os.listdir(directory) if pattern.match(name) and not _is_pattern(name)]
    except OSError:
        return []


def _target(path: str) -> str | None:
    """Where a symlink leads, None if it is none."""
    try:
        return os.readlink(path)
    except OSError:
        return None
