"""DNS messages byte by byte, for those who want to lie: nothing here checks what it is given."""

from __future__ import annotations

import struct

QR, AA, TC, RD, RA, Z, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0040, 0x0020, 0x0010
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
A, NS, CNAME, SOA, PTR, HINFO, MX, TXT, AAAA, SRV, NAPTR, DNAME, OPT = 1, 2, 5, 6, 12, 13, 15, 16, 28, 33, 35, 39, 41
DS, RRSIG, NSEC, DNSKEY, SVCB, HTTPS, TSIG, IXFR, AXFR, ANY = 43, 46, 47, 48, 64, 65, 250, 251, 252, 255
IN, CH, HS = 1, 3, 4
HERE = b"\xc0\x0c"  # a pointer to the question's name


def name(text: str) -> bytes:
    """A name in full; its labels must be ASCII."""
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label) + b"\0"


def pointer(target: int) -> bytes:
    """A compression pointer."""
    return struct.pack("!H", 0xC000 | target)


def header(
    flags: int = RD, questions: int = 1, answers: int = 0, authorities: int = 0, additionals: int = 0, ident: int = 7
) -> bytes:
    """The twelve octets that every message begins with."""
    return struct.pack("!6H", ident, flags, questions, answers, authorities, additionals)


def question(owner: bytes, rtype: int = A, rclass: int = IN) -> bytes:
    """One entry of the question section."""
    return owner + struct.pack("!HH", rtype, rclass)


def record(owner: bytes, rtype: int, rdata: bytes, ttl: int = 60, rclass: int = IN, length: int | None = None) -> bytes:
    """A record; `length` is what its RDLENGTH says where that is a lie."""
    return owner + struct.pack("!HHIH", rtype, rclass, ttl, len(rdata) if length is None else length) + rdata


def option(code: int, value: bytes, length: int | None = None) -> bytes:
    """An EDNS option."""
    return struct.pack("!HH", code, len(value) if length is None else length) + value


def opt(
    size: int = 1232,
    flags: int = 0,
    version: int = 0,
    options: bytes = b"",
    owner: bytes = b"\0",
    extended_rcode: int = 0,
    length: int | None = None,
) -> bytes:
    """An OPT record; flags: 0x8000 is DO."""
    length = len(options) if length is None else length
    return owner + struct.pack("!HHBBHH", OPT, size, extended_rcode, version, flags, length) + options


def query(
    owner: bytes,
    rtype: int = A,
    rclass: int = IN,
    flags: int = RD,
    ident: int = 7,
    edns: bytes = b"",
) -> bytes:
    """A question as a client sends it; edns: an OPT record or nothing."""
    return header(flags, additionals=1 if edns else 0, ident=ident) + question(owner, rtype, rclass) + edns


def framed(*messages: bytes) -> bytes:
    """Messages as they go over TCP."""
    return b"".join(struct.pack("!H", len(message)) + message for message in messages)
