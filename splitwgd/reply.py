"""A reply as it is kept and given: what is known of it, and its bytes as they are at another time.

`answers` reads it, `trimmed` builds it anew.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from splitwgd.message import Body
from splitwgd.names import Name
from splitwgd.svcb import Address

TTL = struct.Struct("!I")


@dataclass(slots=True)
class Reply(Body):
    """A reply that answers the question, as it is given to clients: all but the additional section.

    ttl_places: offsets of the TTLs in its records. ttl: seconds for which it may be kept, 0 for not at all.
    chain: the question's name and its aliases. addresses: of the chain, hints included. targets: other names that
    its HTTPS and SVCB records lead to (RFC 9460 §2.5). stray: whether it holds records that are not the chain's.
    options: of the server's OPT. longest: seconds for which some client may remember one of its records.
    """

    rcode: int
    truncated: bool
    ttl_places: tuple[int, ...]
    ttl: int
    chain: tuple[Name, ...]
    addresses: tuple[Address, ...]
    targets: tuple[Name, ...] = ()
    stray: bool = False
    options: bytes = b""
    longest: int = 0


def counted_down(reply: Reply, age: int) -> Body:
    """The body as it is given `age` seconds later."""
    if not age or not reply.ttl_places:
        return reply
    records = bytearray(reply.records)
    for place in reply.ttl_places:
        (ttl,) = TTL.unpack_from(records, place)
        TTL.pack_into(records, place, max(ttl - age, 0))
    return Body(reply.flags, reply.answers, reply.authorities, bytes(records), reply.answers_end)


def with_ttl(reply: Reply, ttl: int) -> Body:
    """The body with this TTL at every record."""
    records = bytearray(reply.records)
    for place in reply.ttl_places:
        TTL.pack_into(records, place, ttl)
    return Body(reply.flags, reply.answers, reply.authorities, bytes(records), reply.answers_end)
