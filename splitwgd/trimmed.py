"""A reply without what may not be given: built anew, since names in it may point to what leaves.

Off the fast path; everything else is passed on as it came (RFC 5625 §4).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from splitwgd.answers import RECORDS_LIMIT, read_reply
from splitwgd.errors import MessageError
from splitwgd.message import (
    AAAA,
    CNAME,
    DNAME,
    HEADER,
    HTTPS,
    IN,
    QR,
    RECORD,
    RRSIG,
    SOA,
    SVCB,
    A,
    Query,
    expanded,
    skip_name,
)
from splitwgd.reply import Reply
from splitwgd.svcb import MANDATORY, WIDTHS, Address, addresses_in, parameters

# Types whose data may hold compressed names (RFC 3597 §4): (bytes before the names, how many).
_NAMES = {
    **dict.fromkeys((2, 3, 4, CNAME, 7, 8, 9, 12, DNAME), (0, 1)),
    **dict.fromkeys((SOA, 14, 17), (0, 2)),
    **dict.fromkeys((15, 18, 21, 36), (2, 1)),  # MX, AFSDB, RT, KX
    26: (2, 2),  # PX
    33: (6, 1),  # SRV
}
_PROOFS = frozenset({SOA, RRSIG, 47, 50})  # what may stay among the authorities: NSEC and NSEC3 too
_BESIDE = frozenset({DNAME, RRSIG, 47, 50})  # what may stand beside the chain, see `answers`
_WIDTHS = {A: 4, AAAA: 16}
_LIMIT = 32_768  # bytes; names that are written out may make it longer than it came


def trimmed(reply: Reply, query: Query, admits: Callable[[Address], bool], most: int) -> Reply:
    """The reply's chain with the addresses that are admitted, and at most so many of them."""
    start = 12 + len(query.question)
    data = bytes(12) + query.question + reply.records
    kept: list[bytes] = []
    count = size = 0
    position = start
    may_stay = _Counting(admits, most)
    names: dict[int, bytes] = {}
    for place in range(min(reply.answers + reply.authorities, RECORDS_LIMIT)):
        begin, fixed = position, skip_name(data, position)
        _, _, _, length = RECORD.unpack_from(data, fixed)
        position = fixed + RECORD.size + length
        try:
            record = _kept(data, begin, fixed, position, reply if place < reply.answers else None, may_stay, names)
        except (MessageError, struct.error, IndexError):
            continue  # nobody could make sense of it
        if size + len(record) > _LIMIT:
            break
        if record:
            size += len(record)
            kept.append(record)
            count += place < reply.answers
    head = HEADER.pack(0, reply.flags | QR, 1, count, len(kept) - count, 0)
    again = read_reply(head + query.question + b"".join(kept), query)
    again.rcode = reply.rcode
    again.ttl = min(again.ttl or reply.ttl, reply.ttl)
    return again


def _kept(
    data: bytes,
    begin: int,
    fixed: int,
    end: int,
    reply: Reply | None,
    may_stay: Callable[[Address], bool],
    names: dict[int, bytes],
) -> bytes:
    """The record as it stays, empty if it does not. reply: whose answer it is, None for an authority."""
    owner = expanded(data, begin, names)
    rtype, rclass, ttl, _ = RECORD.unpack_from(data, fixed)
    rdata = fixed + RECORD.size
    new = data[rdata:end]
    if rclass != IN or reply is None and rtype not in _PROOFS:
        return b""
    if reply is not None and rtype not in _BESIDE and owner.lower() not in reply.chain:
        return b""
    if rclass == IN and rtype in _WIDTHS:
        if len(new) != _WIDTHS[rtype] or not may_stay(new):
            return b""
    elif rclass == IN and rtype in (SVCB, HTTPS):
        new = _without_hints(data, rdata, end, may_stay)
        if not new:
            return b""
    elif rtype in _NAMES:
        new = _uncompressed(data, rdata, end, *_NAMES[rtype])
    if owner == data[12 : 12 + len(owner)]:
        owner = b"\xc0\x0c"  # the question's
    return owner + RECORD.pack(rtype, rclass, ttl, len(new)) + new


class _Counting:
    """Admits so many and no more."""

    def __init__(self, admits: Callable[[Address], bool], most: int) -> None:
        self.admits = admits
        self.left = most

    def __call__(self, address: Address) -> bool:
        admitted = self.left > 0 and self.admits(address)
        self.left -= admitted
        return admitted


def _uncompressed(data: bytes, rdata: int, end: int, before: int, names: int) -> bytes:
    found = data[rdata : rdata + before]
    position = rdata + before
    for _ in range(names):
        found += expanded(data, position, {})
        position = skip_name(data, position)
    return found + data[position:end]


def _without_hints(data: bytes, rdata: int, end: int, admits: Callable[[Address], bool]) -> bytes:
    """The record's data with the admitted hints alone; empty where it is of no use without the others."""
    values = skip_name(data, rdata + 2)
    made = data[rdata : rdata + 2] + expanded(data, rdata + 2, {})
    found = parameters(data[values:end])
    needed = next((value for key, value in found if key == MANDATORY), b"")  # RFC 9460 §8
    for key, value in found:
        if key in WIDTHS:
            value = b"".join(hint for hint in addresses_in(key, value) if admits(hint))
            if not value and struct.pack("!H", key) in (needed[i : i + 2] for i in range(0, len(needed), 2)):
                return b""
            if not value:
                continue
        made += struct.pack("!HH", key, len(value)) + value
    return made
