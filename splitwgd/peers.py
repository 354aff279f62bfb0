"""Where the peers are reached: by the address in the configuration, or by the one that its name has led to."""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import ip_address

from splitwgd.config import Config, Tunnel
from splitwgd.errors import KernelError
from splitwgd.kernel import Kernel
from splitwgd.objects import Device, Endpoint, Surroundings
from splitwgd.plan import Plan
from splitwgd.worker import Worker

log = logging.getLogger("splitwgd.kernel")
Peering = tuple[str, bytes]  # a link and a peer's public key


class Peers:
    """Points the peers of our links at their endpoints. endpoints: names that have been resolved."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.endpoints: dict[Peering, Endpoint] = {}
        self._aimed: dict[Peering, Endpoint] = {}
        self._here = Surroundings()

    def endpoint_addresses(self, config: Config) -> set[bytes]:
        """Where they are reached, as far as that is known; in network order."""
        found = set()
        for tunnel in config.tunnels:
            for peer in tunnel.wireguard.peers:
                target = self._target(tunnel.link, peer.public_key, peer.endpoint)
                if target is not None:
                    found.add(ip_address(target.host).packed)
        return found

    def nowhere(self, config: Config) -> set[str]:
        """Links all of whose peers are reached by names that nobody knows yet: nothing can leave by them."""
        return {tunnel.link for tunnel in config.tunnels if self._leads_nowhere(tunnel)}

    def _leads_nowhere(self, tunnel: Tunnel) -> bool:
        peers = tunnel.wireguard.peers
        return bool(peers) and all(
            peer.endpoint and not self._target(tunnel.link, peer.public_key, peer.endpoint) for peer in peers
        )

    def resolved(self, device: Device) -> Device:
        """The device with addresses in the place of names; a name that nobody knows yet is left out."""
        return replace(
            device,
            peers=frozenset(
                replace(peer, endpoint=self._target(device.link, peer.public_key, peer.endpoint))
                for peer in device.peers
            ),
        )

    def _target(self, link: str, public_key: bytes, endpoint: Endpoint | None) -> Endpoint | None:
        if endpoint is None or endpoint.is_literal:
            return endpoint
        return self.endpoints.get((link, public_key))

    def forget(self) -> None:
        """Their links may be new ones, so that all of them have to be aimed again."""
        self._aimed = {}

    async def aim(self, config: Config, plan: Plan) -> None:
        """Points peers at endpoints that are new; one that roamed by itself is left where it is."""
        for tunnel in config.tunnels:
            if ("device", tunnel.link) not in plan.objects:
                continue
            for peer in tunnel.wireguard.peers:
                peering = (tunnel.link, peer.public_key)
                target = self._target(*peering, peer.endpoint)
                if target is None or self._aimed.get(peering) == target:
                    continue
                try:
                    await self.worker.run(Kernel.aim, *peering, target)
                    self._aimed[peering] = target
                except KernelError as error:
                    log.warning("%s", error)

    async def follow(self, config: Config, plan: Plan) -> None:
        """Where this machine has moved: the endpoints are set to what they are.

        wireguard-go sends from the address that it was last reached at, and from one that is gone nothing leaves;
        an endpoint that is set has no such address yet.
        """
        before, self._here = self._here, await self.worker.run(Kernel.surroundings)
        links = () if self._here == before else (tunnel.link for tunnel in config.tunnels)
        for link in (link for link in links if ("device", link) in plan.objects):
            try:
                for state in await self.worker.run(Kernel.states, link):
                    if state.endpoint is not None:
                        await self.worker.run(Kernel.aim, link, state.public_key, state.endpoint)
            except KernelError as error:  # its process has died, which is put right next
                log.debug("%s", error)
