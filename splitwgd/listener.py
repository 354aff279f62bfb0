"""Listens for questions, on loopback and for those whom we forward for, UDP and TCP, and sends the replies back.
Knows nothing of DNS beyond the length before a message on TCP (RFC 1035 §4.2.2).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from splitwgd.bulk import Bulk
from splitwgd.connection import Connection, Crowd
from splitwgd.errors import MachineError
from splitwgd.holder import holder_of
from splitwgd.objects import FORWARDED_PORT, Downlink, Ip
from splitwgd.resolvers import STUBS
from splitwgd.shelf import Shelf
from splitwgd.sysctls import has_ipv6
from splitwgd.turn import Turn

log = logging.getLogger("splitwgd.dns")
DNS_PORT = 53
_MANY = 8  # questions at once: then there are more by now, and a turn of the loop for them would cost as much as two
_RESOLVED = "/run/systemd/resolve/resolv.conf"  # is there while it runs
_ROUNDS = 4  # in one turn, so that answers get theirs
_RECEIVED = 4 << 20  # bytes: some ten thousand questions that wait while we restart
_CONNECTIONS = 1024  # that wait likewise
_SO_RCVBUFFORCE = 33


class Client(Protocol):
    """Who asked, and how to answer. stream: over TCP, where an answer may be of any size."""

    stream: bool

    def send(self, reply: bytes) -> None:
        """Sends it, or drops it when the client is gone."""

    def hang_up(self) -> None:
        """It gets no answer to what it sent, because that deserves none."""


Take = Callable[[bytes, Client], None]


@dataclass
class _Door:
    """What is open at one place."""

    datagrams: socket.socket
    streams: socket.socket
    server: asyncio.Server | None = None


_Place = Ip | Downlink


class Listener:
    """The open sockets. `take` is called with each message and its client, but for those whose reply is `ready`:
    by the bytes after the id, and without an id itself. shelf: from where sockets come, and where they outlive us."""

    def __init__(self, turn: Turn, ready: dict[bytes, bytes], shelf: Shelf | None = None) -> None:
        self.turn = turn
        self.loop = turn.loop
        self.shelf = shelf or Shelf()
        self.ready = ready
        self.given = 0  # ready replies
        self.take: Take | None = None
        self._doors: dict[_Place, _Door] = {}
        self._left: set[Ip] = set()
        self.crowd = Crowd(self.loop, self._take)

    def bind(self, addresses: tuple[Ip, ...]) -> None:
        """Opens what is missing; questions wait in the sockets until `start`. Raises MachineError, and then
        nothing was opened. What systemd-resolved has for its stub stays its."""
        new: dict[_Place, _Door] = {}
        try:
            for address in addresses:
                if address.version == 6 and not has_ipv6():
                    log.warning("not listening on %s: this machine does without IPv6", address)
                elif address not in self._doors and address not in self._left:
                    try:
                        new[address] = self._open(address)
                    except MachineError as error:
                        if not _is_resolveds(address, error):
                            raise
                        # For good: taken while resolved is restarted, it would have none for its stub.
                        self._left.add(address)
                        log.info("%s is left to systemd-resolved", address)
        except MachineError:
            for place, door in new.items():
                self._close(place, door)
            self.shelf.clear()  # what stands in the way may be one of those
            raise
        self._doors.update(new)

    def addresses(self) -> list[Ip]:
        """Where this machine itself is served."""
        return [place for place in self._doors if not isinstance(place, Downlink)]

    async def admit(self, downlinks: frozenset[Downlink]) -> dict[Downlink, MachineError]:
        """Opens the doors at these that are not open, and closes those at others. Returns what cannot be opened."""
        self._close_all(place for place in self._doors if isinstance(place, Downlink) and place not in downlinks)
        closed = {}
        for downlink in downlinks - self._doors.keys():
            try:
                self._doors[downlink] = self._open(downlink)
            except MachineError as error:
                closed[downlink] = error
        if self.take is not None:
            await self.start(self.take)
        return closed

    async def start(self, take: Take) -> None:
        """From here on questions are taken, at every door."""
        self.take = take
        for door in self._doors.values():
            if door.server is None:
                bulk = Bulk(self.turn, door.datagrams)
                self.loop.add_reader(door.datagrams.fileno(), self.turn.drain, self._drain, bulk)
                door.server = await self.loop.create_server(
                    lambda: Connection(self.crowd), sock=door.streams, backlog=_CONNECTIONS
                )

    def keep_only(self, addresses: tuple[Ip, ...]) -> None:
        """Closes the doors at other addresses."""
        self._close_all(place for place in self._doors if not isinstance(place, Downlink) and place not in addresses)

    def _close_all(self, places: Iterable[_Place]) -> None:
        for place in list(places):
            self._close(place, self._doors.pop(place))

    def _take(self, data: bytes, client: Client) -> None:
        assert self.take is not None
        self.take(data, client)

    def _drain(self, bulk: Bulk) -> None:
        assert self.take is not None
        for _ in range(_ROUNDS):
            try:
                count, given = bulk.exchange(self.ready.get, self.take)
            except OSError:
                return  # nothing is there, or an ICMP error about an earlier reply
            self.given += given
            if count < _MANY:
                return

    def _open(self, place: _Place) -> _Door:
        """Both sockets, or neither. Raises MachineError."""
        datagrams = self._socket(place, socket.SOCK_DGRAM)
        try:
            return _Door(datagrams, self._socket(place, socket.SOCK_STREAM))
        except MachineError:
            self.shelf.drop(_name(place, socket.SOCK_DGRAM))
            datagrams.close()
            raise

    def _socket(self, place: _Place, kind: socket.SocketKind) -> socket.socket:
        name = _name(place, kind)
        sock = self.shelf.take(name) or _bound(place, kind)
        self.shelf.keep(name, sock)
        return sock

    def _close(self, place: _Place, door: _Door) -> None:
        """Nobody will listen there again."""
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            self.shelf.drop(_name(place, kind))
        self._shut(door)

    def _shut(self, door: _Door) -> None:
        self._pause(door)
        door.datagrams.close()
        door.streams.close()

    def _pause(self, door: _Door) -> None:
        if door.server is not None:
            self.loop.remove_reader(door.datagrams.fileno())
            door.server.close()

    def pause(self) -> None:
        """Takes no more questions, but still answers; new ones wait for who has the sockets next, if anybody has."""
        for door in self._doors.values():
            self._pause(door)

    def close(self) -> None:
        """Closes every socket and connection; what is on the shelf stays there."""
        for door in self._doors.values():
            self._shut(door)
        self._doors = {}
        self.crowd.close()


def _name(place: _Place, kind: socket.SocketKind) -> str:
    """Under which a socket is kept; another version of splitwgd has to find it, too."""
    where = f"{place.address} {place.index}" if isinstance(place, Downlink) else str(place)
    return f"{'udp' if kind == socket.SOCK_DGRAM else 'tcp'} {where}".replace(":", "_")


def _is_resolveds(address: Ip, error: MachineError) -> bool:
    """Whether systemd-resolved has it for its stub, which may stay: what the stub asks for its clients comes here, by
    the redirect and by what `splitwg dns take` has told it (docs/decisions/0022)."""
    taken = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
    return taken and address in STUBS and os.path.exists(_RESOLVED)


def _bound(place: _Place, kind: socket.SocketKind) -> socket.socket:
    downlink = place if isinstance(place, Downlink) else None
    address, port = (downlink.address, FORWARDED_PORT) if downlink else (place, DNS_PORT)
    assert not isinstance(address, Downlink)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if downlink is not None:
            # Any link takes packets for every address of this machine; this socket hears those of its own link alone.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, downlink.name.encode() + b"\0")
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            try:
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVED)
            except PermissionError:  # then as much as everybody may have
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED)
        scope = (0, downlink.index) if downlink and address.is_link_local and address.version == 6 else ()
        sock.bind((str(address), port, *scope))
        if kind == socket.SOCK_STREAM:
            sock.listen(_CONNECTIONS)
    except OSError as error:
        sock.close()
        raise _explained(error, address, port, kind) from error
    return sock


def _explained(error: OSError, address: Ip, port: int, kind: socket.SocketKind) -> MachineError:
    transport = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
    where = f"cannot listen on {address} port {port} ({transport})"
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(address, port, kind)
        return MachineError(f"{where}: {holder}")
    if error.errno == errno.EACCES:
        return MachineError(f"{where}: no right to; run splitwgd as root or with CAP_NET_BIND_SERVICE")
    if error.errno == errno.EADDRNOTAVAIL:
        return MachineError(f"{where}: no link has this address; bring up lo, or change dns.listen")
    return MachineError(f"{where}: {error.strerror}")
