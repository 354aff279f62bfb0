"""The plan: its text for known configurations, teardown as the empty one, and two plans joined."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from splitwgd.objects import MAIN_TABLE, Device, Link, Route, Rule, Set, Table
from splitwgd.plan import Facts, Plan, make_plan
from tests.samples import ARTICLE_TOML, ARTICLE_WG, DESIGN_TOML, WG, config_with, load, toml

CLOSED = """\
ip -4 route blackhole default table 100 metric 200
ip -4 rule priority 100 fwmark 0x1/0xff lookup 100
ip -6 route blackhole default table 100 metric 200
ip -6 rule priority 100 fwmark 0x1/0xff lookup 100"""


STRICT = frozenset({"wg0"})


def lines(plan: Plan) -> str:
    """The plan's text but for its first lines, the nft tables, which test_ruleset reads."""
    return "\n".join(line for line in str(plan).splitlines() if not line.startswith("nft table"))


def test_the_articles_set_up_is_this() -> None:
    plan = make_plan(load(ARTICLE_TOML, ARTICLE_WG), Facts(strict=STRICT))
    assert lines(plan) == (
        f"{CLOSED}\n"
        "ip link wg0 mtu 1420 up 10.1.0.2/24\n"
        "wg set wg0 fwmark 0xfe peers 1\n"
        "sysctl net.ipv4.conf.wg0.rp_filter=2\n"
        "ip -4 route default dev wg0 table 100 metric 100\n"
        "ip -6 route default dev wg0 table 100 metric 100"
    )


def test_the_designs_example_with_a_tunnel_that_carries_v6_is_this() -> None:
    plan = make_plan(load(DESIGN_TOML, WG), Facts(uplink_mtu=1492, strict=STRICT))
    assert str(plan) == (
        "nft table inet wg_routing: 4 sets, 9 chains, 78 rules\n"
        "nft table arp wg_routing: 0 sets, 1 chains, 1 rules\n"
        f"{CLOSED}\n"
        "ip link wg0 mtu 1412 up 10.1.0.2/24 fd00:1::2/64\n"
        "wg set wg0 fwmark 0xfe peers 1\n"
        "sysctl net.ipv4.conf.wg0.rp_filter=2\n"
        "ip -4 route default dev wg0 table 100 metric 100\n"
        "ip -6 route default dev wg0 table 100 metric 100\n"
        "ip -6 route default dev wg0 table 254 metric 4294967295"
    )


def test_a_kernel_without_the_arp_family_is_asked_for_no_such_table() -> None:
    with_it, without = (make_plan(config_with({}), Facts(filters_arp=knows)) for knows in (True, False))
    assert set(with_it.objects) - set(without.objects) == {("table", "arp", "wg_routing")}


def test_a_link_that_is_down_leaves_everything_closed() -> None:
    assert lines(make_plan(config_with({}), Facts(down=frozenset({"wg0"})))) == CLOSED


def test_an_adopted_link_is_marked_and_else_left_as_it_is() -> None:
    plan = make_plan(config_with({}), Facts(adopted={"wg0": 0}, strict=STRICT))
    assert lines(plan) == (
        f"{CLOSED}\n"
        "wg set wg0 fwmark 0xfe\n"
        "sysctl net.ipv4.conf.wg0.rp_filter=2\n"
        "ip -4 route default dev wg0 table 100 metric 100\n"
        "ip -6 route default dev wg0 table 100 metric 100\n"
        "ip -6 route default dev wg0 table 254 metric 4294967295"
    )


def test_an_adopted_link_keeps_a_mark_that_somebody_gave_it() -> None:
    plan = make_plan(config_with({}), Facts(adopted={"wg0": 0xCA6C}))
    assert "wg set" not in str(plan)
    table = plan.objects["table", "inet", "wg_routing"]
    assert isinstance(table, Table)
    texts = [rule.text for chain in table.chains if chain.name == "output" for rule in chain.rules]
    assert "meta mark 0xca6c return" in texts


def test_a_link_that_cannot_be_used_is_as_good_as_down() -> None:
    broken = make_plan(config_with({}), Facts(broken={"wg0": "no WireGuard here"}))
    assert broken == make_plan(config_with({}), Facts(down=frozenset({"wg0"})))


def test_where_replies_are_filtered_loosely_no_sysctl_is_touched() -> None:
    assert "sysctl" not in str(make_plan(config_with({}), Facts()))


def test_an_mtu_that_ipv6_does_not_take_leaves_ipv6_closed() -> None:
    plan = make_plan(config_with({}, WG.replace("[Peer]", "MTU = 1279\n[Peer]")), Facts())
    assert lines(plan) == (
        f"{CLOSED}\n"
        "ip link wg0 mtu 1279 up 10.1.0.2/24\n"
        "wg set wg0 fwmark 0xfe peers 1\n"
        "ip -4 route default dev wg0 table 100 metric 100"
    )


@pytest.mark.parametrize("mark", [0, 0xFE])
def test_an_adopted_link_that_bears_our_mark_needs_no_rule_of_its_own(mark: int) -> None:
    table = make_plan(config_with({}), Facts(adopted={"wg0": mark})).objects["table", "inet", "wg_routing"]
    assert table == make_plan(config_with({}), Facts()).objects["table", "inet", "wg_routing"]


def test_a_machine_without_ipv6_is_asked_for_none() -> None:
    plan = make_plan(
        load(toml({}), WG.replace("10.1.0.2/24", "10.1.0.2/24, fe80::2/64")), Facts(families=(4,), strict=STRICT)
    )
    assert lines(plan) == (
        "ip -4 route blackhole default table 100 metric 200\n"
        "ip -4 rule priority 100 fwmark 0x1/0xff lookup 100\n"
        "ip link wg0 mtu 1420 up 10.1.0.2/24\n"
        "wg set wg0 fwmark 0xfe peers 1\n"
        "sysctl net.ipv4.conf.wg0.rp_filter=2\n"
        "ip -4 route default dev wg0 table 100 metric 100"
    )


def test_a_link_local_address_is_the_kernels_to_make() -> None:
    plan = make_plan(load(toml({}), WG.replace("10.1.0.2/24", "10.1.0.2/24, fe80::2/64")), Facts())
    assert "up 10.1.0.2/24 fd00:1::2/64\n" in str(plan)


@pytest.mark.parametrize(
    ("written", "uplink", "mtu"), [("", 1500, 1420), ("", 1492, 1412), ("", 1280, 1280), ("MTU = 1380", 9000, 1380)]
)
def test_the_mtu_is_the_files_or_the_uplinks_less_80(written: str, uplink: int, mtu: int) -> None:
    plan = make_plan(config_with({}, WG.replace("[Peer]", f"{written}\n[Peer]")), Facts(uplink_mtu=uplink))
    assert [obj.mtu for obj in plan.objects.values() if isinstance(obj, Link)] == [mtu]


@pytest.mark.parametrize("wg", [ARTICLE_WG, WG.replace(", ::/0", "")])
def test_what_carries_no_v6_leaves_the_main_table_alone(wg: str) -> None:
    plan = make_plan(load(toml({}), wg), Facts())
    assert [obj for obj in plan.objects.values() if isinstance(obj, Route) and obj.table == MAIN_TABLE] == []


@pytest.mark.parametrize("facts", [Facts(), Facts(adopted={"wg0": 0}), Facts(down=frozenset({"wg0"}))])
def test_marks_tables_and_priorities_are_the_configured_ones(facts: Facts) -> None:
    routing = {"fwmark": "0x200", "fwmask": "0xf00", "table": "51820", "priority": "77"}
    plan = make_plan(config_with({f"routing.{key}": value for key, value in routing.items()}), facts)
    rules = {obj for obj in plan.objects.values() if isinstance(obj, Rule)}
    assert rules == {Rule(4, 77, 0x200, 0xF00, 51820), Rule(6, 77, 0x200, 0xF00, 51820)}
    assert {obj.table for obj in plan.objects.values() if isinstance(obj, Route)} <= {51820, MAIN_TABLE}
    assert all(obj.fwmark == 0xD00 for obj in plan.objects.values() if isinstance(obj, Device))


def test_the_marked_find_a_blackhole_under_every_route_into_the_tunnel() -> None:
    routes = [obj for obj in make_plan(config_with({}), Facts()).objects.values() if isinstance(obj, Route)]
    for route in routes:
        if route.link and route.table != MAIN_TABLE:
            (blackhole,) = [r for r in routes if r.link is None and (r.family, r.table) == (route.family, route.table)]
            assert blackhole.metric > route.metric


# -- joined


def networks(*texts: str) -> Plan:
    return make_plan(config_with({"tunneled.networks": str(list(texts))}), Facts())


def members(plan: Plan) -> set[str]:
    tables = [obj for obj in plan.objects.values() if isinstance(obj, Table)]
    return {str(member) for table in tables for set_ in table.sets for member in set_.members}


def test_the_empty_plan_is_teardown() -> None:
    assert Plan.empty() == Plan.of([])
    assert str(Plan.empty()) == ""


def test_a_plan_joined_with_itself_or_nothing_is_itself() -> None:
    plan = networks("198.51.100.0/24")
    assert plan | plan == plan
    assert plan | Plan.empty() == plan
    assert Plan.empty() | plan == plan


def test_no_network_leaves_its_set_while_two_plans_hold() -> None:
    old, new = networks("198.51.100.0/24", "2001:db8::/32"), networks("203.0.113.0/24")
    assert members(old | new) == {"198.51.100.0/24", "2001:db8::/32", "203.0.113.0/24"}


def test_a_network_within_another_joins_it() -> None:
    assert members(networks("10.1.0.0/16") | networks("10.0.0.0/8")) == {"10.0.0.0/8"}


def test_where_two_plans_differ_the_new_one_counts_and_nothing_old_is_missing() -> None:
    old = make_plan(config_with({}), Facts(uplink_mtu=1500))
    new = make_plan(config_with({"routing.table": "200"}), Facts(uplink_mtu=1400))
    joined = (old | new).objects
    assert joined.keys() == old.objects.keys() | new.objects.keys()
    assert all(joined[key] == obj for key, obj in new.objects.items())


def test_members_of_a_set_of_another_shape_are_not_taken_over() -> None:
    flags = frozenset({"interval"})
    old = Table("t", (Set("s", "ipv4_addr", flags, None, frozenset({ip_network("10.0.0.0/8")})),), ())
    new = Table("t", (replace(old.sets[0], type="ipv6_addr", members=frozenset()),), ())
    assert Plan.of([old]) | Plan.of([new]) == Plan.of([new])


def test_two_plans_of_one_configuration_are_equal() -> None:
    assert make_plan(config_with({}), Facts()) == make_plan(config_with({}), Facts())
