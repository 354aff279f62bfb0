"""The commands setup, revert and dns: what they ask, say and return. What they do: test_setting_up, tests/system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from splitwgd import cli, setup
from splitwgd.files import Tree
from splitwgd.setting_up import Setup
from tests.test_recorder import snapshot
from tests.test_setting_up import Machinery, programs, root

__all__ = ["programs", "root"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="puts files that are root's")


@pytest.fixture
def there(root: Path, programs: Machinery, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(setup, "_setup", lambda: Setup(Tree(str(root)), programs))
    return root


def run(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(cli.main, arguments, input=answer)


@needs_root
def test_setup_shows_asks_and_does(there: Path) -> None:
    before, file = snapshot(there), str(there.parent / "vpn.conf")
    refused = run("setup", file, answer="n\n")
    assert refused.exit_code == 1 and "nothing was changed" in refused.stderr
    assert "new     /etc/splitwg/wg0.conf (only root reads it)" in refused.stdout
    assert "PrivateKey" not in refused.output
    assert run("setup", file).exit_code == 1  # nobody there to answer
    assert snapshot(there) == before
    done = run("setup", file, answer="y\n")
    assert done.exit_code == 0 and "splitwgd runs, and this machine asks it" in done.stdout
    assert run("setup", file).stdout == "everything is set up already\n"


@needs_root
def test_revert_asks_and_brings_back_and_is_safe_twice(there: Path) -> None:
    before = snapshot(there)
    assert run("revert").stdout == "this machine is not set up: there is nothing to bring back\n"
    assert run("setup", str(there.parent / "vpn.conf"), "--yes").exit_code == 0
    assert run("revert", answer="n\n").exit_code == 1
    assert run("revert", "--yes").stdout == "this machine is as it was before setup, but for /etc/splitwg\n"
    assert run("revert", "--purge", "--yes").exit_code == 0
    assert run("revert", "--purge", "--yes").exit_code == 0
    assert snapshot(there) == before


@needs_root
def test_dns_is_taken_and_given_back_and_says_what_it_did(there: Path) -> None:
    assert run("dns", "take").output == ""
    run("setup", str(there.parent / "vpn.conf"), "--yes")
    assert run("dns", "give-back").exit_code == 0
    assert run("dns", "give-back").output == ""
    assert run("dns", "take").stdout.splitlines()[-1] == "new     /etc/resolv.conf"


@needs_root
def test_what_is_wrong_is_a_line_each_and_the_status_says_whose_it_is(there: Path) -> None:
    (there.parent / "vpn.conf").write_text("[Interface]\nAddress = 10.1.0.2/24\n")
    done = run("setup", str(there.parent / "vpn.conf"))
    assert done.exit_code == 2
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == ["splitwg", "splitwg"]


def test_setup_makes_the_configuration_that_the_service_reads() -> None:
    done = run("--config", "/srv/other.toml", "setup")
    assert done.exit_code == 2 and "leave --config out" in done.stderr


@pytest.mark.parametrize("command", [("setup",), ("revert",), ("dns", "take"), ("dns", "give-back")])
def test_who_is_not_root_is_told_so(command: tuple[str, ...]) -> None:
    program = "import os; os.geteuid = lambda: 1000; from splitwgd.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True, check=False, timeout=30
    )
    what = " ".join(command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"splitwg: {what} changes files of root's; run it as root (sudo splitwg {what})\n"
