"""Connections to servers that are asked over a stream (TCP, TLS, HTTPS), kept for the questions that follow.

One for each way to a server, made when it is needed; questions are pipelined and answered in any order
(RFC 7766 §6.2.1.1). Callbacks on a socket that does not block: no task, and no timer for a question. What is spoken
is decided by `dot` and `doh`; it is never cleartext where TLS is asked for (RFC 8310 §5, strict).
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Protocol

from splitwgd.doh import Http2, Refused
from splitwgd.dot import Framed, Tls, failed
from splitwgd.servers import Server, Transport
from splitwgd.way import Way, endpoint, open_socket
from splitwgd.zones import Group

Done = Callable[[bytes | OSError], None]
CONNECT = 5.0  # seconds for the connection and the TLS handshake
# Seconds that a connection is kept without a question. RFC 7766 §6.2.3 asks for "a few"; a handshake is dear.
IDLE = {Transport.PLAIN: 10.0, Transport.TLS: 30.0, Transport.HTTPS: 30.0}
WAITING = 1024  # questions of one connection
SILENCE = 3  # questions given up without a sign of life in between: the connection is dead, say behind a NAT
BACKLOG = 1 << 18  # bytes that the server does not take
_ALPN = {Transport.TLS: "dot", Transport.HTTPS: "h2"}  # RFC 7858 §3.1's registration, RFC 9113 §3.2
_CHUNK = 16_384


class Talk(Protocol):
    """What is spoken on a connection, as bytes in and bytes out; a token stands for a question.

    over: why nothing more can be asked or will be answered, empty while all is well.
    """

    over: str

    def ask(self, message: bytes) -> int:
        """The question's token."""

    def forget(self, token: int) -> None:
        """Nobody waits for this question any more."""

    def receive(self, data: bytes) -> list[tuple[int, bytes | OSError]]:
        """What these bytes complete. A token that nobody waits for shows that the server is alive, at least."""

    def outgoing(self) -> bytes:
        """What is to be sent now."""

    def bye(self) -> None:
        """The connection is about to be closed."""


class _Question:
    """One that waits. token: at its channel. again: it has been sent a second time already."""

    __slots__ = ("again", "channel", "done", "message", "token")

    def __init__(self, message: bytes, done: Done) -> None:
        self.message = message
        self.done: Done | None = done
        self.again = False
        self.channel: _Channel | None = None
        self.token = 0

    def give_up(self) -> None:
        self.done = None
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.forget(self.token)

    def tell(self, outcome: bytes | OSError) -> None:
        done, self.done = self.done, None
        if done is not None:
            done(outcome if isinstance(outcome, OSError) else self.message[:2] + outcome[2:])


class Channels:
    """All connections. tls: how certificates are checked, None for the trust store of the system."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tls: ssl.SSLContext | None = None) -> None:
        self.loop = loop
        self.open: dict[Way, _Channel] = {}
        self._tls = tls
        self._sessions: dict[Way, ssl.SSLSession] = {}

    def ask(self, server: Server, group: Group, message: bytes, done: Done) -> Callable[[], None]:
        """Calls `done` once, later, with the reply (not looked into, but for its id, which is that of `message`)
        or with an OSError whose strerror says what the server did. Gives the function that gives up waiting."""
        question = _Question(message, done)
        self.put(question, Way(server, group.mark, group.link))
        return question.give_up

    def put(self, question: _Question, way: Way) -> None:
        """On the connection that is open, or on a new one."""
        try:
            channel = self.open.get(way)
            if channel is None:
                channel = self.open[way] = _Channel(self, way)
            channel.take(question)
        except OSError as error:
            self.tell(question, error)

    def put_again(self, question: _Question, way: Way, error: OSError) -> None:
        """Once more, if it is the second time, and then no more."""
        if question.again:
            self.tell(question, error)
        else:
            question.again = True
            self.put(question, way)

    def tell(self, question: _Question, outcome: bytes | OSError) -> None:
        """Later, so that a caller never hears of its question before its own call has returned."""
        question.channel = None
        self.loop.call_soon(question.tell, outcome)

    def tls_to(self, way: Way) -> Tls | None:
        """The beginning of a handshake, where there is to be one. Raises OSError."""
        if way.server.transport is Transport.PLAIN:
            return None
        if self._tls is None:
            self._tls = ssl.create_default_context()  # TLS 1.2 or later (RFC 9325 §3.1.1), names are checked
        self._tls.options |= ssl.OP_NO_RENEGOTIATION
        return Tls(self._tls, way.server.name, _ALPN[way.server.transport], self._sessions.get(way))

    def gone(self, way: Way, session: ssl.SSLSession | None) -> None:
        """The connection there is closed. session: how to take it up again, None when it did not go well."""
        self.open.pop(way, None)
        self._sessions.pop(way, None)
        if session is not None:
            self._sessions[way] = session

    def drop(self, which: Callable[[Way], bool]) -> None:
        """Throws these connections away, and with them all that a server could know us by.
        The questions that wait there are asked again on fresh ones."""
        for way, channel in list(self.open.items()):
            if which(way):
                channel.end(OSError(errno.ECONNABORTED, "connection thrown away"), again=True)
        for way in list(self._sessions):
            if which(way):
                del self._sessions[way]

    def close(self) -> None:
        """Closes every connection. Questions that wait are not answered."""
        for channel in list(self.open.values()):
            channel.shut()
            for question in channel.waiting.values():
                question.channel = None


class _Channel:
    """One connection: its socket, its timer, the questions that wait on it."""

    def __init__(self, channels: Channels, way: Way) -> None:
        self.channels = channels
        self.loop = channels.loop
        self.way = way
        self.talk: Talk
        if way.server.transport is Transport.HTTPS:
            self.talk = Http2(way.server)
        else:
            self.talk = Framed(partial(secrets.randbits, 16))
        self.waiting: dict[int, _Question] = {}
        self.out = bytearray()
        self.connected = self.ready = self.proved = False
        self.writing = True
        self.flushing: asyncio.Handle | None = None
        self.silence = 0
        self.used = 0.0
        self.sock = open_socket(way, socket.SOCK_STREAM)
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.tls = channels.tls_to(way)
            self.sock.connect(endpoint(way.server))
        except BlockingIOError:
            pass  # it is under way
        except OSError:
            self.sock.close()
            raise
        self.loop.add_writer(self.sock.fileno(), self._connect)
        late = OSError(errno.ETIMEDOUT, f"no connection within {CONNECT:g} s")
        self.timer = self.loop.call_later(CONNECT, self.end, late)

    def take(self, question: _Question) -> None:
        """Sends it when it can. Raises OSError when too many wait."""
        if len(self.waiting) >= WAITING:
            raise OSError(errno.ENOBUFS, f"{WAITING} questions wait already")
        question.channel = self
        question.token = self.talk.ask(question.message)
        self.waiting[question.token] = question
        self.used = self.loop.time()
        self._flush_soon()

    def forget(self, token: int) -> None:
        """Whoever asked has given up."""
        del self.waiting[token]
        self.talk.forget(token)
        self._flush_soon()
        if self.ready:
            self.silence += 1
            if self.silence >= SILENCE:
                self.end(OSError(errno.ETIMEDOUT, "no answer"), again=True)

    def _connect(self) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.end(OSError(code, os.strerror(code)))
            return
        self.connected = True
        self.loop.add_reader(self.sock.fileno(), self._receive)
        if self.tls is None:
            self._be_ready()
        self._flush()

    def _be_ready(self) -> None:
        self.ready = True
        self.timer.cancel()
        self.timer = self.loop.call_later(IDLE[self.way.server.transport], self._rest)

    def _rest(self) -> None:
        """Closes what has been idle for long enough, and looks again later at what was not."""
        idle = IDLE[self.way.server.transport]
        since = self.loop.time() - self.used
        if since >= idle and not self.waiting:
            self.shut()
        else:
            self.timer = self.loop.call_later(idle if self.waiting else idle - since, self._rest)

    def _receive(self) -> None:
        try:
            data = self.sock.recv(_CHUNK)
            if not data:
                raise self._ended()
            if self.tls is not None:
                data = self.tls.receive(data)
                if self.tls.ready and not self.ready:
                    self._be_ready()
        except BlockingIOError:
            return
        except OSError as error:
            self.end(error)
            return
        found = self.talk.receive(data)
        if found:
            self.silence = 0
            self.proved = True
            self.used = self.loop.time()
        if self.talk.over:
            self.shut()  # first, so that what is asked again is asked elsewhere
        for token, outcome in found:
            question = self.waiting.pop(token, None)
            if question is not None and isinstance(outcome, Refused):
                self.channels.put_again(question, self.way, outcome)
            elif question is not None:
                self.channels.tell(question, outcome)
        if self.talk.over:
            self.end(failed(self.talk.over))
        elif self.tls is not None and self.tls.ended:
            self.end(self._ended())
        else:
            self._flush_soon()

    def _ended(self) -> OSError:
        return OSError(errno.ECONNRESET, "closed the connection")

    def _flush_soon(self) -> None:
        """What is asked in one turn of the loop goes in one write."""
        if self.flushing is None:
            self.flushing = self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self.flushing = None
        if not self.connected:
            return
        try:
            self._gather()
            if self.out:
                del self.out[: self.sock.send(self.out)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._receive()  # it may have answered before it closed
            self.end(error)
            return
        if self.talk.over or len(self.out) > BACKLOG:
            self.end(failed(self.talk.over or "does not take what is sent"))
            return
        if self.writing and not self.out:
            self.loop.remove_writer(self.sock.fileno())
        elif self.out:
            self.loop.add_writer(self.sock.fileno(), self._flush)
        self.writing = bool(self.out)

    def _gather(self) -> None:
        """What the questions want sent, encrypted if it is to be."""
        if self.tls is None:
            self.out += self.talk.outgoing()
            return
        if self.ready:
            self.tls.send(self.talk.outgoing())
        self.out += self.tls.outgoing()

    def end(self, error: OSError, again: bool = False) -> None:
        """Closes it for a reason. What waits is asked again on a fresh connection where this one has served before
        (RFC 7766 §6.2.4: a server may close at any time), or where `again` says so, and fails otherwise."""
        self.shut()
        waiting, self.waiting = self.waiting, {}
        for question in waiting.values():
            if again or self.proved:
                self.channels.put_again(question, self.way, error)
            else:
                self.channels.tell(question, error)

    def shut(self) -> None:
        """Closes the socket, with a parting word if it can be sent at once."""
        if self.sock.fileno() < 0:
            return
        session = self.tls.session if self.tls is not None and self.proved else None
        self.channels.gone(self.way, session)
        self.timer.cancel()
        if self.flushing is not None:
            self.flushing.cancel()
        self.loop.remove_reader(self.sock.fileno())
        self.loop.remove_writer(self.sock.fileno())
        if self.connected and not self.out:
            self._say_bye()
        self.sock.close()

    def _say_bye(self) -> None:
        try:
            if self.ready:
                self.talk.bye()
                self._gather()
            if self.tls is not None:
                self.tls.bye()
                self.out += self.tls.outgoing()
            self.sock.send(self.out)
        except OSError:
            pass  # nobody hears it
