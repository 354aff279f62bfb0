"""Runs in a booted Debian with a network, as a unit: beside each of its peers splitwg is set up, disturbed, reverted.

A peer is another program that has a say in the firewall, the DNS or the network. Writes what it found; judges nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, "/srv/splitwg")
from tests.debian.inside import APT, OUT, PACKAGES, Visitor, callers, differing, everything, ran, without_configuration
from tests.system.inside import sh, until
from tests.system.inside_setup import CONF
from tests.system.inside_stream import caller

RESOLV_CONF = Path("/etc/resolv.conf")
ADDRESS = "198.51.100.2"
# What a peer has set up goes, and the lab's own comes back; a link that was down has lost its IPv6 addresses.
TAKE_ADDRESS = f"""
ip link set eth0 up
ip -4 addr flush dev eth0
ip -4 addr replace {ADDRESS}/25 dev eth0
ip -4 route replace default via 198.51.100.1
ip -6 addr replace 2001:db8:c::2/64 dev eth0 nodad
ip -6 route replace default via 2001:db8:c::1
"""


@dataclass(frozen=True)
class Peer:
    """How it is started, what it does meanwhile and how it ends; which files in /etc it writes all the time."""

    package: str
    begin: tuple[str, ...]
    acts: tuple[str, ...]
    end: tuple[str, ...]
    writes: tuple[str, ...] = ()


PEERS = (
    Peer(
        "nftables",
        ("systemctl start nftables",),
        ("systemctl reload nftables", "systemctl restart nftables", "nft flush ruleset", "nft -f /etc/nftables.conf"),
        ("systemctl stop nftables",),
    ),
    Peer(
        "ufw",
        # The second time it finds chains of its own, which it leaves behind, and fills them in another order.
        ("ufw --force enable", "ufw disable", "ufw --force enable"),
        ("ufw reload", "ufw disable", "ufw --force enable"),
        ("ufw disable", "nft flush ruleset"),
        ("etc/ufw/",),
    ),
    Peer(
        "firewalld",
        ("systemctl start firewalld",),
        ("firewall-cmd --reload", "firewall-cmd --complete-reload", "systemctl restart firewalld"),
        ("systemctl stop firewalld",),
    ),
    Peer(
        "dnsmasq",
        ("systemctl start dnsmasq",),
        ("systemctl restart dnsmasq", f"dig +short +tries=1 n1.fresh.tunneled.example @{ADDRESS}"),
        ("systemctl stop dnsmasq",),
    ),
    Peer(
        "unbound",
        ("systemctl start unbound",),
        ("systemctl restart unbound", f"dig +short +tries=1 n2.fresh.tunneled.example @{ADDRESS}"),
        ("systemctl stop unbound",),
    ),
    Peer(
        "network-manager",
        ("systemctl start NetworkManager", "nmcli -w 20 connection up lab"),
        ("nmcli -w 20 connection up lab", "nmcli general reload", "systemctl restart NetworkManager"),
        ("systemctl stop NetworkManager", TAKE_ADDRESS),
    ),
    Peer(
        "ifupdown",
        # The link's IPv6 addresses go with each ifdown, which is ifupdown's doing.
        (
            "ip -4 addr flush dev eth0; ip link set eth0 down",
            "printf 'iface eth0 inet dhcp\\n' >/etc/network/interfaces",
            "ifup eth0",
        ),
        ("ifdown eth0; ifup eth0", "dhclient -1 -nw eth0; sleep 1"),
        ("ifdown eth0", "rm /etc/network/interfaces", TAKE_ADDRESS),
        ("etc/network/",),
    ),
    Peer(
        "openresolv",
        ("dpkg -i /srv/openresolv_*.deb", "echo nameserver 203.0.113.53 | resolvconf -a eth0"),
        (
            "resolvconf -u",
            "echo nameserver 203.0.113.54 | resolvconf -a eth1",
            "resolvconf -d eth1",
        ),
        ("dpkg --purge openresolv",),
        ("etc/resolvconf",),
    ),
)


def left(before: dict[str, str], peer: Peer) -> list[str]:
    """What is not as it was, but for what the peer itself writes, and when."""
    found: list[str] = []

    def look() -> bool:
        now = without_configuration(before)
        after = everything()
        for world in (now, after):
            # Rewritten by the peer meanwhile; what it says counts.
            world["etc/resolv.conf"] = world["etc/resolv.conf"].rpartition(" ")[0]
        found[:] = [line for line in differing(now, after) if not line.startswith(peer.writes or "/")]
        return not found

    until(look, 3)
    return found


def beside(peer: Peer, found: dict[str, Any]) -> None:
    """One peer's life beside splitwg."""
    text = RESOLV_CONF.read_text()
    found["version"] = sh(f"dpkg-query -W -f '${{Version}}' {peer.package}")
    found["begin"] = [ran("sh", "-c", command) for command in peer.begin]
    found["ready"] = until(lambda: caller("plain.example"), 20)
    time.sleep(0.5)  # for what a peer does a moment later
    before = everything()
    found["from"] = time.monotonic()
    found["setup"] = ran("splitwg", "setup", CONF, "--yes")
    if "tunneled.example" not in sh("splitwg list"):
        found["add"] = ran("splitwg", "add", "tunneled.example")
    found["set up"] = reached()
    visitor = Visitor()
    visitor.start()
    found["acts"] = {}
    for act in peer.acts:
        status, said = ran("sh", "-c", act)
        time.sleep(0.3)
        found["acts"][act] = [status, said, reached()]
    visitor.end = True
    visitor.join()
    found["seen as"] = visitor.seen
    found["doctor"] = json.loads(sh("splitwg doctor --json") or "[]")
    found["until"] = time.monotonic()
    found["revert"] = ran("splitwg", "revert", "--yes")
    found["reverted"] = left(before, peer)
    found["back"] = [until(lambda: caller("plain.example"), 10), caller("plain.example")]
    found["end"] = [ran("sh", "-c", command) for command in peer.end]
    RESOLV_CONF.unlink(missing_ok=True)
    RESOLV_CONF.write_text(text)


def reached() -> list[str]:
    """As whom the tunneled site and another see us, and the tunneled one over IPv6."""
    return [*callers("tunneled.example", "plain.example"), sh("curl -s6 -m 5 http://tunneled.example/")]


def timed(part: Callable[[Peer, dict[str, Any]], None], peer: Peer, found: dict[str, Any]) -> None:
    started = time.monotonic()
    try:
        part(peer, found)
    finally:
        found["seconds"] = round(time.monotonic() - started, 1)
        found["journal"] = sh("journalctl -b -u splitwgd -o short-monotonic --no-hostname --no-pager | tail -n 40")


def main() -> None:
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    until(lambda: caller("plain.example"), 60)
    found: dict[str, dict[str, Any]] = {"": {"install": ran(*APT, "install", f"{PACKAGES}/first.deb")}}
    wanted = Path("/srv/peers").read_text().split()
    for peer in PEERS:
        if peer.package in wanted:
            timed(beside, peer, found.setdefault(peer.package, {}))
            (OUT / "progress.json").write_text(json.dumps(found, indent=1))
    (OUT / "report.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
