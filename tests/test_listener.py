"""The open doors, on loopback at a port that needs no root: UDP and TCP, patient and impatient clients."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from splitwgd import connection
from splitwgd import listener as listener_module
from splitwgd.errors import MachineError
from splitwgd.listener import Client, Listener
from splitwgd.objects import Ip
from splitwgd.shelf import Shelf
from splitwgd.turn import Turn
from tests.worlds import eventually, free_port, ip, wait_until

V4, V6 = ip("127.0.0.1"), ip("::1")


@pytest.fixture(autouse=True)
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    number = free_port()
    monkeypatch.setattr(listener_module, "DNS_PORT", number)
    return number


class Desk:
    """Takes questions; answers those that begin with `a` at once, hangs up on `-`, and keeps the others."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes, Client]] = []
        self.taken: list[bytes] = []

    def take(self, data: bytes, client: Client) -> None:
        self.taken.append(data)
        if data.startswith(b"a"):
            client.send(b"re " + data)
        elif data.startswith(b"-"):
            client.hang_up()
        else:
            self.kept.append((data, client))


Story = Callable[[Listener, Desk], Awaitable[None]]


def play(story: Story, addresses: tuple[Ip, ...] = (V4, V6)) -> None:
    async def run() -> None:
        listener, desk = Listener(Turn(asyncio.get_running_loop()), {}), Desk()
        listener.bind(addresses)
        await listener.start(desk.take)
        try:
            await story(listener, desk)
        finally:
            listener.close()
            await eventually(lambda: len(listener.crowd) == 0)

    asyncio.run(run())


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(message)) + message for message in messages)


async def stream(port: int, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(address, port)


async def reply(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


async def hung_up(reader: asyncio.StreamReader) -> bool:
    """Whether the other end closes without a word."""
    try:
        async with asyncio.timeout(10):
            return await reader.read() == b""
    except ConnectionResetError:
        return True


async def bye(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass  # it was hung up on


async def over_udp(port: int, *messages: bytes, address: str = "127.0.0.1", replies: int) -> list[bytes]:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((address, port))
        for message in messages:
            sock.send(message)
        async with asyncio.timeout(10):
            return [await loop.sock_recv(sock, 65536) for _ in range(replies)]


# -- UDP


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_datagram_is_answered_from_where_it_was_sent_to(port: int, address: str) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        assert await over_udp(port, b"a1", address=address, replies=1) == [b"re a1"]
        assert desk.taken == [b"a1"]

    play(story)


def test_a_burst_of_datagrams_is_taken_whole(port: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        messages = [b"a%d" % number for number in range(200)]
        assert sorted(await over_udp(port, *messages, replies=200)) == sorted(b"re " + message for message in messages)

    play(story)


@pytest.mark.parametrize("size", [0, 1, 4096, 9000])
def test_datagrams_of_any_size_arrive_cut_at_4096(port: int, size: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        await over_udp(port, b"x" * size, replies=0)
        await eventually(lambda: desk.taken)
        assert desk.taken == [b"x" * min(size, 4096)]

    play(story)


def test_a_client_that_is_gone_before_its_answer_harms_nobody(port: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        await over_udp(port, b"late", replies=0)
        await eventually(lambda: desk.kept)
        for _ in range(3):  # the first leads to an ICMP error, which a later one may meet
            desk.kept[0][1].send(b"too late")
        assert await over_udp(port, b"a1", replies=1) == [b"re a1"]

    play(story)


def test_a_reply_that_is_too_long_for_a_datagram_is_dropped(port: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        await over_udp(port, b"late", replies=0)
        await eventually(lambda: desk.kept)
        desk.kept[0][1].send(b"x" * 70_000)
        assert await over_udp(port, b"a1", replies=1) == [b"re a1"]

    play(story)


def test_clients_say_whether_they_are_streams(port: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        await over_udp(port, b"udp", replies=0)
        reader, writer = await stream(port)
        writer.write(framed(b"tcp"))
        await eventually(lambda: len(desk.kept) == 2)
        assert {data: client.stream for data, client in desk.kept} == {b"udp": False, b"tcp": True}
        await bye(writer)

    play(story)


# -- TCP


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_questions_on_one_connection_are_answered_one_after_another(port: int, address: str) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        reader, writer = await stream(port, address)
        for message in (b"a1", b"a2", b"a" * 65_000):
            writer.write(framed(message))
            assert await reply(reader) == b"re " + message
        await bye(writer)

    play(story)


def test_an_empty_message_is_handed_on_and_the_next_is_read(port: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        reader, writer = await stream(port)
        writer.write(framed(b"", b"a1"))
        assert await reply(reader) == b"re a1"
        assert desk.taken == [b"", b"a1"]
        await bye(writer)

    play(story)


def test_half_a_message_and_goodbye_is_nothing(port: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        _, writer = await stream(port)
        writer.write(framed(b"a question")[:-1])
        await bye(writer)
        await eventually(lambda: len(listener.crowd) == 0)
        assert await over_udp(port, b"a1", replies=1) == [b"re a1"]
        assert desk.taken == [b"a1"]

    play(story)


def test_an_idle_connection_is_hung_up_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE", 0.1)

    async def story(listener: Listener, desk: Desk) -> None:
        reader, writer = await stream(port)
        writer.write(framed(b"a1"))
        assert await reply(reader) == b"re a1"
        assert await hung_up(reader)
        await bye(writer)

    play(story)


@pytest.mark.parametrize(
    "count",
    [
        50,
        3000,
    ],
)
def test_any_number_of_questions_whose_answers_are_there_at_once_is_answered(port: int, count: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        reader, writer = await stream(port)
        writer.write(framed(*(b"a%d" % number for number in range(count))))
        try:
            assert [await reply(reader) for _ in range(count)] == [b"re a%d" % number for number in range(count)]
        finally:
            await bye(writer)

    play(story)


def test_who_deserves_no_answer_is_hung_up_on_over_tcp_and_ignored_over_udp(port: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        assert await over_udp(port, b"- noise", b"a1", replies=1) == [b"re a1"]
        reader, writer = await stream(port)
        writer.write(framed(b"- noise"))
        assert await hung_up(reader)
        await bye(writer)

    play(story)


def test_of_whom_was_hung_up_on_nothing_more_is_taken(port: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        reader, writer = await stream(port)
        writer.write(framed(b"- noise", *[b"slow"] * 50))
        assert await hung_up(reader)
        await bye(writer)
        assert desk.kept == []

    play(story)


# -- replies that are ready


def test_a_ready_reply_is_sent_with_the_askers_id_and_nobody_is_bothered(port: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        listener.ready[b"-question"] = b"-reply"
        assert await over_udp(port, b"\x12\x34-question", b"zz-question", replies=2) == [b"\x12\x34-reply", b"zz-reply"]
        assert await over_udp(port, b"a1-another", replies=1) == [b"re a1-another"]
        assert (desk.taken, listener.given) == ([b"a1-another"], 2)
        listener.ready.clear()
        assert await over_udp(port, b"a2-question", replies=1) == [b"re a2-question"]

    play(story)


def test_a_ready_reply_is_not_for_streams(port: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        listener.ready[b"-question"] = b"-reply, cut to what a datagram can hold"
        reader, writer = await stream(port)
        writer.write(framed(b"a1-question"))
        assert await reply(reader) == b"re a1-question"
        await bye(writer)
        assert listener.given == 0

    play(story)


@pytest.mark.parametrize("message", [b"", b"x", b"xy"])
def test_a_datagram_without_anything_after_its_id_is_no_question_that_is_ready(port: int, message: bytes) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        listener.ready[b"-question"] = b"-reply"
        await over_udp(port, message, replies=0)
        await eventually(lambda: desk.taken == [message])

    play(story)


# -- doors


def test_questions_wait_in_the_sockets_until_the_start(port: int) -> None:
    async def run() -> None:
        listener, desk = Listener(Turn(asyncio.get_running_loop()), {}), Desk()
        listener.bind((V4,))
        question = asyncio.create_task(over_udp(port, b"a1", replies=1))
        reader, writer = await stream(port)
        writer.write(framed(b"a2"))
        await asyncio.sleep(0)
        assert desk.taken == []
        await listener.start(desk.take)
        assert await question == [b"re a1"]
        assert await reply(reader) == b"re a2"
        await bye(writer)
        listener.close()
        await eventually(lambda: len(listener.crowd) == 0)

    asyncio.run(run())


def test_doors_open_and_close_while_the_others_go_on(port: int) -> None:
    third = ip("127.0.0.3")

    async def story(listener: Listener, desk: Desk) -> None:
        reader, writer = await stream(port)
        listener.bind((V4, third))
        await listener.start(desk.take)
        assert await over_udp(port, b"a1", address="127.0.0.3", replies=1) == [b"re a1"]
        listener.keep_only((V4, third))
        with pytest.raises(ConnectionRefusedError):
            await stream(port, "::1")
        with pytest.raises(ConnectionRefusedError):
            await over_udp(port, b"a1", address="::1", replies=1)
        writer.write(framed(b"a2"))
        assert await reply(reader) == b"re a2"
        listener.bind((V4, V6, third))
        await listener.start(desk.take)
        assert await over_udp(port, b"a3", address="::1", replies=1) == [b"re a3"]
        await bye(writer)

    play(story)


def test_a_restart_at_once_finds_its_port_free(port: int) -> None:
    async def story(listener: Listener, desk: Desk) -> None:
        reader, writer = await stream(port)
        writer.write(framed(b"a1"))
        assert await reply(reader) == b"re a1"
        listener.close()  # the server ends first: its side is left in TIME_WAIT
        await bye(writer)

    play(story)
    play(story)


HOLDER = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[1] == "UDP" else socket.SOCK_STREAM
sock = socket.socket(socket.AF_INET, kind)
sock.bind((sys.argv[2], int(sys.argv[3])))
if kind == socket.SOCK_STREAM: sock.listen()
print("bound", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_a_taken_port_is_told_with_its_holder_and_nothing_is_opened(port: int, transport: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, transport, "127.0.0.2", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout and other.stdin
        assert other.stdout.readline() == b"bound\n"

        async def run() -> None:
            listener = Listener(Turn(asyncio.get_running_loop()), {})
            with pytest.raises(MachineError) as error:
                listener.bind((V4, ip("127.0.0.2")))
            words = str(error.value)
            assert words.startswith(f"cannot listen on 127.0.0.2 port {port} ({transport}): taken by ")
            assert f"(pid {other.pid}" in words
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
                free.bind(("127.0.0.1", port))

        asyncio.run(run())
        other.stdin.close()
    wait_until(lambda: other.returncode is not None)


@pytest.mark.parametrize(
    ("address", "words"), [("192.0.2.77", "no link has this address; bring up lo, or change dns.listen")]
)
def test_an_address_that_is_not_there_is_told(port: int, address: str, words: str) -> None:
    async def run() -> None:
        with pytest.raises(MachineError, match=f"cannot listen on {address} port {port} .UDP.: {words}"):
            Listener(Turn(asyncio.get_running_loop()), {}).bind((ip(address),))

    asyncio.run(run())


class Kept(Shelf):
    """systemd's part of it: what it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, socket.socket] = {}

    def take(self, name: str) -> socket.socket | None:
        return self.kept[name].dup() if name in self.kept else None

    def keep(self, name: str, sock: socket.socket) -> None:
        if name not in self.kept:
            self.kept[name] = sock.dup()

    def drop(self, name: str) -> None:
        if name in self.kept:
            self.kept.pop(name).close()


def test_who_asks_while_nobody_listens_is_answered_by_the_next(port: int) -> None:
    shelf = Kept()

    async def run() -> None:
        former, desk = Listener(Turn(asyncio.get_running_loop()), {}, shelf), Desk()
        former.bind((V4, V6))
        await former.start(desk.take)
        held = asyncio.create_task(over_udp(port, b"held", replies=1))
        await eventually(lambda: desk.kept)
        former.pause()
        waiting = asyncio.create_task(over_udp(port, b"a1", replies=1))
        reader, writer = await stream(port)
        writer.write(framed(b"a2"))
        await asyncio.sleep(0.05)
        assert desk.taken == [b"held"]
        desk.kept[0][1].send(b"late")
        assert await held == [b"late"]
        former.close()
        successor = Listener(Turn(asyncio.get_running_loop()), {}, shelf)
        successor.bind((V4, V6))
        await successor.start(desk.take)
        assert await waiting == [b"re a1"] and await reply(reader) == b"re a2"
        writer.close()
        successor.keep_only((V4,))
        assert sorted(shelf.kept) == ["tcp 127.0.0.1", "udp 127.0.0.1"]
        successor.close()

    asyncio.run(run())
    for name in list(shelf.kept):
        shelf.drop(name)


def test_half_a_door_is_not_kept(port: int) -> None:
    shelf = Kept()

    async def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
            other.bind(("127.0.0.2", port))
            other.listen()
            with pytest.raises(MachineError):
                Listener(Turn(asyncio.get_running_loop()), {}, shelf).bind((V4, ip("127.0.0.2")))
        assert shelf.kept == {}

    asyncio.run(run())


@pytest.mark.parametrize("runs", [True, False])
def test_resolveds_stub_is_left_where_resolved_runs(
    port: int, runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = tmp_path / "resolv.conf"
    monkeypatch.setattr("splitwgd.listener._RESOLVED", str(resolved))
    if runs:
        resolved.touch()

    async def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stub:
            stub.bind(("127.0.0.53", port))
            listener = Listener(Turn(asyncio.get_running_loop()), {})
            if not runs:
                with pytest.raises(MachineError, match=r"cannot listen on 127.0.0.53"):
                    listener.bind((V4, ip("127.0.0.53")))
                return
            listener.bind((V4, ip("127.0.0.53")))
            stub.close()  # it is restarted
            listener.bind((V4, ip("127.0.0.53")))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
                again.bind(("127.0.0.53", port))
            listener.close()

    asyncio.run(run())
