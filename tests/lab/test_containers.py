"""Containers, and whoever else we forward for: tunneled like this machine, and answered whomever they ask.

Also what strangers on the cable try with the tunnel's own address, and that marks of others are left alone.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from tests.fuzz.packets import name, opt, query

from .asking import inside
from .machine import Machine
from .test_doors import checksum, datagram
from .test_use import sysctl
from .world import Lab

CRATE = ("ip", "netns", "exec", "crate")
SERVERS = ("203.0.113.53", "192.0.2.53", "2001:db8:1::53")
TUNNELED = ("203.0.113.0/28", "2001:db8:1::10/124", "203.0.113.40", "2001:db8:1::40")


@contextmanager
def engine(lab: Lab) -> Iterator[None]:
    """A bridge with a container behind it, both families masqueraded, as an engine makes it when the daemon runs."""
    script = """
    ip link add engine0 type bridge && ip link set engine0 up
    ip address add 172.18.0.1/16 dev engine0 && ip address add fd00:18::1/64 dev engine0 nodad
    ip netns add crate && ip link add crate0 type veth peer name eth0 netns crate
    ip link set crate0 master engine0 up
    ip -n crate link set lo up && ip -n crate link set eth0 up
    ip -n crate address add 172.18.0.2/16 dev eth0 && ip -n crate address add fd00:18::2/64 dev eth0 nodad
    ip -n crate route add default via 172.18.0.1 && ip -n crate -6 route add default via fd00:18::1
    mkdir -p /etc/netns/crate && echo 'nameserver 192.0.2.53' >/etc/netns/crate/resolv.conf
    nft add table inet engine
    nft 'add chain inet engine nat { type nat hook postrouting priority srcnat; }'
    nft 'add rule inet engine nat ip saddr 172.18.0.0/16 oifname "eth0" masquerade'
    nft 'add rule inet engine nat ip6 saddr fd00:18::/64 oifname "eth0" masquerade'
    """
    with sysctl(lab, "net/ipv4/ip_forward", 1), sysctl(lab, "net/ipv6/conf/all/forwarding", 1):
        lab.client.run("sh", "-ec", script)
        try:
            yield
        finally:
            lab.client.run("sh", "-c", "nft delete table inet engine; ip netns del crate; ip link del engine0")


@pytest.fixture
def crate(machine: Machine) -> Iterator[Machine]:
    """The daemon runs, and then there is a container."""
    machine.start()
    with engine(machine.lab):
        machine.wait_for(lambda: prerouting_nat(machine).count("engine0") == 2, "the rules for the bridge")
        machine.wait_for(lambda: settled(machine), "the last of the changes")
        yield machine


def settled(machine: Machine) -> bool:
    """Whether nobody writes the rules anew: a packet that is counted meanwhile may be left out."""
    before = prerouting_nat(machine, "--handle")
    time.sleep(0.5)
    return prerouting_nat(machine, "--handle") == before


def prerouting_nat(machine: Machine, *options: str) -> str:
    return machine.lab.client.run("nft", *options, "list", "chain", "inet", "wg_routing", "prerouting_nat").stdout


def dig(machine: Machine, *words: str) -> str:
    """What dig in the container prints."""
    return machine.lab.client.run(*CRATE, "dig", "+tries=1", "+timeout=5", *words, check=False).stdout


def page(machine: Machine, *words: str) -> str:
    """As whom a site sees the container, by its name."""
    return machine.lab.client.run(*CRATE, "curl", "-s", "-m", "5", *words, check=False).stdout.strip()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_a_containers_question_to_anybody_is_answered_here(crate: Machine, server: str, transport: str) -> None:
    since = time.monotonic()
    with crate.lab.capture() as seen:
        said = dig(crate, f"@{server}", transport, "blocked.example")
    assert "203.0.113.40" in said and f"SERVER: {server}#53" in said
    assert "blocked.example" not in {asked.name for asked in crate.lab.asked_public(since)}
    assert seen.questions("blocked.example") == []
    assert seen.from_client_to(server) == []
    assert crate.status()["bypasses"]["redirected"] == 1


@pytest.mark.parametrize("server", SERVERS[1:])
def test_a_container_reaches_each_site_as_this_machine_does_from_the_first_packet_on(
    crate: Machine, server: str
) -> None:
    """200 fresh names: it asks somebody foreign, and connects in the very next system call."""
    lab = crate.lab
    traffic = (sys.executable, "-m", "tests.lab.traffic", "connect-at-once", f"--server={server}", "--count=100")

    def visit(what: str, kind: str) -> dict[str, int]:
        words = (f"--pattern=n{{}}.fresh.{what}.example", f"--kind={kind}")
        found: dict[str, int] = json.loads(lab.client.run(*CRATE, *traffic, *words, timeout=60).stdout.splitlines()[-1])
        return found

    with lab.capture() as seen:
        callers = [visit("tunneled", kind) for kind in ("A", "AAAA")]
        assert page(crate, "http://plain.example") == lab.client_v4
        assert page(crate, "-6", "http://plain.example") == lab.client_v6
        assert page(crate, "http://tunneled.example") == lab.vpn_v4
    assert callers == [{lab.vpn_v4: 100}, {lab.vpn_v6: 100}]
    assert seen.questions("tunneled.example") == []
    web = [packet for packet in seen.packets if packet.from_client and 80 in (packet.sport, packet.dport)]
    assert {packet.dst for packet in web} == {"203.0.113.20", "2001:db8:1::20"}


def test_while_the_tunnel_is_down_nothing_of_a_container_leaves_and_the_rest_goes_on(crate: Machine) -> None:
    lab = crate.lab
    assert page(crate, "http://tunneled.example") == lab.vpn_v4
    assert page(crate, "-6", "http://tunneled.example") == lab.vpn_v6
    for deed in (("splitwg", "down"), ("ip", "link", "del", "wg0")):
        if deed[0] == "splitwg":
            crate.splitwg("down")
        else:
            crate.splitwg("up")
            lab.client.run(*deed, check=False)
        with lab.capture() as seen:
            for address in ("203.0.113.10", "[2001:db8:1::10]") if deed[0] == "splitwg" else ():
                assert page(crate, "-g", "-m", "1", f"http://{address}") == ""
            for number in range(5):
                dig(crate, "+timeout=1", "@192.0.2.53", f"n{number}.fresh.tunneled.example")
            assert page(crate, "http://plain.example") == lab.client_v4
        assert seen.from_client_to(*TUNNELED) == [] and seen.sought(*TUNNELED) == []
        assert seen.questions("tunneled.example") == []
    crate.wait_for(lambda: page(crate, "http://tunneled.example") == lab.vpn_v4, "the tunnel")


def test_a_bridge_that_goes_takes_its_rules_and_doors_with_it_and_comes_back(crate: Machine) -> None:
    lab = crate.lab
    doors = ("ss", "-Hlnu", "sport = :253")
    assert len(lab.client.run(*doors).stdout.splitlines()) == 2
    lab.client.run("ip", "link", "set", "engine0", "down")
    crate.wait_for(lambda: "engine0" not in prerouting_nat(crate), "the rules to go")
    assert lab.client.run(*doors).stdout == ""
    lab.client.run("ip", "link", "set", "engine0", "up")
    lab.client.run("ip", "-6", "address", "replace", "fd00:18::1/64", "dev", "engine0", "nodad")
    crate.wait_for(lambda: prerouting_nat(crate).count("engine0") == 2, "the rules")
    assert "203.0.113.40" in dig(crate, "@192.0.2.53", "blocked.example")
    assert not crate.status()["differs"]


def test_the_redirect_is_switched_off_for_containers_too(crate: Machine) -> None:
    lab = crate.lab
    text = lab.client.read("/etc/splitwg/domains.toml")
    crate.configure(text.replace("[tunneled]", "redirect = false\n[tunneled]"))
    crate.wait_for(lambda: "dnat" not in prerouting_nat(crate), "the rules to go")
    with lab.capture() as seen:
        assert "203.0.113.20" in dig(crate, "@192.0.2.53", "plain.example")
    assert seen.from_client_to("192.0.2.53")
    crate.wait_for(lambda: lab.client.run("ss", "-Hlnu", "sport = :253").stdout == "", "the doors to close")
    crate.configure(text)
    crate.wait_for(lambda: "203.0.113.40" in dig(crate, "@192.0.2.53", "blocked.example"), "the answer")


TOO_BIG = """
import socket, sys
to = sys.argv[1]
six = ":" in to
level, discover, mtu = (41, 23, 24) if six else (0, 10, 14)
with socket.socket(10 if six else 2, 2) as sock:
    sock.setsockopt(level, discover, 2)
    sock.settimeout(3)
    sock.connect((to, 9))
    try:
        sock.send(bytes(1500 - (48 if six else 28)))
        sock.recv(10)
    except OSError:
        pass
    print(sock.getsockopt(level, mtu))
    sock.send(b"?")
    print(sock.recv(100).decode().strip())
"""


def test_a_container_learns_the_tunnels_mtu_and_nothing_of_it_leaves_in_clear(crate: Machine) -> None:
    lab = crate.lab
    with lab.capture() as seen:
        for kind, seen_as, address in (("A", lab.vpn_v4, "203.0.113.10"), ("AAAA", lab.vpn_v6, "2001:db8:1::10")):
            assert address in dig(crate, "@192.0.2.53", "tunneled.example", kind)
            said = lab.client.run(*CRATE, sys.executable, "-I", "-c", TOO_BIG, address).stdout.split()
            assert said == ["1420", seen_as]
    assert seen.from_client_to(*TUNNELED) == []
    assert [packet for packet in seen.packets if packet.from_client and packet.proto == "icmp"] == []


def test_row_58_nobody_on_the_uplink_is_answered_while_everything_is_forwarded(crate: Machine) -> None:
    """1,000 questions on the cable: to the doors, and to strangers by way of this machine."""
    lab = crate.lab
    targets = ("172.18.0.1", "fd00:18::1", lab.client_v4, lab.client_v6, "192.0.2.53", "2001:db8:1::53")
    mac, own = macs(lab)
    with lab.capture() as seen, inside(lab.isp), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as cable:
        cable.bind(("client", 0))
        for number in range(1000):
            target = targets[number % len(targets)]
            six = ":" in target
            source = f"2001:db8:c::{number + 256:x}" if six else f"198.51.100.{10 + number % 100}"
            asked = query(name(f"stranger{number}.plain.example"), edns=opt())
            packet = datagram(source, target, (53, 253)[number // len(targets) % 2], asked)
            cable.send(mac + own + (b"\x86\xdd" if six else b"\x08\0") + packet)
        time.sleep(0.5)
    answers = [p for p in seen.packets if p.from_client and p.proto == "udp" and p.sport in (53, 253)]
    assert answers == [] and seen.questions("plain.example") == []


def macs(lab: Lab) -> tuple[bytes, bytes]:
    """Of the client's end of the cable, and of the ISP's."""
    texts = (lab.client.read("/sys/class/net/eth0/address"), lab.isp.read("/sys/class/net/client/address"))
    mac, own = (bytes.fromhex(text.strip().replace(":", "")) for text in texts)
    return mac, own


def test_row_27_who_asks_the_wire_for_the_tunnels_own_address_is_not_answered(crate: Machine) -> None:
    """By ARP, which Linux answers for any address of the machine's, and by neighbour solicitations."""
    lab = crate.lab
    mac, own = macs(lab)
    everyone, all_nodes = b"\xff" * 6, b"\x33\x33\0\0\0\1"
    with inside(lab.isp), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as cable:
        cable.bind(("client", 0))
        for _ in range(50):
            for target in ("10.1.0.2", lab.client_v4):
                addresses = own + ip_address("198.51.100.1").packed + bytes(6) + ip_address(target).packed
                cable.send(everyone + own + b"\x08\x06\0\1\x08\0\6\4\0\1" + addresses)
            for target in ("fd00:10:1::2", lab.client_v6):
                cable.send(all_nodes + own + b"\x86\xdd" + solicitation(target, own))
        answered = told_of(cable, mac, seconds=1.5)
    assert answered == {lab.client_v4, lab.client_v6}


def solicitation(target: str, mac: bytes) -> bytes:
    """A neighbour solicitation (RFC 4861 §4.3) for this address."""
    source, to = ip_address("2001:db8:c::1").packed, ip_address("ff02::1").packed
    body = b"\x87\0\0\0\0\0\0\0" + ip_address(target).packed + b"\1\1" + mac
    total = checksum(source + to + struct.pack("!II", len(body), 58) + body)
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + to
    return head + body[:2] + struct.pack("!H", total) + body[4:]


def told_of(cable: socket.socket, mac: bytes, seconds: float) -> set[str]:
    """The addresses that this station says are its own, by ARP or neighbour advertisements."""
    found, end = set(), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        cable.settimeout(left)
        try:
            frame = cable.recv(2048)
        except TimeoutError:
            break
        if frame[6:12] != mac:
            continue
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2":
            found.add(str(ip_address(frame[28:32])))
        if frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 136:
            found.add(str(ip_address(frame[62:78])))
    return found


def test_row_27_nobody_on_the_uplink_finds_the_tunnels_own_address(crate: Machine) -> None:
    """1,000 packets to it, by UDP; the control shows that such packets are answered at another address."""
    lab = crate.lab
    mac, own = macs(lab)
    ours = ("10.1.0.2", "fd00:10:1::2")
    with lab.capture() as seen, inside(lab.isp), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as cable:
        cable.bind(("client", 0))
        for number in range(1000):
            target = ours[number % 2]
            six = ":" in target
            source = "2001:db8:c::1" if six else "198.51.100.1"
            whole = datagram(source, target, 9 + number % 60_000, b"are you there?")
            cable.send(mac + own + (b"\x86\xdd" if six else b"\x08\0") + whole)
        for target in (lab.client_v4, lab.client_v6):
            six = ":" in target
            whole = datagram("2001:db8:c::1" if six else "198.51.100.1", target, 9, b"and you?")
            cable.send(mac + own + (b"\x86\xdd" if six else b"\x08\0") + whole)
        time.sleep(0.5)
    told = [packet for packet in seen.packets if packet.from_client and packet.proto in ("icmp", "icmp6", "tcp", "udp")]
    assert [packet for packet in told if packet.src in ours] == []
    unreachable = [packet.src for packet in told if packet.proto in ("icmp", "icmp6") and not packet.sought]
    assert lab.client_v4 in unreachable and len(unreachable) <= 10


FOREIGN_MARKS = """
table inet other {
  chain out { type filter hook output priority -190; meta mark set meta mark | 0x40000; ct mark set ct mark | 0x80000; }
  chain in { type filter hook prerouting priority -190; iifname "engine0" meta mark set meta mark | 0x40000
    iifname "engine0" ct mark set ct mark | 0x80000; }
  chain after { type filter hook postrouting priority 200;
    udp dport 9 ip daddr 203.0.113.10 meta mark == 0x40001 ct mark == 0x80001 counter comment "tunneled"
    udp dport 9 ip daddr 203.0.113.20 meta mark == 0x40000 ct mark == 0x80000 counter comment "plain"
  }
}
"""
KNOCK = """
import socket
for number in range(100):
    for to in ("203.0.113.10", "203.0.113.20"):
        with socket.socket(2, 2) as sock:
            sock.sendto(b"?", (to, 9))
"""


@pytest.mark.parametrize("where", [(), CRATE], ids=["this machine", "a container"])
def test_row_67_marks_of_others_survive_100_of_100(crate: Machine, where: tuple[str, ...]) -> None:
    lab = crate.lab
    assert crate.dig("tunneled.example")
    lab.client.run("nft", FOREIGN_MARKS)
    try:
        lab.client.run(*where, sys.executable, "-I", "-c", KNOCK)
        listing = lab.client.run("nft", "list", "chain", "inet", "other", "after").stdout
    finally:
        lab.client.run("nft", "delete table inet other")
    assert re.findall(r'counter packets (\d+) .*comment "(\w+)"', listing) == [("100", "tunneled"), ("100", "plain")]
