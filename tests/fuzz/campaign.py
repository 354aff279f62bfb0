"""One stretch of fuzzing: mutants of the corpus, in an order that the seed decides."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from . import corpus
from .mutate import mutant
from .targets import adopted_query, adopted_reply, feed_query, feed_reply

FEED = {"queries": feed_query, "replies": feed_reply}
_ADOPT = {"queries": (adopted_query, 0.6), "replies": (adopted_reply, 0.9)}  # how often the head is put right
_BIG = 3000  # octets; the mutants of bigger packets are as slow as they are
_RARELY = 0.02
# Seconds of CPU for one message. 5 ms are promised; this leaves room for a slow machine that collects its garbage.
SLOW = 0.05
MOST_FAILURES = 20


@dataclass
class Report:
    """What came of it. slowest: CPU seconds of one message and the message; failures: packet -> traceback."""

    fed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, bytes] = (0.0, b"")
    failures: dict[bytes, str] = field(default_factory=dict)

    def add(self, other: Report) -> None:
        """Takes another stretch in."""
        self.fed += other.fed
        self.outcomes += other.outcomes
        self.slowest = max(self.slowest, other.slowest)
        self.failures.update(other.failures)


def mutants(kind: str, seed: int, count: int) -> Iterator[bytes]:
    """So many packets; equal for equal seeds."""
    random = Random(f"{kind} {seed}")
    adopt, often = _ADOPT[kind]
    packets = sorted(getattr(corpus, kind)().values())
    big = [data for data in packets if len(data) > _BIG]
    small = [data for data in packets if len(data) <= _BIG]
    for _ in range(count):
        changed = mutant(random.choice(big if random.random() < _RARELY else small), small, random)
        yield adopt(changed) if random.random() < often else changed


def run(kind: str, seed: int, count: int) -> Report:
    """Feeds so many mutants; goes on after a failure, up to MOST_FAILURES."""
    report = Report()
    feed = FEED[kind]
    for data in mutants(kind, seed, count):
        try:
            outcome, took = feed(data)
            if took > SLOW:  # or the machine was: once more
                took = min(took, feed(data)[1], feed(data)[1])
            if took > SLOW:
                report.failures[data] = f"took {took * 1000:.0f} ms\n"
        except Exception:  # any that is not declared is what is looked for
            report.failures[data] = traceback.format_exc(limit=-3)
            outcome, took = "failure", 0.0
        if took > report.slowest[0]:
            report.slowest = (took, data)
        report.outcomes[outcome] += 1
        report.fed += 1
        if len(report.failures) >= MOST_FAILURES:
            break
    return report
