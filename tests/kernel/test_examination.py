"""What doctor sees of a real machine: two that are in disorder each in their way, and one without rights."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from splitwgd.examination import look_around
from splitwgd.files import Tree
from splitwgd.findings import MEND, examine
from splitwgd.programs import Programs
from tests.kernel.spaces import Space, sh
from tests.worlds import make_config

CONFIG = make_config()


def test_a_machine_in_disorder(space: Space, tmp_path: Path) -> None:
    sh("ip link set lo up; ip tuntap add wg0 mode tun; ip link set wg0 mtu 1500 up")
    sh("ip tuntap add eth0 mode tap; ip link set eth0 up; ip address add 192.0.2.2/24 dev eth0")
    sh("ip route add default via 192.0.2.1; ip route add default dev eth0 table 100")
    sh("ip rule add fwmark 0x1 lookup 52 prio 90")
    sh("echo 1 >/proc/sys/net/ipv4/conf/wg0/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter")
    sh("nft 'add table ip theirs; add chain ip theirs c { type filter hook output priority 0; }'")
    sh("nft add rule ip theirs c meta mark set 0x41")
    policies = tmp_path / "etc/firefox/policies"
    policies.mkdir(parents=True)
    (policies / "policies.json").write_text('{"policies": {"DNSOverHTTPS": {"Enabled": true}}}')
    (tmp_path / "etc/nsswitch.conf").write_text("hosts: files\n")
    (tmp_path / "etc/resolv.conf").write_text("nameserver 192.168.1.1\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
        thief.bind(("127.0.0.1", 53))
        seen = look_around(Tree(str(tmp_path)), Programs(), CONFIG)
    assert not seen.running
    (holder,) = seen.holders or ()
    assert (str(holder.address), holder.transport, holder.pid) == ("127.0.0.1", "UDP", os.getpid())
    to_mend = {finding.about for finding in examine(seen, CONFIG) if finding.grade == MEND}
    wanted = {
        "splitwgd",
        "port 53",
        "/etc/nsswitch.conf",
        "/etc/resolv.conf",
        "rules",
        "routes",
        "marks",
        "rp_filter",
        "MTU",
    }
    assert wanted | {"/etc/firefox/policies/policies.json"} <= to_mend


def test_without_rights_it_goes_on_and_says_what_it_could_not_see(space: Space) -> None:
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv (util-linux)")
    program = "import json; from splitwgd.cli import main\nmain(['--config', '/nothing', 'doctor', '--json'])"
    argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    grades = {finding["about"]: finding["grade"] for finding in json.loads(done.stdout)}
    assert done.returncode == 1 and grades["nf_tables"] == "unseen" and grades["splitwgd"] == MEND
