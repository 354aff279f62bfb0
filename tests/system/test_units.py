"""The units on a real systemd: this machine's own, booted in a container that has nothing but loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.hosts import NotEnclosed, require_enclosure
from tests.worlds import WG

ROOT = Path(__file__).parent.parent.parent
BOOTED = 45  # seconds until it must have come to its end
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
    (root / "etc/splitwg/domains.toml").chmod(0o600)
    os.chown(root / "etc/splitwg/domains.toml", 65534, 65534)  # somebody keeps his own list
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
    return mounts + (["--bind=/dev/net/tun"] if os.path.exists("/dev/net/tun") else [])


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


def test_a_reload_is_taken_over_by_the_same_process(machine: dict[str, Any]) -> None:
    assert told(machine, "reloaded") and machine["pid kept"] and machine["reload says"] == ""


def test_one_that_hangs_or_dies_comes_back_and_all_stays_closed_meanwhile(machine: dict[str, Any]) -> None:
    assert told(machine, "hung: restarted") and machine["killed: closed"] and machine["killed: restarted"]


@pytest.mark.skipif(
    not (shutil.which("wireguard-go") and os.path.exists("/dev/net/tun")), reason="needs wireguard-go and /dev/net/tun"
)
def test_a_userspace_wireguard_goes_on_over_crashes_and_restarts(machine: dict[str, Any]) -> None:
    assert told(machine, "wireguard goes on")


def test_a_stop_is_in_order_and_leaves_the_machine_closed(machine: dict[str, Any]) -> None:
    stop = told(machine, "stop")
    assert (stop["ActiveState"], stop["Result"]) == ("inactive", "success")
    assert machine["stopped: closed"] and machine["state file"] == "600"


def test_who_has_the_port_is_named_and_it_is_tried_until_the_port_is_free(machine: dict[str, Any]) -> None:
    assert re.search(r"taken by python3 \(pid \d+, inside.service\)", told(machine, "who has the port"))
    assert not machine["given up"] and machine["failed units"] == ""


def test_a_wrong_configuration_is_not_tried_again(machine: dict[str, Any]) -> None:
    for unit in told(machine, "wrong configuration"):
        assert (unit["ActiveState"], unit["Result"]) == ("failed", "exit-code")
