"""Domain names and the patterns that the configuration writes with them.

A name travels as its lower-case wire form (RFC 1035 §3.1: length-prefixed labels, ended by the root's zero):
no byte of a label can then be mistaken for a dot, and the parents of a name are its tails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import idna

Name = bytes
ROOT: Name = b"\0"


class NameProblem(ValueError):
    """Why a text is no domain name, and what to write instead."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy


class Scope(Enum):
    """Which names a pattern covers."""

    WITH_BELOW = ""  # example.com: itself and all below
    ONLY_ITSELF = "="  # =example.com
    ONLY_BELOW = "*."  # *.example.com


@dataclass(frozen=True)
class Pattern:
    """One entry of a domain list: a name, how far it reaches, and whether it is an exception (`!`)."""

    name: Name
    scope: Scope = Scope.WITH_BELOW
    exception: bool = False

    def __str__(self) -> str:
        return f"{'!' if self.exception else ''}{self.scope.value}{to_text(self.name)}"


def parse_pattern(text: str) -> Pattern:
    """`example.com`, `=example.com`, `*.example.com`, each also with `!` before it. Raises NameProblem."""
    rest = text.strip(" \t")
    exception = rest.startswith("!")
    rest = rest.removeprefix("!")
    for scope in (Scope.ONLY_ITSELF, Scope.ONLY_BELOW):
        if rest.startswith(scope.value):
            return Pattern(parse_name(rest.removeprefix(scope.value)), scope, exception)
    return Pattern(parse_name(rest), exception=exception)


def parse_name(text: str) -> Name:
    """The wire form of a name that a person wrote: any case, IDN or not, a trailing dot or not.

    Raises NameProblem. Underscores are accepted (RFC 2181 §11); spaces, slashes and the like are not.
    """
    bare = text.removesuffix(".")
    if not bare:
        raise NameProblem("an empty name", "write a domain such as example.com")
    for character, word in _FORBIDDEN.items():
        if character in bare:
            raise NameProblem(f"{word} cannot be in a name", "write the bare domain, such as example.com")
    wire = b"".join(_label(label) for label in bare.split(".")) + ROOT
    if len(wire) > 255:
        raise NameProblem("the name is longer than 255 bytes (RFC 1035 §3.1)", "shorten it")
    return wire


_FORBIDDEN = {
    "\n": "a line break",
    "\r": "a line break",
    "\0": "a zero byte",
    "/": "a slash",
    ":": "a colon",
    " ": "a space",
    "\t": "a tab",
    "*": "a star (only *. at the beginning has a meaning)",
    "@": "an @",
    '"': "a quotation mark",
    "\\": "a backslash",
}


def _label(text: str) -> bytes:
    if not text:
        raise NameProblem("an empty label (two dots in a row, or a dot at the beginning)", "remove the extra dot")
    try:
        label = text.lower().encode("ascii")
    except UnicodeEncodeError:
        try:
            label = idna.encode(text, uts46=True)
        except idna.IDNAError as error:
            raise NameProblem(f"{text[:20]!r} is no internationalised label", "check its spelling") from error
    if len(label) > 63:
        raise NameProblem(f"the label {text[:20]!r}… has {len(label)} bytes, and 63 is the limit", "shorten it")
    if not all(byte in _LABEL_BYTES for byte in label):
        raise NameProblem(f"{text[:20]!r} is no label of a domain name", "use letters, digits, hyphens and underscores")
    return bytes((len(label),)) + label


_LABEL_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


def to_text(name: Name) -> str:
    """A name for people and for nft comments: anything but letters, digits, `-` and `_` becomes \\DDD.

    (RFC 1035 §5.1. A quotation mark or a line break from the net can so never end a comment or a log line.)
    """
    end = 1 + name[0]
    label = name[1:end]
    plain = label.isalnum() or not label.translate(None, _TEXT_BYTES)
    text = label.decode() if plain else _escaped(label)
    return text + _text_below(name[end:]) if text else "."


_TEXT_BYTES = bytes(_LABEL_BYTES) + b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@lru_cache(2048)
def _text_below(parent: Name) -> str:
    """What follows a label. Remembered, since most names that are told of have the parent of another one."""
    return f".{to_text(parent)}" if parent[0] else ""


def _escaped(label: bytes) -> str:
    return "".join(chr(byte) if byte in _TEXT_BYTES else f"\\{byte:03d}" for byte in label)


def tails(name: Name) -> Iterator[Name]:
    """The name itself, then each of its parents, the root last."""
    position = 0
    while name[position]:
        yield name[position:]
        position += 1 + name[position]
    yield ROOT
