"""Where this machine is: its addresses, gateways and links, and what follows from them for the answers and for
those whom we forward for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set

from splitwgd.admission import Admission
from splitwgd.config import Config
from splitwgd.errors import SplitwgError
from splitwgd.forwarder import Forwarder
from splitwgd.listener import Listener
from splitwgd.objects import Downlink, Surroundings
from splitwgd.reconciler import Reconciler

log = logging.getLogger("splitwgd")


def admission(config: Config, taken: Set[bytes]) -> Admission:
    """What tunneled names may not lead to: what is taken already (this machine, its gateways, the endpoints), and the
    servers that it needs."""
    servers = [*config.default, *(s for _, servers in config.forward for s in servers)]
    servers += [server for tunnel in config.tunnels for server in tunnel.servers]
    networks = tuple(network for tunnel in config.tunnels for network in tunnel.networks)
    taken = taken | {server.address.packed for server in servers}
    return Admission(frozenset(config.private), frozenset(taken), networks)


class Whereabouts:
    """Looks around when the network has changed. config: the one in force."""

    def __init__(self, config: Config, forwarder: Forwarder, reconciler: Reconciler, listener: Listener) -> None:
        self.config = config
        self.forwarder = forwarder
        self.reconciler = reconciler
        self.listener = listener
        self.surroundings = Surroundings()
        self._stirred = asyncio.Event()
        self._closed: frozenset[Downlink] = frozenset()

    def admission(self, config: Config) -> Admission:
        """What tunneled names may not lead to."""
        return admission(config, self.surroundings.addresses | self.reconciler.peers.endpoint_addresses(config))

    def changed(self) -> None:
        """The network has changed, or may have."""
        self._stirred.set()

    async def keep(self) -> None:
        """Looks around for ever, when there is a reason to."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            await self.look()

    async def look(self) -> None:
        """Learns which addresses are this machine's; where they changed, nothing is believed of the servers."""
        try:
            found = await self.reconciler.surroundings()
        except SplitwgError as error:
            log.warning("the addresses of this machine cannot be read: %s", error)
            return
        moved, self.surroundings = found != self.surroundings, found
        admission = self.admission(self.config)
        forwarder = self.forwarder
        if admission != forwarder.vetting.admission:
            forwarder.vetting = forwarder.vetting.successor(forwarder.zones, admission)
            forwarder.ready.clear()
        if moved:
            forwarder.cache.forgive()
            forwarder.upstreams.refresh()
            forwarder.upstreams.look_for_loops(forwarder.zones.groups())
        await self._serve(found.downlinks)

    async def _serve(self, found: frozenset[Downlink]) -> None:
        """A door for everybody whom we forward for, and then the rules that lead him there."""
        tunnels = {tunnel.link for tunnel in self.config.tunnels}
        downlinks = frozenset(each for each in found if each.name not in tunnels)
        closed = await self.listener.admit(downlinks if self.config.redirect else frozenset())
        for each in closed.keys() - self._closed:
            log.warning("questions that come by %s are refused: %s", each.name, closed[each])
        self._closed = frozenset(closed)
        try:
            await self.reconciler.lead(downlinks - self._closed)
        except SplitwgError as error:
            log.warning("questions of others cannot be led here: %s", error)
