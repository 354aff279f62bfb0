"""What the hostile server can be told to say: records, replies, and the ways to spoil them.  Pure bytes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from .wire import encode_name

KINDS = {
    "A": 1,
    "NS": 2,
    "CNAME": 5,
    "SOA": 6,
    "PTR": 12,
    "MX": 15,
    "TXT": 16,
    "AAAA": 28,
    "SRV": 33,
    "DNAME": 39,
    "OPT": 41,
    "SVCB": 64,
    "HTTPS": 65,
    "ANY": 255,
}
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, REFUSED, BADCOOKIE = 0, 1, 2, 3, 5, 23


def record(kind: str, data: str | int | bytes, owner: str = "@", ttl: int = 300, rclass: int = 1) -> bytes:
    """One resource record. owner "@" is the question's name. data: an address, a name, a text, the SOA's
    minimum, or the RDATA as bytes."""
    if isinstance(data, bytes):
        rdata = data
    elif isinstance(data, int):
        rdata = encode_name("ns.example") + encode_name("root.example") + struct.pack("!5I", 1, 3600, 600, 86400, data)
    elif kind in ("A", "AAAA"):
        rdata = ip_address(data).packed
    elif kind == "TXT":
        rdata = bytes([len(data)]) + data.encode()
    else:
        rdata = encode_name(data)
    name = b"\xc0\x0c" if owner == "@" else encode_name(owner)
    return name + struct.pack("!HHIH", KINDS[kind], rclass, ttl, len(rdata)) + rdata


def svcb(priority: int, target: str, v4: Sequence[str] = (), v6: Sequence[str] = ()) -> bytes:
    """The RDATA of a SVCB or HTTPS record (RFC 9460); target "." is the owner itself, priority 0 an alias."""
    params = b"" if priority == 0 else struct.pack("!HH3s", 1, 3, b"\x02h2")
    for key, hints in ((4, v4), (6, v6)):
        packed = b"".join(ip_address(hint).packed for hint in hints)
        params += struct.pack("!HH", key, len(packed)) + packed if packed else b""
    return struct.pack("!H", priority) + encode_name("" if target == "." else target) + params


@dataclass(frozen=True)
class Reply:
    """One thing it sends. after: seconds from the question on. spoil: a key of SPOILS. source: "port" or
    "address" for another one than was asked. cookie: "right", "none" or "wrong". over: "udp" or "tcp" for only
    there. big: sent whole by UDP, too. flood: "all" ids or all "wrong" ones, to the client's port plus `port`."""

    answer: Sequence[bytes] = ()
    authority: Sequence[bytes] = ()
    additional: Sequence[bytes] = ()
    rcode: int = NOERROR
    after: float = 0.0
    spoil: str = ""
    source: str = ""
    cookie: str = "right"
    over: str = ""
    big: bool = False
    flood: str = ""
    port: int = 0


def address(*addresses: str, ttl: int = 300, **more: Any) -> Reply:
    """The reply that gives the question's name these addresses."""
    return Reply([record("AAAA" if ":" in a else "A", a, ttl=ttl) for a in addresses], **more)


def nothing(rcode: int = NOERROR, minimum: int = 300, ttl: int = 300) -> Reply:
    """NODATA, or NXDOMAIN, with the SOA that bounds it."""
    return Reply(authority=[record("SOA", minimum, "example", ttl)], rcode=rcode)


# -- how it spoils what it says: (message, the position after its question) -> message


def _question_name(message: bytes, end: int, change: Callable[[bytes], bytes]) -> bytes:
    return message[:12] + change(message[12 : end - 4]) + message[end - 4 :]


SPOILS: dict[str, Callable[[bytes, int], bytes]] = {
    "id": lambda m, end: bytes([m[0] ^ 0x55, m[1]]) + m[2:],
    "qr": lambda m, end: m[:2] + bytes([m[2] & 0x7F]) + m[3:],
    "opcode": lambda m, end: m[:2] + bytes([m[2] | 0x10]) + m[3:],
    # One letter of the name becomes a digit; the case of all of them is turned.
    "qname": lambda m, end: _question_name(m, end, lambda name: name[:1] + b"0" + name[2:]),
    "case": lambda m, end: _question_name(m, end, bytes.swapcase),
    "lower": lambda m, end: _question_name(m, end, bytes.lower),
    "qtype": lambda m, end: m[: end - 4] + struct.pack("!H", 28 if m[end - 3] == 1 else 1) + m[end - 2 :],
    "qclass": lambda m, end: m[: end - 2] + struct.pack("!H", 3) + m[end:],
    "no question": lambda m, end: m[:4] + b"\0\0" + m[6:12] + m[end:],
    "head": lambda m, end: m[:4] + bytes(8),
    "short": lambda m, end: m[:7],
    "empty": lambda m, end: b"",
    "garbage": lambda m, end: m[:2] + hashlib.sha512(m).digest(),
    "cut": lambda m, end: m[: end + 11],
    "count": lambda m, end: m[:6] + struct.pack("!H", 40_000) + m[8:],
    "length": lambda m, end: m[: end + 10] + b"\xff\xff" + m[end + 12 :],
    "pointer": lambda m, end: m[:end] + struct.pack("!H", 0xC000 | end) + m[end + 2 :],
    "label": lambda m, end: m[:end] + b"\x80\x0c" + m[end + 2 :],
}
