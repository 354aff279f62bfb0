"""The two halves of the suite."""

from __future__ import annotations

from pathlib import Path

from tests.halves import halves

TESTS = Path(__file__).parent


def test_every_test_file_but_those_on_booted_machines_is_in_one_half_and_in_one_only() -> None:
    found = [
        file
        for paths in halves(TESTS).values()
        for path in map(Path, paths)
        for file in (path.rglob("test_*.py") if path.is_dir() else [path])
    ]
    booted = set((TESTS / "debian").rglob("test_*.py"))
    assert booted
    assert sorted(found) == sorted(set(TESTS.rglob("test_*.py")) - booted)


def test_both_have_something_to_do() -> None:
    assert all(len(paths) > 3 for paths in halves(TESTS).values())
