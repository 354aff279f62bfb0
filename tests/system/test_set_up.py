"""Setup, revert and what can go wrong between them, on a real systemd: this machine's own, booted in a container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.hosts import NotEnclosed, require_enclosure
from tests.system.test_units import BOOTED, PROGRAM, ROOT, mount_tun
from tests.worlds import WG

INSIDE = """
[Service]
Type=exec
ExecStart=/usr/bin/python3 -I /srv/splitwg/tests/system/inside_setup.py
ExecStopPost=/bin/systemctl --no-block --force poweroff
StandardError=file:/out/errors
"""
RESOLVED = ROOT / ".venv/systemd-resolved"
SERVFAIL, NXDOMAIN = 2, 3
RESOLV = "search lan\nnameserver 192.168.1.1\n"


def make_root(root: Path) -> list[str]:
    """A machine that never heard of splitwg, but for its programs; returns what nspawn has to mount."""
    files = {
        "etc/os-release": Path("/etc/os-release").read_text(),
        "etc/machine-id": "0" * 31 + "2\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nsystemd-resolve:x:990:990::/:/bin/false\n",
        "etc/group": "root:x:0:\nsystemd-resolve:x:990:\n",
        "etc/systemd/resolved.conf": "[Resolve]\nDNS=192.0.2.53\nDomains=lan\n",
        "root/resolv.conf": RESOLV,
        "etc/resolv.conf": RESOLV,
        "etc/systemd/system/inside.service": INSIDE,
        "root/vpn.conf": WG.replace("[Interface]", "[Interface]\nDNS = 10.64.0.1"),
        "programs/bin/splitwgd": PROGRAM.format("daemon"),
        "programs/bin/splitwg": PROGRAM.format("cli"),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in ("splitwgd", "splitwg"):
        (root / "programs/bin" / name).chmod(0o755)
    os.utime(root / "etc/resolv.conf", ns=(1, 1))
    os.utime(root / "root/resolv.conf", ns=(1, 1))
    if (RESOLVED / "usr").exists():  # where ./do test has unpacked Debian's
        shutil.copytree(RESOLVED / "usr", root / "programs", dirs_exist_ok=True, symlinks=True)
        shutil.copytree(RESOLVED / "lib", root / "programs/lib", dirs_exist_ok=True, symlinks=True)
    for name in ("usr", "out", "srv/splitwg", "var", "tmp", "run", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    root.chmod(0o755)  # there is a user beside root
    (root / "etc/systemd/system/multi-user.target.wants").mkdir()
    (root / "etc/systemd/system/multi-user.target.wants/inside.service").symlink_to("../inside.service")
    mounts = [f"--overlay-ro=/usr:{root}/programs:/usr", f"--bind-ro={ROOT}:/srv/splitwg"]
    mounts += [f"--bind-ro={Path(sys.prefix).resolve()}:/srv/environment"]
    return mounts + mount_tun(root)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of it, as `inside_setup` tells it."""
    try:
        require_enclosure()
    except NotEnclosed as error:
        pytest.skip(f"needs root: run sudo ./do test ({error})")
    if not shutil.which("systemd-nspawn"):
        pytest.skip("needs systemd-nspawn (systemd-container)")
    root = tmp_path_factory.mktemp("machine")
    argv = ["systemd-nspawn", f"--directory={root}", "--machine=splitwg-setup", "--register=no", "--keep-unit"]
    argv += ["--private-network", "--boot", "--quiet", "--console=pipe", *make_root(root), "systemd.show_status=no"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOTED, check=False)
    report = root / "out/report.json"
    if done.returncode and not any((root / "out").iterdir()):
        pytest.skip(f"systemd-nspawn cannot boot here: {done.stderr.strip()[-200:]}")
    errors = root / "out/errors"
    assert report.exists(), done.stdout + done.stderr + (errors.read_text() if errors.exists() else "")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def told(machine: dict[str, Any], what: str) -> Any:
    """What `inside_setup` found; with all of it for who has to mend it."""
    print(json.dumps({key: value for key, value in machine.items() if key != "journal"}, indent=1))
    print(machine["journal"])
    return machine[what]


def test_setup_ends_with_a_daemon_that_runs_starts_at_boot_and_is_asked(machine: dict[str, Any]) -> None:
    status, said = told(machine, "setup")
    assert status == 0 and "splitwgd runs, and this machine asks it" in said
    assert (machine["active"], machine["enabled"]) == (["active", "active"], ["enabled", "enabled"])
    assert machine["answered"] and machine["key"] == "600 root"
    assert machine["resolv.conf"].splitlines()[1:] == ["nameserver 127.0.0.1", "search lan"]


def test_a_second_setup_changes_nothing(machine: dict[str, Any]) -> None:
    assert told(machine, "setup twice") == [0, "everything is set up already\n"]
    assert machine["twice changed"] == []


def test_the_dns_goes_back_and_comes_again(machine: dict[str, Any]) -> None:
    assert told(machine, "give-back") == [0, ""] and machine["given back"] == RESOLV.strip()
    assert machine["restart: taken"] == machine["start: taken"] == machine["resolv.conf"].strip()
    assert machine["stop: given back"] == RESOLV.strip()
    assert machine["take"][0] == 0 and machine["taken"] == machine["resolv.conf"].strip()


def test_revert_and_purge_leave_every_byte_as_it_was(machine: dict[str, Any]) -> None:
    assert told(machine, "revert")[0] == 0 and machine["kept"] == ["domains.toml", "wg0.conf"]
    assert machine["revert twice"] == [0, "this machine is not set up: there is nothing to bring back\n"]
    assert machine["purge"][0] == 0
    assert machine["reverted"] == [] and machine["units left"] == ""


def test_whenever_setup_is_killed_revert_leaves_every_byte_as_it_was(machine: dict[str, Any]) -> None:
    rounds = told(machine, "killed")
    assert len(rounds) > 3
    assert [words for words in rounds.values() if words != [0]] == []


def test_ctrl_c_takes_back_what_was_done(machine: dict[str, Any]) -> None:
    status, *changes = told(machine, "Ctrl-C")
    assert status != 0 and changes == []


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("port taken", "127.0.0.1 port 53 (UDP) is taken by python3"),
        ("no start", "it will not"),
        ("disk full", "(No space left on device); make room on that disk"),
        ("a mount", "/etc/resolv.conf cannot be written (Device or resource busy); it is a mount"),
        ("read-only", "(Read-only file system); mount that file system so that it can be written"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_half_done(machine: dict[str, Any], what: str, words: str) -> None:
    status, said, changes = told(machine, what)
    assert status == 1 and words in said and "Traceback" not in said
    assert changes == []


def test_without_rights_it_is_said(machine: dict[str, Any]) -> None:
    assert told(machine, "nobody").splitlines()[-2:] == [
        "splitwg: setup changes files of root's; run it as root (sudo splitwg setup)",
        "1",
    ]
    assert "run as root or with CAP_NET_ADMIN" in machine["no netlink"]
    assert machine["bad changed"] == []


@pytest.fixture
def resolved(machine: dict[str, Any]) -> dict[str, Any]:
    """What became of a machine whose DNS is systemd-resolved's."""
    if "resolved" not in machine:
        pytest.skip("needs systemd-resolved, which ./do test unpacks")
    found: dict[str, Any] = told(machine, "resolved")
    assert found["before"] == [0, SERVFAIL], "its stub has to answer, and without us there is no such server"
    return found


def test_resolveds_clients_are_answered_by_us_whichever_way_they_ask(resolved: dict[str, Any]) -> None:
    status, said = resolved["setup"]
    assert status == 0 and "run     systemctl try-reload-or-restart systemd-resolved.service" in said
    assert resolved["set up"] == resolved["restarted"] == [0, NXDOMAIN]
    assert resolved["link"] == "../run/systemd/resolve/stub-resolv.conf"
    assert "not found" in resolved["through it"]
    assert resolved["doctor"] == ""


def test_auto_asks_the_servers_that_resolved_was_given(resolved: dict[str, Any]) -> None:
    assert resolved["default"] == 'default = "auto"' and resolved["auto"]
    assert resolved["its servers"] == ["nameserver 192.0.2.53", "nameserver 127.0.0.1"]


def test_resolved_is_given_back_and_taken_again_and_reverted(resolved: dict[str, Any]) -> None:
    assert resolved["given back"] == [True, SERVFAIL]
    assert resolved["taken again"] == [True, NXDOMAIN]
    assert resolved["revert"][0] == 0
    assert resolved["reverted"] == [True, SERVFAIL] and resolved["left"] == []
