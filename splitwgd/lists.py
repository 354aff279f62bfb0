"""Reads lists of domains, one a line, into the table: a million names without ever holding them as objects.

Plain names, which most lines are, are taken a piece of the file at once; the other lines one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from splitwgd.errors import Problem
from splitwgd.names import NameProblem, Pattern, Scope, parse_pattern, to_text
from splitwgd.patterns import PatternTable, keys_of
from splitwgd.settings import Settings

LISTED_AT_MOST = 20  # problems told of one list file; the rest are counted
# For the size of the table, which grows where this is wrong: the bytes of a line, and no more names than this.
_LINE = 20
_EXPECTED_AT_MOST = 1 << 22

_PLAIN = re.compile(r"[A-Za-z0-9_.\n-]*")
_LABEL = r"[A-Za-z0-9_-]{1,63}"
_ENTRY = re.compile(rf"(!?(?:=|\*\.)?)({_LABEL}(?:\.{_LABEL})*)\.?")
_TEXT_AT_MOST = 253  # characters of a name (RFC 1035 §3.1: 255 bytes with the first length and the root)
_PATTERNS = {mark + scope.value: (scope, mark == "!") for mark in ("", "!") for scope in Scope}


def read_lists(
    settings: Settings, paths: Sequence[tuple[str, str]], before: PatternTable | None = None
) -> PatternTable:
    """The patterns in these files, each of which comes with the entry of tunneled.lists that leads to it.

    before: a table from earlier; it is given back when the files are as they were then.
    """
    stamps = [settings.files.stamp(path) for path, _ in paths]
    source = (tuple(paths), tuple(stamps))
    if before is not None and before.source == source and all(stamps):
        return before
    table = PatternTable(settings.files.rest, source)
    table.expect(min(sum(stamp[0] for stamp in stamps if stamp) // _LINE, _EXPECTED_AT_MOST))
    for path, entry in paths:
        _read_list(settings, path, entry, table)
    if table == before:
        before.source = source  # they were written, with what was in them
        table.clear()
        return before
    table.pack()
    return table


def _read_list(settings: Settings, path: str, entry: str, table: PatternTable) -> None:
    reader = _Reader(path, table)
    for text in settings.pieces(path, f"tunneled.lists: {entry!r}", "correct the path or remove it"):
        reader.take(text)
    settings.problems.extend(reader.problems)
    if reader.bad > LISTED_AT_MOST:
        what = f"{reader.bad - LISTED_AT_MOST} more lines like these"
        settings.problems.append(Problem(path, what, "mend them too"))


class _Reader:
    """Where the reading of one file stands."""

    def __init__(self, path: str, table: PatternTable) -> None:
        self.path = path
        self.table = table
        self.lines = 0
        self.bad = 0
        self.problems: list[Problem] = []

    def take(self, text: str) -> None:
        """A piece of whole lines."""
        text = text.replace("\r\n", "\n").removesuffix("\n")
        lines = text.split("\n")
        try:
            keys = keys_of(lines) if _PLAIN.fullmatch(text) else []
        except ValueError:
            keys = []
        if keys:
            self.table.add_keys(keys)
        else:
            self._one_by_one(lines)
        self.lines += len(lines)

    def _one_by_one(self, lines: list[str]) -> None:
        marks: list[str] = []  # what stands before the names
        names: list[str] = []
        for number, line in enumerate(lines, self.lines + 1):
            text = line.partition("#")[0].strip()
            match = _ENTRY.fullmatch(text)
            if match is not None and len(match[2]) <= _TEXT_AT_MOST:
                marks.append(match[1])
                names.append(match[2])
            elif text and (pattern := self._parse(number, text)) is not None:
                marks.append("!" * pattern.exception + pattern.scope.value)
                names.append(to_text(pattern.name))
        for mark, run in groupby(range(len(names)), marks.__getitem__):
            self.table.add_keys(keys_of([names[place] for place in run]), *_PATTERNS[mark])

    def _parse(self, number: int, text: str) -> Pattern | None:
        try:
            return parse_pattern(text)
        except NameProblem as problem:
            self.bad += 1
            if self.bad <= LISTED_AT_MOST:
                what = f"{text[:60]!r}: {problem.what}"
                self.problems.append(Problem(f"{self.path}:{number}", what, problem.remedy))
        return None
