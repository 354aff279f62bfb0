"""Cables, addresses and routes of the lab, the far end of the tunnel and the NAT behind it.

Only documentation and private ranges appear; every command runs inside one of the hosts.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping

from .hosts import Host

# Addresses are usable at once: nobody in the lab doubts their uniqueness.
_SYSCTLS = "net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0"
_ROUTER = (
    f"{_SYSCTLS} net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0"
    " net.ipv6.ip_nonlocal_bind=1"
)

_ISP = """
link add client type veth peer name eth0 netns {client}
link add vpn type veth peer name eth0 netns {vpn}
link add internet type veth peer name eth0 netns {internet}
link set client up
link set vpn up
link set internet up
addr add 198.51.100.1/25 dev client
addr add 2001:db8:c::1/64 dev client nodad
addr add 198.51.100.129/25 dev vpn
addr add 2001:db8:b::1/64 dev vpn nodad
addr add 10.99.0.1/30 dev internet
addr add 2001:db8:a::1/64 dev internet nodad
"""
_ISP_ROUTES = """
route add default via 10.99.0.2
route add default via 2001:db8:a::2
"""
_ONE_CABLE = """
link set eth0 up
addr add {v4} dev eth0
addr add {v6} dev eth0 nodad
route add default via {near_v4}
route add default via {near_v6}
"""
_INTERNET_PREFIXES = """
route add local 203.0.113.0/24 dev lo
route add local 192.0.2.0/24 dev lo
route add local 2001:db8:1::/48 dev lo
"""
_WG0 = """
addr add 10.1.0.1/24 dev wg0
addr add fd00:10:1::1/64 dev wg0 nodad
link set wg0 mtu 1420 up
"""
_VPN_CONF = """[Interface]
PrivateKey = {vpn_private}
ListenPort = 51820
[Peer]
PublicKey = {public}
PresharedKey = {shared}
AllowedIPs = 10.1.0.2/32, fd00:10:1::2/128
"""
_NAT = """
table inet nat {
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname "eth0" ip saddr 10.1.0.0/24 masquerade
        oifname "eth0" ip6 saddr fd00:10:1::/64 masquerade
    }
}
"""


def add_wireguard(host: Host, name: str) -> None:
    """Make a WireGuard interface on a host: the kernel's, or wireguard-go's where it has none."""
    if host.run("ip", "link", "add", name, "type", "wireguard", check=False).returncode == 0:
        return
    quiet = subprocess.DEVNULL
    go = host.start("wireguard-go", "--foreground", name, stdout=quiet, stderr=quiet)
    deadline = time.monotonic() + 5
    while host.run("wg", "show", name, check=False).returncode != 0:
        if go.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"wireguard-go does not start on {host.name}")
        time.sleep(0.01)


def wire_up(client: Host, isp: Host, vpn: Host, internet: Host, keys: Mapping[str, str]) -> None:
    """Connect the hosts, so that each of them reaches every other at once."""
    client.run("sysctl", "-qw", *_SYSCTLS.split())
    for router in (isp, vpn, internet):
        router.run("sysctl", "-qw", *_ROUTER.split())
    add_wireguard(vpn, "wg0")
    cables = (
        (client, "198.51.100.2/25", "2001:db8:c::2/64", "198.51.100.1", "2001:db8:c::1"),
        (vpn, "198.51.100.130/25", "2001:db8:b::2/64", "198.51.100.129", "2001:db8:b::1"),
        (internet, "10.99.0.2/30", "2001:db8:a::2/64", "10.99.0.1", "2001:db8:a::1"),
    )
    isp.run("ip", "-batch", "-", input=_ISP.format(client=client.pid, vpn=vpn.pid, internet=internet.pid))
    for host, v4, v6, near_v4, near_v6 in cables:
        batch = _ONE_CABLE.format(v4=v4, v6=v6, near_v4=near_v4, near_v6=near_v6)
        host.run("ip", "-batch", "-", input=batch)
    for host, batch in ((isp, _ISP_ROUTES), (internet, _INTERNET_PREFIXES), (vpn, _WG0)):
        host.run("ip", "-batch", "-", input=batch)
    vpn.run("wg", "setconf", "wg0", "/dev/stdin", input=_VPN_CONF.format(**keys))
    vpn.run("nft", "-f", "-", input=_NAT)
