"""What closes at boot on a real kernel: it holds without a link and without a daemon, and it opens nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from splitwgd.config import Config
from splitwgd.diff import is_closing
from splitwgd.guard import guard
from splitwgd.kernel import Kernel
from splitwgd.learned import Remembered
from splitwgd.names import Name, parse_name
from splitwgd.owner import Owner
from splitwgd.plan import Plan
from splitwgd.reconciler import Reconciler
from splitwgd.state import pieces
from splitwgd.store import state_path
from tests.kernel.spaces import Space, Wire, sh
from tests.kernel.test_netlink import FOREIGN, world
from tests.kernel.test_reconciler import CONFIGS, elements, play
from tests.worlds import make_config

needs_wireguard = pytest.mark.skipif(
    not (shutil.which("wireguard-go") and os.path.exists("/dev/net/tun")), reason="needs wireguard-go and /dev/net/tun"
)
WWW, OTHER = parse_name("www.example.com"), parse_name("other.example.net")
LEARNED = ("203.0.113.7", "2001:db8:1::7")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    return tmp_path


def remember(*addresses: str, name: Name = WWW, life: float = 600.0) -> None:
    """The file, as a daemon wrote it that ran until a moment ago."""
    rows = []
    for address in addresses:
        packed = ip_address(address).packed
        rows.append(Remembered(f"wg_domains{4 if len(packed) == 4 else 6}", packed, life, (name,), False))
    Path(state_path()).write_bytes(b"".join(pieces(rows, (), 0.0, time.time())))


def held(config: Config) -> Plan:
    with closing(Owner("wg_routing")) as owner, closing(Kernel(owner)) as kernel:
        return kernel.observe(config).plan


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_everything_that_closes_is_there_and_nothing_that_opens(space: Space, config: Config) -> None:
    sh(FOREIGN)
    remember(*LEARNED)
    guard(config)
    kinds = [type(obj).__name__ for obj in held(config).objects.values()]
    assert sorted(kinds) == ["Route", "Route", "Rule", "Rule", "Table", "Table"]
    assert all(is_closing(obj) for obj in held(config).objects.values())
    assert {address: element.name for address, element in elements().items()} == dict.fromkeys(
        LEARNED, "www.example.com"
    )
    assert all(590 < element.seconds <= 601 for element in elements().values())


def test_a_second_time_changes_nothing(space: Space) -> None:
    config = make_config(networks='"198.51.100.0/24"')
    remember(*LEARNED)
    guard(config)
    before, lives = world(), elements()
    guard(config)
    assert world() == before
    assert all(element.seconds <= lives[address].seconds for address, element in elements().items())


def test_without_a_file_it_closes_what_the_configuration_names(space: Space, folder: Path) -> None:
    config = make_config(networks='"198.51.100.0/24"')
    guard(config)
    assert elements() == {} and "198.51.100.0/24" in sh("nft list set inet wg_routing wg_networks4")
    assert list(folder.iterdir()) == []


def test_a_damaged_file_is_set_aside_and_the_rest_is_closed(space: Space, folder: Path) -> None:
    Path(state_path()).write_bytes(b"{")
    guard(make_config())
    assert "blackhole" in sh("ip route show table 100")
    assert [entry.name for entry in folder.iterdir()] == ["learned.json.damaged"]


def test_what_has_ended_or_is_tunneled_no_longer_is_let_go(space: Space) -> None:
    remember(*LEARNED, life=-1.0)
    guard(make_config())
    remember(*LEARNED, name=OTHER)
    guard(make_config())
    assert elements() == {}


def test_what_is_in_the_sets_already_stays_with_the_life_that_it_has(space: Space) -> None:
    guard(make_config())
    sh("nft add element inet wg_routing wg_domains4 '{ 203.0.113.7 timeout 60s comment \"b.example.com\" }'")
    remember(*LEARNED)
    guard(make_config())
    found = elements()
    assert set(found) == set(LEARNED)
    assert found["203.0.113.7"].name == "b.example.com" and found["203.0.113.7"].seconds <= 60


def test_what_is_remembered_is_refused_at_once_and_what_is_not_goes_out(
    space: Space, wire: Callable[[str, str], Wire]
) -> None:
    uplink = wire("eth0", "tun")
    sh("ip addr add 198.51.100.2/24 dev eth0; ip route add default dev eth0; ip -6 route add default dev eth0")
    remember(*LEARNED)
    guard(make_config())
    for address in LEARNED:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
            tcp.settimeout(5)
            with pytest.raises(ConnectionRefusedError):
                tcp.connect((address, 9))
            with pytest.raises(PermissionError):
                udp.sendto(b"secret", (address, 9))
                udp.sendto(b"secret", (address, 9))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"plain", ("203.0.113.8", 9))
    uplink.wait_for(b"plain")
    for address in LEARNED:
        assert uplink.carried(ip_address(address).packed) == []


@needs_wireguard
def test_beside_a_running_daemon_it_touches_nothing(space: Space) -> None:
    config = make_config()

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(config)
        before = world()
        await asyncio.to_thread(guard, config)
        assert world() == before

    play(space, story)


@needs_wireguard
def test_a_way_into_the_tunnel_that_somebody_took_away_is_not_its_business(space: Space) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        sh("ip route del default dev wg0 table 100; ip rule del priority 100")
        await asyncio.to_thread(guard, make_config())
        assert "wg0" not in sh("ip route show table 100") and "lookup 100" in sh("ip rule")

    play(space, story)


@needs_wireguard
@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_the_daemon_takes_it_over_with_all_that_is_in_its_sets(space: Space, config: Config) -> None:
    remember(*LEARNED)
    guard(config)

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(config)
        assert reconciler.trouble == ""
        assert not (await reconciler.difference())[1]
        assert set(elements()) == set(LEARNED) and reconciler.ledger.held_by(WWW) == 2

    play(space, story)
