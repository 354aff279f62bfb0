"""Messages made by a grammar, not by chance: what is well-formed must be read, and read right; with one lie in it
it must be refused. The names are any octets, and are compressed where and as deep as the grammar likes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from splitwgd.answers import TTL_LIMIT, read_reply
from splitwgd.errors import MessageError
from splitwgd.message import BadQuery, fit_reply, read_query

from .packets import (
    AA,
    AD,
    CD,
    CNAME,
    HTTPS,
    IN,
    MX,
    NS,
    OPT,
    QR,
    RA,
    RD,
    SOA,
    TC,
    TXT,
    A,
    header,
    opt,
    option,
    pointer,
)
from .reader import read

Labels = tuple[bytes, ...]
AAAA = 28


def in_full(labels: Labels) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


@st.composite
def names(draw: st.DrawFn) -> Labels:
    """Up to 255 octets of any kind; most share their ends with others, as names do."""
    end = draw(st.sampled_from([(), (b"example",), (b"a", b"example"), (b"B", b"a", b"eXample")]))
    labels = tuple(draw(st.lists(st.binary(min_size=1, max_size=63), max_size=4))) + end
    assume(len(in_full(labels)) <= 255)
    return labels


@dataclass
class Writer:
    """Writes a message; a name may end in a pointer to any equal end of a name that was written before."""

    draw: st.DrawFn
    data: bytearray = field(default_factory=bytearray)
    known: dict[Labels, list[int]] = field(default_factory=dict)

    def name(self, labels: Labels, compress: bool = True) -> None:
        for place in range(len(labels)):
            rest = labels[place:]
            before = self.known.get(rest, [])
            if compress and before and self.draw(st.booleans()):
                self.data += pointer(self.draw(st.sampled_from(before)))
                return
            if len(self.data) < 0x3FFF:
                self.known.setdefault(rest, []).append(len(self.data))
            self.data += bytes([len(labels[place])]) + labels[place]
        self.data += b"\0"

    def record(self, owner: Labels, rtype: int, ttl: int, parts: tuple[bytes | Labels, ...], lie: int = 0) -> None:
        """parts of the RDATA: octets, or names that may be compressed; lie: added to RDLENGTH."""
        self.name(owner)
        self.data += struct.pack("!HHIH", rtype, IN, ttl, 0)
        begin = len(self.data)
        for part in parts:
            if isinstance(part, bytes):
                self.data += part
            else:
                self.name(part, compress=rtype not in (HTTPS,))  # RFC 9460 §2.2
        struct.pack_into("!H", self.data, begin - 2, (len(self.data) - begin + lie) & 0xFFFF)


ttls = st.integers(0, 0x7FFFFFFF) | st.just(60)
flags = st.integers(0, 0xFFFF).map(lambda number: number & (AA | AD | CD | RD | RA) | QR)


@dataclass
class Made:
    """A reply, and what a reader must find in it."""

    data: bytes
    qtype: int
    question: bytes
    chain: tuple[bytes, ...]
    addresses: list[bytes]


@st.composite
def replies(draw: st.DrawFn, lie: int = 0) -> Made:
    """An answer of aliases and the records at their end, an authority section, perhaps an OPT record."""
    writer = Writer(draw)
    chain = draw(st.lists(names(), min_size=1, max_size=6, unique_by=lambda labels: in_full(labels).lower()))
    qtype = draw(st.sampled_from([A, AAAA, TXT, MX, HTTPS, NS, 65280]))
    writer.data += header(0)
    writer.name(chain[0])
    writer.data += struct.pack("!HH", qtype, IN)
    question = bytes(writer.data[12:])
    data: list[tuple[bytes | Labels, ...]] = []
    sizes = {A: 4, AAAA: 16}
    for _ in range(draw(st.integers(0, 5))):
        if qtype in sizes:
            data.append((draw(st.binary(min_size=sizes[qtype], max_size=sizes[qtype])),))
        elif qtype in (MX, HTTPS):
            data.append((b"\0\1", draw(names())))
        elif qtype == NS:
            data.append((draw(names()),))
        else:
            data.append((draw(st.binary(max_size=300)),))
    records: list[tuple[Labels, int, tuple[bytes | Labels, ...]]] = [
        *((alias, CNAME, (target,)) for alias, target in zip(chain, chain[1:], strict=False)),
        *((chain[-1], qtype, parts) for parts in data),
    ]
    liar = draw(st.integers(0, max(len(records) - 1, 0)))
    for place, (owner, rtype, parts) in enumerate(records):
        writer.record(owner, rtype, draw(ttls), parts, lie if place == liar else 0)
    authorities = draw(st.integers(0, 2))
    for _ in range(authorities):
        numbers = struct.pack("!5I", 1, 2, 3, 4, draw(ttls))
        writer.record(draw(names()), SOA, draw(ttls), (draw(names()), draw(names()), numbers))
    additionals = draw(st.integers(0, 1))
    writer.data += opt(options=option(15, b"\0\0")) * additionals
    rcode = draw(st.sampled_from([0, 0, 0, 3]))
    writer.data[:12] = header(draw(flags) | rcode, 1, len(records), authorities, additionals)
    addresses = [parts[0] for parts in data if qtype in sizes]
    wires = tuple(in_full(labels).lower() for labels in chain)
    return Made(bytes(writer.data), qtype, question, wires, [part for part in addresses if isinstance(part, bytes)])


def asked(made: Made, edns: bytes = b"") -> bytes:
    return header(RD, additionals=1 if edns else 0) + made.question + edns


def said(data: bytes, section: str) -> list[tuple[bytes, int, bytes, int]]:
    """The records of a section, each in one spelling, with TTLs as they may be given."""
    message = read(data)
    return sorted((*message.canonical(record), record.ttl) for record in getattr(message, section))


@settings(max_examples=150, deadline=None)
@given(replies())
def test_a_well_formed_reply_is_read_right_and_passed_on_whole(made: Made) -> None:
    reply = read_reply(made.data, read_query(asked(made)))
    assert reply.chain == made.chain
    assert sorted(map(bytes, reply.addresses)) == sorted(made.addresses)
    given_to = fit_reply(read_query(asked(made, opt())), reply, True)
    came, went = read(made.data), read(given_to)
    for section in ("answers", "authorities"):
        before, after = said(made.data, section), said(given_to, section)
        assert [entry[:3] for entry in before] == [entry[:3] for entry in after]
    assert all(record.ttl <= TTL_LIMIT for record in (*went.answers, *went.authorities))
    assert went.rcode == came.rcode
    assert reply.ttl <= min((record.ttl for record in came.answers), default=TTL_LIMIT)
    small = fit_reply(read_query(asked(made)), reply, False)
    assert len(small) <= 512
    # What is beside an answer may go, and nothing else (RFC 2181 §9).
    beside = len(reply.records) - reply.answers_end if came.answers else 0
    assert bool(read(small).flags & TC) is (len(given_to) - 11 - beside > 512)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 3, 7, 0x4000]))
def test_an_rdlength_that_lies_is_refused_or_read_as_the_strict_reader_reads_it(data: st.DataObject, lie: int) -> None:
    made = data.draw(replies(lie=lie))
    try:
        reply = read_reply(made.data, read_query(asked(made)))
    except MessageError:
        return
    read(fit_reply(read_query(asked(made)), reply, True))


@settings(max_examples=80, deadline=None)
@given(replies(), st.integers(0, 1), st.integers(1, 3))
def test_more_records_than_there_are_is_refused(made: Made, section: int, more: int) -> None:
    """In the sections that are passed on; what comes after an OPT record is nobody's concern."""
    counts = list(struct.unpack_from("!3H", made.data, 6))
    counts[section] += more
    with pytest.raises(MessageError):
        read_reply(made.data[:6] + struct.pack("!3H", *counts) + made.data[12:], read_query(asked(made)))


@st.composite
def queries(draw: st.DrawFn) -> tuple[bytes, bytes, int, int | None, int]:
    """(a question as a client may send it, its name, type, EDNS size if any, flags)."""
    owner = in_full(draw(names()))
    rtype = draw(st.integers(1, 65279).filter(lambda number: number not in (OPT, *range(249, 256))))
    head = draw(st.integers(0, 0xFFFF)) & (RD | AD | CD | AA | TC | RA | 0x40 | 0xF)
    size = draw(st.none() | st.integers(0, 65535))
    options = b"".join(draw(st.lists(st.builds(option, st.integers(0, 65535), st.binary(max_size=40)), max_size=4)))
    edns = b"" if size is None else opt(size, draw(st.sampled_from([0, 0x8000, 0xFFFF])), options=options)
    message = header(head, additionals=1 if edns else 0, ident=draw(st.integers(0, 65535)))
    return message + owner + struct.pack("!HH", rtype, IN) + edns, owner, rtype, size, head


@settings(max_examples=150, deadline=None)
@given(queries())
def test_a_well_formed_question_is_read_right(made: tuple[bytes, bytes, int, int | None, int]) -> None:
    data, owner, rtype, size, head = made
    query = read_query(data)
    assert (query.question, query.name, query.qtype) == (data[12 : 16 + len(owner)], owner.lower(), rtype)
    assert (query.id, query.flags, query.edns) == (int.from_bytes(data[:2], "big"), head, size is not None)
    assert query.udp_size == max(size or 0, 512)


@settings(max_examples=80, deadline=None)
@given(queries(), st.integers(1, 40), st.binary(min_size=1, max_size=20))
def test_a_question_that_is_cut_or_followed_by_something_is_refused(
    made: tuple[bytes, bytes, int, int | None, int], cut: int, more: bytes
) -> None:
    data = made[0]
    for wrong in (data[:-cut], data + more):
        with pytest.raises(BadQuery):
            read_query(wrong)
