"""Keeps the kernel as planned: observe, compare, grow, shrink, verify. One verb for start, reload and repair.

Runs the blocking hands on a worker thread of its own and is woken by netlink events; what somebody else
takes away comes back. Who keeps taking it away is waited for longer each time, and named in one warning.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address

from splitwgd.config import Config
from splitwgd.diff import Diff, compare, is_closed, is_closing
from splitwgd.errors import KernelError, SplitwgError
from splitwgd.events import Events, Heard
from splitwgd.kernel import Kernel, Observed
from splitwgd.learned import Ledger, Place
from splitwgd.objects import Device, Downlink, Endpoint, PeerState, Surroundings, Table
from splitwgd.owner import Owner
from splitwgd.peers import Peering, Peers
from splitwgd.plan import Plan, make_plan
from splitwgd.ruleset import TABLE
from splitwgd.worker import Worker

log = logging.getLogger("splitwgd.kernel")

SETTLE = 0.01  # seconds after an event before looking, so that a burst is one repair
ROUNDS = 3  # of observe and apply, for what changes meanwhile
FIRST_WAIT, LONGEST_WAIT = 0.05, 30.0  # between repairs while somebody fights or something is missing
LONGEST_CLOSED = 0.5  # ... before an event is heeded while the tunnel cannot be opened


class Reconciler:
    """The kernel's keeper. Its verbs are awaited on the loop, one at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: Ledger) -> None:
        self.loop = loop
        self.ledger = ledger
        self.owner = Owner(TABLE)
        self.config: Config | None = None
        self.down: frozenset[str] = frozenset()
        self.downlinks: frozenset[Downlink] = frozenset()
        self.plan = Plan.empty()
        self._before = Plan.empty()  # what has to stay beside the plan, between growing and shrinking
        self._broken: Mapping[str, str] = {}  # links that cannot be used, and why
        self._shut: frozenset[str] = frozenset()  # links that could not be opened
        self._led = False  # whether questions are redirected
        self.trouble = ""  # why the tunnel is not as wanted, for status; empty when it is
        self.repairs = 0
        self._worker = Worker(loop, self.owner)
        self._run = self._worker.run
        self.peers = Peers(self._worker)
        self._lock = asyncio.Lock()
        self._stirred = asyncio.Event()
        self.heard: Callable[[], None] = lambda: None  # called when the network has changed
        self._events: Events | None = None
        self._look_at_elements = False

    # -- verbs

    async def start(self, config: Config, all_lost: Callable[[], None] = lambda: None) -> None:
        """Takes over what a former process left, and makes the kernel as planned.

        all_lost: called where there is no table of ours; what the ledger then has goes into the new one.
        Raises KernelError or MachineError if it cannot even be closed; a tunnel that cannot be opened is
        tried again by `keep`.
        """
        await self._run(Kernel.take_over)
        observed = await self._run(Kernel.observe, config, elements=True)
        self.ledger.restore(observed.elements, self.loop.time())
        match observed.plan.objects.get(("table", "inet", TABLE)):
            case Table(chains=chains):
                self._led = any(chain.name == "output_nat" and chain.rules for chain in chains)
            case _:
                all_lost()
        await self._apply(config)

    async def grow_to(self, config: Config) -> None:
        """Old and new at once: nothing that either wants is missing. Raises on failure; the old goes on."""
        self._before = self.plan
        try:
            await self._apply(config)
        except SplitwgError:
            self._before = Plan.empty()
            raise

    async def shrink_to(self, config: Config) -> None:
        """Only what this configuration wants is left."""
        self._before = Plan.empty()
        await self._apply(config)

    async def end_flows(self, addresses: list[bytes], config: Config) -> None:
        """Ends what was tunneled to addresses that are tunneled no longer."""
        gone = [ip_address(address) for address in addresses]
        for tunnel in config.tunnels if gone else ():
            await self._run(Kernel.end_flows, gone, tunnel.mark, config.routing)

    async def take_down(self, links: frozenset[str]) -> None:
        """These links away (or back, when the set is empty); everything else stays closed."""
        self.down = links
        self.peers.forget()
        if self.config is not None:
            await self.shrink_to(self.config)

    async def lead(self, downlinks: frozenset[Downlink]) -> None:
        """Who sends his questions by these links is led to a door there."""
        if downlinks != self.downlinks:
            self.downlinks = downlinks
            await self._apply(None)

    async def teardown(self) -> None:
        """Nothing of ours is left."""
        config, self.config = self.config, None
        async with self._lock:
            observed = await self._run(Kernel.observe, config)
            diff = compare(Plan.empty(), observed.plan)
            await self._run(Kernel.shrink, diff)
            self.plan = Plan.empty()

    async def states(self) -> dict[str, list[PeerState]]:
        """How the peers are doing, by link."""
        found: dict[str, list[PeerState]] = {}
        for tunnel in self.config.tunnels if self.config else ():
            try:
                found[tunnel.link] = await self._run(Kernel.states, tunnel.link)
            except KernelError:
                found[tunnel.link] = []
        return found

    async def surroundings(self) -> Surroundings:
        """This machine's addresses, gateways and links."""
        return await self._run(Kernel.surroundings)

    async def difference(self) -> tuple[Observed, Diff]:
        """What the kernel holds, and what it lacks of the plan."""
        config = self.config
        observed = await self._run(Kernel.observe, config)
        return observed, compare(self.plan, observed.plan)

    async def aim(self, peering: Peering, endpoint: Endpoint) -> None:
        """A peer's name has been resolved to this. If it was its tunnel's first, the tunnel is no longer refused."""
        self.peers.endpoints[peering] = endpoint
        try:
            await self._apply(None)
        except SplitwgError as error:
            self._say(str(error))  # which `keep` tries again
            self._stirred.set()

    # -- one reconciliation

    async def _apply(self, config: Config | None) -> None:
        """Makes the kernel hold what `config` (None: the one in force) wants, and what has to stay beside it."""
        async with self._lock:
            if (config := config or self.config) is None:  # only here: a reload may have had the lock
                return
            await self._make_so(config, await self._make_plan(config))

    async def _make_so(self, config: Config, plan: Plan, just_seen: Observed | None = None) -> None:
        """The lock is the caller's. just_seen: what the kernel holds, if somebody has just looked."""
        try:
            await self._grow_and_shrink(config, plan, just_seen)
            self._say("; ".join(self._broken.values()))
            shut = frozenset[str]()
        except SplitwgError as error:
            # Closed, it can be used: what opens it is tried again by `keep`.
            observed = await self._run(Kernel.observe, config)
            if not is_closed(plan, observed.plan):
                raise
            self._say(str(error))
            shut = plan.links() - observed.plan.links()
        if shut != self._shut:
            self._shut = shut
            plan = await self._make_plan(config)
            await self._close(config, plan)
        self.plan, self.config = plan, config
        await self.peers.aim(config, plan)
        await self._lead_old_questions(config.redirect)

    async def _lead_old_questions(self, redirect: bool) -> None:
        """Once, when the redirect is there: what began before it is refused, until its entry is gone."""
        if redirect and not self._led:
            try:
                await self._run(Kernel.forget_questions)
            except SplitwgError as error:
                log.warning("DNS flows from before are refused until they pause: %s", error)
        self._led = redirect

    async def _close(self, config: Config, plan: Plan) -> None:
        """Makes of the plan what closes."""
        observed = await self._run(Kernel.observe, config)
        closing = (put for put in compare(plan, observed.plan).grow if is_closing(put.wanted))
        await self._run(Kernel.grow, Diff(tuple(closing), ()), self.ledger.elements(self.loop.time()))

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("the tunnel stays closed: %s", trouble)
        self.trouble = trouble

    async def _make_plan(self, config: Config) -> Plan:
        facts = await self._run(Kernel.facts, config, self.down)
        nowhere = self.peers.nowhere(config) - facts.adopted.keys()
        facts = replace(facts, shut=self._shut | nowhere, downlinks=self.downlinks)
        self._broken = facts.broken
        objects = make_plan(config, facts).objects.values()
        return self._before | Plan.of(self.peers.resolved(o) if isinstance(o, Device) else o for o in objects)

    async def _grow_and_shrink(self, config: Config, plan: Plan, just_seen: Observed | None) -> None:
        for _ in range(ROUNDS):
            if just_seen is None:
                just_seen = await self._run(Kernel.observe, config)
            diff = compare(plan, just_seen.plan)
            if not diff:
                return
            log.debug("changes:\n%s", diff)
            remake = any(isinstance(put.wanted, Table) for put in diff.grow)
            await self._run(Kernel.grow, diff, self.ledger.elements(self.loop.time()) if remake else [])
            await self._run(Kernel.shrink, diff)
            just_seen = None
        observed = await self._run(Kernel.observe, config)
        if diff := compare(plan, observed.plan):
            raise KernelError(f"the kernel does not keep what it was told:\n{diff}")

    # -- repair

    def listen(self, unheard: int) -> None:
        """From now on netlink events wake `keep`; not those of the socket with this netlink port."""
        self._events = Events(TABLE, unheard)
        for sock in self._events.sockets:
            self.loop.add_reader(sock.fileno(), self._hear, sock)

    def _hear(self, sock: socket.socket) -> None:
        if self._events is not None and (heard := self._events.drain(sock)):
            self._look_at_elements = self._look_at_elements or heard is Heard.ELEMENTS
            self._stirred.set()

    async def keep(self) -> None:
        """Repairs for ever."""
        wait = FIRST_WAIT
        while True:
            await self._wait_for_a_stir(wait if self.trouble else None)
            try:
                changed = await self._repair()
            except SplitwgError as error:
                if str(error) != self.trouble:
                    log.error("repair failed: %s", error)
                self.trouble, changed = str(error), True
            if changed or self.trouble:
                # Who fights has to wait; a tunnel that can be opened again, not for long.
                await asyncio.sleep(min(wait - FIRST_WAIT, LONGEST_CLOSED if self.trouble else LONGEST_WAIT))
                wait = min(wait * 2, LONGEST_WAIT)
            else:
                wait = FIRST_WAIT

    async def _wait_for_a_stir(self, at_most: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                await self._stirred.wait()
            self._tell_of_a_stir()
        await asyncio.sleep(SETTLE)
        if self._stirred.is_set():  # whoever was told a moment ago may have looked before this
            self._tell_of_a_stir()

    def _tell_of_a_stir(self) -> None:
        self._stirred.clear()
        self.heard()

    async def _repair(self) -> bool:
        """Whether anything had to be put right."""
        async with self._lock:
            if (config := self.config) is None:
                return False
            # Before looking: what is acknowledged by now must be there then.
            look, self._look_at_elements = self._look_at_elements, False
            before = self.ledger.places() if look else set()
            observed = await self._run(Kernel.observe, config, elements=look)
            plan = await self._make_plan(config)
            lost = compare(plan, observed.plan)
            missing = await self._put_back(before, observed)
            if lost:
                if not self.trouble:
                    log.warning("putting right what something else changed:\n%s", lost)
                self.peers.forget()
                await self._make_so(config, plan, observed)
            else:
                self._say("; ".join(self._broken.values()))
            await self.peers.follow(config, self.plan)
        if missing:
            log.warning("putting back %d addresses that something else took out of their sets", missing)
        self.repairs += bool(missing) + bool(lost)
        return bool(lost)

    async def _put_back(self, before: set[Place], observed: Observed) -> int:
        """Learned addresses that should be in their sets and are not; of a set that is gone, _apply sees to it."""
        there = {(element.set, element.address) for element in observed.elements}
        tables = (obj for obj in observed.plan.objects.values() if isinstance(obj, Table))
        sets = {set_.name for table in tables for set_ in table.sets}
        lost = {place for place in before - there if place[0] in sets}
        missing = self.ledger.elements(self.loop.time(), lost)
        if missing:
            await self._run(Kernel.insert, missing)
        return len(missing)

    async def close(self) -> None:
        """Lets go of the hands; the kernel stays as it is."""
        if self._events is not None:
            for sock in self._events.sockets:
                self.loop.remove_reader(sock.fileno())
            self._events.close()
        await self._worker.close()
