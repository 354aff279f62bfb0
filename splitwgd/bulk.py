"""Many datagrams with one system call: recvmmsg(2) and sendmmsg(2), which Python's sockets lack.

A question that is answered at once then costs two thirds of what it costs by recvfrom and sendto: no tuple with the
client's address in letters, and no system call of its own (docs/decisions/0015).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Callable

COUNT = 64  # datagrams at a time, so that timers and upstreams get theirs
QUESTION = 4096  # bytes of a question; a longer one is cut, and then does not parse
_REPLY = 4096  # bytes; what is ready was made for UDP, and is shorter than 1,232
_NAME = 28  # bytes of the longest address, sockaddr_in6

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


class _Row:
    """Headers, addresses and buffers for so many datagrams."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.buffer = ctypes.create_string_buffer(COUNT * size)
        self.names = ctypes.create_string_buffer(COUNT * _NAME)
        self.vectors = (_Iovec * COUNT)()
        self.messages = (_Message * COUNT)()
        for place in range(COUNT):
            self.vectors[place].base = ctypes.addressof(self.buffer) + place * size
            self.vectors[place].length = size
            message = self.messages[place].header
            message.iov = ctypes.pointer(self.vectors[place])
            message.iov_count = 1
            message.name = ctypes.addressof(self.names) + place * _NAME
            message.name_length = _NAME
        self.bytes = memoryview(self.buffer).cast("B")
        self.places = [ctypes.addressof(self.names) + place * _NAME for place in range(COUNT)]
        self.pointers = memoryview(self.messages).cast("B").cast("P")
        self.words = memoryview(self.messages).cast("B").cast("I")
        self.lengths = memoryview(self.vectors).cast("B").cast("P")


_WORDS = ctypes.sizeof(_Message) // 4
_LENGTH = _Message.length.offset // 4
_NAME_LENGTH = _Header.name_length.offset // 4
_POINTERS = ctypes.sizeof(_Message) // ctypes.sizeof(ctypes.c_size_t)
_VECTOR = ctypes.sizeof(_Iovec) // ctypes.sizeof(ctypes.c_size_t)


class Bulk:
    """The rows of one process, for all of its sockets."""

    def __init__(self) -> None:
        self._in = _Row(QUESTION)
        self._out = _Row(_REPLY)

    def exchange(
        self,
        sock: socket.socket,
        ready: Callable[[bytes], bytes | None],
        take: Callable[[bytes, tuple[object, ...]], None],
    ) -> int:
        """Reads what waits, sends the replies that are ready by the bytes after the id, and has the others taken
        with their addresses. Returns how many were ready. Raises OSError."""
        row, out = self._in, self._out
        count = _libc.recvmmsg(sock.fileno(), row.messages, COUNT, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        texts, words, size = row.bytes, row.words, row.size
        made = 0
        for place in range(count):
            start = place * size
            data = bytes(texts[start : start + words[place * _WORDS + _LENGTH]])
            reply = ready(data[2:])
            if reply is None:
                take(data, self._address(place))
            else:
                begin, length = made * _REPLY, 2 + len(reply)
                out.bytes[begin : begin + length] = data[:2] + reply
                out.lengths[made * _VECTOR + 1] = length
                out.pointers[made * _POINTERS] = row.places[place]
                out.words[made * _WORDS + _NAME_LENGTH] = words[place * _WORDS + _NAME_LENGTH]
                made += 1
            words[place * _WORDS + _NAME_LENGTH] = _NAME
        self._send(sock, made)
        return made

    def _send(self, sock: socket.socket, count: int) -> None:
        """One that cannot be sent ends the call, and must not keep the others from their clients: they ask again."""
        done = 0
        while done < count:
            rest = ctypes.byref(self._out.messages, done * ctypes.sizeof(_Message))
            sent = _libc.sendmmsg(sock.fileno(), rest, count - done, socket.MSG_DONTWAIT)
            done += max(sent, 1)

    def _address(self, place: int) -> tuple[object, ...]:
        raw = self._in.names.raw[place * _NAME : (place + 1) * _NAME]
        if raw[:2] == _INET:
            return socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big")
        flow, scope = struct.unpack_from("=I", raw, 4)[0], struct.unpack_from("=I", raw, 24)[0]
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), int.from_bytes(raw[2:4], "big"), socket.ntohl(flow), scope


_INET = struct.pack("=H", socket.AF_INET)
