"""Who has a port: found by /proc, named with what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from splitwgd import holder
from splitwgd.holder import holder_of, holders
from tests.worlds import free_port, ip

HOLD = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
sock = socket.socket(family, int(sys.argv[1]))
if family == socket.AF_INET6 and sys.argv[4] == "only": sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
sock.bind((sys.argv[2], int(sys.argv[3])))
if int(sys.argv[1]) == socket.SOCK_STREAM: sock.listen()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(kind: int, address: str, port: int, *, program: str = sys.executable, only: str = "") -> Iterator[int]:
    """A process that holds the port; its pid."""
    argv = [program, "-c", HOLD, str(int(kind)), address, str(port), only]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == b"held\n"
        try:
            yield process.pid
        finally:
            process.stdin.close()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize(
    ("bound", "wanted"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.53", "127.0.0.53"),
        ("::1", "::1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("::", "127.0.0.1"),
    ],
)
def test_the_process_that_holds_it_is_named(kind: socket.SocketKind, bound: str, wanted: str) -> None:
    port = free_port()
    with held(kind, bound, port) as pid:
        words = holder_of(ip(wanted), port, kind)
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    assert words.startswith(f"taken by {name} (pid {pid}")
    assert words.partition("; ")[2]


def test_another_address_port_or_protocol_is_not_named() -> None:
    port = free_port()
    with held(socket.SOCK_DGRAM, "127.0.0.2", port) as pid:
        for wanted, number, kind in (
            ("127.0.0.1", port, socket.SOCK_DGRAM),
            ("127.0.0.2", port + 1, socket.SOCK_DGRAM),
            ("127.0.0.2", port, socket.SOCK_STREAM),
            ("::1", port, socket.SOCK_DGRAM),
        ):
            assert f"(pid {pid}" not in holder_of(ip(wanted), number, kind)


def test_a_connection_from_that_port_is_no_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert "cannot be seen" in holder_of(ip("127.0.0.1"), client.getsockname()[1], socket.SOCK_STREAM)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("systemd-resolved", "DNSStubListener=no"),
        ("systemd-resolve", "DNSStubListener=no"),  # the kernel's comm has 15 characters
        ("dnsmasq", "listen-address="),
        ("splitwgd", "stop that one first"),
        ("unbound", "stop it"),
    ],
)
def test_a_known_holder_comes_with_its_remedy(tmp_path: Path, name: str, words: str) -> None:
    program = tmp_path / ("systemd-resolved" if name.startswith("systemd") else name)
    program.symlink_to(shutil.which(sys.executable) or sys.executable)
    port = free_port()
    with held(socket.SOCK_DGRAM, "127.0.0.53", port, program=str(program)) as pid:
        said = holder_of(ip("127.0.0.53"), port, socket.SOCK_DGRAM)
    assert f"(pid {pid}" in said and words in said.partition("; ")[2]


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/named.service\n", "named.service"),
        ("1:name=systemd:/system.slice/system-x.slice/x@1.service/child\n0::/\n", "x@1.service"),
        ("0::/user.slice/session-1.scope\n", ""),
        ("", ""),
    ],
)
def test_the_unit_is_read_from_the_cgroup(tmp_path: Path, cgroup: str, unit: str) -> None:
    (tmp_path / "cgroup").write_text(cgroup)
    assert holder._unit(tmp_path) == unit


def test_a_unit_is_named_with_the_command_that_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "_unit", lambda process: "named.service")
    port = free_port()
    with held(socket.SOCK_DGRAM, "127.0.0.1", port) as pid:
        words = holder_of(ip("127.0.0.1"), port, socket.SOCK_DGRAM)
    assert words.endswith(f"(pid {pid}, named.service); stop it (systemctl stop named.service)")


def test_what_cannot_be_seen_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "_processes", list)
    port = free_port()
    with held(socket.SOCK_DGRAM, "127.0.0.1", port):
        words = holder_of(ip("127.0.0.1"), port, socket.SOCK_DGRAM)
    assert words == "taken by a process that cannot be seen from here; look as root with `ss -lnup` and `ss -lntp`"


def test_a_descriptor_that_is_closed_under_our_eyes_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    readlink = os.readlink
    calls: list[object] = []

    def gone_at_first(path: str) -> str:
        calls.append(path)
        if len(calls) == 1:
            raise FileNotFoundError(2, "No such file or directory", path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", gone_at_first)
    with socket.socket() as sock:
        assert str(os.fstat(sock.fileno()).st_ino) in holder._sockets_of(Path(f"/proc/{os.getpid()}"))


def test_processes_that_end_under_our_eyes_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path(f"/proc/{os.getpid()}")
    monkeypatch.setattr(holder, "_processes", lambda: [Path("/proc/999999999"), own])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        assert f"(pid {os.getpid()}" in holder_of(ip("127.0.0.1"), sock.getsockname()[1], socket.SOCK_DGRAM)


def test_everybody_who_has_a_port_is_found_with_his_name() -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(socket.AF_INET6) as two:
        one.bind(("127.0.0.2", port))
        two.bind(("::1", port))
        assert [(str(h.address), h.transport) for h in holders(port) or ()] == [("127.0.0.2", "UDP")]
        two.listen()
        found = {(str(h.address), h.transport, h.pid) for h in holders(port) or ()}
    assert found == {("127.0.0.2", "UDP", os.getpid()), ("::1", "TCP", os.getpid())}
