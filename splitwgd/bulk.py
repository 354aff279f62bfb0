"""The datagrams of one socket, many with one system call: recvmmsg(2) and sendmmsg(2), which Python's sockets lack.

A question that is answered at once then costs half of what it costs by recvfrom and sendto: it becomes its reply in
the buffer where it lies, with its id and its sender's address, and nobody turns that into letters and back
(docs/decisions/0015).
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable

from splitwgd.turn import Turn

COUNT = 32  # datagrams at a time: timers and upstreams get theirs, and clients go on while the next ones are looked at
QUESTION = 4096  # bytes of a question; a longer one is cut, and then does not parse
_REPLY = 1280  # bytes; over UDP none has more than 1,232
_NAME = 28  # bytes of the longest address, sockaddr_in6
_NAMES = {socket.AF_INET: 16, socket.AF_INET6: 28}

_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_WORDS = ctypes.sizeof(_Message) // 4
_LENGTH = _Message.length.offset // 4


class _Buffers:
    """Room for so many datagrams and their addresses."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._texts = ctypes.create_string_buffer(COUNT * size)
        self._names = ctypes.create_string_buffer(COUNT * _NAME)
        self.texts = memoryview(self._texts).cast("B")
        self.names = memoryview(self._names).cast("B")

    def headers(self, name_length: int) -> _Headers:
        """Headers for all of them."""
        return _Headers(ctypes.addressof(self._texts), self.size, ctypes.addressof(self._names), name_length)


class _Headers:
    """What the kernel is told of buffers. room: bytes of each. lengths: what it has put into each."""

    def __init__(self, texts: int, size: int, names: int, name_length: int) -> None:
        self._vectors = (_Iovec * COUNT)()
        self.messages = (_Message * COUNT)()
        for place in range(COUNT):
            self._vectors[place] = _Iovec(texts + place * size, size)
            header = self.messages[place].header
            header.name, header.name_length = names + place * _NAME, name_length
            header.iov, header.iov_count = ctypes.pointer(self._vectors[place]), 1
        self.room = memoryview(self._vectors).cast("B").cast("L")[1::2]
        self.lengths = memoryview(self.messages).cast("B").cast("I")[_LENGTH::_WORDS]


class Asker:
    """Who asked by a datagram."""

    __slots__ = ("address", "bulk")
    stream = False

    def __init__(self, bulk: Bulk, address: bytes) -> None:
        self.bulk = bulk
        self.address = address

    def send(self, reply: bytes) -> None:
        """Sends it, together with what else is sent in this turn of the loop."""
        held = self.bulk.held
        if not held:
            self.bulk.turn.at_end(self.bulk.flush)
        held.append((self.address, reply))

    def hang_up(self) -> None:
        """There is nothing to hang up."""


class Bulk:
    """One socket. held: replies that wait for `flush`, each with its asker's address."""

    def __init__(self, turn: Turn, sock: socket.socket) -> None:
        self.turn = turn
        self.held: list[tuple[bytes, bytes]] = []
        self._sock = sock
        name_length = _NAMES[sock.family]
        self._in = _Buffers(QUESTION)
        self._asked = self._in.headers(name_length)
        self._answered = self._in.headers(name_length)
        self._out = _Buffers(_REPLY)
        self._replies = self._out.headers(name_length)

    def exchange(self, ready: Callable[[bytes], bytes | None], take: Callable[[bytes, Asker], None]) -> tuple[int, int]:
        """Reads what waits, sends the replies that are ready by the bytes after the id, and has the others taken
        with who asked. Returns how many were read, and how many ready. Raises OSError."""
        count = _libc.recvmmsg(self._sock.fileno(), self._asked.messages, COUNT, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        texts, room = self._in.texts, self._answered.room
        names = b""
        given = first = start = 0
        for place, length in enumerate(self._asked.lengths[:count].tolist()):
            question = texts[start : start + length].tobytes()
            reply = ready(question[2:])
            if reply is None:
                if first < place:
                    self._send(self._answered, first, place)
                first = place + 1
                names = names or bytes(self._in.names[: count * _NAME])
                name = place * _NAME
                take(question, Asker(self, names[name : name + _NAME]))
            else:
                room[place] = end = 2 + len(reply)
                texts[start + 2 : start + end] = reply
                given += 1
            start += QUESTION
        self._send(self._answered, first, count)
        return count, given

    def flush(self) -> None:
        """Sends what is held."""
        held, self.held = self.held, []
        texts, names, room = self._out.texts, self._out.names, self._replies.room
        for begin in range(0, len(held), COUNT):
            start = name = place = 0
            for address, reply in held[begin : begin + COUNT]:
                room[place] = length = len(reply)
                texts[start : start + length] = reply
                names[name : name + _NAME] = address
                place += 1
                start += _REPLY
                name += _NAME
            self._send(self._replies, 0, place)

    def _send(self, headers: _Headers, done: int, end: int) -> None:
        """One that cannot be sent ends the call, and must not keep the others from their clients: they ask again."""
        while done < end:
            rest = ctypes.byref(headers.messages, done * ctypes.sizeof(_Message))
            sent = _libc.sendmmsg(self._sock.fileno(), rest, end - done, socket.MSG_DONTWAIT)
            done += max(sent, 1)
