"""The peers: where they are reached, and when they are told so. The kernel here only remembers what it was told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

from splitwgd.config import Config
from splitwgd.errors import KernelError
from splitwgd.kernel import Kernel
from splitwgd.objects import Device, Endpoint, PeerState, Surroundings
from splitwgd.peers import Peers
from splitwgd.plan import Facts, Plan, make_plan
from splitwgd.worker import Worker
from tests.worlds import WG, ip, make_config

LITERAL = make_config()
NAMED = make_config(wg=WG.replace("198.51.100.130:51820", "vpn.example.net:51820"))
KEY = LITERAL.tunnels[0].wireguard.peers[0].public_key
RESOLVED = Endpoint("192.0.2.9", 51820)


class Told:
    """A worker whose kernel is this: what it has been told to aim at, and what it says of itself."""

    def __init__(self) -> None:
        self.aimed: list[Endpoint] = []
        self.refuses = False
        self.here = Surroundings()
        self.states: list[PeerState] = []

    async def run(self, step: Any, *arguments: Any) -> Any:
        if step is Kernel.aim:
            if self.refuses:
                raise KernelError("gone")
            self.aimed.append(arguments[-1])
        return {Kernel.surroundings: self.here, Kernel.states: self.states}.get(step)


def plan_of(config: Config) -> Plan:
    return make_plan(config, Facts())


def test_a_name_is_left_out_until_it_is_known() -> None:
    peers = Peers(cast(Worker, Told()))
    (device,) = (obj for obj in plan_of(NAMED).objects.values() if isinstance(obj, Device))
    assert [peer.endpoint for peer in peers.resolved(device).peers] == [None]
    assert peers.endpoint_addresses(NAMED) == set()
    peers.endpoints["wg0", KEY] = RESOLVED
    assert [peer.endpoint for peer in peers.resolved(device).peers] == [RESOLVED]
    assert peers.endpoint_addresses(NAMED) == {ip("192.0.2.9").packed}
    assert peers.endpoint_addresses(LITERAL) == {ip("198.51.100.130").packed}


def test_a_link_leads_nowhere_until_the_first_of_its_peers_is_known() -> None:
    peers = Peers(cast(Worker, Told()))
    (tunnel,) = NAMED.tunnels
    caller = replace(tunnel.wireguard.peers[0], public_key=bytes(32), endpoint=None)
    waiting = replace(tunnel, wireguard=replace(tunnel.wireguard, peers=(*tunnel.wireguard.peers, caller)))
    assert peers.nowhere(NAMED) == {"wg0"}
    assert not peers.nowhere(LITERAL)
    assert not peers.nowhere(replace(NAMED, tunnels=(waiting,))), "one without an endpoint may call us"
    peers.endpoints["wg0", KEY] = RESOLVED
    assert not peers.nowhere(NAMED)


def test_a_peer_is_aimed_once_and_again_when_its_link_may_be_new_or_it_failed() -> None:
    told = Told()
    peers = Peers(cast(Worker, told))
    peers.endpoints["wg0", KEY] = RESOLVED

    def aim() -> int:
        asyncio.run(peers.aim(NAMED, plan_of(NAMED)))
        return len(told.aimed)

    assert (aim(), aim()) == (1, 1)
    peers.forget()
    told.refuses = True
    assert aim() == 1
    told.refuses = False
    assert aim() == 2
    asyncio.run(peers.aim(NAMED, Plan.empty()))  # it is not our link
    assert told.aimed == [RESOLVED] * 2


def test_where_the_machine_has_moved_what_is_set_is_set_anew_wherever_that_is() -> None:
    told = Told()
    peers = Peers(cast(Worker, told))
    roamed = PeerState(KEY, Endpoint("203.0.113.77", 1), 0, 0, 0)
    told.states = [roamed, replace(roamed, endpoint=None)]

    def follow() -> list[Endpoint]:
        asyncio.run(peers.follow(LITERAL, plan_of(LITERAL)))
        return told.aimed

    assert follow() == []  # as it was
    told.here = Surroundings(frozenset({b"\1\2\3\4"}))
    assert follow() == [Endpoint("203.0.113.77", 1)]
    assert len(follow()) == 1
    told.refuses, told.here = True, Surroundings()
    assert len(follow()) == 1  # its process has died: no matter
