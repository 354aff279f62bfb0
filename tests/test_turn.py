"""What is put off while a socket is read: done once, in order, when it is drained."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from splitwgd.turn import Turn

Story = Callable[[Turn, list[str]], Awaitable[None]]


def play(story: Story) -> list[Any]:
    """What was said of failures."""
    complaints: list[Any] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context["exception"]))
        await story(Turn(loop), [])

    asyncio.run(run())
    return complaints


def fail() -> None:
    raise ValueError("no")


def test_it_is_done_when_the_socket_is_drained_and_in_order() -> None:
    async def story(turn: Turn, said: list[str]) -> None:
        def written() -> None:
            said.append("written")
            turn.at_end(lambda: said.append("answered"))

        def read(what: str) -> None:
            turn.at_end(written)
            turn.at_end(lambda: said.append("asked"))
            said.append(what)

        turn.drain(read, "read")
        assert said == ["read", "written", "asked", "answered"]
        await asyncio.sleep(0.01)
        assert len(said) == 4  # nothing is done twice

    assert play(story) == []


def test_without_a_socket_it_is_done_soon_and_a_socket_that_comes_before_does_it() -> None:
    async def story(turn: Turn, said: list[str]) -> None:
        turn.at_end(lambda: said.append("first"))
        turn.at_end(lambda: turn.at_end(lambda: said.append("third")))
        turn.at_end(lambda: said.append("second"))
        assert said == []
        await asyncio.sleep(0)
        assert said == ["first", "second", "third"]
        turn.at_end(lambda: said.append("left over"))
        turn.drain(said.append, "read")
        assert said[3:] == ["read", "left over"]
        turn.at_end(lambda: said.append("next"))
        await asyncio.sleep(0.01)
        assert said[5:] == ["next"]

    assert play(story) == []


def test_a_step_that_fails_keeps_no_other_from_its_turn() -> None:
    async def story(turn: Turn, said: list[str]) -> None:
        for step in (fail, lambda: said.append("second"), fail, lambda: said.append("fourth")):
            turn.at_end(step)
        await asyncio.sleep(0)
        assert said == ["second", "fourth"]

    assert [str(error) for error in play(story)] == ["no", "no"]


def test_what_was_put_off_is_done_though_the_reading_failed() -> None:
    async def story(turn: Turn, said: list[str]) -> None:
        def read() -> None:
            turn.at_end(lambda: said.append("done"))
            fail()

        with pytest.raises(ValueError, match="no"):
            turn.drain(read)
        assert said == ["done"]
        turn.at_end(lambda: said.append("later"))
        assert said == ["done"]
        await asyncio.sleep(0)
        assert said == ["done", "later"]

    assert play(story) == []


def test_what_an_end_in_the_middle_leaves_is_done_soon() -> None:
    async def story(turn: Turn, said: list[str]) -> None:
        def end() -> None:
            raise SystemExit

        def read() -> None:
            turn.at_end(end)
            turn.at_end(lambda: said.append("left"))

        with pytest.raises(SystemExit):
            turn.drain(read)
        assert said == []
        await asyncio.sleep(0)
        assert said == ["left"]

    assert play(story) == []
