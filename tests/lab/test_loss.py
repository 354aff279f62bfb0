"""Lines that lose, servers that are slow, silent or refuse: row 57 of the table, seen from the client.

The kernel of the lab has no netem: the hostile servers lose and delay by themselves, from a fixed seed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

import pytest

from .crowd import Heard, ask
from .hostile import Hostile, hostile
from .machine import Machine
from .replies import REFUSED, SERVFAIL, address
from .siege import DEFAULT, EVERYWHERE, GOOD, SECOND, TUNNELED, begin, configuration
from .world import Lab

# The whole count takes a minute of the two processors.
QUESTIONS = int(os.environ.get("SPLITWG_QUESTIONS", "100000"))
NOBODY = "203.0.113.64"  # where nothing listens: the answer is ICMP's


@pytest.fixture
def upstream(lab: Lab) -> Iterator[Hostile]:
    with hostile(lab.internet, *EVERYWHERE) as server:
        server.say("*", address(GOOD))
        yield server


def names(count: int, zone: str) -> list[str]:
    return [f"n{number}.{zone}" for number in range(count)]


def took(heard: Sequence[Heard], part: float) -> float:
    """The time within which this part of the questions was answered rightly; the others count as for ever."""
    times = sorted(one.took if one.took is not None and one.wire[3] & 15 == 0 else 1e9 for one in heard)
    return times[ceil(len(times) * part) - 1]


PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "5 % lost each way": {"": {"loss_in": 0.05, "loss_out": 0.05}},
    "30 % lost": {"": {"loss_in": 0.3}},
    "100 ms, and as much again now and then": {"": {"delay": 0.1, "jitter": 0.1}},
    "the first one is dead": {DEFAULT: {"dead": True}},
    "the first one takes a second": {DEFAULT: {"delay": 1.0}},
    "the first one fails": {DEFAULT: {"rcode": SERVFAIL}},
    "the first one refuses, the second loses": {DEFAULT: {"rcode": REFUSED}, SECOND: {"loss_out": 0.2}},
}


@pytest.mark.parametrize("profile", list(PROFILES))
def test_57_of_1000_questions_995_are_answered_within_a_second_and_a_half(
    machine: Machine, upstream: Hostile, profile: str
) -> None:
    for server, settings in PROFILES[profile].items():
        upstream.be(server, **settings)
    begin(machine, configuration(default=(DEFAULT, SECOND)))
    heard = ask(machine.lab.client, names(1000, "lossy.example"), every=0.002)
    assert took(heard, 0.995) < 1.5
    assert len(upstream.asked()) >= 1000


def test_57_a_server_where_nothing_listens_is_passed_over(machine: Machine, upstream: Hostile) -> None:
    begin(machine, configuration(default=(NOBODY, SECOND)))
    assert took(ask(machine.lab.client, names(1000, "lossy.example"), every=0.002), 0.995) < 1.5


def test_57_one_server_alone_that_loses_30_percent_is_enough(machine: Machine, upstream: Hostile) -> None:
    upstream.be(loss_in=0.3)
    begin(machine)
    pairs = [name for n in range(500) for name in (f"n{n}.lossy.example", f"n{n}.tunneled.example")]
    heard = ask(machine.lab.client, pairs, every=0.003)
    for part in (heard[0::2], heard[1::2]):
        assert sum(one.addresses == [GOOD] for one in part) >= 0.995 * 500
    assert all(asked.server in (DEFAULT, TUNNELED) for asked in upstream.asked())


def test_57_the_next_server_is_asked_within_300_ms(machine: Machine, upstream: Hostile) -> None:
    upstream.be(SECOND, delay=0.05)
    begin(machine, configuration(default=(DEFAULT, SECOND)))
    assert took(ask(machine.lab.client, names(20, "well.example"), every=0.05), 1.0) < 1
    upstream.be(DEFAULT, dead=True)
    heard = ask(machine.lab.client, names(8, "first.example"))
    assert [one.addresses for one in heard] == [[GOOD]] * 8
    waited = []
    for one in heard:
        first, second = upstream.asked(one.name, DEFAULT), upstream.asked(one.name, SECOND)
        if first:
            waited.append(second[0].time - first[0].time)
    assert waited, "the faster one is asked first, as long as nothing else is known"
    assert min(waited) <= 0.3


def test_57_a_dead_server_costs_one_time_and_is_used_again_when_it_is_back(machine: Machine, upstream: Hostile) -> None:
    """It is the faster one, so that it comes first again when it is well."""
    client = machine.lab.client
    upstream.be(SECOND, delay=0.08)
    begin(machine, configuration(default=(DEFAULT, SECOND)))
    ask(client, names(100, "well.example"), every=0.01)
    upstream.be(DEFAULT, dead=True)
    assert took(ask(client, names(200, "finding.example"), every=0.01), 0.995) < 1.5
    upstream.forget()
    heard = ask(client, names(500, "known.example"), every=0.005)
    assert [one.name for one in heard if one.addresses != [GOOD]] == []
    assert sum(".known." in asked.name for asked in upstream.asked("", DEFAULT)) <= 10, "of 500"
    upstream.be(DEFAULT, dead=False)
    deadline = time.monotonic() + 40
    for turn in range(400):
        upstream.forget()
        ask(client, names(20, f"t{turn}.back.example"), every=0.005)
        if sum(".back." in asked.name for asked in upstream.asked("", DEFAULT)) >= 15:
            break
        assert time.monotonic() < deadline, "it is not used again"
        time.sleep(0.2)


@pytest.mark.timeout(300)
def test_of_100000_questions_on_a_bad_line_every_one_is_answered(machine: Machine, upstream: Hostile) -> None:
    """5 % lost each way, up to 100 ms of delay, and of two servers one is dead."""
    upstream.be(loss_in=0.05, loss_out=0.05, jitter=0.1)
    upstream.be(DEFAULT, dead=True)
    begin(machine, configuration(default=(DEFAULT, SECOND)))
    heard = ask(machine.lab.client, names(QUESTIONS, "many.example"), every=1 / 3300, sockets=64)
    unanswered = [(one.name, one.rcode) for one in heard if one.rcode != 0]
    assert unanswered == []
    assert took(heard, 0.99) < 1.0
    assert upstream.counts()[SECOND] > QUESTIONS
