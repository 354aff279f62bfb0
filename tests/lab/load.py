"""What every kind of traffic has in common: how it starts, how it is ended and how it reports.

A report is one JSON object; a process which did not say "ready" is refused as not started.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Any

_told_to_end = False


def _end(signum: int, frame: object) -> None:
    global _told_to_end
    _told_to_end = True


def told_to_end() -> bool:
    """Whether SIGTERM has come; what is under way is still brought to its end."""
    return _told_to_end


def family_of(address: str) -> socket.AddressFamily:
    """The family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def report(work: Callable[[], dict[str, Any]]) -> None:
    """Do the work and print what it returns."""
    signal.signal(signal.SIGTERM, _end)
    print("ready", flush=True)
    print(json.dumps(work()))


class Traffic:
    """The handle of traffic that runs; used by the test, outside of the client."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"traffic does not start: {process.args!r}")

    def wait(self, timeout: float = 120) -> dict[str, Any]:
        """What happened, when the traffic has ended by itself."""
        # Not communicate(): it reads past what readline() has put into its buffer. A report fits into the pipe.
        self.process.wait(timeout=timeout)
        assert self.process.stdout
        report: dict[str, Any] = json.loads(self.process.stdout.read())
        return report

    def stop(self) -> dict[str, Any]:
        """End the traffic now; what happened until then."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout=30)
