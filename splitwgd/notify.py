"""Tells systemd how we are (sd_notify(3)). Without systemd every call does nothing."""

from __future__ import annotations

import os
import time

import sdnotify


class Notify:
    """The notification socket."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()

    def ready(self, status: str) -> None:
        self._notifier.notify(f"READY=1\nSTATUS={_one_line(status)}")

    def reloading(self) -> None:
        """Type=notify-reload wants the monotonic clock with it, in microseconds."""
        self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, status: str) -> None:
        self._notifier.notify(f"STATUS={_one_line(status)}")

    def stopping(self) -> None:
        self._notifier.notify("STOPPING=1")

    def alive(self) -> None:
        self._notifier.notify("WATCHDOG=1")

    @staticmethod
    def keep_alive_every() -> float | None:
        """Half of systemd's WatchdogSec in seconds, or None without a watchdog (sd_watchdog_enabled(3))."""
        interval = os.environ.get("WATCHDOG_USEC", "")
        owner = os.environ.get("WATCHDOG_PID", str(os.getpid()))
        if not interval.isdigit() or owner != str(os.getpid()):
            return None
        return int(interval) / 2_000_000


def _one_line(text: str) -> str:
    """A line break would begin another assignment."""
    return " ".join(text.split())
