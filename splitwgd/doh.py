"""DNS over HTTPS (RFC 8484) without the socket: each question is a POST on a stream of one HTTP/2 connection.

Sole user of h2. Bytes from the net (TLS taken off) go in, bytes for the net come out.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import FrameTooLargeError
from h2.settings import SettingCodes, Settings

from splitwgd.dot import failed
from splitwgd.errors import MessageError
from splitwgd.message import HEADER, OPT, RECORD, skip_name
from splitwgd.servers import Server

ALIVE = -1  # the token of no question: the server is there
_BIGGEST = 65_535
_MEDIA_TYPE = b"application/dns-message"
_WINDOW = 1 << 24  # bytes that the server may send before we acknowledge any
_FRAME_HEADER = 9
_HEADERS = 16_384  # bytes of a response's headers
_BEFORE_SETTINGS = 100  # streams before the server said how many: the least that it should allow (RFC 9113 §6.5.2)


class Refused(OSError):
    """The server did not look at this question: it may be asked again (RFC 9113 §8.7)."""


@dataclass(slots=True)
class _Exchange:
    """A question on its stream. unsent: what the server's windows did not let through yet. age: seconds that the
    reply lay in a cache. problem: why it will not be taken."""

    token: int
    unsent: bytes
    body: bytearray = field(default_factory=bytearray)
    age: int = 0
    problem: str = ""


class Http2:
    """One HTTP/2 connection to one server.

    over: why no more questions can be asked on it and no answers will come, empty while all is well.
    """

    def __init__(self, server: Server) -> None:
        self.over = ""
        self._headers = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", _authority(server)),
            (b":path", server.path.encode()),
            (b"accept", _MEDIA_TYPE),
            (b"content-type", _MEDIA_TYPE),
        ]
        self._in = bytearray()
        self._last = 0
        self._settled = False
        self._queue: dict[int, bytes] = {}  # by token: what waits for a stream
        self._streams: dict[int, _Exchange] = {}
        self._found: list[tuple[int, bytes | OSError]] = []
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        ours = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: _HEADERS}
        self._h2.local_settings = Settings(client=True, initial_values=ours)
        del self._h2.local_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL]  # a server's word (RFC 8441 §3)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW)

    def ask(self, message: bytes) -> int:
        """Its token. Its id goes as 0 (RFC 8484 §4.1): the stream tells the replies apart."""
        self._last += 1
        self._queue[self._last] = b"\0\0" + message[2:]
        return self._last

    def forget(self, token: int) -> None:
        """Ends its stream. The server is asked for a sign of life, so that a slow one does not pass for dead."""
        if self._queue.pop(token, None) is not None:
            return
        stream = next((stream for stream, exchange in self._streams.items() if exchange.token == token), None)
        if stream is not None:
            with self._guarded():
                del self._streams[stream]
                self._h2.reset_stream(stream, ErrorCodes.CANCEL)
                self._h2.ping(b"answers?")

    def receive(self, data: bytes) -> list[tuple[int, bytes | OSError]]:
        """The replies that these bytes complete, or why there is none, with their tokens."""
        with self._guarded():
            for frame in self._frames(data):
                for event in self._h2.receive_data(frame):
                    self._take(event)
        found, self._found = self._found, []
        return found

    def outgoing(self) -> bytes:
        """What is to be sent now. Questions get streams, as many as the server wants to have at once."""
        with self._guarded():
            most = self._h2.remote_settings.max_concurrent_streams if self._settled else _BEFORE_SETTINGS
            while self._queue and len(self._streams) < most and not self.over:
                token = next(iter(self._queue))
                message = self._queue.pop(token)
                stream = self._h2.get_next_available_stream_id()
                self._h2.send_headers(stream, [*self._headers, (b"content-length", b"%d" % len(message))])
                self._streams[stream] = _Exchange(token, message)
                self._push(stream)
        return self._h2.data_to_send()

    def bye(self) -> None:
        """Says that no more will be asked (RFC 9113 §6.8)."""
        with self._guarded():
            self._h2.close_connection()

    def _frames(self, data: bytes) -> Iterator[bytes]:
        """Whole frames (RFC 9113 §4.1). Given them one by one, h2 neither collects the 16 MB that a frame may claim
        to have, nor loses what it read before one that is wrong."""
        self._in += data
        while len(self._in) >= _FRAME_HEADER:
            length = int.from_bytes(self._in[:3], "big")
            if length > self._h2.max_inbound_frame_size:
                raise FrameTooLargeError
            if len(self._in) < _FRAME_HEADER + length:
                break
            frame = bytes(self._in[: _FRAME_HEADER + length])
            del self._in[: len(frame)]
            yield frame

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever a server sends ends no more than its connection."""
        try:
            yield
        except Exception as error:
            self.over = self.over or f"broke the rules of HTTP/2 ({type(error).__name__})"

    def _push(self, stream: int) -> None:
        """Sends what the windows let through (RFC 9113 §5.2)."""
        exchange = self._streams[stream]
        while exchange.unsent:
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if room <= 0:
                return
            now, exchange.unsent = exchange.unsent[:room], exchange.unsent[room:]
            self._h2.send_data(stream, now, end_stream=not exchange.unsent)

    def _take(self, event: Event) -> None:
        match event:
            case RemoteSettingsChanged():
                self._settled = True
                self._push_all()
            case WindowUpdated():
                self._push_all()
            case PingAckReceived():
                self._found.append((ALIVE, b""))
            case ConnectionTerminated():
                self._terminated(event.error_code)
            case ResponseReceived() | DataReceived() | StreamEnded() | StreamReset() if event.stream_id:
                self._take_of_stream(event, event.stream_id)

    def _take_of_stream(self, event: ResponseReceived | DataReceived | StreamEnded | StreamReset, stream: int) -> None:
        exchange = self._streams.get(stream)
        match event:
            case _ if exchange is None:
                pass  # given up, or done with
            case ResponseReceived():
                _read_head(exchange, dict(event.headers or ()))
            case DataReceived() if exchange.problem:
                pass
            case DataReceived():
                exchange.body += event.data or b""
                if len(exchange.body) > _BIGGEST:
                    self._finish(stream, failed("sent a reply longer than 65,535 bytes"))
                    if event.stream_ended is None:
                        self._h2.reset_stream(stream, ErrorCodes.CANCEL)
            case StreamReset(error_code=ErrorCodes.REFUSED_STREAM):
                self._finish(stream, _refused())
            case StreamReset():
                self._finish(stream, failed(f"ended the question (HTTP/2 error {_number(event.error_code)})"))
            case StreamEnded():
                self._finish(stream, _outcome(exchange))
                if exchange.unsent:
                    self._h2.reset_stream(stream, ErrorCodes.CANCEL)
        if isinstance(event, DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, stream)

    def _push_all(self) -> None:
        for stream in [stream for stream, exchange in self._streams.items() if exchange.unsent]:
            self._push(stream)

    def _finish(self, stream: int, outcome: bytes | OSError) -> None:
        self._found.append((self._streams.pop(stream).token, outcome))

    def _terminated(self, code: ErrorCodes | int | None) -> None:
        """GOAWAY. h2 takes no frame after it, so that even what the server has begun on is asked elsewhere:
        a question does no harm when it is asked twice."""
        self.over = f"ended the connection (HTTP/2 error {_number(code)})"
        if not code:
            tokens = [*(exchange.token for exchange in self._streams.values()), *self._queue]
            self._found += [(token, _refused()) for token in tokens]


def _authority(server: Server) -> bytes:
    host = f"[{server.name}]" if ":" in server.name else server.name
    return host.encode() if server.port == 443 else f"{host}:{server.port}".encode()


def _refused() -> Refused:
    return Refused(errno.ECONNREFUSED, "refused the question")


def _number(code: ErrorCodes | int | None) -> int:
    return int(code or 0)


def _read_head(exchange: _Exchange, headers: dict[bytes, bytes]) -> None:
    status, age = headers.get(b":status", b""), headers.get(b"age", b"")
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if status != b"200":
        exchange.problem = f"answered with HTTP status {status.decode('ascii', 'replace')[:20]}"
    elif media_type != _MEDIA_TYPE:
        exchange.problem = "answered with what is not DNS"
    elif age.isdigit():
        exchange.age = int(age[:10])


def _outcome(exchange: _Exchange) -> bytes | OSError:
    if exchange.problem:
        return failed(exchange.problem)
    try:
        return aged(bytes(exchange.body), exchange.age)
    except (MessageError, struct.error, IndexError):
        return failed("sent what is not DNS")


def aged(reply: bytes, seconds: int) -> bytes:
    """The reply after it lay that long in an HTTP cache: its TTLs are shorter (RFC 8484 §5.1)."""
    _, _, questions, *counts = HEADER.unpack_from(reply)
    if not seconds:
        return reply
    changed = bytearray(reply)
    position = HEADER.size
    for _ in range(questions):
        position = skip_name(reply, position) + 4
    for _ in range(sum(counts)):
        fixed = skip_name(reply, position)
        rtype, rclass, ttl, length = RECORD.unpack_from(reply, fixed)
        if rtype != OPT:
            RECORD.pack_into(changed, fixed, rtype, rclass, max(ttl - seconds, 0), length)
        position = fixed + RECORD.size + length
    return bytes(changed)
