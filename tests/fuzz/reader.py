"""Reads a DNS message as RFC 1035 has it and believes nothing: the judge of what splitwgd sends.

Shares no code with splitwgd. Raises Unreadable for whatever a strict client could stumble over: counts or lengths
that do not fit, bytes left over, names over 255 octets, pointers that do not lead back to a name before them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

OPT = 41
# RDATA in which names may be compressed (RFC 3597 §4): octets before the names, their number. The rest follows.
_NAMES_IN_RDATA = {2: (0, 1), 5: (0, 1), 6: (0, 2), 12: (0, 1), 14: (0, 2), 15: (2, 1), 17: (0, 2), 18: (2, 1)} | {
    21: (2, 1),
    26: (2, 2),
    33: (6, 1),
    36: (2, 1),
    39: (0, 1),
}


class Unreadable(ValueError):
    """Why these bytes are no message."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record; rdata: as it stands, `place`: where that begins in the message."""

    owner: bytes
    rtype: int
    rclass: int
    ttl: int
    rdata: bytes
    place: int


@dataclass(frozen=True)
class Message:
    """A whole message. Names are in full, in the case in which they came."""

    data: bytes
    id: int
    flags: int
    questions: tuple[tuple[bytes, int, int], ...]
    answers: tuple[Record, ...]
    authorities: tuple[Record, ...]
    additionals: tuple[Record, ...]

    @cached_property
    def opt(self) -> Record | None:
        """Its OPT record."""
        return next((record for record in self.additionals if record.rtype == OPT), None)

    @property
    def rcode(self) -> int:
        """The whole of it: the upper bits stand in the OPT record."""
        return self.flags & 0xF | (self.opt.ttl >> 24 << 4 if self.opt else 0)

    @property
    def options(self) -> list[tuple[int, bytes]]:
        """The EDNS options."""
        found, rdata = [], self.opt.rdata if self.opt else b""
        while rdata:
            if len(rdata) < 4 or len(rdata) < 4 + int.from_bytes(rdata[2:4], "big"):
                raise Unreadable("an EDNS option that is cut off")
            code, length = struct.unpack_from("!HH", rdata)
            found.append((code, rdata[4 : 4 + length]))
            rdata = rdata[4 + length :]
        return found

    def canonical(self, record: Record) -> tuple[bytes, int, bytes]:
        """(owner, type, RDATA), in lower case and without compression: equal where two records say the same."""
        if record.rtype not in _NAMES_IN_RDATA:
            return record.owner.lower(), record.rtype, record.rdata
        before, names = _NAMES_IN_RDATA[record.rtype]
        place, end = record.place + before, record.place + len(record.rdata)
        parts = [self.data[record.place : place]]
        for _ in range(names):
            found, place = read_name(self.data[:end], place)
            parts.append(found.lower())
        return record.owner.lower(), record.rtype, b"".join((*parts, self.data[place:end]))


def read_name(data: bytes, place: int) -> tuple[bytes, int]:
    """The name in full, and the position after it."""
    labels: list[bytes] = []
    after, limit, size, hops = 0, place, 1, 0
    while True:
        if place >= len(data):
            raise Unreadable("a name that is cut off")
        length = data[place]
        if length >= 0xC0:
            if place + 1 >= len(data):
                raise Unreadable("half a pointer")
            target = (length & 0x3F) << 8 | data[place + 1]
            after = after or place + 2
            hops += 1
            if not 12 <= target < limit or hops > 127:
                raise Unreadable("a pointer that does not lead back into the message, or too many")
            limit = place = target
            continue
        if length > 63:
            raise Unreadable("a label of an unknown kind")
        if place + 1 + length > len(data):
            raise Unreadable("a label that is cut off")
        size += 1 + length if length else 0
        if size > 255:
            raise Unreadable("a name longer than 255 octets")
        labels.append(data[place : place + 1 + length])
        place += 1 + length
        if not length:
            return b"".join(labels), after or place


def _read_record(data: bytes, place: int) -> tuple[Record, int]:
    owner, place = read_name(data, place)
    if place + 10 > len(data):
        raise Unreadable("a record that is cut off")
    rtype, rclass, ttl, length = struct.unpack_from("!HHIH", data, place)
    place += 10
    if place + length > len(data):
        raise Unreadable("a record longer than its message")
    return Record(owner, rtype, rclass, ttl, data[place : place + length], place), place + length


def read(data: bytes) -> Message:
    """The message in these bytes. Raises Unreadable."""
    if len(data) < 12:
        raise Unreadable("shorter than a header")
    ident, flags, questions, *counts = struct.unpack_from("!6H", data)
    place = 12
    asked = []
    for _ in range(questions):
        owner, place = read_name(data, place)
        if place + 4 > len(data):
            raise Unreadable("a question that is cut off")
        asked.append((owner, *struct.unpack_from("!HH", data, place)))
        place += 4
    sections: list[tuple[Record, ...]] = []
    for count in counts:
        records = []
        for _ in range(count):
            record, place = _read_record(data, place)
            records.append(record)
        sections.append(tuple(records))
    if place != len(data):
        raise Unreadable("bytes after the last record")
    opts = [record for section in sections for record in section if record.rtype == OPT]
    if len(opts) > 1 or opts and (opts[0] not in sections[2] or opts[0].owner != b"\0"):
        raise Unreadable("an OPT record that is not alone, not additional or not at the root")
    return Message(data, ident, flags, tuple(asked), *sections)
