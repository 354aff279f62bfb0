"""Reading values: each bad one is a problem with its key, and reading goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from splitwgd.settings import Settings


class NoFiles:
    def read(self, path: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    def glob(self, pattern: str) -> list[str]:
        return []

    def stamp(self, path: str) -> tuple[int, ...]:
        return ()

    def pieces(self, path: str) -> Iterator[bytes]:
        raise PermissionError(13, "Permission denied")

    def rest(self) -> None:
        pass


def settings(**values: Any) -> Settings:
    return Settings("f.toml", {"s": values}, NoFiles())


def told(found: Settings) -> list[str]:
    return [str(problem) for problem in found.problems]


def test_a_missing_value_is_the_usual_one_and_no_problem() -> None:
    found = settings()
    assert found.number("s.n", 5, 1, 9) == 5
    assert found.plain("s.b", True, bool, "true or false") is True
    assert found.many("s.l", "a word", str) == []
    assert told(found) == []


@pytest.mark.parametrize("value", [0, 10, True, "5", 5.0, [5]])
def test_a_number_out_of_its_bounds_is_told_and_replaced(value: Any) -> None:
    found = settings(n=value)
    assert found.number("s.n", 5, 1, 9) == 5
    assert told(found) == [f"f.toml: s.n: = {value!r}; write a number from 1 to 9"]


def test_of_a_list_the_good_ones_are_kept_and_each_bad_one_is_told_with_its_place() -> None:
    found = settings(l=["1", "x", 2, "3"])
    assert found.many("s.l", "a number", int) == [1, 3]
    assert [line.partition(";")[0] for line in told(found)] == [
        "f.toml: s.l[1]: = 'x': invalid literal for int() with base 10: 'x'",
        "f.toml: s.l[2]: = 2 is no text",
    ]


def test_what_is_required_is_missed() -> None:
    found = settings(empty=[])
    assert (found.required("s.empty", "add one"), found.required("s.none", "add one")) == ([], [])
    assert told(found) == ["f.toml: s.empty: is empty; add one", "f.toml: s.none: is missing; add one"]


def test_an_unreadable_file_is_told_under_the_key_that_names_it() -> None:
    found = settings()
    assert found.text("/x", "s.file", "check it") is None
    assert told(found) == ["f.toml: s.file: /x cannot be read (Permission denied); check it"]


def test_unknown_keys_are_told_at_every_level() -> None:
    found = Settings("f.toml", {"s": {"known": 1, "unknown": 2}, "t": {}, "u": 3}, NoFiles())
    found.unknown_keys({"": ("s", "u"), "s": ("known",), "u": ()})
    assert told(found) == [
        "f.toml: s.unknown: unknown key; the keys of [s] are known",
        "f.toml: t: unknown key; the keys here are s, u",
        "f.toml: u: = 3 is no table; write [u] and the keys below it",
    ]
