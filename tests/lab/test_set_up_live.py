"""A whole machine in the lab's client, booted and busy, while it is set up, stopped, started and reverted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from tests.system.test_set_up import make_root
from tests.system.test_units import BOOTED

from .world import Lab

PHASES = ("before", "setup", "stop", "start", "give-back", "take", "revert", "after")


@pytest.fixture(scope="module")
def busy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of it, as `inside_stream` tells it."""
    if not (shutil.which("systemd-nspawn") and os.path.exists("/dev/net/tun")):
        pytest.skip("needs systemd-nspawn (systemd-container) and /dev/net/tun")
    root = tmp_path_factory.mktemp("busy")
    mounts = make_root(root)
    inside = root / "etc/systemd/system/inside.service"
    inside.write_text(inside.read_text().replace("inside_setup.py", "inside_stream.py"))
    (root / "root/vpn.conf").write_text(lab.wg_conf.replace("[Interface]", f"[Interface]\nDNS = {lab.vpn_dns[0]}"))
    (root / "etc/resolv.conf").write_text(f"search lan\nnameserver {lab.public_dns[0]}\n")
    argv = ["systemd-nspawn", f"--directory={root}", "--machine=splitwg-busy", "--register=no", "--keep-unit"]
    argv += [f"--network-namespace-path=/proc/{lab.client.pid}/ns/net", "--capability=CAP_NET_ADMIN"]
    argv += ["--resolv-conf=off", "--boot", "--quiet", "--console=pipe", *mounts, "systemd.show_status=no"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOTED, check=False)
    report = root / "out/report.json"
    if done.returncode and not any((root / "out").iterdir()):
        pytest.skip(f"systemd-nspawn cannot boot here: {done.stderr.strip()[-200:]}")
    errors = root / "out/errors"
    assert report.exists(), done.stdout + done.stderr + (errors.read_text() if errors.exists() else "")
    found: dict[str, Any] = json.loads(report.read_text())
    print(found.pop("journal"), json.dumps(found, indent=1))
    return found


def test_no_program_misses_a_lookup_whatever_is_done(busy: dict[str, Any]) -> None:
    assert busy["lost"] == {}
    assert min(busy["asked"][phase] for phase in PHASES) > 5


def test_what_is_listed_takes_the_tunnel_while_it_is_set_up(lab: Lab, busy: dict[str, Any]) -> None:
    outside, inside = [lab.client_v4, lab.client_v4], [lab.vpn_v4, lab.client_v4]
    for phase in ("setup", "start", "give-back", "take"):
        assert busy[f"{phase}: callers"] == inside, phase
    for phase in ("stop", "revert"):
        assert busy[f"{phase}: callers"] == outside, phase


def test_it_is_as_it_was_afterwards(busy: dict[str, Any]) -> None:
    assert busy["changed"] == [] and "status 0" in busy["revert says"]
