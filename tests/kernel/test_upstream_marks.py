"""Questions to servers bear their group's mark and are bound to its link, or are not asked at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from splitwgd.errors import UpstreamError
from splitwgd.reply import Reply
from splitwgd.servers import Transport
from splitwgd.upstream import Upstreams
from splitwgd.zones import Group
from tests.datagrams import QUERY, send
from tests.kernel.spaces import Wire, echoed, sh
from tests.worlds import eventually, server

WIRED = bytes(QUERY.name)
TUNNELED = Group("wg0", (server("203.0.113.53"), server("203.0.113.54")), 0x1, "wg0")


def ask(group: Group, until: Callable[[], bool] = lambda: False) -> list[Reply | UpstreamError]:
    """Asks until it is answered or `until` says that it is enough."""
    outcomes: list[Reply | UpstreamError] = []

    async def run() -> None:
        upstreams = Upstreams(asyncio.get_running_loop())
        upstreams.ask(QUERY, group, outcomes.append)
        await eventually(lambda: outcomes or until())
        upstreams.close()

    asyncio.run(run())
    return outcomes


def failure(group: Group) -> UpstreamError:
    (outcome,) = ask(group)
    assert isinstance(outcome, UpstreamError)
    return outcome


@pytest.mark.parametrize(("address", "family"), [("203.0.113.53", 4), ("2001:db8::53", 6)])
def test_the_mark_chooses_the_way(wire: Callable[[str, str], Wire], address: str, family: int) -> None:
    direct, tunnel = wire("eth0", "tun"), wire("wg0", "tun")
    sh("ip addr add 198.51.100.2/24 dev eth0; ip addr add 2001:db8:c::2/64 dev eth0")
    sh("ip addr add 10.1.0.2/24 dev wg0; ip addr add fd00:10:1::2/64 dev wg0")
    sh(f"ip -{family} route add default dev eth0; ip -{family} route add default dev wg0 table 100")
    sh(f"ip -{family} rule add fwmark 0x1/0xff lookup 100")
    ask(Group("default", (server(address),), 0xFE), lambda: bool(direct.carried(WIRED)))
    assert not tunnel.carried(WIRED)
    del direct.seen[:]
    ask(Group("tunnel", (server(address),), 0x1, "wg0"), lambda: bool(tunnel.carried(WIRED)))
    assert not direct.carried(WIRED)


def test_without_its_link_a_tunneled_question_fails_and_leaves_no_other_way(wire: Callable[[str, str], Wire]) -> None:
    direct = wire("eth0", "tun")
    sh("ip addr add 198.51.100.2/24 dev eth0; ip route add default dev eth0")
    error = failure(TUNNELED)
    assert str(error) == "wg0: 203.0.113.53 No such device; 203.0.113.54 No such device"
    assert error.no_way
    assert not direct.carried(WIRED)


@pytest.mark.parametrize("spoil", ["ip link set wg0 down", "ip link del wg0"])
def test_that_there_is_no_way_is_known_at_once(wire: Callable[[str, str], Wire], spoil: str) -> None:
    direct, _ = wire("eth0", "tun"), wire("wg0", "tun")
    sh("ip addr add 198.51.100.2/24 dev eth0; ip route add default dev eth0; ip addr add 10.1.0.2/24 dev wg0")
    sh("ip rule add fwmark 0x1/0xff lookup 100; ip route add default dev wg0 table 100")
    sh(spoil)
    assert failure(TUNNELED).no_way
    assert not direct.carried(WIRED)


@pytest.mark.parametrize("transport", [Transport.TLS, Transport.HTTPS])
def test_so_it_is_for_servers_that_are_asked_over_tls(wire: Callable[[str, str], Wire], transport: Transport) -> None:
    wire("eth0", "tun")
    encrypted = replace(server("203.0.113.53"), transport=transport, name="dns.example")
    assert failure(replace(TUNNELED, servers=(encrypted,))).no_way


def test_a_tunneled_question_whose_route_is_gone_stays_in(wire: Callable[[str, str], Wire]) -> None:
    direct, tunnel = wire("eth0", "tun"), wire("wg0", "tun")
    sh("ip addr add 198.51.100.2/24 dev eth0; ip route add default dev eth0; ip addr add 10.1.0.2/24 dev wg0")
    ask(TUNNELED, lambda: bool(tunnel.carried(WIRED)))
    assert not direct.carried(WIRED)


def reply_to(packet: bytes) -> bytes:
    """An empty answer to a question in an IPv4 packet."""
    back = bytearray(echoed(packet))
    back[26:28] = b"\0\0"  # no checksum (RFC 768)
    back[30:32] = b"\x81\x80"
    return bytes(back)


@pytest.mark.parametrize(("refreshed", "source"), [(True, "198.51.100.3"), (False, "198.51.100.2")])
def test_after_a_change_of_the_network_questions_come_from_the_new_address(
    wire: Callable[[str, str], Wire], refreshed: bool, source: str
) -> None:
    """And would not without being told: a port that rests is connected already."""
    direct = wire("eth0", "tun")
    sh("ip addr add 198.51.100.2/24 dev eth0; ip route add default dev eth0 src 198.51.100.2")

    async def run() -> None:
        upstreams = Upstreams(asyncio.get_running_loop())
        upstreams.ports.reserve = 1

        async def resolve() -> str:
            del direct.seen[:]
            outcomes = send(upstreams, Group("default", (server("203.0.113.53"),), 0))
            await eventually(lambda: direct.carried(WIRED))
            packet = direct.carried(WIRED)[0]
            direct.send(reply_to(packet))
            await eventually(lambda: outcomes)
            assert isinstance(outcomes[0], Reply)
            return str(ip_address(packet[12:16]))

        assert await resolve() == "198.51.100.2"
        sh("ip addr add 198.51.100.3/24 dev eth0; ip route replace default dev eth0 src 198.51.100.3")
        if refreshed:
            upstreams.refresh()
        assert await resolve() == source
        upstreams.close()

    asyncio.run(run())
