"""The program splitwgd as far as it needs no root: --check, wrong configurations, its words and exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from splitwgd import __version__
from tests.worlds import WG

TOML = """
[dns]
tunneled = ["10.1.0.1"]
default = ["9.9.9.9"]
[tunneled]
domains = ["github.com", "example.org"]
[wireguard]
config = "wg0.conf"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "wg0.conf").write_text(WG)
    (tmp_path / "domains.toml").write_text(TOML)
    return tmp_path / "domains.toml"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("JOURNAL_STREAM", "NOTIFY_SOCKET")}
    return subprocess.run(
        [sys.executable, "-m", "splitwgd.daemon", *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
        env=clean | environment,
    )


@pytest.fixture(autouse=True)
def runnable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-m splitwgd.daemon` only defines; a two-line program calls it, as the entry point does."""
    program = tmp_path / "run.py"
    program.write_text("import sys\nfrom splitwgd.daemon import main\nsys.argv[0] = 'splitwgd'\nmain()\n")
    root = str(Path(__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setattr(
        sys.modules[__name__], "COMMAND", [sys.executable, str(program)], raising=False
    )


def check(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("--check", "--config", str(path), **environment)
