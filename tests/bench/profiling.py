"""Where the time of splitwgd goes, under a load.

    python -m tests.bench.ours --profile [cached|plain|tunneled] [--seconds N] [--perf FILE]

Prints cProfile's view of the loop's thread. It makes each call dearer, so small functions look worse than they
are; what it shows well is who is called how often. With --perf, perf writes FILE instead (`perf report -i
FILE --sort dso,sym`), which shows the kernel's share, and what is left when nothing is slowed down.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from .loads import FLOOD, KEPT, domains
from .machine import Machine
from .names import PLAIN, TUNNELED, Questions, questions
from .ours import PROFILE
from .peers import SPLITWGD
from .world import world


def main() -> None:
    """Loads splitwgd, and prints the profile."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ours")
    parser.add_argument("--profile", nargs="?", const="plain", choices=("cached", "plain", "tunneled"), default="plain")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--perf", metavar="FILE")
    options = parser.parse_args()
    cached = options.profile == "cached"
    below = TUNNELED if options.profile == "tunneled" else PLAIN
    asked = Questions(questions(below, 10_000, KEPT if cached else 1_000_000))
    with world() as built, built.machine(SPLITWGD) as machine:
        machine.install(domains(10))
        machine.start()
        if cached:
            machine.load(asked, "-n", "1", "-q", "50")
        with _recorded(machine, options.perf) if options.perf else _profiled(machine):
            load = machine.load(asked, "-l", str(options.seconds), *FLOOD)
    print(f"{load.rate:,.0f} queries/s; {load.lost} of {load.sent} were not answered", file=sys.stderr)


@contextlib.contextmanager
def _profiled(machine: Machine) -> Iterator[None]:
    assert machine.process is not None
    machine.process.send_signal(signal.SIGUSR1)
    yield
    machine.process.send_signal(signal.SIGUSR2)
    deadline = time.monotonic() + 10
    while machine.host.run("test", "-e", PROFILE, check=False).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError("splitwgd wrote no profile")
        time.sleep(0.1)
    print(machine.host.read(PROFILE))


@contextlib.contextmanager
def _recorded(machine: Machine, path: str) -> Iterator[None]:
    assert machine.process is not None
    perf = subprocess.Popen(["perf", "record", "-q", "-g", "-p", str(machine.process.pid), "-o", path])
    yield
    perf.send_signal(signal.SIGINT)
    perf.wait()
