"""HTTP/2 between our end and a server's in memory, frame by frame. With sockets and TLS: test_channels."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, RR, A, DNSRecord
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.doh import ALIVE, Http2, Refused, aged
from splitwgd.errors import MessageError
from splitwgd.servers import Server, Transport

SERVER = Server(IPv4Address("192.0.2.1"), 443, Transport.HTTPS, "dns.example", "/dns-query")
QUESTION = b"\xab\xcd\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1"
REPLY = b"\0\0\x81\x80\0\1\0\0\0\0\0\0\1a\0\0\1\0\1"
DNS = (("content-type", "application/dns-message"),)


class Pair:
    """Our end and a server's; `pump` carries bytes to and fro until there are none."""

    def __init__(self, server: Server = SERVER, **settings: int) -> None:
        self.near = Http2(server)
        self.far = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.far.local_settings.update({SettingCodes[name]: value for name, value in settings.items()})
        self.far.local_settings.acknowledge()
        self.far.initiate_connection()
        self.events: list[Event] = []
        self.found: list[tuple[int, bytes | OSError]] = []

    def pump(self) -> None:
        while True:
            there = self.near.outgoing()
            self.events += self.far.receive_data(there)
            back = self.far.data_to_send()
            self.found += self.near.receive(back)
            if not there and not back:
                return

    def hear(self) -> None:
        """What the server sends, in one piece, without an answer of ours."""
        self.found += self.near.receive(self.far.data_to_send())

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def streams(self) -> list[int]:
        """Of the questions that came whole."""
        return [event.stream_id for event in self.of(StreamEnded)]

    def reply(
        self, stream: int, body: bytes = REPLY, status: int = 200, headers: Iterable[tuple[str, str]] = DNS
    ) -> None:
        self.far.send_headers(stream, [(":status", str(status)), *headers])
        self.far.send_data(stream, body, end_stream=True)

    def failures(self) -> list[tuple[int, str]]:
        failures = [(token, str(outcome.strerror)) for token, outcome in self.found if isinstance(outcome, OSError)]
        assert len(failures) == len(self.found), self.found
        return failures


def asked(count: int = 1, **settings: int) -> Pair:
    """Questions with the tokens 1 to `count` that the server has heard."""
    pair = Pair(SERVER, **settings)
    pair.pump()
    for token in range(1, count + 1):
        assert pair.near.ask(QUESTION) == token
    pair.pump()
    return pair


def test_replies_in_any_order() -> None:
    pair = asked(3)
    assert len({event.stream_id for event in pair.of(RequestReceived)}) == 3
    assert b"".join(event.data for event in pair.of(DataReceived)) == 3 * (b"\0\0" + QUESTION[2:])
    for stream in reversed(pair.streams):
        pair.reply(stream, REPLY + bytes([stream]))
    pair.pump()
    assert pair.found == [(3, REPLY + b"\5"), (2, REPLY + b"\3"), (1, REPLY + b"\1")]
    assert not pair.near.over


@pytest.mark.parametrize(
    ("name", "port", "authority"),
    [
        ("dns.example", 443, "dns.example"),
        ("dns.example", 8443, "dns.example:8443"),
        ("192.0.2.1", 443, "192.0.2.1"),
        ("2001:db8::1", 443, "[2001:db8::1]"),
        ("2001:db8::1", 8443, "[2001:db8::1]:8443"),
    ],
)
def test_the_authority_is_the_name_that_is_verified(name: str, port: int, authority: str) -> None:
    pair = Pair(Server(IPv4Address("192.0.2.1"), port, Transport.HTTPS, name, "/q"))
    pair.near.ask(QUESTION)
    pair.pump()
    (request,) = pair.of(RequestReceived)
    assert dict(request.headers)[":authority"] == authority
    assert dict(request.headers)[":path"] == "/q"


@pytest.mark.parametrize("status", [204, 301, 400, 415, 429, 500, 503])
def test_a_status_other_than_200_is_a_failure(status: int) -> None:
    pair = asked()
    pair.reply(1, status=status)
    pair.pump()
    assert pair.failures() == [(1, f"answered with HTTP status {status}")]
    assert not pair.near.over


@pytest.mark.parametrize("headers", [[], [("content-type", "text/html")], [("content-type", "application/dns-json")]])
def test_what_is_not_said_to_be_dns_is_not_taken_for_it(headers: list[tuple[str, str]]) -> None:
    pair = asked()
    pair.reply(1, headers=headers)
    pair.pump()
    assert pair.failures() == [(1, "answered with what is not DNS")]


@pytest.mark.parametrize("media_type", ["Application/DNS-Message", "application/dns-message; charset=binary"])
def test_a_media_type_may_be_written_in_other_ways(media_type: str) -> None:
    pair = asked()
    pair.reply(1, headers=[("content-type", media_type)])
    pair.pump()
    assert pair.found == [(1, REPLY)]


@pytest.mark.parametrize("body", [b"", b"\0", REPLY[:11]])
def test_a_reply_without_a_whole_header(body: bytes) -> None:
    pair = asked()
    pair.reply(1, body)
    pair.pump()
    assert pair.failures() == [(1, "sent what is not DNS")]


def test_interim_responses_trailers_padding_and_pieces_are_no_matter() -> None:
    pair = asked()
    pair.far.send_headers(1, [(":status", "103"), ("link", "</x>; rel=preload")])
    pair.far.send_headers(1, [(":status", "200"), *DNS, ("server", "x" * 4000)])
    for byte in REPLY:
        pair.far.send_data(1, bytes([byte]), pad_length=byte)
    pair.far.ping(b"pingping")
    pair.far.send_headers(1, [("x-trailer", "yes")], end_stream=True)
    pair.pump()
    assert pair.found == [(1, REPLY)]
    assert not pair.near.over


@pytest.mark.parametrize("pieces", [1, 7, 4096])
def test_bytes_may_come_in_any_pieces(pieces: int) -> None:
    pair = asked(2)
    pair.reply(1)
    pair.reply(3)
    data = pair.far.data_to_send()
    for start in range(0, len(data), pieces):
        pair.found += pair.near.receive(data[start : start + pieces])
    assert pair.found == [(1, REPLY), (2, REPLY)]


def test_our_settings() -> None:
    pair = Pair()
    pair.pump()
    (changed, *_) = pair.of(RemoteSettingsChanged)
    settings = {setting: change.new_value for setting, change in changed.changed_settings.items()}
    assert settings[SettingCodes.ENABLE_PUSH] == 0
    assert settings[SettingCodes.MAX_HEADER_LIST_SIZE] == 16_384
    assert SettingCodes.ENABLE_CONNECT_PROTOCOL not in settings  # a client does not say so


# Windows and streams.


def test_the_server_may_send_more_than_any_window() -> None:
    pair = asked(1)
    for _ in range(400):  # 26 MB, and 16 MB is the window
        stream = pair.streams[-1]
        pair.far.send_headers(stream, [(":status", "200"), *DNS])
        for _ in range(3):
            pair.far.send_data(stream, bytes(16_384))
        pair.far.send_data(stream, bytes(16_383), end_stream=True)
        pair.near.ask(QUESTION)
        pair.pump()
        assert pair.found.pop()[1] == bytes(65_535)
    assert not pair.found
    assert not pair.near.over


def test_a_reply_that_is_too_long_is_cut_off() -> None:
    pair = asked()
    pair.far.send_headers(1, [(":status", "200"), *DNS])
    for _ in range(3):
        pair.far.send_data(1, bytes(16_384))
    pair.pump()
    assert pair.found == []
    pair.far.send_data(1, bytes(16_384))
    pair.pump()
    assert pair.failures() == [(1, "sent a reply longer than 65,535 bytes")]
    (reset,) = pair.of(StreamReset)
    assert (reset.stream_id, reset.error_code) == (1, ErrorCodes.CANCEL)


def test_a_reply_may_be_too_long_by_its_last_byte() -> None:
    pair = asked()
    pair.far.send_headers(1, [(":status", "200"), *DNS])
    for _ in range(4):
        pair.far.send_data(1, bytes(16_383))
        pair.pump()
    pair.far.send_data(1, bytes(4), end_stream=True)
    pair.hear()
    assert pair.failures() == [(1, "sent a reply longer than 65,535 bytes")]
    assert b"\0\0\4\3" not in pair.near.outgoing()  # it has ended by itself: no RST_STREAM
    assert not pair.near.over


def test_a_long_refusal_is_not_kept() -> None:
    pair = asked()
    pair.far.send_headers(1, [(":status", "503")])
    for _ in range(20):
        pair.far.send_data(1, bytes(16_384))
        pair.pump()
    assert not pair.near._streams[1].body
    pair.far.end_stream(1)
    pair.pump()
    assert pair.failures() == [(1, "answered with HTTP status 503")]


def test_a_question_waits_for_the_servers_windows() -> None:
    pair = Pair(INITIAL_WINDOW_SIZE=10)
    pair.pump()
    pair.near.ask(QUESTION)
    pair.pump()
    assert [event.data for event in pair.of(DataReceived)] == [b"\0\0" + QUESTION[2:10]]
    pair.far.increment_flow_control_window(5, 1)
    pair.pump()
    pair.far.increment_flow_control_window(100, 1)
    pair.pump()
    assert b"".join(event.data for event in pair.of(DataReceived)) == b"\0\0" + QUESTION[2:]
    assert pair.streams == [1]


def test_a_window_may_open_by_a_setting() -> None:
    pair = Pair(INITIAL_WINDOW_SIZE=0)
    pair.pump()
    pair.near.ask(QUESTION)
    pair.pump()
    assert not pair.of(DataReceived)
    pair.far.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    pair.pump()
    assert pair.streams == [1]


def test_a_reply_before_the_question_was_sent_whole() -> None:
    pair = Pair(INITIAL_WINDOW_SIZE=10)
    pair.pump()
    pair.near.ask(QUESTION)
    pair.pump()
    pair.reply(1, status=429)
    pair.pump()
    assert pair.failures() == [(1, "answered with HTTP status 429")]
    assert [event.stream_id for event in pair.of(StreamReset)] == [1]


def test_no_more_questions_at_once_than_the_server_wants() -> None:
    pair = asked(5, MAX_CONCURRENT_STREAMS=2)
    assert len(pair.streams) == 2
    pair.reply(1)
    pair.pump()
    assert len(pair.streams) == 3
    pair.near.forget(2)
    pair.pump()
    assert len(pair.streams) == 4
    for stream in pair.streams[2:]:
        pair.reply(stream)
    pair.pump()
    pair.reply(pair.streams[4])
    pair.pump()
    assert [token for token, _ in pair.found if token != ALIVE] == [1, 3, 4, 5]


def test_before_the_server_says_how_many_it_gets_a_hundred() -> None:
    near = Http2(SERVER)
    far = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    for _ in range(150):
        near.ask(QUESTION)
    assert len([event for event in far.receive_data(near.outgoing()) if isinstance(event, StreamEnded)]) == 100
    far.initiate_connection()
    far.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 120})
    near.receive(far.data_to_send())
    assert len([event for event in far.receive_data(near.outgoing()) if isinstance(event, StreamEnded)]) == 20


def test_who_gives_up_before_it_was_sent_has_not_asked() -> None:
    pair = Pair()
    pair.near.forget(pair.near.ask(QUESTION))
    pair.pump()
    assert not pair.of(RequestReceived)


def test_who_gives_up_later_resets_the_stream_and_asks_for_a_sign_of_life() -> None:
    pair = asked(2)
    pair.near.forget(1)
    pair.far.send_headers(1, [(":status", "200"), *DNS])  # crosses the reset
    pair.far.send_data(1, REPLY)
    pair.found += pair.near.receive(pair.far.data_to_send())
    assert pair.found == []
    pair.pump()
    assert [event.stream_id for event in pair.of(StreamReset)] == [1]
    assert len(pair.of(PingReceived)) == 1
    assert pair.found == [(ALIVE, b"")]
    pair.reply(3)
    pair.pump()
    assert pair.found[1:] == [(2, REPLY)]
    pair.near.forget(1)  # once more does no harm
    assert not pair.near.over


# The ways to end.


def test_a_stream_that_the_server_resets() -> None:
    pair = asked(2)
    pair.far.reset_stream(1, ErrorCodes.INTERNAL_ERROR)
    pair.far.reset_stream(3, ErrorCodes.REFUSED_STREAM)
    pair.pump()
    (first, reset), (second, refused) = pair.found
    assert (first, str(reset), type(reset)) == (1, "[Errno 71] ended the question (HTTP/2 error 2)", OSError)
    assert (second, type(refused)) == (2, Refused)
    assert not pair.near.over


def test_goaway_without_an_error_lets_everything_be_asked_again() -> None:
    pair = asked(4, MAX_CONCURRENT_STREAMS=3)
    pair.reply(1)
    pair.far.close_connection(last_stream_id=3)
    pair.hear()
    assert pair.found[0] == (1, REPLY)
    assert [(token, type(outcome)) for token, outcome in pair.found[1:]] == [(2, Refused), (3, Refused), (4, Refused)]
    assert pair.near.over == "ended the connection (HTTP/2 error 0)"


def test_goaway_with_an_error_is_an_end() -> None:
    pair = asked(2)
    pair.far.close_connection(ErrorCodes.ENHANCE_YOUR_CALM, b"\0too many")
    pair.hear()
    assert pair.found == []
    assert pair.near.over == "ended the connection (HTTP/2 error 11)"


def test_what_comes_behind_a_goaway_is_not_read() -> None:
    pair = asked(2)
    pair.reply(1)
    last = pair.far.data_to_send()
    pair.far.close_connection()
    pair.found += pair.near.receive(pair.far.data_to_send() + last + b"garbage garbage")
    assert [type(outcome) for _, outcome in pair.found] == [Refused, Refused]
    assert pair.near.over.startswith("ended the connection")


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return struct.pack("!I", size)[1:] + struct.pack("!BBI", kind, flags, stream) + payload


BROKEN = {
    "a reply to no question": frame(0, 1, 7, b"x"),
    "headers that are none": frame(1, 4, 1, b"\xff" * 20),
    "a frame of 16 MB": frame(0, 0, 1, b"", 0xFFFFFF),
    "a frame one byte too long": frame(0, 0, 1, bytes(16_385)),
    "a push": frame(5, 4, 1, b"\0\0\0\2\x88"),
    "a window that overflows": frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "no window": frame(8, 0, 1, b"\0\0\0\0"),
    "headers without an end": frame(1, 0, 1, b"") + frame(9, 0, 1, b"") * 100,
    "HTTP/1.1": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a status of no number": frame(1, 4, 1, b"\x08\x03abc"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_who_breaks_the_rules_is_left_after_what_it_said_before(case: str) -> None:
    pair = asked(2)
    pair.reply(3)
    pair.found += pair.near.receive(pair.far.data_to_send() + BROKEN[case])
    if case == "a status of no number":  # a rule that h2 leaves to us
        pair.found += pair.near.receive(frame(0, 1, 1, b""))
        assert [token for token, _ in pair.found] == [2, 1]
    else:
        assert pair.near.over.startswith("broke the rules of HTTP/2 (")
        assert pair.found == [(2, REPLY)]


def test_a_compressed_bomb_of_headers_is_not_unpacked() -> None:
    pair = asked()
    big = b"\x40\x01a" + b"\x7f\xa1\x1e" + b"x" * 4000  # one header, kept in the table, then pointed to
    bomb = big + b"\xbe" * 8000
    pair.found += pair.near.receive(frame(1, 4, 1, b"\x88" + bomb))
    assert pair.near.over == "broke the rules of HTTP/2 (DenialOfServiceError)"


def test_we_say_when_we_leave() -> None:
    pair = asked()
    pair.near.ask(QUESTION)
    pair.near.bye()
    (event,) = pair.far.receive_data(pair.near.outgoing())
    assert type(event).__name__ == "ConnectionTerminated"


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_no_bytes_do_more_than_end_it(pieces: list[bytes]) -> None:
    pair = asked()
    for piece in pieces:
        pair.near.receive(piece)
        pair.near.outgoing()


def _good() -> bytes:
    pair = asked(2)
    pair.reply(1)
    pair.far.ping(b"pingping")
    pair.reply(3)
    return pair.far.data_to_send()


GOOD = _good()


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_change_in_a_good_stream_does_more_than_end_it(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    pair = asked(2)
    found = pair.near.receive(bytes(data))
    pair.near.outgoing()
    assert len([token for token, _ in found if token != ALIVE]) <= 2


# Age.


def with_ttls(*ttls: int) -> bytes:
    record = DNSRecord.question("example.com")
    record.header.id = 0
    for ttl in ttls:
        record.add_answer(RR("example.com", QTYPE.A, rdata=A("192.0.2.1"), ttl=ttl))
    record.add_ar(EDNS0(flags="do", udp_len=1232))
    return bytes(record.pack())


def test_the_time_in_a_cache_is_taken_from_the_ttls() -> None:
    assert aged(with_ttls(600, 10), 250) == with_ttls(350, 0)
    assert aged(with_ttls(600), 0) == with_ttls(600)


@pytest.mark.parametrize(("age", "left"), [("250", 350), ("9" * 5000, 0), ("-1", 600), ("soon", 600)])
def test_the_age_of_a_response_counts(age: str, left: int) -> None:
    pair = asked()
    pair.reply(1, with_ttls(600), headers=[*DNS, ("age", age)])
    pair.pump()
    assert pair.found == [(1, with_ttls(left))]


@given(st.binary(max_size=80))
def test_no_reply_is_too_odd_to_age(data: bytes) -> None:
    try:
        assert len(aged(data, 5)) == len(data)
    except (MessageError, struct.error, IndexError):
        pair = asked()
        pair.reply(1, data, headers=[*DNS, ("age", "5")])
        pair.pump()
        assert pair.failures() == [(1, "sent what is not DNS")]
