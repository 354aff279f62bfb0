"""What outlives a reboot: learned addresses and where records led, as bytes that a person can read, and back.

JSON with one address a line, so that `grep` finds it. Its times are the wall clock's, the only one that goes on while
the machine is off; those of the values here are the caller's clock's.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import islice
from math import ceil
from typing import Any

from splitwgd.learned import Ledger, Remembered
from splitwgd.names import ROOT, Name, to_text
from splitwgd.ruleset import SET_SIZE
from splitwgd.vetting import RememberedLead, Vetting

VERSION = 1
_LINES = 64  # in a piece, which takes half a millisecond to write
_MORE = "+"  # names hold an address that are not known; a + in a name is written \043


class StateProblem(ValueError):
    """Why bytes are not what `pieces` wrote."""


@dataclass(frozen=True)
class State:
    """What is remembered. written: when, by the clock of the times in it."""

    written: float = 0.0
    addresses: Sequence[Remembered] = ()
    leads: Sequence[RememberedLead] = ()


def pieces(
    addresses: Iterable[Remembered], leads: Iterable[RememberedLead], now: float, ahead: float
) -> Iterator[bytes]:
    """The file, in pieces. ahead: how far the wall clock is ahead of the one that `now` and the values are of."""
    yield f'{{\n"version": {VERSION},\n"written": "{_moment(now + ahead)}",\n"addresses": ['.encode()
    yield from _listed(_address_line(each, ahead) for each in addresses)
    yield b'\n],\n"leads": ['
    yield from _listed(_lead_line(lead, ahead) for lead in leads)
    yield b"\n]\n}\n"


def _listed(lines: Iterator[str]) -> Iterator[bytes]:
    separator = "\n"
    while part := list(islice(lines, _LINES)):
        yield (separator + ",\n".join(part)).encode()
        separator = ",\n"


def _address_line(each: Remembered, ahead: float) -> str:
    names = [to_text(name) for name in each.names]
    row = {
        "set": each.set,
        "address": str(ip_address(each.address)),
        "until": _moment(each.until + ahead),
        "names": [*names, _MORE] if each.more else names,
    }
    return json.dumps(row)


def _lead_line(lead: RememberedLead, ahead: float) -> str:
    row = {"name": to_text(lead.name), "origin": to_text(lead.origin), "until": _moment(lead.until + ahead)}
    return json.dumps(row)


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(ceil(seconds), UTC):%Y-%m-%dT%H:%M:%SZ}"


# -- from bytes


def read_state(data: bytes) -> State:
    """What `pieces` wrote, by the wall clock. Raises StateProblem for any other bytes."""
    try:
        whole = json.loads(data)
        version = whole["version"]
        if type(version) is int and version > VERSION:
            raise StateProblem(f"it was written by a later version ({version}, and {VERSION} is known)")
        if type(version) is not int or version != VERSION:
            raise StateProblem("its version is not known")
        addresses = [_address(row) for row in _list(whole["addresses"])]
        leads = [_lead(row) for row in _list(whole["leads"])]
        return State(_seconds(whole["written"]), addresses, leads)
    except StateProblem:
        raise
    # RecursionError: brackets without end.
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise StateProblem(f"it is damaged ({type(error).__name__}: {str(error)[:80]})") from error


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise StateProblem("it is damaged (no list)")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise StateProblem("it is damaged (no text)")
    return value


def _address(row: Any) -> Remembered:
    texts = [_text(name) for name in _list(row["names"])]
    names = tuple(dict.fromkeys(_name(text) for text in texts if text != _MORE))
    address = ip_address(_text(row["address"])).packed
    return Remembered(_text(row["set"]), address, _seconds(row["until"]), names, _MORE in texts)


def _lead(row: Any) -> RememberedLead:
    return RememberedLead(_name(row["name"]), _name(row["origin"]), _seconds(row["until"]))


def _seconds(value: Any) -> float:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise StateProblem("it is damaged (a time without a zone)")
    return moment.timestamp()


def _name(value: Any) -> Name:
    """The inverse of `names.to_text`."""
    text = _text(value).encode("ascii").lower()
    if text == b".":
        return ROOT
    wire = b""
    for label in text.split(b"."):
        octets = _ESCAPED.sub(lambda found: bytes((int(found[1]),)), label) if b"\\" in label else label
        if not 0 < len(octets) < 64:
            raise StateProblem("it is damaged (no label)")
        wire += bytes((len(octets),)) + octets
    if len(wire) > 254:
        raise StateProblem("it is damaged (no name)")
    return wire + ROOT


_ESCAPED = re.compile(rb"\\([0-9]{3})")


# -- after a start


def arrived(state: State, wall: float, now: float, longest: float) -> State:
    """A state by the wall clock, by the caller's: without what has ended, and with no life longer than `longest`.

    wall and now: the same moment by both clocks. A wall clock that is behind the moment of the writing says nothing:
    the lives are then what they were at that moment.
    """
    since = max(wall, state.written)

    def end(until: float) -> float:
        return now + min(until - since, longest)

    return State(
        now,
        [each._replace(until=end(each.until)) for each in state.addresses if each.until - since >= 1],
        [lead._replace(until=end(lead.until)) for lead in state.leads if lead.until > since],
    )


def wanted(addresses: Iterable[Remembered], vetting: Vetting, ledger: Ledger, now: float) -> list[Remembered]:
    """Those that live and that the ledger does not have, as far as their names are still tunneled and may lead there,
    and as far as there is room for them in their sets."""

    def admits(each: Remembered, name: Name) -> bool:
        return bool(vetting.admitted((each.address,), name))

    groups = [group for group in vetting.zones.groups() if group.tunnel is not None]
    found: list[Remembered] = []
    taken: Counter[str] = Counter()
    for each in addresses:
        place = each.set, each.address
        if each.until - now < 1:  # it has ended since it was read; a timeout of 0 would be for ever
            continue
        if ledger.holds(place, now) or ledger.size(each.set) + taken[each.set] >= SET_SIZE:
            continue
        if not any(place in vetting.places(group, (each.address,)) for group in groups):
            continue
        names = tuple(name for name in each.names if vetting.may_hold(name, each.set) and admits(each, name))
        # Of whom nobody knows who holds it, nobody knows either that it may go.
        if names or each.more and admits(each, ROOT):
            taken[each.set] += 1
            found.append(each._replace(names=names))
    return found
