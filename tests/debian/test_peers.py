"""splitwg beside other programs on a booted Debian 13 in the lab: firewalls, DNS servers, whoever sets the network up.

Each is started, then splitwg is set up, then the peer does what it does; what leaves in clear is counted on the wire.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.debian.inside_peers import PEERS
from tests.debian.packages import package
from tests.debian.roots import BESIDE, NoRoot, furnished
from tests.debian.test_machine import BOOTED, INSIDE, nspawn
from tests.lab.capture import Packet, Seen
from tests.lab.conftest import lab  # noqa: F401  # the fixture
from tests.lab.world import Lab
from tests.lab.zone import addresses

pytestmark = pytest.mark.timeout(600)  # the fixture's boot is in the first test's time
DNSMASQ = """
listen-address=198.51.100.2
bind-interfaces
no-resolv
server=203.0.113.53
"""
UNBOUND = """
server:
    interface: 198.51.100.2
    access-control: 198.51.100.0/25 allow
    module-config: "iterator"
forward-zone:
    name: "."
    forward-addr: 203.0.113.53
"""
CONNECTION = """
[connection]
id=lab
type=ethernet
interface-name=eth0
autoconnect=true
[ipv4]
method=manual
address1=198.51.100.2/25,198.51.100.1
dns=203.0.113.53;
dns-search=lan;
[ipv6]
method=ignore
"""
DHCP = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=client", "--user=root"]
DHCP += ["--dhcp-range=198.51.100.2,198.51.100.2,255.255.255.128,1h", "--dhcp-option=3,198.51.100.1", "--no-ping"]
DHCP += ["--dhcp-option=6,203.0.113.53", "--dhcp-option=15,lan", "--dhcp-leasefile=/run/leases", "--dhcp-authoritative"]
DHCP += ["--pid-file=/run/dhcp.pid"]


@dataclass
class Lived:
    """What the machine told of each peer, and what the ISP saw."""

    lab: Lab
    report: dict[str, dict[str, Any]]
    seen: Seen

    def in_clear(self, peer: str) -> list[Packet]:
        """What of the tunneled names left in clear while splitwg was there beside a peer."""
        begun, ended = self.report[peer]["from"], self.report[peer]["until"]
        found = self.seen.questions("tunneled.example")
        names = ("tunneled.example", "n1.fresh.tunneled.example", "n2.fresh.tunneled.example")
        found += [packet for name in names for packet in self.seen.from_client_to(*addresses(name))]
        return [packet for packet in found if begun <= packet.time <= ended]


@pytest.fixture(scope="module")
def lived(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:  # noqa: F811
    """It has lived beside those that a selected test asks for."""
    deb = package("first")
    if not shutil.which("systemd-nspawn"):
        pytest.skip("needs systemd-nspawn (systemd-container)")
    items = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = {call.params["peer"] for call in items if call is not None and "peer" in call.params}
    files: dict[str, str | Path] = {
        "etc/machine-id": "0" * 31 + "4\n",
        "etc/hostname": "debian\n",
        "etc/resolv.conf": f"search lan\nnameserver {lab.public_dns[0]}\n",
        "etc/systemd/system/inside.service": INSIDE.replace("inside.py", "inside_peers.py"),
        "etc/dnsmasq.d/lab.conf": DNSMASQ,
        "etc/unbound/unbound.conf.d/lab.conf": UNBOUND,
        "etc/NetworkManager/system-connections/lab.nmconnection": CONNECTION,
        "root/vpn.conf": lab.wg_conf.replace("[Interface]", f"[Interface]\nDNS = {lab.vpn_dns[0]}"),
        "srv/packages/first.deb": deb,
        "srv/peers": " ".join(sorted(wanted)),
    }
    try:
        with furnished(BESIDE, tmp_path_factory.mktemp("peers"), files, peers=True) as root:
            yield live(lab, root)
    except NoRoot as error:
        pytest.skip(str(error))


def live(lab: Lab, root: Path) -> Lived:  # noqa: F811
    """Its one boot."""
    for name in ("out", "srv/splitwg"):
        (root / name).mkdir(parents=True)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "inside.service").symlink_to("../inside.service")
    (root / "etc/NetworkManager/system-connections/lab.nmconnection").chmod(0o600)
    isp = ["nsenter", f"--net=/proc/{lab.isp.pid}/ns/net", "chroot", str(root)]
    with lab.capture() as seen, subprocess.Popen([*isp, *DHCP], stderr=subprocess.DEVNULL) as dhcp:
        try:
            done = subprocess.run(
                nspawn(lab, root), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOTED, check=False
            )
        finally:
            dhcp.kill()
    report = root / "out/report.json"
    if done.returncode and not any((root / "out").iterdir()):
        pytest.skip(f"systemd-nspawn cannot boot here: {done.stderr.strip()[-200:]}")
    progress = "".join(path.read_text() for path in (root / "out").glob("progress*"))
    assert report.exists(), done.stdout + done.stderr + progress + (root / "out/errors").read_text()
    return Lived(lab, json.loads(report.read_text()), seen)


@pytest.mark.parametrize("peer", [peer.package for peer in PEERS])
def test_each_does_what_it_does_and_nothing_leaves_in_clear(lived: Lived, peer: str) -> None:
    found = lived.report[peer]
    print(json.dumps({key: value for key, value in found.items() if key != "journal"}, indent=1), found["journal"])
    wanted = [lived.lab.vpn_v4, lived.lab.client_v4, lived.lab.vpn_v6]
    assert found["ready"] and all(status == 0 for status, _ in found["begin"])
    assert found["setup"][0] == 0 and found["set up"] == wanted
    for act, (status, said, reached) in found["acts"].items():
        assert status == 0 and reached == wanted, (act, said)
        assert not act.startswith("dig") or said.strip() in addresses(act.split()[3])
    seen = set(found["seen as"])
    assert seen & {lived.lab.vpn_v4, lived.lab.vpn_v6} and not seen & {lived.lab.client_v4, lived.lab.client_v6}
    assert lived.in_clear(peer) == []
    assert [line for line in found["doctor"] if line["grade"] == "mend"] == [] != found["doctor"]
    assert found["revert"][0] == 0 and found["reverted"] == [] and found["back"] == [True, lived.lab.client_v4]


def test_the_isps_eyes_are_open(lived: Lived) -> None:
    assert lived.seen.tunnel and lived.seen.questions("plain.example")
