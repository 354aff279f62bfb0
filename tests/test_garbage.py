"""Circular garbage: what is collected, when, and that questions make none."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import splitwgd.garbage
from splitwgd.garbage import BUSY, EVERY, WHOLE, Garbage
from tests.desk import Clock, Desk, play, turn


class Circle:
    """Holds itself."""

    def __init__(self) -> None:
        self.itself = self


def make_circle() -> weakref.ref[Circle]:
    return weakref.ref(Circle())


@contextmanager
def kept_by(clock: Clock) -> Iterator[Garbage]:
    garbage = Garbage(clock, lambda: 0)  # type: ignore[arg-type]
    gc.collect()
    garbage.start()
    try:
        yield garbage
    finally:
        garbage.close()
        gc.collect()


def test_a_quiet_second_s_circles_are_collected_and_nothing_before_the_look() -> None:
    async def story() -> None:
        clock = Clock()
        with kept_by(clock):
            circle = make_circle()
            assert circle() is not None
            clock.advance(EVERY)
            assert circle() is None
            other = make_circle()
            clock.advance(EVERY)
            assert other() is None, "and again"

    asyncio.run(story())


def test_a_busy_second_is_not_looked_through_and_its_circles_wait_for_the_whole() -> None:
    async def story() -> None:
        clock = Clock()
        with kept_by(clock) as garbage:
            circle = make_circle()
            garbage.asked = lambda: BUSY + 1
            clock.advance(EVERY)
            assert circle() is not None
            clock.advance(WHOLE - 2 * EVERY)
            assert circle() is not None, "it is no longer among what is new"
            clock.advance(2 * EVERY)
            assert circle() is None

    asyncio.run(story())


def test_the_whole_waits_for_a_quiet_second() -> None:
    async def story() -> None:
        clock = Clock()
        with kept_by(clock) as garbage:
            circle = make_circle()
            garbage.asked = lambda: BUSY + 1
            clock.now += WHOLE + 1
            garbage.look()
            assert circle() is not None
            garbage.look()
            assert circle() is None

    asyncio.run(story())


def test_a_flood_of_circles_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitwgd.garbage, "MANY", 2000)

    async def story() -> None:
        clock, questions = Clock(), itertools.count(0, BUSY + 1)
        with kept_by(clock) as garbage:
            garbage.asked = lambda: next(questions)
            circles: list[weakref.ref[Circle]] = []
            while circles[:1] == [] or circles[0]() is not None:
                circles += [make_circle() for _ in range(300)]
                clock.advance(EVERY)
                assert len(circles) <= 2700
            assert [circle for circle in circles if circle() is not None] == []

    asyncio.run(story())


def test_in_the_end_the_collector_is_as_it_was() -> None:
    async def story() -> None:
        clock = Clock()
        with kept_by(clock) as garbage:
            assert not gc.isenabled()
            garbage.close()
            assert gc.isenabled()
            assert gc.get_freeze_count() == 0
            assert all(timer.ended for timer in clock.timers)

    asyncio.run(story())


def ours_in_circles() -> list[str]:
    """The kinds of the daemon's own objects, and of asyncio's, among the circular garbage."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        kinds = [type(each) for each in gc.garbage]
        return sorted({f"{kind.__module__}.{kind.__name__}" for kind in kinds if is_ours(kind)})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def is_ours(kind: type) -> bool:
    return kind.__module__.startswith(("splitwgd", "asyncio"))


@pytest.mark.parametrize("fails", [False, True])
def test_questions_leave_no_circles(fails: bool) -> None:
    async def story(desk: Desk) -> None:
        gc.collect()
        gc.disable()
        for number in range(20):
            for name in (f"n{number}.example.com", f"n{number}.plain.org", "again.example"):
                desk.ask(name)
                desk.take(b"no question")
                if desk.upstreams.asked and fails:
                    desk.fail()
                elif desk.upstreams.asked:
                    desk.answer(f"{name} A 198.51.100.{number}")
            await turn()
        assert desk.forwarder.counts.asked == 120
        assert ours_in_circles() == []
        gc.enable()

    play(story)
