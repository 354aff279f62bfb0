"""How it stands: for people and for scripts, with a daemon. Without one: tests/kernel/test_daemon_runs.py."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from splitwgd.errors import SplitwgError
from splitwgd.status import STATES
from tests.test_cli import Daemon, daemon, path, run

__all__ = ["daemon", "path"]  # fixtures

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
    "because": "listed sites go through wg0",
    "trouble": "",
    "tunnels": [TUNNEL],
    "addresses": {"wg_domains4": 12},
    "bypasses": {"redirected": 9, "refused_plain": 1, "refused_tls": 2, "refused_https": 3, "found_open": 4},
    "questions": {"asked": 5, "from_cache": 2},
    "servers": {"default": {"9.9.9.9": {"is": "well", "ms": 12.3}, "tls://9.9.9.9": {"is": "silent", "ms": None}}},
    "repairs": 3,
    "held": ["nft table inet wg_routing: 4 sets, 6 chains, 30 rules"],
    "differs": ["+ ip link wg0"],
}


def test_status_is_for_people_and_for_scripts(path: Path, daemon: Daemon) -> None:
    daemon.answers["status"] = STATUS
    said = run(path, "status").output
    assert said.startswith("splitwg is on: listed sites go through wg0\n")
    for words in (
        "tunnel wg0, wanted up: 3 domains, 1 networks:\n"
        "  192.0.2.1:51820  last handshake 7 s ago  500 B in  3.0 GiB out\n"
        "  without an address yet  no handshake yet  500 B in  2.0 KiB out\n",
        "  9.9.9.9  well  12 ms  default\n  tls://9.9.9.9  silent  default\n",
        "  wg_domains4  12\n",
        "  asked  5\n  from cache  2\n",
        "  questions to others, led here  9\n  refused: to port 53  1\n  refused: over TLS  2\n",
        "  open in clear before the name was known  4\n",
        "removed by others and put back: 3 times\n",
        "the kernel holds:\n  nft table inet wg_routing",
        "and that is not as wanted:\n  + ip link wg0\n",
    ):
        assert words in said
    assert json.loads(run(path, "status", "--json").output) == STATUS


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_the_exit_status_is_the_word(path: Path, daemon: Daemon, state: str, option: list[str]) -> None:
    daemon.answers["status"] = STATUS | {"state": state}
    assert run(path, "status", *option).exit_code == STATES.index(state)


def test_what_cannot_be_told_is_none_of_the_words(path: Path, daemon: Daemon) -> None:
    daemon.answers["status"] = SplitwgError("no right to ask")
    done = run(path, "status")
    assert (done.exit_code, done.stderr) == (4, "splitwg: no right to ask\n")


def test_a_wrong_call_has_none_of_the_words_either(path: Path) -> None:
    assert run(path, "status", "--jsn").exit_code == 4


TERMINAL = """
import json, sys
from splitwgd import cli, overview
found = json.loads(sys.argv[1])
overview.ask = lambda request: found
cli.main(["status"])
"""


@pytest.mark.parametrize("colours", [True, False])
def test_a_terminal_gets_columns_and_colours_unless_it_wants_none(colours: bool) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"} | ({} if colours else {"NO_COLOR": "1"})
    argv = [sys.executable, "-c", TERMINAL, json.dumps(STATUS)]
    done = subprocess.run(argv, stdout=theirs, stderr=theirs, env=environment, check=False, timeout=60)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # EIO: the other end is closed, and all is read
        pass
    os.close(ours)
    text = said.decode().replace("\r\n", "\n")
    assert done.returncode == 0 and ("\x1b[" in text) is colours
    if not colours:
        assert "  9.9.9.9        well    12 ms  default" in text


def test_scripts_do_not_wait_for_what_only_terminals_need() -> None:
    code = TERMINAL.replace('["status"]', '["status", "--json"], standalone_mode=False') + "\n"
    code = code.replace("cli.main(", "import contextlib\nwith contextlib.suppress(SystemExit): cli.main(")
    argv = [sys.executable, "-c", f"{code}print('rich' in sys.modules, file=sys.stderr)", json.dumps(STATUS)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "False\n" and json.loads(done.stdout)["state"] == "on"
