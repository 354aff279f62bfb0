"""The whole suite as two halves side by side: `python -m tests.halves`, started by ./do test in an enclosure.

Each half has a network, mount and process namespace of its own, as tests that look for a process by its name need.
Their lines come as they are written, with the half's name before them; the exit status is the worse one.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

_ENCLOSED = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_LEAKS = Path("tests/lab/test_leaks.py")  # a third of the suite by itself
_BOOTED = "debian"  # needs the package: ./do test-system runs it


def halves(tests: Path) -> dict[str, list[str]]:
    """Which files and directories of `tests` each half gets: together all but those on booted machines, none twice."""
    lab = tests / "lab"
    leaks = tests.parent / _LEAKS
    others = [path for path in sorted(tests.iterdir()) if path not in (lab, tests / _BOOTED) and _has_tests(path)]
    return {
        "lab": [str(path) for path in sorted(lab.glob("test_*.py")) if path != leaks],
        # In this order: the kernel's tests want no WireGuard beside their own, and the lab of the leaks has some.
        "units, kernel, leaks": [str(path) for path in (*others, leaks)],
    }


def _has_tests(path: Path) -> bool:
    return any(path.rglob("test_*.py")) if path.is_dir() else path.match("test_*.py")


def _show(name: str, lines: IO[str]) -> None:
    for line in lines:
        print(f"{name} | {line}", end="", flush=True)


def main() -> None:
    """Exit status: that of the half that went worse."""
    running = []
    for name, paths in halves(Path("tests")).items():
        pytest = [*_ENCLOSED, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *paths]
        half = subprocess.Popen(pytest, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert half.stdout is not None
        shown = threading.Thread(target=_show, args=(name, half.stdout))
        shown.start()
        running.append((half, shown))
    for half, shown in running:
        half.wait()
        shown.join()
    sys.exit(max(half.returncode for half, _ in running))


if __name__ == "__main__":
    main()
