"""Medians, ratios, the table in Markdown, and on what machine it was."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from splitwgd import __version__

from ..lab.hosts import ROOT
from .loads import Effort, Measure, Numbers
from .peers import PEERS, SPLITWGD, Peer
from .rows import Metric, Row

OURS = SPLITWGD.name
BEGIN, END = "<!-- the last run: begin -->", "<!-- the last run: end -->"


def medians(samples: Sequence[Numbers]) -> Numbers:
    """The median of each number over all runs."""
    return {key: median(sample[key] for sample in samples) for key in samples[0]} if samples else {}


def shown(value: float) -> str:
    """A number with three digits that count."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{2 if value < 1 else 1}f}" if value >= 0.1 else f"{value:.2g}"


def ratio(ours: float | None, theirs: float | None) -> str:
    """How many times theirs ours is; empty where one is not known or theirs is nothing."""
    return f"{shown(ours / theirs)}" if ours is not None and theirs else ""


def table(rows: Iterable[Row], found: Mapping[tuple[Row, int, str], Numbers]) -> str:
    """The rows as a table: a column for each peer, and one for splitwgd's ratio to each of the others.

    found: the medians by row, case and peer; a peer that is missing there was not measured.
    """
    measured = {name for _, _, name in found}
    others = [peer.name for peer in PEERS if peer.name in measured - {OURS}]
    peers = [*others, OURS]
    head = ["", "", *peers, *(f"splitwgd / {name}" for name in others)]
    lines = [head, ["---", "---", *["--:"] * (len(head) - 2)]]
    for row in rows:
        for case in dict.fromkeys(case for each, case, _ in found if each is row):
            for place, metric in enumerate(row.metrics):
                title = f"**{row.number}** {row.title_of(case)}" if place == 0 else ""
                values = [_value(metric, found.get((row, case, name), {})) for name in peers]
                ours, theirs = values[-1], values[:-1]
                ratios = [ratio(ours, their) if metric.compared else "" for their in theirs]
                cells = ["" if value is None else shown(value) for value in values]
                lines.append([title, metric.label, *cells, *ratios])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _value(metric: Metric, numbers: Numbers) -> float | None:
    value = numbers.get(metric.key)
    return None if value is None else value * metric.scale


def put_into(document: str, text: str) -> str:
    """The document with this text between its two marks. Raises ValueError where they are not."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no {BEGIN} ... {END}")
    return f"{head}{BEGIN}\n\n{text.strip()}\n\n{END}{tail}"


@dataclass(frozen=True)
class Surroundings:
    """When, on what, with what. busy: the load average before the start; above 0.5, others disturbed the run."""

    date: str
    processor: str
    cores: int
    memory: int
    kernel: str
    busy: float
    versions: dict[str, str]
    effort: Effort

    @property
    def text(self) -> str:
        """For people."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        size = f"{self.processor}, {self.cores} cores, {self.memory / 1e9:.0f} GB, Linux {self.kernel}"
        runs = f"Medians of {self.effort.runs} alternating runs; load average before them: {self.busy}."
        return f"{self.date}; {size}; {versions}. {runs}"


def surroundings(effort: Effort) -> Surroundings:
    """Of this machine, now."""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    versions = {
        "splitwgd": __version__ + _revision(),
        "Python": platform.python_version(),
        "dnsmasq": _said("dnsmasq", "--version"),
        "smartdns": _said("smartdns", "-v"),
        "dnsperf": _said("dnsperf", "-H"),
    }
    return Surroundings(
        time.strftime("%Y-%m-%d"),
        processor[1] if processor else platform.machine(),
        os.cpu_count() or 1,
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        platform.release(),
        round(os.getloadavg()[0], 1),
        versions,
        effort,
    )


def _revision() -> str:
    """The commit, where this is a checkout that git trusts."""
    argv = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return f" ({done.stdout.strip()})" if done.returncode == 0 else ""


def _said(*argv: str) -> str:
    """The version in what a program says."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    words = (done.stdout + done.stderr).strip()
    version = re.search(r"\b\d[\w.+~-]*", words)
    return version[0] if version else "of unknown version"


def as_json(
    about: Surroundings,
    found: Mapping[tuple[Row, int, str], Numbers],
    samples: Mapping[tuple[Measure, int, Peer], list[Numbers]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """All that is known, in seconds and bytes."""
    return {
        "about": asdict(about),
        "medians": [
            {"row": row.number, "title": row.title, "case": case, "peer": peer, **numbers}
            for (row, case, peer), numbers in found.items()
        ],
        "samples": [
            {"measure": measure.__name__, "case": case, "peer": peer.name, "runs": runs}
            for (measure, case, peer), runs in samples.items()
        ],
        "notes": list(notes),
    }
