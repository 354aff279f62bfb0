"""Sockets bear the mark of their way and are bound to its link, and connections take it or fail."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from splitwgd.channels import Channels
from splitwgd.servers import Server, Transport
from splitwgd.way import Way, open_socket
from splitwgd.zones import Group
from tests.kernel.spaces import Wire, sh
from tests.streams import TCP, TLS, Host, ask, every_transport, question
from tests.tls import trusting
from tests.worlds import eventually, server

DIRECT, TUNNEL = Group("default", (), 0xFE), Group("tunnel", (), 0x1, "wg0")


@pytest.mark.parametrize("mark", [0xFE, 0x1, 0xFF0000])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_socket_has_its_mark_and_link(mark: int, kind: socket.SocketKind, address: str) -> None:
    for link in (None, "lo"):
        with open_socket(Way(server(address), mark, link), kind) as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == mark
            bound = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0").decode()
            assert bound == (link or "")
            assert not sock.getblocking()
            assert not sock.get_inheritable()


def connect(group: Group, to: Server, until: Callable[[], bool]) -> list[bytes | OSError]:
    """Asks until it is answered or `until` says that it is enough."""
    outcomes: list[bytes | OSError] = []

    async def run() -> None:
        channels = Channels(asyncio.get_running_loop(), trusting())
        channels.ask(to, group, question(), outcomes.append)
        await eventually(lambda: outcomes or until())
        channels.close()

    asyncio.run(run())
    return outcomes


@every_transport
@pytest.mark.parametrize(("address", "family"), [("203.0.113.53", 4), ("2001:db8::53", 6)])
def test_a_connection_takes_the_way_of_its_mark(
    wire: Callable[[str, str], Wire], transport: Transport, address: str, family: int
) -> None:
    direct, tunnel = wire("eth0", "tun"), wire("wg0", "tun")
    sh("ip addr add 198.51.100.2/24 dev eth0; ip addr add 2001:db8:c::2/64 dev eth0")
    sh("ip addr add 10.1.0.2/24 dev wg0; ip addr add fd00:10:1::2/64 dev wg0")
    sh(f"ip -{family} route add default dev eth0; ip -{family} route add default dev wg0 table 100")
    sh(f"ip -{family} rule add fwmark 0x1/0xff lookup 100")
    to = replace(server(address), transport=transport, name="dns.example")
    target = to.address.packed
    connect(DIRECT, to, lambda: bool(direct.carried(target)))
    assert not tunnel.carried(target)
    del direct.seen[:]
    connect(TUNNEL, to, lambda: bool(tunnel.carried(target)))
    connect(replace(TUNNEL, link=None), to, lambda: len(tunnel.carried(target)) > 1)
    assert not direct.carried(target)


@every_transport
def test_without_its_link_there_is_no_connection(wire: Callable[[str, str], Wire], transport: Transport) -> None:
    direct = wire("eth0", "tun")
    sh("ip addr add 198.51.100.2/24 dev eth0; ip route add default dev eth0")
    to = replace(server("203.0.113.53"), transport=transport, name="dns.example")
    (outcome,) = connect(TUNNEL, to, lambda: False)
    assert isinstance(outcome, OSError) and outcome.strerror == "No such device"
    assert not direct.carried(to.address.packed)


@pytest.mark.parametrize("scope", ["lo", "1"])
@pytest.mark.parametrize("transport", [TCP, TLS])
def test_a_link_local_address_is_reached_by_its_link(transport: Transport, scope: str) -> None:
    sh("ip addr add fe80::53/64 dev lo")

    async def run() -> None:
        channels = Channels(asyncio.get_running_loop(), trusting())
        async with Host(transport, address="fe80::53%lo") as host:
            to = replace(host.server, address=IPv6Address("fe80::53"), scope=scope)
            await ask(channels, to).answer()
        channels.close()

    asyncio.run(run())
