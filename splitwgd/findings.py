"""What `splitwg doctor` makes of a machine: each thing that was seen, whether it is in order, and what to do if not.

Pure. What could not be seen is None, and is said to be so: that is not the same as being in order.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from splitwgd.config import Config
from splitwgd.objects import Ip
from splitwgd.resolvers import STUBS, parse_resolv_conf
from splitwgd.routing import Routing

GOOD, NOTE, MEND, UNSEEN = "good", "note", "mend", "unseen"
MAGIC = ip_address("100.100.100.100")  # Tailscale's MagicDNS
_OVERHEAD = 80  # bytes of an outer packet over IPv6 (wireguard.com/papers/wireguard.pdf §6.5)
_MINE = ("splitwgd", "splitwg")


@dataclass(frozen=True)
class Finding:
    """About one thing. grade: in order, worth knowing, to be mended, or not to be seen from here."""

    about: str
    grade: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Holder:
    """Who holds a port. name and unit are empty where they cannot be seen."""

    address: Ip
    transport: str
    name: str = ""
    pid: int = 0
    unit: str = ""


@dataclass(frozen=True)
class ForeignRule:
    """A rule of somebody else's (ip-rule(8)). narrow: it looks at more than the mark."""

    priority: int
    mark: int
    mask: int
    table: int
    narrow: bool

    def __str__(self) -> str:
        mark = f"fwmark {self.mark:#x}/{self.mask:#x} " if self.mask else ""
        return f"ip rule {self.priority}: {mark}lookup {self.table}"


@dataclass(frozen=True)
class Seen:
    """This machine, as far as it could be seen. Texts of files are empty where there is none."""

    resolv_conf: str = ""
    nsswitch: str = ""
    resolved: bool = False
    resolved_is_ours: bool = False
    manager: bool = False
    running: bool = False
    trouble: str = ""
    unfinished: bool = False
    holders: tuple[Holder, ...] | None = ()
    links: Mapping[str, int] = field(default_factory=dict)  # name -> MTU
    tunnel_mtu: int | None = None
    uplink_mtu: int | None = None
    strict: bool = False
    rules: tuple[ForeignRule, ...] | None = ()
    routes: tuple[str, ...] | None = ()
    wireguards: Mapping[str, int] | None = field(default_factory=dict)  # link -> mark of its outer packets
    ruleset: Mapping[str, Any] | None = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)  # path -> text
    kernel: str = ""
    wireguard: str = ""
    now: float = 0
    newest: float = 0


def examine(seen: Seen, config: Config | None) -> list[Finding]:
    """Everything that was looked at, in the order in which it is best mended."""
    found = [*_kernel(seen), *_daemon(seen)]
    if config is not None:
        found += [*_port(seen, config), *_resolv_conf(seen, config), *_nsswitch(seen), *_resolved(seen)]
        found += [*_manager(seen, config), *_tailscale(seen, config), *_docker(seen)]
        found += [*_rules(seen, config.routing), *_routes(seen, config.routing), *_marks(seen, config.routing)]
        found += [*_reverse_path(seen), *_mtu(seen)]
    return [*found, *_browsers(seen), *_clock(seen)]


def _kernel(seen: Seen) -> Iterator[Finding]:
    for about, text in (("nf_tables", seen.kernel), ("WireGuard", seen.wireguard)):
        what, _, remedy = text.partition("; ")
        if "CAP_NET_ADMIN" in text:
            yield Finding(about, UNSEEN, what, "run as root")
        else:
            yield Finding(about, MEND, what, remedy) if text else Finding(about, GOOD, "is there")


def _daemon(seen: Seen) -> Iterator[Finding]:
    if seen.unfinished:
        yield Finding("setup", MEND, "was interrupted", "splitwg setup goes on with it, splitwg revert takes it back")
    if not seen.running:
        yield Finding("splitwgd", MEND, "does not run", "systemctl start splitwgd; journalctl -u splitwgd says why not")
    elif seen.trouble:
        yield Finding("splitwgd", MEND, seen.trouble, "splitwg status tells more")
    else:
        yield Finding("splitwgd", GOOD, "runs and answers")


def _port(seen: Seen, config: Config) -> Iterator[Finding]:
    if seen.holders is None:
        yield Finding("port 53", UNSEEN, "who holds it could not be seen", "run as root")
        return
    wild = [ip_address("0.0.0.0"), ip_address("::")]
    aside: dict[str, dict[Ip, None]] = {}  # who -> where, of those who are in nobody's way
    for holder in seen.holders:
        where = f"{holder.address} ({holder.transport})"
        who = f"{holder.name or 'a process that cannot be seen from here'}{f' ({holder.unit})' if holder.unit else ''}"
        if holder.name in _MINE or holder.unit.startswith("splitwgd"):
            continue
        if (holder.address in STUBS and seen.resolved) or holder.address not in (*config.listen, *wild):
            aside.setdefault(who, {})[holder.address] = None
        elif not (holder.name or seen.running):
            yield Finding("port 53", UNSEEN, f"{where} is held by {who}", "run as root")
        elif holder.name:
            remedy = f"stop it (systemctl stop {holder.unit})" if holder.unit else f"end it (pid {holder.pid})"
            yield Finding("port 53", MEND, f"{where} is held by {who}", f"{remedy}, or give it another address")
    for who, addresses in aside.items():
        yield Finding("port 53", NOTE, f"of {', '.join(map(str, addresses))} is {who}'s, and not in the way")
    if seen.running:
        yield Finding("port 53", GOOD, "splitwgd answers on it")


def _resolv_conf(seen: Seen, config: Config) -> Iterator[Finding]:
    about = "/etc/resolv.conf"
    servers = [server.address for server in parse_resolv_conf(seen.resolv_conf)]
    others = [address for address in servers if address not in (*config.listen, *STUBS)]
    past = [address for address in others if not config.redirect or address in config.bypass]
    if not servers:
        yield Finding(about, MEND, "names no server", "splitwg dns take")
    elif past:
        yield Finding(about, MEND, f"programs ask {past[0]}, past splitwg", "splitwg dns take, or shorten dns.bypass")
    elif not seen.running and not (seen.resolved and not seen.resolved_is_ours):
        remedy = "systemctl start splitwgd, or splitwg dns give-back until it does"
        yield Finding(about, MEND, "leads to splitwgd, which does not run: nothing resolves", remedy)
    elif others:
        what = f"names {others[0]}; the redirect leads what is asked there to splitwg"
        yield Finding(about, NOTE, what, "splitwg dns take puts splitwg there, too")
    else:
        yield Finding(about, GOOD, "leads to splitwg")


def _nsswitch(seen: Seen) -> Iterator[Finding]:
    about = "/etc/nsswitch.conf"
    words = next((line.split()[1:] for line in seen.nsswitch.splitlines() if line.split()[:1] == ["hosts:"]), None)
    if words is None:
        return  # glibc's own order, which asks DNS (nsswitch.conf(5))
    if "resolve" in words and not seen.resolved and "dns" not in words:
        yield Finding(about, MEND, "asks systemd-resolved, which does not run", "add dns to its line hosts:")
    elif "resolve" not in words and "dns" not in words:
        yield Finding(about, MEND, "asks no DNS at all for names of hosts", "add dns to its line hosts:")
    else:
        yield Finding(about, GOOD, f"asks {' '.join(word for word in words if not word.startswith('['))}")


def _resolved(seen: Seen) -> Iterator[Finding]:
    if seen.resolved and not seen.resolved_is_ours:
        what = "keeps answers of its own, which may outlive the way into the tunnel"
        yield Finding("systemd-resolved", MEND, what, "splitwg dns take")
    elif seen.resolved:
        yield Finding("systemd-resolved", GOOD, "asks splitwg and keeps nothing")


def _manager(seen: Seen, config: Config) -> Iterator[Finding]:
    if not seen.manager:
        return
    writes = "# Generated by NetworkManager" in seen.resolv_conf
    grade = (NOTE if config.redirect else MEND) if writes else GOOD
    text = "writes /etc/resolv.conf" if writes else "leaves /etc/resolv.conf alone"
    yield Finding("NetworkManager", grade, text, "splitwg dns take" if writes else "")


def _tailscale(seen: Seen, config: Config) -> Iterator[Finding]:
    if "tailscale0" not in seen.links:
        return
    servers = [server.address for server in parse_resolv_conf(seen.resolv_conf)]
    forwards = any(MAGIC in [server.address for server in group] for _, group in config.forward)
    if MAGIC in servers:
        yield Finding(
            "Tailscale", MEND, "has put its own server into /etc/resolv.conf", "tailscale set --accept-dns=false"
        )
    if forwards:
        yield Finding("Tailscale", GOOD, "its names are asked at its own server")
    else:
        remedy = '[dns.forward] "ts.net" = ["100.100.100.100"] in domains.toml'
        yield Finding("Tailscale", NOTE, "its names (MagicDNS) are not asked at its own server", remedy)
    if config.redirect and MAGIC not in config.bypass:
        text = f"whoever asks {MAGIC} himself waits in vain: its firewall drops our answer as a forged one"
        yield Finding("Tailscale", NOTE, text, f'bypass = ["{MAGIC}"] under [dns] in domains.toml')


def _docker(seen: Seen) -> Iterator[Finding]:
    if "docker0" in seen.links:
        text = "containers are answered by splitwg, on port 253 of the bridge"
        yield Finding(
            "Docker", NOTE, text, "a firewall has to let it in, as in: ufw allow in on docker0 to any port 253"
        )


def _rules(seen: Seen, routing: Routing) -> Iterator[Finding]:
    if seen.rules is None:
        yield Finding("rules", UNSEEN, "the kernel's rules could not be seen", "run as root")
        return
    bad = False
    for rule in seen.rules:
        overlap = rule.mask & routing.fwmask
        if overlap and rule.mark & overlap == routing.fwmark & overlap:
            remedy = "give one of them other bits (routing.fwmark, routing.fwmask)"
            yield Finding("rules", MEND, f"{rule} catches packets with splitwg's mark, too", remedy)
        elif rule.priority == routing.priority:
            remedy = "set routing.priority to a number that is free"
            yield Finding("rules", MEND, f"{rule} has splitwg's priority", remedy)
        elif rule.priority < routing.priority and not rule.narrow and not rule.mask and rule.table != 255:
            remedy = f"set routing.priority below {rule.priority}; until then what is tunneled is dropped"
            yield Finding("rules", MEND, f"{rule} comes before splitwg's and catches everything", remedy)
        else:
            continue
        bad = True
    if not bad:
        yield Finding("rules", GOOD, "nobody else's is in the way")


def _routes(seen: Seen, routing: Routing) -> Iterator[Finding]:
    for route in seen.routes or ():
        remedy = "set routing.table to a number that is free"
        yield Finding("routes", MEND, f"{route} is somebody else's, in splitwg's table {routing.table}", remedy)


def _marks(seen: Seen, routing: Routing) -> Iterator[Finding]:
    if seen.ruleset is None or seen.wireguards is None:
        yield Finding("marks", UNSEEN, "who else marks packets could not be seen", "run as root")
    ours = routing.fwmask
    sets = [(name, value) for name, value in sorted(set(marks_set(seen.ruleset or {}))) if value & ours]
    taken = [f"nft table {name} sets mark {value:#x}" for name, value in sets]
    bear = [(link, mark) for link, mark in (seen.wireguards or {}).items() if mark & ours == routing.fwmark]
    taken += [f"WireGuard link {link} has the mark {mark:#x}" for link, mark in bear]
    for text in taken:
        remedy = "give splitwg bits that nobody has (routing.fwmark, routing.fwmask)"
        yield Finding("marks", MEND, f"{text}, in splitwg's bits {routing.fwmask:#x}", remedy)
    if not taken and seen.ruleset is not None:
        yield Finding("marks", GOOD, f"nobody else uses the bits {routing.fwmask:#x}")


def marks_set(ruleset: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Where a ruleset (libnftables-json(5)) sets a mark, of a packet or a flow: the table, and the bits written."""
    for item in ruleset.get("nftables", ()):
        rule = item.get("rule")
        for statement in rule.get("expr", ()) if rule else ():
            mangle = statement.get("mangle")
            key = mangle.get("key", {}) if isinstance(mangle, dict) else {}
            if any(isinstance(kind, dict) and kind.get("key") == "mark" for kind in (key.get("meta"), key.get("ct"))):
                yield f"{rule['family']} {rule['table']}", _bits(mangle["value"])


def _bits(value: Any) -> int:
    """The bits that the value may write: of `mark and MASK or BITS` these, of a number its own."""
    if isinstance(value, int):
        return value
    if isinstance(value, dict) and isinstance(value.get("|"), list):
        return _bits(value["|"][-1])
    return 0  # what is only masked or copied sets no bit that was not set


def _reverse_path(seen: Seen) -> Iterator[Finding]:
    if seen.strict:
        what = "is strict on the tunnel's link, and drops what comes back"
        yield Finding("rp_filter", MEND, what, "let splitwgd run (it loosens it there), or look who tightens it")


def _mtu(seen: Seen) -> Iterator[Finding]:
    if seen.tunnel_mtu and seen.uplink_mtu:
        most = seen.uplink_mtu - _OVERHEAD
        if seen.tunnel_mtu > most:
            what = f"the tunnel's {seen.tunnel_mtu} does not fit into the uplink's {seen.uplink_mtu}"
            yield Finding(
                "MTU", MEND, what, f"write MTU = {most} under [Interface] of the WireGuard file, or leave it out"
            )
        else:
            yield Finding("MTU", GOOD, f"{seen.tunnel_mtu} in the tunnel, {seen.uplink_mtu} outside")


def _browsers(seen: Seen) -> Iterator[Finding]:
    for path, text in seen.policies.items():
        try:
            document = json.loads(text)
        except ValueError:
            yield Finding(path, NOTE, "is no JSON")
            continue
        if mode := _doh(document if isinstance(document, dict) else {}):
            remedy = "take it out of that policy; splitwg refuses the well-known resolvers, others it cannot know"
            yield Finding(path, MEND, f"has the browser resolve over HTTPS ({mode})", remedy)
    if not seen.policies:
        yield Finding(
            "browsers", GOOD, "no policy has one resolve over HTTPS; what a user chose himself is not seen here"
        )


def _doh(document: Mapping[str, Any]) -> str:
    policies = document.get("policies")
    firefox = policies.get("DNSOverHTTPS") if isinstance(policies, dict) else None
    if isinstance(firefox, dict) and firefox.get("Enabled"):
        return str(firefox.get("ProviderURL") or "its own resolver")
    return "secure" if document.get("DnsOverHttpsMode") == "secure" else ""


def _clock(seen: Seen) -> Iterator[Finding]:
    if seen.now < seen.newest:
        what = "is behind the time at which files here were written"
        yield Finding("clock", MEND, what, "set it (timedatectl): WireGuard's server ignores handshakes from the past")
    else:
        yield Finding("clock", GOOD, "is ahead of every file that was looked at")


def grade_of(findings: Collection[Finding]) -> int:
    """The exit status: 0 nothing to mend, 1 something."""
    return int(any(finding.grade == MEND for finding in findings))
