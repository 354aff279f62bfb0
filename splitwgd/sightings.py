"""What of some names was seen in clear, among packets that left: to their addresses, and questions for them.

Pure: packets come as bytes from the IP header on, with the link by which they left.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from splitwgd.names import Name, tails, to_text
from splitwgd.objects import Ip

TCP, UDP = 6, 17
_DNS = 53
# Hop-by-hop options, routing, destination options: eight bytes, and as many eights as the second says (RFC 8200 §4).
_EXTENSIONS, _FRAGMENT = (0, 43, 60), 44
_HEADER = 12  # bytes of a DNS message before its question (RFC 1035 §4.1.1)


@dataclass(frozen=True, order=True)
class Sighting:
    """Something that nobody outside may see. name: what was asked for; empty for a packet to an address."""

    link: str
    to: str
    port: int
    name: str = ""

    def __str__(self) -> str:
        where = f"{self.to} port {self.port}" if self.port else self.to
        return f"{f'a question for {self.name} to' if self.name else 'to'} {where}, on {self.link}"


def sighted(
    packets: Iterable[tuple[str, bytes]], addresses: Collection[Ip], names: Collection[Name]
) -> Counter[Sighting]:
    """How often each thing was seen. names: questions for what is below them count, too."""
    seen: Counter[Sighting] = Counter()
    for link, data in packets:
        read = _read(data)
        if read is None:
            continue
        to, protocol, rest = read
        port = int.from_bytes(rest[2:4]) if protocol in (TCP, UDP) and len(rest) >= 4 else 0
        asked = _question(protocol, rest) if port == _DNS else None
        if asked is not None and any(tail in names for tail in tails(asked)):
            seen[Sighting(link, str(to), port, to_text(asked))] += 1
        elif to in addresses:
            seen[Sighting(link, str(to), port)] += 1
    return seen


def _read(data: bytes) -> tuple[Ip, int, bytes] | None:
    """Destination, protocol and what follows the IP headers; nothing of it where this is a later fragment."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        fragment = struct.unpack_from("!H", data, 6)[0] & 0x1FFF  # RFC 791 §3.1
        return IPv4Address(data[16:20]), data[9], b"" if fragment else data[(data[0] & 0xF) * 4 :]
    if len(data) < 40 or data[0] >> 4 != 6:
        return None
    to, protocol, rest = IPv6Address(data[24:40]), data[6], data[40:]
    while len(rest) >= 8 and protocol in (*_EXTENSIONS, _FRAGMENT):
        if protocol == _FRAGMENT and int.from_bytes(rest[2:4]) >> 3:
            return to, rest[0], b""
        length = 8 if protocol == _FRAGMENT else 8 + rest[1] * 8
        protocol, rest = rest[0], rest[length:]
    return to, protocol, rest


def _question(protocol: int, rest: bytes) -> Name | None:
    """The name that is asked for, in lower case; None where the packet begins no message."""
    if protocol == UDP:
        return _name(rest[8 + _HEADER :])
    if len(rest) < 20:
        return None
    return _name(rest[(rest[12] >> 4) * 4 + 2 + _HEADER :])


def _name(data: bytes) -> Name | None:
    at = 0
    while at < len(data) and 0 < data[at] < 64:
        at += 1 + data[at]
    if at >= len(data) or data[at]:
        return None
    return data[: at + 1].lower()
