"""What lives in the kernel, as values: the same types say what is wanted and what was found there.

Each has a `key` (two values with one key are versions of one thing) and prints as a line that a person
who knows `ip` and `nft` can read. The constructors do not validate; `config` and `wgconf` do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    collapse_addresses,
    ip_address,
)
from typing import NamedTuple

Ip = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
Key = tuple[object, ...]

MAIN_TABLE = 254
FORWARDED_PORT = 253  # where questions are led that we would forward: nobody's (IANA), and below 1024 only root's


def collapsed(networks: Iterable[Network]) -> frozenset[Network]:
    """The same addresses, of one family, in networks that neither overlap nor adjoin."""
    return frozenset(collapse_addresses(networks))  # type: ignore[type-var]  # typed for one family alone


@dataclass(frozen=True)
class Endpoint:
    """Where a WireGuard peer is reached: an address or a name that has yet to be resolved, and a UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_literal(self) -> bool:
        """Whether the host is an address already."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True


@dataclass(frozen=True)
class Peer:
    """One WireGuard peer. Keys are 32 raw bytes; keepalive in seconds, 0 for none.

    The endpoint is no part of equality: a peer that roams (WireGuard paper, §2.1) changes it by itself.
    """

    public_key: bytes
    preshared_key: bytes | None = field(default=None, repr=False)
    allowed: frozenset[Network] = frozenset()
    keepalive: int = 0
    endpoint: Endpoint | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Device:
    """The WireGuard side of a link. listen_port 0 lets the kernel choose; fwmark marks the outer packets."""

    link: str
    private_key: bytes = field(repr=False)
    listen_port: int
    fwmark: int
    peers: frozenset[Peer]

    @property
    def key(self) -> Key:
        return ("device", self.link)

    def __str__(self) -> str:
        return f"wg set {self.link} fwmark {self.fwmark:#x} peers {len(self.peers)}"


@dataclass(frozen=True)
class Link:
    """A network interface that we made to carry a tunnel, and that is up."""

    name: str
    mtu: int
    addresses: frozenset[Interface]

    @property
    def key(self) -> Key:
        return ("link", self.name)

    def __str__(self) -> str:
        addresses = " ".join(sorted(str(address) for address in self.addresses))
        return f"ip link {self.name} mtu {self.mtu} up {addresses}".rstrip()


@dataclass(frozen=True)
class LooseReversePath:
    """`net.ipv4.conf.LINK.rp_filter = 2`: replies come in by the tunnel for addresses that the main table
    sends elsewhere, and strict filtering (ip-sysctl.rst, rp_filter) would drop every one of them."""

    link: str

    @property
    def key(self) -> Key:
        return ("rp_filter", self.link)

    def __str__(self) -> str:
        return f"sysctl net.ipv4.conf.{self.link}.rp_filter=2"


@dataclass(frozen=True)
class OuterMark:
    """The fwmark that an adopted link puts on its outer packets; a link of ours has it in its Device."""

    link: str
    mark: int

    @property
    def key(self) -> Key:
        return ("outer mark", self.link)

    def __str__(self) -> str:
        return f"wg set {self.link} fwmark {self.mark:#x}"


@dataclass(frozen=True)
class Rule:
    """A policy routing rule: packets whose mark matches look in `table`. family is 4 or 6."""

    family: int
    priority: int
    mark: int
    mask: int
    table: int

    @property
    def key(self) -> Key:
        return ("rule", self)

    def __str__(self) -> str:
        mark = f"{self.mark:#x}/{self.mask:#x}"
        return f"ip -{self.family} rule priority {self.priority} fwmark {mark} lookup {self.table}"


@dataclass(frozen=True)
class Route:
    """A default route: into a link, or into a blackhole where link is None. family is 4 or 6."""

    family: int
    table: int
    link: str | None
    metric: int

    @property
    def key(self) -> Key:
        return ("route", self)

    def __str__(self) -> str:
        where = f"default dev {self.link}" if self.link else "blackhole default"
        return f"ip -{self.family} route {where} table {self.table} metric {self.metric}"


@dataclass(frozen=True)
class Set:
    """An nft set. `members` is for the static ones (configured networks); learned elements are not in a plan."""

    name: str
    type: str
    flags: frozenset[str]
    size: int | None = None
    members: frozenset[Network] = frozenset()

    @property
    def shape(self) -> Key:
        """What the kernel cannot change in place: a set of another shape has to be made anew."""
        return (self.type, self.flags, self.size)


@dataclass(frozen=True)
class FilterRule:
    """One nft rule: its text, and the comment by which it is known again (see ruleset). Of a rule that was found:
    no text, and how many packets it has counted since it was written."""

    text: str = field(compare=False)
    comment: str
    packets: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Chain:
    """An nft base chain with its rules, in order."""

    name: str
    type: str
    hook: str
    priority: int
    rules: tuple[FilterRule, ...]
    policy: str = "accept"

    @property
    def shape(self) -> Key:
        return (self.type, self.hook, self.priority, self.policy)


@dataclass(frozen=True)
class Table:
    """An nft table of ours. flags: `owner` and `persist` where the kernel knows them; `dormant` is somebody else's
    doing, like strays (kind and name of maps, counters and so on): a wanted table has none. family: nft's word."""

    name: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]
    flags: frozenset[str] = frozenset()
    strays: frozenset[tuple[str, str]] = frozenset()
    family: str = "inet"

    @property
    def key(self) -> Key:
        return ("table", self.family, self.name)

    def __str__(self) -> str:
        rules = sum(len(chain.rules) for chain in self.chains)
        flags = f" (flags {', '.join(sorted(self.flags))})" if self.flags else ""
        held = f"{len(self.sets)} sets, {len(self.chains)} chains, {rules} rules"
        return f"nft table {self.family} {self.name}{flags}: {held}"


Object = Table | Rule | Route | Link | LooseReversePath | OuterMark | Device


class Element(NamedTuple):
    """An address in a set, in network order: the name that put it there, and for how many seconds it stays."""

    set: str
    address: bytes
    name: str
    seconds: float


@dataclass(frozen=True)
class Downlink:
    """A link by which we forward for others, and an address there, at which their questions may be answered."""

    name: str
    index: int
    address: Ip


@dataclass(frozen=True)
class Surroundings:
    """Where this machine is. addresses: its own and its gateways', in network order. links: (index, name, up).
    defaults: of each default route the link's index, and the metric. downlinks: see there."""

    addresses: frozenset[bytes] = frozenset()
    links: frozenset[tuple[int, str, bool]] = frozenset()
    defaults: frozenset[tuple[int, int]] = frozenset()
    downlinks: frozenset[Downlink] = frozenset()


@dataclass(frozen=True)
class PeerState:
    """How a peer is doing. handshake: seconds since the epoch, 0 for never; bytes received and sent."""

    public_key: bytes
    endpoint: Endpoint | None
    handshake: int
    received: int
    sent: int
