"""`python -m tests.bench`, inside the enclosure (see `do`). Exit status: 0 done, 1 not possible, 130 interrupted."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace

from ..lab.hosts import ROOT, NotEnclosed
from .loads import QUICK, Effort, Invalid, Measure, Numbers
from .peers import Peer
from .report import as_json, medians, put_into, surroundings, table
from .rows import ROWS, Row
from .world import World, world

DOCUMENT = ROOT / "docs" / "performance.md"
Key = tuple[Measure, int, Peer]
Samples = dict[Key, list[Numbers]]


def keys(rows: list[Row], effort: Effort) -> list[Key]:
    """What is measured in each round: peer after peer for each case."""
    return list(
        dict.fromkeys((row.measure, case, peer) for row in rows for case in row.cases(effort) for peer in row.peers)
    )


def run(world: World, order: list[Key], effort: Effort, samples: Samples, notes: list[str]) -> None:
    """Round after round, so that what disturbs the machine for a while disturbs everybody."""
    for turn in range(effort.runs):
        for place, (measure, case, peer) in enumerate(order):
            what = f"{measure.__name__} {case or ''}"
            _say(f"round {turn + 1}/{effort.runs} {place + 1:2}/{len(order)}  {what:17} {peer.name:17} ", end="")
            try:
                with world.machine(peer) as machine:
                    numbers = measure(machine, effort, case)
            except (Invalid, RuntimeError, ValueError, subprocess.SubprocessError) as reason:
                # The others go on: what one of them cannot do is a result, too.
                words = getattr(reason, "__notes__", []) or [str(reason)]
                because = words[-1].strip().splitlines()[-1]
                _say(f"does not count: {because}")
                notes.append(f"round {turn + 1}, {what.strip()}, {peer.name}: does not count: {because}")
                continue
            samples.setdefault((measure, case, peer), []).append(numbers)
            _say(" ".join(f"{name}={value:.4g}" for name, value in numbers.items()))


def main() -> int:
    """Measures, and prints the table."""
    options = _options()
    effort = QUICK if options.quick else Effort()
    effort = replace(effort, runs=options.runs or effort.runs)
    rows = [row for row in ROWS if not options.rows or row.number in options.rows]
    samples: Samples = {}
    notes: list[str] = []
    status = 0
    about = surroundings(effort)
    try:
        with world() as built:
            run(built, keys(rows, effort), effort, samples, notes)
    except NotEnclosed as error:
        _say(f"bench: {error}")
        return 1
    except RuntimeError as error:
        _say(f"bench: {error}")
        status = 1
    except KeyboardInterrupt:
        _say("\nbench: interrupted; what is there so far:")
        status = 130
    found = {
        (row, case, peer.name): medians(samples[row.measure, case, peer])
        for row in rows
        for case in row.cases(effort)
        for peer in row.peers
        if (row.measure, case, peer) in samples
    }
    text = "\n".join([about.text, "", table(rows, found), *(f"- {note}" for note in notes)])
    print(text)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(as_json(about, found, samples, notes), file, indent=1)
    if options.document and not status:
        DOCUMENT.write_text(put_into(DOCUMENT.read_text(), text))
    return status


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="do bench", description="splitwgd beside dnsmasq and smartdns")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter: two minutes instead of twenty")
    parser.add_argument("--rows", type=_rows, default=[], metavar="1,3", help="only these")
    parser.add_argument("--runs", type=int, metavar="N", help="rounds (5; --quick: 2)")
    parser.add_argument("--json", metavar="FILE", help="write medians and all samples there")
    parser.add_argument("--document", action="store_true", help=f"put the table into {DOCUMENT.relative_to(ROOT)}")
    return parser.parse_args()


def _rows(text: str) -> list[int]:
    numbers = [int(word) for word in text.split(",")]
    if unknown := set(numbers) - {row.number for row in ROWS}:
        raise argparse.ArgumentTypeError(f"there is no row {min(unknown)}")
    return numbers


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
