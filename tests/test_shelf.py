"""Sockets that outlive a process: what systemd is told, on a socket of the test's, and what the next process finds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitwgd.shelf import Shelf

NEXT = """
import json, os, socket, sys
os.environ["LISTEN_PID"] = os.environ.get("LISTEN_PID") or str(os.getpid())
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
from splitwgd.shelf import Shelf
shelf = Shelf()
found = {name: sock and [sock.getsockname()[1], sock.getblocking(), sock.get_inheritable()]
         for name in sys.argv[3:] for sock in [shelf.take(name)]}
left = [key for key in os.environ if key.startswith("LISTEN_")]
again = shelf.take(sys.argv[3])
shelf.clear()
print(json.dumps([found, left, again is None]))
"""


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(f"{tmp_path}/notify")
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
        yield sock


@pytest.fixture
def ours() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def test_a_socket_is_handed_over_with_its_name_and_let_go_by_it(systemd: socket.socket, ours: socket.socket) -> None:
    shelf = Shelf()
    shelf.keep("udp 127.0.0.1", ours)
    words, (descriptor,), _, _ = socket.recv_fds(systemd, 4096, 1)
    assert words.decode().split("\n") == ["FDSTORE=1", "FDNAME=udp 127.0.0.1", "FDPOLL=0"]
    with socket.socket(fileno=descriptor) as copy:
        assert copy.getsockname() == ours.getsockname()
    shelf.drop("udp 127.0.0.1")
    assert systemd.recv(4096).decode().split("\n") == ["FDSTOREREMOVE=1", "FDNAME=udp 127.0.0.1"]


def test_without_systemd_or_with_one_that_is_gone_nothing_happens(
    ours: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in ("", f"{tmp_path}/nobody"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        shelf = Shelf()
        shelf.keep("udp 127.0.0.1", ours)
        shelf.drop("udp 127.0.0.1")
        shelf.clear()
        assert shelf.take("udp 127.0.0.1") is None


def next_process(ours: socket.socket, **environment: str) -> tuple[dict[str, list[int]], list[str], bool]:
    """What the next process finds: by name, in its environment, and whether a socket is given twice."""
    with open(os.devnull) as other:
        descriptors = ours.fileno(), other.fileno()
        argv = [sys.executable, "-c", NEXT, *map(str, descriptors), "udp 127.0.0.1", "no socket", "new"]
        done = subprocess.run(
            argv,
            pass_fds=descriptors,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    found, left, once = json.loads(done.stdout)
    return found, left, once


def test_the_next_process_finds_it_and_lets_go_of_what_it_does_not_take(
    systemd: socket.socket, ours: socket.socket
) -> None:
    found, left, once = next_process(ours, LISTEN_FDS="2", LISTEN_FDNAMES="udp 127.0.0.1:no socket")
    assert found == {"udp 127.0.0.1": [ours.getsockname()[1], False, False], "no socket": None, "new": None}
    assert left == [] and once
    next_process(ours, LISTEN_FDS="2", LISTEN_FDNAMES="former:no socket")
    assert systemd.recv(4096).decode().split("\n") == ["FDSTOREREMOVE=1", "FDNAME=former"]


@pytest.mark.parametrize("wrong", [{"LISTEN_PID": "1"}, {"LISTEN_FDS": "two"}, {"LISTEN_FDS": ""}])
def test_what_is_not_meant_for_this_process_is_not_taken(ours: socket.socket, wrong: dict[str, str]) -> None:
    found, left, _ = next_process(ours, **({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "udp 127.0.0.1"} | wrong))
    assert set(found.values()) == {None} and left == []
