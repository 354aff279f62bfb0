"""Replies without what may not be given: what is left says the same as before, and names what it named."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from ipaddress import ip_address

import pytest
from dnslib import DNSRecord
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from splitwgd.answers import read_reply
from splitwgd.errors import MessageError
from splitwgd.message import AAAA, CNAME, DNAME, HTTPS, IN, RRSIG, SOA, SVCB, A, Query, fit_reply
from splitwgd.names import parse_name
from splitwgd.reply import Reply
from splitwgd.svcb import Address
from splitwgd.trimmed import trimmed
from tests.fuzz.reader import read
from tests.samples import answer, ask, raw_record, raw_reply

QUERY = ask("www.example.com")
HERE = b"\xc0\x0c"
STRAY = "mail.other.example. 60 IN A 203.0.113.66"
RAW_STRAY = raw_record(b"\5stray\0")
SOA_TEXT = "example.com. 900 IN SOA ns.mail.other.example. me.mail.other.example. 1 2 3 4 30"
MANY = 1000


def packed(text: str) -> bytes:
    return ip_address(text).packed


def everything(address: Address) -> bool:
    return True


def but(*refused: str) -> Callable[[Address], bool]:
    return lambda address: address not in set(map(packed, refused))


def texts(reply: Reply) -> list[str]:
    return [str(ip_address(address)) for address in reply.addresses]


def given_of(query: Query, reply: Reply) -> DNSRecord:
    """What a client gets, as dnslib reads it. It must be in order for the strictest of readers, and for our own."""
    data = fit_reply(query, reply, stream=True)
    read(data)
    again = read_reply(data, query)
    assert (again.addresses, again.chain, again.targets) == (reply.addresses, reply.chain, reply.targets)
    return DNSRecord.parse(data)


def trim(
    zone: str,
    authority: str = "",
    qtype: str = "A",
    admits: Callable[[Address], bool] = everything,
    most: int = MANY,
    rcode: int = 0,
) -> tuple[Reply, list[str], list[str]]:
    """(the reply that is left, its answers, its authorities), both as text."""
    query = ask("www.example.com", qtype)
    left = trimmed(read_reply(answer(query, zone, authority, rcode), query), query, admits, most)
    record = given_of(query, left)
    return left, list(map(_text, record.rr)), list(map(_text, record.auth))


def _text(record: object) -> str:
    return " ".join(str(record).split())


def lines(*zone: str) -> str:
    return "\n".join(zone)


# -- names that pointed to what has left


# RFC 3597 §4 counts these: (bytes before the names, how many, bytes after them).
COMPRESSED = {
    "NS": (2, 0, 1, 0),
    "MD": (3, 0, 1, 0),
    "MF": (4, 0, 1, 0),
    "CNAME": (5, 0, 1, 0),
    "SOA": (6, 0, 2, 20),
    "MB": (7, 0, 1, 0),
    "MG": (8, 0, 1, 0),
    "MR": (9, 0, 1, 0),
    "PTR": (12, 0, 1, 0),
    "MINFO": (14, 0, 2, 0),
    "MX": (15, 2, 1, 0),
    "RP": (17, 0, 2, 0),
    "AFSDB": (18, 2, 1, 0),
    "RT": (21, 2, 1, 0),
    "PX": (26, 2, 2, 0),
    "SRV": (33, 6, 1, 0),
    "KX": (36, 2, 1, 0),
    "DNAME": (39, 0, 1, 0),
}


@pytest.mark.parametrize(("rtype", "before", "names", "after"), COMPRESSED.values(), ids=COMPRESSED)
def test_names_in_records_are_whole_when_what_they_pointed_to_has_left(
    rtype: int, before: int, names: int, after: int
) -> None:
    to_stray = b"\1x" + bytes((0xC0, 12 + len(QUERY.question)))
    data = bytes(range(before)) + to_stray * names + bytes(range(after))
    reply = read_reply(raw_reply(QUERY, RAW_STRAY, raw_record(HERE, rtype, 60, data)), QUERY)
    left = trimmed(reply, QUERY, everything, MANY)
    (record,) = read(fit_reply(QUERY, left, stream=True)).answers
    assert (record.owner, record.rtype, record.ttl) == (QUERY.name, rtype, 60)
    assert record.rdata == bytes(range(before)) + b"\1x\5stray\0" * names + bytes(range(after))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("CNAME", "x.mail.other.example."),
        ("CNAME", "deep.www.example.com."),
        ("NS", "mail.other.example."),
        ("MX", "10 mail.other.example."),
        ("SOA", "mail.other.example. root.mail.other.example. 1 2 3 4 300"),
        ("TXT", '"mail.other.example"'),
    ],
)
def test_a_record_says_the_same_as_before(kind: str, data: str) -> None:
    kept = f"www.example.com. 60 IN {kind} {data}"
    left, answers, _ = trim(lines(STRAY, kept), qtype=kind)
    assert answers == [kept]
    assert not left.stray


def test_a_dname_and_what_it_makes_are_whole() -> None:
    synthesised = raw_record(HERE, CNAME, 60, b"\3www\5other\7example\0")
    beyond = raw_record(b"\3www\5other\7example\0", A)
    dname = raw_record(b"\xc0\x10", DNAME, 60, b"\5other" + b"\xc0\x2b")
    stray = raw_record(b"\7example\0", A)  # at 33, and its name at 33 too
    data = raw_reply(QUERY, stray, dname.replace(b"\xc0\x2b", bytes((0xC0, 12 + len(QUERY.question)))), synthesised)
    data = data[:7] + bytes((4,)) + data[8:] + beyond
    left = trimmed(read_reply(data, QUERY), QUERY, everything, MANY)
    message = read(fit_reply(QUERY, left, stream=True))
    assert [(record.rtype, record.owner) for record in message.answers] == [
        (DNAME, b"\7example\3com\0"),
        (CNAME, QUERY.name),
        (A, b"\3www\5other\7example\0"),
    ]
    assert message.answers[0].rdata == b"\5other\7example\0"
    assert left.addresses == (b"\1\2\3\4",)


def test_an_soa_among_the_authorities_is_whole() -> None:
    left, answers, authorities = trim(STRAY, SOA_TEXT)
    assert (answers, authorities) == ([], [SOA_TEXT])
    assert left.ttl == 30


# -- what leaves and what stays


def test_records_that_are_not_the_chains_leave() -> None:
    chain = ["www.example.com. 60 IN CNAME a.example.net.", "a.example.net. 50 IN A 192.0.2.1"]
    left, answers, _ = trim(lines(chain[0], STRAY, chain[1], "b.example.net. 60 IN A 203.0.113.1"))
    assert answers == chain
    assert (texts(left), left.chain) == (["192.0.2.1"], (QUERY.name, parse_name("a.example.net")))
    assert left.ttl == 50


def test_addresses_that_are_not_admitted_leave() -> None:
    zone = [f"www.example.com. 60 IN A 192.0.2.{number}" for number in (1, 2, 3)]
    left, answers, _ = trim(lines(*zone), admits=but("192.0.2.2"))
    assert answers == [zone[0], zone[2]]
    assert texts(left) == ["192.0.2.1", "192.0.2.3"]


@pytest.mark.parametrize("most", [0, 1, 64])
def test_of_more_addresses_than_may_be_the_first_stay(most: int) -> None:
    zone = [f"www.example.com. 60 IN A 192.0.2.{number}" for number in range(100)]
    left, answers, _ = trim(lines(*zone), admits=but("192.0.2.0"), most=most)
    assert answers == zone[1 : most + 1]
    assert len(left.addresses) == most


def test_hints_count_as_addresses() -> None:
    hints = ",".join(f"192.0.2.{number}" for number in range(5))
    zone = [f"www.example.com. 60 IN HTTPS {n} a{n}.example. ipv4hint={hints} ipv6hint=2001:db8::{n}" for n in (1, 2)]
    left, answers, _ = trim(lines(*zone), qtype="HTTPS", most=7)
    assert answers == [zone[0], "www.example.com. 60 IN HTTPS 2 a2.example. ipv4hint=192.0.2.0"]
    assert len(left.addresses) == 7


def test_among_the_authorities_stay_proofs_and_nothing_else() -> None:
    stay = [
        (SOA, b"\0\0" + bytes(20)),
        (RRSIG, b"signature"),
        (47, b"\1a\0\0\1\1"),
        (50, b"hash"),
    ]
    leave = [(2, b"\2ns\0"), (A, b"\1\1\1\1"), (43, b"ds"), (CNAME, b"\1a\0")]
    records = [raw_record(b"\3com\0", rtype, 60, data) for rtype, data in (*leave, *stay)]
    reply = read_reply(raw_reply(QUERY, *records, counts=(0, len(records), 0)), QUERY)
    assert reply.stray
    message = read(fit_reply(QUERY, trimmed(reply, QUERY, everything, MANY), stream=True))
    assert [(record.rtype, record.rdata) for record in message.authorities] == stay
    assert message.answers == ()


@pytest.mark.parametrize("rtype", [RRSIG, 47, 50, DNAME])
def test_signatures_and_proofs_stay_beside_the_answers_wherever_they_are(rtype: int) -> None:
    """A wildcard's proof is not at the name that it proves (RFC 4035 §3.1.3.3), nor a DNAME at what it renames."""
    proof = raw_record(b"\3com\0", rtype, 60, b"\1a\0")
    reply = read_reply(raw_reply(QUERY, raw_record(HERE, A), proof, RAW_STRAY), QUERY)
    message = read(fit_reply(QUERY, trimmed(reply, QUERY, everything, MANY), stream=True))
    assert [(record.owner, record.rtype) for record in message.answers] == [(QUERY.name, A), (b"\3com\0", rtype)]
    assert message.answers[1].rdata == b"\1a\0"


def test_what_nobody_could_make_sense_of_leaves_and_nothing_takes_its_place() -> None:
    broken = raw_record(HERE, 15, 60, b"\0\1\xc0\xff")
    records = [broken, raw_record(HERE, A, 60, b"\1\1\1\1"), broken, raw_record(HERE, A, 60, b"\2\2\2\2"), broken]
    reply = read_reply(raw_reply(QUERY, *records, RAW_STRAY), QUERY)
    left = trimmed(reply, QUERY, everything, MANY)
    message = read(fit_reply(QUERY, left, stream=True))
    assert [record.rdata for record in message.answers] == [b"\1\1\1\1", b"\2\2\2\2"]


def test_the_questions_name_is_not_written_out_again_and_again() -> None:
    reply = read_reply(raw_reply(QUERY, raw_record(HERE, A), RAW_STRAY, raw_record(QUERY.name, A)), QUERY)
    assert trimmed(reply, QUERY, everything, MANY).records == raw_record(HERE, A) * 2


@pytest.mark.parametrize("rcode", [0, 3])
def test_rcode_flags_and_signs_of_the_reply_stay(rcode: int) -> None:
    left, _, _ = trim(STRAY, SOA_TEXT, rcode=rcode)
    assert (left.rcode, left.flags & 0xF) == (rcode, rcode)
    query = ask("www.example.com")
    whole = read_reply(answer(query, STRAY, SOA_TEXT, rcode), query)
    assert left.flags == whole.flags


def test_an_extended_rcode_stays() -> None:
    reply = read_reply(raw_reply(QUERY, RAW_STRAY), QUERY)
    reply.rcode = 23
    assert trimmed(reply, QUERY, everything, MANY).rcode == 23


@pytest.mark.parametrize(
    ("zone", "ttl"),
    [
        (["www.example.com. 60 IN A 192.0.2.1", "www.example.com. 5 IN A 192.0.2.2"], 5),
        (["www.example.com. 5 IN A 192.0.2.1", "www.example.com. 60 IN A 192.0.2.2"], 5),
        (["www.example.com. 60 IN CNAME b.example.", "b.example. 0 IN A 192.0.2.2"], 0),
        (["www.example.com. 60 IN A 192.0.2.2"], 60),
    ],
)
def test_what_is_left_is_kept_no_longer_than_the_whole(zone: list[str], ttl: int) -> None:
    left, _, _ = trim(lines(*zone), admits=but("192.0.2.2"))
    assert left.ttl == ttl


def test_the_ttls_of_what_is_left_can_be_counted_down() -> None:
    zone = ["www.example.com. 60 IN CNAME b.example.", STRAY, "b.example. 50 IN A 192.0.2.2"]
    left, _, _ = trim(lines(*zone))
    found = [struct.unpack_from("!I", left.records, place)[0] for place in left.ttl_places]
    assert found == [60, 50]


# -- HTTPS and SVCB records


def service(data: str, admits: Callable[[Address], bool]) -> list[str]:
    """The data of the records that are left of one."""
    _, answers, _ = trim(f"www.example.com. 60 IN HTTPS {data}", qtype="HTTPS", admits=admits)
    return [answer.partition("HTTPS ")[2] for answer in answers]


@pytest.mark.parametrize(
    ("data", "left"),
    [
        ("1 . alpn=h2,h3 ipv4hint=192.0.2.1,192.0.2.2 port=8443", ["1 . alpn=h2,h3 ipv4hint=192.0.2.1 port=8443"]),
        ("1 . alpn=h2 ipv4hint=192.0.2.2", ["1 . alpn=h2"]),
        ("1 b.example. ipv6hint=2001:db8::2,2001:db8::1", ["1 b.example. ipv6hint=2001:db8::1"]),
        ("1 . ipv4hint=192.0.2.2 ipv6hint=2001:db8::2", ["1 ."]),
        ("0 b.example.", ["0 b.example."]),
        ("1 . mandatory=ipv4hint alpn=h2 ipv4hint=192.0.2.2", []),
        ("1 . mandatory=alpn,ipv4hint alpn=h2 ipv4hint=192.0.2.2", []),
        ("1 . mandatory=ipv6hint ipv6hint=2001:db8::2", []),
        ("1 . mandatory=ipv4hint,ipv6hint ipv4hint=192.0.2.2 ipv6hint=::2", []),
        (
            "1 . mandatory=ipv4hint alpn=h2 ipv4hint=192.0.2.2,192.0.2.1",
            ["1 . mandatory=ipv4hint alpn=h2 ipv4hint=192.0.2.1"],
        ),
        ("1 . mandatory=alpn alpn=h2 ipv4hint=192.0.2.2", ["1 . mandatory=alpn alpn=h2"]),
        (
            "1 . mandatory=ipv6hint ipv4hint=192.0.2.2 ipv6hint=2001:db8::1",
            ["1 . mandatory=ipv6hint ipv6hint=2001:db8::1"],
        ),
    ],
)
def test_hints_that_are_not_admitted_leave_and_with_a_mandatory_one_its_record(data: str, left: list[str]) -> None:
    assert service(data, but("192.0.2.2", "2001:db8::2")) == left


@pytest.mark.parametrize("rtype", [SVCB, HTTPS])
def test_what_is_no_hint_stays_byte_for_byte_and_in_its_order(rtype: int) -> None:
    ech, unknown = b"\0\5\0\3\xfe\x0d\0", b"\xff\0\0\4\xc0\x0c\1\2"
    hint = struct.pack("!HH", 4, 8) + packed("192.0.2.1") + packed("192.0.2.2")
    data = b"\0\1" + b"\1b\0" + b"\0\1\0\3\2h2" + hint + ech + unknown
    query = ask("www.example.com", "HTTPS")
    reply = read_reply(raw_reply(query, raw_record(HERE, rtype, 60, data)), query)
    left = trimmed(reply, query, but("192.0.2.2"), MANY)
    (record,) = read(fit_reply(query, left, stream=True)).answers
    short = struct.pack("!HH", 4, 4) + packed("192.0.2.1")
    assert record.rdata == b"\0\1" + b"\1b\0" + b"\0\1\0\3\2h2" + short + ech + unknown


def test_a_target_that_was_compressed_is_whole_though_nobody_may_do_so() -> None:
    query = ask("www.example.com", "HTTPS")
    data = b"\0\1" + bytes((0xC0, 12 + len(query.question)))
    reply = read_reply(raw_reply(query, RAW_STRAY, raw_record(HERE, HTTPS, 60, data)), query)
    left = trimmed(reply, query, everything, MANY)
    assert left.targets == (parse_name("stray"),)
    assert read(fit_reply(query, left, stream=True)).answers[0].rdata == b"\0\1\5stray\0"


# -- whatever comes


OWNERS = ["www.example.com.", "b.example.", "c.b.example.", "www.example.com.mail.other.example.", "."]
V4, V6 = [f"192.0.2.{number}" for number in range(4)], [f"2001:db8::{number}" for number in range(4)]
names = st.sampled_from(OWNERS[:4])
records = st.one_of(
    st.builds("{} {} IN A {}".format, names, st.integers(0, 9), st.sampled_from(V4)),
    st.builds("{} {} IN AAAA {}".format, names, st.integers(0, 9), st.sampled_from(V6)),
    st.builds("{} 5 IN MX 1 {}".format, names, names),
    st.builds("{} 5 IN SRV 1 2 3 {}".format, names, names),
    st.builds("{} 5 IN NS {}".format, names, names),
    st.builds("{} 5 IN TXT x{}".format, names, st.integers(0, 300)),
    st.builds("{} 5 IN SOA {} {} 1 2 3 4 5".format, names, names, names),
    st.builds("{} 5 IN HTTPS 1 {} ipv4hint={},{}".format, names, names, st.sampled_from(V4), st.sampled_from(V4)),
    st.builds("{} 5 IN HTTPS 1 . alpn=h2 ipv6hint={}".format, names, st.sampled_from(V6)),
)
chains = st.sampled_from(
    ["", "www.example.com. 5 IN CNAME b.example.", "www.example.com. 5 IN CNAME b.example.\nb.example. 5 IN CNAME ."]
)


@given(
    chains, st.lists(records, max_size=12), st.lists(records, max_size=4), st.sets(st.sampled_from(V4 + V6)), st.data()
)
def test_whatever_was_said_in_order_is_said_in_order_of_what_stays(
    chain: str, zone: list[str], authority: list[str], refused: set[str], data: st.DataObject
) -> None:
    query = ask("www.example.com", data.draw(st.sampled_from(["A", "AAAA", "HTTPS"])))
    most = data.draw(st.integers(0, 9))
    whole = read_reply(answer(query, lines(*data.draw(st.permutations([chain, *zone]))), lines(*authority)), query)
    admits = but(*refused)
    left = trimmed(whole, query, admits, most)
    assert not left.stray
    assert left.addresses == tuple(address for address in whole.addresses if admits(address))[:most]
    assert left.chain == whole.chain and left.ttl <= whole.ttl
    before, after = DNSRecord.parse(fit_reply(query, whole, stream=True)), given_of(query, left)
    said = [_text(record) for record in before.rr if _wire(record.rname) in whole.chain]
    assert _without_addresses(map(_text, after.rr)) == _without_addresses(said)
    assert [_text(record) for record in after.auth] == [_text(r) for r in before.auth if r.rtype == SOA]


def _without_addresses(said: Iterable[str]) -> list[str]:
    return [text for text in said if text.split()[3] not in ("A", "AAAA", "HTTPS")]


def _wire(name: object) -> bytes:
    return parse_name(str(name)) if str(name) != "." else b"\0"


OWNERS_RAW = [HERE, b"\1a\0", b"\5stray\0", b"\0", b"\xc0\x21"]  # the last one leads to the first record's
a_name = st.sampled_from([*OWNERS_RAW, b"\3www" + HERE])
fragments = st.sampled_from(
    [*OWNERS_RAW, b"\xc0\x00", b"\xc0\x05", b"\xff\xff", b"\x80", b"\0\1", b"\1\2\3\4", bytes(16)]
)
params = st.sampled_from(
    [b"\0\1\0\3\2h2", b"\0\4\0\4\1\2\3\4", b"\0\0\0\2\0\4", b"\0\6\0\x10" + bytes(16), b"\0\4\0\3abc"]
)
raws = st.one_of(
    st.tuples(st.just(A), st.binary(min_size=4, max_size=4)),
    st.tuples(st.just(AAAA), st.binary(min_size=16, max_size=16)),
    st.tuples(st.just(CNAME), a_name),
    st.tuples(st.sampled_from([SVCB, HTTPS]), st.builds(b"\0\1%b%b".__mod__, st.tuples(a_name, params))),
    # What nobody looks at while it is read.
    st.tuples(
        st.sampled_from([2, SOA, 12, 14, 15, 16, 26, 33, DNAME, RRSIG]), st.lists(fragments, max_size=4).map(b"".join)
    ),
)
raw_records = st.builds(
    lambda owner, record, rclass: owner + struct.pack("!HHIH", record[0], rclass, 60, len(record[1])) + record[1],
    st.sampled_from(OWNERS_RAW),
    raws,
    st.sampled_from([IN, IN, IN, 3]),
)


def other_class(rtype: int, rdata: bytes) -> bytes:
    return HERE + struct.pack("!HHIH", rtype, 3, 60, len(rdata)) + rdata


BROKEN = {
    "an MX of one byte": ((RAW_STRAY, raw_record(HERE, 15, 60, b"\1")), 0),
    "an MX that points forward": ((RAW_STRAY, raw_record(HERE, 15, 60, b"\0\1\xc0\xff")), 0),
    "a CNAME of another class without a name": ((RAW_STRAY, other_class(CNAME, b"")), 0),
    "an HTTPS record of another class without a target": ((RAW_STRAY, other_class(HTTPS, b"\0")), 0),
    "an SOA of one byte": ((RAW_STRAY, raw_record(b"\0", SOA, 60, b"\1")), 1),
}


def trim_raw(parts: tuple[bytes, ...], authorities: int) -> Reply | None:
    """What is left of this, None where it is not even read."""
    counts = (len(parts) - authorities, authorities, 0)
    try:
        reply = read_reply(raw_reply(QUERY, *parts, counts=counts), QUERY)
    except MessageError:
        return None
    return trimmed(reply, QUERY, everything, 3)


@pytest.mark.parametrize("broken", BROKEN)
def test_what_could_be_read_can_be_trimmed(broken: str) -> None:
    assert trim_raw(*BROKEN[broken]) is not None


@given(st.lists(raw_records, max_size=6), st.integers(0, 3))
@example([RAW_STRAY, raw_record(HERE, 15, 60, b"\1")], 0)
@settings(suppress_health_check=[HealthCheck.filter_too_much])  # two aliases for a name, and the like
def test_whatever_could_be_read_can_be_trimmed(parts: list[bytes], authorities: int) -> None:
    left = trim_raw((RAW_STRAY, *parts), min(authorities, len(parts)))
    assume(left is not None)
    assert left is not None and len(left.addresses) <= 3


def test_what_is_left_is_no_longer_than_a_message_can_be() -> None:
    alias = raw_record(HERE, CNAME, 60, b"\1a" * 120 + b"\0")
    place = 12 + len(QUERY.question) + len(RAW_STRAY) + 12  # of the alias's target
    many = raw_record(struct.pack("!H", 0xC000 | place), RRSIG, 60, b"") * 5200
    count = 5202
    reply = read_reply(raw_reply(QUERY, RAW_STRAY, alias, many, counts=(count, 0, 0)), QUERY)
    assert len(trimmed(reply, QUERY, everything, MANY).records) <= 0xFFFF
