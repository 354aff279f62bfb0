"""As much of the DNS wire format as the lab needs, on purpose not the code which the lab tests.

Every reader raises ValueError for what it cannot read; none follows more than a few pointers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from .zone import Answer, Record

KINDS = {"A": 1, "CNAME": 5, "SOA": 6, "TXT": 16, "AAAA": 28}
_NAMES = {number: kind for kind, number in KINDS.items()}
_SOA_DATA = struct.pack("!2x5I", 1, 3600, 600, 86400, 60)  # root, root, then the minimum of 60 s


@dataclass(frozen=True)
class Reply:
    """What a client makes of a reply."""

    rcode: int
    truncated: bool
    addresses: tuple[str, ...]


def encode_name(name: str) -> bytes:
    """A name in full, without compression."""
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def decode_name(wire: bytes, at: int) -> tuple[str, int]:
    """The name at an offset, and the offset after it."""
    labels: list[str] = []
    after = 0
    jumps = 0
    try:
        while length := wire[at]:
            if length >= 0xC0:
                after = after or at + 2
                at = (length & 0x3F) << 8 | wire[at + 1]
                jumps += 1
                if jumps > 8:
                    raise ValueError("too many pointers")
            elif length > 63 or at + length >= len(wire):
                raise ValueError("not a name")
            else:
                labels.append(wire[at + 1 : at + 1 + length].decode("ascii"))
                at += 1 + length
    except IndexError:
        raise ValueError("the name is cut off") from None
    return ".".join(labels), after or at + 1


def query(ident: int, name: str, kind: str) -> bytes:
    """A question with recursion desired."""
    head = struct.pack("!6H", ident, 0x0100, 1, 0, 0, 0)
    return head + encode_name(name) + struct.pack("!HH", KINDS[kind], 1)


def question(wire: bytes) -> tuple[str, str, int]:
    """Name and kind asked for in a query or reply, and the offset after the question."""
    if len(wire) < 17 or wire[4:6] != b"\0\1":
        raise ValueError("not one question")
    name, at = decode_name(wire, 12)
    if len(wire) < at + 4:
        raise ValueError("the question is cut off")
    number = int.from_bytes(wire[at : at + 2], "big")
    return name, _NAMES.get(number, f"TYPE{number}"), at + 4


def _pack(record: Record, asked: str) -> bytes:
    if record.kind in ("A", "AAAA"):
        data = ip_address(record.data).packed
    elif record.kind == "CNAME":
        data = encode_name(record.data)
    elif record.kind == "SOA":
        data = _SOA_DATA
    else:
        data = bytes([len(record.data)]) + record.data.encode()
    owner = b"\xc0\x0c" if record.name == asked else encode_name(record.name)
    return owner + struct.pack("!HHIH", KINDS[record.kind], 1, record.ttl, len(data)) + data


def reply(asked: bytes, answer: Answer, limit: int) -> bytes:
    """The reply to a query; over the limit only its head with TC set."""
    name, _, end = question(asked)
    parts: list[Sequence[Record]] = [answer.records, answer.authority]
    body = b"".join(_pack(record, name.lower()) for part in parts for record in part)
    flags = 0x8180 | answer.rcode
    counts = [len(part) for part in parts]
    if end + len(body) > limit:
        body, flags, counts = b"", flags | 0x0200, [0, 0]
    return asked[:2] + struct.pack("!5H", flags, 1, *counts, 0) + asked[12:end] + body


def read_reply(wire: bytes, asked: bytes) -> Reply:
    """Return code, truncation and addresses of the reply to a query."""
    _, _, at = question(wire)
    if wire[:2] != asked[:2] or wire[12:at] != asked[12:]:
        raise ValueError("the reply answers something else")
    flags, _, count = struct.unpack_from("!HHH", wire, 2)
    addresses = []
    for _ in range(count):
        _, at = decode_name(wire, at)
        if len(wire) < at + 10:
            raise ValueError("the record is cut off")
        number, _, _, length = struct.unpack_from("!HHIH", wire, at)
        at += 10 + length
        if number in (KINDS["A"], KINDS["AAAA"]):
            addresses.append(str(ip_address(wire[at - length : at])))
    return Reply(flags & 15, bool(flags & 0x0200), tuple(addresses))
