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
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from splitwgd import __version__
from splitwgd.cache import Cache
from splitwgd.config import DEFAULT_PATH, Config, load_config
from splitwgd.control import Control
from splitwgd.endpoints import Endpoints
from splitwgd.errors import ConfigError, SplitwgError
from splitwgd.forwarder import Forwarder
from splitwgd.learned import Ledger
from splitwgd.listener import Listener
from splitwgd.nft import Nft
from splitwgd.notify import Notify
from splitwgd.reconciler import Reconciler
from splitwgd.status import make_status, status_line
from splitwgd.store import Disk
from splitwgd.upstream import Upstreams
from splitwgd.watcher import Watcher
from splitwgd.zones import Zones

log = logging.getLogger("splitwgd")
# An element outlives its answer by this, in seconds: applications keep an address for longer than its TTL.
SLACK = 3600
TELL_EVERY = 15.0  # seconds between status lines to systemd


class Daemon:
    """One run of splitwgd."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.loop = loop = asyncio.get_running_loop()
        self.notify = Notify()
        self.ledger = Ledger(config.routing.min_lifetime, SLACK)
        self.reconciler = Reconciler(loop, self.ledger)
        self.listener = Listener(loop)
        self.forwarder = Forwarder(loop, Zones(config), self.ledger, Cache(config.cache_size), Upstreams(loop), Nft())
        self.endpoints = Endpoints(self.forwarder, self.reconciler)
        self.reconciler.heard = self.endpoints.changed
        self.control = Control(self._command)
        self.watcher = Watcher(loop, lambda: self._begin_reload(forced=False))
        self.stopped = asyncio.Event()
        self.teardown = False
        self._changing = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        self._complaint = ""

    async def run(self) -> None:
        """Until somebody says stop."""
        self.listener.bind(self.config.listen)
        self._tell_notes(self.config.notes)
        await self.reconciler.start(self.config)
        await self.reconciler.forget_flows(self.forwarder.release(), self.config)
        self.reconciler.listen()
        await self.listener.start(self.forwarder.take)
        await self.control.serve()
        self.watcher.watch(self.config.files)
        for number, act in ((signal.SIGTERM, self.stopped.set), (signal.SIGINT, self.stopped.set)):
            self.loop.add_signal_handler(number, act)
        self.loop.add_signal_handler(signal.SIGHUP, lambda: self._begin_reload(forced=True))
        self.notify.ready(await self._line())
        log.info("ready: %s", await self._line())
        try:
            async with asyncio.TaskGroup() as tasks:
                keepers = [self.reconciler.keep(), self.endpoints.keep(), self._keep_telling(), self._keep_alive()]
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
        if self.teardown or self.config.routing.on_stop == "open":
            await self.reconciler.teardown()
        self.listener.close()
        self.forwarder.upstreams.close()
        await self.reconciler.close()
        log.info("stopped; the kernel is %s", "as it was" if self.reconciler.config is None else "closed")

    # -- reload

    def _begin_reload(self, forced: bool) -> None:
        task = self.loop.create_task(self._try_reload(forced))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

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
                config = await self.loop.run_in_executor(None, load_config, self.config.path, Disk())
                if config != self.config:
                    await self._change_to(config)
            finally:
                # A symlink may lead elsewhere now, whatever stands there.
                self.watcher.watch(self.config.files)
                self.notify.ready(await self._line())

    async def _change_to(self, config: Config) -> None:
        zones = await self.loop.run_in_executor(None, Zones, config)
        try:
            self.listener.bind(config.listen)
            await self.reconciler.grow_to(config)
            self.forwarder.admit(zones)
        except SplitwgError:
            self.listener.keep_only(self.config.listen)
            await self.reconciler.shrink_to(self.config)
            raise
        # The swap: from this line on questions are answered by the new configuration. Nothing is awaited
        # between the admission and it, so no answer of the old one can slip between them.
        self.forwarder.swap(zones)
        self.forwarder.cache.resize(config.cache_size)
        self.ledger.min_lifetime = config.routing.min_lifetime
        self._tell_notes(note for note in config.notes if note not in self.config.notes)
        self.config = config
        await self.listener.start(self.forwarder.take)
        self.listener.keep_only(config.listen)
        await self.reconciler.shrink_to(config)
        await self.reconciler.forget_flows(self.forwarder.release(), config)
        self.endpoints.changed()
        log.info("reloaded: %s", await self._line())

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
            case "reload":
                await self.reload()
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
        status = make_status(
            self.config, self.reconciler.plan, observed, lacking, states, self.reconciler.down, time.time()
        )
        counts = asdict(self.forwarder.counts) | {"cached": len(self.forwarder.cache)}
        own = {"version": __version__, "pid": os.getpid(), "repairs": self.reconciler.repairs}
        return status | own | {"trouble": self.reconciler.trouble, "questions": counts}

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

    async def _keep_alive(self) -> None:
        interval = self.notify.keep_alive_every()
        while interval:
            self.notify.alive()
            await asyncio.sleep(interval)


def main() -> None:
    """The entry point `splitwgd`. Exit status: 0 stopped, 1 the machine, 2 the configuration."""
    parser = argparse.ArgumentParser(
        prog="splitwgd", description="Sends chosen domains through WireGuard, and nothing of them any other way."
    )
    parser.add_argument("--config", default=DEFAULT_PATH, metavar="PATH", help=f"default: {DEFAULT_PATH}")
    parser.add_argument("--check", action="store_true", help="read the configuration, say what is wrong, and end")
    parser.add_argument("--verbose", action="store_true", help="log every change of the kernel and every failure")
    parser.add_argument("--version", action="version", version=f"splitwgd {__version__}")
    options = parser.parse_args()
    _log_to_stderr(logging.DEBUG if options.verbose else logging.INFO)
    try:
        config = load_config(os.path.abspath(options.config), Disk())
        if options.check:
            print(f"{config.path} is in order: {sum(len(t.patterns) for t in config.tunnels)} domains")
            for note in config.notes:
                print(note)
            return
        asyncio.run(_run(config))
    except SplitwgError as error:
        for line in str(error).splitlines():
            log.critical("%s", line)
        if isinstance(error, ConfigError):
            log.critical("splitwgd does not start with this configuration (%d to mend)", len(error.problems))
        sys.exit(error.exit_status)


async def _run(config: Config) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each question under way has a socket
    await Daemon(config).run()


class _Format(logging.Formatter):
    """Lines for the journal: it knows the time, and takes the level from <N> (sd-daemon(3))."""

    _LEVELS = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

    def format(self, record: logging.LogRecord) -> str:
        head = f"<{self._LEVELS.get(record.levelno, 6)}>"
        return "\n".join(f"{head}{line}" for line in super().format(record).splitlines())


def _log_to_stderr(level: int) -> None:
    handler = logging.StreamHandler()
    if "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(_Format("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log.setLevel(level)  # ours alone: pyroute2 and asyncio tell every message at DEBUG
