"""The wire view of a DNS message: what the forwarder must know of a question, and the replies that it makes.

Reads bytes within bounds and builds no objects for records: that is the fast path, and it is what stands
between the net and everything else. Answers are read by `answers`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from splitwgd.errors import MessageError
from splitwgd.names import Name

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
A, CNAME, SOA, AAAA, OPT, SVCB, HTTPS = 1, 5, 6, 28, 41, 64, 65
IN = 1
HEADER = struct.Struct("!HHHHHH")
# The fixed part of a record after its owner: type, class, TTL, length (RFC 1035 §3.2.1).
RECORD = struct.Struct("!HHIH")
# DNS flag day 2020 and RFC 9715: what surely fits without fragments.
UDP_SIZE = 1232
_DO = 0x8000


class BadQuery(MessageError):
    """A question that is not forwarded. `reply` is what its sender gets; None is silence."""

    def __init__(self, what: str, reply: bytes | None) -> None:
        super().__init__(what)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Query:
    """A question as it came in.

    question: the question section as sent, so that the reply can echo its case. name: lower-case.
    key: equal for questions that one answer serves. udp_size: bytes that its sender can take over UDP.
    """

    id: int
    flags: int
    question: bytes
    name: Name
    qtype: int
    key: bytes
    edns: bool
    udp_size: int
    dnssec_ok: bool


def read_query(data: bytes) -> Query:
    """The question in these bytes. Raises BadQuery for anything that is not one that we forward."""
    if len(data) < 12:
        raise BadQuery("shorter than a header", None)
    ident, flags, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    if flags & QR:
        raise BadQuery("a reply, not a question", None)  # answering it could start a loop
    if flags & 0x7800:
        raise BadQuery("an opcode other than QUERY", _bare(ident, flags, NOTIMP))
    if questions != 1:
        raise BadQuery("not one question", _bare(ident, flags, FORMERR))  # RFC 9619
    try:
        end = _end_of_question_name(data)
        qtype, qclass = struct.unpack_from("!HH", data, end)
        position = end + 4
        opt = None
        for place in range(answers + authorities + additionals):
            position, record_type, start = _next_record(data, position)
            if record_type == OPT and place >= answers + authorities:
                if opt is not None:
                    raise MessageError("two OPT records")
                opt = start
        if position != len(data):
            raise MessageError("bytes after the last record")
    except (MessageError, struct.error, IndexError) as error:
        raise BadQuery(str(error), _bare(ident, flags, FORMERR)) from error
    question = data[12 : end + 4]
    name = data[12:end].lower()
    size, dnssec_ok = 512, False
    if opt is not None:
        _, size, extended, _ = RECORD.unpack_from(data, opt)
        dnssec_ok = bool(extended & _DO)
        if extended >> 16 & 0xFF:
            query = Query(ident, flags, question, name, qtype, b"", True, size, dnssec_ok)
            raise BadQuery("an EDNS version that nobody knows", error_reply(query, BADVERS))
    key = b"%b%b%c" % (name, question[-4:], (dnssec_ok << 1) | bool(flags & CD))
    query = Query(ident, flags, question, name, qtype, key, opt is not None, max(size, 512), dnssec_ok)
    if qclass != IN:
        raise BadQuery("a class other than IN", error_reply(query, REFUSED))
    return query


def _end_of_question_name(data: bytes) -> int:
    position = 12
    while length := data[position]:
        if length > 63:
            raise MessageError("a question's name that is compressed or has a long label")
        position += 1 + length
    if position - 11 > 255:
        raise MessageError("a name longer than 255 bytes")
    return position + 1


def skip_name(data: bytes, position: int) -> int:
    """The position after the name that begins here. Pointers end a name and are not followed."""
    while length := data[position]:
        if length >= 0xC0:
            return position + 2
        if length > 63:
            raise MessageError("a label of an unknown kind")
        position += 1 + length
    return position + 1


def _next_record(data: bytes, position: int) -> tuple[int, int, int]:
    """(the position after the record that begins here, its type, the position of its fixed part)."""
    start = skip_name(data, position)
    record_type, _, _, length = RECORD.unpack_from(data, start)
    end = start + RECORD.size + length
    if end > len(data):
        raise MessageError("a record longer than its message")
    return end, record_type, start


def _bare(ident: int, flags: int, rcode: int) -> bytes:
    """A reply to what could not be read: the header alone, opcode and RD echoed."""
    return HEADER.pack(ident, QR | (flags & (0x7800 | RD)) | rcode, 0, 0, 0, 0)


def upstream_query(query: Query, ident: int) -> bytes:
    """The same question in our own words: a fresh id, RD, an OPT of our own (RFC 6891 §6.1.1, hop by hop)."""
    flags = RD | (query.flags & (AD | CD))
    return HEADER.pack(ident, flags, 1, 0, 0, 1) + query.question + _opt(query.dnssec_ok)


def question_for(name: Name, qtype: int) -> Query:
    """A question of our own, as if a client had asked it."""
    question = name + struct.pack("!HH", qtype, IN)
    return Query(0, RD, question, name, qtype, question + b"\0", True, UDP_SIZE, False)


def _opt(dnssec_ok: bool, rcode: int = 0) -> bytes:
    return b"\0" + RECORD.pack(OPT, UDP_SIZE, (rcode >> 4) << 24 | (_DO if dnssec_ok else 0), 0)


def error_reply(query: Query, rcode: int) -> bytes:
    """A reply without records."""
    flags = QR | RA | (query.flags & (RD | CD)) | (rcode & 0xF)
    head = HEADER.pack(query.id, flags, 1, 0, 0, 1 if query.edns else 0)
    return head + query.question + (_opt(query.dnssec_ok, rcode) if query.edns else b"")


def fit_reply(query: Query, body: bytearray, stream: bool) -> bytes:
    """`body` (a whole reply without OPT) for this sender: its id, its case, its OPT, its size.

    What is too long becomes an empty reply with TC (RFC 2181 §9): who asked by UDP comes back by TCP.
    """
    flags = int.from_bytes(body[2:4], "big") & ~(RD | CD) | (query.flags & (RD | CD)) | RA
    if not query.dnssec_ok and not query.flags & AD:
        flags &= ~AD  # RFC 6840 §5.8
    opt = _opt(query.dnssec_ok) if query.edns else b""
    if len(body) + len(opt) > (0xFFFF if stream else min(query.udp_size, UDP_SIZE)):
        head = HEADER.pack(query.id, flags | TC, 1, 0, 0, 1 if opt else 0)
        return head + query.question + opt
    struct.pack_into("!HH", body, 0, query.id, flags)
    body[12 : 12 + len(query.question)] = query.question
    if opt:
        struct.pack_into("!H", body, 10, int.from_bytes(body[10:12], "big") + 1)
    return bytes(body) + opt
