"""Reads hosts(5): the names that this machine knows by itself, before any server is asked."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

from splitwgd.names import ROOT, Name, NameProblem, parse_name
from splitwgd.objects import Ip

PATH = "/etc/hosts"
Hosts = tuple[tuple[Name, tuple[Ip, ...]], ...]
# Bounds against a file that somebody's script appends to for ever. Blocklists have some 200,000 names.
NAMES_AT_MOST = 1_000_000
ADDRESSES_AT_MOST = 64  # of one name: they have to fit into an answer
# What nearly all names look like: these are spared the way through `parse_name`.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}")
_TEXT_AT_MOST = 253  # characters (RFC 1035 §3.1: 255 bytes with the first length and the root)
_LENGTHS = [bytes((length,)) for length in range(64)]
_LOCALHOST = b"\x09localhost\x00"  # answered without the file, with all below it (RFC 6761 §6.3)


@lru_cache(maxsize=1)  # the file seldom changes between two reloads
def parse_hosts(text: str) -> Hosts:
    """Each name, lower case in wire form, with its addresses in the order of the file.

    What is no address or no name is passed over, as are addresses with a scope and localhost.
    """
    known: dict[str, Ip | None] = {}  # a blocklist has one address on all of its lines
    found: dict[Name, tuple[Ip, ...]] = {}
    for line in text.split("\n"):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] not in known:
            known[words[0]] = _address(words[0])
        address = known[words[0]]
        if address is None:
            continue
        for word in words[1:]:
            name = _name(word)
            if name is not None:
                _add(found, name, address)
    return tuple(found.items())


def _add(found: dict[Name, tuple[Ip, ...]], name: Name, address: Ip) -> None:
    addresses = found.get(name, ())
    if address in addresses or len(addresses) == ADDRESSES_AT_MOST:
        return
    if addresses or len(found) < NAMES_AT_MOST:
        found[name] = (*addresses, address)


def _address(text: str) -> Ip | None:
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def _name(text: str) -> Name | None:
    try:
        if len(text) <= _TEXT_AT_MOST and _PLAIN.fullmatch(text):
            name = b"".join([_LENGTHS[len(label)] + label for label in text.lower().encode().split(b".")]) + ROOT
        else:
            name = parse_name(text)
    except NameProblem:
        return None
    return None if name.endswith(_LOCALHOST) else name
