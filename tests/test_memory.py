"""What was learned goes to the disk and comes back, without a word to anybody who waits for an answer."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import splitwgd.memory
from splitwgd.admission import Admission
from splitwgd.gate import Gate
from splitwgd.learned import Ledger, Place
from splitwgd.local import local_patterns
from splitwgd.memory import Memory
from splitwgd.names import parse_name
from splitwgd.objects import Element
from splitwgd.turn import Turn
from splitwgd.vetting import RememberedLead, Vetting
from splitwgd.zones import Zones
from tests.desk import FakeElements
from tests.worlds import eventually, make_config

WWW, B, CDN = map(parse_name, ("www.example.com", "b.example.com", "cdn.example.net"))


def place(number: int) -> Place:
    return "wg_domains4", ip_address(f"192.0.2.{number}").packed


def text(element: Element) -> str:
    return str(ip_address(element.address))


class Process:
    """As much of a daemon as remembers."""

    def __init__(self) -> None:
        loop, config = asyncio.get_running_loop(), make_config()
        self.elements = FakeElements([])
        elements: Any = self.elements
        self.ledger = Ledger(3600, 3600, 900)
        self.vetting = Vetting(Zones(config, local_patterns(config)), Admission(), print)
        forwarder: Any = SimpleNamespace(gate=Gate(Turn(loop), self.ledger, elements), vetting=self.vetting)
        self.memory = Memory(loop, forwarder)
        self.path = Path(self.memory.path)

    def learn(self, *numbers: int) -> None:
        now = self.memory.loop.time()
        self.ledger.record(self.ledger.grant(WWW, [place(number) for number in numbers], 60, now), now)

    def lead(self) -> None:
        self.vetting.recall([RememberedLead(CDN, WWW, self.memory.loop.time() + 600)])

    async def recall(self) -> None:
        await self.memory.read(86_400)
        await self.memory.recall()

    def kept(self) -> list[str]:
        """The addresses in the file."""
        return [row["address"] for row in json.loads(self.path.read_bytes())["addresses"]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def play(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- there and back


def test_what_was_learned_is_in_the_sets_and_leads_are_followed_after_a_reboot() -> None:
    async def story() -> None:
        before = Process()
        before.learn(1, 2)
        before.lead()
        await before.memory.close()
        assert before.path.stat().st_mode & 0o777 == 0o600
        after = Process()
        await after.recall()
        assert after.elements.comments() == {"192.0.2.1": "www.example.com", "192.0.2.2": "www.example.com"}
        assert after.elements.seconds("192.0.2.1") == pytest.approx(4560, abs=5)
        assert after.ledger.held_by(WWW) == 2
        assert after.vetting.find(CDN).tunnel == "wg"
        await after.memory.close()
        assert after.kept() == ["192.0.2.1", "192.0.2.2"]

    play(story)


def test_a_configuration_that_changed_while_it_was_read_knows_it_too() -> None:
    async def story() -> None:
        before = Process()
        before.lead()
        await before.memory.close()
        after = Process()
        await after.memory.read(86_400)
        reading = asyncio.create_task(after.memory.recall())
        await asyncio.sleep(0)
        new = after.memory.forwarder.vetting = after.vetting.successor(after.vetting.zones, Admission())
        await reading
        assert new.find(CDN).tunnel == "wg"
        await after.memory.close()

    play(story)


def test_where_the_kernel_lost_all_the_ledger_has_it_before_the_sets_are_made() -> None:
    async def story() -> None:
        before = Process()
        before.learn(1, 2)
        await before.memory.close()
        after = Process()
        await after.memory.read(86_400)
        after.memory.all_lost()
        names = {text(element): element.name for element in after.ledger.elements(after.memory.loop.time())}
        assert names == {"192.0.2.1": "www.example.com", "192.0.2.2": "www.example.com"}
        await after.memory.recall()
        assert after.elements.transactions == [], "they went with the sets"
        await after.memory.close()

    play(story)


def test_what_the_kernel_holds_is_left_as_it_is() -> None:
    async def story() -> None:
        before = Process()
        before.learn(1, 2)
        await before.memory.close()
        after = Process()
        after.ledger.restore([Element(*place(1), "b.example.com", 50.0)], after.memory.loop.time())
        await after.recall()
        assert after.elements.comments() == {"192.0.2.2": "www.example.com"}
        assert (after.ledger.held_by(B), after.ledger.held_by(WWW)) == (1, 1)
        await after.memory.close()

    play(story)


def test_an_address_that_came_into_its_set_meanwhile_is_no_obstacle() -> None:
    async def story() -> None:
        before = Process()
        before.learn(1, 2)
        await before.memory.close()
        after = Process()
        after.elements.put([Element(*place(1), "b.example.com", 50.0)])
        await after.recall()
        assert set(after.elements.comments()) == {"192.0.2.1", "192.0.2.2"} and len(after.ledger) == 2
        await after.memory.close()

    play(story)


def test_what_the_kernel_refuses_is_told_and_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        before = Process()
        before.learn(1, 2)
        await before.memory.close()
        after = Process()
        after.elements.refuses = ("192.0.2.1",)
        await after.recall()
        assert len(after.ledger) == 0
        await after.memory.close()

    play(story)
    (said,) = warnings(caplog)
    assert said.startswith("2 addresses from before cannot be put into their sets: nf_tables")


def test_at_the_first_start_there_is_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        process = Process()
        await process.recall()
        await process.memory.close()
        assert process.kept() == []

    play(story)
    assert warnings(caplog) == []


# -- when it is written


def test_it_is_written_when_something_has_changed_and_not_otherwise() -> None:
    async def story() -> None:
        process = Process()
        process.learn(1)
        inodes = []
        deeds: list[Callable[[], object]] = [
            lambda: None,
            lambda: None,
            lambda: process.learn(2),
            process.lead,
            lambda: process.ledger.evict([place(1)]),
            lambda: None,
        ]
        for deed in deeds:
            deed()
            await process.memory.save()
            inodes.append(process.path.stat().st_mtime_ns)
        assert [after != before for before, after in zip(inodes, inodes[1:], strict=False)] == [0, 1, 1, 1, 0]
        assert process.kept() == ["192.0.2.2"]
        await process.memory.close()

    play(story)


def test_it_is_written_again_when_somebody_has_set_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        process = Process()
        process.learn(1)
        await process.memory.save()
        before = json.loads(process.path.read_bytes())["written"]
        monkeypatch.setattr("splitwgd.memory.time", SimpleNamespace(time=lambda: 1e9))
        await process.memory.save()
        assert json.loads(process.path.read_bytes())["written"] < before
        await process.memory.close()

    play(story)


def test_it_is_written_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitwgd.memory, "EVERY", 0.01)

    async def story() -> None:
        process = Process()
        process.learn(1)
        keeper = asyncio.create_task(process.memory.keep())
        await eventually(process.path.exists)
        process.learn(2)
        await eventually(lambda: len(process.kept()) == 2)
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper
        await process.memory.close()

    play(story)


def test_others_have_their_turn_while_it_is_collected_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitwgd.memory, "PORTION", 2)

    async def story() -> None:
        before, after = Process(), Process()
        before.learn(*range(1, 41))
        for work in (before.memory.save(), after.recall()):
            task, turns = asyncio.create_task(work), 0
            while not task.done():
                await asyncio.sleep(0)
                turns += 1
            assert turns >= 20
        assert len(after.elements.transactions) == 20
        await before.memory.close()
        await after.memory.close()

    play(story)


def test_the_last_word_is_the_last_one_even_if_another_was_being_written() -> None:
    async def story() -> None:
        process = Process()
        process.learn(*range(1, 200))
        begun = asyncio.create_task(process.memory.save(0.05))
        await eventually(lambda: os.path.exists(f"{process.path}.new"))
        begun.cancel()
        with suppress(asyncio.CancelledError):
            await begun
        process.learn(200)
        await process.memory.close()
        assert process.kept()[-1] == "192.0.2.200"
        assert list(process.path.parent.iterdir()) == [process.path]

    play(story)


# -- what goes wrong


def test_a_folder_that_is_not_there_is_told_once_until_it_is(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        process = Process()
        process.learn(1)
        for there in (False, False, True, False):
            with suppress(FileNotFoundError):
                process.path.unlink()
            folder.mkdir(exist_ok=True) if there else folder.rmdir()
            await process.memory.save()
            assert process.path.exists() == there
            folder.mkdir(exist_ok=True)
            process.learn(len(process.ledger) + 1)
        await process.memory.close()

    play(story)
    path = folder / "learned.json"
    said = f"what was learned cannot be kept over a reboot: {path}: No such file or directory"
    assert warnings(caplog) == [said, said]


@pytest.mark.parametrize(
    ("data", "words"), [(b"{", "it is damaged"), (b'{"version": 7}', "it was written by a later version (7")]
)
def test_what_cannot_be_used_is_set_aside_and_told_once(
    folder: Path, caplog: pytest.LogCaptureFixture, data: bytes, words: str
) -> None:
    async def story() -> None:
        process = Process()
        process.path.write_bytes(data)
        await process.recall()
        await process.recall()
        assert len(process.ledger) == 0
        process.learn(1)
        await process.memory.close()
        assert process.kept() == ["192.0.2.1"]

    play(story)
    aside = folder / "learned.json.damaged"
    assert aside.read_bytes() == data
    (said,) = warnings(caplog)
    assert said.startswith(f"{folder / 'learned.json'} cannot be used: {words}") and said.endswith(f"as {aside}")


def test_what_cannot_be_read_is_told_and_left_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "learned.json").mkdir()

    async def story() -> None:
        process = Process()
        await process.recall()
        await process.memory.close()

    play(story)
    first, second = warnings(caplog)
    assert "learned.json cannot be read (Is a directory)" in first
    assert "cannot be kept over a reboot" in second
    assert [entry.name for entry in folder.iterdir()] == ["learned.json"]
