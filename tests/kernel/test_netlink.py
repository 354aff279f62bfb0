"""The hand on links, rules, routes and flows: what it puts is found as planned, and nothing else is touched."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_interface

import pytest

from splitwgd.errors import KernelError
from splitwgd.netlink import ALIAS, PROTOCOL, Netlink
from splitwgd.objects import Link, LooseReversePath, Object, Route, Rule, Surroundings
from splitwgd.sysctls import loosen, tighten
from tests.kernel.spaces import Wire, json_of, sh
from tests.worlds import ip

LINK = Link("wg0", 1400, frozenset(map(ip_interface, ("10.1.0.2/24", "fd00:10:1::2/64"))))
RULES = [Rule(4, 100, 0x1, 0xFF, 100), Rule(6, 100, 0x1, 0xFF, 100), Rule(4, 32765, 0x80000000, 0xFFFF0000, 4000000000)]
CLOSED = [Route(4, 100, None, 200), Route(6, 100, None, 200)]
OPEN = [Route(4, 100, "wg0", 100), Route(6, 100, "wg0", 100), Route(6, 254, "wg0", 4294967295)]
FOREIGN = """
ip link add other type veth peer name far
ip link set far up
ip addr add 192.0.2.1/24 dev other
ip addr add 2001:db8:f::1/64 dev other
ip link set other up alias splitwgX
ip route add default via 192.0.2.254 dev other
ip route add default dev other table 100 metric 5
ip route add blackhole default table 100 metric 6 proto 84
ip -6 route add default dev other table 100 metric 5
ip rule add fwmark 0x1/0xff lookup 100 priority 100 proto 84
ip rule add fwmark 0x1/0xff lookup 100 priority 101
ip -6 rule add from 2001:db8:f::/64 lookup 100 priority 90
sysctl -qw net.ipv4.conf.other.rp_filter=2
"""


def world() -> str:
    """All that must survive, as the tools print it."""
    links = "ip -d link; ip addr; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all"
    seen = sh(f"{links}; sysctl -a --pattern 'net.ipv[46].conf' 2>/dev/null; nft list ruleset")
    return re.sub(r"(valid_lft|preferred_lft|expires) \S+", "", seen)


@pytest.fixture
def wg0(wire: Callable[[str, str], Wire]) -> Wire:
    """A link that can stand for the tunnel's."""
    made = wire("wg0", "tun")
    sh("ip link set wg0 down")
    return made


@pytest.mark.parametrize("obj", [*RULES, *CLOSED], ids=str)
def test_what_is_put_is_found_and_what_is_removed_is_gone(netlink: Netlink, obj: Rule | Route) -> None:
    put, remove = _verbs(netlink, obj)
    put(obj)
    put(obj)  # that it is so already is no error
    assert netlink.observe(()) == [obj]
    remove(obj)
    remove(obj)
    assert netlink.observe(()) == []


def _verbs(netlink: Netlink, obj: Rule | Route) -> tuple[Callable[..., None], Callable[..., None]]:
    if isinstance(obj, Rule):
        return netlink.put_rule, netlink.remove_rule
    return netlink.put_route, netlink.remove_route


@pytest.mark.parametrize("route", OPEN, ids=str)
def test_a_route_into_the_link_is_found_as_planned(netlink: Netlink, wg0: Wire, route: Route) -> None:
    netlink.put_link(LINK)
    netlink.put_route(route)
    netlink.put_route(route)
    assert set(netlink.observe(())) == {LINK, route}
    netlink.remove_route(route)
    netlink.remove_route(route)
    assert netlink.observe(()) == [LINK]


def test_a_route_into_a_link_that_is_not_there_says_so(netlink: Netlink) -> None:
    with pytest.raises(KernelError, match="default dev wg0 table 100 metric 100: there is no link wg0"):
        netlink.put_route(OPEN[0])
    with pytest.raises(KernelError, match="no such link"):
        netlink.put_link(LINK)


def test_the_blackhole_stays_when_the_link_goes(netlink: Netlink, wg0: Wire) -> None:
    for route in CLOSED:
        netlink.put_route(route)
    netlink.put_link(LINK)
    for route in OPEN:
        netlink.put_route(route)
    sh("ip link del wg0")
    assert netlink.observe(()) == CLOSED


SPOILS = [
    "ip link set wg0 mtu 1300",
    "ip link set wg0 down",
    "ip addr add 192.168.7.1/24 dev wg0",
    "ip addr add 2001:db8:7::1/64 dev wg0",
    "ip addr del 10.1.0.2/24 dev wg0",
    "ip addr del fd00:10:1::2/64 dev wg0",
]


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_link_that_was_changed_by_hand_is_seen_and_mended(netlink: Netlink, wg0: Wire, spoil: str) -> None:
    netlink.put_link(LINK)
    sh(spoil)
    assert netlink.observe(()) != [LINK]
    netlink.put_link(LINK)
    assert netlink.observe(()) == [LINK]


def test_a_point_to_point_address_that_is_not_ours_is_mended(netlink: Netlink, wg0: Wire) -> None:
    netlink.put_link(LINK)
    sh("ip addr add 192.168.7.1 peer 192.168.7.2/32 dev wg0")
    netlink.put_link(LINK)
    assert netlink.observe(()) == [LINK]


def test_the_link_local_address_that_the_kernel_adds_is_no_difference(netlink: Netlink, wg0: Wire) -> None:
    netlink.put_link(LINK)
    sh("ip addr add fe80::7/64 dev wg0")
    assert netlink.observe(()) == [LINK]


def test_only_a_link_with_our_alias_is_ours(netlink: Netlink, wg0: Wire) -> None:
    assert (netlink.kind("wg0"), netlink.is_ours("wg0")) == ("tun", False)
    sh("ip link set wg0 alias splitwgX")
    assert not netlink.is_ours("wg0")
    assert netlink.observe(()) == []
    netlink.remove_link("wg0")
    assert netlink.kind("wg0") == "tun"
    sh(f"ip link set wg0 alias {ALIAS}")
    assert netlink.is_ours("wg0")
    netlink.remove_link("wg0")
    assert netlink.kind("wg0") is None
    assert not netlink.is_ours("wg0")
    netlink.remove_link("wg0")


def test_what_is_ours_goes_and_everything_else_stays_to_the_byte(netlink: Netlink, wg0: Wire) -> None:
    sh("ip link del wg0")
    sh(FOREIGN)
    sh("nft add table inet filter; nft add table inet wg_routing2")
    before = world()
    made = Wire("wg0", "tun")
    netlink.put_link(LINK)
    loosen("wg0")
    for rule in RULES:
        netlink.put_rule(rule)
    for route in (*CLOSED, *OPEN):
        netlink.put_route(route)
    expected: set[Object] = {LINK, *RULES, *CLOSED, *OPEN, LooseReversePath("wg0")}
    assert set(netlink.observe(["wg0"])) == expected
    for obj in netlink.observe(["wg0"]):
        if isinstance(obj, Rule | Route):
            _verbs(netlink, obj)[1](obj)
    tighten("wg0")
    netlink.remove_link("wg0")
    assert netlink.observe(["wg0"]) == []
    assert world() == before
    made.close()


@pytest.mark.parametrize("kind", ["throw", "unreachable", "prohibit"])
def test_a_blackhole_that_became_something_else_is_no_blackhole(netlink: Netlink, kind: str) -> None:
    sh(f"ip route add {kind} default table 100 metric 200 proto {PROTOCOL}")
    assert Route(4, 100, None, 200) not in netlink.observe(())


@pytest.mark.parametrize("narrow", ["not", "from 192.0.2.0/24", "to 192.0.2.0/24", "iif lo", "tos 0x10", "ipproto 6"])
def test_a_rule_of_ours_that_was_narrowed_by_hand_is_not_the_planned_one(netlink: Netlink, narrow: str) -> None:
    sh(f"ip rule add {narrow} fwmark 0x1/0xff lookup 100 priority 100 proto {PROTOCOL}")
    assert RULES[0] not in netlink.observe(())


@pytest.mark.parametrize(
    ("routes", "endpoint", "mtu"),
    [
        ("", "198.51.100.130", None),
        ("ip route add default dev dsl", "198.51.100.130", 1492),
        ("ip route add default dev dsl", None, 1492),
        ("ip route add default dev dsl; ip route add 198.51.100.128/25 dev lan", "198.51.100.130", 9000),
        ("ip -6 route add default dev lan", "2001:db8::1", 9000),
        ("ip -6 route add default dev lan", None, None),
        (
            "ip route add default dev dsl; ip route add default dev lan table 7; ip rule add fwmark 0xfe lookup 7",
            "192.0.2.9",
            9000,
        ),
    ],
)
def test_the_mtu_is_that_of_the_link_to_the_endpoint(
    netlink: Netlink, routes: str, endpoint: str | None, mtu: int | None
) -> None:
    for link, size in (("dsl", 1492), ("lan", 9000)):
        sh(f"ip link add {link} type veth peer name far_{link}; ip link set far_{link} up")
        sh(f"ip link set {link} mtu {size} up")
    sh("ip addr add 192.0.2.100/32 dev dsl; ip addr add 2001:db8:b::1/64 dev lan")
    sh(routes)
    assert netlink.uplink_mtu(ip(endpoint) if endpoint else None, 0xFE) == mtu


@pytest.mark.parametrize(
    ("version", "source", "ours", "another"),
    [
        ("ipv4", "198.51.100.77", "198.51.100.1", "198.51.100.2"),
        ("ipv6", "2001:db8:c::2", "2001:db8::1", "2001:db8::2"),
    ],
)
def test_only_flows_with_our_mark_and_to_these_addresses_are_forgotten(
    netlink: Netlink, version: str, source: str, ours: str, another: str
) -> None:
    # The third has a foreign bit beside ours.
    flows = [(ours, 0x1, True), (ours, 0x1, True), (ours, 0x40001, True), (ours, 0xFE, False), (ours, 0, False)]
    flows.append((another, 0x1, False))
    for place, (target, mark, _) in enumerate(flows):
        ports = f"--sport {1000 + place} --dport 443"
        sh(f"conntrack -I -s {source} -d {target} -p udp {ports} --timeout 100 --mark {mark}")
    netlink.end_flows([ip(ours), ip("203.0.113.9")], 0x1, 0xFF, 0xFF)
    survived = {1000 + place for place, (*_, goes) in enumerate(flows) if not goes}
    assert {int(port) for port in re.findall(r"sport=(1\d{3}) ", sh(f"conntrack -L -f {version}"))} == survived


def test_no_flows_at_all_are_fine_to_forget(netlink: Netlink) -> None:
    netlink.end_flows([], 0x1, 0xFF, 0xFF)
    netlink.end_flows([ip("198.51.100.1")], 0x1, 0xFF, 0xFF)


def test_a_flow_of_tcp_is_marked_as_ended_and_foreign_bits_stay(netlink: Netlink) -> None:
    insert = "conntrack -I -s 198.51.100.77 -d 198.51.100.1 -p tcp --dport 443 --state ESTABLISHED --timeout 100"
    for port, mark in ((1000, 0x1), (1001, 0x40001), (1002, 0), (1003, 0x2)):
        sh(f"{insert} --sport {port} --mark {mark}")
    netlink.end_flows([ip("198.51.100.1")], 0x1, 0xFF, 0xFF)
    found = dict(re.findall(r"sport=(1\d{3}) .*mark=(\d+)", sh("conntrack -L")))
    assert {int(port): int(mark) for port, mark in found.items()} == {1000: 0xFF, 1001: 0x400FF, 1002: 0, 1003: 2}


def test_a_wireguard_link_is_made_or_the_kernel_knows_none(netlink: Netlink) -> None:
    assert netlink.make_wireguard("wg0") == (netlink.kind("wg0") == "wireguard")


def test_an_empty_machine_has_its_loopback_and_no_gateway(netlink: Netlink) -> None:
    loopback = frozenset((ip("127.0.0.1").packed, ip("::1").packed))
    assert netlink.surroundings() == Surroundings(loopback, frozenset({(1, "lo", True)}))


def test_this_machines_addresses_gateways_and_links_are_told(netlink: Netlink, wg0: Wire) -> None:
    sh("ip link add eth0 type veth peer name far; ip link set far up; ip link set eth0 up")
    sh("ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8:f::2/64 dev eth0; ip link set wg0 up")
    sh("ip addr add 10.9.9.1 peer 10.9.9.2/32 dev wg0")
    sh("ip route add default via 192.0.2.1 metric 5; ip route add default via 192.0.2.77 metric 9")
    sh("ip -6 route add default via fe80::1 dev eth0; ip route add 198.51.100.0/24 via 192.0.2.88")
    found = netlink.surroundings()
    texts = {str(ip_address(address)) for address in found.addresses if address[:2] != b"\xfe\x80"}
    assert texts == {"127.0.0.1", "::1", "192.0.2.2", "2001:db8:f::2", "10.9.9.1", "192.0.2.1", "192.0.2.77"}
    assert ip("fe80::1").packed in found.addresses
    assert {(name, up) for _, name, up in found.links} == {("lo", True), ("eth0", True), ("far", True), ("wg0", True)}
    assert netlink.surroundings() == found
    sh("ip link set eth0 down")
    assert netlink.surroundings() != found


@pytest.mark.parametrize(
    ("route", "gateways"),
    [
        ("ip route add default via inet6 2001:db8:f::77 dev eth0", {"2001:db8:f::77"}),
        ("ip route add default nexthop via 192.0.2.1 nexthop via 192.0.2.77", {"192.0.2.1", "192.0.2.77"}),
        (
            "ip -6 route add default nexthop via 2001:db8:f::1 nexthop via 2001:db8:f::7",
            {"2001:db8:f::1", "2001:db8:f::7"},
        ),
    ],
)
def test_the_gateways_of_less_usual_routes_are_told_too(netlink: Netlink, route: str, gateways: set[str]) -> None:
    sh("ip link add eth0 type veth peer name far; ip link set far up; ip link set eth0 up")
    sh("ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8:f::2/64 dev eth0")
    sh(route)
    assert {ip(each).packed for each in gateways} <= netlink.surroundings().addresses


def test_a_default_route_without_a_gateway_is_none(netlink: Netlink, wg0: Wire) -> None:
    sh("ip link set wg0 up; ip route add default dev wg0; ip -6 route add default dev wg0")
    texts = {str(ip_address(address)) for address in netlink.surroundings().addresses if address[:2] != b"\xfe\x80"}
    assert texts == {"127.0.0.1", "::1"}


def test_the_foreign_world_of_these_tests_is_there(netlink: Netlink) -> None:
    sh(FOREIGN)
    assert len([rule for rule in json_of("ip -j rule") if rule["priority"] in (100, 101)]) == 2
    assert netlink.observe(()) == []


def test_questions_that_no_nat_has_led_are_forgotten_and_no_other_flow(netlink: Netlink) -> None:
    kept = ["-d 203.0.113.2 -p udp --dport 54", "-d 203.0.113.3 -p tcp --dport 443 --state ESTABLISHED"]
    kept += ["-d 203.0.113.4 -p udp --dport 53 --dst-nat 198.51.100.7", "-d 127.0.0.53 -p udp --dport 53"]
    gone = ["-d 203.0.113.5 -p udp --dport 53", "-d 203.0.113.6 -p tcp --dport 53 --state ESTABLISHED"]
    gone += ["-d 2001:db8::5 -p udp --dport 53"]
    for flow in (*kept, *gone):
        source = "2001:db8::1" if "2001:db8::" in flow else "198.51.100.1"
        sh(f"conntrack -I -s {source} {flow} --sport 1024 --timeout 99")
    netlink.forget_questions()
    left = sh("conntrack -L; conntrack -L -f ipv6")
    there = {flow: f"dst={flow.split()[1]} " in left for flow in (*kept, *gone)}
    assert there == dict.fromkeys(kept, True) | dict.fromkeys(gone, False)
