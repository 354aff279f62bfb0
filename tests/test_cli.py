"""The client without a daemon and without root: what it edits, lists and says. The rest is in tests/kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from splitwgd import __version__, cli, listing, overview, removal
from splitwgd.control import NoDaemon
from splitwgd.errors import SplitwgError
from tests.worlds import WG

TOML = """# mine
[dns]
tunneled = ["10.1.0.1"]
default = ["9.9.9.9"]

[tunneled]
domains = [
    "github.com",     # code
    "=example.org",
    # Add your domains here
]
networks = ["198.51.100.0/24"]
lists = ["lists/*.txt"]

[wireguard]
config = "wg0.conf"
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/more.txt").write_text("*.example.net # wide\n!www.example.net\n")
    (tmp_path / "wg0.conf").write_text(WG)
    (tmp_path / "domains.toml").write_text(TOML)
    return tmp_path / "domains.toml"


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["--config", str(path), *arguments])


# -- with a daemon


class Daemon:
    """Answers for the daemon; `answers` are by what it is told to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.answers: dict[str, dict[str, Any] | SplitwgError] = {}
        for module in (cli, listing, overview, removal):
            monkeypatch.setattr(module, "ask", self.ask)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.told.append(request["do"])
        answer = self.answers.get(request["do"], {"trouble": ""})
        if isinstance(answer, SplitwgError):
            raise answer
        return answer


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    yield Daemon(monkeypatch)


@pytest.mark.parametrize(
    ("verb", "words"),
    [("down", "down: what is tunneled is closed\n"), ("up", "up: the link is back\n")],
)
def test_up_and_down_are_told_and_trouble_is_an_error(path: Path, daemon: Daemon, verb: str, words: str) -> None:
    done = run(path, verb)
    assert (done.exit_code, done.output, daemon.told) == (0, words, [verb])
    daemon.answers[verb] = {"trouble": "no WireGuard anywhere"}
    done = run(path, verb)
    assert (done.exit_code, done.stderr) == (1, "splitwg: no WireGuard anywhere\n")


@pytest.mark.parametrize("verb", ["up", "down"])
def test_up_and_down_need_a_daemon(path: Path, verb: str) -> None:
    done = run(path, verb)
    assert done.exit_code == 1
    assert done.stderr.startswith("splitwg: splitwgd does not answer on ") and done.stderr.count("\n") == 1


SHARED = {
    "address": "192.0.2.1",
    "tunnel": "wg0",
    "network": "",
    "names": ["a.example", "b.example"],
    "more": True,
    "seconds": 3700,
    "plain": ["shop.example", "x.example"],
}
FREE = SHARED | {"address": "192.0.2.2", "tunnel": "", "names": [], "more": False, "plain": ["shop.example"]}
LISTED = FREE | {"address": "192.0.2.3", "tunnel": "wg0", "network": "192.0.2.0/29", "plain": []}
NAME = {"name": "a.example", "tunnel": "wg0", "asked_at": "wg0", "entry": "example", "led_by": "", "addresses": []}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            NAME,
            [
                "a.example is tunneled through wg0: by the entry for example; asked at: wg0",
                "  no address of it is known",
            ],
        ),
        (
            NAME | {"tunnel": "", "entry": "", "asked_at": "default", "addresses": [FREE]},
            ["a.example is not tunneled: not listed; asked at: default", "  192.0.2.2 is not tunneled: shop.example"],
        ),
        (
            NAME | {"led_by": "b.example", "addresses": [SHARED]},
            [
                "a.example is tunneled through wg0: a record of b.example leads to it; asked at: wg0",
                "  192.0.2.1 is tunneled through wg0: a.example, b.example, others led to it, for 61 min more",
                "    and so, for those who go there, are shop.example, x.example: not listed, on the same address",
            ],
        ),
        (
            {
                "name": "",
                "addresses": [LISTED | {"mark": "0x1", "way": "wg0, table 100"}, FREE | {"mark": "0x0", "way": "eth0"}],
                "flows": [{"protocol": "tcp", "to": "192.0.2.3", "port": 443, "bytes": 1200}],
            },
            [
                "  192.0.2.3 is tunneled through wg0: it is in 192.0.2.0/29, which is listed",
                "    mark 0x1; its way: wg0, table 100",
                "  192.0.2.2 is not tunneled: shop.example; its way: eth0",
                "  under way: tcp to 192.0.2.3 port 443, 1200 bytes",
            ],
        ),
        (
            {"name": "", "addresses": [LISTED]},
            ["  192.0.2.3 is tunneled through wg0: it is in 192.0.2.0/29, which is listed"],
        ),
    ],
)
def test_why_is_told_in_words_and_for_scripts(
    path: Path, daemon: Daemon, found: dict[str, Any], words: list[str]
) -> None:
    daemon.answers["why"] = found
    assert run(path, "why", "a.example").output.splitlines() == words
    assert json.loads(run(path, "why", "a.example", "--json").output) == found


def test_teardown_waits_for_the_end_of_the_daemon(path: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert other.stdin

        def end() -> None:
            order.append("told to end")
            other.stdin.close()  # type: ignore[union-attr]

        daemon.answers["teardown"] = {"pid": other.pid}
        monkeypatch.setattr(removal, "Kernel", lambda owner: no_kernel(owner) if order else pytest.fail("too soon"))
        timer = threading.Timer(0.05, end)
        timer.start()
        done = run(path, "teardown")
        timer.join()
    assert (done.exit_code, done.stderr, daemon.told) == (1, "splitwg: no kernel here\n", ["teardown"])


def no_kernel(owner: object) -> None:
    raise SplitwgError("no kernel here")


def test_a_daemon_that_does_not_end_is_named(path: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "_STOP_PATIENCE", 0.0)
    daemon.answers["teardown"] = {"pid": os.getpid()}
    done = run(path, "teardown")
    assert done.exit_code == 1
    assert f"splitwgd (pid {os.getpid()}) was told to stop and still runs" in done.stderr


def test_no_daemon_is_no_error_to_teardown(path: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.answers["teardown"] = NoDaemon("nobody there")
    monkeypatch.setattr(removal, "Kernel", no_kernel)
    done = run(path, "teardown")
    assert (done.exit_code, done.stderr) == (1, "splitwg: no kernel here\n")


def test_flush_tells_how_much_was_forgotten(path: Path, daemon: Daemon) -> None:
    daemon.answers["flush"] = {"forgotten": 12}
    done = run(path, "flush")
    assert (done.exit_code, done.output, daemon.told) == (0, "12 answers forgotten\n", ["flush"])


# -- the call


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(cli.main, ["--version"]).output == f"splitwg, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["add", "--help"], ["status", "-h"]])
def test_help_is_there(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 0 and "Usage: " in done.output


@pytest.mark.parametrize("arguments", [["dance"], ["--dance", "list"], ["list", "--dance"]])
def test_a_wrong_call_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli.main, arguments).exit_code == 2
