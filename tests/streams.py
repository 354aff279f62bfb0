"""A DNS server on loopback that speaks TCP, TLS or HTTPS and does what a test wants; and who asks it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes

from splitwgd.channels import Channels
from splitwgd.message import HEADER, RD
from splitwgd.names import parse_name
from splitwgd.servers import Server, Transport
from splitwgd.zones import Group
from tests.tls import NAME, certified
from tests.worlds import eventually, ip

TCP, TLS, HTTPS = Transport.PLAIN, Transport.TLS, Transport.HTTPS
ALPN = {TCP: (), TLS: ("dot",), HTTPS: ("h2",)}
PATH = "/dns-query"
GROUP = Group("default", (), 0)
Outcome = bytes | OSError
every_transport = pytest.mark.parametrize("transport", [TCP, TLS, HTTPS])


@dataclass
class Asked:
    """A question that came in, and the connection on which it did."""

    peer: Peer
    message: bytes
    stream: int = 0

    def reply(self, message: bytes | None = None) -> None:
        """By default the question itself, as an answer."""
        self.peer.reply(message or answer_to(self.message), self.stream)


def answer_to(message: bytes) -> bytes:
    return message[:2] + b"\x81\x80" + message[4:]


def echo(asked: Asked) -> None:
    asked.reply()


class Peer(asyncio.Protocol):
    """The server's end of a connection."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.buffer = bytearray()
        self.bodies: dict[int, bytearray] = {}
        self.goaway = False
        self.reset: set[int] = set()
        self.ended = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        tls = transport.get_extra_info("ssl_object")
        self.resumed = tls is not None and tls.session_reused
        self.host.peers.append(self)
        if self.host.raw is None and self.host.server.transport is HTTPS:
            self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
            self.h2.local_settings.update(self.host.settings)
            self.h2.local_settings.acknowledge()
            self.h2.initiate_connection()
            self.flush()

    def data_received(self, data: bytes) -> None:
        self.host.seen += data
        if self.host.raw is not None:
            self.host.raw(self)
        elif self.host.server.transport is HTTPS:
            self.take_streams(data)
        else:
            self.take_frames(data)

    def take_frames(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 2 and len(self.buffer) >= (end := 2 + int.from_bytes(self.buffer[:2], "big")):
            message = bytes(self.buffer[2:end])
            del self.buffer[:end]
            self.host.take(Asked(self, message))

    def take_streams(self, data: bytes) -> None:
        events = self.h2.receive_data(data)
        self.reset |= {event.stream_id for event in events if isinstance(event, StreamReset)}
        for event in events:
            match event:
                case RequestReceived():
                    self.bodies[event.stream_id] = bytearray()
                    self.host.heads.append(dict(event.headers))
                case DataReceived():
                    self.bodies[event.stream_id] += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case StreamEnded():
                    self.host.take(Asked(self, bytes(self.bodies.pop(event.stream_id)), event.stream_id))
                case ConnectionTerminated():
                    self.goaway = True
        self.flush()

    def reply(self, message: bytes, stream: int = 0, **headers: str) -> None:
        if self.host.server.transport is not HTTPS:
            self.transport.write(len(message).to_bytes(2, "big") + message)
            return
        says = {":status": "200", "content-type": "application/dns-message"}
        says |= {name.replace("_", "-").replace("-status", ":status"): value for name, value in headers.items()}
        if stream in self.reset:
            return
        self.h2.send_headers(stream, list(says.items()))
        room = self.h2.max_outbound_frame_size
        for start in range(0, len(message), room):
            self.h2.send_data(stream, message[start : start + room])
        self.h2.end_stream(stream)
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def eof_received(self) -> None:
        self.ended = "in order"

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = self.ended or (str(error) if error else "closed")


class Host:
    """The server. `play` is called with each question, `raw` with each connection that sent something, instead.

    heads: of HTTP requests. seen: all bytes that came, TLS taken off.
    """

    def __init__(
        self,
        transport: Transport,
        play: Callable[[Asked], None] = echo,
        *,
        raw: Callable[[Peer], None] | None = None,
        certificate: ssl.SSLContext | None = None,
        settings: dict[SettingCodes | int, int] | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.address = address
        self.play = play
        self.raw = raw
        self.settings = settings or {}
        self.certificate = certificate or (certified(ALPN[transport]) if transport is not TCP else None)
        path = PATH if transport is HTTPS else ""
        self.server = Server(ip(address.partition("%")[0]), 1, transport, "" if transport is TCP else NAME, path)
        self.peers: list[Peer] = []
        self.asked: list[Asked] = []
        self.heads: list[dict[bytes, bytes]] = []
        self.seen = bytearray()

    def take(self, asked: Asked) -> None:
        self.asked.append(asked)
        self.play(asked)

    @property
    def alive(self) -> list[Peer]:
        return [peer for peer in self.peers if not peer.ended]

    async def __aenter__(self) -> Host:
        loop = asyncio.get_running_loop()
        self.listening = await loop.create_server(lambda: Peer(self), self.address, 0, ssl=self.certificate)
        self.server = replace(self.server, port=self.listening.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.listening.close()
        for peer in self.alive:
            peer.transport.abort()
        await eventually(lambda: not self.alive)
        await self.listening.wait_closed()


def question(name: str = "example.com", ident: int = 7) -> bytes:
    return HEADER.pack(ident, RD, 1, 0, 0, 0) + parse_name(name) + b"\0\1\0\1"


class Heard:
    """What came of one question."""

    def __init__(self, channels: Channels, server: Server, message: bytes, group: Group = GROUP) -> None:
        self.outcomes: list[Outcome] = []
        self.message = message
        self.give_up = channels.ask(server, group, message, self.outcomes.append)
        assert self.outcomes == []  # never before the call has returned

    async def outcome(self) -> Outcome:
        await eventually(lambda: self.outcomes)
        (outcome,) = self.outcomes
        return outcome

    async def answer(self) -> None:
        assert await self.outcome() == answer_to(self.message)

    async def failure(self) -> str:
        outcome = await self.outcome()
        assert isinstance(outcome, OSError), outcome
        assert outcome.strerror
        return outcome.strerror


def ask(channels: Channels, to: Host | Server, name: str = "example.com", ident: int = 7) -> Heard:
    return Heard(channels, to.server if isinstance(to, Host) else to, question(name, ident))
