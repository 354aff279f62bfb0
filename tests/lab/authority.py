"""Authorities for the tests of the protocol: one that says what a function says, and Debian's unbound.

A `Scripted` server is a thread of the test itself with sockets on a host of the lab. It answers nothing of its own.
"""

from __future__ import annotations

import heapq
import os
import selectors
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .asking import ask, inside
from .atlas import ZONE
from .hosts import Host
from .load import family_of
from .wire import query

AUTHORITY, REFERENCE, SCRIPTED, SCRIPTED_VPN = "203.0.113.71", "203.0.113.72", "203.0.113.73", "10.1.0.73"
SIGNED = Path(__file__).parent / "zones" / "signed.example.zone"

Answer = Callable[[bytes, bool], Iterable[bytes]]


class Raw(bytes):
    """What goes over TCP as it is, without a length before it."""


class Late(bytes):
    """What goes out as a datagram `after` so many seconds."""

    after: float = 0.0


class Scripted:
    """Calls `answer(question, over TCP)` for each question, and sends what that returns."""

    def __init__(self, host: Host, address: str, answer: Answer) -> None:
        self.answer = answer
        self.asked = {False: 0, True: 0}
        self.selector = selectors.DefaultSelector()
        self.streams: dict[socket.socket, bytearray] = {}
        with inside(host):
            self.udp = socket.socket(family_of(address), socket.SOCK_DGRAM)
            self.tcp = socket.socket(family_of(address), socket.SOCK_STREAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (self.udp, self.tcp):
            sock.bind((address, 53))
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ)
        self.tcp.listen(1024)
        self.late: list[tuple[float, int, bytes, Any]] = []
        self.wake, self.woken = os.pipe()
        self.selector.register(self.wake, selectors.EVENT_READ)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            going_on = True
            while going_on:
                pause = max(self.late[0][0] - time.monotonic(), 0) if self.late else None
                for key, _ in self.selector.select(pause):
                    going_on = self._ready(key.fileobj) and going_on
                while self.late and self.late[0][0] <= time.monotonic():
                    _, _, message, client = heapq.heappop(self.late)
                    self.udp.sendto(message, client)
        except BaseException as error:  # told to the test when it ends
            self.failure = error

    def _ready(self, which: object) -> bool:
        if which is self.udp:
            self._datagrams()
        elif which is self.tcp:
            stream, _ = self.tcp.accept()
            stream.settimeout(5)
            self.streams[stream] = bytearray()
            self.selector.register(stream, selectors.EVENT_READ)
        elif isinstance(which, socket.socket):
            self._stream(which)
        return which != self.wake

    def _datagrams(self) -> None:
        for _ in range(200):
            try:
                question, client = self.udp.recvfrom(65_535)
            except BlockingIOError:
                return
            self.asked[False] += 1
            for message in self.answer(question, False):
                if isinstance(message, Late):
                    entry = (time.monotonic() + message.after, self.asked[False], message, client)
                    heapq.heappush(self.late, entry)
                elif len(message) <= 65_507:
                    self.udp.sendto(message, client)

    def _stream(self, stream: socket.socket) -> None:
        buffer = self.streams[stream]
        try:
            data = stream.recv(65_535)
            buffer += data
            while len(buffer) >= 2 and len(buffer) >= 2 + (length := int.from_bytes(buffer[:2], "big")):
                self.asked[True] += 1
                for message in self.answer(bytes(buffer[2 : 2 + length]), True):
                    stream.sendall(message if isinstance(message, Raw) else len(message).to_bytes(2, "big") + message)
                del buffer[: 2 + length]
        except OSError:
            data = b""
        if not data:
            self._hang_up(stream)

    def _hang_up(self, stream: socket.socket) -> None:
        self.selector.unregister(stream)
        del self.streams[stream]
        stream.close()

    def close(self) -> None:
        """Ends the server; raises what it met."""
        os.write(self.woken, b"!")
        self.thread.join(timeout=10)
        for stream in list(self.streams):
            self._hang_up(stream)
        self.udp.close()
        self.tcp.close()
        self.selector.close()
        os.close(self.wake)
        os.close(self.woken)
        if self.failure is not None:
            raise self.failure


@contextmanager
def scripted(host: Host, address: str, answer: Answer) -> Iterator[Scripted]:
    """Such a server for the length of the block."""
    server = Scripted(host, address, answer)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def scripted_behind_the_tunnel(host: Host, answer: Answer) -> Iterator[Scripted]:
    """The same at SCRIPTED_VPN, which only the tunnel reaches. host: the lab's VPN."""
    host.run("ip", "address", "add", f"{SCRIPTED_VPN}/24", "dev", "wg0")
    try:
        with scripted(host, SCRIPTED_VPN, answer) as server:
            yield server
    finally:
        host.run("ip", "address", "del", f"{SCRIPTED_VPN}/24", "dev", "wg0")


_COMMON = """server:
    interface: {address}
    do-daemonize: no
    username: ""
    chroot: ""
    directory: "/run"
    pidfile: ""
    use-syslog: no
    logfile: ""
    verbosity: 1
    module-config: "iterator"
    access-control: 0.0.0.0/0 allow
    edns-buffer-size: 1232
    so-rcvbuf: 0
    num-queries-per-thread: 4096
    outgoing-range: 4096
    incoming-num-tcp: 100
{more}
remote-control:
    control-enable: no
"""
_ZONE = 'auth-zone:\n    name: "{name}"\n    zonefile: "{file}"\n    for-downstream: yes\n    for-upstream: no\n'


def _unbound(host: Host, address: str, more: str) -> None:
    """Starts it, and waits until it answers. It ends with its host."""
    if shutil.which("unbound") is None:
        pytest.skip("unbound is not installed")
    path = f"/run/unbound-{address}.conf"
    if host.run("test", "-e", path, check=False).returncode == 0:
        return  # a test before this one wanted it, too
    host.write(path, _COMMON.format(address=address, more=more))
    server = host.start("sh", "-c", 'exec unbound -d -c "$1" 2> "$1.log"', "sh", path)
    deadline = time.monotonic() + 10
    while True:
        try:
            if ask(host, query(1, "diff.example", "SOA"), address, patience=0.5):
                return
        except OSError:
            pass  # not bound yet
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"unbound does not start at {address}: {host.read(path + '.log')}")
        time.sleep(0.05)


def authority(host: Host) -> str:
    """`atlas.ZONE` and the signed zone, answered by unbound as their authority; the address at which it stands."""
    host.write("/run/root.zone", ZONE)
    zones = _ZONE.format(name=".", file="/run/root.zone") + _ZONE.format(name="signed.example", file=SIGNED)
    _unbound(host, AUTHORITY, "    max-udp-size: 1232\n" + zones)
    return AUTHORITY


def reference(host: Host) -> str:
    """unbound as a forwarder to that authority: what splitwgd is compared with."""
    authority(host)
    settings = "    max-udp-size: 1232\n    qname-minimisation: no\n"
    more = f'{settings}forward-zone:\n    name: "."\n    forward-addr: {AUTHORITY}\n'
    _unbound(host, REFERENCE, more)
    return REFERENCE
