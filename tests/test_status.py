"""What `splitwg status` says of a tunnel that works, one that does not, and one that is meant to be down."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from splitwgd.diff import compare
from splitwgd.kernel import Observed
from splitwgd.objects import Endpoint, FilterRule, PeerState, Table
from splitwgd.plan import Facts, Plan, make_plan
from splitwgd.questions import COUNTED
from splitwgd.status import make_status, status_line, traffic_of
from tests.samples import PATH, PRIVATE_KEY, PUBLIC_KEY, config_with

CONFIG = config_with({"tunneled.domains": '["a.example", "b.example"]', "tunneled.networks": '["198.51.100.0/24"]'})
PLAN = make_plan(CONFIG, Facts())
ADDRESSES = {"wg_domains4": 2, "wg_domains6": 1}
WITHOUT_RULES = Plan({key: obj for key, obj in PLAN.objects.items() if key[0] != "rule"})
NOW = 1_700_000_000.0


def status(
    ages: tuple[int | None, ...] = (30,), found: Plan = PLAN, down: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The status while the peers' last handshakes were so many seconds ago, None for never."""
    peers = [
        PeerState(bytes(range(32, 64)), Endpoint("192.0.2.7", 51820), 0 if age is None else int(NOW) - age, 10, 20)
        for age in ages
    ]
    lacking = compare(PLAN, found)
    return make_status(CONFIG, PLAN, Observed(found, ()), lacking, {"wg0": peers}, down, ADDRESSES, NOW)


@pytest.mark.parametrize(
    ("ages", "found", "down", "state"),
    [
        ((30,), PLAN, frozenset(), "on"),
        ((179,), PLAN, frozenset(), "on"),
        ((180,), PLAN, frozenset(), "on"),  # nothing was to be sent
        ((None,), PLAN, frozenset(), "closed"),
        ((), PLAN, frozenset(), "closed"),
        ((9999, 30), PLAN, frozenset(), "on"),
        ((30,), Plan.empty(), frozenset(), "leaking"),
        ((30,), WITHOUT_RULES, frozenset(), "closed"),
        ((30,), PLAN, frozenset({"wg0"}), "closed"),
        ((None,), Plan.empty(), frozenset({"wg0"}), "leaking"),
        ((30,), PLAN, frozenset({"wg1"}), "on"),
    ],
)
def test_it_is_on_when_the_tunnel_is_alive_and_nothing_lacks(
    ages: tuple[int | None, ...], found: Plan, down: frozenset[str], state: str
) -> None:
    assert status(ages, found, down)["state"] == state


def test_a_tunnel_is_told_with_its_peers() -> None:
    assert status((30, None))["tunnels"] == [
        {
            "link": "wg0",
            "wanted": "up",
            "domains": 2,
            "networks": 1,
            "servers": ["10.1.0.1"],
            "handshake_age": 30,
            "peers": [
                {
                    "public_key": PUBLIC_KEY,
                    "endpoint": "192.0.2.7:51820",
                    "handshake_age": age,
                    "received": 10,
                    "sent": 20,
                }
                for age in (30, None)
            ],
        }
    ]


def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    assert status((-500,))["tunnels"][0]["handshake_age"] == 0


def test_addresses_are_told_by_set() -> None:
    assert status()["addresses"] == {"wg_domains4": 2, "wg_domains6": 1}


def test_what_was_met_of_other_ways_to_ask_is_added_up_by_kind() -> None:
    """Each rule that a kind has counts one more than the one before it, and all other rules count a million."""
    table = PLAN.objects["table", "inet", "wg_routing"]
    assert isinstance(table, Table)
    counts, chains = dict.fromkeys(COUNTED, 0), []
    for chain in table.chains:
        rules: list[FilterRule] = []
        for rule in chain.rules:
            packets = 1_000_000
            for kind, why in COUNTED.items():
                if rule.comment.startswith(why):
                    packets = len(rules)
                    counts[kind] += packets
            rules.append(FilterRule("", rule.comment, packets))
        chains.append(replace(chain, rules=tuple(rules)))
    assert all(counts.values()) and max(counts.values()) < 1_000_000
    found = PLAN | Plan.of([replace(table, chains=tuple(chains))])
    assert status(found=found)["bypasses"] == counts
    assert set(status()["bypasses"].values()) == set(status(found=Plan.empty())["bypasses"].values()) == {0}


def test_what_is_wanted_held_and_different_is_told_in_words() -> None:
    found = Plan({key: obj for key, obj in PLAN.objects.items() if key[0] != "rule"})
    told = status(found=found)
    assert told["config"] == PATH
    assert told["wanted"] == str(PLAN).split("\n")
    assert told["held"] == str(found).split("\n")
    assert told["differs"] == [f"+ ip -{family} rule priority 100 fwmark 0x1/0xff lookup 100" for family in (4, 6)]


def test_it_is_json_and_holds_no_secret() -> None:
    assert PRIVATE_KEY not in json.dumps(status())


@pytest.mark.parametrize(
    ("ages", "down", "line"),
    [
        ((30,), frozenset(), "on: 2 domains through wg0 (up, handshake 30 s ago); 3 addresses"),
        ((None,), frozenset(), "closed: 2 domains through wg0 (up, no handshake yet); 3 addresses"),
        ((None,), frozenset({"wg0"}), "closed: 2 domains through wg0 (down, no handshake yet); 3 addresses"),
    ],
)
def test_one_line_says_it_all(ages: tuple[int | None, ...], down: frozenset[str], line: str) -> None:
    assert status_line(status(ages, down=down)) == line


def test_traffic_is_added_up_by_link() -> None:
    peer = PeerState(b"", None, 0, 10, 20)
    assert traffic_of({"wg0": [peer, peer], "wg1": []}) == {"wg0": (20, 40), "wg1": (0, 0)}
