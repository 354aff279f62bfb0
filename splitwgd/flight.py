"""One question under way to one group of servers: its ports, its timer, its story for the error message.

Sends, waits, and hands what comes back to those who decide. The first attempt is the usual one, and has no timer
and no state machine of its own; an Exchange takes over where it is not answered in time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from splitwgd.answers import is_reply_to, read_reply
from splitwgd.channels import Channels
from splitwgd.desk import Desk, Post
from splitwgd.errors import MessageError, UpstreamError
from splitwgd.exchange import Exchange, Verdict, judge
from splitwgd.message import ANSWERS, BADCOOKIE, FORMERR, NOTIMP, Query, upstream_query
from splitwgd.ports import Port, Ports, random_ident
from splitwgd.reply import Reply
from splitwgd.servers import Server, Transport
from splitwgd.zones import Group

Done = Callable[[Reply | UpstreamError], None]
# Replies to one question that do not fit it, before it is asked over TCP, where nobody can guess (as BIND does).
WRONG_LIMIT = 8
# What the machine says when there is no way to a server: the link is gone or down, or there is no route.
_NO_WAY = frozenset({errno.ENODEV, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EINVAL})

_PLAIN = Transport.PLAIN
_NO_STREAMS: Mapping[Server, Callable[[], None]] = MappingProxyType({})
_KNOW_NO_EDNS = frozenset(bytes((flags | rcode,)) for flags in range(0, 256, 16) for rcode in (FORMERR, NOTIMP))
_OUR_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Airport(Protocol):
    """What a flight needs; `upstream` has it. ttl_bounds: seconds between which TTLs are brought."""

    loop: asyncio.AbstractEventLoop
    ports: Ports
    channels: Channels
    first: dict[Flight, None]
    later: set[Flight]
    ttl_bounds: tuple[int, int]
    mix_case: bool
    discarded: int
    on_recovery: Callable[[Group], None]

    def await_first(self, flight: Flight) -> None:
        """Calls its `silence` if the first attempt is not answered in time."""


class Flight:
    """One question under way. `done` is called once; what comes later is nobody's.

    last: the server that was asked last. ports, streams: on which somebody may answer, and for streams what gives
    up waiting. no_way: to any server so far. own: a question of ours, for the sake of being asked.
    bare: who is asked without EDNS, because it seemed not to know it.
    """

    __slots__ = (
        "bare", "begun", "desk", "done", "exchange", "last", "no_way", "own", "ports", "query", "refusal", "servers",
        "story", "streams", "timer", "upstreams",
    )  # fmt: skip

    last: Server

    def __init__(self, upstreams: Airport, desk: Desk, query: Query, done: Done, own: bool = False) -> None:
        self.upstreams = upstreams
        self.desk = desk
        self.query = query
        self.done = done
        self.own = own
        self.begun = upstreams.loop.time()
        self.ports: list[Port] = []
        self.exchange: Exchange | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.streams: Mapping[Server, Callable[[], None]] = _NO_STREAMS
        self.bare: Server | None = None
        self.story: tuple[str, ...] = ()
        self.refusal: Reply | None = None
        self.no_way = True

    def begin(self, servers: tuple[Server, ...]) -> None:
        """The first attempt; these are asked, in this order."""
        self.servers = servers
        if not servers:
            self._finish(UpstreamError(f"{self.desk.group.name}: no server"), later=True)
        elif self._send(servers[0], self.begun):
            self.upstreams.await_first(self)
        else:
            self._go_on(later=True)

    def silence(self) -> None:
        """The time of the last attempt is over."""
        self._note(self.last, "no answer in time")
        self.desk.ward.silent(self.last, self.upstreams.loop.time(), self.own)
        self._go_on()

    def _go_on(self, later: bool = False) -> None:
        """The next attempt that can be sent; without one the question has failed."""
        if self.timer is not None:
            self.timer.cancel()
        now = self.upstreams.loop.time()
        exchange = self._exchange()
        while (attempt := exchange.next(now)) is not None:
            if attempt.server in self.streams or self._send(attempt.server, now):
                self.timer = self.upstreams.loop.call_later(attempt.patience, self.silence)
                return
        if (self.ports or self.streams) and exchange.left(now):  # somebody may still answer
            self.timer = self.upstreams.loop.call_later(exchange.left(now), self._give_up)
        else:
            self._give_up(later)

    def _exchange(self) -> Exchange:
        if self.exchange is None:
            dead = [server for server in self.servers if self.desk.ward.is_dead(server)]
            self.exchange = Exchange(self.servers, dead, self.begun)
            self.upstreams.first.pop(self, None)
            self.upstreams.later.add(self)
        return self.exchange

    def _give_up(self, later: bool = False) -> None:
        # With something sent, nothing but the answer may be missing.
        self.no_way = self.no_way and not self.streams and not self.ports
        if not self.no_way and not self.refusal:
            for server in self.servers:
                self.desk.ward.unheard(server, self.begun, self.upstreams.loop.time())
        story = "; ".join(dict.fromkeys(self.story)) or "no answer in time"
        self._finish(self.refusal or UpstreamError(f"{self.desk.group.name}: {story}", self.no_way), later)

    def _send(self, server: Server, now: float) -> bool:
        """Whether it could be sent."""
        self.last = server
        if server.transport is not _PLAIN:
            self._ask_over_stream(server)
            return True
        post, upstreams, query = self.desk.post(server), self.upstreams, self.query
        try:
            port = upstreams.ports.take(post, self)
        except OSError as error:
            self._failed(server, error)
            return False
        port.since = now
        port.ident = ident = random_ident()
        port.question = question = mixed(query.question) if upstreams.mix_case else query.question
        options = None if post.without_edns or self.bare is server else post.jar.options
        upstreams.ports.send(port, upstream_query(query, ident, question, options))
        self.ports.append(port)
        return True

    def _failed(self, server: Server, error: OSError) -> None:
        self._note(server, error.strerror or os.strerror(error.errno or 0))
        self._exchange().failed(server)
        if error.errno not in _NO_WAY | _OUR_FAULT:
            self.no_way = False
            self.desk.ward.failed(server, self.upstreams.loop.time())

    def unsent(self, port: Port, error: OSError) -> None:
        """What one of its ports was given did not leave, or did not arrive."""
        self._close(port)
        self._failed(port.way.server, error)
        self._go_on()

    # -- what comes back

    def heard(self, port: Port, data: bytes | OSError) -> None:
        """On one of its ports."""
        self.no_way = False
        if isinstance(data, OSError):  # an ICMP error, such as port unreachable
            self.unsent(port, data)
            return
        post, upstreams, reply = port.berth, self.upstreams, None
        assert isinstance(post, Post)
        server, jar = post.server, post.jar
        if is_reply_to(data, port.ident, port.question, not upstreams.mix_case):
            try:
                low, high = upstreams.ttl_bounds
                reply = read_reply(data, self.query, low, high)
            except MessageError as error:
                self._note(server, str(error))
        if (reply is None or reply.rcode not in ANSWERS) and self._seems_not_to_know_edns(post, port, data):
            self.bare = server
            self._close(port)
            if not self._send(server, upstreams.loop.time()):
                self._go_on()
            return
        if reply is not None and (not (jar.held_to_it or reply.options) or jar.accepts(reply.options)):
            self._judge(server, reply, port.since)
            return
        # Not for us: the right answer may still come (RFC 5452 §9.1). Over TCP nobody can forge one.
        upstreams.discarded += 1
        port.wrong += 1
        if port.wrong >= WRONG_LIMIT:
            self._close(port)
        if port.wrong >= WRONG_LIMIT or jar.held_to_it or upstreams.mix_case:
            self._ask_over_stream(server)

    def _seems_not_to_know_edns(self, post: Post, port: Port, data: bytes) -> bool:
        """RFC 6891 §7: such a server refuses the form, without an OPT record and perhaps without the question."""
        if (
            data[3:4] not in _KNOW_NO_EDNS
            or self.bare is port.way.server
            or post.without_edns
            or post.jar.held_to_it
            or len(data) < 12
            or data[10:12] != b"\0\0"
        ):
            return False
        mine = data[0] << 8 | data[1] == port.ident and bool(data[2] & 0x80)
        return mine and (data[4:6] == b"\0\0" or is_reply_to(data, port.ident, port.question))

    def _judge(self, server: Server, reply: Reply, since: float, stream: bool = False) -> None:
        now = self.upstreams.loop.time()
        if self.bare is server and reply.rcode not in (FORMERR, NOTIMP):  # it was not the question that it did not like
            self.desk.post(server).without_edns = True
        if self.desk.ward.answered(server, now - since, now):
            self.upstreams.on_recovery(self.desk.group)
        if reply.rcode in ANSWERS and not reply.truncated:  # as nearly all; `judge` says the same
            self.drop(now)
            self.done(reply)
            return
        match judge(reply.rcode, reply.truncated, server.transport, stream):
            case Verdict.ANSWER:
                self.drop(now)
                self.done(reply)
            case Verdict.OVER_TCP:
                self._ask_over_stream(server)
            case Verdict.ANOTHER:
                self._note(server, f"rcode {reply.rcode}")
                if reply.rcode != BADCOOKIE and not reply.truncated:  # which concern us, and not who asked
                    self.refusal = reply
                self._exchange().failed(server)
                for port in [port for port in self.ports if port.way.server == server]:
                    self._close(port)
                self._go_on()

    def _ask_over_stream(self, server: Server) -> None:
        """Over TCP, or how else the server is asked; once."""
        if server in self.streams:
            return
        post = self.desk.post(server)
        bare = post.without_edns or self.bare is server
        options = None if bare else post.jar.options if server.transport is Transport.PLAIN else b""
        message = upstream_query(self.query, random_ident(), self.query.question, options)

        def done(outcome: bytes | OSError) -> None:
            self._heard_over_stream(server, message, outcome)

        give_up = self.upstreams.channels.ask(server, self.desk.group, message, done)
        self.streams = {**self.streams, server: give_up}

    def _heard_over_stream(self, server: Server, message: bytes, outcome: bytes | OSError) -> None:
        self.streams = {other: give_up for other, give_up in self.streams.items() if other != server}
        if isinstance(outcome, OSError):
            self._failed(server, outcome)
            self._go_on()
            return
        self.no_way = False
        try:
            if not is_reply_to(outcome, int.from_bytes(message[:2], "big"), self.query.question):
                raise MessageError("answered another question")
            reply = read_reply(outcome, self.query, *self.upstreams.ttl_bounds)
        except MessageError as error:
            self._note(server, str(error))
            self._exchange().failed(server)
            self._go_on()
            return
        if server.transport is Transport.PLAIN:
            jar = self.desk.post(server).jar
            if not jar.accepts(reply.options):
                jar.forget()  # nobody can forge this: the server knows of no cookies any more
        self._judge(server, reply, self.begun, stream=True)

    def _note(self, server: Server, what: str) -> None:
        self.story += (f"{server} {what}",)

    def _close(self, port: Port) -> None:
        self.ports.remove(port)
        self.upstreams.ports.throw_away(port)

    def drop(self, now: float) -> None:
        """Lets go of ports, timer and connections."""
        upstreams = self.upstreams
        if self.exchange is None:
            upstreams.first.pop(self, None)
        else:
            upstreams.later.discard(self)
        if self.timer is not None:
            self.timer.cancel()
        for port in self.ports:
            upstreams.ports.give_back(port, now)
        self.ports = []
        if self.streams:
            for give_up in self.streams.values():
                give_up()
            self.streams = _NO_STREAMS

    def _finish(self, outcome: Reply | UpstreamError, later: bool = False) -> None:
        self.drop(self.upstreams.loop.time())
        if later:  # so that a caller never sees its answer before its own call has returned
            self.upstreams.loop.call_soon(self.done, outcome)
        else:
            self.done(outcome)


def mixed(question: bytes) -> bytes:
    """The question with each letter of its name in a random case (draft-vixie-dnsext-dns0x20)."""
    bits = secrets.randbits(len(question))
    # A length byte is never a letter: labels have at most 63 bytes.
    name = bytes(
        byte ^ 0x20 if (byte | 0x20) - 97 in range(26) and bits >> place & 1 else byte
        for place, byte in enumerate(question[:-4])
    )
    return name + question[-4:]
