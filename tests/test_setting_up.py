"""Setup and revert on a root of their own: what is made, shown, rolled back and brought back.

Only what cannot be had here is played, systemd and the daemon; with them: tests/system.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from splitwgd import setting_up
from splitwgd.control import NoDaemon
from splitwgd.errors import ConfigError, MachineError
from splitwgd.files import Tree
from splitwgd.installing import DAEMON, Machine
from splitwgd.machine import shared
from splitwgd.programs import Programs, Ran
from splitwgd.setting_up import Setup
from tests.test_recorder import snapshot
from tests.worlds import WG

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="puts files that are root's")
RESOLV = "search lan\nnameserver 192.168.1.1\n"


class Machinery(Programs):
    """systemd, as far as setup asks it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.fails = ""
        self.active = False

    def run(self, *argv: str, given: str = "") -> Ran:
        line = " ".join(argv)
        self.said.append(line)
        if self.fails and self.fails in line:
            return Ran(1, "it would not")
        match argv[:2]:
            case ("systemctl", "is-active"):
                return Ran(0 if self.active else 3, "")
            case ("systemctl", "is-enabled"):
                return Ran(1, "")
            case ("systemctl", "show"):
                return Ran(0, "ActiveState=inactive\nUnitFileState=\n\nActiveState=inactive\nUnitFileState=")
            case ("systemctl", "start" | "restart" | "stop"):
                self.active = argv[1] != "stop"
        return Ran(0, "")

    def has(self, name: str) -> str:
        return ""


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Machinery:
    machinery = Machinery()

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        if not machinery.active:
            raise NoDaemon("splitwgd does not answer")
        return {}

    monkeypatch.setattr(setting_up, "ask", ask)
    monkeypatch.setattr(setting_up, "remove_from_kernel", lambda path: machinery.said.append("teardown"))
    monkeypatch.setattr(setting_up, "look", lambda tree, programs, listen: Machine(programs="/opt/bin"))
    return machinery


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for folder in ("etc/systemd/system", "etc/sysusers.d", "run/systemd/system", "var/lib"):
        (root / folder).mkdir(parents=True)
    (root / "etc/resolv.conf").write_text(RESOLV)
    (tmp_path / "vpn.conf").write_text(WG.replace("[Interface]", "[Interface]\nDNS = 10.64.0.1"))
    return root


def make(root: Path, programs: Machinery) -> list[str]:
    setup = Setup(Tree(str(root)), programs)
    prepared = setup.prepare(str(root.parent / "vpn.conf"))
    setup.carry_out(prepared)
    return list(prepared.shown)


def revert(root: Path, programs: Machinery, purge: bool = False) -> list[str]:
    return Setup(Tree(str(root)), programs).revert(purge)


def test_setup_ends_with_the_daemon_and_then_the_dns_and_revert_brings_all_back(
    root: Path, programs: Machinery
) -> None:
    before = snapshot(root)
    shown = make(root, programs)
    assert (root / "etc/resolv.conf").read_text().splitlines()[1:] == ["nameserver 127.0.0.1", "search lan"]
    assert (root / "etc/splitwg/wg0.conf").stat().st_mode & 0o777 == 0o600
    domains = (root / "etc/splitwg/domains.toml").read_text()
    assert 'tunneled = ["10.64.0.1"]' in domains and 'default = "auto"' in domains and "## " in domains
    assert "/opt/bin/splitwgd" in (root / "etc/systemd/system" / DAEMON).read_text()
    assert [line for line in shown if line.startswith(("new", "change", "enable", "user", "start"))] == [
        "new     /etc/splitwg/wg0.conf (only root reads it)",
        "new     /etc/splitwg/domains.toml",
        "new     /etc/sysusers.d/splitwg.conf",
        "user    splitwg",
        "new     /etc/systemd/system/splitwgd-guard.service",
        "new     /etc/systemd/system/splitwgd.service",
        "enable  splitwgd-guard.service",
        "enable  splitwgd.service",
        "start   splitwgd.service, splitwgd-guard.service",
        "new     /etc/splitwg/resolv.conf",
        "change  /etc/resolv.conf",
    ]
    starts = [line for line in programs.said if line.startswith("systemctl start")]
    assert [line.split()[-1] for line in starts] == ["splitwgd.service", "splitwgd-guard.service"]
    assert revert(root, programs, purge=True) == []
    assert "systemctl stop splitwgd.service splitwgd-guard.service" in programs.said and "teardown" in programs.said
    assert snapshot(root) == before


def test_the_configuration_stays_unless_it_is_purged(root: Path, programs: Machinery) -> None:
    make(root, programs)
    revert(root, programs)
    assert sorted(os.listdir(root / "etc/splitwg")) == ["domains.toml", "wg0.conf"]
    assert (root / "etc/resolv.conf").read_text() == RESOLV
    assert revert(root, programs) == []
    make(root, programs)
    assert revert(root, programs, purge=True) == []
    assert not (root / "etc/splitwg").exists()


def test_twice_changes_nothing_and_shows_nothing(root: Path, programs: Machinery) -> None:
    make(root, programs)
    after, said = snapshot(root), len(programs.said)
    assert make(root, programs) == []
    assert snapshot(root) == after
    assert not any("start" in line.split() for line in programs.said[said:])


def test_another_wireguard_file_is_put_in_place_and_the_daemon_restarted(root: Path, programs: Machinery) -> None:
    make(root, programs)
    (root.parent / "vpn.conf").write_text(WG.replace("[Interface]", "[Interface]\nMTU = 1400"))
    assert make(root, programs) == [
        "change  /etc/splitwg/wg0.conf (only root reads it)",
        "start   splitwgd.service, splitwgd-guard.service",
    ]
    assert "systemctl restart splitwgd.service" in programs.said


def test_a_configuration_that_is_there_is_kept_with_its_comments(root: Path, programs: Machinery) -> None:
    (root / "etc/splitwg").mkdir()
    mine = '# mine\n[dns]\ntunneled = ["10.1.0.1"] # there\ndefault = ["192.0.2.1"]\n[tunneled]\ndomains = []\n'
    (root / "etc/splitwg/domains.toml").write_text(mine)
    make(root, programs)
    assert (root / "etc/splitwg/domains.toml").read_text().startswith(mine)
    assert 'config = "/etc/splitwg/wg0.conf"' in (root / "etc/splitwg/domains.toml").read_text()


def test_an_example_that_nobody_has_touched_is_made_his_own(root: Path, programs: Machinery) -> None:
    (root / "etc/splitwg").mkdir()
    (root / "etc/splitwg/domains.toml").write_text(shared("domains.toml"))
    make(root, programs)
    assert 'tunneled = ["10.64.0.1"]' in (root / "etc/splitwg/domains.toml").read_text()


@pytest.mark.parametrize("fails", ["daemon-reload", "enable", "sysusers", "systemctl start", "resolv"])
def test_what_fails_is_rolled_back_to_the_last_byte(root: Path, programs: Machinery, fails: str) -> None:
    before = snapshot(root)
    programs.fails = fails
    if fails == "resolv":
        (root / "etc/resolv.conf").unlink()
        (root / "etc/resolv.conf").mkdir()
        before = snapshot(root)
    with pytest.raises(MachineError, match="resolv.conf cannot be written" if fails == "resolv" else "it would not"):
        make(root, programs)
    assert snapshot(root) == before
    assert not programs.active


def test_ctrl_c_is_rolled_back_as_well(root: Path, programs: Machinery, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(root)

    def interrupted(self: Setup, was_active: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Setup, "_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(root, programs)
    assert snapshot(root) == before


def test_nothing_is_changed_before_everything_is_in_order(
    root: Path, programs: Machinery, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(root)
    monkeypatch.setattr(setting_up, "look", lambda *_: Machine(kernel="this kernel has no nf_tables", taken=("taken",)))
    with pytest.raises(MachineError, match=r"^this kernel has no nf_tables\ntaken$"):
        make(root, programs)
    (root.parent / "vpn.conf").write_text("[Interface]\n")
    with pytest.raises(ConfigError, match=r"vpn.conf: \[Interface\] has no PrivateKey"):
        make(root, programs)
    (root.parent / "vpn.conf").unlink()
    with pytest.raises(ConfigError, match="vpn.conf: cannot be read"):
        make(root, programs)
    with pytest.raises(ConfigError, match="name your VPN's: splitwg setup FILE"):
        Setup(Tree(str(root)), programs).prepare(None)
    (root / "etc/splitwg").write_text("a file in the way")
    (root.parent / "vpn.conf").write_text(WG)
    monkeypatch.setattr(setting_up, "look", lambda *_: Machine())
    with pytest.raises(MachineError, match="/etc/splitwg/wg0.conf cannot be written .Not a directory.; move away"):
        make(root, programs)
    (root / "etc/splitwg").unlink()
    assert snapshot(root) == before


def test_the_dns_is_taken_and_given_back_as_often_as_one_likes(root: Path, programs: Machinery) -> None:
    setup = Setup(Tree(str(root)), programs)
    assert setup.take() == [] and setup.give_back() == []  # never set up
    make(root, programs)
    taken = snapshot(root)
    assert setup.take() == []
    assert setup.give_back() == [] and setup.give_back() == []
    assert (root / "etc/resolv.conf").read_text() == RESOLV
    assert not (root / "etc/splitwg/resolv.conf").exists()
    assert setup.take() == ["new     /etc/splitwg/resolv.conf", "new     /etc/resolv.conf"]
    assert {k: v[0] for k, v in snapshot(root).items() if "book" not in k} == {
        k: v[0] for k, v in taken.items() if "book" not in k
    }


def test_without_a_daemon_nothing_is_taken(root: Path, programs: Machinery) -> None:
    make(root, programs)
    setup = Setup(Tree(str(root)), programs)
    setup.give_back()
    programs.active = False
    with pytest.raises(MachineError, match="does not answer; the machine's DNS stays as it is"):
        setup.take()
    assert (root / "etc/resolv.conf").read_text() == RESOLV


def test_a_teardown_gives_the_dns_back_as_well(root: Path, programs: Machinery) -> None:
    make(root, programs)
    assert Setup(Tree(str(root)), programs).tear_down("/etc/splitwg/domains.toml") == []
    assert (root / "etc/resolv.conf").read_text() == RESOLV and programs.said[-1] == "teardown"


def test_what_dhclient_wrote_since_is_the_networks_word(root: Path, programs: Machinery) -> None:
    make(root, programs)
    (root / "etc/resolv.conf").write_text("nameserver 10.9.9.9\n")
    setup = Setup(Tree(str(root)), programs)
    setup.take()
    assert "nameserver 10.9.9.9" in (root / "etc/splitwg/resolv.conf").read_text()
    revert(root, programs)
    assert (root / "etc/resolv.conf").read_text() == "nameserver 10.9.9.9\n"
