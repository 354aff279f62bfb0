"""Changes this machine so that it can be undone: each change is written down before it is made, with what was there.

A kill at any moment leaves the book (/var/lib/splitwg-setup/book.json) and the files such that `undo` brings all back.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from splitwgd.changes import (
    Book,
    Change,
    Deed,
    Directory,
    Entry,
    File,
    Record,
    State,
    Step,
    book_from_json,
    book_to_json,
    record_of,
    recorded,
    undoing,
)
from splitwgd.errors import MachineError
from splitwgd.files import Tree
from splitwgd.programs import Programs

FOLDER = "/var/lib/splitwg-setup"
_BOOK = f"{FOLDER}/book.json"
_LOCK = f"{FOLDER}/lock"


class Recorder:
    """The book, and what it is about. after: which command makes a change of a path felt."""

    def __init__(self, tree: Tree, programs: Programs, after: Mapping[str, tuple[str, ...]]) -> None:
        self.tree = tree
        self.programs = programs
        self.after = after
        self.trail: list[tuple[Step, State]] = []  # what this run has made, with what it found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes the machine meanwhile. Makes the folder, and removes it again if no book came to be."""
        for folder in _parents(_LOCK):
            if not self.tree.exists(folder):
                self.tree.put(folder, Directory(0o700 if folder == FOLDER else 0o755))
        try:
            handle = os.open(self.tree.real(_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MachineError(f"{_LOCK} cannot be opened ({error.strerror}); run as root") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
            if not self.tree.exists(_BOOK):
                self.tree.remove_all(FOLDER)
        finally:
            os.close(handle)

    @property
    def is_set_up(self) -> bool:
        """Whether there is a book, be it empty."""
        return self.tree.exists(_BOOK)

    def book(self) -> Book:
        """What is written down. Raises MachineError where it cannot be read."""
        state = self.tree.read(_BOOK)
        if state is None:
            return ()
        try:
            assert isinstance(state, File)
            return book_from_json(state.data)
        except (ValueError, AssertionError) as error:
            raise MachineError(f"{_BOOK} is damaged ({error}); look into it by hand before you remove it") from error

    def keep(self, book: Book) -> None:
        """Writes it down."""
        self.tree.put(_BOOK, File(book_to_json(book), 0o600, os.geteuid(), os.getegid()))

    # -- doing

    def wanting(self, steps: Iterable[Step]) -> list[Step]:
        """Those that are not so already."""
        book = self.book()
        return [step for step in steps if (step not in book if isinstance(step, Deed) else not self._is(step, book))]

    def _is(self, change: Change, book: Book) -> bool:
        known = record_of(book, change.path)
        return (known is None or known.made) and self.tree.read(change.path) == change.after

    def make(self, steps: Iterable[Step]) -> None:
        """Makes them so, one after the other. Raises MachineError: then what came before stands, and is in the book,
        and `roll_back` takes it back."""
        if not self.is_set_up:
            self.keep(())
        for step in steps:
            if isinstance(step, Deed):
                self._do(step)
                continue
            for folder in _parents(step.path):
                if not self.tree.exists(folder):
                    self._change(Change(folder, Directory(), step.group))
            if not self._is(step, self.book()):
                self._change(step)

    def _change(self, change: Change) -> None:
        current = self.tree.read(change.path)
        if isinstance(change.after, File) and isinstance(current, File):
            # Access control lists and labels stay those of the place (acl(5), selinux(8)).
            change = replace(change, after=replace(change.after, attributes=current.attributes))
        book = recorded(self.book(), change, current)
        self.keep(book)
        self.trail.append((change, current))
        self.tree.put(change.path, change.after)
        if command := self.after.get(change.path):
            self.programs.must(*command)
        self.keep(tuple(replace(e, made=True) if e == record_of(book, change.path) else e for e in book))

    def _do(self, deed: Deed) -> None:
        book = self.book()
        if deed not in book:
            self.keep((*book, deed))
            self.trail.append((deed, None))
        self.programs.do(deed)

    def roll_back(self, book: Book | None) -> list[str]:
        """Takes back what this run has made; `book` is what was written down before it, None where there was none.
        Returns what could not be taken back; that stays written down."""
        failed, told = [], []
        for step, before in reversed(self.trail):
            if isinstance(step, Deed):
                self.programs.undo(step)
                continue
            try:
                if self.tree.read(step.path) == before:
                    continue  # it is the one that could not be made
                self.tree.put(step.path, before)
            except MachineError as error:
                failed.append(str(error))
            if command := self.after.get(step.path):
                ran = self.programs.run(*command)
                told += [f"`{' '.join(command)}` failed: {ran.text}"] if ran.status else []
        if failed:
            return failed + told
        self.trail.clear()
        if book is None:
            self.forget()
        else:
            self.keep(book)
        return told

    # -- undoing

    def undo(self, groups: Collection[str]) -> list[str]:
        """Brings back what was there before the changes of these groups, the last first. Returns what a person has
        to know. What cannot be brought back stays in the book, and MachineError tells of it when all else is done."""
        told: list[str] = []
        failed: list[str] = []
        done: list[Entry] = []
        for entry in reversed(self.book()):
            if entry.group not in groups:
                continue
            try:
                told += self._undo(entry)
                done.append(entry)
            except MachineError as error:
                failed.append(str(error))
        paths = [entry.path for entry in done if isinstance(entry, Record)]
        for command in dict.fromkeys(self.after[path] for path in paths if path in self.after):
            ran = self.programs.run(*command)
            if ran.status:
                failed.append(f"`{' '.join(command)}` failed: {ran.text}")
        # Not before: whoever is killed until here begins again, and finds what is undone undone.
        if done:
            self.keep(tuple(entry for entry in self.book() if entry not in done))
        if failed:
            raise MachineError("\n".join(failed))
        return told

    def _undo(self, entry: Entry) -> list[str]:
        if isinstance(entry, Deed):
            self.programs.undo(entry)
            return []
        self.tree.sweep(entry.path)
        undo = undoing(entry, self.tree.read(entry.path))
        told = []
        if undo.copy:
            self.tree.put(undo.aside, entry.before)
            told.append(f"{entry.path} was changed by somebody else and stays; what it was before is {undo.aside}")
        elif undo.aside:
            self.tree.move(entry.path, undo.aside)
            told.append(f"{entry.path} was changed by somebody else; it is {undo.aside} now")
        if undo.restore:
            self.tree.put(entry.path, entry.before)
        return told

    def forget(self) -> None:
        """The machine was never set up."""
        self.tree.remove_all(FOLDER)


def _parents(path: str) -> list[str]:
    """The directories above, the uppermost first."""
    parts = path.strip("/").split("/")[:-1]
    return ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))]
