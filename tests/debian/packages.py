"""The packages that the tests install: `python -m tests.debian.packages DIR`, where there is a network for pip.

DIR/first and DIR/again are of the same sources, DIR/second is the next revision.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deb.build import Refused, build

FOLDERS = {"first": 1, "again": 1, "second": 2}


def package(which: str) -> Path:
    """One of them; where there are none the test is skipped."""
    folder = os.environ.get("SPLITWG_PACKAGES")
    if not folder:
        pytest.skip("needs packages and whole Debian systems: run sudo ./do test-system")
    (found,) = (Path(folder) / which).glob("*.deb")
    return found


def main() -> int:
    """Makes them."""
    try:
        for which, revision in FOLDERS.items():
            build(Path(sys.argv[1]) / which, revision)
    except (Refused, subprocess.CalledProcessError) as error:
        print(f"deb: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
