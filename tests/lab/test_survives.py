"""A reboot, as far as a machine in namespaces can have one: the kernel has lost all of ours, the disk has not."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from .crowd import ask
from .hostile import Hostile, hostile
from .machine import CONFIG, DOMAINS, Machine, program
from .replies import NOERROR, Reply, address, record, svcb
from .siege import EVERYWHERE, GOOD, TUNNELED, begin

SITE, PLAIN = ("203.0.113.10", "2001:db8:1::10"), ("203.0.113.20", "2001:db8:1::20")
STATE = "/var/lib/splitwg/learned.json"


@pytest.fixture
def upstream(machine: Machine) -> Iterator[Hostile]:
    with hostile(machine.lab.internet, *EVERYWHERE) as server:
        yield server


def reboot(machine: Machine) -> None:
    """The power fails: nothing is left but the disk."""
    machine.end(signal.SIGKILL)
    machine.splitwg("teardown")
    assert "wg_routing" not in machine.lab.client.run("nft", "list", "tables").stdout


def guard(machine: Machine) -> str:
    """What splitwgd-guard.service does; its words."""
    return machine.lab.client.run(*program("splitwgd"), "--guard", timeout=30).stderr


def remembered(machine: Machine) -> None:
    """The daemon has learned the tunneled site and ended in order; it runs again."""
    machine.start()
    learn(machine)
    assert machine.end() == 0
    machine.start()


def learn(machine: Machine) -> None:
    """A client has looked the tunneled site up."""
    assert machine.dig("tunneled.example", "A") + machine.dig("tunneled.example", "AAAA") == list(SITE)


def test_from_the_guard_to_the_daemon_nothing_leaves_in_clear_and_then_it_goes_through_the_tunnel(
    machine: Machine,
) -> None:
    lab = machine.lab
    remembered(machine)
    reboot(machine)
    with lab.capture() as seen:
        assert lab.caller(SITE[0]) == lab.client_v4, "the control: nothing holds it back"
    assert seen.from_client_to(SITE[0])
    assert "2 addresses are known from before" in guard(machine)
    with lab.capture() as seen:
        stream = lab.stream(*SITE, *PLAIN)
        lookups = lab.lookups(pattern="n{}.fresh.tunneled.example", every=20, patience=1)
        foreign = lab.lookups(pattern="f{}.fresh.tunneled.example", every=20, patience=1, server=lab.foreign_dns)
        for words in ("+notcp", "+tcp"):
            assert machine.rcode("tunneled.example", words) == "", "nobody is there to answer yet"
        refused = lab.client.run("curl", "-sg", "-m", "5", f"http://{SITE[0]}/", check=False)
        machine.start()
        machine.wait_for(lambda: lab.caller(SITE[0]) == lab.vpn_v4, "the tunnel")
        machine.wait_for(lambda: lab.caller(SITE[1]) == lab.vpn_v6, "the tunnel")
        for each in (lookups, foreign, stream):
            each.stop()
    assert refused.returncode == 7, "and not timed out"
    assert len(seen.from_client_to(*PLAIN)) > 100, "the control"
    assert seen.from_client_to(*SITE)[:5] == []
    assert seen.questions("tunneled.example")[:5] == []
    assert machine.status()["addresses"].keys() == {"wg_domains4", "wg_domains6"}


def test_without_a_guard_the_daemon_knows_its_addresses_when_it_is_ready(machine: Machine) -> None:
    lab = machine.lab
    remembered(machine)
    reboot(machine)
    machine.start()
    with lab.capture() as seen:
        assert (lab.caller(SITE[0]), lab.caller(SITE[1])) == (lab.vpn_v4, lab.vpn_v6)
    assert seen.from_client_to(*SITE) == []
    assert machine.status()["addresses"] == {"wg_domains4": 1, "wg_domains6": 1}


def test_what_is_tunneled_no_longer_is_not_taken_over(machine: Machine) -> None:
    remembered(machine)
    reboot(machine)
    machine.configure(CONFIG.replace('"tunneled.example"', '"later.example"'))
    machine.start()
    assert machine.status()["addresses"] == {}
    assert machine.lab.caller(SITE[0]) == machine.lab.client_v4


@pytest.mark.parametrize("rebooted", [True, False])
def test_where_records_led_is_known_after_a_restart(machine: Machine, upstream: Hostile, rebooted: bool) -> None:
    upstream.say("www.tunneled.example/HTTPS", Reply([record("HTTPS", svcb(1, "edge.cdn.example"))]))
    upstream.say("edge.cdn.example/A", address(GOOD))
    begin(machine)
    lab = machine.lab
    (led,) = ask(lab.client, ["www.tunneled.example/HTTPS"])
    assert led.rcode == NOERROR
    assert machine.end() == 0
    if rebooted:
        machine.splitwg("teardown")
        guard(machine)
    with lab.capture() as seen:
        machine.start()
        (heard,) = ask(lab.client, ["edge.cdn.example/A"], check=True)
        assert (heard.addresses, heard.outside) == ([GOOD], ())
    assert seen.questions("cdn.example") == []
    assert {asked.server for asked in upstream.asked("edge.cdn.example")} == {TUNNELED}


def test_with_a_broken_configuration_the_guard_closes_nothing_and_says_so(machine: Machine) -> None:
    remembered(machine)
    reboot(machine)
    machine.lab.client.write(DOMAINS, "[dns")
    done = machine.lab.client.run(*program("splitwgd"), "--guard", check=False)
    assert done.returncode == 2
    assert "is not TOML" in done.stderr and "nothing is closed with this configuration" in done.stderr
    assert machine.lab.client.run("nft", "list", "tables").stdout == ""
    assert STATE in machine.lab.client.run("ls", STATE).stdout, "it is there for the next time"


def test_a_disk_that_is_full_is_one_warning_and_ends_nothing(machine: Machine) -> None:
    client = machine.lab.client
    client.run("sh", "-c", "mkdir /run/full && mount -t tmpfs -o size=4k full /run/full && echo full >/run/full/up")
    try:
        machine.start(env={"STATE_DIRECTORY": "/run/full"})
        learn(machine)
        assert machine.end() == 0
        (said,) = [line for line in machine.log().splitlines() if "cannot be kept over a reboot" in line]
        assert "No space left on device" in said
        assert client.run("ls", "/run/full").stdout == "up\n"
    finally:
        client.run("umount", "/run/full")
