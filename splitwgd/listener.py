"""Listens for questions on loopback, UDP and TCP, and sends the replies back. Knows nothing of DNS beyond
the length before a message on TCP (RFC 1035 §4.2.2).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from splitwgd.bulk import Bulk
from splitwgd.connection import Connection, Crowd
from splitwgd.errors import MachineError
from splitwgd.holder import holder_of
from splitwgd.netlink import has_ipv6
from splitwgd.objects import Ip

log = logging.getLogger("splitwgd.dns")
DNS_PORT = 53
_MANY = 8  # questions at once: then there are more by now, and a turn of the loop for them would cost as much as two
_ROUNDS = 4  # in one turn, so that answers get theirs


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
    """What is open for one address."""

    datagrams: socket.socket
    streams: socket.socket
    server: asyncio.Server | None = None


class Listener:
    """The open sockets. `take` is called with each message and its client, but for those whose reply is `ready`:
    by the bytes after the id, and without an id itself."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ready: dict[bytes, bytes]) -> None:
        self.loop = loop
        self.ready = ready
        self.given = 0  # ready replies
        self.take: Take | None = None
        self._doors: dict[Ip, _Door] = {}
        self.crowd = Crowd(loop, self._take)

    def bind(self, addresses: tuple[Ip, ...]) -> None:
        """Opens what is missing; questions wait in the sockets until `start`. Raises MachineError, and then
        nothing was opened."""
        new: dict[Ip, _Door] = {}
        try:
            for address in addresses:
                if address.version == 6 and not has_ipv6():
                    log.warning("not listening on %s: this machine does without IPv6", address)
                elif address not in self._doors:
                    datagrams = _bound(address, socket.SOCK_DGRAM)
                    new[address] = _Door(datagrams, datagrams)
                    new[address].streams = _bound(address, socket.SOCK_STREAM)
        except MachineError:
            for door in new.values():
                door.datagrams.close()
                door.streams.close()
            raise
        self._doors.update(new)

    async def start(self, take: Take) -> None:
        """From here on questions are taken, at every door."""
        self.take = take
        for door in self._doors.values():
            if door.server is None:
                self.loop.add_reader(door.datagrams.fileno(), self._drain, Bulk(self.loop, door.datagrams))
                door.server = await self.loop.create_server(lambda: Connection(self.crowd), sock=door.streams)

    def keep_only(self, addresses: tuple[Ip, ...]) -> None:
        """Closes the doors at other addresses."""
        for address in [address for address in self._doors if address not in addresses]:
            self._close(self._doors.pop(address))

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

    def _close(self, door: _Door) -> None:
        if door.server is not None:
            self.loop.remove_reader(door.datagrams.fileno())
            door.server.close()
        door.datagrams.close()
        door.streams.close()

    def close(self) -> None:
        """Closes every socket and connection."""
        self.keep_only(())
        self.crowd.close()


def _bound(address: Ip, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((str(address), DNS_PORT))
        if kind == socket.SOCK_STREAM:
            sock.listen(128)
    except OSError as error:
        sock.close()
        raise _explained(error, address, kind) from error
    return sock


def _explained(error: OSError, address: Ip, kind: socket.SocketKind) -> MachineError:
    transport = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
    where = f"cannot listen on {address} port {DNS_PORT} ({transport})"
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(address, DNS_PORT, kind)
        return MachineError(f"{where}: {holder}")
    if error.errno == errno.EACCES:
        return MachineError(f"{where}: no right to; run splitwgd as root or with CAP_NET_BIND_SERVICE")
    if error.errno == errno.EADDRNOTAVAIL:
        return MachineError(f"{where}: no link has this address; bring up lo, or change dns.listen")
    return MachineError(f"{where}: {error.strerror}")
