"""Who answers in an upstream's place, or an upstream that answers wrongly: rows 34 to 37 and 59 of the table.

EVIL is what a forger says, GOOD what the server says; a question is counted as lost to the forger if EVIL is given.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from .crowd import Crowd, Heard, ask
from .hostile import Hostile, hostile
from .machine import Machine
from .relay import relay
from .replies import FORMERR, SERVFAIL, Reply, address
from .siege import DEFAULT, EVERYWHERE, EVIL, GOOD, SECOND, begin, clients_questions, configuration
from .world import PUBLIC_DNS, Lab

# A chi-square of 15 degrees of freedom is above this once in ten million times.
CHI_SQUARE_15 = 62.0


@pytest.fixture
def upstream(lab: Lab) -> Iterator[Hostile]:
    with hostile(lab.internet, *EVERYWHERE) as server:
        yield server


def names(count: int, zone: str = "forged.example") -> list[str]:
    return [f"n{number}.{zone}" for number in range(count)]


def wrong(heard: list[Heard]) -> list[tuple[str, int | None, list[str]]]:
    """The answers that are not the server's own."""
    return [(one.name, one.rcode, one.addresses) for one in heard if one.addresses != [GOOD]]


def right(after: float = 0.02) -> Reply:
    return address(GOOD, after=after)


# -- row 34


FORGERS = {
    "next-port": address(EVIL, flood="all", port=1, over="udp"),
    "port-before": address(EVIL, flood="all", port=-1, over="udp"),
    "from-another-port": address(EVIL, flood="all", source="port", over="udp"),
    "from-another-server": address(EVIL, flood="all", source="address", over="udp"),
}


@pytest.mark.timeout(180)
def test_34_of_100_floods_of_all_65536_ids_none_is_believed(machine: Machine, upstream: Hostile) -> None:
    """100 by each of four forgers, who guess the port or do not have the address."""
    for zone, forger in FORGERS.items():
        upstream.say(f"*.{zone}.example", forger, right())
    begin(machine)
    for zone in FORGERS:
        assert wrong(ask(machine.lab.client, names(100, f"{zone}.example"), most=2)) == []
    assert len(upstream.asked()) >= 400


def test_34_who_knows_even_the_port_is_not_believed_after_many_wrong_ids(machine: Machine, upstream: Hostile) -> None:
    """All wrong ids, and then the right one: by then it is asked over TCP, where nobody can guess."""
    last = address(EVIL, after=0.15, over="udp")
    upstream.say("*.forged.example", address(EVIL, flood="wrong", over="udp"), last, right(after=0.2))
    begin(machine)
    heard = ask(machine.lab.client, names(20), most=2)
    assert wrong(heard) == []
    assert {asked.over for asked in upstream.asked()} == {"udp", "tcp"}


def chi_square(values: Sequence[int]) -> float:
    """Of 16 bins that should be filled alike."""
    expected = len(values) / 16
    counts = Counter(values)
    return sum((counts[number] - expected) ** 2 / expected for number in range(16))


def test_34_ports_and_ids_of_1000_questions_cannot_be_foretold(machine: Machine, upstream: Hostile) -> None:
    upstream.say("*.forged.example", right(after=0))
    begin(machine)
    assert wrong(ask(machine.lab.client, names(1000), every=0.002)) == []
    asked = [one for one in upstream.asked() if one.name.endswith("forged.example")][:1000]
    assert len(asked) == 1000
    ports = [one.port for one in asked]
    assert len(set(ports)) >= 990
    assert sum(abs(one - other) <= 16 for one, other in zip(ports, ports[1:], strict=False)) <= 50
    ids = [one.id for one in asked]
    steps = [(one - other) % 65536 for one, other in zip(ids, ids[1:], strict=False)]
    for values in (ids, steps):
        assert chi_square([value >> 12 for value in values]) < CHI_SQUARE_15
        assert chi_square([value & 15 for value in values]) < CHI_SQUARE_15


# -- row 35

MALFORMED = (
    *("id", "qr", "opcode", "qname", "qtype", "qclass", "no question", "head", "short", "empty", "garbage"),
    *("cut", "count", "length", "pointer", "label"),
)


@pytest.mark.parametrize("zone", ["forged.example", "tunneled.example"])
def test_35_of_1000_malformed_replies_none_keeps_the_right_one_out(
    machine: Machine, upstream: Hostile, zone: str
) -> None:
    count = 1000 if zone == "forged.example" else 200
    for number, name in enumerate(names(len(MALFORMED) + 1, zone)):
        kind = [*MALFORMED, "head"][number]
        first = address(EVIL, spoil=kind, rcode=FORMERR if number == len(MALFORMED) else 0, over="udp")
        upstream.say(f"*.{name}", first, right(after=0.01))
    begin(machine)
    asked = [f"m{number}.n{number % (len(MALFORMED) + 1)}.{zone}" for number in range(count)]
    assert wrong(ask(machine.lab.client, asked, every=0.002)) == []
    assert "Traceback" not in machine.log()


# -- row 36


@pytest.mark.parametrize("name", ["once.example", "once.tunneled.example"])
def test_36_ten_thousand_clients_with_one_question_are_one_question_upstream(
    machine: Machine, upstream: Hostile, name: str
) -> None:
    upstream.say(name, right(after=0.2))
    begin(machine)
    heard = ask(machine.lab.client, [name], copies=10_000, sockets=10_000, resend=1.0, patience=10.0)
    assert len(heard) == 10_000
    assert wrong(heard) == []
    assert len(upstream.asked(name)) == 1


def test_36_so_they_are_when_the_case_differs(machine: Machine, upstream: Hostile) -> None:
    upstream.say("once.example", right(after=0.2))
    begin(machine)
    ways = [f"{word}.{top}" for word in ("once", "ONCE", "OnCe", "oNcE") for top in ("example", "EXAMPLE", "Example")]
    heard = ask(machine.lab.client, ways)
    assert wrong(heard) == []
    assert [str(one.message.q.qname) for one in heard] == [f"{way}." for way in ways], "each has its own back"
    assert len(upstream.asked("once.example")) == 1


# -- row 37


def test_37_of_100_replies_of_six_kinds_that_do_not_match_none_is_believed(machine: Machine, upstream: Hostile) -> None:
    kinds = ("case", "id", "qtype", "qname", "qclass", "qr")
    for kind in kinds:
        upstream.say(f"*.{kind}.example", address(EVIL, spoil=kind, over="udp"), right())
    begin(machine, configuration(dns="mix_case = true"))
    asked = [name for kind in kinds for name in names(100, f"{kind}.example")]
    assert wrong(ask(machine.lab.client, asked, every=0.002)) == []
    cases = [one.name for one in upstream.asked() if one.over == "udp" and one.name]
    assert sum(name not in (name.lower(), name.upper()) for name in cases) > 540, "the case was mixed at all"


def test_37_a_server_that_answers_in_lower_case_is_of_use_nevertheless(machine: Machine, upstream: Hostile) -> None:
    upstream.say("*.forged.example", address(GOOD, spoil="lower"))
    begin(machine, configuration(dns="mix_case = true"))
    assert wrong(ask(machine.lab.client, names(100), every=0.005)) == []


def test_37_without_mix_case_the_name_goes_out_as_it_came(machine: Machine, upstream: Hostile) -> None:
    upstream.say("*.forged.example", right(after=0))
    begin(machine)
    ask(machine.lab.client, ["As-It-Came.forged.example"])
    assert clients_questions(upstream) == ["As-It-Came.forged.example"]


# -- an upstream that answers twice, late, from elsewhere


def test_a_second_and_a_late_answer_change_nothing(machine: Machine, upstream: Hostile) -> None:
    """They come while the port that they are for may already be another question's."""
    late = [address(EVIL, after=after, over="udp") for after in (0.001, 0.1, 0.7)]
    upstream.say("*.forged.example", right(after=0), *late)
    begin(machine)
    for first in (0, 300):
        heard = ask(machine.lab.client, names(first + 300)[first:], every=0.003)
        assert wrong(heard) == []
    time.sleep(0.7)
    assert wrong(ask(machine.lab.client, names(600), every=0.001)) == []


def test_an_answer_from_elsewhere_is_none(machine: Machine, upstream: Hostile) -> None:
    sources = ("port", "address")
    for source in sources:
        elsewhere = address(EVIL, source=source, over="udp")
        upstream.say(f"*.{source}.never.example", elsewhere)
        upstream.say(f"*.{source}.example", elsewhere, right())
    begin(machine)
    never = Crowd(machine.lab.client, [f"a.{source}.never.example" for source in sources], patience=8)
    for source in sources:
        assert wrong(ask(machine.lab.client, names(100, f"{source}.example"), every=0.005)) == []
    assert [(one.rcode, one.addresses) for one in never.wait()] == [(SERVFAIL, [])] * 2


# -- DNS cookies (RFC 7873)


def test_cookies_are_sent_and_given_back_and_differ_from_server_to_server(machine: Machine, upstream: Hostile) -> None:
    upstream.be(cookies="give")
    upstream.say("*", right(after=0))
    begin(machine, configuration(forward=f'"second.example" = ["{SECOND}"]'))
    for zone in ("forged.example", "second.example", "tunneled.example"):
        for number in range(3):
            assert wrong(ask(machine.lab.client, [f"n{number}.{zone}"])) == []
    cookies = {server: [asked.cookie for asked in upstream.asked("", server)] for server in EVERYWHERE}
    for seen in cookies.values():
        assert len(seen[0]) == 16 and {len(cookie) for cookie in seen[1:]} == {32}, "in hexadecimal"
        assert len({cookie[:16] for cookie in seen}) == 1
        assert len(set(seen[1:])) == 1
    assert len({seen[0] for seen in cookies.values()}) == 3


@pytest.mark.parametrize("cookie", ["none", "wrong"])
def test_a_server_with_cookies_is_not_forged_without_them(machine: Machine, upstream: Hostile, cookie: str) -> None:
    upstream.be(cookies="give")
    upstream.say("*.forged.example", address(EVIL, cookie=cookie, over="udp"), right())
    upstream.say("first.example", right())
    begin(machine)
    assert wrong(ask(machine.lab.client, ["first.example"])) == []
    assert wrong(ask(machine.lab.client, names(100), most=1)) == []


def test_who_answered_over_tcp_is_still_held_to_its_cookie(machine: Machine, upstream: Hostile) -> None:
    """An answer that is too big for UDP is no sign that the server has lost its cookies."""
    upstream.be(cookies="give")
    upstream.say("*.big.example", address(*(f"11.0.0.{last}" for last in range(200))))
    upstream.say("*.forged.example", address(EVIL, cookie="none", over="udp"), right())
    upstream.say("first.example", right())
    begin(machine)
    assert wrong(ask(machine.lab.client, ["first.example"])) == []
    pairs = [name for number in range(20) for name in (f"n{number}.big.example", f"n{number}.forged.example")]
    heard = ask(machine.lab.client, pairs, most=1)
    assert all(len(one.wire) > 12 for one in heard[0::2])
    assert wrong(heard[1::2]) == []


def test_a_server_that_demands_its_cookie_and_forgets_it_answers_all(machine: Machine, upstream: Hostile) -> None:
    upstream.be(cookies="demand")
    upstream.say("*.forged.example", right(after=0))
    begin(machine)
    for secret in (1, 2, 3):
        upstream.be(secret=secret)
        assert wrong(ask(machine.lab.client, names(3, f"first.s{secret}.forged.example"), most=1)) == []
        upstream.forget()
        assert wrong(ask(machine.lab.client, names(100, f"s{secret}.forged.example"), every=0.005)) == []
        assert {len(one.cookie) for one in upstream.asked() if one.over == "udp"} == {32}, "it has learned the new one"
        assert len(upstream.asked()) < 120, "and is not asked each question twice"


def test_a_server_that_loses_its_cookies_is_of_use_nevertheless(machine: Machine, upstream: Hostile) -> None:
    upstream.be(cookies="give")
    upstream.say("*.forged.example", right(after=0))
    begin(machine)
    assert wrong(ask(machine.lab.client, names(5))) == []
    upstream.be(cookies="")
    assert wrong(ask(machine.lab.client, names(50, "later.forged.example"), every=0.01)) == []


# -- row 59

HERE = "198.51.100.2"
LOOPS = {
    "one hop": [("127.0.0.2:5300", "127.0.0.1:53")],
    "two hops": [("127.0.0.2:5300", "127.0.0.3:5301"), ("127.0.0.3:5301", "127.0.0.53:53")],
    "by the redirect": [(f"{HERE}:5300", f"{PUBLIC_DNS[0]}:53")],
}


@pytest.mark.parametrize("loop", list(LOOPS))
def test_59_a_server_that_asks_us_is_found_out_and_asked_no_more(
    machine: Machine, upstream: Hostile, loop: str
) -> None:
    upstream.say("*", right(after=0))
    client = machine.lab.client
    with ExitStack() as stack:
        relays = [stack.enter_context(relay(client, at, to)) for at, to in LOOPS[loop]]
        begin(machine, configuration(default=[LOOPS[loop][0][0], DEFAULT]))
        deadline = time.monotonic() + 10
        for turn in range(100):
            before = relays[0].asked("forged.example")
            assert wrong(ask(client, names(5, f"t{turn}.forged.example"), every=0.1)) == []
            if relays[0].asked("forged.example") == before or time.monotonic() > deadline:
                break
        before = relays[0].asked("forged.example")
        assert before < 200, "no storm while it is not known"
        assert wrong(ask(client, names(200), every=0.004)) == []
        assert relays[0].asked("forged.example") - before == 0
        assert machine.dig("a.tunneled.example") == [GOOD]


def test_59_where_there_is_no_other_server_it_fails_and_does_not_spin(machine: Machine, upstream: Hostile) -> None:
    client = machine.lab.client
    with relay(client, *LOOPS["one hop"][0]) as looping:
        begin(machine, configuration(default=["127.0.0.2:5300"]))
        heard = ask(client, names(10), every=0.1, patience=8)
        assert {one.rcode for one in heard} == {SERVFAIL}
        assert looping.asked("forged.example") < 200
