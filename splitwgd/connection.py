"""One client over TCP: questions in, answers out, as they become ready (RFC 7766 §6.2.1.1), within bounds.

Who sends byte by byte, or reads nothing, or only holds a connection, costs us little and is cut off in time.
"""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Callable

CONNECTIONS = 256  # one more, and the one that has been idle for the longest goes
IDLE = 10.0  # seconds without a whole question or an answer; RFC 7766 §6.2.3 asks for "a few"
PIPELINED = 128  # questions that wait for their answers; more are left in the socket until then
UNREAD = 1 << 18  # bytes of answers that the client does not take; and as many of its questions


class Crowd:
    """All connections, the one that has been quiet for the longest first. take: gets each message."""

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[bytes, Connection], None]) -> None:
        self.loop = loop
        self.take = take
        self._all: OrderedDict[Connection, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def join(self, connection: Connection) -> None:
        """One more; another one may have to go for it."""
        self._all[connection] = None
        if len(self._all) > CONNECTIONS:
            idle = (other for other in self._all if not other.waiting)
            next(idle, next(iter(self._all))).hang_up()

    def stir(self, connection: Connection) -> None:
        """It has just been used."""
        if connection in self._all:
            self._all.move_to_end(connection)

    def leave(self, connection: Connection) -> None:
        self._all.pop(connection, None)

    def close(self) -> None:
        """Ends them all."""
        for connection in list(self._all):
            connection.hang_up()


class Connection(asyncio.Protocol):
    """One of them. A client of the forwarder: see `listener.Client`."""

    stream = True

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.transport: asyncio.Transport | None = None
        self.buffer = bytearray()
        self.waiting = 0
        self.taking = False
        self.ended = False  # by the client, who may still wait for answers
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(UNREAD)
        self.crowd.join(self)
        self._rest()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._take_questions()

    def _take_questions(self) -> None:
        """What is whole in the buffer, as long as not too many wait."""
        if self.taking:  # an answer that was there at once brings us here again
            return
        self.taking = True
        while self.waiting < PIPELINED and len(self.buffer) >= 2 and not self._is_over():
            end = 2 + int.from_bytes(self.buffer[:2], "big")
            if len(self.buffer) < end:
                break
            message = bytes(self.buffer[2:end])
            del self.buffer[:end]
            self.waiting += 1
            # Only a whole question earns more time.
            self._rest()
            self.crowd.take(message, self)
        self.taking = False
        if self.transport is not None and not self._is_over():
            if len(self.buffer) > UNREAD:
                self.transport.pause_reading()
            elif not self.transport.is_reading() and not self.ended:
                self.transport.resume_reading()

    def _is_over(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def eof_received(self) -> bool:
        """The client has said all (it may have shut down its side alone); whether to stay for the answers."""
        self.ended = True
        return self.waiting > 0

    def send(self, reply: bytes) -> None:
        """Sends it, if the client is still there and takes what it gets."""
        self.waiting -= 1
        if self.transport is None or self._is_over():
            return
        # The length in one write with the message (RFC 7766 §8).
        self.transport.write(struct.pack("!H", len(reply)) + reply)
        self._rest()
        if self.ended and not self.waiting:
            self.transport.close()
        elif self.buffer and self.waiting < PIPELINED // 2:
            self._take_questions()

    def pause_writing(self) -> None:
        """Asks and asks, and takes no answer."""
        self.hang_up()

    def _rest(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.crowd.loop.call_later(IDLE, self.hang_up)
        self.crowd.stir(self)

    def hang_up(self) -> None:
        """Ends it at once."""
        self.crowd.leave(self)
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.leave(self)
        if self.timer is not None:
            self.timer.cancel()
