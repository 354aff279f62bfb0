"""Sockets of the lab's hosts in the hands of the test: bytes go out as they are, and what comes back is not judged."""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .hosts import Host
from .load import family_of

DAEMON = "127.0.0.53"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def inside(host: Host) -> Iterator[None]:
    """For the length of the block this thread makes its sockets on the host; they stay there."""
    home, there = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/proc/{host.pid}/ns/net", os.O_RDONLY)
    try:
        _enter(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)
        os.close(there)


def dial(host: Host, kind: socket.SocketKind, server: str = DAEMON, patience: float = 6.0) -> socket.socket:
    """A socket of the host, connected to port 53 of a server."""
    with inside(host):
        sock = socket.socket(family_of(server), kind)
    try:
        sock.settimeout(patience)
        sock.connect((server, 53))
    except OSError:
        sock.close()
        raise
    return sock


def ask(host: Host, data: bytes, server: str = DAEMON, patience: float = 6.0) -> bytes | None:
    """One datagram, and the one that answers it; None for silence."""
    with dial(host, socket.SOCK_DGRAM, server, patience) as sock:
        sock.send(data)
        try:
            return sock.recv(65_535)
        except TimeoutError:
            return None


def ask_stream(host: Host, data: bytes, server: str = DAEMON, patience: float = 6.0) -> bytes | None:
    """The same over a TCP connection of its own; None also for a connection that is closed without an answer."""
    with dial(host, socket.SOCK_STREAM, server, patience) as sock:
        sock.sendall(len(data).to_bytes(2, "big") + data)
        try:
            return read_framed(sock)
        except OSError:
            return None


def read_framed(sock: socket.socket) -> bytes | None:
    """The next message of a stream; None at its end. Raises OSError, also when the other end breaks off."""
    head = _exactly(sock, 2)
    return _exactly(sock, int.from_bytes(head, "big")) if head else None


def _exactly(sock: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        more = sock.recv(count - len(got))
        if not more:
            if got or count != 2:
                raise ConnectionResetError("the stream ended within a message")
            return b""
        got += more
    return got


def ask_all(
    host: Host, messages: Sequence[bytes], server: str = DAEMON, at_once: int = 100, patience: float = 6.0
) -> list[bytes | None]:
    """The answers to datagrams, in their order, with None for silence; each is asked from a port that none but it
    is waiting on. `at_once`: how many may be under way."""
    answers: list[bytes | None] = [None] * len(messages)
    waiting: dict[socket.socket, tuple[int, float]] = {}
    todo = iter(enumerate(messages))
    with inside(host), selectors.DefaultSelector() as selector:
        free: list[socket.socket] = []
        late: list[socket.socket] = []  # kept open: nobody else gets their ports, and the answers that come late

        def send() -> bool:
            """Whether there was another one."""
            place, message = next(todo, (-1, b""))
            if place < 0:
                return False
            if free:
                sock = free.pop()
            else:
                sock = socket.socket(family_of(server), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                sock.connect((server, 53))
                selector.register(sock, selectors.EVENT_READ)
            sock.send(message)
            waiting[sock] = place, time.monotonic() + patience
            return True

        try:
            while len(waiting) < at_once and send():
                pass
            while waiting:
                for key, _ in selector.select(0.2):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    data = sock.recv(65_535)
                    if sock in waiting:
                        answers[waiting.pop(sock)[0]] = data
                        free.append(sock)
                        send()
                now = time.monotonic()
                for sock in [sock for sock, (_, until) in waiting.items() if until < now]:
                    del waiting[sock]
                    selector.unregister(sock)
                    late.append(sock)
                    send()
        finally:
            for sock in (*waiting, *free, *late):
                sock.close()
    return answers
