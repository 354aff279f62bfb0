"""The promise, counted at the ISP: nothing of a tunneled name in clear, whatever happens to the daemon."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from .capture import Seen
from .machine import CONFIG, Machine
from .world import Lab

TUNNELED = ("203.0.113.10", "2001:db8:1::10")
PLAIN = ("203.0.113.20", "2001:db8:1::20")
FRESH = ("203.0.113.100/30", "203.0.113.104/29", "203.0.113.112/28", "203.0.113.128/25", "2001:db8:1:f::/64")
ALL_TUNNELED = (*TUNNELED, *FRESH)


def learn(machine: Machine) -> None:
    """A client that has looked the tunneled site up, and may use its addresses for as long as it likes."""
    assert machine.dig("tunneled.example", "A") == [TUNNELED[0]]
    assert machine.dig("tunneled.example", "AAAA") == [TUNNELED[1]]


@contextmanager
def nothing_in_clear(lab: Lab) -> Iterator[Seen]:
    """A stream of new flows to tunneled and plain addresses, and lookups of fresh tunneled names, all the
    while; the ISP must see the plain ones (its eyes are open) and nothing of the others."""
    with lab.capture() as seen:
        stream = lab.stream(*TUNNELED, *PLAIN)
        lookups = lab.lookups(pattern="n{}.fresh.tunneled.example", every=20, patience=1)
        try:
            yield seen
        finally:
            lookups.stop()
            stream.stop()
    assert len(seen.from_client_to(*PLAIN)) > 100
    assert seen.from_client_to(*ALL_TUNNELED)[:5] == []
    assert seen.questions("tunneled.example")[:5] == []
    assert seen.from_client_to("10.1.0.0/24", "fd00:10:1::/64")[:5] == []


def steady(machine: Machine) -> None:
    time.sleep(2)


def tunnel_down_and_up(machine: Machine) -> None:
    machine.splitwg("down")
    time.sleep(1)
    machine.splitwg("up")


def killed_and_started(machine: Machine) -> None:
    machine.end(signal.SIGKILL)
    time.sleep(1)
    machine.start()


def terminated_and_started(machine: Machine) -> None:
    assert machine.end(signal.SIGTERM) == 0
    time.sleep(1)
    machine.start()


def reloaded(machine: Machine) -> None:
    for number in range(5):
        machine.configure(CONFIG.replace('"blocked.example"', f'"blocked.example", "number-{number}.example"'))
        machine.signal(signal.SIGHUP)
        time.sleep(0.3)
    machine.configure(CONFIG + "\n[routing]\nfwmark = 0x2\n")
    machine.splitwg("add", "later.example")


def link_deleted(machine: Machine) -> None:
    machine.lab.client.run("ip", "link", "del", "wg0")
    machine.wait_for_log("putting right")


def userspace_killed(machine: Machine) -> None:
    """wireguard-go, where that is what carries the tunnel; else its link goes."""
    if machine.lab.client.run("pkill", "-KILL", "-f", "wireguard-go -f wg0", check=False).returncode:
        machine.lab.client.run("ip", "link", "del", "wg0")
    machine.wait_for_log("putting right")


def endpoint_silent(machine: Machine) -> None:
    with machine.lab.vpn_silent():
        time.sleep(1.5)


def routes_and_rules_flushed(machine: Machine) -> None:
    """The last door holds while the reconciler brings them back."""
    machine.lab.client.run("ip", "route", "flush", "table", "100")
    machine.lab.client.run("ip", "rule", "del", "priority", "100")
    machine.lab.client.run("ip", "-6", "rule", "del", "priority", "100")
    machine.wait_for_log("putting right")


@pytest.mark.parametrize(
    "happens",
    [
        steady,
        tunnel_down_and_up,
        killed_and_started,
        terminated_and_started,
        reloaded,
        link_deleted,
        userspace_killed,
        endpoint_silent,
        routes_and_rules_flushed,
    ],
)
def test_nothing_in_clear_while(happens: Callable[[Machine], None], machine: Machine) -> None:
    machine.start()
    learn(machine)
    with nothing_in_clear(machine.lab):
        time.sleep(0.5)
        happens(machine)
        time.sleep(0.5)
    machine.wait_for(lambda: machine.lab.caller(TUNNELED[0]) == machine.lab.vpn_v4, "the tunnel's return")
    machine.wait_for(lambda: machine.lab.caller(TUNNELED[1]) == machine.lab.vpn_v6, "the tunnel's return")


def test_the_control_without_the_daemon_everything_is_seen(machine: Machine) -> None:
    with machine.lab.capture() as seen:
        assert machine.lab.caller(TUNNELED[0]) == machine.lab.client_v4
        machine.dig("tunneled.example", server="203.0.113.53")
    assert seen.from_client_to(TUNNELED[0])
    assert seen.questions("tunneled.example")


@pytest.mark.parametrize("kind", ["A", "AAAA"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_300_names_are_tunneled_from_the_first_packet_on(machine: Machine, transport: str, kind: str) -> None:
    machine.start()
    with machine.lab.capture() as seen:
        callers = machine.lab.connect_at_once(300, transport=transport, kind=kind).wait()
    assert callers == {machine.lab.vpn_v4 if kind == "A" else machine.lab.vpn_v6: 300}
    assert seen.from_client_to(*ALL_TUNNELED)[:5] == []
    assert seen.questions("tunneled.example")[:5] == []


def test_a_reload_of_one_domain_among_a_thousand_is_felt_by_nobody(machine: Machine) -> None:
    thousand = ", ".join(f'"number-{number}.example"' for number in range(1000))
    config = CONFIG.replace('"blocked.example"', f'"blocked.example", {thousand}')
    machine.configure(config)
    machine.start()
    learn(machine)
    lab = machine.lab
    lab.client.run("dig", "@127.0.0.53", "plain.example")
    tunneled, plain = lab.download(TUNNELED[0], seconds=6), lab.download(PLAIN[0], seconds=6)
    with lab.capture() as seen:
        fresh = lab.lookups(pattern="n{}.fresh.tunneled.example", every=5)
        others = lab.lookups(pattern="n{}.fresh.plain.example", every=5)
        for number in (500, 501, 502):
            machine.configure(config.replace(f'"number-{number}.example"', '"later.example"'))
            time.sleep(1)
        asked = [lookups.stop() for lookups in (fresh, others)]
    assert "reloaded: " in machine.log()
    for report in asked:
        assert report["asked"] > 200
        assert report["answered"] == report["asked"], report
    for report, caller in ((tunneled.wait(), lab.vpn_v4), (plain.wait(), lab.client_v4)):
        assert report["caller"] == caller
        assert report["completed"] and not report["stalls"], report
    assert seen.from_client_to(*ALL_TUNNELED)[:5] == []
