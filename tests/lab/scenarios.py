"""What happens to a machine: each function is one line of the table of leaks, and its docstring is what stands there.

A scenario prepares the world, opens `scene.load()`, lets it happen, and leaves the world as it was. It acts on any
subject, splitwgd or the set-up that it replaces; it judges nothing, since all that matters is counted on the wire.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from . import wire, zone
from .asking import dial, inside
from .authority import SCRIPTED_VPN, scripted_behind_the_tunnel
from .hosts import inhabitants
from .load import family_of
from .world import FOREIGN_DNS, PUBLIC_DNS, Lab

if TYPE_CHECKING:
    from .leaktest import Scene

DOMAINS = ("tunneled.example", "blocked.example")
TUNNELED = ("203.0.113.10", "2001:db8:1::10")
PLAIN = ("203.0.113.20", "2001:db8:1::20")
LATER = ("203.0.113.30", "2001:db8:1::30")
HINTS = ("203.0.113.15", "2001:db8:1::15")
FLEETING = "203.0.113.16"
SERVERS = (FOREIGN_DNS, PUBLIC_DNS[2])  # one by v4, one by v6; neither is in anybody's configuration
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


class Subject(Protocol):
    """Who has to keep the promise. All verbs return when the thing is done, as far as its owner can tell."""

    name: str
    lab: Lab

    def configure(self, domains: Sequence[str], dns: str = "10.1.0.1", more: str = "") -> None:
        """These domains and this tunneled DNS; what runs takes them over."""

    def start(self) -> None:
        """From nothing, or after stop() or kill()."""

    def stop(self) -> None:
        """As `systemctl stop` does it."""

    def kill(self) -> None:
        """SIGKILL."""

    def pause(self, seconds: float) -> None:
        """SIGSTOP for a while."""

    def down(self) -> None:
        """The user's command that takes the tunnel down."""

    def up(self) -> None:
        """And up again."""

    def pid(self) -> int:
        """The process that answers questions; it may have ended."""

    def revive(self) -> None:
        """What `Restart=always` does: starts it if it has ended."""

    def reboot(self) -> None:
        """The power fails: nothing runs, and the kernel has forgotten everything; the disk has not."""

    def hasten(self) -> None:
        """From the next start on an address lives for 2 s where it lived for an hour, since nobody can wait for it."""

    def rebuild(self, lines: str) -> None:
        """From the next start on it is another build: these lines of Python come before its own."""


def configuration(domains: Sequence[str], dns: str, more: str = "") -> str:
    """domains.toml, which both subjects read."""
    names = ", ".join(f'"{domain}"' for domain in domains)
    default = ", ".join(f'"{server}"' for server in PUBLIC_DNS[:2])
    return f'[dns]\ntunneled = ["{dns}"]\ndefault = [{default}]\n[tunneled]\ndomains = [{names}]\n{more}'


def wireguard_go(lab: Lab) -> list[int]:
    """The processes that carry the client's tunnel; none where the kernel does."""
    return [pid for pid in inhabitants(lab.client.netns) if b"wireguard-go" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


# -- the daemon and the tunnel


def steady(scene: Scene) -> None:
    """nothing happens"""
    with scene.load():
        scene.wait(1)


def tunnel_down_and_up(scene: Scene) -> None:
    """the user takes the tunnel down, and up again"""
    with scene.load(), scene.closed():
        scene.subject.down()
        scene.wait(1)
        scene.subject.up()


def killed_and_started(scene: Scene) -> None:
    """SIGKILL, started again 1 s later"""
    with scene.load():
        scene.subject.kill()
        scene.wait(1)
        scene.subject.start()


def stopped_and_started(scene: Scene) -> None:
    """stopped, started again 1 s later"""
    with scene.load():
        scene.subject.stop()
        scene.wait(1)
        scene.subject.start()


def restarted(scene: Scene) -> None:
    """restarted"""
    with scene.load():
        scene.subject.stop()
        scene.subject.start()


def paused(scene: Scene) -> None:
    """SIGSTOP for 5 s"""
    with scene.load():
        scene.subject.pause(5)
        scene.mended()


def reloaded(scene: Scene) -> None:
    """three reloads, each with a new domain"""
    with scene.load():
        for number in range(3):
            scene.subject.configure([*DOMAINS, f"number-{number}.example"])


def mark_changed(scene: Scene) -> None:
    """a reload with another mark"""
    with scene.load():
        scene.subject.configure(DOMAINS, more="[routing]\nfwmark = 0x2\n")


def link_deleted(scene: Scene) -> None:
    """ip link del wg0"""
    with scene.load():
        scene.client("ip link del wg0")


def link_down(scene: Scene) -> None:
    """ip link set wg0 down"""
    with scene.load():
        scene.client("ip link set wg0 down")


def userspace_killed(scene: Scene) -> None:
    """the process of WireGuard is killed (where the kernel is WireGuard: its link deleted)"""
    with scene.load():
        processes = wireguard_go(scene.lab)
        for process in processes:
            os.kill(process, signal.SIGKILL)
        if not processes:
            scene.client("ip link del wg0")


def endpoint_silent(scene: Scene) -> None:
    """the VPN is silent for 1.5 s"""
    with scene.load(), scene.closed(), scene.lab.vpn_silent():
        scene.wait(1.5)


def endpoint_moves(scene: Scene) -> None:
    """the VPN moves to its other address"""
    lab, me = scene.lab, ("wg", "set", "wg0", "peer", scene.lab.keys["public"])
    old = f"ip daddr {lab.vpn_v4} udp dport 51820 drop"
    try:
        with scene.load():
            port = lab.vpn.run("wg", "show", "wg0", "endpoints").stdout.strip().rpartition(":")[2]
            lab.vpn.run("nft", f"table inet moved {{ chain c {{ type filter hook input priority -300; {old}; }}; }}")
            lab.vpn.run(*me, "endpoint", f"[{lab.client_v6}]:{port}", "persistent-keepalive", "1")
    finally:
        lab.vpn.run(*me, "persistent-keepalive", "off")
        lab.vpn.run("nft", "delete table inet moved", check=False)


# -- somebody else's hands in the kernel


def ruleset_flushed(scene: Scene) -> None:
    """nft flush ruleset"""
    with scene.load():
        scene.client("nft flush ruleset")


def table_deleted(scene: Scene) -> None:
    """nft delete table"""
    with scene.load():
        scene.try_on_the_client("nft delete table inet wg_routing")


def sets_flushed(scene: Scene) -> None:
    """both sets flushed"""
    with scene.load():
        scene.try_on_the_client("nft 'flush set inet wg_routing wg_domains4; flush set inet wg_routing wg_domains6'")


def chain_flushed(scene: Scene) -> None:
    """the output chain flushed"""
    with scene.load():
        scene.try_on_the_client("nft flush chain inet wg_routing output")


def rules_deleted(scene: Scene) -> None:
    """both ip rules deleted"""
    with scene.load():
        scene.client(RULES)


def routes_flushed(scene: Scene) -> None:
    """table 100 flushed"""
    with scene.load():
        scene.client(ROUTES)


def blackhole_deleted(scene: Scene) -> None:
    """the blackholes deleted"""
    with scene.load():
        for family in ("-4", "-6"):
            # With its metric: for v6, ip would take the first default route, whatever its type.
            scene.client(f"ip {family} route del blackhole default table 100 metric 200")


def everything_at_once(scene: Scene) -> None:
    """ruleset, rules, routes and link, all at once"""
    with scene.load():
        scene.client(f"nft flush ruleset; {RULES}; {ROUTES}; ip link del wg0")


RULES = "ip rule del priority 100; ip -6 rule del priority 100"
ROUTES = "ip route flush table 100; ip -6 route flush table 100"


def foreign_rule(scene: Scene) -> None:
    """an ip rule of somebody else before ours, for 1 s"""
    with scene.load(), scene.closed():
        scene.client("ip rule add priority 50 lookup main; ip -6 rule add priority 50 lookup main")
        try:
            scene.wait(1)
        finally:
            scene.client("ip rule del priority 50; ip -6 rule del priority 50")


def foreign_route(scene: Scene) -> None:
    """a route from DHCP (option 121) to the tunneled DNS"""
    try:
        with scene.load():
            scene.client("ip route add 10.1.0.1/32 via 198.51.100.1")
            scene.wait(1)
    finally:
        scene.client("ip route del 10.1.0.1/32 via 198.51.100.1")


# -- the network


def resolv_conf_rewritten(scene: Scene) -> None:
    """resolv.conf names a foreign server; programs of root and of a user go by it"""
    before = scene.lab.client.read("/etc/resolv.conf")
    try:
        with scene.load():
            scene.lab.client.write("/etc/resolv.conf", f"nameserver {FOREIGN_DNS}\noptions timeout:1 attempts:1\n")
            for user in ((), NOBODY):
                for _ in range(5):
                    scene.asked(*user, "getent", "ahostsv4", scene.fresh())
    finally:
        scene.lab.client.write("/etc/resolv.conf", before)


def uplink_down_and_up(scene: Scene) -> None:
    """the uplink is down for 1 s"""
    try:
        with scene.load(), scene.closed():
            scene.client("ip link set eth0 down")
            scene.wait(1)
            connect(scene.lab, 2)
    finally:
        connect(scene.lab, 2)


def address_changed(scene: Scene) -> None:
    """the client gets other addresses (the plain download has to break)"""
    flush = "ip address flush dev eth0 scope global"
    try:
        with scene.load(), scene.closed():
            scene.client(flush)
            connect(scene.lab, 3)
    finally:
        scene.client(flush)
        connect(scene.lab, 2)


def connect(lab: Lab, number: int) -> None:
    """What a DHCP client does, with this number at the end of the addresses."""
    lines = (
        "link set eth0 up",
        f"address replace 198.51.100.{number}/25 dev eth0",
        f"address replace 2001:db8:c::{number}/64 dev eth0 nodad",
        "route replace default via 198.51.100.1",
        "route replace default via 2001:db8:c::1",
    )
    lab.client.run("ip", "-batch", "-", input="\n".join(lines) + "\n")


def strict_reverse_path(scene: Scene) -> None:
    """strict rp_filter"""
    with set_sysctl(scene, "net.ipv4.conf.all.rp_filter=1"), scene.load():
        scene.wait(0.5)


def no_v6_default_route(scene: Scene) -> None:
    """no v6 default route"""
    scene.client("while ip -6 route del default dev eth0; do :; done 2>/dev/null")
    try:
        with scene.load(without=("plain v6",)):
            scene.wait(0.5)
    finally:
        connect(scene.lab, 2)


@contextmanager
def set_sysctl(scene: Scene, setting: str) -> Iterator[None]:
    name = setting.partition("=")[0]
    before = scene.client(f"sysctl -n {name}").strip()
    scene.client(f"sysctl -qw {setting}")
    try:
        yield
    finally:
        scene.client(f"sysctl -qw {name}={before}")


# -- the names


def domain_added(scene: Scene) -> None:
    """a domain is added that nobody has asked for"""
    with scene.load():
        scene.subject.configure([*DOMAINS, "later.example"])
        scene.hide(*LATER, name="later.example")
        scene.asked("dig", "+short", "+tries=1", "+time=2", "@127.0.0.53", "later.example")
        scene.expect("it is tunneled", lambda: scene.lab.caller(LATER[0]) == scene.lab.vpn_v4)


def domain_added_while_cached(scene: Scene) -> None:
    """a domain is added while clients hold its address, and connect to it all the time"""
    with scene.load():
        for kind in ("A", "AAAA"):
            scene.client(f"dig +short +tries=1 +time=2 @127.0.0.53 later.example {kind}")
        scene.stream(*LATER)
        scene.wait(0.3)
        scene.subject.configure([*DOMAINS, "later.example"])
        scene.hide(*LATER, name="later.example")
        scene.expect("it is tunneled", lambda: scene.lab.caller(LATER[0]) == scene.lab.vpn_v4)
        scene.wait(0.5)


def domain_removed(scene: Scene) -> None:
    """a domain is removed"""
    (address, _) = zone.addresses("blocked.example")
    with scene.load():
        scene.asked("dig", "+short", "+tries=1", "+time=2", "@127.0.0.53", "blocked.example")
        scene.subject.configure(["tunneled.example"])
        scene.expect("it is plain", lambda: scene.lab.caller(address) == scene.lab.client_v4)


def domain_back(scene: Scene) -> None:
    """a domain is removed, and comes back while clients hold its address"""
    with scene.load():
        scene.subject.configure([*DOMAINS, "later.example"])
        for kind in ("A", "AAAA"):
            scene.asked("dig", "+short", "+tries=1", "+time=2", "@127.0.0.53", "later.example", kind)
        scene.subject.configure(DOMAINS)
        scene.subject.configure([*DOMAINS, "later.example"])
        scene.hide(*LATER, name="later.example")
        scene.stream(*LATER)
        scene.wait(0.5)


def domain_excepted(scene: Scene) -> None:
    """a name below a domain becomes an exception"""
    (address, _) = zone.addresses("sub.tunneled.example")
    with scene.load():
        scene.asked("dig", "+short", "+tries=1", "+time=2", "@127.0.0.53", "sub.tunneled.example")
        scene.subject.configure([*DOMAINS, "!sub.tunneled.example"])
        scene.expect("it is plain", lambda: scene.lab.caller(address) == scene.lab.client_v4)


def hints_only(scene: Scene) -> None:
    """a name whose addresses stand in an HTTPS record only"""
    _scripted(scene, "hints.tunneled.example", "HTTPS", HINTS)


def ttl_zero(scene: Scene) -> None:
    """an address with TTL 0, used for a second"""
    _scripted(scene, "fleeting.tunneled.example", "A", [FLEETING])


def _scripted(scene: Scene, name: str, kind: str, addresses: Sequence[str]) -> None:
    """A client asks a server behind the tunnel that knows more than the lab's, and uses what it says."""
    with scripted_behind_the_tunnel(scene.lab.vpn, _answer):
        scene.subject.configure(DOMAINS, dns=SCRIPTED_VPN)
        with scene.load():
            scene.asked("dig", "+short", "+tries=1", "+time=2", "@127.0.0.53", name, kind)
            scene.hide(*addresses)
            scene.stream(*addresses)
            scene.wait(1)


def _answer(question: bytes, stream: bool) -> list[bytes]:
    name, kind, end = wire.question(question)
    name = name.lower()
    if (name, kind) == ("hints.tunneled.example", "TYPE65"):
        four, six = (ip_address(hint).packed for hint in HINTS)
        data = b"\0\1\0" + struct.pack("!HH", 4, 4) + four + struct.pack("!HH", 6, 16) + six  # RFC 9460 §2.2
        head = question[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + question[12:end]
        return [head + b"\xc0\x0c" + struct.pack("!HHIH", 65, 1, 300, len(data)) + data]
    if (name, kind) == ("fleeting.tunneled.example", "A"):
        found: zone.Answer | None = zone.Answer(zone.NOERROR, (zone.Record(name, "A", 0, FLEETING),))
    else:
        found = zone.resolve(name, kind, honest=True)
    return [wire.reply(question, found, 65535 if stream else 512)] if found else []


# -- programs that want to get past


def port_53_by_root(scene: Scene) -> None:
    """root asks foreign servers: v4, v6, UDP, TCP"""
    _foreign_servers(scene, ())


def port_53_by_a_user(scene: Scene) -> None:
    """a user asks foreign servers: v4, v6, UDP, TCP"""
    _foreign_servers(scene, NOBODY)


def _foreign_servers(scene: Scene, user: Sequence[str]) -> None:
    with scene.load():
        for server in SERVERS:
            for way in ("+notcp", "+tcp"):
                scene.asked(*user, "dig", "+short", "+tries=1", "+time=1", way, f"@{server}", scene.fresh())


def sockets_from_before(scene: Scene) -> None:
    """sockets to a foreign server, UDP and TCP, that are older than the subject"""
    # Without somebody's firewall there would be no conntrack that knows these flows.
    scene.client("nft 'table ip wall { chain c { type filter hook output priority 0; ct state new; }; }'")
    sockets = [
        dial(scene.lab.client, kind, FOREIGN_DNS, patience=1) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    ]
    try:
        for sock in sockets:
            ask_again(sock, "plain.example")
        with scene.load():
            for sock in sockets:
                with suppress(OSError):
                    ask_again(sock, scene.fresh())
    finally:
        for sock in sockets:
            sock.close()
        scene.client("nft delete table ip wall")


def ask_again(sock: socket.socket, name: str) -> None:
    question = wire.query(1, name, "A")
    sock.send(question if sock.type == socket.SOCK_DGRAM else len(question).to_bytes(2, "big") + question)
    sock.recv(65535)


def bound_while_up(scene: Scene) -> None:
    """a program is bound to the uplink"""
    with scene.load():
        knock_on_the_uplink(scene)


def bound_while_down(scene: Scene) -> None:
    """the same while the tunnel is down"""
    with scene.load(), scene.closed():
        scene.subject.down()
        knock_on_the_uplink(scene)
        scene.subject.up()


def bound_while_gone(scene: Scene) -> None:
    """the same while the link is deleted"""
    with scene.load():
        scene.client("ip link del wg0")
        knock_on_the_uplink(scene)


def knock_on_the_uplink(scene: Scene, seconds: float = 1) -> None:
    """A program that is bound to the uplink tries to reach the tunneled site."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for address in TUNNELED:
            for kind, port in ((socket.SOCK_STREAM, 80), (socket.SOCK_DGRAM, 9)):
                with inside(scene.lab.client):
                    sock = socket.socket(family_of(address), kind | socket.SOCK_NONBLOCK)
                with sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
                    with suppress(OSError):  # refused, or not there yet: what matters is what left
                        sock.connect((address, port))
                    with suppress(OSError):
                        sock.send(b"?")
        time.sleep(0.01)


SCENARIOS: tuple[Callable[[Scene], None], ...] = (
    steady,
    tunnel_down_and_up,
    link_down,
    link_deleted,
    userspace_killed,
    endpoint_silent,
    endpoint_moves,
    stopped_and_started,
    killed_and_started,
    restarted,
    paused,
    reloaded,
    mark_changed,
    ruleset_flushed,
    table_deleted,
    sets_flushed,
    chain_flushed,
    rules_deleted,
    routes_flushed,
    blackhole_deleted,
    everything_at_once,
    foreign_rule,
    foreign_route,
    resolv_conf_rewritten,
    uplink_down_and_up,
    address_changed,
    strict_reverse_path,
    no_v6_default_route,
    domain_added,
    domain_added_while_cached,
    domain_removed,
    domain_back,
    domain_excepted,
    hints_only,
    ttl_zero,
    port_53_by_root,
    port_53_by_a_user,
    sockets_from_before,
    bound_while_up,
    bound_while_down,
    bound_while_gone,
)

# Where a scenario makes no sense for the article's set-up, and why.
NOT_FOR_THE_ARTICLE: dict[Callable[[Scene], None], str] = {
    mark_changed: "its mark stands in three files",
    domain_excepted: "it has no exceptions",
}
