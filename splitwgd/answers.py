"""Reads an upstream's reply, bounded: what may be kept, for how long, and which addresses it leads to.

Only the chain that starts at the question counts: CNAMEs from it, and the addresses at their owners (in the
hints of HTTPS and SVCB records, too).
Nothing from the other sections becomes an address (RFC 5452 §6).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from splitwgd.errors import MessageError
from splitwgd.message import (
    AAAA,
    CNAME,
    HEADER,
    HTTPS,
    IN,
    NOERROR,
    NXDOMAIN,
    OPT,
    QR,
    RECORD,
    SOA,
    SVCB,
    TC,
    A,
    Query,
    skip_name,
)
from splitwgd.names import Name
from splitwgd.objects import Ip

CHAIN_LIMIT = 12  # CNAMEs that are followed; unbound restarts 11 times
LABELS_LIMIT = 127  # in a name of 255 bytes; a pointer without a label between it and the next is useless
TTL_LIMIT = 86_400  # seconds; a longer TTL is given to clients as this one, so that set elements outlive it


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that answers the question.

    body: the message without its OPT record. ttl_places: offsets of the TTLs in it.
    ttl: seconds for which it may be kept, 0 for not at all. chain: the question's name and its aliases.
    """

    rcode: int
    truncated: bool
    body: bytes
    ttl_places: tuple[int, ...]
    ttl: int
    chain: tuple[Name, ...]
    addresses: tuple[Ip, ...]


def is_reply_to(data: bytes, ident: int, query: Query) -> bool:
    """Whether these bytes claim to answer this question: id, QR, and the question itself (RFC 5452 §9.1)."""
    if len(data) < 12 + len(query.question):
        return False
    got, flags, questions = struct.unpack_from("!HHH", data)
    asked = data[12 : 12 + len(query.question)]
    # The case may differ in the name and nowhere else.
    same = asked[:-4].lower() == query.name and asked[-4:] == query.question[-4:]
    return bool(got == ident and flags & QR and not flags & 0x7800 and questions == 1 and same)


def read_reply(data: bytes, query: Query) -> Reply:
    """What a reply (that `is_reply_to` let pass) says. Raises MessageError when it cannot be read."""
    try:
        return _read(data, query)
    except (struct.error, IndexError) as error:
        raise MessageError("a reply that ends too early") from error


def _read(data: bytes, query: Query) -> Reply:
    _, flags, _, answers, authorities, additionals = HEADER.unpack_from(data)
    body = bytearray(data)
    position = 12 + len(query.question)
    rcode = flags & 0xF
    ttl_places: list[int] = []
    aliases: dict[Name, list[Name]] = {}
    owned: dict[Name, list[Ip]] = {}
    lives: list[int] = []
    negative = 0
    for place in range(answers + authorities + additionals):
        start = position
        fixed = skip_name(data, position)
        record_type, record_class, ttl, length = RECORD.unpack_from(data, fixed)
        rdata = fixed + RECORD.size
        position = rdata + length
        if position > len(data):
            raise MessageError("a record longer than its message")
        if record_type == OPT:
            # Hop by hop: it is not passed on. What follows it (a signature of the transport) is cut too.
            rcode |= ttl >> 24 << 4
            struct.pack_into("!H", body, 10, place - answers - authorities)
            position = start
            break
        if ttl > TTL_LIMIT:
            ttl = 0 if ttl > 0x7FFFFFFF else TTL_LIMIT  # RFC 2181 §8
            struct.pack_into("!I", body, fixed + 4, ttl)
        ttl_places.append(fixed + 4)
        if place < answers:
            lives.append(ttl)
            if record_class != IN:
                continue
            if record_type == A and length == 4:
                owned.setdefault(_name(data, start, query), []).append(IPv4Address(data[rdata:position]))
            elif record_type == AAAA and length == 16:
                owned.setdefault(_name(data, start, query), []).append(IPv6Address(data[rdata:position]))
            elif record_type == CNAME:
                aliases.setdefault(_name(data, start, query), []).append(_name(data, rdata, query))
            elif record_type in (SVCB, HTTPS):
                owned.setdefault(_name(data, start, query), []).extend(_hints(data[rdata:position]))
        elif record_type == SOA and place < answers + authorities and length >= 20:
            negative = min(ttl, int.from_bytes(data[position - 4 : position], "big"))  # RFC 2308 §5
    chain = _chain(query.name, aliases)
    addresses = tuple(address for name in chain for address in owned.get(name, ()))
    truncated = bool(flags & TC)
    keepable = rcode in (NOERROR, NXDOMAIN) and not truncated
    # An alias that leads nowhere is a negative answer too, and ends with the shorter life of the two.
    found = bool(lives) and (rcode == NOERROR) and (query.qtype not in (A, AAAA) or bool(addresses))
    ttl = min(lives) if found else min([negative, *lives])
    places = tuple(ttl_places)
    return Reply(rcode, truncated, bytes(body[:position]), places, ttl if keepable else 0, tuple(chain), addresses)


def _chain(name: Name, aliases: dict[Name, list[Name]]) -> list[Name]:
    """The name and all that its aliases lead to. An owner has one alias, but who is to say which is followed."""
    chain = [name]
    for alias in chain:
        for target in aliases.get(alias, ()):
            if target in chain or len(chain) > CHAIN_LIMIT:
                raise MessageError("a chain of aliases without an end")
            chain.append(target)
    return chain


def _hints(rdata: bytes) -> list[Ip]:
    """The addresses that a browser may dial at once (RFC 9460 §7.3): keys 4 and 6 of the parameters."""
    addresses: list[Ip] = []
    position = skip_name(rdata, 2)
    while position < len(rdata):
        key, length = struct.unpack_from("!HH", rdata, position)
        value = rdata[position + 4 : position + 4 + length]
        position += 4 + length
        if key == 4:
            addresses += [IPv4Address(value[start : start + 4]) for start in range(0, len(value) - 3, 4)]
        elif key == 6:
            addresses += [IPv6Address(value[start : start + 16]) for start in range(0, len(value) - 15, 16)]
    return addresses


def _name(data: bytes, position: int, query: Query) -> Name:
    """The lower-case name that begins here. Pointers must lead back (RFC 9267 §2), so it ends."""
    if data[position : position + 2] == b"\xc0\x0c":
        return query.name
    labels = bytearray()
    limit = position
    hops = 0
    while length := data[position]:
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | data[position + 1]
            hops += 1
            if target >= limit or hops > LABELS_LIMIT:
                raise MessageError("a compression pointer that does not lead back, or too many")
            limit = position = target
            continue
        if length > 63:
            raise MessageError("a label of an unknown kind")
        labels += data[position : position + 1 + length]
        position += 1 + length
        if len(labels) > 254:
            raise MessageError("a name longer than 255 bytes")
    return bytes(labels).lower() + b"\0"
