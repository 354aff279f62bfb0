"""What counts as seen in clear, packet by packet as the wire has them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.names import parse_name
from splitwgd.sightings import TCP, UDP, Sighting, sighted
from tests.worlds import ip

SITE4, SITE6, SERVER = ip("203.0.113.10"), ip("2001:db8:1::10"), ip("192.0.2.53")
NAME = parse_name("tunneled.example")


def v4(to: str, protocol: int, rest: bytes, fragment: int = 0, options: bytes = b"") -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 0, 0, fragment, 64, protocol, 0)
    return head + bytes(4) + ip(to).packed + options + rest


def v6(to: str, protocol: int, rest: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(rest), protocol, 64) + bytes(16) + ip(to).packed + rest


def udp(port: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HHHH", 40000, port, 0, 0) + payload


def tcp(port: int, payload: bytes = b"", options: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, port, 0, 0, (5 + len(options) // 4) << 4, 2, 0, 0, 0) + options + payload


def question(name: str) -> bytes:
    wire = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"
    return bytes(12) + wire + b"\0\1\0\1"


def seen(data: bytes) -> list[str]:
    return [str(sighting) for sighting in sighted([("eth0", data)], {SITE4, SITE6}, {NAME})]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (v4("203.0.113.10", TCP, tcp(443)), "to 203.0.113.10 port 443, on eth0"),
        (v4("203.0.113.10", UDP, udp(443)), "to 203.0.113.10 port 443, on eth0"),
        (v4("203.0.113.10", UDP, udp(443), options=bytes(8)), "to 203.0.113.10 port 443, on eth0"),
        (v4("203.0.113.10", 1, b"\x08\0"), "to 203.0.113.10, on eth0"),
        (v4("203.0.113.10", UDP, b"\1\2\3\4\5\6\7\x08", fragment=185), "to 203.0.113.10, on eth0"),
        (v6("2001:db8:1::10", TCP, tcp(80)), "to 2001:db8:1::10 port 80, on eth0"),
        (v6("2001:db8:1::10", 0, bytes((UDP, 0)) + bytes(6) + udp(80)), "to 2001:db8:1::10 port 80, on eth0"),
        (v6("2001:db8:1::10", 44, bytes((TCP, 0, 0, 1)) + bytes(4) + tcp(80)), "to 2001:db8:1::10 port 80, on eth0"),
        (v6("2001:db8:1::10", 44, bytes((TCP, 0, 5, 0)) + bytes(4) + b"rest"), "to 2001:db8:1::10, on eth0"),
    ],
)
def test_a_packet_to_an_address_is_seen(data: bytes, what: str) -> None:
    assert seen(data) == [what]


@pytest.mark.parametrize("asked", ["tunneled.example", "TuNneled.EXAMPLE", "www.tunneled.example"])
def test_a_question_is_seen_over_udp_and_tcp_in_any_case_and_for_what_is_below(asked: str) -> None:
    words = [f"a question for {asked.lower()} to 192.0.2.53 port 53, on eth0"]
    assert seen(v4("192.0.2.53", UDP, udp(53, question(asked)))) == words
    assert seen(v4("192.0.2.53", TCP, tcp(53, b"\0\x22" + question(asked), options=bytes(12)))) == words


@pytest.mark.parametrize(
    "data",
    [
        v4("203.0.113.11", TCP, tcp(443)),
        v4("192.0.2.53", UDP, udp(53, question("plain.example"))),
        v4("192.0.2.53", UDP, udp(53, question("untunneled.example"))),  # the end of its label is not its beginning
        v4("192.0.2.53", UDP, udp(5353, question("tunneled.example"))),
        v4("192.0.2.53", TCP, tcp(53)),
        b"",
        b"\x45",
        b"\x60" + bytes(20),
    ],
)
def test_nothing_else_is(data: bytes) -> None:
    assert seen(data) == []


def test_each_thing_is_counted() -> None:
    packets = [("eth0", v4("203.0.113.10", TCP, tcp(443)))] * 3 + [("wlan0", v4("203.0.113.10", TCP, tcp(443)))]
    found = sighted(packets, {SITE4}, ())
    assert found == {Sighting("eth0", "203.0.113.10", 443): 3, Sighting("wlan0", "203.0.113.10", 443): 1}


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x45", b"\x4f", b"\x60"]))
def test_no_bytes_are_a_surprise(data: bytes, start: bytes) -> None:
    sighted([("eth0", start + data)], {SITE4}, {NAME})
