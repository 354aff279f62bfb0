"""Replies from upstream: which addresses a name leads to, for how long, and what no reply can do to us."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from dnslib import DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from splitwgd.answers import (
    NEGATIVE_LIMIT,
    RECORDS_LIMIT,
    TTL_LIMIT,
    _Reader,
    is_reply_to,
    read_reply,
)
from splitwgd.errors import MessageError
from splitwgd.message import (
    AA,
    AAAA,
    AD,
    CNAME,
    DNAME,
    OPT,
    QR,
    RA,
    RRSIG,
    SOA,
    TC,
    A,
    Body,
    Query,
    expanded,
    fit_reply,
    question_for,
    read_query,
)
from splitwgd.names import to_text
from splitwgd.reply import Reply, counted_down, with_ttl
from tests.samples import answer, ask, question, raw_record, raw_reply

QUERY = ask("www.example.com")
HERE = b"\xc0\x0c"
OTHER = b"\x05other\x07example\0"
AN_OPT = b"\0" + struct.pack("!HHIH", OPT, 1232, 0, 0)
SOA_RECORD = "example.com. 900 IN SOA ns.example.com. me.example.com. 1 2 3 4 300"


def read(zone: str = "", authority: str = "", rcode: int = 0, qtype: str = "A") -> Reply:
    query = ask("www.example.com", qtype)
    return read_reply(answer(query, zone, authority, rcode), query)


def raw(*records: bytes, counts: tuple[int, int, int] | None = None, flags: int = QR) -> Reply:
    return read_reply(raw_reply(QUERY, *records, counts=counts, flags=flags), QUERY)


def texts(reply: Reply) -> list[str]:
    return [str(ip_address(address)) for address in reply.addresses]


def given_to_client(body: Body) -> DNSRecord:
    """What the client gets, as dnslib reads it."""
    return DNSRecord.parse(fit_reply(QUERY, body, stream=True))


def says(body: Body) -> list[str]:
    """All of its records."""
    record = given_to_client(body)
    return [f"{r.rname} {r.ttl} {r.rtype} {r.rdata}" for r in (*record.rr, *record.auth)]


# -- is it a reply to our question at all


def replied(**changes: Any) -> bytes:
    data = bytearray(answer(QUERY, "www.example.com. 60 IN A 192.0.2.1"))
    for place, value in changes.items():
        data[int(place[1:])] = value
    return bytes(data)


END = 12 + len(QUERY.question)


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        (replied(), True),
        (replied(_13=ord("W")), True),  # the case of the question is upstream's to choose
        (replied(_3=0x05), True),  # REFUSED
        (replied(_1=8), False),
        (replied(_2=0x01), False),
        (replied(_2=0xA8), False),
        (replied(_5=0), False),
        (replied(_5=2), False),
        (replied(_13=ord("v")), False),
        (replied(_12=2), False),
        (replied(**{f"_{END - 3}": 28}), False),
        (replied(**{f"_{END - 1}": 3}), False),
        (replied()[: END - 1], False),
        (replied()[:END], True),
        (b"", False),
    ],
    ids=[
        "it",
        "case",
        "refused",
        "id",
        "no QR",
        "opcode",
        "no question",
        "two questions",
        "name",
        "label",
        "type",
        "class",
    ]
    + ["cut", "just long enough", "empty"],
)
def test_a_reply_bears_the_id_the_flags_and_the_question(data: bytes, is_one: bool) -> None:
    assert is_reply_to(data, QUERY.id, QUERY.question) is is_one


def test_the_case_may_differ_in_the_name_and_nowhere_else() -> None:
    query = ask("www.example.com", "CERT")  # type 37; with another bit 0x20 it is 5, CNAME
    data = bytearray(answer(query))
    assert is_reply_to(bytes(data), query.id, query.question)
    data[-3] ^= 0x20
    assert not is_reply_to(bytes(data), query.id, query.question)


def test_where_the_case_was_drawn_it_has_to_come_back() -> None:
    drawn = QUERY.question.replace(b"example", b"eXaMPle")
    replies = [replied(), replied(_17=ord("E")), answer(ask("www.eXaMPle.com"))]
    assert [is_reply_to(data, QUERY.id, drawn) for data in replies] == [True, True, True]
    assert [is_reply_to(data, QUERY.id, drawn, any_case=False) for data in replies] == [False, False, True]


# -- addresses


@pytest.mark.parametrize(
    ("zone", "addresses"),
    [
        ("www.example.com. 60 IN A 192.0.2.1\nwww.example.com. 60 IN A 192.0.2.2", ["192.0.2.1", "192.0.2.2"]),
        ("www.example.com. 60 IN AAAA 2001:db8::1\nwww.example.com. 60 IN A 192.0.2.1", ["2001:db8::1", "192.0.2.1"]),
        ("WWW.Example.COM. 60 IN A 192.0.2.1", ["192.0.2.1"]),
        ("other.example.com. 60 IN A 192.0.2.1", []),
        ("example.com. 60 IN A 192.0.2.1", []),
        ("a.www.example.com. 60 IN A 192.0.2.1", []),
        ("www.example.com. 60 IN TXT one", []),
        ("www.example.com. 60 IN CNAME h.cdn.example.\nh.cdn.example. 60 IN A 192.0.2.1", ["192.0.2.1"]),
        ("h.cdn.example. 60 IN A 192.0.2.1\nwww.example.com. 60 IN CNAME h.cdn.example.", ["192.0.2.1"]),
        ("www.example.com. 60 IN CNAME H.CDN.Example.\nh.cdn.EXAMPLE. 60 IN A 192.0.2.1", ["192.0.2.1"]),
        ("www.example.com. 60 IN CNAME h.cdn.example.\ni.cdn.example. 60 IN A 192.0.2.1", []),
        ("b.example. 60 IN CNAME c.example.\nc.example. 60 IN A 192.0.2.1", []),
        ("www.example.com. 60 IN CNAME www2.example.com.\nwww.example.com. 60 IN A 192.0.2.1", ["192.0.2.1"]),
    ],
)
def test_only_the_chain_from_the_question_leads_to_addresses(zone: str, addresses: list[str]) -> None:
    assert texts(read(zone)) == addresses


def test_the_chain_is_told_in_its_order() -> None:
    zone = "b.example. 60 IN CNAME c.example.\nwww.example.com. 60 IN CNAME b.example.\nc.example. 60 IN A 192.0.2.1"
    assert [to_text(name) for name in read(zone).chain] == ["www.example.com", "b.example", "c.example"]


def test_no_other_section_holds_addresses() -> None:
    record = raw_record(HERE)
    assert texts(raw(record, counts=(1, 0, 0))) == ["1.2.3.4"]
    assert texts(raw(record, counts=(0, 1, 0))) == []
    assert texts(raw(record, counts=(0, 0, 1))) == []


@pytest.mark.parametrize(
    ("zone", "authority", "stray"),
    [
        ("www.example.com. 60 IN A 192.0.2.1", "", False),
        ("www.example.com. 60 IN CNAME h.cdn.example.\nh.cdn.example. 60 IN A 192.0.2.1", "", False),
        ("www.example.com. 60 IN A 192.0.2.1", "example.com. 60 IN NS ns.example.com.", False),
        ("", SOA_RECORD, False),
        ("www.example.com. 60 IN A 192.0.2.1\nvictim.example. 60 IN A 192.0.2.2", "", True),
        ("www.example.com. 60 IN A 192.0.2.1\nvictim.example. 60 IN TXT hello", "", True),
        ("www.example.com. 60 IN A 192.0.2.1\nvictim.example. 60 IN CNAME www.example.com.", "", True),
        ("www.example.com. 60 IN A 192.0.2.1", "victim.example. 60 IN A 192.0.2.2", True),
        ("www.example.com. 60 IN A 192.0.2.1", "victim.example. 60 IN AAAA 2001:db8::2", True),
        ("www.example.com. 60 IN A 192.0.2.1", "www.example.com. 60 IN A 192.0.2.2", True),
    ],
)
def test_what_does_not_belong_to_the_chain_is_told(zone: str, authority: str, stray: bool) -> None:
    assert read(zone, authority).stray is stray


def test_a_dname_and_signatures_may_stand_beside_the_chain() -> None:
    parent, target = b"\xc0\x10", b"\x03www\x03new\0"
    records = (
        raw_record(parent, DNAME, rdata=b"\x03new\0"),
        raw_record(parent, RRSIG, rdata=bytes(18) + b"\0" + bytes(8)),
        raw_record(HERE, CNAME, rdata=target),
        raw_record(target, rdata=b"\xc0\0\2\1"),
    )
    reply = raw(*records)
    assert (reply.stray, texts(reply), [to_text(name) for name in reply.chain][1:]) == (
        False,
        ["192.0.2.1"],
        ["www.new"],
    )
    assert len(given_to_client(reply).rr) == 4


def test_only_records_of_the_internet_are_read() -> None:
    chaos = bytearray(raw_record(HERE))
    chaos[5] = 3
    assert raw(bytes(chaos)).addresses == ()


@pytest.mark.parametrize(("rtype", "rdata"), [(A, b"123"), (A, b"12345"), (A, b""), (AAAA, b"1234"), (AAAA, b"1" * 17)])
def test_an_address_of_a_wrong_length_is_refused(rtype: int, rdata: bytes) -> None:
    with pytest.raises(MessageError, match="wrong length"):
        raw(raw_record(HERE, rtype, rdata=rdata))


@pytest.mark.parametrize("rdata", [b"\5other\0x", b"\xc0\x0cx", b"\5other", b""])
def test_an_alias_ends_with_its_record(rdata: bytes) -> None:
    with pytest.raises(MessageError):
        raw(raw_record(HERE, CNAME, rdata=rdata), raw_record(OTHER))


def test_two_aliases_for_one_name_are_refused() -> None:
    one = "www.example.com. 60 IN CNAME a.example."
    assert len(read(f"{one}\n{one}\na.example. 60 IN A 192.0.2.1").chain) == 2  # the same one twice is only silly
    with pytest.raises(MessageError, match="two aliases"):
        read(f"{one}\nwww.example.com. 60 IN CNAME b.example.")


V4_HINTS = b"\0\4\0\x08\xc0\0\2\1\xc0\0\2\2"  # RFC 9460 §7.3
V6_HINTS = b"\0\6\0\x10" + b"\x20\1\x0d\xb8" + bytes(11) + b"\1"


def service(rdata: bytes, rtype: int = 65) -> Reply:
    query = question_for(QUERY.name, rtype)
    return read_reply(raw_reply(query, raw_record(HERE, rtype, rdata=rdata)), query)


@pytest.mark.parametrize("rtype", [64, 65])
@pytest.mark.parametrize("target", [b"\0", b"\3svc\7example\0"])
@pytest.mark.parametrize("before", [b"", b"\0\1\0\3\2h2", b"\0\2\0\0"])
def test_the_hints_of_a_service_are_addresses(rtype: int, target: bytes, before: bytes) -> None:
    reply = service(b"\0\1" + target + before + V4_HINTS + V6_HINTS, rtype)
    assert texts(reply) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert reply.ttl == 60
    assert reply.targets == (() if target == b"\0" else (target,))


@pytest.mark.parametrize(
    ("zone", "targets"),
    [
        ("www.example.com. 60 IN HTTPS 0 svc.example.", ["svc.example"]),
        (
            "www.example.com. 60 IN HTTPS 1 SVC.Example. alpn=h2\nwww.example.com. 60 IN HTTPS 2 . alpn=h2",
            ["svc.example"],
        ),
        ("www.example.com. 60 IN HTTPS 1 www.example.com. alpn=h2", []),
        ("www.example.com. 60 IN CNAME b.example.\nb.example. 60 IN HTTPS 1 c.example.", ["c.example"]),
        ("www.example.com. 60 IN CNAME b.example.\nb.example. 60 IN HTTPS 1 b.example.", []),
        ("other.example. 60 IN HTTPS 1 c.example.", []),
        (
            "www.example.com. 60 IN HTTPS 1 a.example.\nwww.example.com. 60 IN HTTPS 2 b.example.",
            ["a.example", "b.example"],
        ),
    ],
)
def test_a_service_leads_to_the_names_of_its_targets(zone: str, targets: list[str]) -> None:
    assert [to_text(name) for name in read(zone, qtype="HTTPS").targets] == targets


@pytest.mark.parametrize("rdata", [b"", b"\0", b"\0\1", b"\0\1\3svc", b"\0\1\0\0", b"\0\1\0\0\4\0"])
def test_a_service_that_ends_too_early_is_refused(rdata: bytes) -> None:
    with pytest.raises(MessageError):
        service(rdata)


def test_half_a_hint_is_none() -> None:
    assert texts(service(b"\0\1\0\0\4\0\7\xc0\0\2\1\xc0\0\2")) == ["192.0.2.1"]


# -- chains without an end


def chain_of(length: int) -> str:
    names = ["www.example.com."] + [f"n{number}.example." for number in range(length)]
    aliases = [f"{owner} 60 IN CNAME {target}" for owner, target in zip(names, names[1:], strict=False)]
    return "\n".join([*aliases, f"{names[-1]} 60 IN A 192.0.2.1"])


def test_a_chain_may_have_10_aliases_and_not_11() -> None:
    assert texts(read(chain_of(10))) == ["192.0.2.1"]
    with pytest.raises(MessageError, match="chain"):
        read(chain_of(11))


@pytest.mark.parametrize(
    "zone",
    [
        "www.example.com. 60 IN CNAME www.example.com.",
        "www.example.com. 60 IN CNAME b.example.\nb.example. 60 IN CNAME www.example.com.",
        "www.example.com. 60 IN CNAME b.example.\nb.example. 60 IN CNAME c.example.\nc.example. 60 IN CNAME b.example.",
    ],
)
def test_a_chain_that_turns_back_is_refused(zone: str) -> None:
    with pytest.raises(MessageError, match="chain"):
        read(zone)


# -- lives


@pytest.mark.parametrize(
    ("zone", "ttl"),
    [
        ("www.example.com. 60 IN A 192.0.2.1", 60),
        ("www.example.com. 300 IN CNAME b.example.\nb.example. 60 IN A 192.0.2.1", 60),
        ("www.example.com. 30 IN CNAME b.example.\nb.example. 60 IN A 192.0.2.1", 30),
        ("www.example.com. 0 IN A 192.0.2.1", 0),
        ("www.example.com. 86400 IN A 192.0.2.1", 86400),
        ("www.example.com. 86401 IN A 192.0.2.1", 86400),
        ("www.example.com. 2147483647 IN A 192.0.2.1", 86400),
        ("www.example.com. 2147483648 IN A 192.0.2.1", 0),
        ("www.example.com. 4294967295 IN A 192.0.2.1", 0),
    ],
)
def test_a_reply_is_kept_as_long_as_its_shortest_record_and_a_day_at_most(zone: str, ttl: int) -> None:
    reply = read(zone)
    assert reply.ttl == ttl
    assert min(record.ttl for record in given_to_client(reply).rr) == ttl


def test_ttls_are_capped_in_every_section_that_is_passed_on() -> None:
    long = raw_record(HERE, ttl=10**6)
    reply = raw(long, long, long, counts=(1, 1, 1))
    record = given_to_client(reply)
    assert [r.ttl for r in (*record.rr, *record.auth)] == [TTL_LIMIT] * 2
    assert len(reply.ttl_places) == 2
    assert [r.rtype for r in record.ar] == [OPT]


@pytest.mark.parametrize(
    ("ttl", "low", "high", "given"),
    [
        (60, 0, 86400, 60),
        (5, 30, 600, 30),
        (0, 30, 600, 30),
        (601, 30, 600, 600),
        (30, 30, 600, 30),
        (2**31, 30, 600, 30),
    ],
)
def test_lives_are_brought_between_bounds(ttl: int, low: int, high: int, given: int) -> None:
    positive = read_reply(raw_reply(QUERY, raw_record(HERE, ttl=ttl)), QUERY, low, high)
    assert (positive.ttl, says(positive)) == (given, [f"www.example.com. {given} 1 1.2.3.4"])
    soa = raw_record(HERE, SOA, ttl, b"\0\0" + struct.pack("!5I", 1, 2, 3, 4, 400_000))
    negative = read_reply(raw_reply(QUERY, soa, counts=(0, 1, 0)), QUERY, low, high)
    if ttl < 2**31:
        assert (negative.ttl, [r.ttl for r in given_to_client(negative).auth]) == (given, [given])


@pytest.mark.parametrize(
    ("zone", "authority", "rcode", "ttl"),
    [
        ("", SOA_RECORD, 3, 300),
        ("", SOA_RECORD, 0, 300),
        ("", SOA_RECORD.replace(" 900 ", " 200 "), 3, 200),
        ("", SOA_RECORD.replace(" 300", " 4294967295"), 3, 900),
        ("", SOA_RECORD.replace(" 900 ", " 999999 ").replace(" 300", " 999999"), 3, NEGATIVE_LIMIT),
        ("", SOA_RECORD.replace(" 900 ", " 0 "), 3, 0),
        ("", "", 3, 0),
        ("", "", 0, 0),
        ("", "example.com. 900 IN NS ns.example.com.", 0, 0),
        ("www.example.com. 60 IN CNAME b.example.", SOA_RECORD, 3, 60),
        ("www.example.com. 600 IN CNAME b.example.", SOA_RECORD, 0, 300),
        ("www.example.com. 600 IN CNAME b.example.", "", 0, 0),
        ("other.example.com. 600 IN A 192.0.2.1", "", 0, 0),
        ("www.example.com. 60 IN A 192.0.2.1", SOA_RECORD, 2, 0),
        ("www.example.com. 600 IN A 192.0.2.1", SOA_RECORD, 3, 300),
        ("", SOA_RECORD, 5, 0),
    ],
)
def test_a_negative_answer_lives_as_its_soa_says(zone: str, authority: str, rcode: int, ttl: int) -> None:
    reply = read(zone, authority, rcode)
    assert (reply.rcode, reply.ttl) == (rcode, ttl)


def test_who_is_told_of_nothing_does_not_believe_it_for_longer_than_we_do() -> None:
    reply = read("", SOA_RECORD.replace(" 900 ", " 999999 ").replace(" 300", " 999999"), 3)
    assert [record.ttl for record in given_to_client(reply).auth] == [NEGATIVE_LIMIT]


def test_a_negative_answer_whose_ttl_has_its_first_bit_set_is_not_kept() -> None:
    assert read("", SOA_RECORD.replace(" 900 ", " 2147483648 "), 3).ttl == 0


@pytest.mark.parametrize("qtype", ["HTTPS", "TXT", "MX"])
@pytest.mark.parametrize(("authority", "ttl"), [(SOA_RECORD, 300), ("", 0)])
def test_an_alias_to_nothing_is_a_negative_answer_whatever_was_asked_for(qtype: str, authority: str, ttl: int) -> None:
    assert read("www.example.com. 3600 IN CNAME b.example.", authority, qtype=qtype).ttl == ttl


def test_an_soa_too_short_to_hold_a_minimum_says_nothing() -> None:
    assert raw(raw_record(HERE, SOA, rdata=b"x" * 19), counts=(0, 1, 0)).ttl == 0


def test_an_soa_beside_the_answer_says_nothing() -> None:
    soa = raw_record(HERE, SOA, ttl=900, rdata=b"\0\0" + struct.pack("!5I", 1, 2, 3, 4, 300))
    assert [raw(soa, counts=counts).ttl for counts in ((0, 1, 0), (0, 0, 1))] == [300, 0]


def test_an_answer_of_another_type_is_kept_without_addresses() -> None:
    reply = read("www.example.com. 60 IN TXT one", qtype="TXT")
    assert (reply.ttl, reply.addresses) == (60, ())


def test_a_truncated_reply_is_told_and_not_kept() -> None:
    reply = raw(raw_record(HERE), flags=QR | TC)
    assert (reply.truncated, reply.ttl) == (True, 0)


# -- what is passed on


@pytest.mark.parametrize("opt", [False, True])
def test_the_body_is_answers_and_authorities_as_they_came(opt: bool) -> None:
    zone = "www.example.com. 60 IN A 192.0.2.1\nwww.example.com. 60 IN TXT unknown"
    data = answer(QUERY, zone, SOA_RECORD, opt=opt)
    body = read_reply(data, QUERY)
    assert (body.answers, body.authorities) == (2, 1)
    assert body.records == data[END : len(data) - 11 * opt]


def test_additional_records_are_not_passed_on() -> None:
    glue = raw_record(HERE, rdata=b"\x7f\0\0\1")
    for more, options in (((glue,), b""), ((glue, AN_OPT, raw_record(HERE, 250)), b"")):
        reply = raw(raw_record(HERE), *more, counts=(1, 0, len(more)))
        record = given_to_client(reply)
        assert ([str(r.rdata) for r in record.rr], [r.rtype for r in record.ar]) == (["1.2.3.4"], [OPT])
        assert reply.options == options


@pytest.mark.parametrize(
    ("came", "given"),
    [(QR | RA, QR | RA), (QR | AD, QR | AD), (QR | AA | TC, QR), (QR | 0x0040, QR), (QR | 3, QR | 3)],
    ids=["RA", "AD", "AA and TC", "Z", "rcode"],
)
def test_flags_that_are_not_ours_to_repeat_are_taken_off(came: int, given: int) -> None:
    assert raw(flags=came).flags == given


# -- OPT


def test_options_are_told() -> None:
    cookie = b"\0\x0a\0\x08" + b"c" * 8
    with_options = b"\0" + struct.pack("!HHIH", OPT, 1232, 0, len(cookie)) + cookie
    assert raw(raw_record(HERE), with_options, counts=(1, 0, 1)).options == cookie


@pytest.mark.parametrize(("upper", "lower", "rcode"), [(1, 0, 16), (1, 7, 23), (0xFF, 15, 0xFFF), (0, 2, 2)])
def test_an_opt_makes_the_rcode_longer(upper: int, lower: int, rcode: int) -> None:
    extended = b"\0" + struct.pack("!HHIH", OPT, 1232, upper << 24, 0)
    reply = raw(extended, counts=(0, 0, 1), flags=QR | lower)
    assert (reply.rcode, reply.ttl, reply.flags & 0xF) == (rcode, 0, lower)


@pytest.mark.parametrize("counts", [(1, 0, 0), (1, 0, 1), (0, 1, 0)])
def test_an_opt_elsewhere_is_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(MessageError):
        raw(AN_OPT, raw_record(HERE), counts=counts)


def test_bytes_after_the_last_record_are_not_passed_on() -> None:
    assert raw(raw_record(HERE), b"more", counts=(1, 0, 0)).records.endswith(b"\1\2\3\4")


def test_a_name_is_told_without_its_pointers_in_its_own_case() -> None:
    data = bytes(12) + b"\3ExA\0" + b"\3www\xc0\x0c" + b"\xc0\x11" + b"\1a\xc0\x11"
    names = {12: b"\3ExA\0", 17: b"\3www\3ExA\0", 23: b"\3www\3ExA\0", 25: b"\1a\3www\3ExA\0"}
    for order in (sorted(names), sorted(names, reverse=True)):
        known: dict[int, bytes] = {}
        assert {place: expanded(data, place, known) for place in order} == names
        for place in order:  # what was learned of one is right for all
            assert expanded(data, place, known) == names[place]


@given(st.data())
def test_what_is_known_of_names_never_changes_what_they_are(data: st.DataObject) -> None:
    message = bytes(12)
    places: list[int] = []
    for _ in range(data.draw(st.integers(1, 12))):
        labels = data.draw(st.lists(st.binary(min_size=1, max_size=63), max_size=5))
        target = data.draw(st.sampled_from([None, *places]))
        places.append(len(message))
        message += b"".join(bytes((len(label),)) + label for label in labels)
        message += b"\0" if target is None else struct.pack("!H", 0xC000 | target)

    def told(place: int, known: dict[int, bytes]) -> bytes | None:
        try:
            return expanded(message, place, known)
        except MessageError:
            return None

    together: dict[int, bytes] = {}
    for place in data.draw(st.permutations(places)):
        assert told(place, together) == told(place, {})


# -- what no reply can do to us


def test_an_owner_may_have_255_bytes() -> None:
    longest = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0"
    assert len(longest) == 255
    assert raw(raw_record(longest)).addresses == ()
    with pytest.raises(MessageError, match="255"):
        raw(raw_record(longest.replace(b"\x3d", b"\x3ea")))


MALFORMED = [
    ((raw_record(HERE),), (2, 0, 0), "a record that is not there"),
    ((), (0xFFFF, 0xFFFF, 0xFFFF), "counts that lie"),
    ((raw_record(HERE, length=5),), None, "an RDLENGTH beyond the end"),
    ((raw_record(HERE, length=0xFFFF),), None, "an RDLENGTH far beyond the end"),
    ((raw_record(HERE)[:9],), None, "a cut record"),
    ((b"\xc0",), None, "half a pointer"),
    ((raw_record(b"\xc0\xff"),), None, "a pointer beyond the end"),
    ((raw_record(struct.pack("!H", 0xC000 | END)),), None, "a pointer to itself"),
    ((raw_record(b"\1a" + struct.pack("!H", 0xC000 | END)),), None, "a pointer to its own beginning"),
    ((raw_record(struct.pack("!H", 0xC000 | END + 2)),), None, "a pointer forward"),
    ((raw_record(b"\x40" + b"a" * 64 + b"\0"),), None, "an owner with a label of 64 bytes"),
    ((raw_record(b"\x80a\0"),), None, "an owner of an unknown kind"),
    ((raw_record((b"\x3f" + b"a" * 63) * 4 + b"\0"),), None, "an owner of 257 bytes"),
    (
        (raw_record((b"\x3f" + b"a" * 63) * 3 + b"\x3f" + b"a" * 63 + b"\xc0\x0c"),),
        None,
        "an owner too long by its pointer",
    ),
    ((raw_record(HERE, CNAME, rdata=b"\x05other"),), None, "an alias without an end"),
    ((raw_record(HERE, CNAME, rdata=b""),), None, "an alias to nothing"),
    ((raw_record(b"\xc0\x0b"),), None, "a pointer into the header"),
    ((raw_record(HERE, CNAME, rdata=struct.pack("!H", 0xC000 | END + 12)),), None, "an alias that points to itself"),
]


@pytest.mark.parametrize(
    ("records", "counts"), [(records, counts) for records, counts, _ in MALFORMED], ids=[why for *_, why in MALFORMED]
)
def test_what_cannot_be_read_is_refused(records: tuple[bytes, ...], counts: tuple[int, int, int] | None) -> None:
    with pytest.raises(MessageError):
        raw(*records, counts=counts)


GOOD = answer(
    QUERY,
    "www.example.com. 60 IN CNAME b.example.\nb.example. 60 IN A 192.0.2.1\nb.example. 60 IN AAAA 2001:db8::1",
    SOA_RECORD,
    opt=True,
)


def refused_or_read(data: bytes) -> None:
    if not is_reply_to(data, QUERY.id, QUERY.question):
        return
    try:
        reply = read_reply(data, QUERY)
    except MessageError:
        return
    assert 0 <= reply.ttl <= TTL_LIMIT
    assert reply.chain[0] == QUERY.name
    records = reply.records
    assert END + len(records) <= len(data)
    for place in reply.ttl_places:
        if records[place - 4 : place - 2] != struct.pack("!H", SOA):  # see the tests of negative answers
            assert struct.unpack_from("!I", records, place)[0] <= TTL_LIMIT
    counted_down(reply, 30)
    with_ttl(reply, 30)
    small = fit_reply(read_query(question("www.example.com", edns=None)), reply, stream=False)
    assert len(small) <= 512


@given(st.binary(max_size=120))
def test_any_bytes_after_the_question_are_read_or_refused(tail: bytes) -> None:
    for counts in ((1, 0, 0), (0, 1, 1), (9, 9, 9)):
        refused_or_read(raw_reply(QUERY, tail, counts=counts))


@settings(max_examples=400)
@given(
    st.lists(st.tuples(st.integers(END, len(GOOD) - 1) | st.integers(3, 11), st.integers(0, 255)), max_size=5),
    st.integers(END, len(GOOD)),
    st.binary(max_size=20),
)
def test_any_mutant_is_read_or_refused(changes: list[tuple[int, int]], end: int, more: bytes) -> None:
    mutant = bytearray(GOOD)
    for place, value in changes:
        mutant[place] = value
    refused_or_read(bytes(mutant))
    refused_or_read(bytes(mutant[:end]) + more)


@st.composite
def usual(draw: st.DrawFn) -> tuple[bytes, Query]:
    """A reply as nearly all are: addresses of the very name, perhaps an OPT record; and now and then not quite."""
    query = ask("www.example.com", draw(st.sampled_from(["A", "AAAA", "TXT"])))
    width = draw(st.sampled_from([4, 16])) if draw(st.integers(0, 9)) == 0 else 4 if query.qtype == A else 16
    ttls = st.sampled_from([0, 1, 29, 30, 60, 600, 601, TTL_LIMIT, TTL_LIMIT + 1, 2**31, 2**32 - 1])
    records = [raw_record(HERE, query.qtype, draw(ttls), draw(st.binary(min_size=width, max_size=width)))]
    records += [raw_record(HERE, query.qtype, 60, bytes(width))] * draw(st.integers(0, 3))
    options = draw(st.sampled_from([b"", b"\0\x0a\0\x08" + b"c" * 8]))
    extended = draw(st.sampled_from([0, 0, 0, 1 << 24, 0x8000]))
    more = draw(st.integers(0, 1))
    opt = b"\0" + struct.pack("!HHIH", OPT, 1232, extended, len(options)) + options
    flags = draw(st.sampled_from([QR, QR | RA, QR | AA | AD, QR | TC, QR | 3]))
    data = raw_reply(query, *records, *[opt] * more, counts=(len(records), 0, more), flags=flags)
    if draw(st.integers(0, 3)) == 0:
        mutant = bytearray(data)
        mutant[draw(st.integers(END, len(data) - 1))] ^= draw(st.integers(1, 255))
        data = bytes(mutant[: draw(st.integers(END, len(data)))])
    return data + draw(st.sampled_from([b"", b"", b"x"])), query


def outcome_of(work: Callable[[], Reply]) -> Reply | str:
    try:
        return work()
    except (MessageError, struct.error, IndexError):
        return "refused"


@settings(max_examples=600)
@given(usual(), st.sampled_from([(0, TTL_LIMIT), (30, 600)]))
def test_the_short_way_reads_what_the_long_way_reads(made: tuple[bytes, Query], bounds: tuple[int, int]) -> None:
    data, query = made
    long_way = outcome_of(lambda: _Reader(data, query, *bounds).read())
    assert outcome_of(lambda: read_reply(data, query, *bounds)) == long_way


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        *(
            answer(QUERY, "www.example.com. 60 IN A 192.0.2.1\n" * count, opt=opt)
            for count in (1, 3)
            for opt in (False, True)
        ),
    ],
)
def test_a_reply_that_is_cut_anywhere_is_refused(data: bytes) -> None:
    assert texts(read_reply(data, QUERY))[0] == "192.0.2.1"
    for end in range(END, len(data)):
        with pytest.raises(MessageError):
            read_reply(data[:end], QUERY)


class Counted(bytes):
    """Bytes that count how often they are looked at, and lose their patience."""

    looks = 0
    patience = 0

    def __getitem__(self, place: Any) -> Any:
        self.looks += 1
        assert self.looks <= self.patience, "a blow-up"
        return super().__getitem__(place)


def chained_pointers(size: int) -> tuple[bytes, int]:
    """A reply of about this size: half of it a chain of pointers, half of it owners at the chain's end."""
    head = END + 11
    count = min(size // 4, (0x3FFF - head - 2) // 2)
    pointers = b"\xc0\x0c" + b"".join(struct.pack("!H", 0xC000 | head + 2 * n) for n in range(count))
    last = struct.pack("!H", 0xC000 | head + 2 * count)
    owners = (size - head - len(pointers)) // 16
    carrier = raw_record(b"\0", 10, rdata=pointers)
    return raw_reply(QUERY, carrier, *[raw_record(last)] * owners), owners


@pytest.mark.parametrize("size", [512, 7_000, 65_000])
def test_chained_pointers_cost_no_more_than_names_of_255_bytes(size: int) -> None:
    data, owners = chained_pointers(size)
    counted = Counted(data)
    counted.patience = (owners + 1) * 600  # 127 labels, each with a pointer before it, and the record itself
    try:
        read_reply(counted, QUERY)
    except MessageError:
        pass
    assert counted.looks > 100


# -- more than there is time for


def many(count: int, rtype: int, rdata: bytes, owner: bytes = b"\xc0\x0c") -> bytes:
    """The records alone."""
    return raw_record(owner, rtype, rdata=rdata) * count


@pytest.mark.parametrize("count", [RECORDS_LIMIT, RECORDS_LIMIT + 1, 5000])
def test_of_too_many_addresses_the_first_are_kept(count: int) -> None:
    """Behind an alias: those of the very name are read in another, quicker way, and all of them."""
    alias = raw_record(b"\xc0\x0c", CNAME, rdata=b"\1w\0")
    reply = raw(alias + many(count - 1, A, b"\1\2\3\4", b"\1w\0"), counts=(count, 0, 0))
    assert (reply.answers, len(reply.addresses)) == (min(count, RECORDS_LIMIT), min(count, RECORDS_LIMIT) - 1)
    given_to_client(reply)


def test_of_the_very_names_addresses_there_may_be_any_number() -> None:
    assert len(raw(many(4000, A, b"\1\2\3\4"), counts=(4000, 0, 0)).addresses) == 4000


@pytest.mark.parametrize(("answers", "authorities"), [(RECORDS_LIMIT + 1, 0), (1, RECORDS_LIMIT), (0, 5000)])
def test_too_many_records_of_another_kind_are_no_reply(answers: int, authorities: int) -> None:
    text = ask("www.example.com", "TXT")
    whole = raw_reply(text, many(answers + authorities, 16, b"\1x"), counts=(answers, authorities, 0))
    with pytest.raises(MessageError, match="more records"):
        read_reply(whole, text)
    as_many_as_may = raw_reply(text, many(RECORDS_LIMIT, 16, b"\1x"), counts=(RECORDS_LIMIT, 0, 0))
    assert read_reply(as_many_as_may, text).answers == RECORDS_LIMIT
