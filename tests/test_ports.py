"""Ports towards servers on loopback: fresh and random, used again only after many others, gone with the network."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from splitwgd import ports as module
from splitwgd.ports import RESERVE, Berth, Port, Ports
from splitwgd.turn import Turn
from splitwgd.way import Way
from tests.worlds import eventually, free_port, server


@pytest.fixture(autouse=True)
def unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    """SO_MARK needs root."""

    def plain(way: Way, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET if way.server.address.version == 4 else socket.AF_INET6
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    monkeypatch.setattr(module, "open_socket", plain)


class Asker:
    """Whose question is on its way."""

    def __init__(self) -> None:
        self.all: list[tuple[Port, bytes | OSError]] = []
        self.stuck: list[tuple[Port, OSError]] = []

    def heard(self, port: Port, data: bytes | OSError) -> None:
        self.all.append((port, data))

    def unsent(self, port: Port, error: OSError) -> None:
        self.stuck.append((port, error))

    async def one(self) -> bytes | OSError:
        await eventually(lambda: self.all)
        (found,) = self.all
        return found[1]


class Bell:
    """A server's socket."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, 0))
        self.berth = Berth(Way(server(address, self.sock.getsockname()[1]), 0, None))

    def send(self, port: Port, data: bytes) -> None:
        self.sock.sendto(data, port.sock.getsockname())


Story = Callable[[Ports, Bell], Awaitable[None]]


def play(story: Story, reserve: int = RESERVE, address: str = "127.0.0.1") -> None:
    """A story leaves no socket behind, and no complaint on the loop."""

    async def run() -> None:
        loop, complaints = asyncio.get_running_loop(), list[Any]()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        bell = Bell(address)
        before = len(os.listdir("/proc/self/fd"))
        ports = Ports(Turn(loop), reserve)
        try:
            await story(ports, bell)
        finally:
            ports.close()
            assert len(os.listdir("/proc/self/fd")) == before
            bell.sock.close()
        assert len(ports) == 0
        assert complaints == []

    asyncio.run(run())


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_the_server_sends_is_heard_by_whose_question_it_is(address: str) -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        askers = [Asker() for _ in range(5)]
        taken = [ports.take(bell.berth, asker) for asker in askers]
        for number, port in enumerate(taken):
            bell.send(port, b"%d" % number)
        assert [await asker.one() for asker in askers] == [b"%d" % number for number in range(5)]
        assert all(asker.all[0][0] is port for asker, port in zip(askers, taken, strict=True))

    play(story, address=address)


def test_a_port_goes_to_its_server_and_hears_nobody_else() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        asker, liar = Asker(), Bell()
        with liar.sock:
            port = ports.take(bell.berth, asker)
            assert port.sock.getpeername() == bell.sock.getsockname()
            liar.send(port, b"a lie")
            bell.send(port, b"the truth")
            assert await asker.one() == b"the truth"

    play(story)


def test_ports_are_different_and_drawn_by_chance() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        numbers = [ports.take(bell.berth, Asker()).sock.getsockname()[1] for _ in range(300)]
        assert len(set(numbers)) == 300
        assert numbers != sorted(numbers)
        steps = [later - earlier for earlier, later in zip(numbers, numbers[1:], strict=False)]
        assert len(set(steps)) > 200  # no pattern that a forger could go on with
        assert max(numbers) - min(numbers) > 10_000

    play(story)


def test_a_port_rests_until_a_reserve_of_others_has_been_used() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        now = ports.loop.time()
        used = []
        for _ in range(3):
            port = ports.take(bell.berth, Asker())
            ports.give_back(port, now)
            used.append(port)
        assert len(set(used)) == 3
        again = [ports.take(bell.berth, Asker()) for _ in range(2)]
        assert again[0] is used[0]  # the one that has rested longest
        assert again[1] not in used
        other = Berth(bell.berth.way)
        assert ports.take(other, Asker()) not in used
        assert len(ports) == 5

    play(story, reserve=3)


def test_the_reserve_is_a_thousand() -> None:
    assert RESERVE >= 1000


def test_a_port_that_is_used_again_starts_anew_and_what_came_for_its_old_question_is_nobodys() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        first, second = Asker(), Asker()
        port = ports.take(bell.berth, first)
        ports.give_back(port, ports.loop.time())
        bell.send(port, b"late")
        await asyncio.sleep(0.02)
        assert ports.take(bell.berth, second) is port
        bell.send(port, b"new")
        assert await second.one() == b"new"
        assert first.all == []

    play(story, reserve=1)


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_port_that_somebody_has_found_is_not_used_again(wrong: int) -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        port = ports.take(bell.berth, Asker())
        port.wrong = wrong
        ports.give_back(port, ports.loop.time())
        assert len(ports) == 1 - wrong
        assert (port.sock.fileno() < 0) is bool(wrong)

    play(story)


def test_what_is_sent_in_one_turn_leaves_together_at_its_end() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        bell.sock.setblocking(False)
        taken = [ports.take(bell.berth, Asker()) for _ in range(3)]
        for number, port in enumerate(taken):
            ports.send(port, b"%d" % number)
        with pytest.raises(BlockingIOError):
            bell.sock.recv(10)
        await asyncio.sleep(0)
        came = [bell.sock.recvfrom(10) for _ in taken]
        assert came == [(b"%d" % number, port.sock.getsockname()) for number, port in enumerate(taken)]
        ports.send(taken[0], b"next")
        await asyncio.sleep(0)
        assert bell.sock.recv(10) == b"next"

    play(story)


def test_what_cannot_leave_is_told_to_whom_it_concerns_and_the_rest_leaves() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        asker, dropped = Asker(), Asker()
        first, gone, last = (
            ports.take(bell.berth, asker),
            ports.take(bell.berth, dropped),
            ports.take(bell.berth, asker),
        )
        ports.send(first, bytes(70_000))  # longer than any datagram
        ports.send(gone, bytes(70_000))
        ports.send(last, b"fine")
        ports.throw_away(gone)
        await asyncio.sleep(0)
        assert [(port, error.errno) for port, error in asker.stuck] == [(first, errno.EMSGSIZE)]
        assert dropped.stuck == []
        assert bell.sock.recv(10) == b"fine"

    play(story)


def test_an_icmp_error_is_heard() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        asker = Asker()
        port = ports.take(Berth(Way(server("127.0.0.1", free_port()), 0, None)), asker)
        port.sock.send(b"anybody?")
        error = await asker.one()
        assert isinstance(error, ConnectionRefusedError)

    play(story)


def test_a_resting_port_that_meets_an_error_is_closed() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        closed = Berth(Way(server("127.0.0.1", free_port()), 0, None))
        asker = Asker()
        port, other = ports.take(closed, asker), ports.take(closed, asker)
        port.sock.send(b"anybody?")
        ports.give_back(port, ports.loop.time())
        ports.give_back(other, ports.loop.time())
        await eventually(lambda: len(ports) == 1)
        assert asker.all == []
        assert [ports.take(closed, asker), ports.take(closed, asker)].count(other) == 1  # what else rests is in order

    play(story, reserve=1)


def test_on_another_network_no_port_of_the_old_one_is_used_again() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        resting, busy, asker = ports.take(bell.berth, Asker()), ports.take(bell.berth, Asker()), Asker()
        ports.give_back(resting, ports.loop.time())
        busy.owner = asker
        ports.refresh()
        assert resting.sock.fileno() < 0
        bell.send(busy, b"still welcome")
        assert await asker.one() == b"still welcome"
        ports.give_back(busy, ports.loop.time())
        assert busy.sock.fileno() < 0 and len(ports) == 0
        fresh = ports.take(bell.berth, Asker())
        ports.give_back(fresh, ports.loop.time())
        assert ports.take(bell.berth, Asker()) is fresh

    play(story, reserve=1)


def test_at_rest_every_port_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST", 0.1)

    async def story(ports: Ports, bell: Bell) -> None:
        for _ in range(2):  # and again after everything was closed once
            taken = [ports.take(bell.berth, Asker()) for _ in range(3)]
            for port in taken[:2]:
                ports.give_back(port, ports.loop.time())
            assert len(ports) == 3
            await eventually(lambda: len(ports) == 1)  # whose question is on its way stays
            ports.give_back(taken[2], ports.loop.time())
            await eventually(lambda: len(ports) == 0)

    play(story)


def test_one_that_has_not_rested_enough_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST", 0.2)

    async def story(ports: Ports, bell: Bell) -> None:
        taken = [ports.take(bell.berth, Asker()) for _ in range(2)]
        now = ports.loop.time()
        ports.give_back(taken[0], now)
        ports.give_back(taken[1], now + 0.1)
        await eventually(lambda: taken[0].sock.fileno() < 0)
        await eventually(lambda: len(ports) == 0)

    play(story)


def test_a_port_is_thrown_away_once_however_often_it_is_said() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        port = ports.take(bell.berth, Asker())
        ports.throw_away(port)
        ports.throw_away(port)
        assert port.owner is None and len(ports) == 0

    play(story)


def test_a_way_that_cannot_be_taken_is_an_error_and_leaves_no_socket() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        with pytest.raises(OSError):
            ports.take(Berth(Way(server("255.255.255.255"), 0, None)), Asker())
        assert len(ports) == 0

    play(story)


def test_a_port_that_is_closed_while_others_are_read_is_passed_over() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        taken: list[Port] = []

        class Jealous(Asker):
            def heard(self, port: Port, data: bytes | OSError) -> None:
                super().heard(port, data)
                for other in taken:
                    if other is not port:
                        ports.throw_away(other)

        askers = [Jealous(), Jealous()]
        taken += [ports.take(bell.berth, asker) for asker in askers]
        for port in taken:
            bell.send(port, b"x")
        await eventually(lambda: askers[0].all or askers[1].all)
        await asyncio.sleep(0.02)
        assert len(askers[0].all) + len(askers[1].all) == 1

    play(story)


def test_more_than_one_turns_worth_is_read_in_the_next() -> None:
    async def story(ports: Ports, bell: Bell) -> None:
        asker = Asker()
        for _ in range(600):
            bell.send(ports.take(bell.berth, asker), b"x")
        await eventually(lambda: len(asker.all) == 600)
        assert len({port for port, _ in asker.all}) == 600

    play(story)
