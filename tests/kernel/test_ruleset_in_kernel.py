"""The table as the kernel keeps it, and what it does to real packets."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from splitwgd.config import Config
from splitwgd.errors import KernelError
from splitwgd.nft import Nft
from splitwgd.objects import Element, Route, Rule, Set, Table
from splitwgd.plan import Facts, Plan, make_plan
from splitwgd.ruleset import make_table
from splitwgd.status import bypasses
from splitwgd.transaction import read_table, table_text
from tests.kernel.spaces import Space, Wire, echoed, json_of, sh
from tests.kernel.test_reconciler import elements, insert
from tests.tables import DOWNLINKS
from tests.worlds import WG, ip, make_config

V4_ONLY = WG.replace(", fd00:10:1::2/64", "").replace(", ::/0", "")
CONFIGS = {
    "plain": make_config(),
    "one network of each family": make_config(networks='"198.51.100.0/24", "2001:db8::/32"'),
    "networks that overlap and touch": make_config(
        networks='"10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/25", "192.0.2.128/25", "192.0.2.7/32", '
        '"2001:db8::/33", "2001:db8:8000::/33", "2001:db8::1/128", "203.0.113.255/32", "0.0.0.0/8"'
    ),
    "the whole world": make_config(networks='"0.0.0.0/0", "::/0"'),
    "neighbours that are no network": make_config(networks='"192.0.2.1/32", "192.0.2.2/31", "192.0.2.4/30"'),
    "servers bypassed": make_config(dns='bypass = ["192.0.2.53", "2001:db8::53"]'),
    "no redirect": make_config(dns="redirect = false"),
    "resolvers bypassed": make_config(dns='bypass = ["8.8.8.8", "45.90.28.7", "2620:fe::fe"]'),
    "nothing refused": make_config(dns="redirect = false\nrefuse_tls = false\nrefuse_doh = false"),
    "DNS over TLS allowed": make_config(dns="refuse_tls = false"),
    "another mark": make_config(routing="fwmark = 0x20000\nfwmask = 0xff0000"),
    "the highest bit": make_config(routing="fwmark = 0x80000000\nfwmask = 0xc0000000"),
    "all bits": make_config(routing="fwmark = 51820\nfwmask = 0xffffffff"),
    "IPv4 only": make_config(wg=V4_ONLY),
    "several addresses": make_config(wg=WG.replace("10.1.0.2/24", "10.1.0.2/24, 10.9.0.1/32, fd00:9::1/128")),
    "split AllowedIPs": make_config(wg=WG.replace("0.0.0.0/0", "0.0.0.0/1, 128.0.0.0/1, 10.0.0.0/8, fd00:10:1::/64")),
}
FACTS: dict[str, tuple[Any, ...]] = {
    "": ((), frozenset()),
    "adopted": ((0xCA6C, 0x5), frozenset()),
    "down": ((), frozenset({"wg0"})),
    "for others": ((), frozenset(), DOWNLINKS),
}


def table_of(config: Config, facts: str = "") -> Table:
    return make_table(config, *FACTS[facts])


def found(nft: Nft) -> Table | None:
    return read_table(nft.list_table("wg_routing"))[0]


@pytest.mark.parametrize("facts", FACTS)
@pytest.mark.parametrize("config", CONFIGS)
def test_the_kernel_gives_back_what_it_was_told(nft: Nft, config: str, facts: str) -> None:
    wanted = table_of(CONFIGS[config], facts)
    nft.run(table_text(wanted, None))
    assert found(nft) == wanted
    nft.run(table_text(wanted, found(nft)))
    assert found(nft) == wanted


@pytest.mark.parametrize("config", CONFIGS)
def test_one_rewrite_leads_from_any_table_to_any_other_and_keeps_the_addresses(nft: Nft, config: str) -> None:
    plain = table_of(CONFIGS["plain"])
    nft.run(table_text(plain, None))
    insert("203.0.113.1", "a.example.com", 500)
    insert("2001:db8::1", "b.example.com", 400)
    before = elements()
    for wanted in (table_of(CONFIGS[config]), table_of(CONFIGS[config], "down"), plain):
        nft.run(table_text(wanted, found(nft)))
        assert found(nft) == wanted
        after = elements()
        assert {address: each.name for address, each in after.items()} == {a: e.name for a, e in before.items()}
        assert all(
            before[address].seconds - 60 < each.seconds <= before[address].seconds for address, each in after.items()
        )


@pytest.mark.parametrize(
    "old",
    [
        Set("wg_domains4", "ipv4_addr", frozenset({"timeout", "interval"})),
        Set("wg_domains4", "ipv4_addr", frozenset({"timeout"}), 3),
        Set("wg_domains4", "ipv6_addr", frozenset({"timeout"}), 65536),
    ],
    ids=str,
)
def test_a_set_of_another_shape_is_made_anew_with_its_addresses_in_the_same_transaction(nft: Nft, old: Set) -> None:
    plain = table_of(CONFIGS["plain"])
    others = tuple(set_ for set_ in plain.sets if set_.name != old.name)
    rules = "ip daddr @wg_domains4 counter" if old.type == "ipv4_addr" else "ip6 daddr @wg_domains4 counter"
    nft.run(table_text(Table(plain.name, (*others, old), ()), None))
    nft.run(f"add chain inet wg_routing extra; add rule inet wg_routing extra {rules}")
    kept = insert("2001:db8::1", "kept.example", 300)
    moved = Element("wg_domains4", ip("203.0.113.1").packed, "moved.example", 300)
    nft.run(table_text(plain, found(nft), [moved, Element(kept.set, kept.address, "not.written", 300)]))
    assert found(nft) == plain
    assert {each.name for each in elements().values()} == {"kept.example", "moved.example"}


def test_a_rewrite_takes_along_what_was_counted(house: House) -> None:
    for _ in range(3):
        assert refused(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), STRANGERS[0], 853)
    before = met()
    for facts in ("for others", "", "down", ""):
        Nft().run(table_text(table_of(HOUSE, facts), found(Nft())))
        assert met() == before
    assert refused(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), STRANGERS[0], 853)
    assert met() == {"refused_tls": before["refused_tls"] + 1}


HANDS = [
    "nft flush chain inet wg_routing output",
    "nft delete rule inet wg_routing output handle $(nft -a list chain inet wg_routing output"
    " | sed -n 's/.*handle \\([0-9]*\\)$/\\1/p' | tail -1)",
    "nft insert rule inet wg_routing output accept",
    "nft add rule inet wg_routing postrouting counter comment '\"mine\"'",
    "nft delete chain inet wg_routing last_door",
    "nft add chain inet wg_routing mine",
    "nft add chain inet wg_routing mine '{ type filter hook output priority -300; policy drop; }'",
    "nft add set inet wg_routing mine '{ type ipv4_addr; }'",
    "nft delete element inet wg_routing wg_networks4 '{ 198.51.100.0/24 }'",
    "nft add element inet wg_routing wg_networks4 '{ 192.0.2.0/24 }'",
    "nft flush table inet wg_routing; nft delete set inet wg_routing wg_domains4",
    "nft flush table inet wg_routing; nft delete set inet wg_routing wg_networks6;"
    " nft add set inet wg_routing wg_networks6 '{ type ipv6_addr; }'",
    "nft delete chain inet wg_routing refuse; nft add chain inet wg_routing refuse"
    " '{ type filter hook output priority 7; }'",
    "nft add chain inet wg_routing mine; nft add rule inet wg_routing output jump mine;"
    " nft add rule inet wg_routing mine ip daddr @wg_domains4 accept",
    "nft chain inet wg_routing output '{ policy drop; }'",
    "nft add table inet wg_routing '{ flags dormant; }'",
    "nft add map inet wg_routing mine '{ type ipv4_addr : verdict; }'",
]


@pytest.mark.parametrize("deed", HANDS)
def test_what_was_changed_by_hand_is_seen_and_put_right_by_one_rewrite(nft: Nft, deed: str) -> None:
    wanted = table_of(make_config(networks='"198.51.100.0/24"'))
    nft.run(table_text(wanted, None))
    insert("2001:db8::1")
    before = ruleset_text()
    sh(deed)
    assert ruleset_text() != before
    assert found(nft) != wanted
    nft.run(table_text(wanted, found(nft)))
    assert found(nft) == wanted
    assert "2001:db8::1" in elements()
    assert ruleset_text() == before


def ruleset_text() -> str:
    """All of it, in a fixed order and without what counts by itself."""
    listing = json_of("nft -j list ruleset")["nftables"]
    text = [re.sub(r"'(handle|packets|bytes|expires)': \d+", "", str(item)) for item in listing[1:]]
    rules = [line for line in text if line.startswith("{'rule'")]
    return "\n".join(
        [*sorted(line for line in text if line not in rules), *sorted(rules, key=lambda r: r.split("chain")[1][:20])]
    )


def test_a_table_that_the_kernel_refuses_changes_nothing(nft: Nft) -> None:
    plain = table_of(CONFIGS["plain"])
    nft.run(table_text(plain, None))
    insert("203.0.113.1")
    before = ruleset_text()
    with pytest.raises(KernelError):
        nft.run(table_text(table_of(CONFIGS["no redirect"]), found(nft)) + "\nadd rule inet wg_routing nowhere accept")
    assert ruleset_text() == before


# -- packets


class House:
    """A host whose uplink and whose tunnel end in the test."""

    def __init__(self, wire: Callable[[str, str], Wire], config: Config, down: bool = False, **facts: Any) -> None:
        self.uplink = wire("eth0", "tap")
        self.tunnel = wire("wg0", "tun")
        lines = [
            "addr add 198.51.100.2/24 dev eth0",
            "addr add 2001:db8:c::2/64 dev eth0",
            "neigh add 198.51.100.1 lladdr 02:00:00:00:00:01 dev eth0",
            "neigh add 2001:db8:c::1 lladdr 02:00:00:00:00:01 dev eth0",
            "route add default via 198.51.100.1",
            "route add default via 2001:db8:c::1",
            *(f"addr add {address} dev wg0" for address in config.tunnels[0].wireguard.addresses),
        ]
        batches: dict[int, list[str]] = {4: [], 6: []}
        plan = make_plan(config, Facts(**{"adopted": {"wg0": 0}, "down": frozenset({"wg0"} if down else ()), **facts}))
        for obj in plan.objects.values():
            if isinstance(obj, Table):
                Nft().run(table_text(obj, None))
            elif isinstance(obj, Rule):
                mark = f"fwmark {obj.mark:#x}/{obj.mask:#x}"
                batches[obj.family].append(f"rule add priority {obj.priority} {mark} lookup {obj.table}")
            elif isinstance(obj, Route):
                into = f"default dev {obj.link}" if obj.link else "blackhole default"
                batches[obj.family].append(f"route add {into} table {obj.table} metric {obj.metric}")
        commands = [("ip", lines), ("ip -4", batches[4]), ("ip -6", batches[6])]
        sh("\n".join(f"{ip_} -batch - <<'END' || exit\n{chr(10).join(batch)}\nEND" for ip_, batch in commands))
        sh("sysctl -qw net.ipv4.conf.wg0.rp_filter=2")
        for address in MEMBERS:
            insert(address)


MEMBERS = ["203.0.113.1", "2001:db8:1::1"]
STRANGERS = ["203.0.113.2", "2001:db8:1::2"]
HOUSE = make_config(networks='"192.0.2.0/24", "2001:db8:2::/48"')


@pytest.fixture
def house(wire: Callable[[str, str], Wire]) -> House:
    return House(wire, HOUSE)


@contextlib.contextmanager
def udp(to: str, mark: int | None = None, device: str | None = None) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        if mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if device is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        yield sock


def send(to: str, token: bytes, mark: int | None = None, device: str | None = None, port: int = 4444) -> None:
    with udp(to, mark, device) as sock, contextlib.suppress(OSError):
        sock.sendto(token, (to, port))


def all_is_sent(house: House, wire: Wire) -> None:
    """After this a packet that was not seen on this wire will not come: it would have come before this one."""
    if wire is house.uplink:
        send(STRANGERS[0], b"sentinel")
    else:
        send(MEMBERS[0], b"sentinel")
    wire.wait_for(b"sentinel")


@pytest.mark.parametrize("to", [*MEMBERS, "192.0.2.200", "2001:db8:2::200"])
def test_what_is_for_a_member_takes_the_tunnel_with_the_tunnels_source(house: House, to: str) -> None:
    send(to, b"to a member")
    packet = house.tunnel.wait_for(b"to a member")
    source = ip("10.1.0.2" if packet[0] >> 4 == 4 else "fd00:10:1::2").packed
    assert source in packet[:40]
    all_is_sent(house, house.uplink)
    assert not house.uplink.carried(b"to a member")


@pytest.mark.parametrize("to", STRANGERS)
def test_what_is_for_others_takes_the_uplink(house: House, to: str) -> None:
    send(to, b"to others")
    house.uplink.wait_for(b"to others")
    all_is_sent(house, house.tunnel)
    assert not house.tunnel.carried(b"to others")


@pytest.mark.parametrize("to", MEMBERS)
@pytest.mark.parametrize("mark", [0xFE, 0x4_00FE])
def test_a_socket_with_the_direct_mark_is_not_tunneled(house: House, to: str, mark: int) -> None:
    send(to, b"direct", mark)
    house.uplink.wait_for(b"direct")
    assert not house.tunnel.carried(b"direct")


@pytest.mark.parametrize("to", STRANGERS)
def test_a_socket_with_the_tunnels_mark_is_tunneled_wherever_it_goes(house: House, to: str) -> None:
    send(to, b"marked", 0x1)
    house.tunnel.wait_for(b"marked")
    all_is_sent(house, house.uplink)
    assert not house.uplink.carried(b"marked")


FOREIGN_MARKS = """
table inet other {
  chain before { type filter hook output priority -190;
    meta mark set meta mark | 0x40000; ct mark set ct mark | 0x80000;
  }
  chain after { type filter hook postrouting priority 200;
    udp dport 4444 meta mark & 0xffffffff == 0x40001 ct mark & 0xffffffff == 0x80001 counter comment "tunneled"
    udp dport 4444 meta mark & 0xffffffff == 0x40000 ct mark & 0xffffffff == 0x80000 counter comment "plain"
  }
}
"""


@pytest.mark.parametrize("place", [0, 1])
def test_bits_outside_the_mask_are_left_as_they_are(house: House, place: int) -> None:
    sh(f"nft '{FOREIGN_MARKS}'")
    send(MEMBERS[place], b"tunneled")
    send(STRANGERS[place], b"plain")
    house.tunnel.wait_for(b"tunneled")
    house.uplink.wait_for(b"plain")
    listing = sh("nft list chain inet other after")
    assert re.findall(r'counter packets (\d+) .*comment "(\w+)"', listing) == [("1", "tunneled"), ("1", "plain")]


def test_an_answer_through_the_tunnel_reaches_the_socket_and_its_flow_stays_there(house: House) -> None:
    with udp(MEMBERS[0]) as sock:
        sock.sendto(b"question", (MEMBERS[0], 4444))
        house.tunnel.send(echoed(house.tunnel.wait_for(b"question")))
        assert sock.recv(100) == b"question"
        Nft().run(f"delete element inet wg_routing wg_domains4 {{ {MEMBERS[0]} }}")
        sock.sendto(b"once more", (MEMBERS[0], 4444))
        house.tunnel.wait_for(b"once more")
        all_is_sent_after_removal(house)
        assert not house.uplink.carried(b"once more")


def all_is_sent_after_removal(house: House) -> None:
    send(STRANGERS[1], b"sentinel")
    house.uplink.wait_for(b"sentinel")


@pytest.mark.parametrize("place", [0, 1])
def test_a_flow_from_before_its_address_was_learned_is_refused_and_another_goes_into_the_tunnel(
    house: House, place: int
) -> None:
    """In the tunnel it would get no answer: NAT has let its source pass."""
    to = STRANGERS[place]
    with udp(to) as sock:
        sock.connect((to, 4444))
        sock.send(b"early")
        house.uplink.wait_for(b"early")
        insert(to)
        with pytest.raises(OSError):
            sock.send(b"late")
    send(to, b"another")
    house.tunnel.wait_for(b"another")
    assert not house.tunnel.carried(b"late")
    send(STRANGERS[1 - place], b"sentinel")
    house.uplink.wait_for(b"sentinel")
    assert not house.uplink.carried(b"late")


@pytest.mark.parametrize("place", [0, 1])
def test_of_an_ended_flow_nothing_leaves_and_others_to_the_same_address_go_on(house: House, place: int) -> None:
    to = MEMBERS[place]
    with udp(to) as kept, udp(to) as ended:
        for sock in (kept, ended):
            sock.sendto(b"begun", (to, 4444))
            house.tunnel.wait_for(b"begun")
        sh(f"conntrack -U -d {to} -p udp --sport {ended.getsockname()[1]} --mark 0xff/0xff")
        with pytest.raises(OSError):
            ended.sendto(b"ended", (to, 4444))
        kept.sendto(b"goes on", (to, 4444))
    house.tunnel.wait_for(b"goes on")
    assert not house.tunnel.carried(b"ended")
    all_is_sent(house, house.uplink)
    assert not house.uplink.carried(b"ended")


# -- the last door


@pytest.mark.parametrize("to", MEMBERS)
def test_nothing_for_a_member_leaves_by_a_socket_that_is_bound_to_the_uplink(house: House, to: str) -> None:
    send(to, b"bound", device="eth0")
    all_is_sent(house, house.uplink)
    assert not house.uplink.carried(b"bound")
    assert not [packet for packet in house.uplink.drain() if ip(to).packed in packet]  # no ARP, no solicitation


@pytest.mark.parametrize("to", MEMBERS)
@pytest.mark.parametrize(
    "deed",
    [
        "ip rule flush; ip rule add lookup main; ip -6 rule flush; ip -6 rule add lookup main",
        "ip route flush table 100; ip -6 route flush table 100",
        "ip rule add priority 1 lookup main; ip -6 rule add priority 1 lookup main",
        "ip link del wg0",
        "ip link set wg0 down",
        "ip route add default via 198.51.100.1 table 100; ip -6 route add default via 2001:db8:c::1 table 100 metric 1",
    ],
)
def test_the_last_door_holds_whatever_happened_to_the_routes(house: House, deed: str, to: str) -> None:
    sh(deed)
    send(to, b"astray")
    send(STRANGERS[0], b"sentinel")
    house.uplink.wait_for(b"sentinel")
    assert not house.uplink.carried(b"astray")
    assert not [packet for packet in house.uplink.drain() if ip(to).packed in packet]


def test_who_asks_for_the_tunnels_own_address_from_the_uplink_is_not_answered(house: House) -> None:
    """CVE-2019-14899."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 4444))
        sock.settimeout(10)
        house.uplink.send(frame("198.51.100.77", "10.1.0.2", b"probe", house))
        house.uplink.send(frame("198.51.100.77", "198.51.100.2", b"honest", house))
        assert sock.recv(100) == b"honest"


def frame(source: str, to: str, payload: bytes, house: House, port: int = 4444) -> bytes:
    """Ethernet, IPv4 and UDP without a checksum."""
    mac = bytes.fromhex(json_of("ip -j link show eth0")[0]["address"].replace(":", ""))
    length = 28 + len(payload)
    head = bytes([0x45, 0]) + length.to_bytes(2, "big") + bytes([0, 0, 0, 0, 64, 17, 0, 0])
    head += ip(source).packed + ip(to).packed
    total = sum(int.from_bytes(head[place : place + 2], "big") for place in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + (~total & 0xFFFF).to_bytes(2, "big") + head[12:]
    datagram = (
        (4444).to_bytes(2, "big") + port.to_bytes(2, "big") + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
    )
    return mac + bytes.fromhex("020000000001") + b"\x08\x00" + head + datagram


# -- port 53


@pytest.fixture
def resolver(space: Space) -> Iterator[dict[str, socket.socket]]:
    """What listens on port 53 of this machine."""
    doors = {}
    for name, family, kind, address in (
        ("udp4", socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"),
        ("udp6", socket.AF_INET6, socket.SOCK_DGRAM, "::1"),
        ("tcp4", socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"),
        ("tcp6", socket.AF_INET6, socket.SOCK_STREAM, "::1"),
    ):
        door = doors[name] = socket.socket(family, kind)
        door.settimeout(10)
        door.bind((address, 53))
        if kind == socket.SOCK_STREAM:
            door.listen()
    yield doors
    for door in doors.values():
        door.close()


@pytest.mark.parametrize("to", [*STRANGERS, *MEMBERS])
def test_every_question_of_root_is_redirected_and_answered_in_the_servers_name(
    house: House, resolver: dict[str, socket.socket], to: str
) -> None:
    family = "6" if ":" in to else "4"
    with udp(to) as sock:
        sock.sendto(b"question", (to, 53))
        data, client = resolver[f"udp{family}"].recvfrom(100)
        resolver[f"udp{family}"].sendto(b"answer to " + data, client)
        answer, source = sock.recvfrom(100)
    assert (answer, source[0]) == (b"answer to question", to)
    with socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET) as sock:
        sock.settimeout(10)
        sock.connect((to, 53))
        connection, _ = resolver[f"tcp{family}"].accept()
        connection.close()
        assert sock.getpeername()[0] == to


@pytest.mark.parametrize(("mark", "way"), [(0xFE, "uplink"), (0x1, "tunnel"), (0x100FE, "uplink"), (0x10001, "tunnel")])
@pytest.mark.parametrize("to", STRANGERS)
def test_our_own_questions_are_not_redirected(house: House, to: str, mark: int, way: str) -> None:
    send(to, b"of ours", mark, port=53)
    getattr(house, way).wait_for(b"of ours")


@pytest.mark.parametrize("port", [53, 853])
@pytest.mark.parametrize("to", STRANGERS)
def test_outer_packets_of_an_adopted_link_are_no_questions_whatever_their_endpoints_port(
    wire: Callable[[str, str], Wire], to: str, port: int
) -> None:
    house = House(wire, HOUSE, adopted={"wg0": 0xCA6C})
    send(to, b"sealed", 0xCA6C, port=port)
    house.uplink.wait_for(b"sealed")
    assert met() == {}


@pytest.mark.parametrize("mark", [0x2, 0x100, 0xFF, 0x4_0000])
def test_other_marks_are_no_way_past_the_redirect(house: House, resolver: dict[str, socket.socket], mark: int) -> None:
    send(STRANGERS[0], b"question", mark, port=53)
    assert resolver["udp4"].recv(100) == b"question"


@pytest.mark.parametrize("to", ["192.0.2.53", "2001:db8::53"])
def test_a_bypassed_server_is_left_alone(wire: Callable[[str, str], Wire], to: str) -> None:
    house = House(wire, make_config(dns='bypass = ["192.0.2.53", "2001:db8::53"]'))
    send(to, b"bypassed", port=53)
    house.uplink.wait_for(b"bypassed")


def test_without_the_redirect_port_53_is_a_port_like_others(wire: Callable[[str, str], Wire]) -> None:
    house = House(wire, make_config(dns="redirect = false"))
    send(STRANGERS[0], b"to others", port=53)
    house.uplink.wait_for(b"to others")
    send(MEMBERS[0], b"to a member", port=53)
    house.tunnel.wait_for(b"to a member")


def test_a_server_on_this_machine_is_reached_at_its_own_address(house: House) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(10)
        server.bind(("127.0.0.77", 53))
        send("127.0.0.77", b"to the local one", port=53)
        assert server.recv(100) == b"to the local one"


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_link_local_server_is_refused_at_once(house: House, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET6, kind) as sock:
        sock.settimeout(1)
        with pytest.raises((ConnectionRefusedError, PermissionError)):
            sock.connect(("fe80::53", 53, 0, socket.if_nametoindex("eth0")))
            for _ in range(2):
                sock.send(b"question")
    assert not house.uplink.carried(b"question")


# -- a host without IPv6 outside


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_without_an_ipv6_uplink_members_are_tunneled_and_others_fail_at_once(
    house: House, kind: socket.SocketKind
) -> None:
    sh("ip -6 route del default via 2001:db8:c::1; ip -6 addr del 2001:db8:c::2/64 dev eth0")
    send(MEMBERS[1], b"to a member")
    house.tunnel.wait_for(b"to a member")
    with socket.socket(socket.AF_INET6, kind) as sock:
        sock.settimeout(10)
        with pytest.raises((ConnectionRefusedError, PermissionError)):
            sock.connect((STRANGERS[1], 4444))
            sock.send(b"to others")
    assert not house.tunnel.carried(ip(STRANGERS[1]).packed)
    chain = sh("nft list chain inet wg_routing refuse")
    tries = sum(int(count) for count in re.findall(r"counter packets (\d+) .*no v6 default route", chain))
    assert tries == 1  # TCP tries again after a second when it did not heed the first refusal


# -- down on purpose


@pytest.mark.parametrize("to", MEMBERS)
def test_while_the_tunnel_is_down_its_destinations_are_refused_at_once(
    wire: Callable[[str, str], Wire], to: str
) -> None:
    house = House(wire, make_config(), down=True)
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET) as sock:
        sock.settimeout(10)
        with pytest.raises(ConnectionRefusedError):
            sock.connect((to, 443))
    with udp(to) as sock:
        sock.connect((to, 4444))
        with pytest.raises(PermissionError):
            for _ in range(2):
                sock.send(b"to a member")
    send(STRANGERS[0], b"sentinel")
    house.uplink.wait_for(b"sentinel")
    assert not [packet for packet in house.uplink.drain() if ip(to).packed in packet]


# -- forwarded packets


@pytest.fixture
def container(house: House, another: Callable[[], Space]) -> Space:
    """A namespace behind a veth, as a container has it."""
    inside = another()
    sh(f"ip link add docker0 type veth peer name eth0 netns {inside.path}")
    sh("ip link set docker0 up; ip addr add 172.17.0.1/16 dev docker0; ip addr add fd00:17::1/64 dev docker0")
    sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0")
    sh("ip -6 route replace default via 2001:db8:c::1 dev eth0")
    with inside.inside():
        sh("ip addr add 172.17.0.2/16 dev eth0; ip addr add fd00:17::2/64 dev eth0; ip link set eth0 up")
        sh("ip route add default via 172.17.0.1; ip -6 route add default via fd00:17::1")
    return inside


@pytest.mark.parametrize("place", [0, 1])
def test_what_a_container_sends_to_a_member_takes_the_tunnel_and_is_answered(
    house: House, container: Space, place: int
) -> None:
    with container.inside():
        sock = socket.socket(socket.AF_INET6 if place else socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(10)
        for number in range(3):
            sock.sendto(b"question %d" % number, (MEMBERS[place], 4444))
            packet = house.tunnel.wait_for(b"question %d" % number)
            assert ip(("10.1.0.2", "fd00:10:1::2")[place]).packed in packet[:40]
            house.tunnel.send(echoed(packet))
            assert sock.recv(100) == b"question %d" % number
        sock.sendto(b"to others", (STRANGERS[place], 4444))
        house.uplink.wait_for(b"to others")
    assert not house.uplink.carried(b"question")
    assert not house.tunnel.carried(b"to others")


@pytest.mark.parametrize("place", [0, 1])
def test_what_a_container_sends_to_a_member_stays_in_when_the_tunnel_is_gone(
    house: House, container: Space, place: int
) -> None:
    sh("ip link set wg0 down; ip rule flush; ip rule add lookup main; ip -6 rule flush; ip -6 rule add lookup main")
    with container.inside():
        sock = socket.socket(socket.AF_INET6 if place else socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.sendto(b"astray", (MEMBERS[place], 4444))
        sock.sendto(b"sentinel", (STRANGERS[place], 4444))
        house.uplink.wait_for(b"sentinel")
    assert not house.uplink.carried(b"astray")


def test_the_mss_is_clamped_to_the_tunnel(house: House) -> None:
    sh("ip link set wg0 mtu 1280")
    with socket.socket(socket.AF_INET) as sock:
        sock.setblocking(False)
        sock.connect_ex((MEMBERS[0], 443))
        syn = house.tunnel.wait_for(ip(MEMBERS[0]).packed)
    assert syn[33] & 0x12 == 0x02
    assert syn[40:44] == b"\x02\x04" + (1280 - 40).to_bytes(2, "big")


# -- other ways to ask

RESOLVERS = ["8.8.8.8", "2001:4860:4860::8888", "45.90.28.33", "2a07:a8c0::1:2345"]
WAYS = [(to, port) for to in (*STRANGERS, *MEMBERS) for port in (53, 853)] + [(to, 443) for to in RESOLVERS]
OTHER_WAYS = [(to, port) for to, port in WAYS if port != 53]


def refused(sock: socket.socket, to: str, port: int) -> bool:
    """Whether an error comes at once; else nothing does, since the test is the other end."""
    with sock:
        sock.settimeout(1)
        try:
            sock.connect((to, port))
            sock.send(b"asked elsewhere")
            sock.recv(100)
        except TimeoutError:
            return False
        except OSError:
            return True
    raise AssertionError("somebody has answered")


def sent_to(house: House, to: str, port: int) -> list[bytes]:
    """The packets so far that have left for this address and port; the destination ends the fixed header of IP."""
    wanted, packets = ip(to).packed, [*house.uplink.drain(), *house.tunnel.drain()]
    ends = ((packet, packet.find(wanted) + len(wanted)) for packet in packets if wanted in packet)
    return [packet for packet, end in ends if packet[end + 2 : end + 4] == port.to_bytes(2, "big")]


def met() -> dict[str, int]:
    table = found(Nft())
    assert table is not None
    return {kind: count for kind, count in bypasses(Plan.of([table])).items() if count}


KINDS = pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])


@KINDS
@pytest.mark.parametrize(("to", "port"), OTHER_WAYS)
def test_who_asks_another_way_is_refused_at_once_and_counted(
    house: House, to: str, port: int, kind: socket.SocketKind
) -> None:
    assert refused(socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, kind), to, port)
    all_is_sent(house, house.uplink)
    all_is_sent(house, house.tunnel)
    assert not sent_to(house, to, port)
    assert met() == {{853: "refused_tls", 443: "refused_https"}[port]: 1}


@pytest.mark.parametrize(("to", "port"), [(to, 443) for to in STRANGERS] + [(to, 8443) for to in RESOLVERS])
def test_web_sites_and_other_ports_of_resolvers_are_let_through(house: House, to: str, port: int) -> None:
    send(to, b"let through", port=port)
    house.uplink.wait_for(b"let through")
    assert met() == {}


@pytest.mark.parametrize(("mark", "way"), [(0xFE, "uplink"), (0x1, "tunnel")])
@pytest.mark.parametrize(("to", "port"), OTHER_WAYS)
def test_our_own_sockets_ask_whom_they_like(house: House, to: str, port: int, mark: int, way: str) -> None:
    send(to, b"of ours", mark, port=port)
    getattr(house, way).wait_for(b"of ours")
    assert met() == {}


@pytest.mark.parametrize("port", [53, 443, 853])
@pytest.mark.parametrize("to", RESOLVERS[:2])
def test_a_bypassed_server_may_be_asked_in_every_way(wire: Callable[[str, str], Wire], to: str, port: int) -> None:
    house = House(wire, make_config(dns=f'bypass = ["{RESOLVERS[0]}", "{RESOLVERS[1]}"]'))
    send(to, b"bypassed", port=port)
    house.uplink.wait_for(b"bypassed")


@pytest.mark.parametrize("to", RESOLVERS[:2])
def test_a_resolver_that_is_tunneled_is_asked_through_the_tunnel(house: House, to: str) -> None:
    insert(to)
    send(to, b"tunneled", port=443)
    house.tunnel.wait_for(b"tunneled")
    assert met() == {}


@pytest.mark.parametrize(("to", "port"), WAYS)
def test_a_socket_from_before_the_rules_does_not_get_past_them(house: House, to: str, port: int) -> None:
    """Conntrack has its flow then, and NAT will not look at it again."""
    sh("nft 'table inet wall { chain c { type filter hook output priority 0; ct state new; }; }'")
    table = found(Nft())
    sh("nft flush table inet wg_routing")
    with udp(to) as sock:
        sock.connect((to, port))
        sock.send(b"early")
        house.uplink.wait_for(b"early")
        Nft().run(table_text(make_table(HOUSE), table))
        with pytest.raises(PermissionError):
            sock.send(b"late")
    all_is_sent(house, house.uplink)
    assert not house.uplink.carried(b"late") and not house.tunnel.carried(b"late")
    assert list(met().values()) == [1]


@KINDS
def test_a_container_is_refused_every_other_way_and_plain_questions_too(
    house: House, container: Space, kind: socket.SocketKind
) -> None:
    for to, port in WAYS:
        with container.inside():
            sock = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, kind)
        assert refused(sock, to, port), (to, port)
    all_is_sent(house, house.uplink)
    all_is_sent(house, house.tunnel)
    for to, port in WAYS:
        assert not sent_to(house, to, port)
    assert met() == {"refused_plain": 4, "refused_tls": 4, "refused_https": 4}


def from_container(container: Space, to: str, port: int, token: bytes) -> None:
    with container.inside():
        sock = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.sendto(token, (to, port))


def test_a_container_is_let_through_to_what_is_no_resolver_or_is_tunneled(house: House, container: Space) -> None:
    insert(RESOLVERS[0])
    from_container(container, RESOLVERS[0], 443, b"a tunneled resolver")
    house.tunnel.wait_for(b"a tunneled resolver")
    for to, port in ((STRANGERS[0], 443), (STRANGERS[1], 443), (RESOLVERS[1], 8443)):
        from_container(container, to, port, b"to %d" % port)
        house.uplink.wait_for(b"to %d" % port)
        house.uplink.seen.clear()
    assert met() == {}


def test_what_a_container_engine_leads_to_a_server_reaches_it(house: House, container: Space) -> None:
    engine = "table inet engine { chain c { type nat hook prerouting priority -100; udp dport 53 dnat ip to %s; }; }"
    sh(f"nft '{engine % '203.0.113.9'}'")
    from_container(container, STRANGERS[0], 53, b"led on purpose")
    assert ip("203.0.113.9").packed in house.uplink.wait_for(b"led on purpose")
    assert met() == {}
