"""The nft tables: which sets, chains and rules they have, and why. How they get into the kernel is `transaction`'s."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AnySet

from splitwgd.config import Config, Tunnel
from splitwgd.objects import Chain, Downlink, FilterRule, Network, Set, Table, collapsed
from splitwgd.questions import COUNTED, HTTPS, no_way_past, not_led, output_nat, prerouting_nat
from splitwgd.rules import FAMILY, TO_ITSELF, Bits, Rules, braces, refused, rule

TABLE = "wg_routing"
SET_SIZE = 131_072
# Hook priorities by number, as the kernel reports them (include/uapi/linux/netfilter_ipv4.h).
MANGLE, DSTNAT_OUTPUT, AFTER_DSTNAT, FILTER, SRCNAT = -150, -100, -90, 0, 100


def domain_set(prefix: str, family: int) -> str:
    """The name of a tunnel's set of learned addresses."""
    return f"{prefix}_domains{family}"


def make_table(
    config: Config,
    foreign_marks: Iterable[int] = (),
    down: frozenset[str] = frozenset(),
    downlinks: AnySet[Downlink] = frozenset(),
) -> Table:
    """The wanted table. foreign_marks: what adopted links put on their outer packets. down: links without
    which we are; what is meant for them is refused at once, since a blackhole lets TCP hang.
    downlinks: where the forwarder listens for others."""
    foreign = tuple(rule(f"meta mark {mark:#x} return", "outer packets of an adopted link") for mark in foreign_marks)
    bits = Bits(config.routing.fwmask, config.routing.direct, config.routing.ended)
    chains = (
        Chain("output", "route", "output", MANGLE, tuple(_output(config, bits, foreign, down, downlinks))),
        Chain("prerouting", "filter", "prerouting", MANGLE, _prerouting(config, bits)),
        Chain("output_nat", "nat", "output", DSTNAT_OUTPUT, output_nat(config, bits, foreign)),
        Chain("prerouting_nat", "nat", "prerouting", AFTER_DSTNAT, prerouting_nat(config, downlinks)),
        Chain("to_us", "filter", "prerouting", AFTER_DSTNAT, _to_us(config, bits)),
        Chain("refuse", "filter", "output", FILTER, _refuse(config, bits, foreign)),
        Chain("refuse_forwarded", "filter", "forward", FILTER, _refuse_forwarded(config, bits)),
        Chain("last_door", "filter", "postrouting", MANGLE, _last_door(config, bits)),
        Chain("postrouting", "nat", "postrouting", SRCNAT, _postrouting(config, bits)),
    )
    return Table(TABLE, tuple(sorted(_sets(config), key=by_name)), tuple(sorted(chains, key=by_name)))


def make_arp_table(config: Config) -> Table | None:
    """The table that keeps the tunnel's own addresses to the tunnel; None where there is none of IPv4.

    Linux answers for any address of the machine's on every link (ip-sysctl.rst, arp_ignore 0), so that whoever is on
    the uplink's wire learns which one the VPN gave us. For IPv6 it answers on the address's own link only.
    """
    own = sorted({a.ip for tunnel in config.tunnels for a in tunnel.wireguard.addresses if a.version == 4})
    asked = rule(f"arp operation request arp daddr ip {braces(own)} drop", "who asks for the tunnel's own address")
    return Table(TABLE, (), (Chain("input", "filter", "input", FILTER, (asked,)),), family="arp") if own else None


def by_name(part: Set | Chain) -> str:
    """The order of sets and chains in a table; the kernel's is that of their creation, which nobody wants."""
    return part.name


def _sets(config: Config) -> Iterable[Set]:
    for tunnel in config.tunnels:
        for family, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            # A hash, not `interval`: inserts into an interval set grow with its size.
            yield Set(domain_set(tunnel.sets, family), kind, frozenset({"timeout"}), SET_SIZE)
            members = collapsed(net for net in tunnel.networks if net.version == family)
            yield Set(f"{tunnel.sets}_networks{family}", kind, frozenset({"interval"}), members=members)


_LOOPBACK = ("ip daddr 127.0.0.0/8", "ip6 daddr ::1")


def _members(tunnel: Tunnel) -> Iterable[tuple[int, str]]:
    """A match for each of the tunnel's sets, with its family."""
    for kind in ("domains", "networks"):
        for family, protocol in FAMILY.items():
            yield family, f"{protocol} daddr @{tunnel.sets}_{kind}{family}"


def _to_tunnel(tunnel: Tunnel, bits: Bits, of_before: Iterable[FilterRule]) -> Iterable[FilterRule]:
    """of_before: what to do with flows whose way was decided before their address was known."""
    for _, match in _members(tunnel):
        yield rule(f"{match} {bits.put(tunnel.mark)} counter", "into the tunnel")
    yield from of_before
    yield rule(f"{bits.has(tunnel.mark)} {bits.put(tunnel.mark, 'ct')}", "and so all of its flow")


def _ended(bits: Bits) -> Iterable[FilterRule]:
    # Its answers are let pass: who gets one speaks again, and hears of it. The refusal itself is one, too.
    return refused(f"{bits.has(bits.ended, 'ct')} ct direction original", "a flow whose way has changed")


def _of_before(tunnel: Tunnel, bits: Bits) -> str:
    """A packet for the tunnel whose flow began in clear: NAT was decided then, so that no answer would come back."""
    return f"{bits.has(tunnel.mark)} ct status confirmed {bits.lacks(tunnel.mark, 'ct')}"


def _end_of_before(tunnel: Tunnel, bits: Bits) -> Iterable[FilterRule]:
    """Each is counted once."""
    match = _of_before(tunnel, bits)
    first = f"{match} {bits.lacks(bits.ended, 'ct')}"
    yield rule(f"{first} counter {bits.put(bits.ended, 'ct')}", COUNTED["found_open"])
    yield from refused(match, "NAT was decided for the uplink")


def _output(
    config: Config, bits: Bits, foreign: Rules, down: frozenset[str], downlinks: AnySet[Downlink]
) -> Iterable[FilterRule]:
    rules = [TO_ITSELF]
    rules.append(rule(f"{bits.has(bits.direct)} return", "ours, direct: default questions, WireGuard's own packets"))
    rules += foreign
    rules += [rule(f"{bits.has(t.mark)} return", "ours, tunneled questions") for t in config.tunnels]
    if names := sorted({downlink.name for downlink in downlinks}):
        links = ", ".join(f'"{name}"' for name in names)
        # An ICMP error is of the flow that it is about: "too big" has to reach the sender, not the tunnel.
        rules.append(rule(f"ct direction reply oifname {{ {links} }} return", "an answer to whom we forward for"))
    for tunnel in config.tunnels:
        known = bits.has(tunnel.mark, "ct")
        if tunnel.link in down:
            rules += refused(known, "the tunnel is down")
        rules.append(rule(f"{known} {bits.put(tunnel.mark)} return", "a tunneled flow stays in the tunnel"))
    rules += _ended(bits)
    came_in = f"ct direction reply {bits.has(bits.direct, 'ct')} return"
    rules.append(rule(came_in, "an answer to somebody who came in from outside"))
    rules += not_led(config)
    # Not only `ct state new`: a packet that conntrack calls invalid, or that belongs to a flow from before
    # its address was learned, would leave in clear.
    for tunnel in config.tunnels:
        for family, match in _members(tunnel):
            if tunnel.link in down:
                rules += refused(match, "the tunnel is down")
            elif not tunnel.wireguard.carries(family):
                rules += refused(match, f"the tunnel carries no IPv{family}")
        rules += _to_tunnel(tunnel, bits, _end_of_before(tunnel, bits))
    return rules


def _prerouting(config: Config, bits: Bits) -> Rules:
    rules = [rule('iifname "lo" return', "from this machine to itself")]
    for tunnel in config.tunnels:
        for family, protocol in FAMILY.items():
            own = braces(a.ip for a in tunnel.wireguard.addresses if a.version == family)
            if own:
                match = f'iifname != "{tunnel.link}" {protocol} daddr {own} fib saddr type != local'
                rules.append(rule(f"{match} counter drop", "not the LAN's to ask for (CVE-2019-14899)"))
        newcomer = f'iifname "{tunnel.link}" ct state new {bits.put(tunnel.mark, "ct")}'
        rules.append(rule(newcomer, "who comes in by the tunnel is answered by the tunnel"))
        rules.append(rule(f'iifname "{tunnel.link}" return', "from the tunnel"))
    # Of a flow from before its time conntrack takes the first packet that it sees for the beginning, and that may be
    # an answer to us.
    local = "fib daddr type local"
    rules.append(rule(f"ct state != new {local} return", "to this machine itself"))
    rules.append(rule(f"tcp flags & (syn | ack) != syn {local} return", "met in its middle: who knows who began it"))
    rules.append(rule(f"{local} {bits.put(bits.direct, 'ct')} return", "who came in from outside is answered there"))
    rules += [
        rule(f"{bits.has(t.mark, 'ct')} {bits.put(t.mark)} return", "a tunneled flow stays in the tunnel")
        for t in config.tunnels
    ]
    rules.append(rule("ct direction reply return", "an answer to somebody who came in from outside"))
    rules += not_led(config)
    for tunnel in config.tunnels:
        of_before = rule(f"{_of_before(tunnel, bits)} return", "a flow of before: refused at forward")
        rules += _to_tunnel(tunnel, bits, [of_before])
    return tuple(rules)


def _to_us(config: Config, bits: Bits) -> Rules:
    """A firewall may ask by the mark whether the way back is the way that a packet came, as firewalld does for IPv6.

    After NAT, and only what ends here: what goes on to others would be routed by the mark, back into the tunnel.
    """
    return tuple(
        rule(f'iifname "{t.link}" fib daddr type local {bits.put(t.mark)}', "its way back is the tunnel")
        for t in config.tunnels
    )


def _refuse(config: Config, bits: Bits, foreign: Rules) -> Rules:
    rules = [TO_ITSELF]
    for tunnel in config.tunnels:
        # plan's route of last resort makes v6 packets reach the output hook where there is no v6 default
        # route; those that are not tunneled must fail as they would have failed without it.
        if tunnel.wireguard.carries(6):
            inside = braces(_inside(tunnel, 6))
            match = f'{bits.lacks(tunnel.mark)} oifname "{tunnel.link}" ip6 daddr != {inside}'
            rules += refused(match, "no v6 default route, and not tunneled")
    # What output_nat did not lead here: NAT is for a flow's first packet, so flows from before the redirect
    # and packets that conntrack calls invalid pass it by; link-local servers, see there; and what is encrypted.
    ours = braces([bits.direct, *(t.mark for t in config.tunnels)])
    passes = (
        rule(f"meta mark & {bits.mask:#x} {ours} return", "the forwarder's own questions; a tunneled resolver"),
        *foreign,
        rule("fib daddr type local return", "led to the forwarder, or meant for a server on this machine"),
    )
    return (*rules, *no_way_past(config, passes))


def _refuse_forwarded(config: Config, bits: Bits) -> Rules:
    """What prerouting_nat did not lead here, since the forwarder does not listen there, or NAT passed it by."""
    tunneled = braces(t.mark for t in config.tunnels)
    passes = (
        rule("ct status dnat return", "somebody leads it to a server on purpose, as container engines do"),
        rule(f"th dport {HTTPS} meta mark & {bits.mask:#x} {tunneled} return", "a resolver that is tunneled"),
    )
    rules = [each for tunnel in config.tunnels for each in _end_of_before(tunnel, bits)]
    return (*_ended(bits), *rules, *no_way_past(config, passes))


def _last_door(config: Config, bits: Bits) -> Rules:
    rules = [TO_ITSELF]
    for tunnel in config.tunnels:
        match = f'{bits.has(tunnel.mark)} oifname != "{tunnel.link}"'
        rules.append(rule(f"{match} counter drop", "nothing tunneled leaves by another link"))
        for family, protocol in FAMILY.items():
            # A refusal of ours goes to the address that the connection had; without the link that is not local.
            own = braces(a.ip for a in tunnel.wireguard.addresses if a.version == family)
            if own:
                match = f'{protocol} daddr {own} oifname != "{tunnel.link}"'
                rules.append(rule(f"{match} counter drop", "the tunnel's own address is nobody's beyond another link"))
        syn = f'oifname "{tunnel.link}" tcp flags & (syn | rst) == syn'
        rules.append(rule(f"{syn} tcp option maxseg size set rt mtu", "the MSS was chosen for the uplink"))
    # What a program asks that is bound to a link is led to the forwarder, and would leave by that link all the same.
    rules += [rule(f"{match} counter drop", "loopback stays here (RFC 1122 §3.2.1.3)") for match in _LOOPBACK]
    return tuple(rules)


def _postrouting(config: Config, bits: Bits) -> Rules:
    return tuple(
        rule(f'{bits.has(t.mark)} oifname "{t.link}" masquerade', "the source was chosen for the uplink")
        for t in config.tunnels
    )


def _inside(tunnel: Tunnel, family: int) -> Iterable[Network]:
    """What reaches the tunnel without a mark, rightly: its own subnets, and AllowedIPs but for the default."""
    networks = [a.network for a in tunnel.wireguard.addresses if a.version == family]
    for peer in tunnel.wireguard.peers:
        networks += [n for n in peer.allowed if n.version == family and n.prefixlen > 1]
    return sorted(collapsed(networks), key=str)
