"""splitwgd: puts the rooms together, and says in which order things start, change and stop.

Start: read, listen, close the kernel, open the tunnel, answer. Reload: grow, swap, shrink. Stop: leave it
closed. What happens on an error in each of these stands in docs/errors.md.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Coroutine, Iterable
from dataclasses import asdict
from typing import Any

from splitwgd import __version__
from splitwgd.cache import Cache
from splitwgd.config import DEFAULT_PATH, Config, load_config
from splitwgd.control import Control
from splitwgd.elements import Elements
from splitwgd.endpoints import Endpoints
from splitwgd.errors import ConfigError, SplitwgError
from splitwgd.forwarder import Forwarder
from splitwgd.garbage import Garbage
from splitwgd.gate import Gate
from splitwgd.guard import guard
from splitwgd.journal import log_to_stderr
from splitwgd.learned import SLACK, SPARE, Ledger
from splitwgd.listener import DNS_PORT, Listener
from splitwgd.local import Local, local_patterns
from splitwgd.memory import Memory
from splitwgd.notify import Notify
from splitwgd.ports import Ports
from splitwgd.provenance import Provenance
from splitwgd.pulse import Pulse
from splitwgd.reconciler import Reconciler
from splitwgd.shelf import Shelf
from splitwgd.status import make_status, status_line, traffic_of
from splitwgd.store import Disk
from splitwgd.tracing import traced
from splitwgd.turn import Turn
from splitwgd.upstream import Upstreams
from splitwgd.vetting import Vetting
from splitwgd.watcher import Watcher
from splitwgd.whereabouts import Whereabouts, admission
from splitwgd.witness import Witness
from splitwgd.zones import Zones

log = logging.getLogger("splitwgd")
GRACE = 2.0  # seconds for which an address stays at least, however full the set and however short its TTL
TELL_EVERY = 15.0  # seconds between status lines to systemd
LAST_ANSWERS = 1.0  # seconds for those who have asked before we were stopped
TORN_DOWN = 3  # the exit status; the unit's daemon is not started again then
REST = 0.001  # seconds for questions between the steps of reading long lists again


class Daemon:
    """One run of splitwgd."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.disk = Disk(REST)
        self.loop = loop = asyncio.get_running_loop()
        self.notify = Notify()
        self.ledger = Ledger(config.routing.min_lifetime, SLACK, SPARE, GRACE)
        self.reconciler = Reconciler(loop, self.ledger)
        self.turn = Turn(loop)
        self.forwarder = self._make_forwarder(config)
        self.memory = Memory(loop, self.forwarder)
        self._adjust(config)
        self.listener = Listener(self.turn, self.forwarder.ready, Shelf())
        self.witness = Witness(loop, self.listener, self.forwarder)
        self.pulse = Pulse(self.notify, self.listener.addresses, DNS_PORT, self.reconciler.difference)
        self.garbage = Garbage(loop, lambda: self.forwarder.counts.asked)
        self.endpoints = Endpoints(self.forwarder, self.reconciler)
        self.whereabouts = Whereabouts(config, self.forwarder, self.reconciler, self.listener)
        self.endpoints.moved = self._network_changed  # its address is now one that nobody else's site has
        self.reconciler.heard = self._network_changed
        self.control = Control(self._command)
        self.watcher = Watcher(loop, lambda: self._begin_reload(forced=False))
        self.stopped = asyncio.Event()
        self.teardown = False
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._complaint = ""

    def _make_forwarder(self, config: Config) -> Forwarder:
        zones, local = _names_of(config)
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        ports = Ports(self.turn, min(1024, descriptors // 8))
        upstreams = Upstreams(self.loop, ports=ports, limit=min(8192, descriptors // 2))
        gate = Gate(self.turn, self.ledger, Elements(self.reconciler.owner))
        vetting = Vetting(zones, admission(config, self.reconciler.peers.endpoint_addresses(config)), log.warning)
        return Forwarder(self.loop, zones, local, Cache(config.cache_size), upstreams, gate, vetting)

    def _adjust(self, config: Config) -> None:
        """Everything that is a number or a switch."""
        self.forwarder.cache.resize(config.cache_size, config.cache_bytes, config.stale)
        self.forwarder.upstreams.ttl_bounds = (config.min_ttl, config.max_ttl)
        self.forwarder.upstreams.mix_case = config.mix_case
        self.ledger.min_lifetime = config.routing.min_lifetime

    async def run(self) -> None:
        """Until somebody says stop."""
        self.listener.bind(self.config.listen)
        self._tell_notes(self.config.notes)
        await self.memory.read(self.config.max_ttl)
        await self.reconciler.start(self.config, self.memory.all_lost)
        await self.reconciler.end_flows(self.forwarder.release(), self.config)
        self.reconciler.listen(self.reconciler.owner.port)
        await self.whereabouts.look()
        self.listener.shelf.clear()
        await self.memory.recall()
        await self.listener.start(self.forwarder.take)
        await self.control.serve()
        self.watcher.watch(self.config.files)
        self._begin_reload(forced=False)  # what was written between the reading and the watching
        for number, act in ((signal.SIGTERM, self.stopped.set), (signal.SIGINT, self.stopped.set)):
            self.loop.add_signal_handler(number, act)
        self.loop.add_signal_handler(signal.SIGHUP, lambda: self._begin_reload(forced=True))
        self.garbage.start()
        self.notify.ready(await self._line())
        log.info("ready: %s", await self._line())
        try:
            async with asyncio.TaskGroup() as tasks:
                keepers = [self.reconciler.keep(), self.endpoints.keep(), self.memory.keep()]
                keepers += [self.whereabouts.keep(), self._keep_telling(), self.pulse.keep()]
                running = [tasks.create_task(keeper) for keeper in keepers]
                await self.stopped.wait()
                for task in running:
                    task.cancel()
        finally:
            await self._stop()

    async def _stop(self) -> None:
        """The kernel stays closed: rules, sets and blackhole are left for the next start."""
        self.notify.stopping()
        self.watcher.close()
        self.control.close()
        if self.teardown:
            await self.reconciler.teardown()
        self.listener.pause()
        await self._give_last_answers()
        self.listener.close()
        self.garbage.close()
        self.forwarder.upstreams.close()
        await self.reconciler.close()
        await self.memory.close()
        log.info("stopped; the kernel is %s", "as it was" if self.reconciler.config is None else "closed")

    async def _give_last_answers(self) -> None:
        """Who asks from now on is answered by the next process, if it gets our sockets."""
        deadline = self.loop.time() + LAST_ANSWERS
        while self.forwarder.waiting.anybody() and self.loop.time() < deadline:
            await asyncio.sleep(0.01)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _network_changed(self) -> None:
        self.endpoints.changed()
        self.whereabouts.changed()

    # -- reload

    def _begin_reload(self, forced: bool) -> None:
        self._begin(self._try_reload(forced))

    async def _try_reload(self, forced: bool) -> None:
        try:
            await self.reload()
            self._complaint = ""
        except SplitwgError as error:
            # Each write of an editor may bring us here; one complaint about one mistake is enough.
            if forced or str(error) != self._complaint:
                log.error("%s", error)
                log.error("the configuration has not been changed: the old one goes on")
            self._complaint = str(error)

    async def reload(self) -> None:
        """Reads the files again and changes what is different. Raises SplitwgError, and then nothing changed."""
        async with self._changing:
            self.notify.reloading()
            try:
                config = await self.loop.run_in_executor(None, load_config, self.config.path, self.disk, self.config)
                if config != self.config:
                    await self._change_to(config)
            finally:
                # A symlink may lead elsewhere now, whatever stands there.
                self.watcher.watch(self.config.files)
                self.notify.ready(await self._line())

    async def _change_to(self, config: Config) -> None:
        zones, local = await self.loop.run_in_executor(None, _names_of, config)
        try:
            self.listener.bind(config.listen)
            await self.reconciler.grow_to(config)
            vetting = self.forwarder.vetting.successor(zones, self.whereabouts.admission(config))
            self.forwarder.admit(vetting)
        except SplitwgError:
            self.listener.keep_only(self.config.listen)
            await self.reconciler.shrink_to(self.config)
            raise
        # The swap: from this line on questions are answered by the new configuration. Nothing is awaited
        # between the admission and it, so no answer of the old one can slip between them.
        self.forwarder.swap(zones, local, vetting)
        self._adjust(config)
        self._tell_notes(note for note in config.notes if note not in self.config.notes)
        before, self.config, self.whereabouts.config = self.config, config, config
        await self.listener.start(self.forwarder.take)
        self.listener.keep_only(config.listen)
        await self.reconciler.shrink_to(config)
        await self.reconciler.end_flows(self.forwarder.release(), config)
        self.forwarder.upstreams.look_for_loops(zones.groups())
        self._network_changed()
        log.info("reloaded: %s", await self._line())
        for table in {tunnel.listed for tunnel in before.tunnels} - {tunnel.listed for tunnel in config.tunnels}:
            await self.loop.run_in_executor(None, table.clear)

    @staticmethod
    def _tell_notes(notes: Iterable[str]) -> None:
        for note in notes:
            log.warning("%s", note)

    # -- what is told

    async def _command(self, request: dict[str, Any]) -> dict[str, Any]:
        """A request of the control socket."""
        match request["do"]:
            case "status":
                return await self.status()
            case "why":
                forwarder, now = self.forwarder, self.loop.time()
                found = Provenance(forwarder.vetting, self.ledger, forwarder.cache, now).of(request.get("of"))
                return await self.loop.run_in_executor(None, traced, found, self.config)
            case "watch":
                traffic = traffic_of(await self.reconciler.states())
                return self.witness.report() | {"addresses": self.ledger.sizes(), "traffic": traffic}
            case "reload":
                files = request.get("files")
                for path, text in files.items() if isinstance(files, dict) else ():
                    self.disk.handed[path] = str(text).encode()
                await self.reload()
            case "flush":
                forgotten = len(self.forwarder.cache)
                self.forwarder.cache.clear()
                self.forwarder.ready.clear()
                return {"forgotten": forgotten}
            case "down":
                async with self._changing:
                    await self.reconciler.take_down(frozenset(t.link for t in self.config.tunnels))
            case "up":
                async with self._changing:
                    await self.reconciler.take_down(frozenset())
            case "teardown":
                self.teardown = True
                self.stopped.set()
                return {"pid": os.getpid()}
            case unknown:
                return {"error": f"there is no {unknown!r}"}
        return {"trouble": self.reconciler.trouble}

    async def status(self) -> dict[str, Any]:
        """All that `splitwg status` shows."""
        observed, lacking = await self.reconciler.difference()
        states = await self.reconciler.states()
        down, addresses = self.reconciler.down, self.ledger.sizes()
        status = make_status(self.config, self.reconciler.plan, observed, lacking, states, down, addresses, time.time())
        forwarder = self.forwarder
        counts = asdict(forwarder.counts) | {
            "cached": len(forwarder.cache),
            "cached_bytes": forwarder.cache.used,
            "left_out": forwarder.vetting.left_out,
            "evicted": forwarder.gate.evicted,
            "discarded": forwarder.upstreams.discarded,
        }
        for what in ("asked", "from_cache"):
            counts[what] += self.listener.given  # those never reach the forwarder
        own = {"version": __version__, "pid": os.getpid(), "repairs": self.reconciler.repairs}
        own |= {"on_stop": self.config.routing.on_stop}
        if self.reconciler.trouble:
            own |= {"because": self.reconciler.trouble}
        own |= {"trouble": self.reconciler.trouble, "questions": counts, "servers": forwarder.upstreams.state()}
        return status | own

    async def _line(self) -> str:
        try:
            return status_line(await self.status())
        except SplitwgError as error:
            return str(error)

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY)
            self.ledger.expire(self.loop.time())
            self.notify.status(await self._line())


def _names_of(config: Config) -> tuple[Zones, Local]:
    """The tables of names; long work for long lists."""
    return Zones(config, local_patterns(config)), Local(config)


def main() -> None:
    """The entry point `splitwgd`. Exit status: 0 stopped, 1 the machine, 2 the configuration, 3 torn down."""
    parser = argparse.ArgumentParser(
        prog="splitwgd", description="Sends chosen domains through WireGuard, and nothing of them any other way."
    )
    parser.add_argument("--config", default=DEFAULT_PATH, metavar="PATH", help=f"default: {DEFAULT_PATH}")
    parser.add_argument("--check", action="store_true", help="read the configuration, say what is wrong, and end")
    parser.add_argument("--guard", action="store_true", help="close the machine, as at boot, and end")
    parser.add_argument("--verbose", action="store_true", help="log every change of the kernel and every failure")
    parser.add_argument("--version", action="version", version=f"splitwgd {__version__}")
    options = parser.parse_args()
    log_to_stderr(logging.DEBUG if options.verbose else logging.INFO)
    try:
        config = load_config(os.path.abspath(options.config), Disk())
        if options.check:
            domains = sum(len(tunnel.patterns) + len(tunnel.listed) for tunnel in config.tunnels)
            print(f"{config.path} is in order: {domains} domains", *config.notes, sep="\n")
            return
        if options.guard:
            guard(config)
        else:
            sys.exit(TORN_DOWN if asyncio.run(_run(config)) else 0)
    except SplitwgError as error:
        for line in str(error).splitlines():
            log.critical("%s", line)
        if isinstance(error, ConfigError):
            what = "nothing is closed" if options.guard else "splitwgd does not start"
            log.critical("%s with this configuration (%d to mend)", what, len(error.problems))
        sys.exit(error.exit_status)


async def _run(config: Config) -> bool:
    """Whether it ended because it was torn down."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each question under way has a socket
    # A worker thread that computes holds the interpreter for so long at a time, and every question waits.
    sys.setswitchinterval(0.0005)
    daemon = Daemon(config)
    await daemon.run()
    return daemon.teardown
