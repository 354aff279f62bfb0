"""Lists of domains as others write them: plain lists, hosts files, dnsmasq's lines, v2fly's lists, the article's file.

Each line is looked at by itself. What is not taken is told with its line and the reason.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from splitwgd.names import NameProblem, Pattern, Scope, parse_name, parse_pattern

_TEXT = 80  # characters of a line that are shown
# dnsmasq(8): domains between slashes, then what is done with them.
_OF_DOMAINS = re.compile(r"(server|rev-server|local|nftset|ipset|address)=/(.*)/([^/]*)$")
_OPTION = re.compile(r"[a-z][a-z0-9-]*=")
_V2FLY = re.compile(r"(domain|full|keyword|regexp|include):(\S+)(.*)$")
_LISTED = re.compile(r"""^[ \t]*["']([^"']+)["'][ \t]*,?[ \t]*#[ \t]*(.*?)[ \t]*$""", re.MULTILINE)


@dataclass(frozen=True)
class Listed:
    """A pattern, and the comment that stood behind it."""

    pattern: Pattern
    comment: str = ""


@dataclass(frozen=True)
class Skipped:
    """A line that was not taken: its number, the beginning of it, and why."""

    line: int
    text: str
    why: str


@dataclass
class Imported:
    """What a list says. includes: other lists of its kind, by their names (v2fly)."""

    listed: list[Listed] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    includes: list[str] = field(default_factory=list)


def read_list(text: str) -> Imported:
    """Whatever kind it is of."""
    text = text.removeprefix("\ufeff")
    try:
        return _read_toml(text)
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        pass
    found = Imported()
    lines = text.splitlines()
    of_dnsmasq = any(_OPTION.match(line) for line in lines)
    for number, line in enumerate(lines, 1):
        bare = line.strip()
        if bare and not bare.startswith(("#", ";", "//")):
            try:
                _read_line(bare, of_dnsmasq, found)
            except ValueError as problem:
                found.skipped.append(Skipped(number, bare[:_TEXT], str(problem)))
    return found


def _read_toml(text: str) -> Imported:
    """The article's file, and ours: what stands under tunneled.domains."""
    domains = tomllib.loads(text)["tunneled"]["domains"]
    comments = dict(_LISTED.findall(text))
    found = Imported()
    for place, entry in enumerate(domains, 1):
        try:
            found.listed.append(Listed(parse_pattern(entry), comments.get(entry, "")))
        except (NameProblem, AttributeError) as problem:
            found.skipped.append(Skipped(place, str(entry)[:_TEXT], str(problem)))
    return found


def _read_line(line: str, of_dnsmasq: bool, found: Imported) -> None:
    """Raises ValueError with the reason why nothing of it is taken."""
    if match := _OF_DOMAINS.match(line):
        found.listed += map(Listed, _of_dnsmasq(*match.groups()))
        return
    if of_dnsmasq and ("." not in line or _OPTION.match(line)):
        raise ValueError("names no domains of a server or a set")
    text, _, comment = (part.strip() for part in line.partition("#"))
    if match := _V2FLY.match(text):
        kind, name, _ = match.groups()
        if kind == "include":
            found.includes.append(name)
        elif kind in ("keyword", "regexp"):
            raise ValueError("a name is listed whole, or with all below it; write the domains")
        else:
            found.listed.append(Listed(_scoped(name, kind == "full"), comment))
        return
    words = text.split()
    if len(words) > 1 and _is_address(words[0]):
        found.listed += [Listed(_scoped(name, exact=True), comment) for name in _hosts(words[1:])]
        return
    if len(words) > 1 and all(word.startswith(("@", "&")) for word in words[1:]):  # v2fly's attributes
        words = words[:1]
    if len(words) != 1:
        raise ValueError("is more than one word")
    pattern = parse_pattern(words[0])
    if _is_address(words[0]):
        raise ValueError("an address; list it under tunneled.networks")
    found.listed.append(Listed(pattern, comment))


def _of_dnsmasq(option: str, domains: str, what: str) -> Iterator[Pattern]:
    """`server=/a/b/address`, `nftset=/a/.b/4#inet#table#set`."""
    if option not in ("server", "nftset", "ipset"):
        raise ValueError(f"{option}= leads nowhere else")
    if option == "server" and what in ("", "#"):
        raise ValueError("these are asked of no server of their own")
    seen = dict.fromkeys(domain.removeprefix(".") for domain in domains.split("/"))
    for domain in seen:
        if domain in ("", "#"):
            raise ValueError("means every name")
        yield parse_pattern(domain)


def _scoped(name: str, exact: bool) -> Pattern:
    return Pattern(parse_name(name), Scope.ONLY_ITSELF if exact else Scope.WITH_BELOW)


def _hosts(names: list[str]) -> list[str]:
    """Without those of this machine (hosts(5))."""
    others = [name for name in names if "." in name and not name.endswith(".localdomain")]
    if not others:
        raise ValueError("names this machine or its network")
    return [name for name in others if not _is_address(name)]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
