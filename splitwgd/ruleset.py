"""The nft table: which sets, chains and rules it has, and why. How it gets into the kernel is `transaction`'s."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from splitwgd.bypasses import known_resolvers
from splitwgd.config import Config, Tunnel
from splitwgd.objects import Chain, FilterRule, Interface, Ip, Network, Set, Table, collapsed

TABLE = "wg_routing"
SET_SIZE = 131_072
# Hook priorities by number, as the kernel reports them (include/uapi/linux/netfilter_ipv4.h).
MANGLE, DSTNAT_OUTPUT, FILTER, SRCNAT = -150, -100, 0, 100
_FAMILY = {4: "ip", 6: "ip6"}
_DNS, _HTTPS, _TLS = 53, 443, 853  # RFC 1035; RFC 8484, RFC 9114; RFC 7858, RFC 9250
_FLOWS = "meta l4proto { tcp, udp } th dport"


# Why a question came here or was refused, by what status calls their number; the rules' comments begin so. The last is
# no question: it is what somebody did with an answer that was not ours.
COUNTED = {
    "redirected": "every question is ours",
    "refused_plain": "a question that would get past us",
    "refused_tls": "a question over TLS or QUIC that would get past us",
    "refused_https": "a resolver over HTTPS that is asked instead of us",
    "found_open": "a flow from before its address was known",
}


def domain_set(prefix: str, family: int) -> str:
    """The name of a tunnel's set of learned addresses."""
    return f"{prefix}_domains{family}"


def make_table(config: Config, foreign_marks: Iterable[int] = (), down: frozenset[str] = frozenset()) -> Table:
    """The wanted table. foreign_marks: what adopted links put on their outer packets. down: links without
    which we are; what is meant for them is refused at once, since a blackhole lets TCP hang."""
    bits = _Bits(config.routing.fwmask, config.routing.direct, config.routing.ended)
    chains = (
        Chain("output", "route", "output", MANGLE, _output(config, bits, foreign_marks, down)),
        Chain("prerouting", "filter", "prerouting", MANGLE, _prerouting(config, bits)),
        Chain("output_nat", "nat", "output", DSTNAT_OUTPUT, _output_nat(config, bits)),
        Chain("refuse", "filter", "output", FILTER, _refuse(config, bits)),
        Chain("refuse_forwarded", "filter", "forward", FILTER, _refuse_forwarded(config, bits)),
        Chain("last_door", "filter", "postrouting", MANGLE, _last_door(config, bits)),
        Chain("postrouting", "nat", "postrouting", SRCNAT, _postrouting(config, bits)),
    )
    return Table(TABLE, tuple(sorted(_sets(config), key=by_name)), tuple(sorted(chains, key=by_name)))


def by_name(part: Set | Chain) -> str:
    """The order of sets and chains in a table; the kernel's is that of their creation, which nobody wants."""
    return part.name


def reason(rule: FilterRule) -> str:
    """Why a rule is there, by its comment; of somebody else's rule that is anything."""
    return rule.comment.rpartition(" [")[0]


@dataclass(frozen=True)
class _Bits:
    """Matches and writes of marks that leave all other bits as they are."""

    mask: int
    direct: int
    ended: int

    def has(self, mark: int, what: str = "meta") -> str:
        return f"{what} mark & {self.mask:#x} == {mark:#x}"

    def lacks(self, mark: int, what: str = "meta") -> str:
        return f"{what} mark & {self.mask:#x} != {mark:#x}"

    def put(self, mark: int, what: str = "meta") -> str:
        return f"{what} mark set {what} mark & {~self.mask & 0xFFFFFFFF:#x} | {mark:#x}"


def _sets(config: Config) -> Iterable[Set]:
    for tunnel in config.tunnels:
        for family, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            # A hash, not `interval`: inserts into an interval set grow with its size.
            yield Set(domain_set(tunnel.sets, family), kind, frozenset({"timeout"}), SET_SIZE)
            members = collapsed(net for net in tunnel.networks if net.version == family)
            yield Set(f"{tunnel.sets}_networks{family}", kind, frozenset({"interval"}), members=members)


def _members(tunnel: Tunnel) -> Iterable[tuple[int, str]]:
    """A match for each of the tunnel's sets, with its family."""
    for kind in ("domains", "networks"):
        for family, protocol in _FAMILY.items():
            yield family, f"{protocol} daddr @{tunnel.sets}_{kind}{family}"


def _to_tunnel(tunnel: Tunnel, bits: _Bits, of_before: Iterable[FilterRule]) -> Iterable[FilterRule]:
    """of_before: what to do with flows whose way was decided before their address was known."""
    for _, match in _members(tunnel):
        yield _rule(f"{match} {bits.put(tunnel.mark)} counter", "into the tunnel")
    yield from of_before
    yield _rule(f"{bits.has(tunnel.mark)} {bits.put(tunnel.mark, 'ct')}", "and so all of its flow")


def _ended(bits: _Bits) -> Iterable[FilterRule]:
    # Its answers are let pass: who gets one speaks again, and hears of it. The refusal itself is one, too.
    return _refused(f"{bits.has(bits.ended, 'ct')} ct direction original", "a flow whose way has changed")


def _of_before(tunnel: Tunnel, bits: _Bits) -> str:
    """A packet for the tunnel whose flow began in clear: NAT was decided then, so that no answer would come back."""
    return f"{bits.has(tunnel.mark)} ct status confirmed {bits.lacks(tunnel.mark, 'ct')}"


def _end_of_before(tunnel: Tunnel, bits: _Bits) -> Iterable[FilterRule]:
    """Each is counted once."""
    match = _of_before(tunnel, bits)
    first = f"{match} {bits.lacks(bits.ended, 'ct')}"
    yield _rule(f"{first} counter {bits.put(bits.ended, 'ct')}", COUNTED["found_open"])
    yield from _refused(match, "NAT was decided for the uplink")


def _output(config: Config, bits: _Bits, foreign_marks: Iterable[int], down: frozenset[str]) -> tuple[FilterRule, ...]:
    rules = [_TO_ITSELF]
    rules.append(_rule(f"{bits.has(bits.direct)} return", "ours, direct: default questions, WireGuard's own packets"))
    rules += [_rule(f"meta mark {mark:#x} return", "outer packets of an adopted link") for mark in foreign_marks]
    rules += [_rule(f"{bits.has(t.mark)} return", "ours, tunneled questions") for t in config.tunnels]
    for tunnel in config.tunnels:
        known = bits.has(tunnel.mark, "ct")
        if tunnel.link in down:
            rules += _refused(known, "the tunnel is down")
        rules.append(_rule(f"{known} {bits.put(tunnel.mark)} return", "a tunneled flow stays in the tunnel"))
    rules += _ended(bits)
    came_in = f"ct direction reply {bits.has(bits.direct, 'ct')} return"
    rules.append(_rule(came_in, "an answer to somebody who came in from outside"))
    rules += _not_led(config)
    # Not only `ct state new`: a packet that conntrack calls invalid, or that belongs to a flow from before
    # its address was learned, would leave in clear.
    for tunnel in config.tunnels:
        for family, match in _members(tunnel):
            if tunnel.link in down:
                rules += _refused(match, "the tunnel is down")
            elif not tunnel.wireguard.carries(family):
                rules += _refused(match, f"the tunnel carries no IPv{family}")
        rules += _to_tunnel(tunnel, bits, _end_of_before(tunnel, bits))
    return tuple(rules)


def _refused(match: str, why: str) -> Iterable[FilterRule]:
    """At once: TCP heeds a reset, but not always an ICMP error about its first packet.

    The refusal itself goes over lo and must not be matched.
    """
    yield _rule(f"{match} meta l4proto tcp counter reject with tcp reset", why)
    yield _rule(f"{match} counter reject with icmpx admin-prohibited", why)


def _not_led(config: Config) -> Iterable[FilterRule]:
    """Questions are not led into a tunnel: unmarked, they can be told from ours, and what refuses them finds back."""
    ports = [port for port, wanted in ((_DNS, config.redirect), (_TLS, config.refuse_tls)) if wanted]
    for exempt in _not_bypassed(config) if ports else ():
        yield _rule(f"{exempt}{_FLOWS} {_numbers(ports)} return", "a question: led to the forwarder, or refused")


def _prerouting(config: Config, bits: _Bits) -> tuple[FilterRule, ...]:
    rules = [_rule('iifname "lo" return', "from this machine to itself")]
    for tunnel in config.tunnels:
        for family, protocol in _FAMILY.items():
            own = braces(a.ip for a in tunnel.wireguard.addresses if a.version == family)
            if own:
                match = f'iifname != "{tunnel.link}" {protocol} daddr {own} fib saddr type != local'
                rules.append(_rule(f"{match} counter drop", "not the LAN's to ask for (CVE-2019-14899)"))
        newcomer = f'iifname "{tunnel.link}" ct state new {bits.put(tunnel.mark, "ct")}'
        rules.append(_rule(newcomer, "who comes in by the tunnel is answered by the tunnel"))
        rules.append(_rule(f'iifname "{tunnel.link}" return', "from the tunnel"))
    # Of a flow from before its time conntrack takes the first packet that it sees for the beginning, and that may be
    # an answer to us.
    local = "fib daddr type local"
    rules.append(_rule(f"ct state != new {local} return", "to this machine itself"))
    rules.append(_rule(f"tcp flags & (syn | ack) != syn {local} return", "met in its middle: who knows who began it"))
    rules.append(_rule(f"{local} {bits.put(bits.direct, 'ct')} return", "who came in from outside is answered there"))
    rules += [
        _rule(f"{bits.has(t.mark, 'ct')} {bits.put(t.mark)} return", "a tunneled flow stays in the tunnel")
        for t in config.tunnels
    ]
    rules.append(_rule("ct direction reply return", "an answer to somebody who came in from outside"))
    rules += _not_led(config)
    for tunnel in config.tunnels:
        of_before = _rule(f"{_of_before(tunnel, bits)} return", "a flow of before: refused at forward")
        rules += _to_tunnel(tunnel, bits, [of_before])
    return tuple(rules)


def _output_nat(config: Config, bits: _Bits) -> tuple[FilterRule, ...]:
    if not config.redirect:
        return ()
    ours = braces([bits.direct, *(t.mark for t in config.tunnels)])
    rules = [
        _rule(f"meta mark & {bits.mask:#x} {ours} return", "the forwarder's own questions"),
        _rule("fib daddr type local return", "a server on this machine, which asks through us"),
        _rule("ip6 daddr fe80::/10 return", "no way back for the answer: refused, see that chain"),
    ]
    rules += [
        _rule(f"{exempt}{_FLOWS} {_DNS} counter redirect to :53", COUNTED["redirected"])
        for exempt in _not_bypassed(config)
    ]
    return tuple(rules)


def _refuse(config: Config, bits: _Bits) -> tuple[FilterRule, ...]:
    rules = [_TO_ITSELF]
    for tunnel in config.tunnels:
        # plan's route of last resort makes v6 packets reach the output hook where there is no v6 default
        # route; those that are not tunneled must fail as they would have failed without it.
        if tunnel.wireguard.carries(6):
            inside = braces(_inside(tunnel, 6))
            match = f'{bits.lacks(tunnel.mark)} oifname "{tunnel.link}" ip6 daddr != {inside}'
            rules += _refused(match, "no v6 default route, and not tunneled")
    # What output_nat did not lead here: NAT is for a flow's first packet, so flows from before the redirect
    # and packets that conntrack calls invalid pass it by; link-local servers, see there; and what is encrypted.
    ours = braces([bits.direct, *(t.mark for t in config.tunnels)])
    passes = (
        _rule(f"meta mark & {bits.mask:#x} {ours} return", "the forwarder's own questions; a tunneled resolver"),
        _rule("fib daddr type local return", "led to the forwarder, or meant for a server on this machine"),
    )
    return (*rules, *_no_way_past(config, passes))


def _refuse_forwarded(config: Config, bits: _Bits) -> tuple[FilterRule, ...]:
    """Nobody whose packets we forward is led to the forwarder, which need not listen where they are."""
    tunneled = braces(t.mark for t in config.tunnels)
    passes = (
        _rule("ct status dnat return", "somebody leads it to a server on purpose, as container engines do"),
        _rule(f"th dport {_HTTPS} meta mark & {bits.mask:#x} {tunneled} return", "a resolver that is tunneled"),
    )
    rules = [rule for tunnel in config.tunnels for rule in _end_of_before(tunnel, bits)]
    return (*_ended(bits), *rules, *_no_way_past(config, passes))


def _no_way_past(config: Config, passes: Iterable[FilterRule]) -> Iterable[FilterRule]:
    """Refuses other ways to ask, but for what `passes` lets return. All packets come here, few are questions."""
    asked = {"refused_https": _HTTPS, "refused_tls": _TLS, "refused_plain": _DNS}
    wanted = (config.refuse_doh, config.refuse_tls, config.redirect)
    ports = {why: port for (why, port), refused in zip(asked.items(), wanted, strict=True) if refused}
    if not ports:
        return
    yield _rule(f"{_FLOWS} != {_numbers(ports.values())} return", "no question")
    yield _rule("meta l4proto != { tcp, udp } return", "no ports to look at")
    if config.refuse_doh:
        for family, protocol in _FAMILY.items():
            known = braces(known_resolvers(family, _spared(config)))
            other = f"{protocol} daddr != {known}" if known else f"meta nfproto ipv{family}"
            yield _rule(f"th dport {_HTTPS} {other} return", "a web site")
    yield from passes
    for family, protocol in _FAMILY.items():
        servers = braces(server for server in config.bypass if server.version == family)
        if servers:
            yield _rule(f"{protocol} daddr {servers} return", "dns.bypass")
    for why, port in ports.items():
        yield from _refused(f"th dport {port}", COUNTED[why])


def _spared(config: Config) -> frozenset[Ip]:
    """Resolvers that the configuration itself names."""
    groups = (config.default, *(t.servers for t in config.tunnels), *(servers for _, servers in config.forward))
    return frozenset(config.bypass).union(server.address for servers in groups for server in servers)


def _last_door(config: Config, bits: _Bits) -> tuple[FilterRule, ...]:
    rules = [_TO_ITSELF]
    for tunnel in config.tunnels:
        match = f'{bits.has(tunnel.mark)} oifname != "{tunnel.link}"'
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
    """All but the servers of dns.bypass: one match a family, or none for both."""
    if not config.bypass:
        yield ""
        return
    for family, protocol in _FAMILY.items():
        servers = braces(server for server in config.bypass if server.version == family)
        yield f"{protocol} daddr != {servers} " if servers else f"meta nfproto ipv{family} "


def _inside(tunnel: Tunnel, family: int) -> Iterable[Network]:
    """What reaches the tunnel without a mark, rightly: its own subnets, and AllowedIPs but for the default."""
    networks = [a.network for a in tunnel.wireguard.addresses if a.version == family]
    for peer in tunnel.wireguard.peers:
        networks += [n for n in peer.allowed if n.version == family and n.prefixlen > 1]
    return sorted(collapsed(networks), key=str)


def braces(members: Iterable[Ip | Network | Interface | int]) -> str:
    """An anonymous set in nft's text; empty for no members."""
    texts = [hex(member) if isinstance(member, int) else str(member) for member in members]
    return f"{{ {', '.join(texts)} }}" if texts else ""


def _numbers(ports: Iterable[int]) -> str:
    return f"{{ {', '.join(map(str, sorted(ports)))} }}"


def _rule(text: str, why: str) -> FilterRule:
    return FilterRule(text, f"{why} [{hashlib.sha256(text.encode()).hexdigest()[:8]}]")


_TO_ITSELF = _rule('oifname "lo" return', "to this machine itself")  # first, since it is most of a resolver's packets
