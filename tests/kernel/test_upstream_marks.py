"""Questions to servers bear their group's mark and are bound to its link, or are not asked at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from splitwgd.answers import Reply
from splitwgd.errors import UpstreamError
from splitwgd.message import A, question_for
from splitwgd.names import parse_name
from splitwgd.upstream import Upstreams, _socket
from splitwgd.zones import Group
from tests.kernel.spaces import Wire, sh
from tests.worlds import eventually, server

QUERY = question_for(parse_name("example.com"), A)
WIRED = bytes(QUERY.name)


def ask(group: Group, until: Callable[[], bool]) -> list[Reply | UpstreamError]:
    """Asks until it is answered or `until` says that it is enough."""
    outcomes: list[Reply | UpstreamError] = []

    async def run() -> None:
        upstreams = Upstreams(asyncio.get_running_loop())
        upstreams.ask(QUERY, group, outcomes.append)
        await eventually(lambda: outcomes or until())
        upstreams.close()

    asyncio.run(run())
    return outcomes


@pytest.mark.parametrize("mark", [0xFE, 0x1, 0xFF0000])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_socket_has_its_groups_mark_and_link(mark: int, kind: socket.SocketKind, address: str) -> None:
    for link in (None, "lo"):
        with _socket(server(address), kind, Group("g", (), mark, link)) as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == mark
            bound = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0").decode()
            assert bound == (link or "")


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
    (outcome,) = ask(Group("wg0", (server("203.0.113.53"), server("203.0.113.54")), 0x1, "wg0"), lambda: False)
    assert isinstance(outcome, UpstreamError)
    assert str(outcome) == "wg0: 203.0.113.53 No such device; 203.0.113.54 No such device"
    assert not direct.carried(WIRED)


def test_a_tunneled_question_whose_route_is_gone_stays_in(wire: Callable[[str, str], Wire]) -> None:
    direct, tunnel = wire("eth0", "tun"), wire("wg0", "tun")
    sh("ip addr add 198.51.100.2/24 dev eth0; ip route add default dev eth0; ip addr add 10.1.0.2/24 dev wg0")
    ask(Group("wg0", (server("203.0.113.53"),), 0x1, "wg0"), lambda: bool(tunnel.carried(WIRED)))
    assert not direct.carried(WIRED)
