"""Asks DNS servers: sockets, marks and timers around an Exchange. Decides nothing about the answer.

A fresh socket for each attempt, connected: the kernel then chooses a random port and lets in only what the
server itself sent (RFC 5452 §9.2, and no SAD DNS probe).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable

from splitwgd.answers import Reply, is_reply_to, read_reply
from splitwgd.errors import MessageError, UpstreamError
from splitwgd.exchange import Attempt, Exchange, Verdict
from splitwgd.message import Query, upstream_query
from splitwgd.servers import Server
from splitwgd.zones import Group

Done = Callable[[Reply | UpstreamError], None]
IN_FLIGHT_LIMIT = 2048
_BIGGEST = 65_535


class Upstreams:
    """All questions that are under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.flights: set[_Flight] = set()

    def ask(self, query: Query, group: Group, done: Done) -> None:
        """Calls `done` once, later, with the reply or with why there is none."""
        if len(self.flights) >= IN_FLIGHT_LIMIT:
            error = UpstreamError(f"{group.name}: {IN_FLIGHT_LIMIT} questions are under way already")
            self.loop.call_soon(done, error)
            return
        flight = _Flight(self, query, group, done)
        self.flights.add(flight)
        flight.go_on()

    def close(self) -> None:
        """Ends every question that is under way, without an answer."""
        for flight in list(self.flights):
            flight.drop()


class _Flight:
    """One question under way: its sockets, its timer, its story for the error message."""

    def __init__(self, upstreams: Upstreams, query: Query, group: Group, done: Done) -> None:
        self.upstreams = upstreams
        self.loop = upstreams.loop
        self.query = query
        self.group = group
        self.done = done
        self.exchange = Exchange(group.servers, self.loop.time())
        self.sockets: dict[socket.socket, int] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.tcp: asyncio.Task[None] | None = None
        self.story: list[str] = []
        self.refusal: Reply | None = None

    def go_on(self) -> None:
        """The next attempt that can be sent; without one the question has failed."""
        while (attempt := self.exchange.next(self.loop.time())) is not None:
            try:
                self._send(attempt)
            except OSError as error:
                self._note(attempt.server, error.strerror or str(error))
                self.exchange.failed(attempt.server)
                continue
            self._wait(attempt.patience, attempt.server)
            return
        self._finish(self.refusal or UpstreamError(f"{self.group.name}: {'; '.join(self.story) or 'no server'}"))

    def _send(self, attempt: Attempt) -> None:
        sock = _socket(attempt.server, socket.SOCK_DGRAM, self.group)
        ident = secrets.randbits(16)
        try:
            sock.connect((str(attempt.server.address), attempt.server.port))
            sock.send(upstream_query(self.query, ident))
        except OSError:
            sock.close()
            raise
        self.sockets[sock] = ident
        self.loop.add_reader(sock.fileno(), self._receive, sock, attempt.server)

    def _wait(self, seconds: float, server: Server) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.loop.call_later(seconds, self._silence, server)

    def _silence(self, server: Server) -> None:
        if self.tcp is not None:
            self.tcp.cancel()
            self.tcp = None
        self._note(server, "no answer in time")
        self.go_on()

    def _receive(self, sock: socket.socket, server: Server) -> None:
        try:
            data = sock.recv(_BIGGEST)
        except BlockingIOError:
            return
        except OSError as error:  # an ICMP error, such as port unreachable
            self._forget(sock)
            self._note(server, error.strerror or str(error))
            self.exchange.failed(server)
            self.go_on()
            return
        if is_reply_to(data, self.sockets[sock], self.query):
            self._forget(sock)
            self._judge(data, server, tcp=False)
        # Anything else is not for us: the right answer may still come (RFC 5452 §9.1).

    def _judge(self, data: bytes, server: Server, tcp: bool) -> None:
        try:
            reply = read_reply(data, self.query)
        except MessageError as error:
            self._note(server, str(error))
            self.go_on()
            return
        match self.exchange.judge(reply.rcode, reply.truncated, tcp):
            case Verdict.ANSWER:
                self._finish(reply)
            case Verdict.OVER_TCP if self.tcp is not None:
                pass  # another server's answer did not fit either, and one is being fetched
            case Verdict.OVER_TCP:
                attempt = self.exchange.over_tcp(server, self.loop.time())
                self.tcp = self.loop.create_task(self._ask_over_tcp(server))
                self._wait(attempt.patience, attempt.server)
            case Verdict.ANOTHER:
                self._note(server, f"rcode {reply.rcode}")
                self.refusal = reply
                self.exchange.failed(server)
                self.go_on()

    async def _ask_over_tcp(self, server: Server) -> None:
        ident = secrets.randbits(16)
        try:
            data = await self._over_tcp(server, upstream_query(self.query, ident))
        except (OSError, EOFError) as error:
            self.tcp = None
            self._note(server, f"over TCP: {error}")
            self.go_on()
            return
        self.tcp = None
        if is_reply_to(data, ident, self.query):
            self._judge(data, server, tcp=True)
        else:
            self._note(server, "over TCP: answered another question")
            self.go_on()

    async def _over_tcp(self, server: Server, message: bytes) -> bytes:
        sock = _socket(server, socket.SOCK_STREAM, self.group)
        try:
            await self.loop.sock_connect(sock, (str(server.address), server.port))
            # The length in one write with the message (RFC 7766 §8).
            await self.loop.sock_sendall(sock, struct.pack("!H", len(message)) + message)
            (length,) = struct.unpack("!H", await self._exactly(sock, 2))
            return await self._exactly(sock, length)
        finally:
            sock.close()

    async def _exactly(self, sock: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = await self.loop.sock_recv(sock, count - len(data))
            if not more:
                raise EOFError("the connection ended too early")
            data += more
        return data

    def _note(self, server: Server, what: str) -> None:
        self.story.append(f"{server} {what}")

    def _forget(self, sock: socket.socket) -> None:
        self.loop.remove_reader(sock.fileno())
        del self.sockets[sock]
        sock.close()

    def drop(self) -> None:
        """Lets go of sockets, timer and task."""
        self.upstreams.flights.discard(self)
        if self.timer is not None:
            self.timer.cancel()
        if self.tcp is not None:
            self.tcp.cancel()
        for sock in list(self.sockets):
            self._forget(sock)

    def _finish(self, outcome: Reply | UpstreamError) -> None:
        self.drop()
        # Later, so that a caller never sees its answer before its own call has returned.
        self.loop.call_soon(self.done, outcome)


def _socket(server: Server, kind: socket.SocketKind, group: Group) -> socket.socket:
    """A socket that takes the group's way or fails: the mark chooses the table, the link binds it."""
    family = socket.AF_INET if server.address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, group.mark)
        if group.link is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, group.link.encode() + b"\0")
    except OSError:
        sock.close()
        raise
    return sock
