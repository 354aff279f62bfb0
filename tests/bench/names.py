"""The names of the benchmark: which are listed, and which are asked for. The authority answers them all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

TUNNELED = "t.bench.example"  # always listed, as the last one: it is found when all have been read
PLAIN = "plain.bench.example"
_TOPS = ("com", "net", "org", "de", "io")


def listed(count: int) -> Iterator[str]:
    """The domains of a list of this length."""
    for number in range(count - 1):
        yield f"site-{number:x}.{_TOPS[number % len(_TOPS)]}"
    yield TUNNELED


def questions(below: str, first: int, count: int) -> Iterator[str]:
    """Lines for dnsperf: names below a domain, each with an address of its own."""
    return (f"n{number}.{below} A\n" for number in range(first, first + count))


class Questions:
    """Lines for dnsperf, as a file in memory that ends with this process."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._file = os.fdopen(os.memfd_create("questions"), "w")
        self._file.writelines(lines)
        self._file.flush()

    @property
    def path(self) -> Path:
        """Where any process on this machine finds it."""
        return Path(f"/proc/{os.getpid()}/fd/{self._file.fileno()}")

    def close(self) -> None:
        self._file.close()
