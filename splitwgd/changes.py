"""What a place in the file system holds, what is to stand there, and what stood there before us: values, and as JSON.

The rules of undoing: what is as we left it goes back to what it was; what somebody else has written since is never
overwritten. Opens nothing (that is `files`) and keeps nothing (that is `recorder`).
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from difflib import unified_diff
from typing import Any

CONFIGURATION, UNITS, DNS = "configuration", "units", "dns"  # what belongs together, and is undone together
BEFORE, CHANGED = ".before-splitwg", ".after-splitwg"  # behind the names of what is put aside
_DIFF_LINES = 14


@dataclass(frozen=True)
class File:
    """A regular file. Times and extended attributes are put back, but do not make it another one."""

    data: bytes = field(repr=False)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int | None = field(default=None, compare=False)  # nanoseconds
    attributes: tuple[tuple[str, bytes], ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Symlink:
    """A symbolic link, whatever it leads to."""

    target: str
    mtime: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Directory:
    """A directory, whatever is in it."""

    mode: int = field(default=0o755, compare=False)


State = File | Symlink | Directory | None  # None: nothing is there


@dataclass(frozen=True)
class Change:
    """What is to be at a path."""

    path: str
    after: State
    group: str


@dataclass(frozen=True)
class Record:
    """A change of ours, with what was there. It is written down before the change is made, so `after` may never
    have come about; `made`: it has, and whoever has to know of it knows."""

    path: str
    before: State
    after: State
    group: str
    made: bool = False


@dataclass(frozen=True)
class Deed:
    """What a program does for us and undoes again: "user", "enable" or "resolvconf", and of what."""

    kind: str
    of: str
    group: str


Step = Change | Deed
Entry = Record | Deed
Book = tuple[Entry, ...]


# -- the rules


def record_of(book: Book, path: str) -> Record | None:
    """What is written down of a path."""
    return next((entry for entry in book if isinstance(entry, Record) and entry.path == path), None)


def recorded(book: Book, change: Change, current: State) -> Book:
    """The book with this change, which is about to be made, in it."""
    known = record_of(book, change.path)
    # What stands there now is ours, or somebody has written it since, and then it is what has to come back.
    before = known.before if known and current == known.after else current
    record = Record(change.path, before, change.after, change.group)
    if known is None:
        return (*book, record)
    return tuple(record if entry is known else entry for entry in book)


@dataclass(frozen=True)
class Undo:
    """What undoes a record. aside: where what somebody wrote since is moved to, or, if `copy`, what was there before
    is put, because what stands there now stays."""

    restore: bool = False
    aside: str = ""
    copy: bool = False


def undoing(record: Record, current: State) -> Undo:
    """How to bring back what was there, given what is there now."""
    if current == record.before:
        return Undo()
    if current == record.after or current is None:
        return Undo(restore=True)
    if record.before is None:
        # A file of our own making that was edited must not go on working without us.
        return Undo(restore=True, aside=record.path + CHANGED)
    return Undo(aside=record.path + BEFORE, copy=True)


# -- JSON

_VERSION = 1


def book_to_json(book: Book) -> bytes:
    """The book as it is kept."""
    return json.dumps({"version": _VERSION, "entries": [_entry(entry) for entry in book]}, indent=1).encode() + b"\n"


def book_from_json(data: bytes) -> Book:
    """The book as it was kept. Raises ValueError where it is none."""
    try:
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']!r}")
        return tuple(_read_entry(entry) for entry in document["entries"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"no entries of ours ({error!r})") from error


def _entry(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Deed):
        return {"deed": entry.kind, "of": entry.of, "group": entry.group}
    states = {"before": _state(entry.before), "after": _state(entry.after)}
    return {"path": entry.path, "group": entry.group, "made": entry.made, **states}


def _state(state: State) -> dict[str, Any] | None:
    match state:
        case File():
            attributes = {name: b64encode(value).decode() for name, value in state.attributes}
            owner = {"mode": state.mode, "uid": state.uid, "gid": state.gid, "mtime": state.mtime}
            return {"file": b64encode(state.data).decode(), **owner, "attributes": attributes}
        case Symlink():
            return {"symlink": state.target, "mtime": state.mtime}
        case Directory():
            return {"directory": state.mode}
        case None:
            return None


def _read_entry(entry: dict[str, Any]) -> Entry:
    if "deed" in entry:
        return Deed(entry["deed"], entry["of"], entry["group"])
    before, after = _read_state(entry["before"]), _read_state(entry["after"])
    return Record(entry["path"], before, after, entry["group"], entry["made"])


def _read_state(state: dict[str, Any] | None) -> State:
    if state is None:
        return None
    if "file" in state:
        attributes = tuple((name, b64decode(value)) for name, value in state["attributes"].items())
        return File(b64decode(state["file"]), state["mode"], state["uid"], state["gid"], state["mtime"], attributes)
    if "symlink" in state:
        return Symlink(state["symlink"], state["mtime"])
    return Directory(state["directory"])


# -- words


def describe(step: Step, current: State = None) -> list[str]:
    """What a person is shown before it is done: a heading, and a short diff where there is something to compare."""
    if isinstance(step, Deed):
        return [f"{_DEEDS[step.kind]} {step.of}"]
    if step.after is None:
        return [f"remove  {step.path}"]
    if isinstance(step.after, Directory) or current is None:
        kind = "make   " if isinstance(step.after, Directory) else "new    "
        return [f"{kind} {step.path}{_whose(step.after)}"]
    heading = f"change  {step.path}{_whose(step.after)}"
    if isinstance(current, Symlink):
        return [f"{heading}, which is a symlink to {current.target} now", *_lines(b"", step.after)]
    return [heading, *_lines(current.data if isinstance(current, File) else b"", step.after)]


_DEEDS = {
    "user": "user   ",
    "enable": "enable ",
    "resolvconf": "resolvconf, a record named",
}


def _whose(state: State) -> str:
    return " (only root reads it)" if isinstance(state, File) and not state.mode & 0o077 else ""


def _lines(before: bytes, after: State) -> list[str]:
    if not isinstance(after, File) or not after.mode & 0o077:  # a private key is not shown
        return []
    old, new = (data.decode(errors="replace").splitlines() for data in (before, after.data))
    lines = [line for line in unified_diff(old, new, n=0, lineterm="") if not line.startswith(("---", "+++", "@@"))]
    more = [f"    ... and {len(lines) - _DIFF_LINES} more lines"] if len(lines) > _DIFF_LINES else []
    return [f"    {line[:1]} {line[1:]}" for line in lines[:_DIFF_LINES]] + more
