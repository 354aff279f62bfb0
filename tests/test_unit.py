"""What the unit calls: when a stop is a stop, and what a reload hands over. For real: tests/system/test_units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from splitwgd import cli, unit
from splitwgd.control import NoDaemon
from splitwgd.errors import ConfigError, Problem, SplitwgError
from splitwgd.programs import Programs, Ran
from tests.test_daemon import TOML
from tests.worlds import WG

STOP = "120 splitwgd.service stop running\n121 other.service start waiting\n"


@pytest.mark.parametrize(
    ("jobs", "state", "stopped"),
    [
        (STOP, "running", True),
        (STOP, "degraded", True),
        (STOP, "stopping", False),
        (STOP.replace("stop", "restart"), "running", False),
        ("121 other.service stop running\n", "running", False),
        ("121 splitwgd.service.d stop running\n", "running", False),
        ("No jobs running.", "running", False),
        ("there is no systemctl", "there is no systemctl", False),
        ("", "", False),
    ],
)
def test_a_stop_is_one_only_where_systemd_says_so(jobs: str, state: str, stopped: bool) -> None:
    assert unit.is_stopped(jobs, state) is stopped


class Machinery(Programs):
    def run(self, *argv: str, given: str = "") -> Ran:
        return Ran(0, STOP if "list-jobs" in argv else "running")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration; what was done instead of the real thing is in `done`."""
    (tmp_path / "wg0.conf").write_text(WG)
    (tmp_path / "domains.toml").write_text(TOML)
    monkeypatch.setattr(unit, "Programs", Machinery)
    return tmp_path / "domains.toml"


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    class Setup:
        def __init__(self, *hands: object) -> None:
            pass

        def give_back(self) -> list[str]:
            found.append("give back")
            return []

    monkeypatch.setattr(unit, "Setup", Setup)
    monkeypatch.setattr(unit, "remove_from_kernel", lambda path: found.append("remove"))
    return found


def answer(monkeypatch: pytest.MonkeyPatch, reply: dict[str, Any] | SplitwgError) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        if isinstance(reply, SplitwgError):
            raise reply
        return reply

    monkeypatch.setattr(unit, "ask", ask)
    return asked


def run(path: Path, *words: str) -> Result:
    return CliRunner().invoke(cli.main, ["--config", str(path), *words])


@pytest.mark.parametrize(("on_stop", "then"), [("open", ["give back", "remove"]), ("closed", [])])
def test_what_the_running_daemon_has_is_done(
    path: Path, done: list[str], on_stop: str, then: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, {"on_stop": on_stop})
    path.write_text("[dns")
    assert run(path, "let-go").exit_code == 0 and done == then


def test_without_a_daemon_the_file_says_it_and_a_broken_one_opens_nothing(
    path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, NoDaemon("nobody there"))
    assert run(path, "let-go").exit_code == 0 and done == ["give back", "remove"]
    done.clear()
    path.write_text("[dns")
    found = run(path, "let-go")
    assert found.exit_code == 1 and done == [] and "what is closed stays closed" in found.stderr


def test_a_restart_touches_nothing(path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machinery, "run", lambda self, *argv: Ran(0, STOP.replace("stop", "restart")))
    asked = answer(monkeypatch, {"on_stop": "open"})
    assert run(path, "let-go").exit_code == 0 and not done and not asked


def test_a_reload_hands_the_wireguard_file_over_and_fails_with_the_daemons_words(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer(monkeypatch, {"trouble": ""})
    assert run(path, "reload").exit_code == 0
    assert asked == [{"do": "reload", "files": {str(path.parent / "wg0.conf"): WG}}]
    answer(monkeypatch, ConfigError([Problem("x", "is wrong", "mend it")]))
    failed = run(path, "reload")
    assert failed.exit_code == 2 and "x: is wrong; mend it" in failed.stderr
    path.write_text("[dns")
    assert run(path, "reload").exit_code == 2
