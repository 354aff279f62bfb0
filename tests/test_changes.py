"""What was there before us, as values: the rules of undoing, and that nothing is lost on the way to JSON and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.changes import (
    DNS,
    UNITS,
    Book,
    Change,
    Deed,
    Directory,
    Entry,
    File,
    Record,
    State,
    Symlink,
    Undo,
    book_from_json,
    book_to_json,
    describe,
    recorded,
    undoing,
)

OLD, OURS, THEIRS = File(b"old\n", 0o640, 3, 4), File(b"ours\n"), File(b"theirs\n")
numbers = st.integers(0, 1 << 62)
files = st.builds(
    File,
    st.binary(max_size=40),
    st.integers(0, 0o7777),
    numbers,
    numbers,
    st.none() | numbers,
    st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), unique_by=lambda a: a[0], max_size=2).map(tuple),
)
paths = st.text(st.characters(codec="utf-8"), max_size=10)
states = st.none() | files | st.builds(Symlink, paths, st.none() | numbers) | st.builds(Directory, numbers)
entries: st.SearchStrategy[Entry] = st.builds(Record, paths, states, states, paths, st.booleans()) | st.builds(
    Deed, paths, paths, paths
)


@given(st.lists(entries).map(tuple))
def test_a_book_comes_back_from_json_as_it_was(book: Book) -> None:
    # repr tells times and attributes, too, which do not count as a difference.
    again = book_from_json(book_to_json(book))
    assert again == book
    for entry, other in zip(book, again, strict=True):
        if isinstance(entry, Record) and isinstance(other, Record) and isinstance(entry.before, File):
            assert isinstance(other.before, File)
            assert (other.before.mtime, other.before.attributes) == (entry.before.mtime, entry.before.attributes)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"version": 2, "entries": []}', b'{"version": 1, "entries": [1]}']
)
def test_what_is_no_book_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ValueError):
        book_from_json(data)


# -- what is written down


def test_what_was_there_first_is_remembered_over_later_changes_of_ours() -> None:
    book = recorded((), Change("/f", OURS, DNS), OLD)
    again = recorded(book, Change("/f", THEIRS, DNS), OURS)
    assert again == (Record("/f", OLD, THEIRS, DNS),)


def test_what_somebody_wrote_since_is_what_has_to_come_back() -> None:
    book = recorded((), Change("/f", OURS, DNS), OLD)
    assert recorded(book, Change("/f", OURS, DNS), THEIRS) == (Record("/f", THEIRS, OURS, DNS),)


def test_other_paths_stay_as_they_are_and_in_their_order() -> None:
    book = recorded(recorded((), Change("/a", OURS, DNS), None), Change("/b", OURS, UNITS), None)
    assert [e.path for e in recorded(book, Change("/a", THEIRS, DNS), OURS) if isinstance(e, Record)] == ["/a", "/b"]


# -- what undoes it


@pytest.mark.parametrize(
    ("before", "current", "wanted"),
    [
        (OLD, OLD, Undo()),  # it was never made, or is undone
        (OLD, OURS, Undo(restore=True)),
        (OLD, THEIRS, Undo(aside="/f.before-splitwg", copy=True)),
        (OLD, None, Undo(restore=True)),  # nothing to lose
        (None, OURS, Undo(restore=True)),
        (None, None, Undo()),
        (None, THEIRS, Undo(restore=True, aside="/f.after-splitwg")),
        (Symlink("../run/x"), OURS, Undo(restore=True)),
        (Symlink("../run/x"), Symlink("../run/y"), Undo(aside="/f.before-splitwg", copy=True)),
        (None, Directory(), Undo(restore=True, aside="/f.after-splitwg")),
    ],
)
def test_what_somebody_else_wrote_is_never_overwritten(before: State, current: State, wanted: Undo) -> None:
    assert undoing(Record("/f", before, OURS, DNS), current) == wanted


# -- what a person is shown


def test_a_new_file_is_named_and_a_changed_one_shown_by_its_lines() -> None:
    assert describe(Change("/f", OURS, DNS)) == ["new     /f"]
    assert describe(Change("/f", OURS, DNS), OLD) == ["change  /f", "    - old", "    + ours"]
    shown = describe(Change("/f", OURS, DNS), Symlink("../run/x"))
    assert shown == ["change  /f, which is a symlink to ../run/x now", "    + ours"]
    assert describe(Deed("enable", "splitwgd.service", UNITS)) == ["enable  splitwgd.service"]


def test_long_differences_are_cut_and_private_keys_not_shown() -> None:
    many = File("".join(f"{number}\n" for number in range(99)).encode())
    assert describe(Change("/f", many, DNS), OLD)[-1] == "    ... and 86 more lines"
    secret = File(b"PrivateKey = abc\n", 0o600)
    assert describe(Change("/f", secret, DNS), File(b"PrivateKey = xyz\n", 0o600)) == [
        "change  /f (only root reads it)"
    ]
