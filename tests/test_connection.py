"""Clients over TCP, on real sockets: what they may do, and when they are cut off."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from splitwgd import connection
from splitwgd.connection import Connection, Crowd
from tests.worlds import eventually


class Desk:
    """Takes questions, and answers when the test says so."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, Connection]] = []
        self.echo = False

    def take(self, data: bytes, client: Connection) -> None:
        if self.echo:
            client.send(data)
        else:
            self.taken.append((data, client))

    def answer(self, place: int = 0) -> None:
        data, client = self.taken.pop(place)
        client.send(data)


Address = tuple[str, int]


@asynccontextmanager
async def serving(desk: Desk) -> AsyncIterator[tuple[Crowd, Address]]:
    loop = asyncio.get_running_loop()
    crowd = Crowd(loop, desk.take)
    server = await loop.create_server(lambda: Connection(crowd), "127.0.0.1", 0)
    try:
        yield crowd, server.sockets[0].getsockname()
    finally:
        server.close()
        crowd.close()
        await asyncio.sleep(0)


def play(story: Callable[[Desk, Crowd, Address], Awaitable[None]]) -> None:
    async def run() -> None:
        desk = Desk()
        async with serving(desk) as (crowd, address):
            await story(desk, crowd, address)

    asyncio.run(run())


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(message)) + message for message in messages)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What still came until the server closed."""
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""


async def joined(crowd: Crowd, count: int) -> None:
    await eventually(lambda: len(crowd) == count)


async def message_of(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), 5))
    return await asyncio.wait_for(reader.readexactly(length), 5)


def test_questions_are_pipelined_and_answered_in_any_order() -> None:
    async def story(desk: Desk, crowd: Crowd, address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(framed(b"one", b"two", b"three"))
        await eventually(lambda: len(desk.taken) == 3)
        desk.answer(2)
        desk.answer(0)
        desk.answer(0)
        assert [await message_of(reader) for _ in range(3)] == [b"three", b"one", b"two"]
        writer.close()
        await eventually(lambda: len(crowd) == 0)

    play(story)


def test_a_question_that_comes_byte_by_byte_is_taken_once_it_is_whole() -> None:
    async def story(desk: Desk, crowd: Crowd, address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        for byte in framed(b"slow"):
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0.001)
        await eventually(lambda: desk.taken)
        desk.answer()
        assert await message_of(reader) == b"slow"
        writer.close()

    play(story)


def test_only_a_whole_question_earns_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE", 0.3)

    async def story(desk: Desk, crowd: Crowd, address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        ending = asyncio.create_task(ended(reader))
        writer.write(b"\0\xff")
        while not ending.done() and loop.time() - begun < 5:
            writer.write(b"x")
            await asyncio.sleep(0.02)
        assert await ending == b""
        assert not desk.taken
        writer.close()

    play(story)


def test_who_shuts_down_its_side_still_gets_its_answers_and_then_the_end() -> None:
    async def story(desk: Desk, crowd: Crowd, address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(framed(b"last", b"words"))
        writer.write_eof()
        await eventually(lambda: len(desk.taken) == 2)
        desk.answer()
        desk.answer()
        assert await ended(reader) == framed(b"last", b"words")
        writer.close()

    play(story)


def test_who_shuts_down_without_a_question_is_let_go() -> None:
    async def story(desk: Desk, crowd: Crowd, address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write_eof()
        assert await ended(reader) == b""
        writer.close()

    play(story)


def test_hundreds_of_questions_at_once_wait_their_turn_and_are_all_answered() -> None:
    async def story(desk: Desk, crowd: Crowd, address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        asked = [b"q%d" % number for number in range(300)]
        writer.write(framed(*asked))
        answered: list[bytes] = []
        while len(answered) < len(asked):
            await eventually(lambda: desk.taken)
            assert len(desk.taken) <= connection.PIPELINED
            desk.answer()
            answered.append(await message_of(reader))
        assert answered == asked
        writer.close()

    play(story)


def test_who_takes_no_answers_is_cut_off() -> None:
    async def story(desk: Desk, crowd: Crowd, address: Address) -> None:
        desk.echo = True
        loop = asyncio.get_running_loop()
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, address)
            with pytest.raises(ConnectionError):
                for _ in range(10_000):
                    await asyncio.wait_for(loop.sock_sendall(deaf, framed(b"x" * 60_000)), 5)
        await eventually(lambda: len(crowd) == 0)

    play(story)


def test_one_connection_too_many_ends_the_one_that_was_idle_for_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS", 3)

    async def story(desk: Desk, crowd: Crowd, address: Address) -> None:
        pairs = []
        for number in range(3):
            pairs.append(await asyncio.open_connection(*address))
            await joined(crowd, number + 1)
        pairs[0][1].write(framed(b"I wait for an answer"))
        await eventually(lambda: desk.taken)
        pairs.append(await asyncio.open_connection(*address))
        assert await ended(pairs[1][0]) == b""  # the first is older, but waits
        desk.answer()
        assert await message_of(pairs[0][0]) == b"I wait for an answer"
        assert len(crowd) == 3
        for _, writer in pairs:
            writer.close()

    play(story)


def test_an_answer_to_somebody_who_has_left_is_dropped() -> None:
    async def story(desk: Desk, crowd: Crowd, address: Address) -> None:
        _, writer = await asyncio.open_connection(*address)
        writer.write(framed(b"gone"))
        await eventually(lambda: desk.taken)
        writer.transport.abort()
        await eventually(lambda: len(crowd) == 0)
        desk.answer()

    play(story)
