"""The long run: every core, until so many mutants are fed, with a line of progress every few seconds.

Ends with 1 when something was found; each find is written to corpus/found/, from where the tests take it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from .campaign import FEED, Report, run
from .corpus import FOLDER

STRETCH = 20_000


def keep(kind: str, data: bytes) -> str:
    """Writes a find where the next run of the tests meets it."""
    folder = FOLDER / "found" / kind
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    path.write_bytes(data)
    return str(path)


def _told(kind: str, report: Report) -> str:
    outcomes = ", ".join(f"{what} {count}" for what, count in report.outcomes.most_common(6))
    slowest, data = report.slowest
    return f"{kind}: {report.fed:,} ({outcomes}); slowest {slowest * 1000:.1f} ms ({len(data)} octets)"


def campaign(mutants: int, processes: int, seed: int) -> dict[str, Report]:
    """Shares the mutants out, half of them queries and half of them replies."""
    reports = {kind: Report() for kind in FEED}
    stretches = [(kind, seed + place) for place in range(-(-mutants // STRETCH // 2)) for kind in FEED]
    last = 0.0
    with ProcessPoolExecutor(processes) as pool:
        waiting: dict[Future[Report], str] = {}
        while stretches or waiting:
            while stretches and len(waiting) < 2 * processes:
                kind, number = stretches.pop()
                waiting[pool.submit(run, kind, number, STRETCH)] = kind
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                kind = waiting.pop(future)
                found = future.result()
                reports[kind].add(found)
                for data, story in found.failures.items():
                    print(f"{keep(kind, data)}\n{story}", flush=True)
            if time.monotonic() - last > 5:
                last = time.monotonic()
                print("\n".join(_told(kind, report) for kind, report in reports.items()), flush=True)
    return reports


def main(argv: Sequence[str]) -> int:
    """Runs the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=int(os.environ.get("SPLITWG_MUTANTS", 10_000_000)))
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    reports = campaign(args.mutants, args.processes, args.seed)
    print("\n".join(_told(kind, report) for kind, report in reports.items()))
    return 1 if any(report.failures for report in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
