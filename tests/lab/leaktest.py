"""What leaves in clear while things happen, counted: `python -m tests.lab.leaktest`, in the enclosure (see `do`).

A client under load goes through the scenarios, with splitwgd on it and, if wished, with the article's set-up. Exit
status: 0 nothing of splitwgd's in clear, 1 something, or a scenario that could not be played, 2 not possible here.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain, count

from .article import Article
from .capture import Packet, Seen
from .chaos import chaos
from .hosts import NotEnclosed
from .load import Traffic
from .machine import Machine
from .misfortunes import MISFORTUNES, UNLIKE_THE_ARTICLE
from .pulse import EVERY, Pulse
from .scenarios import NOT_FOR_THE_ARTICLE, PLAIN, SCENARIOS, TUNNELED, Subject, configuration
from .tricks import NO_TRICK_FOR_THE_ARTICLE, TRICKS
from .world import Lab
from .world import lab as standing_lab

FRESH = ("203.0.113.100/30", "203.0.113.104/29", "203.0.113.112/28", "203.0.113.128/25", "2001:db8:1:f::/64")
ALL_TUNNELED = (*TUNNELED, *FRESH)
INSIDE = ("10.1.0.0/24", "fd00:10:1::/64")
PATIENCE = 5.0  # seconds to get whole again
LAG = 0.1  # seconds by which the recorder may be late with the time of a packet
Scenario = Callable[["Scene"], None]
ALL: tuple[Scenario, ...] = (*SCENARIOS, *MISFORTUNES, *TRICKS)
NOT_PLAYED = NOT_FOR_THE_ARTICLE | UNLIKE_THE_ARTICLE | NO_TRICK_FOR_THE_ARTICLE
# An element lives for an hour at least, and an hour longer than its answer: seconds instead.
_HASTY = """
import splitwgd.learned as learned
learned.SLACK, learned.SPARE = 1.0, 0.5
learned.Ledger.min_lifetime = property(lambda ledger: 2.0, lambda ledger, value: None)
"""


class Ours:
    """splitwgd as a subject."""

    name = "splitwgd"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.lab = machine.lab
        self._environment: dict[str, str] = {}

    def configure(self, domains: Sequence[str], dns: str = "10.1.0.1", more: str = "") -> None:
        """Written into the file; the daemon, if it runs, sees it by itself."""
        runs = self.machine.process is not None
        before = self.machine.log().count("reloaded: ") if runs else 0
        self.machine.configure(configuration(domains, dns, more))
        if runs:
            self.machine.wait_for(lambda: self.machine.log().count("reloaded: ") > before, "the reload")

    def start(self) -> None:
        """The daemon, until it says that it is ready."""
        self.machine.start(env=self._environment)

    def stop(self) -> None:
        """SIGTERM."""
        if status := self.machine.end():
            raise RuntimeError(f"splitwgd ended with {status}")

    def kill(self) -> None:
        """SIGKILL; what it started goes on."""
        self.machine.end(signal.SIGKILL)

    def pause(self, seconds: float) -> None:
        """SIGSTOP and SIGCONT."""
        self.machine.signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.machine.signal(signal.SIGCONT)

    def down(self) -> None:
        """`splitwg down`."""
        self.machine.splitwg("down")

    def up(self) -> None:
        """`splitwg up`."""
        self.machine.splitwg("up")

    def pid(self) -> int:
        """The daemon's."""
        assert self.machine.process is not None
        return self.machine.process.pid

    def revive(self) -> None:
        """As its unit does."""
        if self.machine.process is None or self.machine.process.poll() is not None:
            self.start()

    def reboot(self) -> None:
        """`splitwg teardown` stands for what a kernel forgets."""
        self.kill()
        self.machine.splitwg("teardown")

    def hasten(self) -> None:
        """Its constants, smaller."""
        self.rebuild(_HASTY)

    def rebuild(self, lines: str) -> None:
        """Python reads such a file before all others."""
        self.lab.client.write("/run/build/sitecustomize.py", lines)
        self._environment = {"PYTHONPATH": f"/run/build:{os.environ.get('PYTHONPATH', '')}"}

    def close(self) -> None:
        """Nothing of it is left."""
        self.machine.clean()


@dataclass(frozen=True)
class Result:
    """What was counted in one scenario with one subject.

    lost: lookups that failed while nothing excused it. broken: long downloads, of two. whole_after: seconds from
    what happened until everything worked; None for never. open_for: seconds from the first packet or question in
    clear to the last. leaks: the first of them. trouble: what did not go as it should.
    """

    scenario: str
    subject: str
    works: bool
    packets: int
    questions: int
    lost: int
    broken: tuple[str, ...]
    whole_after: float | None
    open_for: float
    leaks: tuple[str, ...]
    trouble: tuple[str, ...]

    def cells(self) -> list[str]:
        """Its part of the table."""
        whole = "never" if self.whole_after is None else f"{self.whole_after:.1f} s" if self.whole_after else "at once"
        counts = (self.packets, self.questions, self.lost, len(self.broken))
        return ["yes" if self.works else "no", *(f"{number}" for number in counts), whole]


def total(results: Sequence[Result]) -> Result:
    """The same scenario, played so often: what was counted is summed, and the slowest tells when all was whole."""
    wholes = [each.whole_after for each in results]
    return replace(
        results[0],
        works=all(each.works for each in results),
        packets=sum(each.packets for each in results),
        questions=sum(each.questions for each in results),
        lost=sum(each.lost for each in results),
        broken=tuple(chain.from_iterable(each.broken for each in results)),
        whole_after=None if None in wholes else max(whole for whole in wholes if whole is not None),
        open_for=max(each.open_for for each in results),
        leaks=tuple(chain.from_iterable(each.leaks for each in results))[:5],
        trouble=tuple(chain.from_iterable(each.trouble for each in results)),
    )


class Scene:
    """What a scenario acts on: the lab, the subject, and the load that runs meanwhile."""

    _numbers = count(1_000_000)  # of fresh names; the pulse begins at 0

    def __init__(self, subject: Subject, patience: float = PATIENCE) -> None:
        self.subject = subject
        self.lab: Lab = subject.lab
        self.patience = patience
        self.seen = Seen()
        self.pulse = Pulse(self.lab)
        self.trouble: list[str] = []
        self.lost = 0  # of what the scenario asked itself
        self._hidden: list[tuple[float, tuple[str, ...], str]] = [(0.0, (*ALL_TUNNELED, *INSIDE), "tunneled.example")]
        self._closed: list[tuple[float, float]] = []
        self._mended = self._begun = 0.0
        self._streams: list[Traffic] = []
        self._others: list[Seen] = []
        self.whole = False

    # -- for scenarios

    @contextmanager
    def load(
        self, without: Sequence[str] = (), every: float = 2, first: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Starts the subject; the client is busy and watched for the length of the block, and afterwards until all
        works again. without: kinds of probes that cannot work. every: milliseconds from one new flow to the next.
        first: what the subject, which runs already, has been waiting for."""
        self.pulse.without = frozenset(without)
        if first is None:
            self.subject.start()
            self.learn()
        with self.lab.capture() as self.seen, ExitStack() as stack:
            if first is not None:
                self.mended()
                first()
            self.pulse.begin()
            stack.callback(self._end_load)
            self.stream(*self._known(), *PLAIN, every=every)
            if first is None:
                if not self._until_whole(3):
                    self.trouble.append(f"never: {', '.join(self.pulse.lacking())}")
                self.mended()
            self._begun = self._mended
            yield
            self.wait(0.3)
            self.whole = self._until_whole(self.patience)
            if not self.whole:
                self.trouble.append(f"in vain: {', '.join(self.pulse.lacking())}")

    @contextmanager
    def closed(self) -> Iterator[None]:
        """For this long nobody can expect an answer; whatever is lost does not count."""
        begin = time.monotonic() - LAG  # what was under way is lost, too
        try:
            yield
        finally:
            self._closed.append((begin, time.monotonic()))
            self.mended()

    @contextmanager
    def watched(self, interface: str, at_the_isp: str) -> Iterator[None]:
        """Another cable is watched as well."""
        with self.lab.capture(cable=(interface, at_the_isp)) as seen:
            yield
        self._others.append(seen)

    def mended(self) -> None:
        """From now on all could work again (without it: from the beginning of the load)."""
        self._mended = time.monotonic()

    def hide(self, *addresses: str, name: str = "") -> None:
        """From now on these addresses, and the questions for this name, are tunneled as well."""
        self._hidden.append((time.monotonic() + LAG, addresses, name))

    def client(self, command: str) -> str:
        """A command line on the client; it has to succeed."""
        return self.lab.client.run("sh", "-c", command).stdout

    def try_on_the_client(self, command: str) -> None:
        """The same, where the kernel may refuse: a table that has an owner is nobody else's."""
        self.lab.client.run("sh", "-c", command, check=False)

    def asked(self, *argv: str) -> None:
        """A program on the client that looks something up and prints it; else the lookup is lost."""
        said = self.lab.client.run(*argv, check=False).stdout.splitlines()
        self.lost += not any(line and not line.startswith(";") for line in said)  # dig's complaints begin so

    def fresh(self) -> str:
        """A tunneled name that nobody has asked for."""
        return f"n{next(self._numbers)}.fresh.tunneled.example"

    def stream(self, *addresses: str, every: float = 20, before: Sequence[str] = ()) -> None:
        """New flows to these addresses in turn, one every so many milliseconds, until the load ends. before: the
        command that runs the program which makes them."""
        self._streams.append(self.lab.stream(*addresses, every=every, before=before))

    def wait(self, seconds: float) -> None:
        """Lets the load go on."""
        time.sleep(seconds)

    def expect(self, what: str, holds: Callable[[], bool]) -> None:
        """This has to come true in time."""
        until = time.monotonic() + self.patience
        while not holds():
            if time.monotonic() > until:
                self.trouble.append(f"in vain: {what}")
                return
            time.sleep(0.05)

    # -- for who plays them

    def result(self, scenario: str) -> Result:
        """What was counted. Raises RuntimeError when the ISP has not seen what it must have seen."""
        for other in self._others:
            self.seen.packets += other.packets
        if len(self.seen.from_client_to(*PLAIN)) < 50:
            raise RuntimeError("the capture is blind: the plain flows are missing")
        packets, questions = self._in_clear()
        leaks = sorted((*packets, *questions), key=lambda packet: packet.time)
        failed = [probe.sent - self._mended for probe in self.pulse.failed() if probe.sent > self._mended]
        return Result(
            scenario,
            self.subject.name,
            self.whole and not self.trouble,
            len(packets),
            len(questions),
            self.lost + sum(not self._excused(probe.sent) for probe in self.pulse.failed("lookup")),
            tuple(flow.what for flow in self.pulse.flows if flow.broken),
            max(failed, default=-EVERY) + EVERY if self.whole else None,
            leaks[-1].time - leaks[0].time if leaks else 0.0,
            tuple(f"{packet.time - self._begun:.2f} s: {packet}" for packet in leaks[:5]),
            tuple(self.trouble),
        )

    def _in_clear(self) -> tuple[list[Packet], list[Packet]]:
        # As whom the tunnel knows the client, no neighbour does (CVE-2019-14899). To plain sites it may give that
        # address while it has no other.
        packets = [packet for packet in self.seen.from_client_as(*INSIDE) if packet.dst not in PLAIN]
        questions: list[Packet] = []
        for since, addresses, name in self._hidden:
            asking = self.seen.questions(name) if name else []
            questions += [packet for packet in asking if packet.time > since]
            going = [*self.seen.from_client_to(*addresses), *self.seen.sought(*addresses)]
            packets += [packet for packet in going if packet.time > since and not packet.question]
        return packets, questions

    def _excused(self, when: float) -> bool:
        return any(begin <= when <= end for begin, end in self._closed)

    def _known(self) -> tuple[str, ...]:
        """The tunneled site's addresses, as far as the client can have them."""
        return TUNNELED[:1] if "tunneled v6" in self.pulse.without else TUNNELED

    def learn(self) -> None:
        """A client that has looked the tunneled site up, and may use its addresses for as long as it likes."""
        for address in self._known():
            kind = "AAAA" if ":" in address else "A"
            dig = ("dig", "+short", "+tries=3", "+time=1", "@127.0.0.53", "tunneled.example", kind)
            if self.lab.client.run(*dig, check=False).stdout.strip() != address:
                self.trouble.append(f"the tunneled site's {kind} cannot be looked up")

    def _until_whole(self, patience: float) -> bool:
        until = time.monotonic() + patience
        while self.pulse.lacking():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def _end_load(self) -> None:
        for traffic in self._streams:
            traffic.process.kill()  # its own account is not wanted, and would take 3 s
            traffic.process.wait()
        self.pulse.end(patience=3 if self.whole else 0)


def play(scenario: Scenario, subject: Subject) -> Result:
    """One scenario with one subject, which has to be clean and not started."""
    forget = "conntrack -F; rm -rf /var/lib/splitwg/*"  # what the scenario before this one left
    subject.lab.client.run("sh", "-c", forget, check=False)
    scene = Scene(subject)
    scenario(scene)
    return scene.result(scenario.__name__)


# -- the table

Rows = dict[str, dict[str, Result | str]]  # by scenario and subject; a text says why there is none
_COLUMNS = ("works", "packets in clear", "questions in clear", "lookups lost", "flows broken", "whole again")


def table(rows: Rows, subjects: Sequence[str]) -> str:
    """In Markdown."""
    head = ["scenario"]
    for subject in subjects:
        head += [f"{subject}: {_COLUMNS[0]}", *_COLUMNS[1:]]
    lines = [head, ["---"] * len(head)]
    for scenario in ALL:
        if found := rows.get(scenario.__name__):
            cells = [f"{scenario.__doc__}"]
            for subject in subjects:
                result = found.get(subject, "")
                empty = [result if isinstance(result, str) else "", *[""] * (len(_COLUMNS) - 1)]
                cells += result.cells() if isinstance(result, Result) else empty
            lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _subject(name: str, lab: Lab) -> Ours | Article:
    return Ours(Machine(lab)) if name == Ours.name else Article(lab)


def run(scenarios: Sequence[Scenario], subjects: Sequence[str], times: int) -> Rows:
    """Each scenario with each subject, so often, told on stderr as it goes."""
    rows: Rows = {}
    for number, scenario in enumerate(scenarios, 1):
        row = rows[scenario.__name__] = {}
        for name in subjects:
            _say(f"{number:2}/{len(scenarios)}  {scenario.__name__:26} {name:14}", end="")
            told = row[name] = _repeated(scenario, name, times)
            _say(told if isinstance(told, str) else " | ".join([*told.cells(), *told.trouble]))
    return rows


def _repeated(scenario: Scenario, name: str, times: int) -> Result | str:
    results = []
    for _ in range(times):
        result = _one(scenario, name)
        if isinstance(result, str):
            return result
        results.append(result)
    return total(results)


def _one(scenario: Scenario, name: str) -> Result | str:
    if name == Article.name and scenario in NOT_PLAYED:
        return NOT_PLAYED[scenario]
    try:
        # A lab of its own: connections that one scenario has broken still send for minutes.
        with standing_lab() as lab, closing(_subject(name, lab)) as subject:
            return play(scenario, subject)
    except NotEnclosed:
        raise
    except (AssertionError, OSError, RuntimeError, subprocess.SubprocessError) as reason:
        # The others go on: what one of them cannot do is a result, too.
        words = [*getattr(reason, "__notes__", ()), str(reason)]
        return f"failed: {words[0].strip().splitlines()[0]}"


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    names = [scenario.__name__ for scenario in ALL]
    parser = argparse.ArgumentParser(prog="do leaktest", description="what leaves in clear while things happen")
    parser.add_argument("--article", action="store_true", help="the set-up that splitwgd replaces, too")
    parser.add_argument("--chaos", action="store_true", help="instead of scenarios: faults at random")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="for the same faults again")
    parser.add_argument("--minutes", type=float, default=10, help="of chaos")
    parser.add_argument("--times", type=int, default=1, help="each scenario so often, and the sums")
    parser.add_argument("--json", metavar="FILE", help="write all results there")
    parser.add_argument("scenario", nargs="*", help=f"only these of: {', '.join(names)}")
    options = parser.parse_args()
    if unknown := set(options.scenario) - set(names):
        parser.error(f"there is no {min(unknown)}")
    if options.times < 1:
        parser.error("--times is 1 or more")
    return options


def main() -> int:
    """Plays what the command line asks for, and prints the table."""
    options = _options()
    chosen = [each for each in ALL if not options.scenario or each.__name__ in options.scenario]
    subjects = [Ours.name, Article.name] if options.article else [Ours.name]
    try:
        if options.chaos:
            return _play_chaos(options.seed, options.minutes)
        rows = run(chosen, subjects, options.times)
    except NotEnclosed as error:
        _say(f"leaktest: {error}")
        return 2
    print(table(rows, subjects))
    if options.json:
        told = {
            name: {who: each if isinstance(each, str) else asdict(each) for who, each in row.items()}
            for name, row in rows.items()
        }
        with open(options.json, "w") as file:
            json.dump(told, file, indent=1)
    return int(any(_is_bad(row[Ours.name]) for row in rows.values()))


def _is_bad(result: Result | str) -> bool:
    return isinstance(result, str) or bool(result.packets or result.questions or not result.works)


def _play_chaos(seed: int, minutes: float) -> int:
    _say(f"seed {seed}")
    result = _one(chaos(seed, minutes * 60, _say), Ours.name)
    if isinstance(result, str):
        _say(result)
    else:
        _say(", ".join(": ".join(each) for each in zip(_COLUMNS, result.cells(), strict=True)))
        _say("\n".join([*result.leaks, *result.trouble]))
    _say(f"the seed was {seed}")
    return int(_is_bad(result))


if __name__ == "__main__":
    sys.exit(main())
