"""What is measured on one machine: each function starts the server, loads it, and returns the numbers.

Seconds, bytes, and queries a second. Raises Invalid where the numbers mean nothing because the work was not
done, as when an address is missing in the set.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address

from .dnsperf import Load, percentile
from .machine import Machine
from .names import PLAIN, TUNNELED, Questions, listed, questions
from .peers import DNSMASQ

Numbers = dict[str, float]
# Questions under way: dnsperf's usual 100, over four sockets, is what each of the three is quickest with.
FLOOD = ("-q", "100", "-c", "4", "-t", "30")
_LISTED = 10  # domains, where their number is not what is measured
KEPT = 500  # names of the cached row: as many as fit into the smallest cache
# Beats at which everybody has time to spare, in queries a second.
_STEADY = {"cached": 5000, "plain": 2000, "tunneled": 200}
_RELOAD_BEAT = 500
_RELOAD_NAMES = 500  # of each kind; so many addresses are in the set, too
_NEW, _NEW_NUMBER, _NEW_ADDRESS = "new.example", 0xFFFFFF, "11.255.255.255"


class Invalid(Exception):
    """A run that does not count, and why."""


@dataclass(frozen=True)
class Effort:
    """How much is done. seconds: of a flood; calm: of a steady load; tunneled: names of a tunneled flood."""

    runs: int = 5
    seconds: float = 3.0
    calm: float = 2.0
    tunneled: int = 20_000
    article: int = 2_000
    fills: tuple[int, ...] = (0, 10_000, 50_000, 100_000)
    lists: tuple[int, ...] = (10, 10_000, 100_000, 1_000_000)
    reloads: tuple[int, ...] = (10_000,)


QUICK = Effort(2, 1.0, 1.0, 10_000, 500, (0, 10_000), (10, 100_000), (1_000,))
Measure = Callable[[Machine, Effort, int], Numbers]


@cache
def domains(count: int) -> tuple[str, ...]:
    """The list of this length."""
    return tuple(listed(count))


@cache
def _questions(below: str, first: int, count: int) -> Questions:
    return Questions(questions(below, first, count))


def _start(machine: Machine, count: int = _LISTED) -> float:
    """With a list of this length; the seconds until it answers."""
    machine.install(domains(count))
    return machine.start()


def _flood(machine: Machine, asked: Questions, *options: str) -> Numbers:
    """As fast as it goes."""
    before = machine.processor_seconds()
    load = machine.load(asked, *FLOOD, *options)
    used = machine.processor_seconds() - before
    if not load.good:
        raise Invalid("no question was answered")
    if load.lost > load.sent // 1000:
        raise Invalid(f"{load.lost} of {load.sent} questions were not answered")
    return {"rate": load.rate, "cpu": used / load.completed, "busy": used / load.seconds, "good": load.good}


def _steady(machine: Machine, asked: Questions, beat: int, seconds: float) -> Numbers:
    """At a beat, to see how long one takes."""
    load = machine.load(asked, "-v", "-Q", str(beat), "-l", str(seconds), *FLOOD)
    return _latencies(load)


def _latencies(load: Load) -> Numbers:
    if load.lost:
        raise Invalid(f"{load.lost} of {load.sent} questions were not answered")
    return {f"p{percent}": percentile(load.latencies, percent) for percent in (50, 95, 99)}


def cached(machine: Machine, effort: Effort, case: int) -> Numbers:
    """Row 1: every name is in the cache."""
    _start(machine)
    names = _questions(PLAIN, 0, KEPT)
    machine.load(names, "-n", "1", "-q", "50")
    calm = _steady(machine, names, _STEADY["cached"], effort.calm)
    return calm | _flood(machine, names, "-l", str(effort.seconds)) | machine.memory()


def plain(machine: Machine, effort: Effort, case: int) -> Numbers:
    """Row 2: no name is asked for twice."""
    _start(machine)
    few, many = _questions(PLAIN, 0, 20_000), _questions(PLAIN, 20_000, 600_000)
    calm = _steady(machine, few, _STEADY["plain"], effort.calm)
    return calm | _flood(machine, many, "-n", "1", "-l", str(effort.seconds)) | machine.memory()


def tunneled(machine: Machine, effort: Effort, case: int) -> Numbers:
    """Row 3: no name twice, each with an address of its own that has to be in the set when all is done."""
    _start(machine)
    calm = _steady(machine, _questions(TUNNELED, 100, 2_000), _STEADY["tunneled"], effort.calm)
    before = machine.set_size()
    # An interval set is slower with each address: whoever has one gets so few that it is as good as empty.
    count = effort.article if machine.peer is DNSMASQ else effort.tunneled
    numbers = _flood(machine, _questions(TUNNELED, 10_000, count), "-n", "1")
    there = machine.set_size() - before
    if there < numbers["good"]:
        raise Invalid(f"{numbers['good'] - there:.0f} answers were given without their address in the set")
    return calm | numbers | machine.memory()


def filled(machine: Machine, effort: Effort, case: int) -> Numbers:
    """Row 4: one tunneled question at a time, with `case` addresses in the set already."""
    machine.install(domains(_LISTED))
    if machine.peer.table is None:
        machine.start()  # it makes its own sets, and leaves them when it stops
        machine.stop()
    first = int(ip_address("12.0.0.0"))
    machine.fill(str(ip_address(first + number)) for number in range(case))
    machine.start()
    before = machine.set_size()
    if before < case:
        raise Invalid(f"the set holds {before} of {case} addresses")
    load = machine.load(_questions(TUNNELED, 10_000, 500), "-v", "-n", "1", "-l", "3", "-q", "1")
    there = machine.set_size() - before
    if there < load.good:
        raise Invalid(f"{load.good - there} answers were given without their address in the set")
    return _latencies(load)


def lists(machine: Machine, effort: Effort, case: int) -> Numbers:
    """Rows 5 and 6: with `case` domains listed: the start, the memory, and misses of names that are not."""
    numbers = {"start": _start(machine, case), "start_cpu": machine.processor_seconds()} | machine.memory()
    return numbers | _flood(machine, _questions(PLAIN, 20_000, 600_000), "-n", "1", "-l", str(effort.seconds))


def reload(machine: Machine, effort: Effort, case: int) -> Numbers:
    """Row 7: a domain is added while names of both kinds are asked for; until it is in the set."""
    _start(machine, case)
    lines = zip(questions(PLAIN, 0, _RELOAD_NAMES), questions(TUNNELED, 100, _RELOAD_NAMES), strict=True)
    asked = Questions(line for pair in lines for line in pair)
    machine.load(asked, "-n", "1", "-q", "20")
    process = machine.begin_load(asked, "-v", "-Q", str(_RELOAD_BEAT), "-l", "5", "-q", "5000", "-c", "20", "-t", "3")
    time.sleep(1.5)
    begin = time.monotonic()
    machine.install((*domains(case)[:-1], _NEW, TUNNELED))
    if not machine.peer.reloads:
        # As the article's generator does, and in its order.
        for command in ("nft flush set inet wg_routing wg_domains4", "conntrack -F"):
            machine.host.run(*command.split(), check=False)
        machine.stop()
        machine.start()
    seconds = _until_tunneled(machine, begin)
    load = machine.end_load(process)
    asked.close()
    worst = load.latencies[-1] if load.latencies else 0.0
    return {"lost": load.lost, "asked": load.sent, "worst": worst, "changed": seconds}


def _until_tunneled(machine: Machine, begin: float) -> float:
    """Seconds until a name below the added domain brings its address into the set."""
    for number in range(100):
        machine.answered(machine.probe(f"n{_NEW_NUMBER}.{number}.{_NEW}"))
        element = ("element", "inet", "wg_routing", "wg_domains4", f"{{ {_NEW_ADDRESS} }}")
        if machine.host.run("nft", "get", *element, check=False).returncode == 0:
            return time.monotonic() - begin
        time.sleep(0.05)
    raise Invalid("the added domain is not tunneled")
