"""Who owns the machine's DNS decides how it is taken; and `default = "auto"` finds the network's servers afterwards."""

from __future__ import annotations

import pytest

from splitwgd.changes import Change, Deed, File, Step
from splitwgd.resolvers import network_servers
from splitwgd.takeover import (
    COPY,
    MANAGER,
    RESOLV_CONF,
    RESOLVED,
    Scene,
    is_ours,
    own_address,
    problems,
    resolv_conf,
    take,
)
from tests.samples import Memory
from tests.worlds import ip

LISTEN = (ip("127.0.0.53"), ip("127.0.0.1"), ip("::1"))
DHCP = "# from dhclient\ndomain lan\nsearch lan corp.example\nnameserver 192.168.1.1\nnameserver fe80::1%2\n"
STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n"
RUN = "/run/systemd/resolve"


def taken(scene: Scene, redirect: bool = True, auto: bool = False) -> dict[str, str]:
    """The changes as path -> text."""
    steps = take(scene, LISTEN, redirect, auto)
    return {
        step.path: step.after.data.decode()
        for step in steps
        if isinstance(step, Change) and isinstance(step.after, File)
    }


def settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_resolved_asks_us_keeps_nothing_and_the_file_that_is_its_own_stays() -> None:
    for leads_to in (f"{RUN}/stub-resolv.conf", f"{RUN}/resolv.conf", "/usr/lib/systemd/resolv.conf"):
        changes = taken(Scene(leads_to, STUB, resolved=True, manager=True))
        assert list(changes) == [RESOLVED]
        assert settings(changes[RESOLVED]) == [
            "[Resolve]",
            "DNS=",
            "DNS=127.0.0.1",
            "Domains=~.",
            "Cache=no",
            "DNSOverTLS=no",
        ]


def test_servers_that_resolved_was_given_stay_where_auto_needs_them_and_the_redirect_leads_them() -> None:
    scene = Scene(f"{RUN}/stub-resolv.conf", STUB, resolved=True)
    assert "DNS=" not in settings(taken(scene, auto=True)[RESOLVED])
    assert "DNS=" in settings(taken(scene, auto=True, redirect=False)[RESOLVED])


def test_a_resolv_conf_that_is_not_resolveds_is_taken_as_well() -> None:
    assert list(taken(Scene(RESOLV_CONF, DHCP, resolved=True))) == [RESOLVED, COPY, RESOLV_CONF]


def test_resolved_cannot_ask_its_own_stubs_address() -> None:
    scene = Scene(f"{RUN}/stub-resolv.conf", STUB, resolved=True)
    (problem,) = problems(scene, (ip("127.0.0.53"),), "/etc/splitwg/domains.toml")
    assert str(problem).startswith("/etc/splitwg/domains.toml: dns.listen: ") and "add 127.0.0.1" in str(problem)
    assert not problems(scene, LISTEN, "") and not problems(Scene("", ""), (ip("127.0.0.53"),), "")


@pytest.mark.parametrize(
    ("kind", "of"), [("debian", "lo.splitwg 127.0.0.1"), ("openresolv", "lo.splitwg 127.0.0.1 -m 0")]
)
def test_resolvconf_is_asked_and_its_file_stays(kind: str, of: str) -> None:
    steps: list[Step] = take(
        Scene("/run/resolvconf/resolv.conf", DHCP, manager=True, resolvconf=kind), LISTEN, True, True
    )
    assert steps == [Deed("resolvconf", of, "dns")]


def test_network_manager_lets_go_before_the_file_is_taken() -> None:
    changes = taken(Scene("/run/NetworkManager/resolv.conf", DHCP, manager=True))
    assert list(changes) == [MANAGER, COPY, RESOLV_CONF]
    assert settings(changes[MANAGER]) == ["[main]", "dns=none"]


def test_without_an_owner_the_file_names_us_alone_and_keeps_the_rest() -> None:
    text = taken(Scene(RESOLV_CONF, DHCP))[RESOLV_CONF]
    assert settings(text) == ["nameserver 127.0.0.1", "domain lan", "search lan corp.example"]
    assert is_ours(text) and not is_ours(DHCP)
    options = settings(resolv_conf("options edns0 trust-ad\noptions trust-ad\n\n  search  a b\n", LISTEN[1]))
    assert options == ["nameserver 127.0.0.1", "options edns0", "search a b"]


def test_auto_finds_the_networks_servers_after_the_file_is_taken() -> None:
    files = dict(taken(Scene(RESOLV_CONF, DHCP)).items())
    assert [str(server) for server in network_servers(Memory(files), LISTEN)] == ["192.168.1.1", "fe80::1%2"]


def test_what_is_taken_already_is_taken_the_same_way_and_the_copy_stays() -> None:
    first = taken(Scene(RESOLV_CONF, DHCP))
    again = taken(Scene(RESOLV_CONF, first[RESOLV_CONF]))
    assert again == {RESOLV_CONF: first[RESOLV_CONF]}


def test_an_empty_or_missing_file_is_taken_without_a_copy() -> None:
    assert list(taken(Scene(RESOLV_CONF, ""))) == [RESOLV_CONF]


def test_we_are_asked_where_nobody_else_listens() -> None:
    assert str(own_address(LISTEN)) == "127.0.0.1"
    assert str(own_address((ip("::1"), ip("127.0.0.1")))) == "::1"
    assert str(own_address((ip("192.0.2.1"), ip("127.0.0.54")))) == "192.0.2.1"
