"""Userspace WireGuard: started, configured, read back, ended; with the real wireguard-go."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from splitwgd.errors import KernelError, MachineError
from splitwgd.objects import Device, Endpoint, Peer
from splitwgd.uapi import Uapi
from tests.kernel.spaces import sh
from tests.worlds import key, wait_until

needs_go = pytest.mark.skipif(
    not (shutil.which("wireguard-go") and os.path.exists("/dev/net/tun")), reason="needs wireguard-go and /dev/net/tun"
)
FIRST = Peer(
    key(2), key(3), frozenset({ip_network("0.0.0.0/0"), ip_network("::/0")}), 25, Endpoint("198.51.100.1", 51820)
)
SECOND = Peer(key(4), None, frozenset({ip_network("10.2.0.0/16")}), 0, Endpoint("2001:db8::1", 51821))
THIRD = Peer(key(5))
DEVICE = Device("wg0", key(1), 51999, 0xFE, frozenset({FIRST, SECOND}))


@pytest.fixture
def go(uapi: Uapi) -> Uapi:
    """With a wg0 that has no configuration yet."""
    uapi.make("wg0")
    return uapi


def settled(uapi: Uapi, device: Device) -> Device:
    """What is read after the device was configured from what was there."""
    uapi.configure(device, uapi.read(device.link)[0])
    return uapi.read(device.link)[0]


@needs_go
def test_a_new_link_answers_and_has_no_configuration(go: Uapi) -> None:
    assert go.answers("wg0")
    assert not go.answers("wg1")
    device, peers = go.read("wg0")
    assert (device.private_key.strip(b"\0"), device.fwmark, device.peers, peers) == (b"", 0, frozenset(), [])
    assert "tun type tun" in sh("ip -d link show wg0")


@needs_go
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
def test_what_is_configured_is_read_back_from_scratch_and_after_another(go: Uapi, wanted: Device) -> None:
    assert settled(go, wanted) == wanted
    assert settled(go, DEVICE) == DEVICE
    assert settled(go, wanted) == wanted


@needs_go
def test_endpoints_are_read_back_and_aimed_again(go: Uapi) -> None:
    settled(go, DEVICE)
    for key_, endpoint in (
        (FIRST.public_key, Endpoint("2001:db8::9", 1)),
        (SECOND.public_key, Endpoint("192.0.2.9", 2)),
    ):
        go.aim("wg0", key_, endpoint)
    device, states = go.read("wg0")
    assert {state.public_key: str(state.endpoint) for state in states} == {
        FIRST.public_key: "[2001:db8::9]:1",
        SECOND.public_key: "192.0.2.9:2",
    }
    assert device == DEVICE  # a peer that roams is still the same peer


@needs_go
def test_peers_that_stay_are_not_written(go: Uapi) -> None:
    settled(go, DEVICE)
    go.aim("wg0", FIRST.public_key, Endpoint("192.0.2.9", 2))
    settled(go, replace(DEVICE, peers=frozenset({FIRST, THIRD}), fwmark=1))
    (state,) = [state for state in go.read("wg0")[1] if state.public_key == FIRST.public_key]
    assert state.endpoint == Endpoint("192.0.2.9", 2)


@needs_go
def test_aiming_at_a_stranger_adds_no_peer(go: Uapi) -> None:
    settled(go, DEVICE)
    go.aim("wg0", key(7), Endpoint("192.0.2.9", 2))
    assert go.read("wg0")[0] == DEVICE


@needs_go
def test_the_mark_of_the_outer_packets_is_set_and_taken_back(go: Uapi) -> None:
    go.mark("wg0", 0xFE)
    assert go.read("wg0")[0].fwmark == 0xFE
    go.mark("wg0", 0)
    assert go.read("wg0")[0].fwmark == 0


@needs_go
def test_the_keys_of_wg_and_ours_are_the_same(go: Uapi, tmp_path: Path) -> None:
    settled(go, DEVICE)
    shown = sh("wg showconf wg0")
    assert "ListenPort = 51999" in shown and "FwMark = 0xfe" in shown
    assert shown.count("[Peer]") == 2 and "Endpoint = [2001:db8::1]:51821" in shown


@needs_go
def test_what_it_refuses_is_told(go: Uapi) -> None:
    with pytest.raises(KernelError, match="wg0: its userspace WireGuard refused"):
        go.aim("wg0", FIRST.public_key, Endpoint("no address", 2))


@needs_go
def test_a_device_can_be_configured_without_knowing_what_was_there(go: Uapi) -> None:
    go.configure(DEVICE, None)
    assert go.read("wg0")[0] == DEVICE


@needs_go
def test_it_ends_with_its_link_and_leaves_no_zombie(go: Uapi) -> None:
    (child,) = go._children
    sh("ip link del wg0")

    def gone() -> bool:
        go.reap()
        return not go._children

    wait_until(gone)
    assert not Path(f"/proc/{child.pid}").exists()
    with pytest.raises(KernelError, match="wg0: its userspace WireGuard does not answer"):
        go.read("wg0")


@needs_go
def test_its_link_ends_with_it_and_it_can_be_made_again(go: Uapi) -> None:
    (child,) = go._children
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not sh("ip link show wg0", check=False)
    assert os.path.exists("/run/wireguard/wg0.sock")  # nobody was left to take it away
    assert not go.answers("wg0")
    go.make("wg0")
    assert go.answers("wg0")


@needs_go
def test_one_that_ends_late_is_collected_beside_its_successor(go: Uapi) -> None:
    (first,) = go._children
    os.kill(first.pid, signal.SIGSTOP)
    sh("ip link del wg0")
    os.unlink("/run/wireguard/wg0.sock")
    go.make("wg0")
    _, second = go._children
    os.kill(first.pid, signal.SIGKILL)

    def collected() -> bool:
        go.reap()
        return go._children == [second]

    wait_until(collected)
    assert first.returncode == -signal.SIGKILL


@needs_go
def test_it_outlives_its_maker(go: Uapi) -> None:
    (child,) = go._children
    assert os.getsid(child.pid) == child.pid


def test_without_a_program_the_error_says_what_to_install(uapi: Uapi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MachineError, match="neither wireguard-go nor boringtun-cli is installed.*apt install"):
        uapi.make("wg0")


FAILING = [
    ("echo '(wg0) ERROR: one'; echo '(wg0) ERROR: no more tunnels' >&2; exit 1", "did not start: .*no more tunnels"),
    ("exit 1", "did not start: it said nothing"),
]


@pytest.mark.parametrize(("script", "words"), FAILING)
@pytest.mark.parametrize("program", ["wireguard-go", "boringtun-cli"])
def test_a_program_that_fails_is_quoted(
    uapi: Uapi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, script: str, words: str
) -> None:
    path = tmp_path / program
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelError, match=f"{program} wg0 {words}"):
        uapi.make("wg0")
    assert uapi._children == []


def test_a_program_that_never_answers_is_ended(uapi: Uapi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wireguard-go"
    path.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec {shutil.which('sleep')} 1000\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("splitwgd.uapi._START_PATIENCE", 0.3)
    with pytest.raises(KernelError, match="did not start"):
        uapi.make("wg0")
    assert not Path(f"/proc/{int((tmp_path / 'pid').read_text())}").exists()


@needs_go
def test_without_the_tun_device_the_error_names_it(uapi: Uapi) -> None:
    sh("mount --bind /dev/null /dev/net/tun")
    try:
        with pytest.raises((KernelError, MachineError), match="(?i)tun"):
            uapi.make("wg0")
    finally:
        sh("umount /dev/net/tun")


@needs_go
@pytest.mark.parametrize("number", [0, 300])
def test_many_networks_come_in_one_piece(go: Uapi, number: int) -> None:
    networks = frozenset(ip_network(f"10.{place // 250}.{place % 250}.0/24") for place in range(number))
    wanted = replace(DEVICE, peers=frozenset({replace(FIRST, allowed=networks), THIRD}))
    assert settled(go, wanted) == wanted
