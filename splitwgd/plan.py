"""The whole wanted kernel state as one value: comparable, printable, and empty for teardown.

The rules against leaks that it keeps:

1. A mark decides, not an address: what is tunneled bears the tunnel's mark from the first packet on.
2. The marked have one table, and that table holds a blackhole under its route into the tunnel.
3. What bears the mark and would leave by another link after all is dropped at the last door (ruleset).
4. Our own packets that must go outside bear the direct mark, and nothing else does.

Learned addresses are not in it: they are `learned`'s, and live in the sets that it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from splitwgd.config import Config, Tunnel
from splitwgd.objects import (
    MAIN_TABLE,
    Device,
    Downlink,
    Key,
    Link,
    LooseReversePath,
    Object,
    OuterMark,
    Route,
    Rule,
    Set,
    Table,
    collapsed,
)
from splitwgd.ruleset import make_arp_table, make_table

INTO_TUNNEL, BLACKHOLE = 100, 200  # metrics in the tunnel's table: the lower one is tried first
IPV6_MINIMUM = 1280  # RFC 8200 §5: the kernel takes IPv6 off a link with a smaller MTU
OWNED = frozenset({"owner", "persist"})  # never one without the other: the table would go with its owner
LAST_RESORT = 4294967295  # the greatest metric: any other default route comes before it


@dataclass(frozen=True)
class Plan:
    """Objects by key. What is found in the kernel has the same type, so that two of them can be compared."""

    objects: Mapping[Key, Object] = field(default_factory=dict)

    @classmethod
    def of(cls, objects: Iterable[Object]) -> Plan:
        return cls({obj.key: obj for obj in objects})

    @classmethod
    def empty(cls) -> Plan:
        """Nothing of ours anywhere: teardown is to make the kernel so."""
        return cls()

    def links(self) -> frozenset[str]:
        """Into which it routes."""
        return frozenset(obj.link for obj in self.objects.values() if isinstance(obj, Route) and obj.link is not None)

    def __or__(self, new: Plan) -> Plan:
        """Both at once; where they differ, `new`, but no set loses a member that either has."""
        joined = dict(self.objects)
        for key, obj in new.objects.items():
            old = joined.get(key)
            joined[key] = _join(old, obj) if isinstance(old, Table) and isinstance(obj, Table) else obj
        return Plan(joined)

    def __str__(self) -> str:
        return "\n".join(str(obj) for obj in self.objects.values())


def _join(old: Table, new: Table) -> Table:
    before = {set_.name: set_ for set_ in old.sets}
    sets = []
    for set_ in new.sets:
        earlier = before.get(set_.name)
        both = set_.members | earlier.members if earlier and earlier.shape == set_.shape else set_.members
        # An interval set takes no member within another one.
        sets.append(Set(set_.name, set_.type, set_.flags, set_.size, collapsed(both)))
    return replace(new, sets=tuple(sets))


@dataclass(frozen=True)
class Facts:
    """What the plan has to know of the machine.

    uplink_mtu: of the link by which the endpoint is reached, in bytes.
    families: 4, and 6 unless this machine does without IPv6; then no packet of it can leave either.
    strict: links on which replies would be filtered strictly.
    adopted: links that somebody else made, with the fwmark of their outer packets.
    down: links that the user took down.
    broken: links that cannot be used, with the reason.
    ownable: the kernel knows tables that only their owner changes, and that outlive it.
    shut: links that could not be opened when it was tried last, or have nobody to reach yet.
    downlinks: those on which questions of others are answered.
    filters_arp: the kernel's nf_tables know the arp family.
    """

    uplink_mtu: int = 1500
    families: tuple[int, ...] = (4, 6)
    strict: frozenset[str] = frozenset()
    adopted: Mapping[str, int] = field(default_factory=dict)
    down: frozenset[str] = frozenset()
    broken: Mapping[str, str] = field(default_factory=dict)
    ownable: bool = False
    shut: frozenset[str] = frozenset()
    downlinks: frozenset[Downlink] = frozenset()
    filters_arp: bool = True


def make_plan(config: Config, facts: Facts) -> Plan:
    """The state that this configuration wants on this machine."""
    direct = config.routing.direct
    foreign = sorted({mark for mark in facts.adopted.values() if mark not in (0, direct)})
    without = facts.down | facts.broken.keys()
    table = make_table(config, foreign, without | facts.shut, facts.downlinks)
    objects: list[Object] = [replace(table, flags=OWNED) if facts.ownable else table]
    if facts.filters_arp and (arp_table := make_arp_table(config)) is not None:
        objects.append(arp_table)
    for tunnel in config.tunnels:
        objects += _closed(config, tunnel, facts)
        if tunnel.link not in without:
            objects += _open(config, tunnel, facts)
    return Plan.of(objects)


def _closed(config: Config, tunnel: Tunnel, facts: Facts) -> Iterable[Object]:
    routing = config.routing
    for family in facts.families:
        yield Route(family, tunnel.table, None, BLACKHOLE)
        yield Rule(family, routing.priority, tunnel.mark, routing.fwmask, tunnel.table)


def _open(config: Config, tunnel: Tunnel, facts: Facts) -> Iterable[Object]:
    wireguard = tunnel.wireguard
    # 80 bytes: an IPv6 header, UDP and WireGuard's own (wg-quick(8) takes the same off).
    mtu = wireguard.mtu or max(facts.uplink_mtu - 80, IPV6_MINIMUM)
    families = [f for f in facts.families if f == 4 or mtu >= IPV6_MINIMUM]
    if tunnel.link in facts.adopted:
        if facts.adopted[tunnel.link] in (0, config.routing.direct):
            yield OuterMark(tunnel.link, config.routing.direct)
    else:
        addresses = (a for a in wireguard.addresses if a.version in families and not a.ip.is_link_local)
        yield Link(tunnel.link, mtu, frozenset(addresses))
        peers = frozenset(wireguard.peers)
        yield Device(tunnel.link, wireguard.private_key, wireguard.listen_port, config.routing.direct, peers)
    if tunnel.link in facts.strict:
        yield LooseReversePath(tunnel.link)
    for family in families:
        yield Route(family, tunnel.table, tunnel.link, INTO_TUNNEL)
    if wireguard.carries(6) and 6 in families:
        # Without any v6 default route the kernel refuses before our output chain could mark the packet.
        yield Route(6, MAIN_TABLE, tunnel.link, LAST_RESORT)
