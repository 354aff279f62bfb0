"""The package on a booted Debian 12 and Debian 13 in the lab: installed, set up, upgraded, rebooted, purged.

The same steps run on any machine (`tests.debian.inside`). What leaves in clear is counted on the lab's wire meanwhile.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.debian.packages import package
from tests.debian.roots import NoRoot, furnished
from tests.lab.capture import Seen
from tests.lab.conftest import lab  # noqa: F401  # the fixture
from tests.lab.world import Lab
from tests.lab.zone import addresses
from tests.system.test_units import ROOT, mount_tun
from tests.vm.kernel import RELEASES

pytestmark = pytest.mark.timeout(900)  # the fixture's two boots are in the first test's time
BOOTED = 400
INSIDE = """
[Unit]
After=splitwgd.service systemd-resolved.service
[Service]
Type=exec
ExecStart=/usr/bin/python3 -I /srv/splitwg/tests/debian/inside.py
ExecStopPost=/bin/systemctl --no-block poweroff
StandardError=append:/out/errors
[Install]
WantedBy=multi-user.target
"""
# What a reboot does to a kernel, and the end of a container does not do to the network that it was given.
NEW_KERNEL = """
nft flush ruleset
ip link del wg0 2>/dev/null
for family in -4 -6; do
    ip $family rule flush protocol 83
    ip $family route flush table 100 2>/dev/null
done
conntrack -F 2>/dev/null
"""


@dataclass
class Lived:
    """What became of a machine: what it told of its two boots, what is in the kernel between, what the ISP saw."""

    lab: Lab
    release: str
    first: dict[str, Any]
    second: dict[str, Any]
    between: str
    seen: Seen

    def told(self, boot: int, what: str) -> Any:
        """What it found; with all of it for who has to mend it."""
        found = (self.first, self.second)[boot - 1]
        print(json.dumps({key: value for key, value in found.items() if key != "journal"}, indent=1))
        print(found.get("journal"))
        return found[what]


@pytest.fixture(scope="module", params=RELEASES)
def machine(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:  # noqa: F811
    """It has lived."""
    packages = {which: package(which) for which in ("first", "second")}
    if not shutil.which("systemd-nspawn"):
        pytest.skip("needs systemd-nspawn (systemd-container)")
    try:
        with client_machine(lab, request.param, tmp_path_factory.mktemp("debian"), INSIDE, **packages) as root:
            yield live(lab, request.param, root)
    except NoRoot as error:
        pytest.skip(str(error))


@contextmanager
def client_machine(lab: Lab, release: str, folder: Path, unit: str, **packages: Path) -> Iterator[Path]:  # noqa: F811
    """The root of a machine for the lab's client, with names and servers, packages, and the unit that is its story."""
    files: dict[str, str | Path] = {
        "etc/machine-id": "0" * 31 + "3\n",
        "etc/hostname": "debian\n",
        "etc/systemd/journald.conf.d/persistent.conf": "[Journal]\nStorage=persistent\n",
        "etc/systemd/system/inside.service": unit,
        "root/vpn.conf": lab.wg_conf.replace("[Interface]", f"[Interface]\nDNS = {lab.vpn_dns[0]}"),
        **{f"srv/packages/{which}.deb": path for which, path in packages.items()},
    }
    if release == "trixie":
        files["etc/systemd/resolved.conf.d/network.conf"] = f"[Resolve]\nDNS={lab.public_dns[0]}\n"
    else:
        files["etc/resolv.conf"] = f"search lan\nnameserver {lab.public_dns[0]}\n"
    with furnished(release, folder, files) as root:
        for name in ("out", "srv/splitwg"):
            (root / name).mkdir(parents=True)
        wants = root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "inside.service").symlink_to("../inside.service")
        yield root


def live(lab: Lab, release: str, root: Path) -> Lived:  # noqa: F811
    """Both boots."""
    argv = nspawn(lab, root)
    reports = []
    between = ""
    with lab.capture() as seen:
        for number in (1, 2):
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOTED, check=False
            )
            report = root / f"out/report-{number}.json"
            if done.returncode and not any((root / "out").iterdir()):
                pytest.skip(f"systemd-nspawn cannot boot here: {done.stderr.strip()[-200:]}")
            progress = "".join(path.read_text() for path in (root / "out").glob("progress-*"))
            assert report.exists(), done.stdout + done.stderr + progress + (root / "out/errors").read_text()
            reports.append(json.loads(report.read_text()))
            if number == 1:
                between = in_its_network(lab, root, "nft list tables; ip rule; ip route show table 100")
                in_its_network(lab, root, NEW_KERNEL)
    first, second = reports
    return Lived(lab, release, first, second, between, seen)


def nspawn(lab: Lab, root: Path) -> list[str]:  # noqa: F811
    """What boots a system on the client of the lab."""
    # A machine may write the settings of its network, and a container in a network that it was given may not.
    writable = "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network"
    argv = ["env", writable, "systemd-nspawn", f"--directory={root}", "--machine=splitwg-debian"]
    argv += ["--register=no", "--keep-unit"]
    argv += [f"--network-namespace-path=/proc/{lab.client.pid}/ns/net", "--capability=CAP_NET_ADMIN"]
    argv += ["--resolv-conf=off", f"--bind-ro={ROOT}:/srv/splitwg", "--boot", "--quiet", "--console=pipe"]
    return [*argv, *mount_tun(root), "systemd.show_status=no"]


def in_its_network(lab: Lab, root: Path, script: str) -> str:  # noqa: F811
    """What a script says. With the system's own programs: Debian 12's nft cannot read what Debian 13's has made."""
    argv = ["nsenter", f"--net=/proc/{lab.client.pid}/ns/net", "chroot", str(root), "sh", "-c", script]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def test_apt_installs_it_and_it_waits_for_setup(machine: Lived) -> None:
    status, said = machine.told(1, "install")
    assert status == 0 and "warning" not in said.lower(), said
    assert machine.first["version"].splitlines()[1:] == ["splitwg, version 0.1.0", "splitwgd 0.1.0"]
    assert int(machine.first["compiled"]) > 50
    assert machine.first["before setup"] == ["disabled", "inactive"]


def test_whoever_only_tried_it_is_rid_of_it(machine: Lived) -> None:
    assert machine.told(1, "tried")[0] == 0 and machine.first["not wanted"][0] == 0
    assert machine.first["purged untouched"] == []


def test_it_is_compiled_again_for_another_python(machine: Lived) -> None:
    assert machine.told(1, "another Python") == [0, ""]
    assert machine.first["compiled again"].split() == [machine.first["compiled"], "0"]


def test_none_of_the_systems_python_libraries_is_taken(machine: Lived) -> None:
    assert machine.told(1, "of the system's Python") == "[]"


def test_the_articles_four_tests_hold(machine: Lived) -> None:
    own, vpn = machine.lab.client_v4, machine.lab.vpn_v4
    for words in ("setup", "enable", "add", "down", "up"):
        assert machine.told(1, words)[0] == 0, words
    assert machine.first["tunneled, plain"] == machine.first["up: tunneled, plain"] == [vpn, own]
    assert machine.first["down: tunneled, plain"] == ["", own]
    assert machine.first["later: before"] == own
    assert machine.first["later: noticed"] and machine.first["later: after"] == vpn
    assert machine.first["lie"] == addresses("blocked.example")[0]
    assert machine.first["doctor"][0] == 0, machine.first["doctor"]


def test_the_journal_tells_what_happened(machine: Lived) -> None:
    journal = machine.told(1, "journal")
    assert "ready: " in journal and "reloaded: " in journal and "Traceback" not in journal


def test_reload_restart_and_upgrade_stay_closed(machine: Lived) -> None:
    stream = machine.told(1, "streams")
    assert min(stream["asked"][phase] for phase in ("reload", "restart", "upgrade")) > 5
    assert machine.first["upgrade"][0] == 0 and machine.first["upgraded"].endswith("-2")
    assert not machine.first["reload: another process"] and machine.first["upgrade: another process"]
    assert machine.first["upgraded: active"] == ["active", "active"]
    assert machine.first["upgraded: tunneled, plain"] == [machine.lab.vpn_v4, machine.lab.client_v4]
    seen = set(stream["seen as"])
    assert seen & {machine.lab.vpn_v4, machine.lab.vpn_v6}
    assert not seen & {machine.lab.client_v4, machine.lab.client_v6}
    assert stream["lost"] == {}


def test_it_is_there_after_the_reboot(machine: Lived) -> None:
    shutdown = machine.told(2, "journal of the boot before")
    assert all(words in machine.between for words in ("inet wg_routing", "lookup 100", "blackhole default")), (
        machine.between + shutdown
    )
    assert machine.told(2, "active") and machine.second["failed"] == ""
    assert machine.second["tunneled, plain"] == [machine.lab.vpn_v4, machine.lab.client_v4]


def test_revert_brings_back_what_was_there(machine: Lived) -> None:
    assert machine.told(2, "revert")[0] == 0 and machine.second["reverted"] == []


def test_no_lookup_is_lost_while_it_comes_and_goes(machine: Lived) -> None:
    stream = machine.told(2, "streams")
    # What resolved is at when it reads its settings again it gives up, whoever tells it to.
    at_once = 1 if machine.release == "trixie" else 0
    assert {phase: lost for phase, lost in stream["lost"].items() if len(lost) > at_once} == {}
    assert min(stream["asked"][phase] for phase in ("stop", "start", "revert", "setup", "remove", "purge")) > 5


def test_remove_brings_the_machine_back_and_purge_leaves_nothing(machine: Lived) -> None:
    assert machine.told(2, "again: tunneled") == [machine.lab.vpn_v4]
    assert machine.second["remove"][0] == 0
    assert machine.second["removed"] == [] and machine.second["kept"] == ["domains.toml", "wg0.conf"]
    assert machine.second["purge"][0] == 0 and machine.second["purged"] == []
    assert machine.second["left"] == [] and machine.second["dpkg"] == ""


def test_every_command_of_the_documents_does_what_they_say(machine: Lived) -> None:
    documented = machine.told(2, "documented")
    assert [line for line in documented if line["status"]] == []
    said = {line["command"]: line["said"] for line in documented}
    assert {line["page"] for line in documented} >= {"quick-start", "how-it-works", "migrating", "troubleshooting"}
    assert said["curl tunneled.example"].splitlines()[-1] in (machine.lab.vpn_v4, machine.lab.vpn_v6)
    (refused,) = (words for command, words in said.items() if command.endswith("|| echo refused"))
    assert refused.splitlines()[-1] == "refused"
    assert machine.second["followed to the end"] == []


def test_nothing_of_what_is_listed_left_in_clear(machine: Lived) -> None:
    for name in ("tunneled.example", "blocked.example"):
        assert machine.seen.questions(name) == []
        assert machine.seen.from_client_to(*addresses(name)) == []
    assert machine.seen.tunnel and machine.seen.questions("plain.example"), "the ISP's eyes are open"
