"""UDP sockets towards DNS servers, each with a random port that the kernel chose, connected to its server: the
kernel then lets in only what the server's own address and port sent (RFC 5452 §9.2).

A socket is used again only after a thousand others: under load that spares two thirds of its cost, and a port
still cannot be guessed, nor found out by trying (SAD DNS) before it has changed. At rest every question has a
fresh one.
"""

from __future__ import annotations

import asyncio
import secrets
import select
import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from splitwgd.turn import Turn
from splitwgd.way import Way, endpoint, open_socket

RESERVE = 1024  # sockets of one way that rest before the first of them is used again
REST = 10.0  # seconds, at most
_AT_ONCE = 256  # sockets that are read in one turn of the loop
_MOST = 4096  # bytes; we ask for at most 1,232, and what is cut does not parse


def _idents() -> Iterator[int]:
    while True:
        # A system call for each would cost as much as sending the question.
        yield from struct.unpack("=512H", secrets.token_bytes(1024))


random_ident = _idents().__next__


class Owner(Protocol):
    """Whose question is on its way."""

    def heard(self, port: Port, data: bytes | OSError) -> None:
        """The server sent this, or an ICMP error came back."""

    def unsent(self, port: Port, error: OSError) -> None:
        """What was given to this port cannot leave the machine."""


class Berth:
    """Where the ports of one way rest; the first of them for the longest."""

    __slots__ = ("resting", "way")

    def __init__(self, way: Way) -> None:
        self.way = way
        self.resting: deque[Port] = deque()


class Port:
    """One socket. ident and question are what was asked on it last, at `since`, or since when it rests; wrong
    counts replies that did not fit."""

    __slots__ = ("berth", "generation", "ident", "owner", "question", "since", "sock", "way", "wrong")

    def __init__(self, berth: Berth, generation: int) -> None:
        way = berth.way
        self.way = way
        self.berth = berth
        self.generation = generation
        self.owner: Owner | None = None
        self.ident = 0
        self.question = b""
        self.wrong = 0
        self.since = 0.0
        self.sock = open_socket(way, socket.SOCK_DGRAM)
        try:
            self.sock.connect(endpoint(way.server))
        except OSError:
            self.sock.close()
            raise


class Ports:
    """All of them, behind one descriptor of the loop's: a reader for each would cost more than its question."""

    def __init__(self, turn: Turn, reserve: int = RESERVE) -> None:
        self.turn = turn
        self.loop = turn.loop
        self.reserve = reserve
        self._epoll = select.epoll()
        self._by_descriptor: dict[int, Port] = {}
        self._berths: set[Berth] = set()  # where any rest
        self._outbox: list[tuple[Port, bytes]] = []
        self._generation = 0
        self._sweep: asyncio.TimerHandle | None = None
        self.loop.add_reader(self._epoll.fileno(), turn.drain, self._drain)

    def __len__(self) -> int:
        return len(self._by_descriptor)

    def take(self, berth: Berth, owner: Owner) -> Port:
        """A port for one question. Raises OSError."""
        if len(berth.resting) >= self.reserve:
            port = berth.resting.popleft()
        else:
            port = Port(berth, self._generation)
            descriptor = port.sock.fileno()
            self._by_descriptor[descriptor] = port
            self._epoll.register(descriptor, select.EPOLLIN)
        port.owner = owner
        return port

    def send(self, port: Port, message: bytes) -> None:
        """Sends it, one behind another with what else is sent in this turn of the loop: a system call makes the
        interpreter slow for a while after it (what the processor had learned of its jumps is lost)."""
        if not self._outbox:
            self.turn.at_end(self._flush)
        self._outbox.append((port, message))

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        failed = []
        for port, message in outbox:
            try:
                port.sock.send(message)
            except OSError as error:
                failed.append((port, error))
        for port, reason in failed:
            if port.owner is not None:  # it was not dropped within this turn
                port.owner.unsent(port, reason)

    def give_back(self, port: Port, now: float) -> None:
        """The question is answered, or given up."""
        port.owner = None
        if port.wrong or port.generation != self._generation:
            self.throw_away(port)
            return
        port.since = now
        if not port.berth.resting:
            self._berths.add(port.berth)
        port.berth.resting.append(port)
        if self._sweep is None:
            self._sweep = self.loop.call_later(REST, self._close_rested)

    def throw_away(self, port: Port) -> None:
        """Closes it."""
        port.owner = None
        descriptor = port.sock.fileno()
        if descriptor >= 0:
            del self._by_descriptor[descriptor]
            self._epoll.unregister(descriptor)
            port.sock.close()

    def refresh(self) -> None:
        """The network is another one: what was connected before may have the wrong source address, or link."""
        self._generation += 1
        for berth in self._berths:
            for port in berth.resting:
                self.throw_away(port)
            berth.resting.clear()
        self._berths.clear()

    def _close_rested(self) -> None:
        before = self.loop.time() - REST
        for berth in list(self._berths):
            while berth.resting and berth.resting[0].since <= before:
                self.throw_away(berth.resting.popleft())
            if not berth.resting:
                self._berths.discard(berth)
        self._sweep = self.loop.call_later(REST / 2, self._close_rested) if self._berths else None

    def _drain(self) -> None:
        heard: list[tuple[Port, bytes | OSError]] = []
        for descriptor, _ in self._epoll.poll(0, _AT_ONCE):
            port = self._by_descriptor[descriptor]
            try:
                heard.append((port, port.sock.recv(_MOST)))
            except BlockingIOError:
                continue
            except OSError as error:
                heard.append((port, error))
        for port, data in heard:
            if port.owner is not None:
                port.owner.heard(port, data)
            elif isinstance(data, OSError) and port in port.berth.resting:
                port.berth.resting.remove(port)
                self.throw_away(port)

    def close(self) -> None:
        """Closes every socket."""
        if self._sweep is not None:
            self._sweep.cancel()
        self.loop.remove_reader(self._epoll.fileno())
        for port in list(self._by_descriptor.values()):
            self.throw_away(port)
        self._epoll.close()
