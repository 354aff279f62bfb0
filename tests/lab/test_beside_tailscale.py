"""Beside Tailscale, which is not to be had here: its link, rules, table, chains and name server as it makes them.

The marks, priorities and the table are those of its documentation; MagicDNS is a server that says what a test says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing

import pytest

from . import wire, zone
from .authority import Scripted, scripted
from .hosts import Host
from .machine import CONFIG, DOMAINS, Machine

MAGIC, NODE = "100.100.100.100", "100.64.0.7"
MAKE = """
ip address add 100.64.0.1/32 dev tailscale0 && ip link set tailscale0 mtu 1280 up
ip rule add priority 5210 fwmark 0x80000/0xff0000 lookup main
ip rule add priority 5230 fwmark 0x80000/0xff0000 lookup default
ip rule add priority 5250 fwmark 0x80000/0xff0000 type unreachable
ip rule add priority 5270 lookup 52
ip route add 100.100.100.100 dev tailscale0 table 52
ip route add 100.64.0.7 dev tailscale0 table 52
nft -f - <<END
table ip tailscale {
  chain input { type filter hook input priority 0;
    iifname "lo" ip saddr 100.64.0.1 accept
    iifname "tailscale0" accept
    ip saddr 100.64.0.0/10 iifname != "tailscale0" drop; }
  chain forward { type filter hook forward priority 0;
    iifname "tailscale0" meta mark set meta mark & 0xff00ffff | 0x40000
    meta mark & 0xff0000 == 0x40000 accept
    ip saddr 100.64.0.0/10 oifname "tailscale0" drop; }
  chain postrouting { type nat hook postrouting priority 100; meta mark & 0xff0000 == 0x40000 masquerade; }
}
END
"""
UNMAKE = """
for priority in 5210 5230 5250 5270; do ip rule del priority $priority; done
nft delete table ip tailscale; ip link del tailscale0
"""
ITS_OWN = "ip rule | grep -v 'proto 83$'; ip route show table 52; nft list table ip tailscale"


def magic(question: bytes, _tcp: bool) -> Iterable[bytes]:
    name, kind, _ = wire.question(question)
    records = (zone.Record(name, "A", 60, NODE),) if kind == "A" else ()
    yield wire.reply(question, zone.Answer(zone.NOERROR, records), 512)


@pytest.fixture
def tailnet(machine: Machine) -> Iterator[Scripted]:
    """There before the daemon, which is told of its zone."""
    client = machine.lab.client
    with closing(Host("tailnet", MAGIC)) as host:
        client.run("ip", "link", "add", "tailscale0", "type", "veth", "peer", "name", "peer0", "netns", str(host.pid))
        addresses = f"ip address add {MAGIC}/32 dev peer0 && ip address add {NODE}/32 dev peer0 && ip link set peer0 up"
        host.run("sh", "-ec", f"{addresses}; ip link set lo up; ip route add default dev peer0")
        try:
            client.run("sh", "-ec", MAKE)
            machine.configure(f'{CONFIG}\n[dns.forward]\n"ts.net" = ["{MAGIC}"]\n')
            with scripted(host, MAGIC, magic) as server:
                yield server
        finally:
            client.run("sh", "-c", UNMAKE)


@pytest.mark.parametrize("directly", [False, True])
def test_its_names_are_asked_at_its_server_by_us_and_with_dns_bypass_by_programs(
    machine: Machine, tailnet: Scripted, directly: bool
) -> None:
    """Without it a question to that server is led to us, and its firewall drops the answer, which bears an address of
    the tailnet's and does not come by its link."""
    if directly:
        text = machine.lab.client.read(DOMAINS)
        machine.configure(text.replace("[dns]", f'[dns]\nbypass = ["{MAGIC}"]'))
    machine.start()
    assert machine.dig("host.tail1234.ts.net") == [NODE] and tailnet.asked[False] > 0
    asked = ["+timeout=1", "other.tail1234.ts.net"]
    assert (machine.dig(*asked, server=MAGIC) == [NODE]) is directly
    assert machine.status()["bypasses"]["redirected"] == (0 if directly else 1)
    assert machine.dig("blocked.example", server="192.0.2.53") == ["203.0.113.40"]
    assert "dev tailscale0" in machine.lab.client.run("ip", "route", "get", NODE).stdout
    doctor = machine.splitwg("doctor", check=False).stdout
    assert "its names are asked at its own server" in doctor
    assert ("its firewall drops our answer" in doctor) is not directly


ASKED = """
import socket, sys
from tests.fuzz.packets import name, query
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, 36, 0x80000)  # SO_MARK, as tailscaled's own packets bear it
    sock.settimeout(5)
    sock.sendto(query(name("blocked.example"), 1), ("192.0.2.53", 53))
    print(socket.inet_ntoa(sock.recv(512)[-4:]))
"""


def test_what_its_server_asks_others_is_answered_by_us(machine: Machine, tailnet: Scripted) -> None:
    machine.start()
    with machine.lab.capture() as seen:
        said = machine.lab.client.run(sys.executable, "-c", ASKED).stdout.strip()
    assert said == "203.0.113.40", "and not the lie that this server tells"
    assert seen.questions("blocked.example") == []
    assert machine.status()["bypasses"]["redirected"] == 1


def test_tunneled_sites_go_through_our_tunnel_and_nothing_of_its_is_touched(
    machine: Machine, tailnet: Scripted
) -> None:
    lab = machine.lab
    before = lab.client.run("sh", "-c", ITS_OWN).stdout
    machine.start()
    with lab.capture() as seen:
        for name, who in (("tunneled.example", lab.vpn_v4), ("plain.example", lab.client_v4)):
            assert lab.client.run("curl", "-s4", "-m", "5", f"http://{name}/").stdout.strip() == who
    assert seen.from_client_to("203.0.113.10") == [] and seen.questions("tunneled.example") == []
    assert lab.client.run("sh", "-c", ITS_OWN).stdout == before
    machine.end()
    machine.splitwg("teardown")
    assert lab.client.run("sh", "-c", ITS_OWN).stdout == before
