"""The way and the flows of an address, as the real kernel has them."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from splitwgd.tracing import FLOWS, flows_to, way_of
from tests.kernel.spaces import Wire, sh
from tests.worlds import ip

FAR, OTHER, FAR6 = ip("203.0.113.7"), ip("203.0.113.8"), ip("2001:db8:1::7")


@pytest.fixture
def uplink(wire: Callable[[str, str], Wire]) -> Wire:
    made = wire("up0", "tun")
    sh("ip addr add 192.0.2.2/24 dev up0; ip route add default via 192.0.2.1; ip -6 addr add 2001:db8::2/64 dev up0")
    sh("ip rule add fwmark 1 lookup 100; ip route add blackhole default table 100")
    sh("ip route add 203.0.113.8 dev up0 table 100")
    return made


@pytest.mark.parametrize(
    ("address", "mark", "way"),
    [
        (FAR, 0, "up0 via 192.0.2.1"),
        (FAR, 1, "a blackhole"),
        (OTHER, 1, "up0, table 100"),
        (FAR6, 0, "Network is unreachable"),
    ],
)
def test_the_way_is_the_kernels(uplink: Wire, address: str, mark: int, way: str) -> None:
    assert way_of(ip(str(address)), mark) == way


def test_the_flows_with_the_mark_are_told(uplink: Wire) -> None:
    sh("sysctl -qw net.netfilter.nf_conntrack_acct=1")
    sh("nft 'table inet t { chain o { type filter hook output priority 0; ct mark set meta mark; }; }'")
    for mark, target, count in ((0x101, FAR, 1), (0x100, FAR, 1), (0x201, OTHER, 12)):
        for port in range(4000, 4000 + count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"up0")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
                sock.sendto(b"x" * 72, (str(target), port))
    found = flows_to({FAR, FAR6}, 0x1, 0xFF)
    assert found == [{"protocol": "udp", "to": "203.0.113.7", "port": 4000, "bytes": 100}]
    assert len(flows_to({OTHER}, 0x1, 0xFF)) == FLOWS
