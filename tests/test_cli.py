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

from splitwgd import __version__, cli
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


# -- the list


def test_the_list_shows_what_is_tunneled_from_all_files(path: Path) -> None:
    done = run(path, "list")
    assert done.exit_code == 0
    assert done.output.split() == ["github.com", "=example.org", "*.example.net", "!www.example.net", "198.51.100.0/24"]


def test_added_is_listed_and_every_comment_is_kept(path: Path) -> None:
    done = run(path, "add", "Example.COM", "*.bücher.example", "github.com")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "example.com added",
        "*.xn--bcher-kva.example added",
        "github.com is listed already",
        "splitwgd does not run: it will be so when it starts",
    ]
    assert [line for line in TOML.splitlines() if line not in path.read_text().splitlines()] == []
    assert {"example.com", "*.xn--bcher-kva.example"} < set(run(path, "list").output.split())


def test_removed_is_gone_and_every_other_line_is_kept(path: Path) -> None:
    done = run(path, "remove", "=example.org", "*.example.net")
    assert done.exit_code == 0
    assert done.output.splitlines()[:2] == ["=example.org removed", "*.example.net is not listed in this file"]
    assert path.read_text() == TOML.replace('    "=example.org",\n', "")


def test_add_and_remove_lead_back_to_the_byte(path: Path) -> None:
    run(path, "add", "example.com")
    run(path, "remove", "example.com")
    assert path.read_text() == TOML


@pytest.mark.parametrize("verb", ["add", "remove"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://github.com/x", "a slash cannot be in a name; write the bare domain"),
        ("two words", "a space cannot be in a name"),
        ("a..b", "an empty label"),
        ("", "an empty name"),
        ("x" * 64 + ".com", "63 is the limit"),
    ],
)
def test_what_is_no_domain_is_refused_with_its_remedy_and_nothing_is_written(
    path: Path, verb: str, text: str, words: str
) -> None:
    done = run(path, verb, "example.com", text)
    assert done.exit_code == 2
    assert words in " ".join(done.output.replace("│", " ").split())
    assert path.read_text() == TOML


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_without_a_domain_the_call_is_wrong(path: Path, verb: str) -> None:
    done = run(path, verb)
    assert (done.exit_code, "DOMAIN" in done.output) == (2, True)


@pytest.mark.parametrize("verb", ["add", "remove", "list"])
def test_without_its_file_the_error_names_it(tmp_path: Path, verb: str) -> None:
    missing = tmp_path / "no.toml"
    done = run(missing, verb, *(["example.com"] if verb != "list" else []))
    assert done.exit_code == 2
    assert done.stderr.startswith(f"splitwg: {missing}: ") and "Traceback" not in done.output


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_a_file_that_may_not_be_written_is_told(path: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("splitwgd.store.tempfile.mkstemp", denied)
    done = run(path, verb, "example.com" if verb == "add" else "github.com")
    assert done.exit_code == 1
    assert done.stderr == f"splitwg: {path} cannot be written (Permission denied); run as root\n"
    assert path.read_text() == TOML


def test_a_relative_path_is_understood(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    assert run(Path("domains.toml"), "list").output.startswith("github.com\n")


# -- with a daemon


class Daemon:
    """Answers for the daemon; `answers` are by what it is told to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.answers: dict[str, dict[str, Any] | SplitwgError] = {}
        monkeypatch.setattr(cli, "ask", self.ask)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.told.append(request["do"])
        answer = self.answers.get(request["do"], {"trouble": ""})
        if isinstance(answer, SplitwgError):
            raise answer
        return answer


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    yield Daemon(monkeypatch)


@pytest.mark.parametrize(("verb", "domain"), [("add", "example.com"), ("remove", "github.com")])
def test_the_daemon_is_told_once_of_an_edit(path: Path, daemon: Daemon, verb: str, domain: str) -> None:
    done = run(path, verb, domain)
    assert (done.exit_code, daemon.told) == (0, ["reload"])
    assert "does not run" not in done.output


def test_what_the_daemon_says_against_an_edit_is_passed_on(path: Path, daemon: Daemon) -> None:
    daemon.answers["reload"] = SplitwgError("the file is wrong elsewhere; mend it")
    done = run(path, "add", "example.com")
    assert (done.exit_code, done.stderr) == (1, "splitwg: the file is wrong elsewhere; mend it\n")


@pytest.mark.parametrize(("verb", "words"), [("down", "down: what is tunneled is closed\n"), ("up", "up\n")])
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


PEER = {"public_key": "x", "endpoint": "192.0.2.1:51820", "handshake_age": 7, "received": 500, "sent": 3 << 30}
TUNNEL = {
    "link": "wg0",
    "wanted": "up",
    "domains": 3,
    "networks": 1,
    "servers": ["10.1.0.1"],
    "peers": [PEER, PEER | {"endpoint": None, "handshake_age": None, "sent": 2048}],
    "handshake_age": 7,
}
STATUS = {
    "state": "on",
    "trouble": "",
    "tunnels": [TUNNEL],
    "addresses": {"wg_domains4": 12},
    "bypasses": {"redirected": 9, "refused_plain": 1, "refused_tls": 2, "refused_https": 3, "found_open": 4},
    "questions": {"asked": 5, "from_cache": 2},
    "held": ["nft table inet wg_routing: 4 sets, 6 chains, 30 rules"],
    "differs": ["+ ip link wg0"],
}


def test_status_is_for_people_and_for_scripts(path: Path, daemon: Daemon) -> None:
    daemon.answers["status"] = STATUS
    said = run(path, "status").output
    for words in (
        "splitwg is on\n",
        "wg0 (wanted up): 3 domains, 1 networks, asked at 10.1.0.1",
        "peer 192.0.2.1:51820: last handshake 7 s ago, 500 B in, 3.0 GiB out",
        "peer without an address yet: no handshake yet, 500 B in, 2.0 KiB out",
        "wg_domains4: 12 addresses",
        "5 asked, 2 from cache",
        "other ways to ask: 9 led here; packets refused: 1 to port 53, 2 over TLS, 3 over HTTPS\n",
        "connections that were open before the address of a listed name was known: 4\n",
        "nft table inet wg_routing",
        "that is not as wanted:\n  + ip link wg0",
    ):
        assert words in said
    assert json.loads(run(path, "status", "--json").output) == STATUS


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


def test_trouble_stands_in_the_first_line(path: Path, daemon: Daemon) -> None:
    daemon.answers["status"] = STATUS | {"state": "closed", "trouble": "no WireGuard"}
    assert run(path, "status").output.startswith("splitwg is closed (no WireGuard)\n")


def test_teardown_waits_for_the_end_of_the_daemon(path: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert other.stdin

        def end() -> None:
            order.append("told to end")
            other.stdin.close()  # type: ignore[union-attr]

        daemon.answers["teardown"] = {"pid": other.pid}
        monkeypatch.setattr(cli, "Kernel", lambda owner: no_kernel(owner) if order else pytest.fail("too soon"))
        timer = threading.Timer(0.05, end)
        timer.start()
        done = run(path, "teardown")
        timer.join()
    assert (done.exit_code, done.stderr, daemon.told) == (1, "splitwg: no kernel here\n", ["teardown"])


def no_kernel(owner: object) -> None:
    raise SplitwgError("no kernel here")


def test_a_daemon_that_does_not_end_is_named(path: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_STOP_PATIENCE", 0.0)
    daemon.answers["teardown"] = {"pid": os.getpid()}
    done = run(path, "teardown")
    assert done.exit_code == 1
    assert f"splitwgd (pid {os.getpid()}) was told to stop and still runs" in done.stderr


def test_no_daemon_is_no_error_to_teardown(path: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.answers["teardown"] = NoDaemon("nobody there")
    monkeypatch.setattr(cli, "Kernel", no_kernel)
    done = run(path, "teardown")
    assert (done.exit_code, done.stderr) == (1, "splitwg: no kernel here\n")


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
