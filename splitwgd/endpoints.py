"""Resolves the names of WireGuard endpoints, by the default servers and never through the tunnel.

Tries until it has an answer, waiting longer each time; asks again when a tunnel has gone silent, because its
server may have moved.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from ipaddress import ip_address

from splitwgd.errors import UpstreamError
from splitwgd.forwarder import Forwarder
from splitwgd.message import AAAA, A, question_for
from splitwgd.names import parse_name
from splitwgd.objects import Endpoint, Ip
from splitwgd.peers import Peering
from splitwgd.reconciler import Reconciler
from splitwgd.reply import Reply

log = logging.getLogger("splitwgd.endpoint")
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between tries
LOOK_EVERY = 15.0  # seconds between looks at the handshakes
# REKEY_TIMEOUT and friends in the WireGuard paper, §6.1: a session that carries anything is renewed after 120 s.
SILENT_AFTER = 135.0


class Endpoints:
    """Keeps every peer that is reached by a name pointed at that name's address."""

    def __init__(self, forwarder: Forwarder, reconciler: Reconciler) -> None:
        self.forwarder = forwarder
        self.reconciler = reconciler
        self.moved: Callable[[], None] = lambda: None  # called when a peer is somewhere else from now on
        self._changed = asyncio.Event()
        self._complaints: dict[Peering, str] = {}  # what was told last; a retry is no news

    def changed(self) -> None:
        """The configuration or the network is another one: look at once."""
        self._changed.set()

    async def keep(self) -> None:
        """Resolves for ever."""
        wait = FIRST_WAIT
        while True:
            self._changed.clear()
            unresolved = False
            for peering, endpoint in (await self._due()).items():
                unresolved |= not await self._resolve(peering, endpoint)
            pause = wait if unresolved else LOOK_EVERY
            wait = min(wait * 2, LONGEST_WAIT) if unresolved else FIRST_WAIT
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _due(self) -> dict[Peering, Endpoint]:
        """The peers whose name has no address yet, or whose tunnel is silent."""
        config = self.reconciler.config
        names = {
            (tunnel.link, peer.public_key): peer.endpoint
            for tunnel in (config.tunnels if config else ())
            for peer in tunnel.wireguard.peers
            if peer.endpoint is not None and not peer.endpoint.is_literal
        }
        if not names:
            return {}
        fresh = {
            (link, state.public_key)
            for link, states in (await self.reconciler.states()).items()
            for state in states
            if state.handshake > time.time() - SILENT_AFTER
        }
        return {p: e for p, e in names.items() if p not in self.reconciler.peers.endpoints or p not in fresh}

    async def _resolve(self, peering: Peering, endpoint: Endpoint) -> bool:
        address, trouble = None, "no address"
        for qtype in (A, AAAA):
            outcome = await self._ask(endpoint.host, qtype)
            if isinstance(outcome, UpstreamError):
                trouble = str(outcome)
            elif outcome:
                address = outcome[0]
                break
        if address is None:
            if self._complaints.get(peering) != trouble:
                log.warning("the endpoint %s cannot be resolved yet: %s", endpoint.host, trouble)
            self._complaints[peering] = trouble
            return False
        self._complaints.pop(peering, None)
        target = Endpoint(str(address), endpoint.port)
        if self.reconciler.peers.endpoints.get(peering) != target:
            log.info("the endpoint %s is at %s", endpoint.host, target)
            await self.reconciler.aim(peering, target)
            self.moved()
        return True

    async def _ask(self, host: str, qtype: int) -> tuple[Ip, ...] | UpstreamError:
        answered: asyncio.Future[Reply | UpstreamError] = asyncio.get_running_loop().create_future()

        def done(outcome: Reply | UpstreamError) -> None:
            if not answered.done():
                answered.set_result(outcome)

        query = question_for(parse_name(host), qtype)
        self.forwarder.upstreams.ask(query, self.forwarder.zones.default, done)
        outcome = await answered
        if isinstance(outcome, UpstreamError):
            return outcome
        return tuple(ip_address(address) for address in outcome.addresses)
