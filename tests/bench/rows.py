"""The seven rows: what each measures, on whom, and what of it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import loads
from .loads import Effort, Measure
from .peers import DNSMASQ, PEERS, SMARTDNS, SPLITWGD, Peer

_WITHOUT_HASH = (DNSMASQ, SMARTDNS, SPLITWGD)


@dataclass(frozen=True)
class Metric:
    """One of the numbers: its key, how it is called, by what it is multiplied for people, and whether a ratio
    of it says anything."""

    key: str
    label: str
    scale: float = 1.0
    compared: bool = True


@dataclass(frozen=True)
class Row:
    """One row. Rows with the same measure share its runs; cases are sizes, (0,) where there is nothing to vary."""

    number: int
    title: str
    measure: Measure
    metrics: tuple[Metric, ...]
    peers: tuple[Peer, ...] = _WITHOUT_HASH
    cases: Callable[[Effort], tuple[int, ...]] = lambda effort: (0,)
    case_title: str = ""

    def title_of(self, case: int) -> str:
        """What stands before the numbers of one case."""
        return f"{self.title}, {case:,} {self.case_title}" if self.case_title else self.title


_RATE, _CPU = Metric("rate", "queries/s"), Metric("cpu", "CPU µs/query", 1e6)
_BUSY = Metric("busy", "its core busy, %", 100, compared=False)
_P50, _P95, _P99 = Metric("p50", "p50, ms", 1e3), Metric("p95", "p95, ms", 1e3), Metric("p99", "p99, ms", 1e3)
_RSS, _PSS, _PEAK = Metric("rss", "RSS, MB", 1e-6), Metric("pss", "PSS, MB", 1e-6), Metric("peak", "peak, MB", 1e-6)
_FLOODED = (_RATE, _CPU, _BUSY, _P50, _P99, _RSS)

ROWS = (
    Row(1, "cached answer", loads.cached, _FLOODED),
    Row(2, "plain miss, forwarded", loads.plain, _FLOODED),
    Row(3, "tunneled miss, set written", loads.tunneled, _FLOODED, PEERS),
    Row(
        4,
        "tunneled miss, one at a time",
        loads.filled,
        (_P50, _P95, _P99),
        PEERS,
        lambda effort: effort.fills,
        "addresses in the set",
    ),
    Row(
        5,
        "plain miss",
        loads.lists,
        (_RATE, _CPU),
        cases=lambda effort: effort.lists,
        case_title="domains listed",
    ),
    Row(
        6,
        "start and memory",
        loads.lists,
        (Metric("start", "start to first answer, s"), Metric("start_cpu", "CPU until then, s"), _RSS, _PSS, _PEAK),
        cases=lambda effort: effort.lists[-1:],
        case_title="domains listed",
    ),
    Row(
        7,
        "a domain is added under load",
        loads.reload,
        (
            Metric("lost", "lookups lost"),
            Metric("asked", "of lookups", compared=False),
            Metric("worst", "longest wait, ms", 1e3),
            Metric("changed", "until it is tunneled, s"),
        ),
        cases=lambda effort: effort.reloads,
        case_title="domains listed",
    ),
)
