"""What an answer may put into a set, and what it may not even say.

Whoever owns a tunneled name chooses its addresses. One that leads to this machine, its network, the tunnel's own
server or a DNS server would break more than that name; one that is left out of the set must not be given to
the client either, or its packets would go in clear. And a plain name that leads into the private network is
how a web page reaches it (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from splitwgd.names import Name, tails
from splitwgd.objects import Network
from splitwgd.svcb import Address


class Kind(Enum):
    """What an address is for (IANA's special-purpose registries, RFC 6890)."""

    GLOBAL = "global"
    PRIVATE = "private"  # somebody's own network: allowed where the user says so
    NEVER = "special"  # this machine, its link, many, or nobody


GLOBAL = Kind.GLOBAL  # by a name of its own, since it is asked for with every address


def _blocks(text: str) -> list[tuple[int, int, Kind]]:
    """Lines of "kind network network ..." as (prefix, its length, kind)."""
    found = []
    for line in text.strip().splitlines():
        word, *networks = line.split()
        for network in networks:
            address, _, length = network.partition("/")
            found.append((int(ip_address(address)), int(length), Kind(word)))
    return found


# 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 and 2001:db8::/32 are for documentation: they harm nobody.
_IPV4 = _blocks("""
special 0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 224.0.0.0/3
private 10.0.0.0/8 100.64.0.0/10 172.16.0.0/12 192.0.0.0/24 192.168.0.0/16 198.18.0.0/15
""")
# What is not named here and is outside 2000::/3 has not been given to anybody. 2001::/32 is Teredo.
_IPV6 = _blocks("""
special 2001::/32 2001:2::/48 2001:10::/28
private fc00::/7 fec0::/10 64:ff9b:1::/48
""")
_IPV4_FIRST = frozenset(
    first for prefix, length, _ in _IPV4 for first in range(prefix >> 24, (prefix >> 24) + (1 << max(8 - length, 0)))
)
# (the prefix of addresses that carry an IPv4 address, where that begins): RFC 6052, RFC 3056.
_CARRIERS = ((bytes.fromhex("0064ff9b0000000000000000"), 12), (bytes.fromhex("2002"), 2))

_CARRYING = tuple(prefix for prefix, _ in _CARRIERS)


def kind_of(address: Address) -> Kind:
    """The kind of an address of 4 or 16 bytes."""
    if len(address) == 4:
        if address[0] not in _IPV4_FIRST:
            return GLOBAL
        return _in_blocks(int.from_bytes(address, "big"), 32, _IPV4) or Kind.GLOBAL
    for prefix, place in _CARRIERS:
        if address.startswith(prefix):
            return kind_of(address[place : place + 4])
    number = int.from_bytes(address, "big")
    return _in_blocks(number, 128, _IPV6) or (Kind.GLOBAL if address[0] >> 5 == 1 else Kind.NEVER)


def _in_blocks(number: int, bits: int, blocks: list[tuple[int, int, Kind]]) -> Kind | None:
    for prefix, length, kind in blocks:
        if (number ^ prefix) >> (bits - length) == 0:
            return kind
    return None


@dataclass(frozen=True)
class Admission:
    """Judges addresses. private: zones that may lead to private addresses. taken: addresses that are never
    somebody else's site, with what each is. networks: tunneled by address, whatever name leads there."""

    private: frozenset[Name] = frozenset()
    taken: frozenset[Address] = frozenset()
    networks: tuple[Network, ...] = ()

    def are_harmless(self, addresses: Iterable[Address], widths: Container[int] = (4, 16)) -> bool:
        """Whether nobody can object to any of these, whatever name leads there: most answers need no more.
        widths: how many bytes addresses may have."""
        for address in addresses:
            width = len(address)
            if width not in widths:
                return False
            if width == 4:
                if address[0] in _IPV4_FIRST or address in self.taken:
                    return False
            elif address.startswith(_CARRYING) or address in self.taken or kind_of(address) is not GLOBAL:
                return False
        return True

    def objection(self, address: Address, name: Name) -> str:
        """Why a tunneled name's answer may not lead there; empty when it may."""
        carried = next((address[place : place + 4] for prefix, place in _CARRIERS if address.startswith(prefix)), b"")
        if address in self.taken or len(address) == 16 and carried in self.taken:
            return "an address of this machine, of its gateways or of a server that it needs"
        kind = kind_of(address)
        if kind is GLOBAL or kind is Kind.PRIVATE and self.allows_private(name):
            return ""
        return f"a {kind.value} address"

    def rebinds(self, address: Address, name: Name) -> bool:
        """Whether a plain name leads into the private network, and may not."""
        return kind_of(address) is not GLOBAL and not self.allows_private(name)

    def allows_private(self, name: Name) -> bool:
        """Whether a zone of `private` covers the name."""
        return bool(self.private) and any(tail in self.private for tail in tails(name))

    def is_listed(self, address: Address) -> bool:
        """Whether the address is tunneled by itself."""
        return bool(self.networks) and any(ip_address(address) in network for network in self.networks)
