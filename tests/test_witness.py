"""What is noted while somebody watches, and that nothing is left of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from splitwgd import witness as module
from splitwgd.forwarder import Forwarder as RealForwarder
from splitwgd.listener import Listener
from splitwgd.names import Name, parse_name
from splitwgd.witness import KEPT, Witness
from tests.samples import question
from tests.worlds import eventually

TUNNELED = parse_name("a.example")


class Client:
    stream = True

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.ended = False

    def send(self, reply: bytes) -> None:
        self.got.append(reply)

    def hang_up(self) -> None:
        self.ended = True


class Forwarder:
    """Answers each question with two records."""

    def __init__(self) -> None:
        self.ready: dict[bytes, bytes] = {b"q": b"r"}
        self.vetting = self

    def find(self, name: Name) -> Any:
        return SimpleNamespace(name="wg0" if name == TUNNELED else "default")

    def take(self, data: bytes, client: Any) -> None:
        assert client.stream
        if len(data) < 12:
            client.hang_up()
        else:
            client.send(data[:2] + b"\x81\x83\0\1\0\2\0\0\0\0")


class House:
    def __init__(self) -> None:
        self.forwarder = Forwarder()
        self.listener = SimpleNamespace(ready=self.forwarder.ready, take=self.forwarder.take)
        listener, forwarder = cast(Listener, self.listener), cast(RealForwarder, self.forwarder)
        self.witness = Witness(asyncio.get_running_loop(), listener, forwarder)

    def ask(self, name: str) -> list[bytes]:
        client = Client()
        self.listener.take(question(name), client)
        return client.got


def play(story: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        await story(House())

    asyncio.run(run())


def test_what_is_answered_is_told_once_and_the_answer_is_the_same() -> None:
    async def story(house: House) -> None:
        without = house.ask("a.example")
        assert house.witness.report() == {"lookups": [], "missed": 0}
        assert house.ask("a.example") == without and house.ask("b.example")
        first, second = house.witness.report()["lookups"]
        assert first.pop("ms") >= 0 and second.pop("ms") >= 0
        assert first == {"name": "a.example", "type": 1, "group": "wg0", "rcode": 3, "records": 2}
        assert second["group"] == "default"
        assert house.witness.report()["lookups"] == []

    play(story)


def test_what_is_no_question_is_not_told_and_hung_up_on_all_the_same() -> None:
    async def story(house: House) -> None:
        house.witness.report()
        client = Client()
        house.listener.take(b"no", client)
        assert client.ended and house.witness.report()["lookups"] == []

    play(story)


def test_more_than_is_kept_is_counted() -> None:
    async def story(house: House) -> None:
        house.witness.report()
        for _ in range(KEPT + 5):
            house.ask("a.example")
        found = house.witness.report()
        assert (len(found["lookups"]), found["missed"]) == (KEPT, 5)

    play(story)


def test_when_nobody_asks_any_more_all_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.02)

    async def story(house: House) -> None:
        house.witness.report()
        assert house.listener.ready == {} and house.listener.take != house.forwarder.take
        await eventually(lambda: house.listener.take == house.forwarder.take)
        assert house.listener.ready is house.forwarder.ready
        house.ask("a.example")
        assert house.witness.report()["lookups"] == []

    play(story)
