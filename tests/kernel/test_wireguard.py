"""The kernel's own WireGuard; skipped where it has none (see tests/vm)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from splitwgd.errors import KernelError
from splitwgd.netlink import Netlink
from splitwgd.objects import Device, Endpoint, Link, Peer
from splitwgd.wireguard import KernelWireGuard
from tests.kernel.spaces import Space, sh
from tests.worlds import key

FIRST = Peer(
    key(2), key(3), frozenset({ip_network("0.0.0.0/0"), ip_network("::/0")}), 25, Endpoint("198.51.100.1", 51820)
)
SECOND = Peer(key(4), None, frozenset({ip_network("10.2.0.0/16")}), 0, Endpoint("2001:db8::1", 51821))
THIRD = Peer(key(5))
DEVICE = Device("wg0", key(1), 51999, 0xFE, frozenset({FIRST, SECOND}))


@pytest.fixture
def wg(space: Space, netlink: Netlink) -> Iterator[KernelWireGuard]:
    if not netlink.make_wireguard("wg0"):
        pytest.skip("this kernel has no WireGuard")
    yield KernelWireGuard()


def settled(wg: KernelWireGuard, device: Device) -> Device:
    wg.configure(device, wg.read(device.link)[0])
    return wg.read(device.link)[0]


@pytest.mark.parametrize(
    "wanted",
    [
        DEVICE,
        replace(DEVICE, peers=frozenset()),
        replace(DEVICE, peers=frozenset({FIRST, SECOND, THIRD})),
        replace(DEVICE, peers=frozenset({replace(FIRST, preshared_key=None, keepalive=0, allowed=SECOND.allowed)})),
        replace(DEVICE, private_key=key(9), listen_port=52000, fwmark=0xFFFFFFFF),
    ],
)
def test_what_is_configured_is_read_back_from_scratch_and_after_another(wg: KernelWireGuard, wanted: Device) -> None:
    assert settled(wg, wanted) == wanted
    assert settled(wg, DEVICE) == DEVICE
    assert settled(wg, wanted) == wanted


def test_a_device_can_be_configured_without_knowing_what_was_there(wg: KernelWireGuard) -> None:
    wg.configure(DEVICE, None)
    assert wg.read("wg0")[0] == DEVICE


@pytest.mark.parametrize("number", [0, 1, 300, 3000])
def test_a_peer_with_many_networks_is_written_and_read_whole(wg: KernelWireGuard, number: int) -> None:
    networks = frozenset(ip_network(f"10.{place // 250}.{place % 250}.0/24") for place in range(number))
    wanted = replace(DEVICE, peers=frozenset({replace(FIRST, allowed=networks), THIRD}))
    assert settled(wg, wanted) == wanted


def test_many_peers_are_written_and_read_whole(wg: KernelWireGuard) -> None:
    peers = frozenset(
        Peer(bytes([1, *place.to_bytes(2, "big")]) + bytes(29), None, frozenset({ip_network(f"10.3.{place}.0/24")}))
        for place in range(200)
    )
    wanted = replace(DEVICE, peers=peers)
    assert settled(wg, wanted) == wanted


def test_endpoints_are_read_back_and_aimed_again(wg: KernelWireGuard) -> None:
    settled(wg, DEVICE)
    wg.aim("wg0", FIRST.public_key, Endpoint("2001:db8::9", 1))
    wg.aim("wg0", SECOND.public_key, Endpoint("192.0.2.9", 2))
    device, states = wg.read("wg0")
    assert {state.public_key: str(state.endpoint) for state in states} == {
        FIRST.public_key: "[2001:db8::9]:1",
        SECOND.public_key: "192.0.2.9:2",
    }
    assert device == DEVICE


def test_peers_that_stay_are_not_written(wg: KernelWireGuard) -> None:
    settled(wg, DEVICE)
    wg.aim("wg0", FIRST.public_key, Endpoint("192.0.2.9", 2))
    settled(wg, replace(DEVICE, peers=frozenset({FIRST, THIRD}), fwmark=1))
    (state,) = [state for state in wg.read("wg0")[1] if state.public_key == FIRST.public_key]
    assert state.endpoint == Endpoint("192.0.2.9", 2)


def test_aiming_at_a_stranger_adds_no_peer(wg: KernelWireGuard) -> None:
    settled(wg, DEVICE)
    wg.aim("wg0", key(7), Endpoint("192.0.2.9", 2))
    assert wg.read("wg0")[0] == DEVICE


def test_the_mark_of_the_outer_packets_is_set_and_taken_back(wg: KernelWireGuard) -> None:
    wg.mark("wg0", 0xFE)
    assert (wg.read("wg0")[0].fwmark, sh("wg show wg0 fwmark").strip()) == (0xFE, "0xfe")
    wg.mark("wg0", 0)
    assert (wg.read("wg0")[0].fwmark, sh("wg show wg0 fwmark").strip()) == (0, "off")


@pytest.mark.parametrize("before", ["1", "0"])
def test_redirects_that_the_link_has_ended_are_sent_again_when_it_goes(
    wg: KernelWireGuard, netlink: Netlink, before: str
) -> None:
    """The kernel itself never gives net.ipv4.conf.all.send_redirects back (wg_open)."""
    sh(f"sysctl -qw net.ipv4.conf.all.send_redirects={before}")
    for mtu in (1420, 1400):
        netlink.put_link(Link("wg0", mtu, frozenset()))
        assert sh("sysctl -n net.ipv4.conf.all.send_redirects").strip() == "0"
    assert netlink.is_ours("wg0")
    netlink.remove_link("wg0")
    assert netlink.kind("wg0") is None
    assert sh("sysctl -n net.ipv4.conf.all.send_redirects").strip() == before


def test_a_link_that_is_no_wireguard_is_told(wg: KernelWireGuard) -> None:
    with pytest.raises(KernelError, match="lo: "):
        wg.read("lo")
    with pytest.raises(KernelError, match="nothing: "):
        wg.mark("nothing", 1)
