"""What setup puts on a machine, and why it cannot."""

from __future__ import annotations

import pytest

from splitwgd.changes import Change, Deed, File
from splitwgd.installing import (
    DAEMON,
    DOMAINS,
    GUARD,
    USERS,
    WIREGUARD,
    Machine,
    configuration,
    hindrances,
    named_wireguard,
    service,
    settings,
    vpn_servers,
)

TEXTS = {USERS: "u splitwg", DAEMON: "ExecStart=/usr/bin/splitwgd\nExecStop=/usr/bin/splitwg x\n", GUARD: "guard"}


def test_a_machine_in_order_has_no_hindrance() -> None:
    assert hindrances(Machine()) == []


def test_without_root_nothing_else_is_asked_for() -> None:
    (said,) = hindrances(Machine(root=False, kernel="this kernel has no nf_tables"))
    assert said.endswith("run it as root (sudo splitwg setup)")


def test_everything_that_lacks_is_told_at_once() -> None:
    machine = Machine(
        systemd=False, kernel="no nf_tables", wireguard="no WireGuard", taken=("53 is taken",), programs=""
    )
    said = hindrances(machine)
    assert len(said) == 5 and said[0].startswith("this machine does not run systemd")
    assert said[1:4] == ["no nf_tables", "no WireGuard", "53 is taken"] and "PATH" in said[4]


def test_the_key_is_roots_alone() -> None:
    wireguard, domains = configuration("[dns]\n", b"key")
    assert isinstance(wireguard, Change) and isinstance(domains, Change)
    assert (wireguard.path, wireguard.after) == (WIREGUARD, File(b"key", 0o600, 0, 0))
    assert (domains.path, domains.after) == (DOMAINS, File(b"[dns]\n", 0o644, 0, 0))


def test_a_package_brings_the_units_and_what_was_enabled_is_not_ours_to_disable() -> None:
    assert service(Machine(packaged=True, user=True), {}) == [Deed("enable", u, "units") for u in (GUARD, DAEMON)]
    assert service(Machine(packaged=True, user=True, enabled=frozenset({DAEMON, GUARD})), {}) == []


def test_without_a_package_user_units_and_programs_are_ours() -> None:
    steps = service(Machine(programs="/opt/splitwg/bin"), TEXTS)
    assert [step.path if isinstance(step, Change) else step.kind for step in steps] == [
        "/etc/sysusers.d/splitwg.conf",
        "user",
        f"/etc/systemd/system/{GUARD}",
        f"/etc/systemd/system/{DAEMON}",
        "enable",
        "enable",
    ]
    (daemon,) = (step.after for step in steps if isinstance(step, Change) and step.path.endswith(f"/{DAEMON}"))
    assert isinstance(daemon, File)
    assert daemon.data == b"ExecStart=/opt/splitwg/bin/splitwgd\nExecStop=/opt/splitwg/bin/splitwg x\n"


def test_the_vpns_own_servers_are_asked_for_what_is_tunneled() -> None:
    text = "[Interface]\nDNS = 10.64.0.1, lan.example # theirs\ndns=fd00::1,10.64.0.1\n# DNS = 192.0.2.1\n"
    assert vpn_servers(text) == ["10.64.0.1", "fd00::1"]
    assert settings(text, auto=True) == {
        "dns.tunneled": ["10.64.0.1", "fd00::1"],
        "wireguard.config": WIREGUARD,
        "dns.default": "auto",
    }
    assert settings("", auto=False) == {"dns.tunneled": ["9.9.9.9"], "wireguard.config": WIREGUARD}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[wireguard]\nconfig = "/etc/wireguard/mullvad.conf"', "/etc/wireguard/mullvad.conf"),
        ('[wireguard]\nconfig = "mine.conf"', "/etc/splitwg/mine.conf"),
        ("[wireguard]\nconfig = 5", ""),
        ("wireguard = 5", ""),
        ("[dns]", ""),
        ("[", ""),
    ],
)
def test_the_file_that_the_configuration_names(text: str, path: str) -> None:
    assert named_wireguard(text.encode()) == path
