"""What systemd's watchdog hears, and when it hears nothing; with a real socket that answers, or does not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from splitwgd import pulse as module
from splitwgd.errors import KernelError
from splitwgd.notify import Notify
from splitwgd.pulse import Pulse
from tests.worlds import eventually, ip


class Told(Notify):
    def __init__(self, interval: float | None) -> None:
        self.interval = interval
        self.times = 0

    def keep_alive_every(self) -> float | None:  # type: ignore[override]
        return self.interval

    def alive(self) -> None:
        self.times += 1


class House:
    """A door that answers as `reply` makes it, and a kernel."""

    def __init__(self, reply: Callable[[bytes], bytes], interval: float | None = 0.01) -> None:
        self.reply = reply
        self.kernel: Exception | None = None
        self.asked = 0
        self.looked = 0
        self.told = Told(interval)

    async def look(self) -> None:
        self.looked += 1
        if self.kernel is not None:
            raise self.kernel

    def play(self, story: Callable[[House], Awaitable[None]]) -> None:
        async def run() -> None:
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
                door.bind(("127.0.0.1", 0))
                door.setblocking(False)

                def answer() -> None:
                    data, client = door.recvfrom(512)
                    self.asked += 1
                    if reply := self.reply(data):
                        door.sendto(reply, client)

                loop.add_reader(door, answer)
                pulse = Pulse(self.told, lambda: [ip("127.0.0.1")], door.getsockname()[1], self.look)
                keeping = asyncio.create_task(pulse.keep())
                try:
                    await story(self)
                finally:
                    keeping.cancel()
                    await asyncio.gather(keeping, return_exceptions=True)
                    loop.remove_reader(door)

        asyncio.run(run())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    monkeypatch.setattr(module, "AGAIN", 0.01)


def right(data: bytes) -> bytes:
    return data + bytes((127, 0, 0, 1))


def test_it_is_told_again_and_again_while_all_is_well() -> None:
    async def story(house: House) -> None:
        await eventually(lambda: house.told.times >= 3)
        assert house.asked >= 3 and house.looked >= 3

    House(right).play(story)


@pytest.mark.parametrize(
    "reply", [lambda data: b"", lambda data: data[:-1], lambda data: right(b"\0\0" + data[2:])], ids=str
)
def test_nothing_is_told_while_the_door_does_not_answer_rightly_and_it_is_said_once(
    reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(house: House) -> None:
        await eventually(lambda: house.asked >= 3)
        assert (house.told.times, house.looked) == (0, 0)
        house.reply = right
        await eventually(lambda: house.told.times > 0)

    House(reply).play(story)
    assert len([record for record in caplog.records if "watchdog" in record.message]) == 1


def test_nothing_is_told_while_the_kernel_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    async def story(house: House) -> None:
        house.kernel = KernelError("nft is gone")
        await eventually(lambda: house.looked >= 3)
        before = house.told.times
        await eventually(lambda: house.looked >= 6)
        assert house.told.times == before
        house.kernel = None
        await eventually(lambda: house.told.times > before)

    House(right).play(story)
    assert "nft is gone" in caplog.text


def test_without_a_watchdog_nobody_is_asked() -> None:
    async def story(house: House) -> None:
        await asyncio.sleep(0.05)
        assert (house.asked, house.looked, house.told.times) == (0, 0, 0)

    House(right, interval=None).play(story)
