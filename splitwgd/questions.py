"""Which questions are led to the forwarder, and which other ways to ask are refused: the nft rules about it."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AnySet

from splitwgd.bypasses import known_resolvers
from splitwgd.config import Config
from splitwgd.objects import FORWARDED_PORT, Downlink, FilterRule, Ip
from splitwgd.rules import FAMILY, Bits, Rules, braces, numbers, refused, rule

_DNS, HTTPS, _TLS = 53, 443, 853  # RFC 1035; RFC 8484, RFC 9114; RFC 7858, RFC 9250
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


def not_led(config: Config) -> Iterable[FilterRule]:
    """Questions are not led into a tunnel: unmarked, they can be told from ours, and what refuses them finds back."""
    ports = [port for port, wanted in ((_DNS, config.redirect), (_TLS, config.refuse_tls)) if wanted]
    for exempt in _not_bypassed(config) if ports else ():
        yield rule(f"{exempt}{_FLOWS} {numbers(ports)} return", "a question: led to the forwarder, or refused")


def output_nat(config: Config, bits: Bits, foreign: Rules) -> Rules:
    """Questions of this machine. foreign: passes for outer packets."""
    if not config.redirect:
        return ()
    ours = braces([bits.direct, *(t.mark for t in config.tunnels)])
    rules = [
        rule(f"meta mark & {bits.mask:#x} {ours} return", "the forwarder's own questions"),
        *foreign,
        rule("fib daddr type local return", "a server on this machine, which asks through us"),
        rule("ip6 daddr fe80::/10 return", "no way back for the answer: refused, see that chain"),
    ]
    rules += [
        rule(f"{exempt}{_FLOWS} {_DNS} counter redirect to :53", COUNTED["redirected"])
        for exempt in _not_bypassed(config)
    ]
    return tuple(rules)


def prerouting_nat(config: Config, downlinks: AnySet[Downlink]) -> Rules:
    """Behind everybody else's NAT: what a container engine leads to a server is led already (docs/decisions/0020)."""
    if not config.redirect or not downlinks:
        return ()
    rules = [
        rule("fib daddr type { local, broadcast, anycast, multicast } return", "to this machine, or to everybody"),
        rule("fib daddr . iif oif exists return", "to a server on the asker's own link"),
    ]
    for downlink in sorted(downlinks, key=lambda each: (each.name, each.address.version)):
        address = downlink.address
        family, servers = FAMILY[address.version], _bypassed(config, address.version)
        exempt = f"{family} daddr != {servers}" if servers else f"meta nfproto ipv{address.version}"
        door = f"[{address}]" if address.version == 6 else address
        to = f"dnat {family} to {door}:{FORWARDED_PORT}"
        rules.append(rule(f'iifname "{downlink.name}" {exempt} {_FLOWS} {_DNS} counter {to}', COUNTED["redirected"]))
    return tuple(rules)


def no_way_past(config: Config, passes: Iterable[FilterRule]) -> Iterable[FilterRule]:
    """Refuses other ways to ask, but for what `passes` lets return. All packets come here, few are questions."""
    asked = {"refused_https": HTTPS, "refused_tls": _TLS, "refused_plain": _DNS}
    wanted = (config.refuse_doh, config.refuse_tls, config.redirect)
    ports = {why: port for (why, port), on in zip(asked.items(), wanted, strict=True) if on}
    if not ports:
        return
    yield rule(f"{_FLOWS} != {numbers(ports.values())} return", "no question")
    yield rule("meta l4proto != { tcp, udp } return", "no ports to look at")
    if config.refuse_doh:
        for family, protocol in FAMILY.items():
            known = braces(known_resolvers(family, _spared(config)))
            other = f"{protocol} daddr != {known}" if known else f"meta nfproto ipv{family}"
            yield rule(f"th dport {HTTPS} {other} return", "a web site")
    yield from passes
    for family, protocol in FAMILY.items():
        if servers := _bypassed(config, family):
            yield rule(f"{protocol} daddr {servers} return", "dns.bypass")
    for why, port in ports.items():
        yield from refused(f"th dport {port}", COUNTED[why])


def _spared(config: Config) -> frozenset[Ip]:
    """Resolvers that the configuration itself names."""
    groups = (config.default, *(t.servers for t in config.tunnels), *(servers for _, servers in config.forward))
    return frozenset(config.bypass).union(server.address for servers in groups for server in servers)


def _not_bypassed(config: Config) -> Iterable[str]:
    """All but the servers of dns.bypass: one match a family, or none for both."""
    if not config.bypass:
        yield ""
        return
    for family, protocol in FAMILY.items():
        servers = _bypassed(config, family)
        yield f"{protocol} daddr != {servers} " if servers else f"meta nfproto ipv{family} "


def _bypassed(config: Config, family: int) -> str:
    return braces(server for server in config.bypass if server.version == family)
