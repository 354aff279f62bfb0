"""Questions from the net and the replies to them: what is read, what is refused and how, and what fits."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from dnslib import RCODE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from splitwgd import message as module
from splitwgd.errors import MessageError
from splitwgd.message import (
    AA,
    AD,
    BADVERS,
    CD,
    COOKIE,
    EXTENDED_ERROR,
    FORMERR,
    META_TYPES,
    NOTIMP,
    OPT,
    QR,
    RA,
    RD,
    REFUSED,
    SERVFAIL,
    TC,
    BadQuery,
    Body,
    Query,
    Why,
    error_reply,
    fit_reply,
    option,
    question_for,
    read_query,
    skip_name,
    upstream_query,
)
from splitwgd.names import parse_name
from tests.samples import answer, ask, extended_error, question, raw_record

NAME = b"\x06github\x03com\0"
A_IN = b"\0\1\0\1"


def packet(
    flags: int = RD,
    counts: tuple[int, int, int, int] = (1, 0, 0, 0),
    name: bytes = NAME,
    rest: bytes = b"",
    end: bytes = A_IN,
) -> bytes:
    """A question byte by byte."""
    return struct.pack("!6H", 7, flags, *counts) + name + end + rest


def opt(size: int = 1232, version: int = 0, flags: int = 0, rdata: bytes = b"", owner: bytes = b"\0") -> bytes:
    return owner + struct.pack("!HHBBHH", OPT, size, 0, version, flags, len(rdata)) + rdata


def with_flags(query: Query, flags: int) -> Query:
    return replace(query, flags=flags)


def flags_of(reply: bytes) -> int:
    return int.from_bytes(reply[2:4], "big")


# -- what is read


def test_a_question_is_read_as_dnslib_wrote_it() -> None:
    query = read_query(question("GitHub.com", "AAAA", ident=0x1234, edns=4096, do=1))
    assert (query.id, query.name, query.qtype) == (0x1234, NAME, 28)
    assert query.question == b"\x06GitHub\x03com\0\0\x1c\0\1"
    assert (query.edns, query.udp_size, query.dnssec_ok) == (True, 4096, True)


def test_a_question_without_edns_can_take_512_bytes() -> None:
    query = read_query(question(edns=None))
    assert (query.edns, query.udp_size, query.dnssec_ok) == (False, 512, False)


@pytest.mark.parametrize(("size", "taken"), [(0, 512), (511, 512), (512, 512), (1400, 1400), (65535, 65535)])
def test_a_sender_can_take_512_bytes_whatever_it_says(size: int, taken: int) -> None:
    assert read_query(packet(counts=(1, 0, 0, 1), rest=opt(size))).udp_size == taken


@pytest.mark.parametrize(
    "data",
    [
        packet(counts=(1, 0, 0, 1), rest=opt(rdata=b"\0\x0a\0\x08COOKIEXX")),
        packet(counts=(1, 0, 0, 2), rest=raw_record(b"\xc0\x0c") + opt()),
        packet(name=b"\0"),
        packet(name=(b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0"),
        packet(name=b"\x04a.\0\xff\0"),
    ],
    ids=["a cookie", "OPT last", "root", "255 bytes", "any bytes"],
)
def test_an_unusual_question_is_a_question(data: bytes) -> None:
    query = read_query(data)
    assert query.id == 7
    assert query.question == query.name + A_IN


def test_case_and_id_make_no_other_key_and_type_do_and_cd_do() -> None:
    base = packet()
    assert read_query(packet(name=b"\x06GITHUB\x03CoM\0")).key == read_query(base).key
    others = [base, packet(end=b"\0\2\0\1"), packet(RD | CD), packet(counts=(1, 0, 0, 1), rest=opt(flags=0x8000))]
    assert len({read_query(other).key for other in others}) == 4


# -- what is refused


SILENCE = [
    (b"", "empty"),
    (b"\0" * 11, "shorter than a header"),
    (packet(QR | RD), "a reply: answering it could start a loop"),
    (packet(QR | 0x7800, (0, 0, 0, 0)), "a reply of another opcode"),
]


@pytest.mark.parametrize("data", [data for data, _ in SILENCE], ids=[why for _, why in SILENCE])
def test_silence_is_the_answer_to(data: bytes) -> None:
    with pytest.raises(BadQuery) as caught:
        read_query(data)
    assert caught.value.reply is None


MALFORMED = [
    (packet(counts=(0, 0, 0, 0)), "no question"),
    (packet(counts=(2, 0, 0, 0), rest=NAME + A_IN), "two questions"),
    (packet()[:12], "a question that is not there"),
    (packet()[:-1], "a cut class"),
    (packet()[:15], "a cut label"),
    (packet(name=b"\x06github\x03com"), "a name without an end"),
    (packet(name=b"\xc0\x0c"), "a name that points to itself"),
    (packet(name=b"\x03www\xc0\x0c"), "a compressed name"),
    (packet(name=b"\x40" + b"a" * 64 + b"\0"), "a label of 64 bytes"),
    (packet(name=b"\x80a\0"), "a label of an unknown kind"),
    (packet(name=(b"\x3f" + b"a" * 63) * 4 + b"\0"), "a name of 257 bytes"),
    (packet(name=(b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0"), "a name of 256 bytes"),
    (packet(rest=b"\0"), "a byte too many"),
    (packet(counts=(1, 0, 0, 1)), "a record that is not there"),
    (packet(counts=(1, 0xFFFF, 0xFFFF, 0xFFFF), rest=opt()), "counts that lie"),
    (packet(counts=(1, 0, 0, 0), rest=opt()), "a record that is not counted"),
    (packet(counts=(1, 0, 0, 1), rest=raw_record(b"\0", length=5)), "an RDLENGTH that is too long"),
    (packet(counts=(1, 0, 0, 1), rest=raw_record(b"\0", length=3)), "an RDLENGTH that is too short"),
    (packet(counts=(1, 0, 0, 2), rest=opt() + opt()), "two OPT records"),
    (packet(counts=(1, 0, 0, 1), rest=opt()[:-1]), "a cut OPT"),
    (packet(counts=(1, 0, 0, 1), rest=opt(owner=NAME)), "an OPT that is not at the root"),
    (packet(counts=(1, 0, 0, 1), rest=opt(owner=b"\xc0\x0c")), "an OPT at a pointer"),
    (packet(counts=(1, 1, 0, 0), rest=raw_record(b"\xc0\x0c")), "a question with an answer"),
    (packet(counts=(1, 0, 1, 1), rest=raw_record(b"\xc0\x0c") + opt()), "a question with an authority"),
    (packet(counts=(1, 0, 0, 1), rest=opt(rdata=b"\0")), "half an option"),
    (packet(counts=(1, 0, 0, 1), rest=opt(rdata=option(3, b"") + b"\0\3\0\1")), "an option that is not there"),
    (packet(counts=(1, 0, 0, 2), rest=opt(rdata=b"\0\3\0\5") + raw_record(b"\0")), "an option beyond its record"),
    (packet(counts=(1, 0, 0, 1), rest=b"\x7f"), "an owner of an unknown kind"),
    (packet(counts=(1, 0, 0, 1), rest=b"\xc0"), "half a pointer"),
]


@pytest.mark.parametrize("data", [data for data, _ in MALFORMED], ids=[why for _, why in MALFORMED])
def test_formerr_is_the_answer_to(data: bytes) -> None:
    with pytest.raises(BadQuery) as caught:
        read_query(data)
    assert caught.value.reply == struct.pack("!6H", 7, QR | RD | FORMERR, 0, 0, 0, 0)


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 15])
def test_another_opcode_is_not_implemented_and_echoed(opcode: int) -> None:
    with pytest.raises(BadQuery) as caught:
        read_query(packet(opcode << 11))
    assert caught.value.reply == struct.pack("!6H", 7, QR | opcode << 11 | NOTIMP, 0, 0, 0, 0)


@pytest.mark.parametrize("qclass", [3, 4, 254, 255])
def test_another_class_is_refused(qclass: int) -> None:
    with pytest.raises(BadQuery) as caught:
        read_query(packet(end=struct.pack("!HH", 16, qclass)))
    assert caught.value.reply is not None
    assert DNSRecord.parse(caught.value.reply).header.rcode == REFUSED


@pytest.mark.parametrize("qtype", sorted(META_TYPES))
def test_a_type_that_is_no_data_is_refused(qtype: int) -> None:
    with pytest.raises(BadQuery) as caught:
        read_query(packet(end=struct.pack("!HH", qtype, 1)))
    assert caught.value.reply is not None
    reply = DNSRecord.parse(caught.value.reply)
    assert (reply.header.rcode, reply.q.qtype, reply.rr) == (REFUSED, qtype, [])


@pytest.mark.parametrize("qtype", [0, 10, 40, 42, 248, 255, 256, 65280, 65535])
def test_any_other_type_is_passed_on(qtype: int) -> None:
    assert read_query(packet(end=struct.pack("!HH", qtype, 1))).qtype == qtype


@pytest.mark.parametrize("version", [1, 2, 255])
@pytest.mark.parametrize("end", [A_IN, b"\0\xfc\0\1", b"\0\1\0\3"], ids=["A", "AXFR", "CH"])
def test_an_unknown_edns_version_is_badvers(version: int, end: bytes) -> None:
    with pytest.raises(BadQuery) as caught:
        read_query(packet(counts=(1, 0, 0, 1), rest=opt(version=version), end=end))
    assert caught.value.reply is not None
    reply = DNSRecord.parse(caught.value.reply)
    (record,) = reply.ar
    assert (record.ttl >> 24) << 4 | reply.header.rcode == BADVERS
    assert record.ttl >> 16 & 0xFF == 0  # our version
    assert str(reply.q.qname) == "github.com."


VALID = [
    packet(),
    question(),
    question("www.example.com", "AAAA", edns=None),
    packet(counts=(1, 0, 0, 2), rest=raw_record(b"\xc0\x0c") + opt(rdata=option(3, b"") + option(12, bytes(9)))),
]
edits = st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=6)


def refused_or_read(data: bytes) -> None:
    try:
        query = read_query(data)
    except BadQuery as bad:
        reply = bad.reply
    else:
        assert 17 <= 12 + len(query.question) <= len(data)
        assert len(query.name) <= 255
        assert query.udp_size >= 512
        reply = error_reply(query, SERVFAIL)
    if reply is not None:
        assert reply[:2] == data[:2]
        assert flags_of(reply) & QR
        if data[12:].isascii():  # dnslib takes no other names
            DNSRecord.parse(reply)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_question_or_refused(data: bytes) -> None:
    refused_or_read(data)


@given(st.sampled_from(VALID), edits, st.integers(0, 80), st.binary(max_size=8))
def test_any_mutant_is_a_question_or_refused(
    data: bytes, changes: list[tuple[int, int]], end: int, more: bytes
) -> None:
    mutant = bytearray(data)
    for place, value in changes:
        mutant[place % len(mutant)] = value
    refused_or_read(bytes(mutant[:end]) + more)


@pytest.mark.parametrize("data", VALID)
def test_a_question_that_is_cut_anywhere_is_refused(data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(BadQuery):
            read_query(data[:end])


@pytest.mark.parametrize(
    ("data", "end"), [(b"\0", 1), (b"\x01a\0", 3), (b"\xc0\x00", 2), (b"\x01a\xc0\x00", 4), (b"\xff\xff", 2)]
)
def test_a_name_is_skipped_and_its_pointers_not_followed(data: bytes, end: int) -> None:
    assert skip_name(data, 0) == end


def test_a_label_of_an_unknown_kind_is_not_skipped() -> None:
    with pytest.raises(MessageError):
        skip_name(b"\x40a\0", 0)


# -- questions of our own


@pytest.mark.parametrize(("do", "cd"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_upstream_is_asked_in_our_own_words(do: int, cd: int) -> None:
    query = read_query(question("GitHub.com", edns=512, do=do))
    query = with_flags(query, query.flags & ~RD | CD * cd | AA | TC)
    record = DNSRecord.parse(upstream_query(query, 0xBEEF, query.question))
    assert (record.header.id, record.header.rd, record.header.cd) == (0xBEEF, 1, cd)
    assert (record.header.qr, record.header.aa, record.header.tc) == (0, 0, 0)
    assert record.header.ad == 1  # RFC 6840 §5.7: who asks next may want to know, even if this one does not
    assert str(record.q.qname) == "GitHub.com."
    (edns,) = record.ar
    assert (edns.rtype, edns.edns_len, edns.edns_do) == (OPT, 1232, do)


def test_upstream_is_asked_by_the_question_as_it_is_to_be_sent() -> None:
    record = DNSRecord.parse(upstream_query(ask("github.com"), 1, b"\x06gItHUb\x03COM\0" + A_IN))
    assert record.q.qname.label == (b"gItHUb", b"COM")


def test_the_clients_options_stay_here_and_ours_go_out() -> None:
    asked = read_query(packet(counts=(1, 0, 0, 1), rest=opt(rdata=option(8, b"\0\1\x18\0\xc6\x33\x64"))))
    (edns,) = DNSRecord.parse(upstream_query(asked, 1, asked.question, option(COOKIE, b"ourcooki"))).ar
    assert [(found.code, found.data) for found in edns.rdata] == [(COOKIE, b"ourcooki")]


def test_a_server_that_knows_no_edns_is_asked_without_it() -> None:
    query = read_query(question(do=1))
    record = DNSRecord.parse(upstream_query(query, 1, query.question, None))
    assert (record.ar, record.header.rd, str(record.q.qname)) == ([], 1, "github.com.")


def test_a_question_of_our_own_is_one_that_a_client_could_ask() -> None:
    query = question_for(parse_name("vpn.example.com"), 28)
    asked = read_query(question("vpn.example.com", "AAAA"))
    assert (query.key, query.question, query.name) == (asked.key, asked.question, asked.name)
    assert read_query(upstream_query(query, 1, query.question)).key == query.key


# -- replies


def body(query: Query, zone: str = "github.com. 60 IN A 192.0.2.1", flags: int = QR | RD | RA) -> Body:
    data = answer(query, zone)
    answers, authorities = struct.unpack_from("!HH", data, 6)
    return Body(flags, answers, authorities, data[12 + len(query.question) :], 0)


def test_a_reply_bears_the_askers_id_and_echoes_its_case() -> None:
    mixed = read_query(question("gItHuB.cOm", ident=42))
    record = DNSRecord.parse(fit_reply(mixed, body(ask()), stream=False))
    assert record.header.id == 42
    assert str(record.q.qname) == "gItHuB.cOm."
    assert str(record.rr[0].rname) == "gItHuB.cOm."
    assert str(record.rr[0].rdata) == "192.0.2.1"


@pytest.mark.parametrize(("edns", "records"), [(None, 0), (1232, 1)])
@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_has_an_opt_only_if_the_question_had_one(edns: int | None, records: int, stream: bool) -> None:
    query = read_query(question(edns=edns))
    for reply in (fit_reply(query, body(query), stream), error_reply(query, SERVFAIL)):
        assert [record.rtype for record in DNSRecord.parse(reply).ar] == [OPT] * records


def test_the_opt_comes_after_the_records_and_says_what_we_can_take() -> None:
    query = read_query(question(edns=4096, do=1))
    made = body(query)
    made = Body(made.flags, made.answers, 1, made.records + raw_record(b"\xc0\x0c", 6, rdata=b"\0\0" + bytes(20)), 0)
    record = DNSRecord.parse(fit_reply(query, made, False))
    assert (len(record.rr), len(record.auth)) == (1, 1)
    (edns,) = record.ar
    assert (edns.rtype, edns.edns_len, edns.edns_do, edns.edns_ver, edns.rdata) == (OPT, 1232, 1, 0, [])


@pytest.mark.parametrize(
    ("asked", "do", "came", "given"),
    [
        (RD, 0, 0, RD | RA),
        (0, 0, RD, RA),
        (RD | CD, 0, 0, RD | CD | RA),
        (RD, 0, CD, RD | RA),
        (RD, 0, AD, RD | RA),
        (RD | AD, 0, AD, RD | RA | AD),
        (RD, 1, AD, RD | RA | AD),
        (RD | AD, 0, 0, RD | RA),
        (RD, 0, AA, RD | RA | AA),
        (RD, 0, 3, RD | RA | 3),
    ],
)
def test_flags_are_the_askers_or_the_answers(asked: int, do: int, came: int, given: int) -> None:
    query = with_flags(read_query(question(do=do)), asked)
    assert flags_of(fit_reply(query, body(query, flags=QR | came), False)) == QR | given


def addresses(count: int) -> str:
    return "\n".join(f"github.com. 60 IN A 192.0.2.{number}" for number in range(count))


@pytest.mark.parametrize(
    ("edns", "count", "fits"),
    [
        (None, 30, True),
        (None, 31, False),
        (512, 29, True),
        (512, 30, False),
        (1232, 74, True),
        (1232, 75, False),
        (4096, 75, False),
    ],
)
def test_what_is_too_long_for_udp_becomes_an_empty_reply_with_tc(edns: int | None, count: int, fits: bool) -> None:
    query = read_query(question(edns=edns))
    reply = fit_reply(query, body(query, addresses(count)), stream=False)
    record = DNSRecord.parse(reply)
    assert len(reply) <= min(max(edns or 512, 512), 1232)
    assert (record.header.tc, len(record.rr)) == ((0, count) if fits else (1, 0))
    assert len(record.ar) == (edns is not None)
    assert (record.header.id, str(record.q.qname)) == (7, "github.com.")


NSEC = raw_record(b"\xc0\x0c", 47, rdata=b"\0" + bytes(40))


def with_authority(query: Query, count: int, beside: bytes = NSEC) -> Body:
    made = body(query, addresses(count))
    return Body(made.flags, count, 1, made.records + beside, len(made.records))


def test_what_is_beside_an_answer_is_left_out_before_it_is_cut() -> None:
    query = read_query(question(edns=512))
    for count, sections in ((25, (25, 1)), (29, (29, 0)), (30, (0, 0))):
        record = DNSRecord.parse(fit_reply(query, with_authority(query, count), False))
        assert (record.header.tc, len(record.rr), len(record.auth)) == (count == 30, *sections)
    denial = Body(QR, 0, 1, raw_record(b"\xc0\x0c", 99, rdata=bytes(600)), 0)
    assert DNSRecord.parse(fit_reply(query, denial, False)).header.tc == 1  # there it is all that was said


def test_who_validates_gets_the_proof_that_is_beside_an_answer_or_comes_back_by_tcp() -> None:
    query = read_query(question(edns=512, do=1))
    assert DNSRecord.parse(fit_reply(query, with_authority(query, 29), False)).header.tc == 1


def test_over_tcp_nothing_is_cut() -> None:
    query = read_query(question(edns=None))
    record = DNSRecord.parse(fit_reply(query, body(query, addresses(200)), stream=True))
    assert (record.header.tc, len(record.rr)) == (0, 200)


@pytest.mark.parametrize(("length", "cut"), [(65535, 0), (65536, 1)])
def test_over_tcp_a_reply_does_not_outgrow_its_length(length: int, cut: int) -> None:
    query = read_query(question(edns=None))
    text = b"x" * (length - 12 - len(query.question) - 12)
    reply = fit_reply(query, Body(QR, 1, 0, raw_record(b"\xc0\x0c", 99, rdata=text), 0), stream=True)
    assert DNSRecord.parse(reply).header.tc == cut
    assert len(reply) == (12 + len(query.question) if cut else length)


@pytest.mark.parametrize("rcode", [SERVFAIL, REFUSED, NOTIMP, FORMERR])
@pytest.mark.parametrize("edns", [None, 1232])
def test_an_error_is_a_reply_without_records(rcode: int, edns: int | None) -> None:
    query = with_flags(read_query(question("GitHub.com", edns=edns)), RD | CD | AD)
    record = DNSRecord.parse(error_reply(query, rcode))
    assert (record.header.id, RCODE[record.header.rcode]) == (7, RCODE[rcode])
    assert (record.header.qr, record.header.rd, record.header.ra, record.header.cd) == (1, 1, 1, 1)
    assert str(record.q.qname) == "GitHub.com."
    assert (record.rr, record.auth) == ([], [])
    assert extended_error(record) is None


# -- why (RFC 8914)

WHY = Why(23, "splitwg: the tunnel wg0 is down")


@pytest.mark.parametrize("do", [0, 1])
def test_an_error_says_why_to_whom_can_hear_it(do: int) -> None:
    record = DNSRecord.parse(error_reply(read_query(question(do=do)), SERVFAIL, WHY))
    assert (record.header.rcode, extended_error(record)) == (SERVFAIL, (23, "splitwg: the tunnel wg0 is down"))
    (edns,) = record.ar
    assert (edns.edns_do, edns.edns_len, edns.rname.label) == (do, 1232, ())


def test_an_extended_error_is_laid_out_as_the_rfc_draws_it() -> None:
    reply = error_reply(read_query(question()), SERVFAIL, Why(3, "ä"))
    rest = struct.pack("!HHH", EXTENDED_ERROR, 4, 3) + "ä".encode()  # RFC 8914 §2: UTF-8, and no zero at its end
    assert reply.endswith(b"\0" + struct.pack("!HHIH", OPT, 1232, 0, len(rest)) + rest)


def test_without_edns_there_is_no_room_for_a_reason() -> None:
    query = read_query(question(edns=None))
    whole = fit_reply(query, body(query), False, WHY)
    assert (error_reply(query, SERVFAIL, WHY)[10:], whole) == (
        b"\0\0" + query.question,
        fit_reply(query, body(query), False),
    )


def test_an_answer_may_have_a_reason_too_and_keeps_it_when_it_is_cut() -> None:
    query = read_query(question())
    whole = DNSRecord.parse(fit_reply(query, body(query), False, Why(3, "old")))
    assert (len(whole.rr), extended_error(whole)) == (1, (3, "old"))
    cut = DNSRecord.parse(fit_reply(query, body(query, addresses(80)), False, Why(3, "old")))
    assert (cut.header.tc, cut.rr, extended_error(cut)) == (1, [], (3, "old"))


def test_the_reason_counts_among_the_bytes() -> None:
    query = read_query(question(edns=512))
    why = Why(3, "x" * 30)
    for count in range(24, 31):
        reply = fit_reply(query, body(query, addresses(count)), False, why)
        assert len(reply) <= 512
        assert DNSRecord.parse(reply).header.tc == (
            len(fit_reply(query, body(query, addresses(count)), True, why)) > 512
        )


@pytest.mark.parametrize(("padding", "remembered"), [(300, 1), (1300, 0)])
def test_what_follows_the_first_label_is_remembered_of_short_questions_alone(padding: int, remembered: int) -> None:
    module._read_rest_again.cache_clear()
    option = struct.pack("!HH", 12, padding) + bytes(padding)
    for label in (b"\1a", b"\2bc"):
        rest = (
            b"\7example\0" + struct.pack("!HH", 1, 1) + b"\0" + struct.pack("!HHIH", OPT, 1400, 0, len(option)) + option
        )
        query = read_query(struct.pack("!6H", 7, RD, 1, 0, 0, 1) + label + rest)
        assert (query.name, query.qtype, query.udp_size) == (label + b"\7example\0", 1, 1400)
    info = module._read_rest_again.cache_info()
    assert (info.currsize, info.hits) == (remembered, remembered)
