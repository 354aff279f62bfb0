"""The table: it holds exactly what was added, in little memory, and is spread as it grows."""

from __future__ import annotations

import sys
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.names import NameProblem, Pattern, Scope, parse_name, parse_pattern
from splitwgd.patterns import (
    CONTRADICTIONS_AT_MOST,
    FILL,
    PatternTable,
    key_of,
    keys_of,
    number_of,
    opposite,
    together,
    verdict,
)

MANY = 20_000
NAMES = [f"host-{number}.sub{number % 97}.example{number % 7}.com" for number in range(MANY)]


def table_of(*texts: str) -> PatternTable:
    table = PatternTable()
    for text in texts:
        pattern = parse_pattern(text)
        table.add_keys([key_of(pattern.name)], pattern.scope, pattern.exception)
    return table


def many() -> PatternTable:
    table = PatternTable()
    for start in range(0, MANY, 1000):
        table.add_keys(keys_of(NAMES[start : start + 1000]))
    return table


def texts_of(table: PatternTable) -> list[str]:
    return [str(pattern) for pattern in table]


# -- keys


texts = st.lists(
    st.text("abcXYZ019-_.", min_size=1, max_size=70) | st.sampled_from(["a." * 127, "b." * 126 + "c", "b." * 127 + "c"])
)


@given(texts.filter(len))
def test_the_keys_of_many_names_are_those_of_each_or_none_is_made(names: list[str]) -> None:
    try:
        expected = [key_of(parse_name(name)) for name in names if not name.endswith(".")]
        assert len(expected) == len(names)
    except (NameProblem, AssertionError):
        with pytest.raises(ValueError, match="label"):
            keys_of(names)
    else:
        assert keys_of(names) == expected


@pytest.mark.parametrize("length", [62, 63, 64])
def test_a_label_has_63_bytes_at_most(length: int) -> None:
    names = ["ok.example", f"{'a' * length}.example"]
    if length < 64:
        assert keys_of(names) == [key_of(parse_name(name)) for name in names]
    else:
        with pytest.raises(ValueError, match="label is too long"):
            keys_of(names)


# -- the table


def test_what_was_added_is_there_and_nothing_else() -> None:
    table = table_of("example.com", "=example.org", "!*.example.net", "!a.example.com", "*.example.com")
    assert sorted(texts_of(table)) == [
        "!*.example.net",
        "!a.example.com",
        "*.example.com",
        "=example.org",
        "example.com",
    ]
    assert len(table) == 5
    assert table.at(parse_name("example.com")) == [parse_pattern("example.com"), parse_pattern("*.example.com")]
    assert table.at(parse_name("com")) == []


def test_what_is_added_twice_is_there_once() -> None:
    table = table_of("example.com", "=example.com", "example.com", "=example.com")
    assert sorted(texts_of(table)) == ["=example.com", "example.com"]
    assert len(table) == 2


@pytest.mark.parametrize("first", ["a.b", "=a.b", "*.a.b", "!a.b", "!=a.b", "!*.a.b"])
def test_of_two_that_contradict_each_other_the_first_stays(first: str) -> None:
    pattern = parse_pattern(first)
    table = table_of(first, str(opposite(pattern)))
    assert texts_of(table) == [first]
    assert (table.contradictions, table.contradicting) == ([opposite(pattern)], 1)


def test_contradictions_are_kept_within_bounds() -> None:
    table = many()
    table.add_keys(keys_of(NAMES), exception=True)
    assert len(table) == MANY
    assert (len(table.contradictions), table.contradicting) == (CONTRADICTIONS_AT_MOST, MANY)


SCOPED = [f"{mark}{scope}" for mark in ("", "!") for scope in ("", "=", "*.")]


@given(st.sets(st.sampled_from(SCOPED)).map(sorted), st.booleans())
def test_all_that_there_can_be_of_one_name_is_kept(marks: list[str], crowded: bool) -> None:
    """crowded: between other names, of which the one is a tail, and which are a tail of it."""
    patterns = [f"{mark}b.example" for mark in marks if mark.lstrip("!") not in marks or not mark.startswith("!")]
    others = ["a.b.example", "example", "bb.example"] if crowded else []
    table = table_of(*others[:2], *patterns, *others[2:])
    assert sorted(texts_of(table)) == sorted([*patterns, *others])
    assert sorted(map(str, table.at(parse_name("b.example")))) == sorted(patterns)


def test_a_table_that_grew_has_lost_nothing() -> None:
    table = PatternTable()
    table.add_keys(keys_of(NAMES[:5]), Scope.ONLY_BELOW, exception=True)
    for start in range(0, MANY, 1000):
        table.add_keys(keys_of(NAMES[start : start + 1000]))
    for packed in (False, True):
        if packed:
            table.pack()
        assert len(table) == MANY + 5
        assert {str(pattern) for pattern in table} == {*NAMES, *(f"!*.{name}" for name in NAMES[:5])}
        assert all(table.number(key) for key in keys_of(NAMES))
    assert not any(table.number(key) for key in keys_of([f"x.{name}" for name in NAMES[:1000]]))


def test_buckets_stay_short_however_many_names_there_are() -> None:
    """A lookup searches one bucket: its time is the bucket's length."""
    assert len(many().buckets) * FILL >= MANY
    assert max(bucket.count("@") for bucket in many().buckets) < 8 * FILL


def test_room_that_is_made_beforehand_is_not_made_again() -> None:
    table = PatternTable()
    table.expect(MANY)
    buckets = table.buckets
    table.add_keys(keys_of(NAMES))
    assert table.buckets is buckets


def test_a_name_takes_little_more_memory_than_its_letters() -> None:
    table = many()
    table.pack()
    taken = sys.getsizeof(table.buckets) + sum(map(sys.getsizeof, table.buckets))
    assert taken < sum(map(len, NAMES)) + 12 * MANY


def test_long_work_is_done_in_steps_with_a_rest_after_each() -> None:
    rests: list[None] = []
    table = PatternTable(lambda: rests.append(None))
    table.add_keys(keys_of(NAMES))
    for work in (partial(table.expect, 10 * MANY), table.pack, table.clear):
        rests.clear()
        work()
        assert len(rests) >= 10


def test_a_table_that_was_cleared_is_none() -> None:
    """It does not say "not tunneled" of what was: whoever still asks it fails."""
    table = many()
    table.clear()
    with pytest.raises(IndexError):
        table.number(key_of(parse_name(NAMES[0])))


# -- as a value


def test_tables_are_equal_by_what_was_added_however_it_was_cut() -> None:
    one, other = PatternTable(), PatternTable()
    one.add_keys(keys_of(["a.example", "b.example", "c.example"]))
    other.add_keys(keys_of(["a.example"]))
    assert one != other
    other.add_keys(keys_of(["b.example", "c.example"]))
    assert one == other
    assert hash(one) == hash(other)


DIFFERENT = ["a.example", "!a.example", "=a.example", "*.a.example", "a.a.example"]


@pytest.mark.parametrize("place", range(len(DIFFERENT)))
def test_tables_differ_by_name_scope_and_exception(place: int) -> None:
    mine = table_of("b.example", DIFFERENT[place])
    assert [table_of("b.example", text) == mine for text in DIFFERENT] == [n == place for n in range(len(DIFFERENT))]
    assert mine != "b.example"


def test_the_names_are_not_in_its_text() -> None:
    assert repr(table_of("secret.example")) == "<1 patterns>"


# -- numbers


def expected_verdict(patterns: list[Pattern], itself: bool) -> bool | None:
    """By the words of the contract: the pattern that is precise wins over the one that is not."""
    for scope in (Scope.ONLY_ITSELF if itself else Scope.ONLY_BELOW, Scope.WITH_BELOW):
        for pattern in patterns:
            if pattern.scope is scope:
                return not pattern.exception
    return None


one_of_each = st.tuples(*(st.sampled_from([None, False, True]) for _ in Scope))


@given(one_of_each, st.booleans(), st.data())
def test_the_verdict_is_that_of_the_most_precise_pattern(
    exceptions: tuple[bool | None, ...], itself: bool, data: st.DataObject
) -> None:
    name = parse_name("a.example")
    pairs = zip(Scope, exceptions, strict=True)
    patterns = [Pattern(name, scope, exception) for scope, exception in pairs if exception is not None]
    number = 0
    for pattern in data.draw(st.permutations(patterns)):
        number = together(number, number_of(pattern))
    assert verdict(number, itself) == expected_verdict(patterns, itself)
    assert together(number, number) == number
