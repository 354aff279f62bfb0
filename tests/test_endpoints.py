"""Names of WireGuard servers: resolved outside the tunnel, again and again until known, and again on silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import AAAA as AAAARecord
from dnslib import QTYPE, RR, DNSRecord
from dnslib import A as ARecord

from splitwgd import endpoints as endpoints_module
from splitwgd.answers import read_reply
from splitwgd.config import Config
from splitwgd.endpoints import Endpoints
from splitwgd.errors import UpstreamError
from splitwgd.flight import Done
from splitwgd.message import AAAA, A, Query
from splitwgd.names import to_text
from splitwgd.objects import Endpoint, PeerState
from splitwgd.reply import Reply
from splitwgd.zones import Group, Zones
from tests.worlds import WG, eventually, key, make_config, text_of

NAMED = WG.replace("198.51.100.130:51820", "vpn.example.net:51820")
TWO = NAMED + f"[Peer]\nPublicKey = {text_of(key(5))}\nAllowedIPs = 10.7.0.0/16\nEndpoint = 192.0.2.1:1\n"
FIRST = ("wg0", key(2))


class World:
    """What the servers know, how the peers do, and what was aimed where."""

    def __init__(self, config: Config) -> None:
        self.known: dict[int, str] = {}
        self.asked: list[tuple[str, int, str]] = []
        self.handshake = 0.0
        self.aimed: list[Endpoint] = []
        self.zones = Zones(config)
        self.upstreams = self
        self.config = config
        self.endpoints: dict[tuple[str, bytes], Endpoint] = {}
        self.peers = self

    def ask(self, query: Query, group: Group, done: Done) -> None:
        self.asked.append((to_text(query.name), query.qtype, group.name))
        address = self.known.get(query.qtype)
        outcome = reply_to(query, address) if address != "silence" else UpstreamError("default: no answer in time")
        asyncio.get_running_loop().call_soon(done, outcome)

    async def states(self) -> dict[str, list[PeerState]]:
        peers = self.config.tunnels[0].wireguard.peers
        return {"wg0": [PeerState(peer.public_key, None, int(self.handshake), 0, 0) for peer in peers]}

    async def aim(self, peering: tuple[str, bytes], endpoint: Endpoint) -> None:
        assert peering == FIRST
        self.endpoints[peering] = endpoint
        self.aimed.append(endpoint)


def reply_to(query: Query, address: str | None) -> Reply:
    reply = DNSRecord.parse(b"\0\7\1\0\0\1\0\0\0\0\0\0" + query.question).reply()
    if address is not None:
        kind, data = (QTYPE.A, ARecord(address)) if query.qtype == A else (QTYPE.AAAA, AAAARecord(address))
        reply.add_answer(RR(str(reply.q.qname), kind, ttl=60, rdata=data))
    return read_reply(bytes(reply.pack()), query)


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints_module, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(endpoints_module, "LOOK_EVERY", 0.02)


def play(world: World, story: Callable[[Endpoints], Awaitable[None]]) -> None:
    async def run() -> None:
        parts: Any = (world, world)
        keeper = Endpoints(*parts)
        task = asyncio.create_task(keeper.keep())
        await story(keeper)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("known", "target", "asked"),
    [
        ({A: "192.0.2.9"}, "192.0.2.9:51820", [A]),
        ({AAAA: "2001:db8::9"}, "[2001:db8::9]:51820", [A, AAAA]),
        ({A: "silence", AAAA: "2001:db8::9"}, "[2001:db8::9]:51820", [A, AAAA]),
        ({A: "192.0.2.9", AAAA: "2001:db8::9"}, "192.0.2.9:51820", [A]),
    ],
)
def test_a_name_is_resolved_by_the_default_servers_and_its_peer_aimed(
    known: dict[int, str], target: str, asked: list[int]
) -> None:
    world = World(make_config(wg=NAMED))
    world.known, world.handshake = known, time.time()

    async def story(keeper: Endpoints) -> None:
        await eventually(lambda: world.aimed)

    play(world, story)
    assert [str(endpoint) for endpoint in world.aimed] == [target]
    assert world.asked == [("vpn.example.net", qtype, "default") for qtype in asked]


def test_a_tunneled_name_is_resolved_outside_too() -> None:
    world = World(make_config(domains='"example.net"', wg=NAMED))
    world.known = {A: "192.0.2.9"}

    async def story(keeper: Endpoints) -> None:
        await eventually(lambda: world.aimed)
        assert world.asked[0] == ("vpn.example.net", A, "default")

    play(world, story)


@pytest.mark.parametrize("known", [{}, {A: "silence", AAAA: "silence"}])
def test_it_is_tried_until_there_is_an_answer(known: dict[int, str], caplog: pytest.LogCaptureFixture) -> None:
    world = World(make_config(wg=NAMED))
    world.known = dict(known)

    async def story(keeper: Endpoints) -> None:
        await eventually(lambda: len(world.asked) >= 6)
        assert world.aimed == []
        world.known = {A: "192.0.2.9"}
        await eventually(lambda: world.aimed)

    play(world, story)
    assert caplog.text.count("the endpoint vpn.example.net cannot be resolved yet") == 1, "a retry is no news"


def test_literal_endpoints_are_nobodys_to_resolve() -> None:
    world = World(make_config())

    async def story(keeper: Endpoints) -> None:
        looks: list[int] = []
        due = keeper._due

        async def counted() -> Any:
            looks.append(1)
            return await due()

        keeper._due = counted  # type: ignore[method-assign]
        await eventually(lambda: len(looks) > 3)

    play(world, story)
    assert world.asked == []


def test_while_there_are_handshakes_nobody_is_asked_and_on_silence_the_server_is_looked_for_again() -> None:
    world = World(make_config(wg=TWO))
    world.known, world.handshake = {A: "192.0.2.9"}, time.time()

    async def story(keeper: Endpoints) -> None:
        await eventually(lambda: world.aimed)
        before = len(world.asked)
        looks: list[int] = []
        states = world.states

        async def counted() -> dict[str, list[PeerState]]:
            looks.append(1)
            return await states()

        world.states = counted  # type: ignore[method-assign]
        await eventually(lambda: len(looks) > 3)
        assert len(world.asked) == before
        world.handshake = time.time() - endpoints_module.SILENT_AFTER - 1
        await eventually(lambda: len(world.asked) > before + 2)
        assert len(world.aimed) == 1  # it is where it was
        world.known = {A: "192.0.2.10"}
        await eventually(lambda: len(world.aimed) == 2)
        assert str(world.aimed[1]) == "192.0.2.10:51820"

    play(world, story)


def test_when_the_resolution_fails_later_the_last_address_stays() -> None:
    world = World(make_config(wg=NAMED))
    world.known = {A: "192.0.2.9"}

    async def story(keeper: Endpoints) -> None:
        await eventually(lambda: world.aimed)
        world.known = {A: "silence", AAAA: "silence"}
        before = len(world.asked)
        await eventually(lambda: len(world.asked) > before + 2)

    play(world, story)
    assert {str(endpoint) for endpoint in world.endpoints.values()} == {"192.0.2.9:51820"}


def test_another_configuration_is_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints_module, "LOOK_EVERY", 3600)
    world = World(make_config())
    world.known = {A: "192.0.2.9"}

    async def story(keeper: Endpoints) -> None:
        await asyncio.sleep(0)
        world.config = make_config(wg=NAMED)
        await eventually(lambda: keeper.changed() or world.aimed)  # type: ignore[func-returns-value]

    play(world, story)


def test_without_a_configuration_there_is_nothing_to_do() -> None:
    async def run() -> None:
        nobody: Any = SimpleNamespace(config=None)
        assert await Endpoints(nobody, nobody)._due() == {}

    asyncio.run(run())
