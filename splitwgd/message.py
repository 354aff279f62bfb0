"""The wire view of a DNS message: what the forwarder must know of a question, and the replies that it makes.

Reads bytes within bounds and builds no objects for records: that is the fast path, and it is what stands
between the net and everything else. Answers are read by `answers`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from splitwgd.errors import MessageError
from splitwgd.names import Name

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS, BADCOOKIE = 0, 1, 2, 3, 4, 5, 16, 23
ANSWERS = frozenset({NOERROR, NXDOMAIN})  # all others say why there is none
A, CNAME, SOA, DNAME, AAAA, OPT, RRSIG, SVCB, HTTPS = 1, 5, 6, 39, 28, 41, 46, 64, 65
IXFR, AXFR, ANY = 251, 252, 255
# Questions for more than a record set, or for what is no data at all (RFC 6895 §3.1): not a forwarder's to pass on.
# (OPT, TKEY, TSIG, IXFR, AXFR, MAILB, MAILA)
META_TYPES = frozenset({OPT, 249, 250, IXFR, AXFR, 253, 254})
IN = 1
HEADER = struct.Struct("!HHHHHH")
_pack_header, _unpack_header = HEADER.pack, HEADER.unpack_from
_pack_head = struct.Struct("!H10s").pack  # the id, and the rest of the header
# The fixed part of a record after its owner: type, class, TTL, length (RFC 1035 §3.2.1).
RECORD = struct.Struct("!HHIH")
# DNS flag day 2020 and RFC 9715: what surely fits without fragments.
UDP_SIZE = 1232
COOKIE, EXTENDED_ERROR = 10, 15  # EDNS options (RFC 7873, RFC 8914)
_DO = 0x8000
_ECHOED, _OURS = RD | CD, 0xFFFF & ~(RD | CD)  # bits of the flags: as the client sent them, and as a body has them
_POINTERS = 127  # a name of 255 bytes has no more labels; a pointer without a label before the next is of no use
_KEY_ENDS = (b"\0", b"\1", b"\2", b"\3")  # what else an answer depends on: the bits DO and CD
_TYPE_AND_CLASS = struct.Struct("!HH")


class BadQuery(MessageError):
    """A question that is not forwarded. `reply` is what its sender gets; None is silence."""

    def __init__(self, what: str, reply: bytes | None) -> None:
        super().__init__(what)
        self.reply = reply


@dataclass(slots=True)
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


@dataclass(frozen=True, slots=True)
class Why:
    """An extended error (RFC 8914): a code of its registry, and a sentence for whoever runs dig."""

    code: int
    text: str


def read_query(data: bytes) -> Query:
    """The question in these bytes. Raises BadQuery for anything that is not one that we forward."""
    if len(data) < 12:
        raise BadQuery("shorter than a header", None)
    ident, flags, questions, answers, authorities, additionals = _unpack_header(data)
    if flags & 0xF800 or questions != 1:
        raise _refusal(ident, flags)
    try:
        if answers or authorities:
            raise MessageError("a question with an answer")
        first = data[12]
        if first > 63:
            raise MessageError("a question's name that is compressed or has a long label")
        below = 13 + first if first else 12
        read = _read_rest_again if len(data) <= _REMEMBERED else _read_rest
        length, asked, qtype, edns, size, dnssec_ok, refused = read(data[below:], additionals)
        below += length
        if below > 12 + 255:
            raise MessageError("a name longer than 255 bytes")
    except (MessageError, struct.error, IndexError) as error:
        raise BadQuery(str(error), _bare(ident, flags, FORMERR)) from error
    name = data[12:below].lower()
    key_end = _KEY_ENDS[(2 if dnssec_ok else 0) + (1 if flags & CD else 0)]
    query = Query(ident, flags, data[12 : below + 4], name, qtype, name + asked + key_end, edns, size, dnssec_ok)
    if refused:
        raise BadQuery(refused[1], error_reply(query, refused[0]))
    return query


_Refused = tuple[int, str]  # by which rcode, and why


def _read_rest(data: bytes, additionals: int) -> tuple[int, bytes, int, bool, int, bool, _Refused | None]:
    """What follows the first label of a question: (the length of the name's rest, type and class, the type, whether
    there is an OPT record, bytes that the sender can take, whether it wants DNSSEC, whether this is refused)."""
    root = 0
    while length := data[root]:
        if length > 63:
            raise MessageError("a question's name that is compressed or has a long label")
        root += 1 + length
    end = root + 5
    qtype, qclass = _TYPE_AND_CLASS.unpack_from(data, root + 1)
    opt, size, extended = 0, 512, 0
    if additionals or len(data) != end:
        opt = _find_opt(data, end, additionals)
        if opt:
            _, size, extended, length = RECORD.unpack_from(data, opt)
            _check_options(data, opt + RECORD.size, length)
    refused = None
    if extended & 0xFF0000:
        refused = BADVERS, "an EDNS version that nobody knows"
    elif qclass != IN:
        refused = REFUSED, "a class other than IN"
    elif qtype in META_TYPES:
        refused = REFUSED, "a zone transfer or a type that is no data"
    return root + 1, data[root + 1 : end], qtype, opt > 0, max(size, 512), extended & _DO != 0, refused


# Of most questions it is that of another one: the same parent, the same type, the same asker.
_read_rest_again = lru_cache(1024)(_read_rest)
_REMEMBERED = 512  # bytes of a question, at most: over TCP somebody may send 1,024 of 64 KB


def _refusal(ident: int, flags: int) -> BadQuery:
    if flags & QR:
        return BadQuery("a reply, not a question", None)  # answering it could start a loop
    if flags & 0x7800:
        return BadQuery("an opcode other than QUERY", _bare(ident, flags, NOTIMP))
    return BadQuery("not one question", _bare(ident, flags, FORMERR))  # RFC 9619


def _find_opt(data: bytes, position: int, additionals: int) -> int:
    """The position of the fixed part of the OPT record, 0 where there is none. Raises on what is no message."""
    opt = 0
    for _ in range(additionals):
        begin = position
        position, record_type, start = _next_record(data, begin)
        if record_type == OPT:
            if opt or start != begin + 1:
                raise MessageError("an OPT record that is not alone, or not at the root")
            opt = start
    if position != len(data):
        raise MessageError("bytes after the last record")
    return opt


def _check_options(data: bytes, position: int, length: int) -> None:
    """They must fill their record (RFC 6891 §6.1.2); what they are is nobody's business here."""
    end = position + length
    while position < end:
        position += 4 + _TYPE_AND_CLASS.unpack_from(data, position)[1]
    if position != end:
        raise MessageError("options that do not fill their record")


def skip_name(data: bytes, position: int) -> int:
    """The position after the name that begins here. Pointers end a name and are not followed."""
    while length := data[position]:
        if length >= 0xC0:
            return position + 2
        if length > 63:
            raise MessageError("a label of an unknown kind")
        position += 1 + length
    return position + 1


def expanded(data: bytes, position: int, known: dict[int, bytes]) -> bytes:
    """The name that begins here, without pointers. known: what was expanded before, by position; grows.

    A pointer must lead to a prior name (RFC 1035 §4.1.4), which begins before this one and ends before the
    pointer: so this ends, too (RFC 9267 §2).
    """
    labels: list[tuple[int, bytes]] = []
    rest = b"\0"
    start, limit, size, pointers = position, len(data), 1, 0
    while length := data[position]:
        if (found := known.get(position)) is not None:
            rest = found
            break
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | data[position + 1]
            pointers += 1
            if not 12 <= target < start or pointers > _POINTERS:
                raise MessageError("a compression pointer that does not lead back, or one too many")
            start, limit, position = target, position, target
            continue
        end = position + 1 + length
        if length > 63 or end >= limit:
            raise MessageError("a label of an unknown kind, or without an end")
        labels.append((position, data[position:end]))
        size += 1 + length
        position = end
        if size > 255:
            break
    for place, label in reversed(labels):
        rest = known[place] = label + rest
    if len(rest) > 255:
        raise MessageError("a name longer than 255 bytes")
    return rest


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


def upstream_query(query: Query, ident: int, question: bytes, options: bytes | None = b"") -> bytes:
    """The same question in our own words: a fresh id, RD, an OPT of our own (RFC 6891 §6.1.1, hop by hop).

    question: its question section, perhaps in another case. options: of the OPT record, None to do without one.
    """
    head, opt = _dress(query.flags & CD, query.dnssec_ok, options)
    return _pack_head(ident, head) + question + opt


@lru_cache(64)
def _dress(checking_disabled: int, dnssec_ok: bool, options: bytes | None) -> tuple[bytes, bytes]:
    """What stands between the id and the question that we send, and what behind it."""
    # AD: tell us what you have validated (RFC 6840 §5.7); who did not ask for it does not get it from us.
    head = HEADER.pack(0, RD | AD | checking_disabled, 1, 0, 0, 0 if options is None else 1)[2:]
    return head, b"" if options is None else _opt(dnssec_ok, 0, options)


def question_for(name: Name, qtype: int) -> Query:
    """A question of our own, as if a client had asked it."""
    question = name + _TYPE_AND_CLASS.pack(qtype, IN)
    return Query(0, RD, question, name, qtype, question + _KEY_ENDS[0], True, UDP_SIZE, False)


@lru_cache(64)  # the cookies of a few servers, and a few reasons
def _opt(dnssec_ok: bool, rcode: int = 0, options: bytes = b"") -> bytes:
    return b"\0" + RECORD.pack(OPT, UDP_SIZE, (rcode >> 4) << 24 | (_DO if dnssec_ok else 0), len(options)) + options


def option(code: int, value: bytes) -> bytes:
    """An EDNS option (RFC 6891 §6.1.2)."""
    return _TYPE_AND_CLASS.pack(code, len(value)) + value


def _explanation(why: Why | None) -> bytes:
    return option(EXTENDED_ERROR, struct.pack("!H", why.code) + why.text.encode()) if why else b""


def error_reply(query: Query, rcode: int, why: Why | None = None) -> bytes:
    """A reply without records."""
    flags = QR | RA | (query.flags & (RD | CD)) | (rcode & 0xF)
    head = HEADER.pack(query.id, flags, 1, 0, 0, 1 if query.edns else 0)
    return head + query.question + (_opt(query.dnssec_ok, rcode, _explanation(why)) if query.edns else b"")


@dataclass(slots=True)
class Body:
    """What a reply says to everybody alike: its flags and its records, without question and OPT.

    Positions in `records` count from the end of the question; names in it may point back into the question.
    answers_end: where the authorities begin in it.
    """

    flags: int
    answers: int
    authorities: int
    records: bytes
    answers_end: int


def fit_reply(query: Query, body: Body, stream: bool, why: Why | None = None) -> bytes:
    """A reply for this sender: its id, its case, its OPT, its size.

    What is too long becomes an empty reply with TC (RFC 2181 §9): who asked by UDP comes back by TCP.
    """
    question, records = query.question, body.records
    flags = body.flags & _OURS | query.flags & _ECHOED | RA
    if not query.dnssec_ok and not query.flags & AD:
        flags &= ~AD  # RFC 6840 §5.8
    opt, additionals = b"", 0
    if query.edns:
        opt, additionals = _opt(query.dnssec_ok, 0, _explanation(why)), 1
    length = 12 + len(question) + len(records) + len(opt)
    if length > 512:  # or else everybody can take it
        most = 0xFFFF if stream else min(query.udp_size, UDP_SIZE)
        if length > most and not query.dnssec_ok and 0 < body.answers_end < len(records):
            # What is beside an answer can be left out without a word (RFC 2181 §9).
            length -= len(records) - body.answers_end
            records = records[: body.answers_end]
            body = Body(body.flags, body.answers, 0, records, body.answers_end)
        if length > most:
            return _pack_header(query.id, flags | TC, 1, 0, 0, additionals) + question + opt
    return _pack_header(query.id, flags, 1, body.answers, body.authorities, additionals) + question + records + opt
