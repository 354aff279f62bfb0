"""The nft table: which chains and rules it has and why, and its way to and from nft's languages.

Written as nft's own text, because people read it, and read as nft's JSON. A rule is known again by its
comment, which ends with a digest of the text that made it: nft prints rules otherwise than it reads them,
and differently in each version. Sets of learned addresses keep their elements over every rewrite.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import collapse_addresses, ip_address, ip_network, summarize_address_range
from typing import Any

from splitwgd.config import Config, Tunnel
from splitwgd.objects import Chain, Element, FilterRule, Interface, Ip, Network, Set, Table

TABLE = "wg_routing"
SET_SIZE = 65_536
# Hook priorities by number, as the kernel reports them (include/uapi/linux/netfilter_ipv4.h).
MANGLE, DSTNAT_OUTPUT, FILTER, SRCNAT = -150, -100, 0, 100
_FAMILY = {4: "ip", 6: "ip6"}


def domain_set(prefix: str, family: int) -> str:
    """The name of a tunnel's set of learned addresses."""
    return f"{prefix}_domains{family}"


def make_table(config: Config, foreign_marks: Iterable[int] = (), down: frozenset[str] = frozenset()) -> Table:
    """The wanted table. foreign_marks: what adopted links put on their outer packets. down: links without
    which we are on purpose; what is meant for them is refused at once, since a blackhole lets TCP hang."""
    bits = _Bits(config.routing.fwmask, config.routing.direct)
    chains = (
        Chain("output", "route", "output", MANGLE, _output(config, bits, foreign_marks, down)),
        Chain("prerouting", "filter", "prerouting", MANGLE, _prerouting(config, bits)),
        Chain("output_nat", "nat", "output", DSTNAT_OUTPUT, _output_nat(config, bits)),
        Chain("refuse", "filter", "output", FILTER, _refuse(config, bits)),
        Chain("last_door", "filter", "postrouting", MANGLE, _last_door(config, bits)),
        Chain("postrouting", "nat", "postrouting", SRCNAT, _postrouting(config, bits)),
    )
    return Table(TABLE, tuple(sorted(_sets(config), key=_by_name)), tuple(sorted(chains, key=_by_name)))


def _by_name(part: Set | Chain) -> str:
    return part.name  # the kernel lists in the order of creation, which is no part of what is wanted


@dataclass(frozen=True)
class _Bits:
    """Matches and writes of marks that leave all other bits as they are."""

    mask: int
    direct: int

    def has(self, mark: int, what: str = "meta") -> str:
        return f"{what} mark & {self.mask:#x} == {mark:#x}"

    def lacks(self, mark: int) -> str:
        return f"meta mark & {self.mask:#x} != {mark:#x}"

    def put(self, mark: int, what: str = "meta") -> str:
        return f"{what} mark set {what} mark & {~self.mask & 0xFFFFFFFF:#x} | {mark:#x}"

    def put_both(self, mark: int) -> str:
        # The packet first: where conntrack has no entry (untracked), the ct statement ends the rule.
        return f"{self.put(mark)} {self.put(mark, 'ct')}"


def _sets(config: Config) -> Iterable[Set]:
    for tunnel in config.tunnels:
        for family, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            # A hash, not `interval`: inserts into an interval set grow with its size.
            yield Set(domain_set(tunnel.sets, family), kind, frozenset({"timeout"}), SET_SIZE)
            members = collapse_addresses([net for net in tunnel.networks if net.version == family])  # type: ignore[type-var]
            yield Set(f"{tunnel.sets}_networks{family}", kind, frozenset({"interval"}), members=frozenset(members))


def _members(tunnel: Tunnel) -> Iterable[str]:
    """A match for each of the tunnel's sets."""
    for kind in ("domains", "networks"):
        for family, protocol in _FAMILY.items():
            yield f"{protocol} daddr @{tunnel.sets}_{kind}{family}"


def _to_tunnel(tunnel: Tunnel, bits: _Bits) -> Iterable[FilterRule]:
    for match in _members(tunnel):
        yield _rule(f"{match} {bits.put_both(tunnel.mark)} counter", "into the tunnel")


def _output(config: Config, bits: _Bits, foreign_marks: Iterable[int], down: frozenset[str]) -> tuple[FilterRule, ...]:
    rules = [_rule(f"{bits.has(bits.direct)} return", "ours, direct: default questions, WireGuard's own packets")]
    rules += [_rule(f"meta mark {mark:#x} return", "outer packets of an adopted link") for mark in foreign_marks]
    rules += [_rule(f"{bits.has(t.mark)} return", "ours, tunneled questions") for t in config.tunnels]
    rules.append(_rule('oifname "lo" return', "to this machine itself"))
    for tunnel in config.tunnels:
        known = bits.has(tunnel.mark, "ct")
        if tunnel.link in down:
            rules += _refused(known)
        rules.append(_rule(f"{known} {bits.put(tunnel.mark)} return", "a tunneled flow stays in the tunnel"))
    rules.append(_rule("ct direction reply return", "an answer to somebody who came in from outside"))
    if config.redirect:
        rules += [
            _rule(f"{exempt}meta l4proto {{ tcp, udp }} th dport 53 return", "output_nat leads it to the forwarder")
            for exempt in _not_bypassed(config)
        ]
    # Not only `ct state new`: a packet that conntrack calls invalid, or that belongs to a flow from before
    # its address was learned, would leave in clear.
    for tunnel in config.tunnels:
        if tunnel.link in down:
            for match in _members(tunnel):
                rules += _refused(match)
        rules += _to_tunnel(tunnel, bits)
    return tuple(rules)


def _refused(match: str) -> Iterable[FilterRule]:
    """Before any mark: the refusal itself goes over lo, which returned above."""
    yield _rule(f"{match} meta l4proto tcp counter reject with tcp reset", "the tunnel is down")
    yield _rule(f"{match} counter reject with icmpx admin-prohibited", "the tunnel is down")


def _prerouting(config: Config, bits: _Bits) -> tuple[FilterRule, ...]:
    rules: list[FilterRule] = []
    for tunnel in config.tunnels:
        for family, protocol in _FAMILY.items():
            own = _braces(a.ip for a in tunnel.wireguard.addresses if a.version == family)
            if own:
                match = f'iifname != {{ "{tunnel.link}", "lo" }} {protocol} daddr {own} fib saddr type != local'
                rules.append(_rule(f"{match} counter drop", "not the LAN's to ask for (CVE-2019-14899)"))
        newcomer = f'iifname "{tunnel.link}" ct state new {bits.put(tunnel.mark, "ct")}'
        rules.append(_rule(newcomer, "who comes in by the tunnel is answered by the tunnel"))
        rules.append(_rule(f'iifname "{tunnel.link}" return', "from the tunnel"))
    rules.append(_rule("fib daddr type local return", "to this machine itself"))
    rules += [
        _rule(f"{bits.has(t.mark, 'ct')} {bits.put(t.mark)} return", "a tunneled flow stays in the tunnel")
        for t in config.tunnels
    ]
    rules.append(_rule("ct direction reply return", "an answer to somebody who came in from outside"))
    for tunnel in config.tunnels:
        rules += _to_tunnel(tunnel, bits)
    return tuple(rules)


def _output_nat(config: Config, bits: _Bits) -> tuple[FilterRule, ...]:
    if not config.redirect:
        return ()
    ours = _braces([bits.direct, *(t.mark for t in config.tunnels)])
    rules = [
        _rule(f"meta mark & {bits.mask:#x} {ours} return", "the forwarder's own questions"),
        _rule("fib daddr type local return", "a server on this machine, which asks through us"),
        _rule("ip6 daddr fe80::/10 return", "no way back for the answer: refused, see that chain"),
    ]
    rules += [
        _rule(f"{exempt}meta l4proto {{ tcp, udp }} th dport 53 counter redirect to :53", "every question is ours")
        for exempt in _not_bypassed(config)
    ]
    return tuple(rules)


def _refuse(config: Config, bits: _Bits) -> tuple[FilterRule, ...]:
    rules: list[FilterRule] = []
    if config.redirect:
        # A redirected answer cannot find its way back to a link-local address, so it is refused at once.
        match = "ip6 daddr fe80::/10 meta l4proto { tcp, udp } th dport 53 counter"
        rules.append(_rule(f"{match} reject with icmpx admin-prohibited", "a link-local DNS server"))
    for tunnel in config.tunnels:
        # plan's route of last resort makes v6 packets reach the output hook where there is no v6 default
        # route; those that are not tunneled must fail as they would have failed without it.
        if tunnel.wireguard.carries(6):
            inside = _braces(_inside(tunnel, 6))
            match = f'{bits.lacks(tunnel.mark)} oifname "{tunnel.link}" ip6 daddr != {inside}'
            rules.append(_rule(f"{match} counter reject with icmpv6 no-route", "no v6 default route, and not tunneled"))
    return tuple(rules)


def _last_door(config: Config, bits: _Bits) -> tuple[FilterRule, ...]:
    rules = []
    for tunnel in config.tunnels:
        match = f'{bits.has(tunnel.mark)} oifname != {{ "{tunnel.link}", "lo" }}'
        rules.append(_rule(f"{match} counter drop", "nothing tunneled leaves by another link"))
        syn = f'oifname "{tunnel.link}" tcp flags & (syn | rst) == syn'
        rules.append(_rule(f"{syn} tcp option maxseg size set rt mtu", "the MSS was chosen for the uplink"))
    return tuple(rules)


def _postrouting(config: Config, bits: _Bits) -> tuple[FilterRule, ...]:
    return tuple(
        _rule(f'{bits.has(t.mark)} oifname "{t.link}" masquerade', "the source was chosen for the uplink")
        for t in config.tunnels
    )


def _not_bypassed(config: Config) -> Iterable[str]:
    """One match a family: all but the servers of dns.bypass."""
    for family, protocol in _FAMILY.items():
        servers = _braces(server for server in config.bypass if server.version == family)
        yield f"{protocol} daddr != {servers} " if servers else f"meta nfproto ipv{family} "


def _inside(tunnel: Tunnel, family: int) -> Iterable[Network]:
    """What reaches the tunnel without a mark, rightly: its own subnets, and AllowedIPs but for the default."""
    networks = [a.network for a in tunnel.wireguard.addresses if a.version == family]
    for peer in tunnel.wireguard.peers:
        networks += [n for n in peer.allowed if n.version == family and n.prefixlen > 1]
    return collapse_addresses(networks)  # type: ignore[type-var]


def _braces(members: Iterable[Ip | Network | Interface | int]) -> str:
    texts = [hex(member) if isinstance(member, int) else str(member) for member in members]
    return f"{{ {', '.join(texts)} }}" if texts else ""


def _rule(text: str, why: str) -> FilterRule:
    return FilterRule(text, f"{why} [{hashlib.sha256(text.encode()).hexdigest()[:8]}]")


# -- to nft


def table_text(table: Table, found: Table | None, elements: Iterable[Element] = ()) -> str:
    """One transaction that makes the table so, whatever `found` is; learned elements of kept sets stay.

    elements: what to put into learned sets that are new, or that change their shape.
    """
    name = f"inet {table.name}"
    lines = [f"add table {name}", f"flush table {name}"]
    wanted_chains = {chain.name: chain for chain in table.chains}
    wanted_sets = {set_.name: set_ for set_ in table.sets}
    for chain in found.chains if found else ():
        kept = wanted_chains.get(chain.name)
        if kept is None or kept.shape != chain.shape:
            lines.append(f"delete chain {name} {chain.name}")
    found_sets = {set_.name: set_ for set_ in found.sets} if found else {}
    for set_ in found_sets.values():
        keep = wanted_sets.get(set_.name)
        if keep is None or keep.shape != set_.shape:
            lines.append(f"delete set {name} {set_.name}")
    for set_ in table.sets:
        lines += _set_lines(name, set_)
    for chain in table.chains:
        head = f"type {chain.type} hook {chain.hook} priority {chain.priority}; policy accept;"
        lines.append(f"add chain {name} {chain.name} {{ {head} }}")
        lines += [f'add rule {name} {chain.name} {rule.text} comment "{rule.comment}"' for rule in chain.rules]
    kept_sets = {n for n, s in wanted_sets.items() if n in found_sets and found_sets[n].shape == s.shape}
    lines += _element_lines([element for element in elements if element.set not in kept_sets], renew=False)
    return "\n".join(lines)


def _set_lines(table: str, set_: Set) -> Iterable[str]:
    flags = ", ".join(sorted(set_.flags))
    size = f" size {set_.size};" if set_.size else ""
    yield f"add set {table} {set_.name} {{ type {set_.type}; flags {flags};{size} }}"
    if "interval" in set_.flags:
        yield f"flush set {table} {set_.name}"
        if set_.members:
            yield f"add element {table} {set_.name} {_braces(sorted(set_.members, key=str))}"


def insert_text(elements: Sequence[Element]) -> str:
    """One transaction that puts these into their sets, or renews them, with exactly these lives.

    Renewed by add, delete, add: the only way that works on every kernel (in place only from Linux 6.12), that
    replaces the comment too, and in which no packet misses the element.
    """
    return "\n".join(_element_lines(elements, renew=True))


def delete_text(elements: Iterable[tuple[str, Ip]]) -> str:
    """One transaction that takes these out. The first add makes the delete of an absent one no error."""
    lines = []
    for set_, address in elements:
        lines.append(f"add element inet {TABLE} {set_} {{ {address} timeout 60s }}")
        lines.append(f"delete element inet {TABLE} {set_} {{ {address} }}")
    return "\n".join(lines)


def _element_lines(elements: Sequence[Element], renew: bool) -> list[str]:
    lines = []
    by_set: dict[str, list[Element]] = {}
    for element in elements:
        by_set.setdefault(element.set, []).append(element)
    for set_, members in by_set.items():
        head = f"inet {TABLE} {set_}"
        full = ", ".join(
            f'{e.address} timeout {int(e.seconds)}s expires {int(e.seconds)}s comment "{e.name[:100]}"' for e in members
        )
        lines.append(f"add element {head} {{ {full} }}")
        if renew:
            bare = ", ".join(str(element.address) for element in members)
            lines.append(f"delete element {head} {{ {bare} }}")
            lines.append(f"add element {head} {{ {full} }}")
    return lines


# -- from nft


def read_table(listing: dict[str, Any]) -> tuple[Table | None, list[Element]]:
    """The table in `nft -j list table`'s answer, and the learned elements in it."""
    name = None
    sets: list[Set] = []
    elements: list[Element] = []
    shapes: dict[str, tuple[str, str, int]] = {}
    rules: dict[str, list[FilterRule]] = {}
    for item in listing.get("nftables", ()):
        if "table" in item:
            name = item["table"]["name"]
        elif "set" in item:
            found = item["set"]
            learned = [_element(found["name"], elem) for elem in found.get("elem", ())]
            elements += [element for element in learned if element is not None]
            sets.append(_set(found))
        elif "chain" in item:
            chain = item["chain"]
            shapes[chain["name"]] = (chain.get("type", ""), chain.get("hook", ""), chain.get("prio", 0))
            rules.setdefault(chain["name"], [])
        elif "rule" in item:
            rule = item["rule"]
            rules.setdefault(rule["chain"], []).append(FilterRule("", rule.get("comment", "")))
    if name is None:
        return None, []
    chains = tuple(Chain(chain, *shape, tuple(rules[chain])) for chain, shape in shapes.items())
    return Table(name, tuple(sorted(sets, key=_by_name)), tuple(sorted(chains, key=_by_name))), elements


def _set(found: dict[str, Any]) -> Set:
    flags = frozenset(found.get("flags", ()))
    networks: set[Network] = set()
    if "interval" in flags:
        for elem in found.get("elem", ()):
            networks.update(_member(elem))
    return Set(found["name"], str(found["type"]), flags, found.get("size"), frozenset(networks))


def _member(elem: Any) -> Iterable[Network]:
    if isinstance(elem, str):
        return [ip_network(elem)]
    if "prefix" in elem:
        return [ip_network(f"{elem['prefix']['addr']}/{elem['prefix']['len']}")]
    if "range" in elem:
        low, high = (ip_address(end) for end in elem["range"])
        return summarize_address_range(low, high)
    return []


def _element(set_: str, elem: Any) -> Element | None:
    body = elem.get("elem") if isinstance(elem, dict) else None
    if not isinstance(body, dict) or "expires" not in body:
        return None
    return Element(set_, ip_address(body["val"]), body.get("comment", ""), float(body["expires"]))
