"""The names of the lab, all of them under .example, and the one lie which the public DNS tells.

A pure function of the question: it keeps nothing, and refuses to know a name that is not here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3
TTL = 300
LIE = "203.0.113.99"
BIG = tuple(f"192.0.2.{last}" for last in range(101, 161))

_FRESH = re.compile(r"n(\d+)\.fresh\.(tunneled|plain)\.example")
_TTLS = {"short.tunneled.example": 1, "long.tunneled.example": 604800}
_ALIASES = {"www.tunneled.example": "edge.cdn.example", "edge.cdn.example": "pop.cdn.example"}
_TEXTS = {"txt.plain.example": "the lab says hello"}
_ADDRESSES = {
    "tunneled.example": ("203.0.113.10", "2001:db8:1::10"),
    "pop.cdn.example": ("203.0.113.11", "2001:db8:1::11"),
    "sub.tunneled.example": ("203.0.113.12", "2001:db8:1::12"),
    "short.tunneled.example": ("203.0.113.13", "2001:db8:1::13"),
    "long.tunneled.example": ("203.0.113.14", "2001:db8:1::14"),
    "plain.example": ("203.0.113.20", "2001:db8:1::20"),
    "later.example": ("203.0.113.30", "2001:db8:1::30"),
    "blocked.example": ("203.0.113.40", "2001:db8:1::40"),
    "shared-a.example": ("203.0.113.60", "2001:db8:1::60"),
    "shared-b.example": ("203.0.113.60", "2001:db8:1::60"),
    "vpn.example": ("198.51.100.130",),
    "big.tunneled.example": BIG,
}
# Names below which there are names exist too, though they hold nothing.
_HOLLOW = {"example", "cdn.example", "fresh.tunneled.example", "fresh.plain.example"}


@dataclass(frozen=True)
class Record:
    """One resource record; `data` is an address, a name or a text."""

    name: str
    kind: str
    ttl: int
    data: str


@dataclass(frozen=True)
class Answer:
    """What a server says: a return code, the records, and for a no the SOA that bounds it."""

    rcode: int
    records: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()


def addresses(name: str, honest: bool = True) -> tuple[str, ...]:
    """Every address of a name, v4 and v6; none if the name has none."""
    if name == "blocked.example" and not honest:
        return (LIE,)
    if fresh := _FRESH.fullmatch(name):
        number = int(fresh[1])
        if fresh[2] == "tunneled":
            return (f"203.0.113.{100 + number % 150}", f"2001:db8:1:f::{number:x}")
        # Above the last of BIG: a plain name never shares the address of a tunneled one.
        return (f"192.0.2.{170 + number % 80}", f"2001:db8:1:e::{number:x}")
    return _ADDRESSES.get(name, ())


def resolve(qname: str, qtype: str, honest: bool) -> Answer | None:
    """What a server answers; None when it keeps silent."""
    name = qname.lower().rstrip(".")
    if name == "silent.example":
        return None
    if name == "servfail.example":
        return Answer(SERVFAIL)
    records = []
    for _ in range(len(_ALIASES)):
        if qtype == "CNAME" or name not in _ALIASES:
            break
        records.append(Record(name, "CNAME", TTL, _ALIASES[name]))
        name = _ALIASES[name]
    ttl = _TTLS.get(name, TTL)
    found = addresses(name, honest)
    if qtype in ("A", "AAAA"):
        records += [Record(name, qtype, ttl, a) for a in found if (":" in a) == (qtype == "AAAA")]
    elif qtype == "CNAME" and name in _ALIASES:
        records.append(Record(name, "CNAME", TTL, _ALIASES[name]))
    elif qtype == "TXT" and name in _TEXTS:
        records.append(Record(name, "TXT", ttl, _TEXTS[name]))
    if records and records[-1].kind == qtype:
        return Answer(NOERROR, tuple(records))
    known = found or name in _ALIASES or name in _TEXTS or name in _HOLLOW
    apex = "example" if name == "example" or name.endswith(".example") else ""
    soa = Record(apex, "SOA", 60, "")
    return Answer(NOERROR if known else NXDOMAIN, tuple(records), (soa,))
