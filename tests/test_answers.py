"""Replies from upstream: which addresses a name leads to, for how long, and what no reply can do to us."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from dnslib import DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from splitwgd.answers import TTL_LIMIT, Reply, is_reply_to, read_reply
from splitwgd.errors import MessageError
from splitwgd.message import AAAA, CNAME, OPT, QR, SOA, TC, A, fit_reply, read_query
from splitwgd.names import to_text
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
    return [str(address) for address in reply.addresses]


def given_to_client(reply: Reply) -> DNSRecord:
    """What the client gets, as dnslib reads it."""
    return DNSRecord.parse(fit_reply(QUERY, bytearray(reply.body), stream=True))


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
    assert is_reply_to(data, QUERY.id, QUERY) is is_one


def test_the_case_may_differ_in_the_name_and_nowhere_else() -> None:
    query = ask("www.example.com", "CERT")  # type 37; with another bit 0x20 it is 5, CNAME
    data = bytearray(answer(query))
    assert is_reply_to(bytes(data), query.id, query)
    data[-3] ^= 0x20
    assert not is_reply_to(bytes(data), query.id, query)


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


@pytest.mark.parametrize(("rtype", "rdata"), [(A, b"123"), (A, b"12345"), (A, b""), (AAAA, b"1234"), (AAAA, b"1" * 17)])
def test_an_address_of_a_wrong_length_is_none(rtype: int, rdata: bytes) -> None:
    assert raw(raw_record(HERE, rtype, rdata=rdata)).addresses == ()


def test_an_owner_of_two_aliases_leads_to_both() -> None:
    zone = "\n".join(
        f"www.example.com. 60 IN CNAME {host}.example.\n{host}.example. 60 IN A 192.0.2.{number}"
        for number, host in ((1, "a"), (2, "b"))
    )
    assert set(texts(read(zone))) == {"192.0.2.1", "192.0.2.2"}


V4_HINTS = b"\0\4\0\x08\xc0\0\2\1\xc0\0\2\2"  # RFC 9460 §7.3
V6_HINTS = b"\0\6\0\x10" + b"\x20\1\x0d\xb8" + bytes(11) + b"\1"


def service(rdata: bytes, rtype: int = 65) -> Reply:
    query = ask("www.example.com", "HTTPS")
    return read_reply(raw_reply(query, raw_record(HERE, rtype, rdata=rdata)), query)


@pytest.mark.parametrize("rtype", [64, 65])
@pytest.mark.parametrize("target", [b"\0", b"\3svc\7example\0"])
@pytest.mark.parametrize("before", [b"", b"\0\1\0\3\2h2", b"\0\2\0\0"])
def test_the_hints_of_a_service_are_addresses(rtype: int, target: bytes, before: bytes) -> None:
    reply = service(b"\0\1" + target + before + V4_HINTS + V6_HINTS, rtype)
    assert texts(reply) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert reply.ttl == 60


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


def test_a_chain_may_have_12_aliases_and_not_13() -> None:
    assert texts(read(chain_of(12))) == ["192.0.2.1"]
    with pytest.raises(MessageError, match="chain"):
        read(chain_of(13))


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


def test_ttls_are_capped_in_every_section() -> None:
    long = raw_record(HERE, ttl=10**6)
    reply = raw(long, long, long, counts=(1, 1, 1))
    record = given_to_client(reply)
    assert [r.ttl for r in (*record.rr, *record.auth, record.ar[0])] == [TTL_LIMIT] * 3
    assert len(reply.ttl_places) == 3


@pytest.mark.parametrize(
    ("zone", "authority", "rcode", "ttl"),
    [
        ("", SOA_RECORD, 3, 300),
        ("", SOA_RECORD, 0, 300),
        ("", SOA_RECORD.replace(" 900 ", " 200 "), 3, 200),
        ("", SOA_RECORD.replace(" 300", " 4294967295"), 3, 900),
        ("", SOA_RECORD.replace(" 900 ", " 999999 ").replace(" 300", " 999999"), 3, TTL_LIMIT),
        ("", "", 3, 0),
        ("", "", 0, 0),
        ("", "example.com. 900 IN NS ns.example.com.", 0, 0),
        ("www.example.com. 60 IN CNAME b.example.", SOA_RECORD, 3, 60),
        ("www.example.com. 600 IN CNAME b.example.", SOA_RECORD, 0, 300),
        ("www.example.com. 600 IN CNAME b.example.", "", 0, 0),
        ("other.example.com. 600 IN A 192.0.2.1", "", 0, 0),
        ("www.example.com. 60 IN A 192.0.2.1", SOA_RECORD, 2, 0),
        ("", SOA_RECORD, 5, 0),
    ],
)
def test_a_negative_answer_lives_as_its_soa_says(zone: str, authority: str, rcode: int, ttl: int) -> None:
    reply = read(zone, authority, rcode)
    assert (reply.rcode, reply.ttl) == (rcode, ttl)


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


# -- OPT


def test_an_opt_at_the_end_is_taken_off() -> None:
    data = answer(QUERY, "www.example.com. 60 IN A 192.0.2.1", opt=True)
    reply = read_reply(data, QUERY)
    assert len(reply.body) == len(data) - 11
    assert texts(reply) == ["192.0.2.1"]
    assert DNSRecord.parse(reply.body).ar == []


def test_what_follows_an_opt_is_taken_off_with_it() -> None:
    glue = raw_record(HERE, rdata=b"\x7f\0\0\1")
    reply = raw(raw_record(HERE), glue, AN_OPT, raw_record(HERE, 250), counts=(1, 0, 3))
    record = DNSRecord.parse(reply.body)
    assert (len(record.rr), [r.rtype for r in record.ar]) == (1, [A])
    assert [r.rtype for r in given_to_client(reply).ar] == [A, OPT]


def test_an_opt_makes_the_rcode_longer() -> None:
    extended = b"\0" + struct.pack("!HHIH", OPT, 1232, 1 << 24, 0)
    reply = raw(extended, counts=(0, 0, 1))
    assert (reply.rcode, reply.ttl) == (16, 0)


@pytest.mark.parametrize("counts", [(1, 0, 0), (1, 0, 1), (0, 1, 0)])
def test_an_opt_elsewhere_is_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(MessageError):
        raw(AN_OPT, raw_record(HERE), counts=counts)


def test_bytes_after_the_last_record_are_not_passed_on() -> None:
    assert raw(raw_record(HERE), b"more", counts=(1, 0, 0)).body.endswith(b"\1\2\3\4")


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
    if not is_reply_to(data, QUERY.id, QUERY):
        return
    try:
        reply = read_reply(data, QUERY)
    except MessageError:
        return
    assert 0 <= reply.ttl <= TTL_LIMIT
    assert reply.chain[0] == QUERY.name
    assert len(reply.body) <= len(data)
    for place in reply.ttl_places:
        assert struct.unpack_from("!I", reply.body, place)[0] <= TTL_LIMIT
    small = fit_reply(read_query(question("www.example.com", edns=None)), bytearray(reply.body), stream=False)
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


def test_a_reply_that_is_cut_anywhere_is_refused() -> None:
    assert texts(read_reply(GOOD, QUERY)) == ["192.0.2.1", "2001:db8::1"]
    for end in range(END, len(GOOD)):
        with pytest.raises(MessageError):
            read_reply(GOOD[:end], QUERY)


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
