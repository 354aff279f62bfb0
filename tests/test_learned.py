"""The ledger: lives that are never shortened, addresses that go when the last name that held them goes, and what
can be spared when a set is full."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.learned import COMMENT_LIMIT, Grant, Ledger, Place, merged
from splitwgd.names import Name, parse_name
from splitwgd.objects import Element
from splitwgd.ruleset import domain_set

SET4, SET6 = domain_set("wg", 4), domain_set("wg", 6)
ONE, TWO, THREE = ((SET4, ip_address(f"192.0.2.{number}").packed) for number in (1, 2, 3))
SIX = (SET6, ip_address("2001:db8::1").packed)
A, B, C = (parse_name(f"{letter}.example") for letter in "abc")
NOW = 1000.0


def ledger(spare: float = 0) -> Ledger:
    return Ledger(min_lifetime=3600, slack=30, spare=spare)


def learn(book: Ledger, name: Name, *places: Place, ttl: float = 60, now: float = NOW) -> Grant:
    """An answer, acknowledged."""
    grant = book.grant(name, places, ttl, now)
    book.record(grant, now)
    return grant


def left(book: Ledger, now: float = NOW) -> dict[Place, float]:
    """Where everything is, and for how long yet."""
    return {(element.set, element.address): element.seconds for element in book.elements(now)}


def comments(book: Ledger, now: float = NOW) -> list[str]:
    return [element.name for element in book.elements(now)]


def only(*names: Name) -> Callable[[Name, str], bool]:
    return lambda name, set_: name in names


# -- what has to be written


@pytest.mark.parametrize(("ttl", "life"), [(0, 3600), (60, 3600), (3570, 3600), (3571, 3601), (86400, 86430)])
def test_an_address_outlives_every_answer_and_the_least_life(ttl: int, life: int) -> None:
    grant = ledger().grant(A, [ONE], ttl, NOW)
    assert (grant.new, grant.renewed) == ([Element(*ONE, "a.example", life)], [])


def test_what_is_granted_changes_nothing_until_the_kernel_has_it() -> None:
    book = ledger()
    book.grant(A, [ONE], 60, NOW)
    assert len(book) == 0
    assert book.elements(NOW) == []
    assert (book.held_by(A), book.sizes()) == (0, {})


def test_an_address_that_lives_long_enough_is_not_written_again() -> None:
    book = ledger()
    learn(book, A, ONE, ttl=7200)
    grant = learn(book, A, ONE, ttl=60, now=NOW + 3630)
    assert (grant.new, grant.renewed) == ([], [])
    assert left(book) == {ONE: 7230}


def test_an_address_that_would_end_too_soon_is_renewed() -> None:
    book = ledger()
    learn(book, A, ONE, ttl=7200)
    grant = learn(book, A, ONE, ttl=60, now=NOW + 3631)
    assert (grant.new, grant.renewed) == ([], [Element(*ONE, "a.example", 3600)])
    assert left(book) == {ONE: 3631 + 3600}


def test_what_is_spare_keeps_the_next_answer_from_a_write_and_is_never_counted_upon() -> None:
    book = ledger(spare=900)
    assert learn(book, A, ONE).new == [Element(*ONE, "a.example", 4500)]
    assert learn(book, A, ONE, now=NOW + 900).renewed == []
    assert learn(book, A, ONE, now=NOW + 901).renewed == [Element(*ONE, "a.example", 4500)]


def test_an_address_that_the_kernel_has_let_go_is_new() -> None:
    book = ledger()
    learn(book, A, ONE)
    assert book.grant(A, [ONE], 60, NOW + 3599).renewed
    assert book.grant(A, [ONE], 60, NOW + 3600).new == [Element(*ONE, "a.example", 3600)]


def test_a_shorter_ttl_does_not_shorten_a_life() -> None:
    book = ledger()
    learn(book, A, ONE, ttl=86400)
    (element,) = learn(book, B, ONE, ttl=5, now=NOW + 100).renewed
    assert element.seconds == 86430 - 100
    assert left(book) == {ONE: 86430}


def test_an_element_bears_the_names_of_all_who_hold_it() -> None:
    book = ledger()
    learn(book, B, ONE)
    grant = learn(book, A, ONE, TWO)
    assert [element.name for element in (*grant.renewed, *grant.new)] == ["b.example a.example", "a.example"]
    assert comments(book) == ["b.example a.example", "a.example"]
    assert learn(book, A, ONE).renewed == [], "it is there already"


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 100_000), st.floats(0, 5000)), max_size=12))
def test_no_life_ever_gets_shorter(answers: list[tuple[Name, int, float]]) -> None:
    """By what is written, and by what the ledger says of it."""
    book, now, end = ledger(spare=90), NOW, NOW
    for name, ttl, pause in answers:
        now += pause
        grant = learn(book, name, ONE, ttl=ttl, now=now)
        for element in (*grant.new, *grant.renewed):
            assert now + element.seconds >= end - 1e-6
            end = now + element.seconds
        assert end >= now + max(3600, ttl + 30) - 1e-6
        assert left(book, now)[ONE] == pytest.approx(end - now)


# -- what is released


def test_an_address_goes_when_the_last_name_that_holds_it_goes() -> None:
    book = ledger()
    learn(book, A, ONE, TWO)
    learn(book, B, ONE)
    assert book.release(only(B)) == [TWO]
    assert book.release(only(B)) == []
    assert book.release(only()) == [ONE]
    assert len(book) == 0


def test_nothing_goes_while_every_name_stays() -> None:
    book = ledger()
    learn(book, A, ONE)
    assert book.release(only(A)) == []
    assert len(book) == 1


def test_a_name_is_asked_about_for_each_set_that_it_holds_something_in() -> None:
    book, other = ledger(), ("second_domains4", ONE[1])
    learn(book, A, ONE, other)
    assert book.release(lambda name, set_: set_ == SET4) == [other]


# -- what ends


def test_what_the_kernel_let_go_is_forgotten_a_little_later_and_never_before() -> None:
    book = ledger()
    learn(book, A, ONE)
    learn(book, A, TWO, ttl=7200)
    book.expire(NOW + 3599)
    assert len(book) == 2
    book.expire(NOW + 3600 + 64)
    assert book.places() == {TWO}
    assert left(book) == {TWO: 7230}


def test_what_was_renewed_is_not_forgotten_at_its_former_end() -> None:
    book = ledger()
    learn(book, A, ONE)
    learn(book, A, ONE, now=NOW + 3000)
    book.expire(NOW + 3600 + 64)
    assert book.places() == {ONE}
    book.expire(NOW + 6600 + 64)
    assert book.places() == set()


@given(
    st.lists(
        st.tuples(st.sampled_from(["learn", "expire", "release", "evict"]), st.integers(0, 9), st.floats(0, 4000)),
        max_size=30,
    )
)
def test_whatever_happens_the_counts_are_those_of_what_is_held(deeds: list[tuple[str, int, float]]) -> None:
    book, now = ledger(), NOW
    ends: dict[Place, float] = {}
    for deed, number, pause in deeds:
        now += pause
        place = (SET4 if number % 2 else SET6, bytes((number,)) * (4 if number % 2 else 16))
        match deed:
            case "learn":
                learn(book, (A, B)[number % 3 == 0], place, ttl=number * 600, now=now)
                ends[place] = left(book, now)[place] + now
            case "expire":
                book.expire(now)
                assert {p for p in ends if ends[p] > now} <= book.places() <= {p for p in ends if ends[p] > now - 128}
            case "release":
                for gone in book.release(lambda name, set_: name == A):
                    del ends[gone]
            case "evict":
                book.evict([place])
                ends.pop(place, None)
        ends = {place: end for place, end in ends.items() if place in book.places()}
        assert len(book) == len(ends) == sum(book.sizes().values())
        assert {set_: book.size(set_) for set_ in book.sizes()} == book.sizes()
        assert book.held_by(A) + book.held_by(B) >= len(book)
    book.release(only())
    assert (book.held_by(A), book.held_by(B), len(book), book.sizes()) == (0, 0, 0, {})


@pytest.mark.parametrize(("seconds", "listed"), [(1.0, True), (0.9, False)])
def test_what_ends_within_a_second_is_listed_no_more(seconds: float, listed: bool) -> None:
    book = ledger()
    learn(book, A, ONE)
    assert bool(book.elements(NOW + 3600 - seconds)) is listed


def test_what_lives_is_listed_with_what_is_left() -> None:
    book = ledger()
    learn(book, A, ONE)
    learn(book, B, ONE)
    learn(book, A, TWO, ttl=7200)
    assert book.elements(NOW + 3599.5) == [Element(*TWO, "a.example", 7230 - 3599.5)]
    assert book.elements(NOW)[0] == Element(*ONE, "a.example b.example", 3600)
    assert book.elements(NOW, [TWO, THREE]) == [Element(*TWO, "a.example", 7230)]


def test_addresses_are_counted_by_set_and_by_name() -> None:
    book = ledger()
    learn(book, A, ONE, SIX)
    learn(book, B, ONE, TWO)
    assert (book.size(SET4), book.size(SET6), book.size("another")) == (2, 1, 0)
    assert book.sizes() == {SET4: 2, SET6: 1}
    assert (book.held_by(A), book.held_by(B), book.held_by(C)) == (2, 2, 0)


# -- who makes room


def places_of(count: int) -> list[Place]:
    return [(SET4, number.to_bytes(4, "big")) for number in range(count)]


def test_what_ends_first_makes_room() -> None:
    book = ledger()
    early, middle, late = places_of(3)
    for place, ttl in ((late, 9000), (early, 5000), (middle, 7000)):
        learn(book, A, place, ttl=ttl)
    assert book.victims(SET4, 2, NOW + 9000) == [early, middle]
    learn(book, B, early, ttl=0, now=NOW + 4999)  # from here on it ends in between
    assert book.victims(SET4, 2, NOW + 9000) == [middle, early]


def test_what_is_promised_never_makes_room() -> None:
    book = ledger()
    learn(book, A, ONE, ttl=600)
    learn(book, A, TWO, ttl=100)
    learn(book, A, THREE, ttl=0)
    assert book.victims(SET4, 9, NOW + 99) == [THREE]
    assert book.victims(SET4, 9, NOW + 100) == [TWO, THREE]
    assert book.victims(SET4, 9, NOW + 600) == [ONE, TWO, THREE]


def test_a_shorter_answer_does_not_end_the_promise_of_a_longer_one() -> None:
    book = ledger()
    learn(book, A, ONE, ttl=600)
    learn(book, B, ONE, ttl=5)
    assert book.victims(SET4, 1, NOW + 599) == []


def test_an_answer_that_needs_no_write_is_a_promise_too() -> None:
    book = ledger(spare=900)
    learn(book, A, ONE, ttl=600)
    assert not learn(book, A, ONE, ttl=60, now=NOW + 580).renewed
    assert book.victims(SET4, 1, NOW + 639) == []
    assert book.victims(SET4, 1, NOW + 640) == [ONE]


def test_an_address_without_a_ttl_is_promised_for_as_long_as_it_takes_to_connect() -> None:
    book = Ledger(3600, 3600, grace=2.0)
    learn(book, A, ONE, ttl=0)
    assert book.victims(SET4, 1, NOW + 1.9) == []
    assert book.victims(SET4, 1, NOW + 2) == [ONE]


def test_room_is_made_in_the_set_that_lacks_it() -> None:
    book = ledger()
    learn(book, A, ONE, SIX, ttl=0)
    assert book.victims(SET6, 9, NOW) == [SIX]


def test_a_name_makes_room_with_what_it_holds_alone() -> None:
    book = ledger()
    learn(book, A, ONE, TWO, ttl=0)
    learn(book, B, TWO, THREE, ttl=0)
    assert book.victims(SET4, 9, NOW, A) == [ONE]
    assert book.victims(SET4, 9, NOW, C) == []


def test_who_looked_in_vain_looks_again_when_the_first_promise_has_ended() -> None:
    book = ledger()
    learn(book, A, ONE, ttl=600)
    learn(book, A, TWO, ttl=100)
    assert book.victims(SET4, 1, NOW) == book.victims(SET4, 1, NOW + 99) == []
    assert book.victims(SET4, 1, NOW, A) == book.victims("", 1, NOW) == []
    learn(book, B, THREE, ttl=50)
    assert book.victims(SET4, 1, NOW + 100) == [TWO]
    assert book.victims(SET4, 1, NOW + 100, A) == [TWO]
    assert book.victims("", 9, NOW + 600) == [ONE, TWO, THREE]


def test_what_is_spared_for_one_turn_can_go_in_the_next() -> None:
    book = ledger()
    learn(book, A, ONE, ttl=0)
    assert book.victims(SET4, 1, NOW, spared={ONE}) == []
    assert book.victims(SET4, 1, NOW) == [ONE]


def test_a_name_that_held_nothing_alone_makes_room_when_it_does() -> None:
    book = ledger()
    learn(book, A, ONE, ttl=0)
    learn(book, B, ONE, ttl=0)
    assert book.victims("", 1, NOW, A) == []
    learn(book, A, TWO, ttl=0)
    assert book.victims("", 1, NOW + 1, A) == [TWO]
    assert book.release(only(A)) == []
    assert book.victims("", 2, NOW + 1, A) == [ONE, TWO]


def test_no_more_make_room_than_are_asked_for_and_none_twice() -> None:
    book = ledger(spare=1)
    many = places_of(20)
    learn(book, A, *many, ttl=0)
    for name in (B, C):  # they are put down once more, on the same page of the calendar
        learn(book, name, *many[:10], ttl=0)
    assert len(book.victims(SET4, 15, NOW)) == len(set(book.victims(SET4, 15, NOW))) == 15
    assert len(set(book.victims(SET4, 99, NOW))) == 20


def test_who_has_made_room_is_forgotten_and_may_come_again() -> None:
    book = ledger()
    learn(book, A, ONE, TWO, ttl=0)
    book.evict([ONE, THREE])
    assert (book.places(), book.size(SET4), book.held_by(A)) == ({TWO}, 1, 1)
    assert learn(book, A, ONE).new == [Element(*ONE, "a.example", 3600)]
    assert book.places() == {ONE, TWO}


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20_000), st.floats(0, 500)), min_size=1, max_size=40),
    st.integers(1, 20),
)
def test_victims_end_before_all_that_could_be_spared_too_but_for_a_minute(
    answers: list[tuple[int, int, float]], count: int
) -> None:
    book, now = ledger(), NOW
    promised: dict[Place, float] = {}
    ends: dict[Place, float] = {}
    for number, ttl, pause in answers:
        now += pause
        place = places_of(201)[number]
        learn(book, A, place, ttl=ttl, now=now)
        promised[place] = max(promised.get(place, 0), now + ttl)
        ends[place] = now + left(book, now)[place]
    victims = book.victims(SET4, count, now)
    free = {place for place in ends if promised[place] <= now}
    assert set(victims) <= free
    assert len(victims) == min(count, len(free))
    for other in free - set(victims):
        assert all(ends[victim] < ends[other] + 64 for victim in victims)


# -- after a restart


def restored(*comments: str) -> Ledger:
    book = ledger()
    book.restore([Element(*ONE, comment, 500.0) for comment in comments], NOW)
    return book


def test_a_restart_keeps_names_and_lives() -> None:
    before = ledger()
    learn(before, A, ONE)
    learn(before, B, ONE)
    after = ledger()
    after.restore(before.elements(NOW + 600), NOW)
    assert after.elements(NOW) == [Element(*ONE, "a.example b.example", 3000)]
    assert (after.held_by(A), after.held_by(B), after.size(SET4)) == (1, 1, 1)
    assert after.release(only(B)) == []
    assert after.release(only()) == [ONE]


def test_a_restored_life_is_prolonged_and_not_shortened() -> None:
    book = restored("a.example")
    assert left(book) == {ONE: 500}
    assert learn(book, A, ONE).renewed[0].seconds == 3600
    book.restore([Element(*ONE, "a.example", 5.0)], NOW)
    assert left(book) == {ONE: 3600}


def test_a_restart_keeps_what_may_have_been_promised() -> None:
    """500 seconds are left, and 30 of them are slack: somebody may believe in it for 470 yet."""
    book = restored("a.example")
    assert book.victims(SET4, 1, NOW + 469) == []
    assert book.victims(SET4, 1, NOW + 470) == [ONE]


@pytest.mark.parametrize("comment", ["a.example +", "+", "a.example ???", "\\001x.example"])
def test_an_address_that_strangers_hold_stays_until_its_end(comment: str) -> None:
    book = restored(comment)
    assert book.release(only()) == []
    assert len(book) == 1
    book.expire(NOW + 500 + 64)
    assert len(book) == 0


def test_strangers_stay_when_a_known_name_comes_and_goes() -> None:
    book = restored("+")
    learn(book, A, ONE)
    assert book.elements(NOW)[0].name == "+", "what is cut off stays cut off: the name is a stranger after a restart"
    assert book.release(only()) == []


def test_a_name_of_an_address_that_strangers_hold_comes_and_goes() -> None:
    book = restored("a.example +")
    assert book.release(only()) == []
    assert (book.held_by(A), len(book)) == (0, 1)


def test_an_address_without_a_comment_stays_until_its_end() -> None:
    assert restored("").release(only()) == []


# -- after a reboot


def reborn(before: Ledger, now: float, places: list[Place] | None = None) -> Ledger:
    """What another ledger makes of what this one hands out, by the same clock."""
    after = ledger()
    after.recall(before.remember(before.in_order() if places is None else places, now), now)
    return after


def test_a_reboot_keeps_names_lives_and_promises() -> None:
    before = ledger()
    learn(before, A, ONE, SIX)
    learn(before, B, ONE, ttl=7200)
    after = reborn(before, NOW + 600)
    assert after.elements(NOW) == before.elements(NOW)
    assert (after.held_by(A), after.held_by(B), after.sizes()) == (2, 1, {SET4: 1, SET6: 1})
    assert after.victims(SET4, 1, NOW + 7199) == []
    assert after.release(only(B)) == [SIX]
    assert after.release(only()) == [ONE]


def test_a_reboot_keeps_the_names_that_no_comment_has_room_for() -> None:
    before = ledger()
    many = [parse_name(f"{'x' * 20}{number}.example") for number in range(9)]
    for name in many:
        learn(before, name, ONE)
    after = reborn(before, NOW)
    assert comments(after) == comments(before)
    assert after.release(only(many[-1])) == []
    assert after.release(only()) == [ONE], "there are no strangers"


@pytest.mark.parametrize("comment", ["a.example +", "+", ""])
def test_a_reboot_keeps_what_strangers_hold_until_its_end(comment: str) -> None:
    before = restored(comment)
    assert [each.more for each in before.remember([ONE], NOW)] == [True]
    after = reborn(before, NOW)
    assert left(after) == {ONE: 500}
    assert after.release(only()) == []


def test_what_has_ended_is_not_remembered_and_what_is_unknown_neither() -> None:
    book = ledger()
    learn(book, A, ONE)
    assert len(reborn(book, NOW + 3599)) == 1
    assert len(reborn(book, NOW + 3600)) == 0
    assert left(reborn(book, NOW, [TWO, ONE])) == {ONE: 3600}


def test_what_is_recalled_does_not_shorten_what_lives() -> None:
    book, short = ledger(), ledger()
    learn(book, A, ONE, ttl=7200)
    learn(short, B, ONE)
    book.recall(short.remember([ONE], NOW), NOW)
    assert left(book) == {ONE: 7230}
    assert comments(book) == ["a.example b.example"]


def test_an_address_is_held_as_long_as_it_lives() -> None:
    book = ledger()
    learn(book, A, ONE)
    assert book.holds(ONE, NOW + 3599)
    assert not book.holds(ONE, NOW + 3600) and not book.holds(TWO, NOW)


@given(st.integers(0, 86_400))
def test_no_grant_is_longer_than_the_longest(ttl: int) -> None:
    book = ledger(spare=90)
    (element,) = learn(book, A, ONE, ttl=ttl).new
    assert element.seconds <= book.longest(86_400) == 86_400 + 30 + 90
    assert book.longest(60) == 3690


# -- comments


wires = st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=3).map(
    lambda labels: b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
)


@given(st.lists(wires, min_size=1, max_size=12))
def test_a_comment_fits_and_can_neither_end_its_quotation_nor_its_line(names: list[Name]) -> None:
    book = ledger()
    for name in names:
        learn(book, name, ONE)
    (element,) = book.elements(NOW)
    assert len(element.name.encode()) <= COMMENT_LIMIT
    assert element.name.isprintable()
    assert '"' not in element.name


def test_names_that_do_not_fit_are_counted_as_strangers_after_a_restart() -> None:
    book = ledger()
    many = [parse_name(f"{'x' * 20}{number}.example") for number in range(9)]
    for name in many:
        learn(book, name, ONE)
    (element,) = book.elements(NOW)
    assert element.name.endswith(" +")
    after = ledger()
    after.restore([element], NOW)
    assert after.release(only()) == []


@pytest.mark.parametrize(("length", "whole"), [(107, True), (108, True), (109, False), (200, False)])
def test_a_name_too_long_for_a_comment_is_a_stranger_and_never_half_a_name(length: int, whole: bool) -> None:
    text = ".".join(["x" * 50] * 4)[-length:]
    (element,) = learn(ledger(), parse_name(text), ONE).new
    assert element.name == (text if whole else "+")


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_what_a_comment_forgets_never_frees_an_address_that_somebody_holds(lengths: list[int]) -> None:
    """However many names fit: after a restart the address stays as long as any of its names does."""
    names = [parse_name(f"{'x' * length}.n{place}") for place, length in enumerate(lengths)]
    for staying in names:
        book = ledger()
        for name in names:
            learn(book, name, ONE)
        after = ledger()
        after.restore(book.elements(NOW), NOW)
        assert after.release(only(staying)) == []


def test_names_that_bring_an_address_in_one_turn_share_its_element() -> None:
    elements = [
        Element(*ONE, "b.example", 10),
        Element(*ONE, "a.example +", 90),
        Element(*TWO, "a.example", 5),
        Element(*THREE, "c.example +", 7),
        Element(*THREE, "a.example", 6),
    ]
    assert merged(elements) == [
        Element(*ONE, "b.example a.example +", 90),
        Element(*TWO, "a.example", 5),
        Element(*THREE, "c.example +", 7),  # who is not named is among the "+"
    ]


class Kernel:
    """What the sets hold: for each place its comment, and when it ends."""

    def __init__(self) -> None:
        self.held: dict[Place, tuple[str, float]] = {}

    def take(self, grants: list[Grant], now: float) -> None:
        """The answers of one turn."""
        self.held = {place: (comment, end) for place, (comment, end) in self.held.items() if end > now}
        for element in merged([element for grant in grants for element in grant.new]):
            assert (element.set, element.address) not in self.held, "what should be new is absent"
            self.held[element.set, element.address] = (element.name, now + element.seconds)
        for element in merged([element for grant in grants for element in grant.renewed]):
            place = (element.set, element.address)
            assert self.held[place][1] <= now + element.seconds + 1e-6, "no life gets shorter"
            self.held[place] = (element.name, now + element.seconds)

    def restart(self, now: float) -> Ledger:
        """The ledger of the next process."""
        after = ledger()
        after.restore([Element(*place, comment, end - now) for place, (comment, end) in self.held.items()], now)
        return after


LONG = [parse_name(f"{'x' * 40}.{letter}.example") for letter in "abc"]
turns = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from([A, B, C, *LONG]), st.sampled_from([ONE, TWO]), st.integers(0, 9000)), max_size=3
        ),
        st.floats(0, 5000),
        st.booleans(),
    ),
    max_size=8,
)


@given(turns)
def test_who_was_promised_an_address_keeps_it_even_after_a_restart(story: list[tuple[Any, float, bool]]) -> None:
    """Whatever came together or one after another, and whatever had ended in between: the element lives long
    enough, and its comment does not forget whom it is for."""
    book, kernel, now = ledger(spare=90), Kernel(), NOW
    promised: dict[tuple[Name, Place], float] = {}
    for answers, pause, tidy in story:
        now += pause
        if tidy:
            book.expire(now)
        grants = [book.grant(name, [place], ttl, now) for name, place, ttl in answers]
        kernel.take(grants, now)
        for grant in grants:
            book.record(grant, now)
        for name, place, ttl in answers:
            promised[name, place] = max(promised.get((name, place), 0), now + ttl)
        for (name, place), until in promised.items():
            if until >= now:
                assert kernel.held[place][1] >= until + 30 - 1e-6
                assert place not in kernel.restart(now).release(only(name))


def test_an_address_that_had_ended_belongs_to_those_who_bring_it_back() -> None:
    book, later = ledger(), NOW + 3600
    learn(book, A, ONE)
    (element,) = learn(book, B, ONE, now=later).new
    assert (element.name, comments(book, later), book.held_by(A)) == ("b.example", ["b.example"], 0)
    (element,) = learn(book, A, ONE, now=later).renewed
    assert element.name == "b.example a.example"


@pytest.mark.parametrize(("length", "whole"), [(53, True), (54, False)])
def test_a_comment_is_as_long_as_it_may_be_with_room_for_the_sign(length: int, whole: bool) -> None:
    book = ledger()
    first, second = ("x" * 52 + ".y", "z" * (length - 2) + ".y")
    learn(book, parse_name(first), ONE)
    learn(book, parse_name(second), ONE)
    assert comments(book) == [f"{first} {second}" if whole else f"{first} +"]
