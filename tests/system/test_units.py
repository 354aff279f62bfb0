"""The units on a real systemd: this machine's own, booted in a container that has nothing but loopback."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.hosts import NotEnclosed, require_enclosure
from tests.worlds import WG

ROOT = Path(__file__).parent.parent.parent
BOOTED = 240  # seconds until it must have come to its end; some 25 on a machine that does nothing else
TOML = """
[dns]
tunneled = ["10.1.0.1"]
default = ["192.0.2.53"]
[tunneled]
domains = ["one.example"]
"""
UPLINK = """
[Unit]
DefaultDependencies=no
Wants=network-pre.target
After=network-pre.target
Before=network.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '{ nft list tables; ip rule; ip route show table 100; } >/out/uplink'
"""
INSIDE = """
[Unit]
After=splitwgd.service
[Service]
ExecStart=/usr/bin/python3 -I /srv/splitwg/tests/system/inside.py
ExecStopPost=/bin/systemctl --no-block --force poweroff
StandardError=file:/out/errors
"""
PROGRAM = """#!/bin/sh
PYTHONPATH=/srv/splitwg exec /srv/environment/bin/python -c "from splitwgd.{} import main; main()" "$@"
"""


def make_root(root: Path) -> list[str]:
    """What a machine needs beside /usr; returns what nspawn has to mount."""
    files = {
        "etc/os-release": Path("/etc/os-release").read_text(),
        "etc/machine-id": "0" * 31 + "1\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "etc/group": "root:x:0:\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\n",
        "etc/sysctl.d/strict.conf": "net.ipv4.conf.all.rp_filter = 1\n",
        "etc/splitwg/domains.toml": TOML,
        "etc/wireguard/wg0.conf": WG,
        "etc/systemd/system/uplink.service": UPLINK,
        "etc/systemd/system/inside.service": INSIDE,
        # So that a test need not wait for half a minute.
        "etc/systemd/system/splitwgd.service.d/short.conf": "[Service]\nWatchdogSec=3\n",
        "programs/bin/splitwgd": PROGRAM.format("daemon"),
        "programs/bin/splitwg": PROGRAM.format("cli"),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in ("splitwgd", "splitwg"):
        (root / "programs/bin" / name).chmod(0o755)
    root.chmod(0o755)
    (root / "etc/wireguard").chmod(0o700)
    (root / "etc/wireguard/wg0.conf").chmod(0o600)
    subprocess.run(["systemd-sysusers", f"--root={root}", ROOT / "systemd/splitwg.sysusers"], check=True)
    for name in ("usr", "out", "srv/splitwg", "root", "var", "tmp", "run", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for unit in ("splitwgd.service", "splitwgd-guard.service"):
        shutil.copy(ROOT / "systemd" / unit, root / "etc/systemd/system")
    for target, unit in (
        ("sysinit", "splitwgd-guard"),
        ("multi-user", "splitwgd"),
        ("multi-user", "uplink"),
        ("multi-user", "inside"),
    ):
        wants = root / f"etc/systemd/system/{target}.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / f"{unit}.service").symlink_to(f"../{unit}.service")
    mounts = [f"--overlay-ro=/usr:{root}/programs:/usr", f"--bind-ro={ROOT}:/srv/splitwg"]
    mounts += [f"--bind-ro={Path(sys.prefix).resolve()}:/srv/environment"]
    return mounts + mount_tun(root)


def mount_tun(root: Path) -> list[str]:
    """/dev/net/tun as udev leaves it, which it need not be on the machine that tests."""
    if not os.path.exists("/dev/net/tun"):
        return []
    os.mknod(root / "tun", stat.S_IFCHR, os.stat("/dev/net/tun").st_rdev)
    (root / "tun").chmod(0o666)
    return [f"--bind={root}/tun:/dev/net/tun"]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of it, as `inside` tells it, and what the uplink's unit saw."""
    try:
        require_enclosure()
    except NotEnclosed as error:
        pytest.skip(f"needs root: run sudo ./do test ({error})")
    if not shutil.which("systemd-nspawn"):
        pytest.skip("needs systemd-nspawn (systemd-container)")
    root = tmp_path_factory.mktemp("machine")
    argv = ["systemd-nspawn", f"--directory={root}", "--machine=splitwg-test", "--register=no", "--keep-unit"]
    argv += ["--private-network", "--boot", "--quiet", "--console=pipe", *make_root(root), "systemd.show_status=no"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOTED, check=False)
    report = root / "out/report.json"
    if done.returncode and not any((root / "out").iterdir()):
        pytest.skip(f"systemd-nspawn cannot boot here: {done.stderr.strip()[-200:]}")
    assert report.exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    return found | {"uplink": (root / "out/uplink").read_text()}


def told(machine: dict[str, Any], what: str) -> Any:
    """What `inside` found; with the journal for who has to mend it."""
    print(machine["journal"])
    return machine[what]


def test_the_guard_has_closed_before_anything_can_bring_the_network_up(machine: dict[str, Any]) -> None:
    guard = told(machine, "guard")
    assert (guard["ActiveState"], guard["Result"]) == ("active", "success")
    moments = [int(machine[unit]["ActiveEnterTimestampMonotonic"]) for unit in ("guard", "start", "network-pre")]
    assert moments == sorted(moments)
    for words in ("table inet wg_routing", "lookup 100", "blackhole default"):
        assert words in machine["uplink"]


def test_started_means_ready_and_answering_inside_its_sandbox(machine: dict[str, Any]) -> None:
    start = told(machine, "start")
    assert (start["ActiveState"], start["NRestarts"]) == ("active", "0")
    assert "1 domains through wg0" in start["StatusText"]
    assert machine["answered"] and not machine["status"]["differs"]


def test_it_is_a_user_with_two_rights_that_reads_roots_wireguard_file_and_loosens_its_link(
    machine: dict[str, Any],
) -> None:
    assert told(machine, "runs as") == "splitwg"
    assert {line.split()[1] for line in machine["capabilities"].splitlines()} == {"0000000000001400"}  # 10 and 12
    assert machine["reverse path"] == "2"


def test_the_group_may_ask_and_only_root_may_change(machine: dict[str, Any]) -> None:
    assert "no right to ask" in told(machine, "asked by others")
    assert '"state":' in machine["asked by the group"] and "only root may down" in machine["changed by the group"]


@pytest.mark.parametrize("unit", ["splitwgd.service", "splitwgd-guard.service"])
def test_what_systemd_can_shut_is_shut(unit: str) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=18", str(ROOT / "systemd" / unit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ignoring" not in done.stderr  # of what systemd 252 knows nothing


def test_a_reload_is_taken_over_by_the_same_process(machine: dict[str, Any]) -> None:
    assert told(machine, "reloaded") and machine["pid kept"] and machine["reload says"] == ""


def test_one_that_hangs_or_dies_comes_back_and_all_stays_closed_meanwhile(machine: dict[str, Any]) -> None:
    assert told(machine, "hung: restarted") and machine["killed: closed"] and machine["killed: restarted"]


@pytest.mark.skipif(
    not (shutil.which("wireguard-go") and os.path.exists("/dev/net/tun")), reason="needs wireguard-go and /dev/net/tun"
)
def test_a_userspace_wireguard_goes_on_over_crashes_and_restarts(machine: dict[str, Any]) -> None:
    assert told(machine, "wireguard goes on")


def test_a_reload_ends_when_it_is_done_takes_the_wireguard_file_along_and_fails_with_an_error(
    machine: dict[str, Any],
) -> None:
    said, addresses = told(machine, "wireguard reloaded")
    assert said == "" and "10.1.0.3/24" in addresses and "10.1.0.2/24" not in addresses
    status, said, closed = machine["bad reload"]
    assert status == "1" and "routing.tabel" in said and closed


@pytest.mark.parametrize("when", ["restart", "crash"])
def test_who_asks_while_it_is_away_waits_and_is_answered(machine: dict[str, Any], when: str) -> None:
    asked, lost = told(machine, f"lost in a {when}")
    assert asked > 50 and lost == []


def test_the_sockets_are_kept_until_it_is_stopped(machine: dict[str, Any]) -> None:
    assert int(told(machine, "kept")) in (4, 6) and machine["stopped: kept"] == "0"


def test_a_stop_is_in_order_and_gives_the_network_back(machine: dict[str, Any]) -> None:
    stop = told(machine, "stop")
    assert (stop["ActiveState"], stop["Result"]) == ("inactive", "success")
    assert machine["stopped: left"] == "" and machine["state file"] == "600"


def test_what_is_torn_down_is_not_started_again_and_a_stop_may_leave_all_closed(machine: dict[str, Any]) -> None:
    assert told(machine, "torn down") == [True, "", "success"]
    assert machine["stopped: closed"]


def test_a_signal_opens_nothing_and_the_daemon_is_back(machine: dict[str, Any]) -> None:
    assert told(machine, "terminated")


def test_a_port_that_is_taken_is_told_and_it_is_tried_until_the_port_is_free(machine: dict[str, Any]) -> None:
    assert "look as root with `ss -lnup`" in told(machine, "who has the port")  # a user sees no one else's sockets
    assert not machine["given up"] and machine["failed units"] == ""


def test_a_wrong_configuration_is_not_tried_again(machine: dict[str, Any]) -> None:
    for unit in told(machine, "wrong configuration"):
        assert (unit["ActiveState"], unit["Result"]) == ("failed", "exit-code")
