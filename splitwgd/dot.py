"""DNS over a stream without the stream: lengths and ids (RFC 7766), and the TLS around them (RFC 7858).

Bytes from the net go in, bytes for the net come out; who holds the socket is `channels`.
"""

from __future__ import annotations

import errno
import ssl
import struct
from collections.abc import Callable

_HEADER = 12  # bytes of the shortest message (RFC 1035 §4.1.1)
_LENGTH_AND_ID = struct.Struct("!HH")
_PLAIN = 65_536  # bytes that one read of TLS may give; a record holds 16,384


def failed(what: str) -> OSError:
    """An error that no system call reported. what: worded to stand behind the server's address."""
    return OSError(errno.EPROTO, what)


class Framed:
    """DNS messages on one stream; a question's token is its id there.

    draw: gives a random id. over: why nothing more can come, empty while all is well.
    """

    def __init__(self, draw: Callable[[], int]) -> None:
        self.over = ""
        self._draw = draw
        self._waiting: set[int] = set()
        self._in = bytearray()
        self._out: dict[int, bytes] = {}

    def ask(self, message: bytes) -> int:
        """Its token. No two questions that wait have the same id (RFC 7766 §6.2.1)."""
        ident = self._draw()
        while ident in self._waiting:
            ident = self._draw()
        self._waiting.add(ident)
        self._out[ident] = _LENGTH_AND_ID.pack(len(message), ident) + message[2:]
        return ident

    def forget(self, token: int) -> None:
        """Its id is free; a reply that comes late bears a token that nobody waits for."""
        self._waiting.discard(token)
        self._out.pop(token, None)

    def receive(self, data: bytes) -> list[tuple[int, bytes | OSError]]:
        """The messages that these bytes complete, with their tokens."""
        found: list[tuple[int, bytes | OSError]] = []
        buffer = self._in
        buffer += data
        position = 0
        while len(buffer) - position >= 2:
            length = buffer[position] << 8 | buffer[position + 1]
            if length < _HEADER:
                self.over = "sent what is not DNS"
                break
            end = position + 2 + length
            if len(buffer) < end:
                break
            message = bytes(buffer[position + 2 : end])
            token = message[0] << 8 | message[1]
            self._waiting.discard(token)
            found.append((token, message))
            position = end
        del buffer[:position]
        return found

    def outgoing(self) -> bytes:
        """What is to be sent now."""
        data = b"".join(self._out.values())
        self._out.clear()
        return data

    def bye(self) -> None:
        """DNS has no parting word."""


class Tls:
    """The client's end of one TLS connection: TLS 1.2 or later, the certificate checked for `name`.

    Its methods raise OSError, worded for a person. ready: the handshake is done. ended: the server said that
    it sends no more.
    """

    def __init__(self, context: ssl.SSLContext, name: str, alpn: str, session: ssl.SSLSession | None) -> None:
        # The context may be shared: a connection takes over what is set when it is made.
        context.set_alpn_protocols([alpn])
        self.ready = False
        self.ended = False
        self._name = name
        self._alpn = alpn
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        try:
            self._tls = context.wrap_bio(self._in, self._out, server_hostname=name, session=session)
        except ValueError as error:
            raise failed(f"no certificate can be for {name!r}") from error
        self.receive(b"")

    @property
    def session(self) -> ssl.SSLSession | None:
        """With it the next handshake is shorter (RFC 8446 §2.2)."""
        return self._tls.session

    def receive(self, data: bytes) -> bytes:
        """What was in these bytes."""
        self._in.write(data)
        plain = bytearray()
        try:
            if not self.ready:
                self._tls.do_handshake()
                self._check_alpn()
                self.ready = True
            while more := self._tls.read(_PLAIN):
                plain += more
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            raise self._explained(error) from error
        return bytes(plain)

    def send(self, data: bytes) -> None:
        """Encrypts it."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]

    def outgoing(self) -> bytes:
        """What is to be sent now."""
        return self._out.read()

    def bye(self) -> None:
        """Says that nothing more will be sent (RFC 8446 §6.1)."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the server has not said so yet, and is not waited for

    def _check_alpn(self) -> None:
        # DNS over TLS is older than its ALPN name (RFC 7858 §3.1): many servers choose none.
        chosen = self._tls.selected_alpn_protocol()
        if chosen != self._alpn and self._alpn == "h2":
            raise failed("does not speak HTTP/2")

    def _explained(self, error: ssl.SSLError) -> OSError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return failed(f"has no valid certificate for {self._name}: {error.verify_message}")
        what = (error.reason or "unknown error").lower().replace("_", " ")
        return failed(f"failed at TLS: {what}")
