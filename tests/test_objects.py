"""Objects: what makes two of them versions of one thing, how they print, and what they never print."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from splitwgd.objects import (
    Chain,
    Device,
    Endpoint,
    FilterRule,
    Link,
    LooseReversePath,
    Object,
    OuterMark,
    Peer,
    Route,
    Rule,
    Set,
    Table,
)

PEER = Peer(b"P" * 32, b"S" * 32, frozenset({ip_network("0.0.0.0/0")}), 25, Endpoint("192.0.2.1", 51820))
DEVICE = Device("wg0", b"K" * 32, 0, 0xFE, frozenset({PEER}))
LINK = Link("wg0", 1420, frozenset({ip_interface("fd00::2/64"), ip_interface("10.1.0.2/24")}))
RULE = Rule(4, 100, 0x1, 0xFF, 100)
ROUTE = Route(6, 100, "wg0", 100)
SET = Set("wg_domains4", "ipv4_addr", frozenset({"timeout"}), 65536)
CHAIN = Chain("output", "route", "output", -150, (FilterRule("accept", "why"),))
TABLE = Table("wg_routing", (SET,), (CHAIN,))


@pytest.mark.parametrize(
    ("obj", "line"),
    [
        (LINK, "ip link wg0 mtu 1420 up 10.1.0.2/24 fd00::2/64"),
        (replace(LINK, addresses=frozenset()), "ip link wg0 mtu 1420 up"),
        (DEVICE, "wg set wg0 fwmark 0xfe peers 1"),
        (OuterMark("wg0", 0xFE), "wg set wg0 fwmark 0xfe"),
        (LooseReversePath("wg0"), "sysctl net.ipv4.conf.wg0.rp_filter=2"),
        (RULE, "ip -4 rule priority 100 fwmark 0x1/0xff lookup 100"),
        (ROUTE, "ip -6 route default dev wg0 table 100 metric 100"),
        (Route(4, 100, None, 200), "ip -4 route blackhole default table 100 metric 200"),
        (TABLE, "nft table inet wg_routing: 1 sets, 1 chains, 1 rules"),
    ],
    ids=str,
)
def test_it_prints_as_ip_wg_and_nft_would_say_it(obj: Object, line: str) -> None:
    assert str(obj) == line


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LINK, replace(LINK, mtu=1280)),
        (DEVICE, replace(DEVICE, fwmark=0)),
        (OuterMark("wg0", 0), OuterMark("wg0", 0xFE)),
        (TABLE, replace(TABLE, chains=())),
    ],
    ids=lambda obj: type(obj).__name__,
)
def test_what_can_be_changed_in_place_keeps_its_key(old: Object, new: Object) -> None:
    assert old != new
    assert old.key == new.key


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (RULE, replace(RULE, family=6)),
        (RULE, replace(RULE, mask=0xFFFF)),
        (ROUTE, replace(ROUTE, link=None)),
        (ROUTE, replace(ROUTE, metric=200)),
        (LINK, replace(LINK, name="wg1")),
        (LINK, DEVICE),
        (DEVICE, OuterMark("wg0", 0xFE)),
    ],
    ids=str,
)
def test_what_cannot_be_changed_in_place_is_another_thing(old: Object, new: Object) -> None:
    assert old.key != new.key


def test_no_key_is_ever_printed() -> None:
    printed = f"{DEVICE!r} {DEVICE} {PEER!r}"
    assert "KKKK" not in printed
    assert "SSSS" not in printed


def test_a_peer_that_roams_is_the_same_peer() -> None:
    assert replace(PEER, endpoint=Endpoint("198.51.100.1", 1)) == PEER
    assert replace(PEER, preshared_key=None) != PEER


def test_a_rule_is_known_by_its_comment_and_not_by_its_text() -> None:
    assert FilterRule("", "why") == FilterRule("accept", "why")
    assert FilterRule("accept", "why") != FilterRule("accept", "why not")


@pytest.mark.parametrize("change", [{"type": "ipv6_addr"}, {"flags": frozenset({"interval"})}, {"size": 1}])
def test_a_set_of_another_shape_has_to_be_made_anew(change: dict[str, object]) -> None:
    assert replace(SET, **change).shape != SET.shape  # type: ignore[arg-type]


def test_members_are_no_part_of_a_sets_shape() -> None:
    assert replace(SET, members=frozenset({ip_network("10.0.0.0/8")})).shape == SET.shape


@pytest.mark.parametrize("change", [{"type": "filter"}, {"hook": "prerouting"}, {"priority": 0}, {"policy": "drop"}])
def test_a_chain_of_another_shape_has_to_be_made_anew(change: dict[str, object]) -> None:
    assert replace(CHAIN, **change).shape != CHAIN.shape  # type: ignore[arg-type]


def test_rules_are_no_part_of_a_chains_shape() -> None:
    assert replace(CHAIN, rules=()).shape == CHAIN.shape


@pytest.mark.parametrize(
    ("host", "text"),
    [("192.0.2.1", "192.0.2.1:1"), ("vpn.example", "vpn.example:1"), ("2001:db8::1", "[2001:db8::1]:1")],
)
def test_an_endpoint_prints_as_wg_takes_it(host: str, text: str) -> None:
    assert str(Endpoint(host, 1)) == text


@pytest.mark.parametrize("text", ["192.0.2.1:51820", "[2001:db8::1]:51820", "vpn.example:51820"])
def test_an_endpoint_is_written_as_wireguard_reads_it(text: str) -> None:
    host, _, port = text.rpartition(":")
    assert str(Endpoint(host.strip("[]"), int(port))) == text
