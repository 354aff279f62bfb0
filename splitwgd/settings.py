"""Reads the values of a TOML document one by one, and collects what is wrong with them.

A bad value becomes a Problem with its key, and the usual value or nothing; reading goes on, so that a person
hears of everything at once. What the keys mean is `config`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from splitwgd.errors import Problem
from splitwgd.names import NameProblem


class ValueProblem(ValueError):
    """Why a text is no value for its key, and what to write instead."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy


class Files(Protocol):
    """How the configuration reaches the files that it names (`store` is the real one)."""

    def read(self, path: str) -> bytes:
        """The file's bytes. Raises OSError."""

    def glob(self, pattern: str) -> list[str]:
        """The paths that match, sorted."""

    def stamp(self, path: str) -> tuple[int, ...]:
        """The size of a file, then what is another once it has been written; nothing where that cannot be said."""

    def pieces(self, path: str) -> Iterator[bytes]:
        """The file's bytes in pieces of whole lines, small enough to be worked on in a millisecond. Raises OSError."""

    def rest(self) -> None:
        """Is called between the steps of long work, so that other threads come to their turn."""


def read_if_any(files: Files, path: str) -> str:
    """What stands in a file of the system's, with strange bytes replaced; nothing where it cannot be read."""
    try:
        return files.read(path).decode("utf-8-sig", "replace")
    except OSError:
        return ""


class Settings:
    """The values of one document; keys are written as "section.key"."""

    def __init__(self, path: str, document: dict[str, Any], files: Files) -> None:
        self.path = path
        self.document = document
        self.files = files
        self.problems: list[Problem] = []

    def required(self, key: str, remedy: str) -> Any:
        """The value, or an empty list and a problem."""
        value = self.get(key)
        if value is None or value == []:
            self.problem(key, "is missing" if value is None else "is empty", remedy)
            return []
        return value

    def plain(self, key: str, usual: Any, kind: type, wanted: str) -> Any:
        """A value of this type, or the usual one."""
        value = self.get(key)
        if value is None:
            return usual
        if not isinstance(value, kind):
            self.problem(key, f"= {value!r}", f"write {wanted}")
            return usual
        return value

    def number(self, key: str, usual: int, low: int, high: int) -> int:
        """A whole number within the bounds, or the usual one."""
        value = self.get(key)
        if value is None:
            return usual
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.problem(key, f"= {value!r}", f"write a number from {low} to {high}")
            return usual
        return value

    def many(self, key: str, wanted: str, parse: Callable[[str], Any]) -> list[Any]:
        """A list of texts, each parsed; the bad ones are left out."""
        value = self.get(key)
        return self.each(key, [] if value is None else value, wanted, parse)

    def each(self, key: str, values: Any, wanted: str, parse: Callable[[str], Any]) -> list[Any]:
        """The same for values that are at hand."""
        if not isinstance(values, list):
            self.problem(key, f"= {values!r} is no list", f'write a list, as in ["{wanted}"]')
            return []
        parsed = (self.parsed(f"{key}[{place}]", value, wanted, parse) for place, value in enumerate(values))
        return [value for value in parsed if value is not None]

    def parsed(self, key: str, value: Any, wanted: str, parse: Callable[[str], Any]) -> Any:
        """One text, parsed, or None."""
        if not isinstance(value, str):
            self.problem(key, f"= {value!r} is no text", f"write {wanted}, in quotation marks")
            return None
        try:
            return parse(value)
        except (NameProblem, ValueProblem) as problem:
            self.problem(key, f"= {value!r}: {problem.what}", problem.remedy)
        except ValueError as error:
            self.problem(key, f"= {value!r}: {error}", f"write {wanted}")
        return None

    def text(self, path: str, key: str, remedy: str) -> str | None:
        """What stands in a file that the key names, or None."""
        try:
            return self.files.read(path).decode("utf-8-sig")
        except (OSError, ValueError) as error:
            self._unreadable(error, path, key, remedy)
        return None

    def pieces(self, path: str, key: str, remedy: str) -> Iterator[str]:
        """The same in pieces of whole lines, up to what cannot be read, with a rest after each."""
        read = 0
        try:
            for piece in self.files.pieces(path):
                yield piece.decode("utf-8" if read else "utf-8-sig")
                read += len(piece)
                self.files.rest()
        except (OSError, ValueError) as error:
            self._unreadable(error, path, key, remedy, read)

    def _unreadable(self, error: OSError | ValueError, path: str, key: str, remedy: str, read: int = 0) -> None:
        if isinstance(error, OSError):
            self.problem(key, f"{path} cannot be read ({error.strerror})", remedy)
        elif isinstance(error, UnicodeDecodeError):
            self.problem(key, f"{path} is not UTF-8 (byte {read + error.start})", "save it as UTF-8")
        else:
            self.problem(key, f"{path!r} is no path", remedy)

    def matches(self, pattern: str, key: str) -> list[str]:
        """The files that a pattern with stars matches."""
        try:
            return self.files.glob(pattern)
        except ValueError:
            self.problem(key, f"{pattern!r} is no path", "correct it or remove it")
            return []

    def unknown_keys(self, known: Mapping[str, tuple[str, ...]], section: str = "") -> None:
        """A problem for each key that `known` (section -> its keys) does not have."""
        for key, value in (self.document[section] if section else self.document).items():
            path = f"{section}.{key}" if section else key
            if key not in known[section]:
                keys = ", ".join(known[section])
                self.problem(
                    repr(path)[1:-1], "unknown key", f"the keys {f'of [{section}]' if section else 'here'} are {keys}"
                )
            elif not section and not isinstance(value, dict):
                self.problem(path, f"= {value!r} is no table", f"write [{key}] and the keys below it")
            elif not section:
                self.unknown_keys(known, key)

    def problem(self, key: str, what: str, remedy: str) -> None:
        """Something is wrong with the value of this key."""
        self.problems.append(Problem(f"{self.path}: {key}", what, remedy))

    def get(self, key: str) -> Any:
        """The value as it stands, None where there is none."""
        section, _, name = key.partition(".")
        found = self.document.get(section)
        return found.get(name) if isinstance(found, dict) else None
