"""What the kernel tells of its own: that something changed which may concern us."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from splitwgd.events import Events
from splitwgd.nft import Nft
from tests.kernel.spaces import Wire, sh

STIRS = [
    "ip link set wg0 mtu 1300",
    "ip addr add 192.168.7.1/24 dev wg0",
    "ip -6 addr add 2001:db8:7::1/64 dev wg0",
    "ip rule del priority 32767",
    "ip -6 rule del priority 32766",
    "ip route add blackhole default table 100",
    "ip -6 route add blackhole default table 100",
    "nft delete table inet t",
    "nft flush chain inet t c",
    "nft add chain inet t d",
    "nft add rule inet t c accept",
    "nft add set inet t x '{ type ipv4_addr; }'",
]


@pytest.mark.parametrize("stir", STIRS)
def test_events_tell_of_what_may_concern_us(wire: Callable[[str, str], Wire], stir: str) -> None:
    wire("wg0", "tun")
    sh("nft 'table inet t { set s { type ipv4_addr; }; chain c { drop; }; }'")
    events = Events()
    for sock in events.sockets:
        events.drain(sock)
    sh(stir)
    assert [sock for sock in events.sockets if events.drain(sock)]
    events.close()


def test_our_own_addresses_concern_nobody_and_what_somebody_takes_out_does() -> None:
    nft = Nft()
    nft.run("table inet t { set s { type ipv4_addr; }; }")
    events = Events()
    for sock in events.sockets:
        events.drain(sock)
    nft.run("add element inet t s { 203.0.113.1 }\ndelete element inet t s { 203.0.113.1 }\nflush table inet t")
    sh("nft add element inet t s '{ 203.0.113.2 }'")
    assert not any(events.drain(sock) for sock in events.sockets)
    sh("nft delete element inet t s '{ 203.0.113.2 }'")
    assert events.drain(events.nft)
    events.close()


def test_lost_events_count_as_a_change() -> None:
    events = Events()
    events.nft.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    members = ", ".join(f"203.0.113.{number}" for number in range(256))
    sh("nft 'table inet t { set s { type ipv4_addr; }; }'")
    events.drain(events.nft)
    for _ in range(20):
        sh(f"nft add element inet t s '{{ {members} }}'; nft flush set inet t s")
    assert events.drain(events.nft)
    events.close()
