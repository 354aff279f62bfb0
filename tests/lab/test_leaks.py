"""The promise, counted at the ISP: nothing of a tunneled name in clear, whatever happens (see docs/leaks.md)."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from .chaos import OLD, chaos
from .leaktest import ALL, ALL_TUNNELED, Ours, Result, Scene, play, total
from .machine import CONFIG, Machine
from .misfortunes import conntrack_full, endpoint_unresolvable
from .scenarios import (
    PLAIN,
    TUNNELED,
    chain_flushed,
    everything_at_once,
    ruleset_flushed,
    sets_flushed,
    table_deleted,
)
from .tricks import from_the_cache, ttl_one_second, ttl_seven_days

# Until the repair, where nobody can own the table that marks (docs/decisions/0019): before Linux 6.9.
OPEN = {ruleset_flushed, table_deleted, sets_flushed, chain_flushed, everything_at_once}
# What takes long and differs little from others that are played, or from a test elsewhere.
BY_HAND = {conntrack_full, endpoint_unresolvable, from_the_cache, ttl_one_second, ttl_seven_days}
PLAYED = [
    pytest.param(each, marks=pytest.mark.xfail(OLD and each in OPEN, strict=False, reason="open until the repair"))
    for each in ALL
    if each not in BY_HAND
]


def learn(machine: Machine) -> None:
    """A client that has looked the tunneled site up, and may use its addresses for as long as it likes."""
    assert machine.dig("tunneled.example", "A") == [TUNNELED[0]]
    assert machine.dig("tunneled.example", "AAAA") == [TUNNELED[1]]


@pytest.mark.parametrize("scenario", PLAYED, ids=lambda scenario: scenario.__name__)
def test_nothing_in_clear_while(scenario: Callable[[Scene], None], machine: Machine) -> None:
    result = play(scenario, Ours(machine))
    assert (result.packets, result.questions) == (0, 0), result
    assert result.works, result


def test_of_what_is_played_often_nothing_is_left_out_of_the_sum() -> None:
    one = Result("steady", "splitwgd", True, 0, 0, 2, (), 0.1, 0.0, (), ())
    two = Result("steady", "splitwgd", False, 3, 1, 1, ("plain",), 0.4, 0.2, ("0.10 s: seen",), ("in vain: v6",))
    both = Result("steady", "splitwgd", False, 3, 1, 3, ("plain",), 0.4, 0.2, ("0.10 s: seen",), ("in vain: v6",))
    assert total([one, two]) == both
    assert total([one, replace(two, whole_after=None)]).whole_after is None


@pytest.mark.timeout(150)
def test_nothing_in_clear_in_a_minute_of_chaos(machine: Machine) -> None:
    seed = int(os.environ.get("SPLITWG_SEED", secrets.randbelow(10**6)))
    happened = [f"SPLITWG_SEED={seed}"]
    result = play(chaos(seed, 60, happened.append), Ours(machine))
    told = "\n".join([*happened, str(result)])
    assert (result.packets, result.questions) == (0, 0), told
    assert result.works, told


def test_the_control_without_the_daemon_everything_is_seen(machine: Machine) -> None:
    with machine.lab.capture() as seen:
        assert machine.lab.caller(TUNNELED[0]) == machine.lab.client_v4
        machine.dig("tunneled.example", server="203.0.113.53")
    assert seen.from_client_to(TUNNELED[0])
    assert seen.questions("tunneled.example")


def test_nothing_for_the_tunnels_own_address_leaves_while_the_link_is_gone(machine: Machine) -> None:
    """As the reset of a connection that had it would: the address is not local then, and the uplink has the route."""
    own = ("10.1.0.2", "fd00:10:1::2")
    knock = "import socket, sys; a = sys.argv[1]; socket.socket(10 if ':' in a else 2, 2).sendto(b'x', (a, 9))"

    def seen() -> set[str]:
        with machine.lab.capture() as wire:
            for address in own:
                machine.lab.client.run("python3", "-c", knock, address, check=False)  # who is dropped may be told so
        return {packet.dst for packet in wire.from_client_to(*own)}

    assert seen() == set(own), "the control: nobody holds them back"
    machine.start()
    machine.splitwg("down")
    assert seen() == set()


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
