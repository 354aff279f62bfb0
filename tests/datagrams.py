"""A DNS server on loopback that speaks UDP, and TCP if it is told how, and does what a test wants; who asks it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import Any

import pytest
from dnslib import QTYPE, RR, DNSRecord
from dnslib import A as ARecord

from splitwgd.channels import Channels
from splitwgd.errors import UpstreamError
from splitwgd.message import A, Query, question_for
from splitwgd.names import parse_name
from splitwgd.reply import Reply
from splitwgd.servers import Server
from splitwgd.upstream import Upstreams
from splitwgd.way import Way
from splitwgd.zones import Group
from tests.tls import trusting
from tests.worlds import eventually, free_port, server

QUERY = question_for(parse_name("example.com"), A)
Peer = tuple[str, int]
Outcome = Reply | UpstreamError
Udp = Callable[["Fake", bytes, Peer], None]
Tcp = Callable[[bytes], Iterable[bytes]]


def leave_unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    """SO_MARK needs root."""

    def plain(way: Way, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET if way.server.address.version == 4 else socket.AF_INET6
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    for module in ("ports", "channels"):
        monkeypatch.setattr(f"splitwgd.{module}.open_socket", plain)


def lose_patience(monkeypatch: pytest.MonkeyPatch, patience: float = 0.1, deadline: float = 0.5) -> None:
    """Time is dear."""
    monkeypatch.setattr("splitwgd.upstream.FIRST_PATIENCE", patience)
    monkeypatch.setattr("splitwgd.exchange.PATIENCE", (patience,) * 3)
    monkeypatch.setattr("splitwgd.exchange.DEADLINE", deadline)


class Fake:
    """The server. `udp` does what it does with a datagram, `tcp` gives the pieces of its answer."""

    def __init__(
        self, udp: Udp | None = None, tcp: Tcp | None = None, address: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.udp = udp
        self.tcp = tcp
        self.asked: list[tuple[bytes, Peer]] = []
        self.asked_over_tcp: list[bytes] = []
        self.server = server(address, port or free_port(address))
        self.sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind((address, self.server.port))
        self.streams: asyncio.Server | None = None

    async def __aenter__(self) -> Fake:
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self._take)
        if self.tcp is not None:
            self.streams = await asyncio.start_server(self._serve, str(self.server.address), self.server.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self.sock.fileno())
        self.sock.close()
        if self.streams is not None:
            self.streams.close()
            await self.streams.wait_closed()

    def _take(self) -> None:
        data, client = self.sock.recvfrom(4096)
        self.asked.append((data, client))
        if self.udp is not None:
            self.udp(self, data, client)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        question = await reader.readexactly(length)
        self.asked_over_tcp.append(question)
        assert self.tcp is not None
        for piece in self.tcp(question):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()

    def send(self, message: bytes, client: Peer) -> None:
        self.sock.sendto(message, client)


def answer(question: bytes, address: str = "192.0.2.1", rcode: int = 0, tc: bool = False, name: str = "") -> bytes:
    """A reply without OPT."""
    reply = DNSRecord.parse(question).reply()
    reply.header.rcode, reply.header.tc = rcode, int(tc)
    if name:
        reply.q.qname = name
    if rcode == 0 and not tc:
        reply.add_answer(RR(str(reply.q.qname), QTYPE.A, ttl=60, rdata=ARecord(address)))
    return bytes(reply.pack())


def says(**how: Any) -> Udp:
    return other(lambda data: answer(data, **how))


def other(change: Callable[[bytes], bytes]) -> Udp:
    """Sends what this makes of the question."""
    return lambda fake, data, client: fake.send(change(data), client)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def over_tcp(**how: Any) -> Tcp:
    return lambda data: [framed(answer(data, **how))]


def play(story: Callable[[Upstreams], Awaitable[None]], closes: bool = False) -> None:
    """A story leaves no socket, timer or question behind, and no complaint on the loop. closes: it ends them all."""

    async def run() -> None:
        loop, complaints = asyncio.get_running_loop(), list[Any]()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        before = len(os.listdir("/proc/self/fd"))
        upstreams = Upstreams(loop, Channels(loop, trusting()))
        try:
            await story(upstreams)
            assert not upstreams.under_way()
        finally:
            if not closes:
                upstreams.close()
        await eventually(lambda: len(os.listdir("/proc/self/fd")) == before)
        assert complaints == []

    asyncio.run(run())


def group_of(*servers: Fake | Server, name: str = "default") -> Group:
    return Group(name, tuple(each.server if isinstance(each, Fake) else each for each in servers), 0)


def send(upstreams: Upstreams, group: Group, query: Query = QUERY) -> list[Outcome]:
    """What will have come of it."""
    outcomes: list[Outcome] = []
    upstreams.ask(query, group, outcomes.append)
    assert outcomes == []  # never before the call has returned
    return outcomes


async def ask(upstreams: Upstreams, *servers: Fake | Server, query: Query = QUERY) -> Outcome:
    outcomes = send(upstreams, group_of(*servers), query)
    await eventually(lambda: outcomes)
    return outcomes[0]


def addresses(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Reply), outcome
    return [str(ip_address(address)) for address in outcome.addresses]
