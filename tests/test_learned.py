"""The ledger: lives that are never shortened, and addresses that go when the last name that held them goes."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.learned import Ledger, may_enter, merged
from splitwgd.names import Name, parse_name
from splitwgd.objects import Element
from splitwgd.ruleset import domain_set

SET4 = domain_set("wg", 4)
ONE, TWO = (SET4, ip_address("192.0.2.1")), (SET4, ip_address("192.0.2.2"))
A, B, C = (parse_name(f"{letter}.example") for letter in "abc")
NOW = 1000.0


def ledger() -> Ledger:
    return Ledger(min_lifetime=3600, slack=30)


def learn(book: Ledger, name: Name, *places: tuple[str, object], ttl: float = 60, now: float = NOW) -> list[Element]:
    """An answer, acknowledged."""
    elements = book.wanted(name, places, ttl, now)  # type: ignore[arg-type]
    book.record(name, elements, now)
    return elements


def left(book: Ledger, now: float = NOW) -> dict[tuple[str, object], float]:
    """Where everything is, and for how long yet."""
    return {(element.set, element.address): element.seconds for element in book.elements(now)}


def only(*names: Name) -> Callable[[Name, str], bool]:
    return lambda name, set_: name in names


@pytest.mark.parametrize(
    ("address", "enters"),
    [
        ("192.0.2.1", True),
        ("10.0.0.1", True),
        ("100.64.0.1", True),
        ("2001:db8::1", True),
        ("fd00::1", True),
        ("0.0.0.0", False),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("169.254.169.254", False),
        ("224.0.0.251", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("ff02::fb", False),
    ],
)
def test_what_never_leaves_this_machine_or_its_link_never_enters_a_set(address: str, enters: bool) -> None:
    assert may_enter(ip_address(address)) is enters


@pytest.mark.parametrize(("ttl", "life"), [(0, 3600), (60, 3600), (3570, 3600), (3571, 3601), (86400, 86430)])
def test_an_address_outlives_every_answer_and_the_least_life(ttl: int, life: int) -> None:
    (element,) = ledger().wanted(A, [ONE], ttl, NOW)
    assert element == Element(*ONE, "a.example", life)


def test_what_is_wanted_changes_nothing_until_the_kernel_has_it() -> None:
    book = ledger()
    book.wanted(A, [ONE], 60, NOW)
    assert len(book) == 0
    assert book.elements(NOW) == []


def test_a_shorter_ttl_does_not_shorten_a_life() -> None:
    book = ledger()
    learn(book, A, ONE, ttl=86400)
    (element,) = learn(book, A, ONE, ttl=5, now=NOW + 100)
    assert element.seconds == 86430 - 100
    assert left(book) == {ONE: 86430}


def test_an_element_bears_the_names_of_all_who_hold_it() -> None:
    book = ledger()
    learn(book, B, ONE)
    assert [element.name for element in book.wanted(A, [ONE, TWO], 60, NOW)] == ["a.example b.example", "a.example"]


def test_an_address_that_an_answer_holds_twice_is_one_element() -> None:
    assert len(ledger().wanted(A, [ONE, ONE, TWO], 60, NOW)) == 2


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 100_000), st.floats(0, 5000)), max_size=12))
def test_no_life_ever_gets_shorter(answers: list[tuple[Name, int, float]]) -> None:
    book, now, end = ledger(), NOW, NOW
    for name, ttl, pause in answers:
        now += pause
        (element,) = learn(book, name, ONE, ttl=ttl, now=now)
        assert element.seconds >= max(3600, ttl + 30)
        assert now + element.seconds >= end - 1e-6
        end = now + element.seconds
        assert left(book, now)[ONE] == pytest.approx(element.seconds)


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


def test_what_the_kernel_let_go_is_forgotten() -> None:
    book = ledger()
    learn(book, A, ONE)
    learn(book, A, TWO, ttl=7200)
    book.expire(NOW + 3599)
    assert len(book) == 2
    book.expire(NOW + 3600)
    assert len(book) == 1
    assert left(book) == {TWO: 7230}


@pytest.mark.parametrize(("seconds", "listed"), [(1.0, True), (0.9, False)])
def test_what_ends_within_a_second_is_listed_no_more(seconds: float, listed: bool) -> None:
    book = ledger()
    learn(book, A, ONE)
    assert bool(book.elements(NOW + 3600 - seconds)) is listed


def test_what_lives_is_listed_with_what_is_left() -> None:
    book = ledger()
    learn(book, B, ONE)
    learn(book, A, ONE)
    learn(book, A, TWO, ttl=7200)
    assert book.elements(NOW + 3599.5) == [Element(*TWO, "a.example", 7230 - 3599.5)]
    assert book.elements(NOW)[0] == Element(*ONE, "a.example b.example", 3600)


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
    assert after.release(only(B)) == []
    assert after.release(only()) == [ONE]


def test_a_restored_life_is_prolonged_and_not_shortened() -> None:
    book = restored("a.example")
    assert left(book) == {ONE: 500}
    assert learn(book, A, ONE)[0].seconds == 3600
    book.restore([Element(*ONE, "a.example", 5.0)], NOW)
    assert left(book) == {ONE: 3600}


@pytest.mark.parametrize("comment", ["a.example +", "+", "a.example ???", "\\001x.example"])
def test_an_address_that_strangers_hold_stays_until_its_end(comment: str) -> None:
    book = restored(comment)
    assert book.release(only()) == []
    assert len(book) == 1
    assert book.elements(NOW)[0].name.endswith("+")
    book.expire(NOW + 500)
    assert len(book) == 0


def test_strangers_stay_when_a_known_name_comes_and_goes() -> None:
    book = restored("+")
    learn(book, A, ONE)
    assert book.elements(NOW)[0].name == "a.example +"
    assert book.release(only()) == []


def test_an_address_without_a_comment_stays_until_its_end() -> None:
    assert restored("").release(only()) == []


# -- comments


wires = st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=3).map(
    lambda labels: b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
)


@given(st.lists(wires, min_size=1, max_size=12))
def test_a_comment_fits_and_can_neither_end_its_quotation_nor_its_line(names: list[Name]) -> None:
    book = ledger()
    for name in names:
        (element,) = learn(book, name, ONE)
    assert len(element.name.encode()) <= 110
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


@pytest.mark.parametrize(("length", "whole"), [(107, True), (108, False), (200, False)])
def test_a_name_too_long_for_a_comment_is_a_stranger_and_never_half_a_name(length: int, whole: bool) -> None:
    text = ".".join(["x" * 50] * 4)[-length:]
    (element,) = learn(ledger(), parse_name(text), ONE)
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
        Element(SET4, ip_address("192.0.2.1"), "b.example +", 10),
        Element(SET4, ip_address("192.0.2.1"), "a.example", 90),
        Element(SET4, ip_address("192.0.2.2"), "a.example", 5),
    ]
    assert merged(elements) == [
        Element(SET4, ip_address("192.0.2.1"), "a.example b.example +", 90),
        Element(SET4, ip_address("192.0.2.2"), "a.example", 5),
    ]
