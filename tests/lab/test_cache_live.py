"""What is kept and for how long, seen from the upstream: rows 51 and 52 of the table, and prefetching."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from .crowd import Crowd, Heard, ask
from .hostile import Hostile, hostile
from .machine import Machine
from .replies import NOERROR, NXDOMAIN, REFUSED, SERVFAIL, Reply, address, nothing
from .siege import EVERYWHERE, GOOD, begin, configuration
from .world import Lab

FAILURE = 5.0  # seconds within which a question that failed is not tried again


@pytest.fixture
def upstream(lab: Lab) -> Iterator[Hostile]:
    with hostile(lab.internet, *EVERYWHERE) as server:
        yield server


def unlike(heard: Sequence[Heard], rcode: int) -> list[tuple[str, int | None]]:
    return [(one.name, one.rcode) for one in heard if one.rcode != rcode]


# -- row 51


def test_51_a_no_that_is_asked_for_1000_times_is_one_question_upstream(machine: Machine, upstream: Hostile) -> None:
    rcodes: dict[str, int] = {}
    for zone in ("plain.example", "tunneled.example"):
        upstream.say(f"nobody.{zone}", nothing(NXDOMAIN))
        upstream.say(f"empty.{zone}", nothing())
        rcodes |= {f"nobody.{zone}": NXDOMAIN, f"empty.{zone}": NOERROR}
    begin(machine)
    for name, rcode in rcodes.items():
        ask(machine.lab.client, [name])
        heard = ask(machine.lab.client, [name] * 1000, every=0.0005)
        assert unlike(heard, rcode) == []
        assert {record.rtype for one in heard[::50] for record in one.message.auth} == {6}, "with the SOA"
        assert len(upstream.asked(name)) == 1


def test_51_a_no_lives_as_long_as_the_lesser_of_the_soas_two_lives(machine: Machine, upstream: Hostile) -> None:
    upstream.say("a.example", nothing(NXDOMAIN, minimum=1, ttl=300))
    upstream.say("b.example", nothing(NXDOMAIN, minimum=300, ttl=1))
    upstream.say("c.example", nothing(NXDOMAIN, minimum=300, ttl=300))
    names = ["a.example", "b.example", "c.example"]
    begin(machine)
    ask(machine.lab.client, names)
    time.sleep(1.3)
    heard = ask(machine.lab.client, names)
    assert [len(upstream.asked(name)) for name in names] == [2, 2, 1]
    assert 290 <= heard[2].message.auth[0].ttl <= 299, "counted down"


def test_51_a_no_without_a_soa_is_not_kept(machine: Machine, upstream: Hostile) -> None:
    upstream.say("bare.example", Reply(rcode=NXDOMAIN))
    begin(machine)
    for _ in range(3):
        assert unlike(ask(machine.lab.client, ["bare.example"]), NXDOMAIN) == []
    assert len(upstream.asked("bare.example")) == 3


def test_51_a_failure_is_tried_again_after_5_seconds_and_not_before(machine: Machine, upstream: Hostile) -> None:
    names = ["servfail.example", "refused.example", "servfail.tunneled.example"]
    upstream.say_all(dict(zip(names, ([Reply(rcode=rcode)] for rcode in (SERVFAIL, REFUSED, SERVFAIL)), strict=True)))
    upstream.say("well.example", address(GOOD))
    begin(machine)
    started = time.monotonic()
    assert {one.rcode for one in ask(machine.lab.client, names)} <= {SERVFAIL, REFUSED}
    before = [len(upstream.asked(name)) for name in names]
    assert all(count <= 14 for count in before), "the tries of one resolution"
    again = ask(machine.lab.client, names * 333, every=0.002)
    assert {one.rcode for one in again} <= {SERVFAIL, REFUSED}
    assert ask(machine.lab.client, ["well.example"])[0].addresses == [GOOD]
    assert time.monotonic() < started + FAILURE, "this machine is too slow for the test"
    assert [len(upstream.asked(name)) for name in names] == before
    time.sleep(max(0.0, started + FAILURE + 1 - time.monotonic()))
    ask(machine.lab.client, names)
    assert all(len(upstream.asked(name)) > count for name, count in zip(names, before, strict=True))


def test_51_a_name_without_an_answer_is_tried_once_in_5_seconds_whatever_else_is_answered(
    machine: Machine, upstream: Hostile
) -> None:
    upstream.say("*.well.example", address(GOOD))
    upstream.say("silent.example")
    begin(machine)
    (heard,) = ask(machine.lab.client, ["silent.example"], patience=8)
    assert heard.rcode == SERVFAIL
    tries = len(upstream.asked("silent.example"))
    mixed = [name for number in range(200) for name in ("silent.example", f"n{number}.well.example")]
    again = ask(machine.lab.client, mixed, every=0.005, patience=8)
    assert {one.rcode for one in again[0::2]} == {SERVFAIL}
    assert [one.addresses for one in again[1::2]] == [[GOOD]] * 200
    assert len(upstream.asked("silent.example")) == tries


# -- row 52


def test_52_when_the_servers_are_gone_500_hot_names_are_answered_as_before(machine: Machine, upstream: Hostile) -> None:
    """500 plain and 500 tunneled ones; and the addresses of these are in the set when the answer is there."""
    plain = [f"n{number}.hot.example" for number in range(500)]
    tunneled = [f"n{number}.hot.tunneled.example" for number in range(500)]
    for zone, last in (("hot.example", 0), ("hot.tunneled.example", 1)):
        upstream.say_all(
            {f"n{n}.{zone}": [address(f"203.0.113.{100 + n % 100}", f"192.0.2.{last}", ttl=1)] for n in range(500)}
        )
    begin(machine)
    client = machine.lab.client
    for names in (plain, tunneled):
        first = ask(client, names, every=0.002)
        assert unlike(first, NOERROR) == []
        assert {ttl for one in first for ttl in one.ttls} == {1}
    time.sleep(1.2)
    upstream.be(dead=True)
    unknown = Crowd(client, ["never.seen.example"], patience=8)
    for names, check in ((plain, False), (tunneled, True)):
        heard = ask(client, names, every=0.002, check=check)
        assert [(one.name, one.took) for one in heard if one.took is None or one.took >= 2] == []
        assert unlike(heard, NOERROR) == []
        expected = [[f"203.0.113.{100 + n % 100}", f"192.0.2.{int(check)}"] for n in range(500)]
        assert [one.addresses for one in heard] == expected
        assert {ttl for one in heard for ttl in one.ttls} == {30}
        assert [(one.name, one.outside) for one in heard if one.outside] == []
    assert unlike(unknown.wait(), SERVFAIL) == []
    upstream.say("n0.hot.example", address(GOOD))
    upstream.be(dead=False)
    machine.wait_for(lambda: machine.dig("n0.hot.example") == [GOOD], "the fresh answer")


def test_52_a_stale_answer_is_given_for_servfail_too_and_not_for_a_no(machine: Machine, upstream: Hostile) -> None:
    names = ["servfail.example", "gone.example", "moved.example"]
    upstream.say_all({name: [address(GOOD, ttl=1)] for name in names})
    begin(machine)
    ask(machine.lab.client, names)
    time.sleep(1.2)
    upstream.say_all(
        {names[0]: [Reply(rcode=SERVFAIL)], names[1]: [nothing(NXDOMAIN)], names[2]: [address("192.0.2.9")]}
    )
    failing, gone, moved = ask(machine.lab.client, names)
    assert (failing.rcode, failing.addresses) == (NOERROR, [GOOD])
    assert (gone.rcode, gone.addresses) == (NXDOMAIN, [])
    assert moved.addresses == ["192.0.2.9"]


def test_52_it_can_be_switched_off(machine: Machine, upstream: Hostile) -> None:
    upstream.say("*", address(GOOD, ttl=1))
    begin(machine, configuration(dns="stale = 0"))
    ask(machine.lab.client, ["hot.example"])
    time.sleep(1.2)
    upstream.be(rcode=SERVFAIL)
    assert unlike(ask(machine.lab.client, ["hot.example"]), SERVFAIL) == []


# -- prefetch


def test_a_popular_name_is_renewed_before_it_ends_and_nobody_waits(machine: Machine, upstream: Hostile) -> None:
    """From the second time on the servers take half a second."""
    hot = ["hot.example", "hot.tunneled.example"]
    turns = [[address(GOOD, ttl=4)], [address(GOOD, ttl=4, after=0.5)]]
    upstream.say_in_turn(dict.fromkeys([*hot, "cold.example"], turns))
    begin(machine)
    ask(machine.lab.client, [*hot, "cold.example"])
    heard = ask(machine.lab.client, hot * 120, every=0.025)  # six seconds
    assert [(one.name, one.addresses) for one in heard if one.addresses != [GOOD]] == []
    assert [one.took for one in heard if one.took is None or one.took > 0.4] == []
    for name in hot:
        assert 2 <= len({round(asked.time) for asked in upstream.asked(name)}) <= 8
    assert len(upstream.asked("cold.example")) == 1
