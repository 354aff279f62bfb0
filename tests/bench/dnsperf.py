"""What dnsperf tells, as numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NUMBERS = {
    "sent": r"Queries sent:\s+(\d+)",
    "completed": r"Queries completed:\s+(\d+)",
    "seconds": r"Run time \(s\):\s+([\d.]+)",
    "rate": r"Queries per second:\s+([\d.]+)",
}
_ANSWERED = re.compile(r"^> [A-Z]+ \S+ \S+ ([\d.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """One run of dnsperf. rate: answers a second; good: questions answered NOERROR.

    latencies: of the answers, in seconds and sorted; known only if dnsperf was to tell them (-v).
    """

    sent: int
    completed: int
    good: int
    seconds: float
    rate: float
    latencies: tuple[float, ...] = ()

    @property
    def lost(self) -> int:
        """Questions without an answer, or with one that is none (SERVFAIL, REFUSED)."""
        return self.sent - self.good


def parse_load(text: str) -> Load:
    """Reads dnsperf's report. Raises ValueError where it is none."""
    found = {}
    for name, pattern in _NUMBERS.items():
        match = re.search(pattern, text)
        if match is None:
            raise ValueError(f"dnsperf does not tell {name!r}: {text[-500:]}")
        found[name] = match[1]
    good = re.search(r"Response codes:.*\bNOERROR (\d+)", text)
    return Load(
        int(found["sent"]),
        int(found["completed"]),
        int(good[1]) if good else 0,
        float(found["seconds"]),
        float(found["rate"]),
        tuple(sorted(float(match[1]) for match in _ANSWERED.finditer(text))),
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest of the sorted values that at least so many percent of them do not exceed."""
    if not ordered:
        raise ValueError("there is no percentile of nothing")
    return ordered[max(-(-len(ordered) * percent // 100), 1) - 1]
