"""Keeps what was learned where it outlives a reboot, and brings it back at a start.

A collection is made in portions on the loop, and written by a thread of its own that rests between its pieces: nobody's
question waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from splitwgd.errors import KernelError, SplitwgError
from splitwgd.forwarder import Forwarder
from splitwgd.learned import Remembered
from splitwgd.state import State, StateProblem, arrived, pieces, read_state, wanted
from splitwgd.store import Disk, keep, set_aside, state_path
from splitwgd.vetting import RememberedLead

log = logging.getLogger("splitwgd.memory")
EVERY = 300.0  # seconds between two writings, if anything has changed
REST = 0.001  # seconds for questions between two pieces
PORTION = 512  # addresses that are collected, or put into their sets, at once: some milliseconds


class Memory:
    """The file of one forwarder, whose `vetting` is replaced now and then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, forwarder: Forwarder) -> None:
        self.loop = loop
        self.forwarder = forwarder
        self.path = state_path()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="memory")  # one file after the other
        self._addresses: Sequence[Remembered] = ()  # that have been read, and have yet to be recalled
        self._count = 0  # of those that were
        self._written = 0  # a digest of what the file holds
        self._complained = False

    async def read(self, max_ttl: float) -> None:
        """Fetches what a former process wrote, and follows its leads. max_ttl: as in `Ledger.longest`."""
        longest = self.forwarder.gate.ledger.longest(max_ttl)
        clocks = time.time(), self.loop.time()
        state = await self.loop.run_in_executor(self._worker, read, self.path, *clocks, longest)
        self.forwarder.vetting.recall(state.leads)  # and every successor knows them
        self._addresses = state.addresses

    def all_lost(self) -> None:
        """The kernel holds nothing of it: the ledger has it at once, for the transaction that makes the sets."""
        forwarder, now = self.forwarder, self.loop.time()
        ledger = forwarder.gate.ledger
        part = wanted(self._addresses, forwarder.vetting, ledger, now)
        ledger.recall(part, now)
        self._count += len(part)

    async def recall(self) -> None:
        """Takes over what was read and the kernel has not."""
        gate, vetting = self.forwarder.gate, self.forwarder.vetting
        addresses, self._addresses = self._addresses, ()
        for start in range(0, len(addresses), PORTION):
            part = wanted(addresses[start : start + PORTION], vetting, gate.ledger, self.loop.time())
            self._count += self._put(part)
            await asyncio.sleep(0)
        count, leads = self._count, len(vetting.leads)
        if count or leads:
            log.info("remembered from before: %d addresses, %d names that records led to", count, leads)

    def _put(self, part: Sequence[Remembered]) -> int:
        """Into their sets and the ledger; how many."""
        now, gate = self.loop.time(), self.forwarder.gate
        elements = [each.element(now) for each in part]
        try:
            try:
                gate.elements.write(elements)
            except KernelError:  # one of them is there
                gate.elements.put(elements)
        except SplitwgError as error:
            log.error("%d addresses from before cannot be put into their sets: %s", len(part), error)
            return 0
        gate.ledger.recall(part, now)
        return len(part)

    async def keep(self) -> None:
        """Writes what has changed, now and then, for ever."""
        while True:
            await asyncio.sleep(EVERY)
            await self.save(REST)

    async def save(self, rest: float = 0.0) -> None:
        """Writes it now, if anything has changed. rest: seconds between two pieces."""
        ledger, now = self.forwarder.gate.ledger, self.loop.time()
        ahead = time.time() - now
        digest = round(ahead / 60)  # somebody may have set the clock
        portions: deque[list[Remembered]] = deque()
        places = ledger.in_order()
        for start in range(0, len(places), PORTION):
            portions.append(ledger.remember(places[start : start + PORTION], now))
            digest = hash((digest, tuple(portions[-1])))
            await asyncio.sleep(0)
        leads = self.forwarder.vetting.remember(now)
        digest = hash((digest, tuple(leads)))
        if digest == self._written:
            while portions:  # to let go of them all at once takes as long as to collect them
                portions.popleft()
                await asyncio.sleep(0)
            return
        try:
            await self.loop.run_in_executor(self._worker, _write, self.path, portions, leads, now, ahead, rest)
            self._written, self._complained = digest, False
        except OSError as error:
            if not self._complained:
                log.warning("what was learned cannot be kept over a reboot: %s: %s", self.path, error.strerror)
            self._complained = True

    async def close(self) -> None:
        """Writes a last time."""
        await self.save()
        self._worker.shutdown()


def read(path: str, wall: float, now: float, longest: float) -> State:
    """What a former process wrote, as `arrived` gives it; nothing, and a warning, where that cannot be used."""
    try:
        return arrived(read_state(Disk().read(path)), wall, now, longest)
    except FileNotFoundError:
        return State()
    except OSError as error:
        log.warning("%s cannot be read (%s): what was learned before is not known", path, error.strerror)
    except StateProblem as problem:
        try:
            aside = set_aside(path)
        except OSError as error:
            aside = f"(it stays where it is: {error.strerror})"
        log.warning("%s cannot be used: %s; set aside as %s", path, problem, aside)
    return State()


def _write(
    path: str,
    portions: deque[list[Remembered]],
    leads: Sequence[RememberedLead],
    now: float,
    ahead: float,
    rest: float,
) -> None:
    """portions: taken out one by one, see `save`."""
    disk = Disk(rest)

    def addresses() -> Iterator[Remembered]:
        while portions:
            yield from portions.popleft()

    def resting(whole: Iterable[bytes]) -> Iterator[bytes]:
        for piece in whole:
            yield piece
            disk.rest()

    keep(path, resting(pieces(addresses(), leads, now, ahead)))
