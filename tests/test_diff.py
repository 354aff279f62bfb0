"""Differences: they lead from what is found to what is wanted, in an order in which nothing is ever open."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.diff import compare, is_closing
from splitwgd.objects import (
    Device,
    Key,
    Link,
    LooseReversePath,
    Object,
    OuterMark,
    Route,
    Rule,
    Table,
)
from splitwgd.plan import Facts, Plan, make_plan
from tests.samples import config_with

FULL = make_plan(config_with({"tunneled.networks": '["198.51.100.0/24"]'}), Facts(strict=frozenset({"wg0"})))
OTHERS = (
    make_plan(config_with({"routing.table": "200"}), Facts(uplink_mtu=1400)),
    make_plan(config_with({"dns.redirect": "false"}), Facts(adopted={"wg0": 0})),
    make_plan(config_with({}), Facts(down=frozenset({"wg0"}))),
)
VERSIONS = [obj for plan in (FULL, *OTHERS) for obj in plan.objects.values()]

plans = st.lists(st.sampled_from(VERSIONS), max_size=20).map(Plan.of)


def closes(obj: Object) -> bool:
    """What only ever keeps packets in: it comes before all that leads them anywhere."""
    return isinstance(obj, Rule | Table) or (isinstance(obj, Route) and obj.link is None)


def may_follow(first: Object, then: Object) -> bool:
    """The claims on the order, pair by pair and in other words than the table in diff."""
    if not closes(first) and closes(then):
        return False  # nothing is led before everything is closed
    if isinstance(first, Rule) and isinstance(then, Route) and then.link is None:
        return False  # a rule into an empty table would fall through to the next rule
    if isinstance(first, Table) and isinstance(then, Rule):
        return False  # a mark without a rule would follow the main table
    opens = isinstance(first, Route) and first.link is not None
    if opens and isinstance(then, Link | Device | OuterMark | LooseReversePath):
        return False  # a route into a link that is not ready
    return not (isinstance(first, Device | LooseReversePath | OuterMark) and isinstance(then, Link))


def applied(wanted: Plan, found: Plan) -> dict[Key, Object]:
    diff = compare(wanted, found)
    state = dict(found.objects)
    for put in diff.grow:
        assert state.get(put.wanted.key) == put.found
        state[put.wanted.key] = put.wanted
    for remove in diff.shrink:
        assert state.pop(remove.found.key) == remove.found
    return state


@given(plans, plans)
def test_applying_a_difference_makes_what_is_wanted(wanted: Plan, found: Plan) -> None:
    assert applied(wanted, found) == wanted.objects


@given(plans, plans)
def test_nothing_is_put_that_is_there_and_nothing_removed_that_is_wanted(wanted: Plan, found: Plan) -> None:
    diff = compare(wanted, found)
    assert all(found.objects.get(put.wanted.key) != put.wanted for put in diff.grow)
    assert all(remove.found.key not in wanted.objects for remove in diff.shrink)
    assert not compare(found, found)


@given(plans, plans)
def test_growth_closes_before_it_opens(wanted: Plan, found: Plan) -> None:
    order = [put.wanted for put in compare(wanted, found).grow]
    assert all(may_follow(first, then) for place, first in enumerate(order) for then in order[place + 1 :])


@given(plans, plans)
def test_shrinking_opens_nothing_until_the_end(wanted: Plan, found: Plan) -> None:
    order = [remove.found for remove in compare(wanted, found).shrink][::-1]
    assert all(may_follow(first, then) for place, first in enumerate(order) for then in order[place + 1 :])


@pytest.mark.parametrize("obj", VERSIONS, ids=str)
def test_what_keeps_packets_in_is_told_from_what_lets_them_into_the_tunnel(obj: Object) -> None:
    assert is_closing(obj) is closes(obj)


def kinds(objects: list[Object]) -> list[str]:
    """Kind after kind, each once."""
    names = ["Blackhole" if isinstance(o, Route) and o.link is None else type(o).__name__ for o in objects]
    return names[:1] + [then for first, then in pairwise(names) if first != then]


ORDER = ["Blackhole", "Rule", "Table", "Link", "LooseReversePath", "Device", "Route"]


def test_the_whole_grows_in_this_order() -> None:
    assert kinds([put.wanted for put in compare(FULL, Plan.empty()).grow]) == ORDER


def test_the_whole_shrinks_in_the_reverse_order() -> None:
    assert kinds([remove.found for remove in compare(Plan.empty(), FULL).shrink]) == ORDER[::-1]


@pytest.mark.parametrize("key", FULL.objects, ids=lambda key: str(FULL.objects[key]))
def test_one_thing_that_somebody_deleted_is_one_thing_to_put_back(key: Key) -> None:
    found = Plan({other: obj for other, obj in FULL.objects.items() if other != key})
    assert [(put.wanted, put.found) for put in compare(FULL, found).grow] == [(FULL.objects[key], None)]
    assert compare(FULL, found).shrink == ()


def test_what_can_be_changed_in_place_is_put_over_what_is_there() -> None:
    (link,) = [obj for obj in FULL.objects.values() if isinstance(obj, Link)]
    found = FULL | Plan.of([replace(link, mtu=1280)])
    (put,) = compare(FULL, found).grow
    assert (put.wanted, put.found) == (link, replace(link, mtu=1280))


def test_a_difference_prints_a_line_a_change() -> None:
    wanted, found = Plan.of([Rule(4, 100, 1, 0xFF, 100)]), Plan.of([Route(4, 7, "wg0", 100)])
    assert str(compare(wanted, found)) == (
        "+ ip -4 rule priority 100 fwmark 0x1/0xff lookup 100\n- ip -4 route default dev wg0 table 7 metric 100"
    )
    assert not compare(wanted, wanted)
    assert compare(wanted, found)
