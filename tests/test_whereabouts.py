"""What follows from where this machine is, for the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from splitwgd.config import Config
from splitwgd.errors import KernelError, MachineError
from splitwgd.message import Why
from splitwgd.names import parse_name
from splitwgd.objects import Downlink, Surroundings
from splitwgd.reconciler import Reconciler
from splitwgd.whereabouts import Whereabouts
from tests.desk import Desk
from tests.worlds import eventually, ip, make_config

HERE = Surroundings(frozenset({ip("192.0.2.1").packed, ip("2001:db8::1").packed}))


class Machine:
    """As much of a daemon as looks around. found: what there is to see, or why nothing can be seen."""

    def __init__(self, config: Config) -> None:
        self.found: Surroundings | Exception = HERE
        self.told: list[str] = []
        self.desk = Desk(config)
        upstreams: Any = self.desk.upstreams
        upstreams.refresh = lambda: self.told.append("refresh")
        upstreams.look_for_loops = lambda groups: self.told.append(",".join(group.name for group in groups))
        self.reconciler = Reconciler(asyncio.get_running_loop(), self.desk.ledger)
        self.reconciler.surroundings = self._surroundings  # type: ignore[method-assign]
        listener: Any = self
        self.doors: frozenset[Downlink] = frozenset()
        self.stuck: dict[Downlink, MachineError] = {}  # doors that do not open
        self.whereabouts = Whereabouts(config, self.desk.forwarder, self.reconciler, listener)

    async def admit(self, downlinks: frozenset[Downlink]) -> dict[Downlink, MachineError]:
        """The listener's part."""
        self.doors = downlinks - self.stuck.keys()
        return {each: error for each, error in self.stuck.items() if each in downlinks}

    async def _surroundings(self) -> Surroundings:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def play(story: Callable[[Machine], Awaitable[None]], config: Config | None = None) -> None:
    async def run() -> None:
        machine = Machine(config or make_config())
        try:
            await story(machine)
        finally:
            await machine.reconciler.close()

    asyncio.run(run())


def test_tunneled_names_may_not_lead_to_what_the_tunnel_and_this_machine_need() -> None:
    config = make_config(
        dns='private = ["corp.example"]\nforward = {"ts.net" = ["192.0.2.100"]}', networks='"192.0.2.128/25"'
    )

    async def story(machine: Machine) -> None:
        machine.whereabouts.surroundings = HERE
        admission = machine.whereabouts.admission(config)
        needed = ("10.1.0.1", "203.0.113.53", "192.0.2.100", "198.51.100.130", "192.0.2.1", "2001:db8::1")
        assert admission.taken == {ip(address).packed for address in needed}
        assert all(admission.objection(ip(address).packed, b"\0") for address in needed)
        assert admission.private == {parse_name("corp.example")}
        assert admission.is_listed(ip("192.0.2.200").packed)

    play(story, config)


def test_another_network_is_noticed_and_the_same_one_is_no_news() -> None:
    async def story(machine: Machine) -> None:
        forwarder, told = machine.desk.forwarder, machine.told
        now = machine.desk.clock.time()
        forwarder.cache.fail(b"a question", forwarder.zones.default, Why(22, "no server"), now)
        for _ in range(2):
            await machine.whereabouts.look()
            assert told == ["refresh", "default,wg0"]
        assert forwarder.cache.failure(b"a question", now) is None
        assert forwarder.vetting.admission.objection(ip("192.0.2.1").packed, b"\0")
        machine.found = replace(HERE, links=frozenset({(2, "eth0", True)}))
        await machine.whereabouts.look()
        assert told[2:] == ["refresh", "default,wg0"]

    play(story)


def test_surroundings_that_cannot_be_read_are_told_and_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def story(machine: Machine) -> None:
        machine.found = KernelError("netlink: No buffer space available")
        before = machine.desk.forwarder.vetting
        await machine.whereabouts.look()
        assert machine.desk.forwarder.vetting is before

    play(story)
    assert "the addresses of this machine cannot be read: netlink: No buffer space available" in caplog.text


def test_a_change_is_looked_at_and_many_at_once_as_one() -> None:
    async def story(machine: Machine) -> None:
        keeper = asyncio.create_task(machine.whereabouts.keep())
        for _ in range(3):
            machine.whereabouts.changed()
        await eventually(lambda: machine.told)
        machine.found = replace(HERE, links=frozenset({(2, "eth0", True)}))
        machine.whereabouts.changed()
        await eventually(lambda: len(machine.told) == 4)
        keeper.cancel()

    play(story)


# -- those whom we forward for

DOCKER = Downlink("docker0", 7, ip("172.17.0.1"))
DOCKER6 = Downlink("docker0", 7, ip("fd00:17::1"))
WG0 = Downlink("wg0", 8, ip("10.1.0.2"))


def test_who_is_forwarded_has_a_door_before_a_rule_leads_there_and_a_tunnels_link_has_none() -> None:
    async def story(machine: Machine) -> None:
        led = []

        async def lead(downlinks: frozenset[Downlink]) -> None:
            led.append(downlinks)
            assert machine.doors == downlinks

        machine.reconciler.lead = lead  # type: ignore[method-assign]
        for found in ({DOCKER, DOCKER6, WG0}, {DOCKER}, set()):
            machine.found = replace(HERE, downlinks=frozenset(found))
            await machine.whereabouts.look()
        assert led == [{DOCKER, DOCKER6}, {DOCKER}, set()]

    play(story)


def test_a_door_that_does_not_open_is_told_once_and_nobody_is_led_there(caplog: pytest.LogCaptureFixture) -> None:
    async def story(machine: Machine) -> None:
        machine.stuck = {DOCKER: MachineError("cannot listen on 172.17.0.1 port 253 (UDP): taken by somebody")}
        machine.found = replace(HERE, downlinks=frozenset({DOCKER, DOCKER6}))
        for _ in range(3):
            await machine.whereabouts.look()
        assert machine.reconciler.downlinks == {DOCKER6}
        machine.stuck = {}
        await machine.whereabouts.look()
        assert machine.reconciler.downlinks == {DOCKER, DOCKER6}

    play(story)
    words = "questions that come by docker0 are refused: cannot listen on 172.17.0.1 port 253 (UDP): taken by somebody"
    assert [record.getMessage() for record in caplog.records] == [words]


def test_without_the_redirect_there_is_no_door_and_the_links_are_known_all_the_same() -> None:
    async def story(machine: Machine) -> None:
        machine.found = replace(HERE, downlinks=frozenset({DOCKER}))
        await machine.whereabouts.look()
        assert machine.doors == set() and machine.reconciler.downlinks == {DOCKER}

    play(story, make_config(dns="redirect = false"))


def test_a_kernel_that_refuses_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def story(machine: Machine) -> None:
        async def lead(downlinks: frozenset[Downlink]) -> None:
            raise KernelError("nf_tables: no space left")

        machine.reconciler.lead = lead  # type: ignore[method-assign]
        await machine.whereabouts.look()

    play(story)
    assert "questions of others cannot be led here: nf_tables: no space left" in caplog.text
