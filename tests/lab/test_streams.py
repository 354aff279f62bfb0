"""TCP as clients, and their enemies, use it: rows 54 and 55 of docs/conformance.md.

25 cases that must be answered or ended as they should, and 20 of garbage, each of which is answered with an error or
hung up on. What has to wait for the daemon's patience to end waits side by side, once for all.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from random import Random

import pytest

from tests.fuzz.packets import TXT, framed, header, name, opt, option, query
from tests.fuzz.reader import Message, read

from .asking import DAEMON, ask, dial, inside
from .load import family_of
from .standing import Standing, asks, standing
from .world import Lab

HOST = name("host0.diff.example")
FAST, AGAIN = query(HOST, ident=1), query(name("host1.diff.example"), ident=2)
IDLE = (2.0, 20.0)  # seconds; RFC 7766 §6.2.3: a few seconds, and no fewer
GIVE_UP = 25.0  # for what should have ended by itself

Case = Callable[["Client"], Awaitable[None]]


class Closed(Exception):
    """The other end has closed, in whichever way."""


class Stream:
    """One connection of a test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.buffer = b""
        self.since = time.monotonic()

    async def send(self, data: bytes) -> None:
        try:
            await self.loop.sock_sendall(self.sock, data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    async def some(self, most: int = 65_536) -> bytes:
        """What has come; raises Closed at the end."""
        try:
            data = await self.loop.sock_recv(self.sock, most)
        except ConnectionResetError as error:
            raise Closed from error
        if not data:
            raise Closed
        return data

    async def message(self, patience: float = 8.0) -> Message:
        """The next one."""
        async with asyncio.timeout(patience):
            while len(self.buffer) < 2 or len(self.buffer) < 2 + int.from_bytes(self.buffer[:2], "big"):
                self.buffer += await self.some()
        end = 2 + int.from_bytes(self.buffer[:2], "big")
        message, self.buffer = self.buffer[2:end], self.buffer[end:]
        return read(message)

    async def ids(self, count: int) -> list[int]:
        """Of the next messages."""
        return [(await self.message()).id for _ in range(count)]

    async def closed_after(self) -> float:
        """Seconds from the beginning of the connection to its end, whatever comes before that."""
        try:
            async with asyncio.timeout(GIVE_UP):
                while True:
                    await self.some()
        except Closed:
            return time.monotonic() - self.since

    def reset(self) -> None:
        """Ends the connection rudely."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Client:
    """Opens connections from the lab's client; closes what a case leaves open."""

    def __init__(self, daemon: Standing) -> None:
        self.daemon = daemon
        self.host = daemon.machine.lab.client
        self.open: list[socket.socket] = []

    async def connect(self, server: str = DAEMON, receive: int = 0) -> Stream:
        """receive: the size of the receive buffer, 0 for the usual one."""
        with inside(self.host):
            sock = socket.socket(family_of(server), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.open.append(sock)
        if receive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        await asyncio.get_running_loop().sock_connect(sock, (server, 53))
        return Stream(sock)

    async def alive(self) -> bool:
        """Whether the daemon answers somebody else."""
        other = await self.connect()
        await other.send(framed(AGAIN))
        return await other.ids(1) == [2]


def names(count: int, first: str = "plain") -> list[bytes]:
    """Questions with the ids 0, 1, 2, ..."""
    return [query(name(f"{first}-{number}.scripted.example"), ident=number) for number in range(count)]


# -- 25 cases


async def one_question(client: Client) -> None:
    stream = await client.connect()
    await stream.send(framed(FAST))
    reply = await stream.message()
    assert (reply.id, reply.rcode, len(reply.answers)) == (1, 0, 1)


async def one_question_over_ipv6(client: Client) -> None:
    stream = await client.connect("::1")
    await stream.send(framed(FAST))
    assert await stream.ids(1) == [1]


async def two_in_one_segment(client: Client) -> None:
    stream = await client.connect()
    await stream.send(framed(FAST, AGAIN))
    assert sorted(await stream.ids(2)) == [1, 2]


async def a_hundred_at_once(client: Client) -> None:
    stream = await client.connect()
    await stream.send(framed(*names(100, "hundred")))
    assert sorted(await stream.ids(100)) == list(range(100))


async def out_of_order(client: Client) -> None:
    stream = await client.connect()
    await stream.send(framed(query(name("slow-700-order.scripted.example"), ident=9), FAST))
    assert await stream.ids(2) == [1, 9]


async def the_length_in_two_parts(client: Client) -> None:
    stream = await client.connect()
    for part in (framed(FAST)[:1], framed(FAST)[1:2], framed(FAST)[2:9], framed(FAST)[9:]):
        await stream.send(part)
        await asyncio.sleep(0.02)
    assert await stream.ids(1) == [1]


async def octet_by_octet(client: Client) -> None:
    stream = await client.connect()
    for octet in framed(FAST, AGAIN):
        await stream.send(bytes([octet]))
        await asyncio.sleep(0.001)
    assert sorted(await stream.ids(2)) == [1, 2]


async def one_and_a_half(client: Client) -> None:
    stream = await client.connect()
    both = framed(FAST, AGAIN)
    await stream.send(both[:-10])
    assert await stream.ids(1) == [1], "the first does not wait for the second"
    await stream.send(both[-10:])
    assert await stream.ids(1) == [2]


async def five_hundred_in_turn(client: Client) -> None:
    stream = await client.connect()
    for number in range(500):
        await stream.send(framed(query(HOST, ident=number)))
        assert await stream.ids(1) == [number]


async def half_closed_after_the_question(client: Client) -> None:
    stream = await client.connect()
    await stream.send(framed(query(name("slow-300-half.scripted.example"), ident=9)))
    stream.sock.shutdown(socket.SHUT_WR)
    assert await stream.ids(1) == [9]
    assert await stream.closed_after() < IDLE[1]


async def half_closed_after_twenty(client: Client) -> None:
    stream = await client.connect()
    await stream.send(framed(FAST, *names(20, "slow-300")))
    stream.sock.shutdown(socket.SHUT_WR)
    assert sorted(await stream.ids(21)) == sorted([1, *range(20)])


async def one_id_for_two_questions(client: Client) -> None:
    stream = await client.connect()
    await stream.send(framed(query(HOST, ident=5), query(name("host1.diff.example"), ident=5)))
    replies = [await stream.message(), await stream.message()]
    assert {reply.questions[0][0] for reply in replies} == {HOST, name("host1.diff.example")}
    assert {reply.answers[0].rdata for reply in replies} == {bytes([192, 0, 2, 10]), bytes([192, 0, 2, 11])}


async def one_question_many_times(client: Client) -> None:
    stream = await client.connect()
    question = name("slow-300-many.scripted.example")
    await stream.send(framed(*(query(question, ident=number) for number in range(50))))
    assert sorted(await stream.ids(50)) == list(range(50))
    assert asks["slow-300-many.scripted.example"] <= 2, "equal questions share one upstream query, and its repetition"


async def a_big_answer(client: Client) -> None:
    stream = await client.connect()
    await stream.send(framed(query(name("size-60000.scripted.example"), TXT)))
    assert (await stream.message()).answers[0].rdata.count(b"t") == 60_000


async def a_big_answer_read_slowly(client: Client) -> None:
    stream = await client.connect(receive=4096)
    await stream.send(framed(query(name("size-60001.scripted.example"), TXT)))
    while len(stream.buffer) < 20_000:
        stream.buffer += await stream.some(500)
        await asyncio.sleep(0.01)
    assert (await stream.message()).answers[0].rdata.count(b"t") == 60_001


async def closed_after_the_question(client: Client) -> None:
    for number in range(50):
        stream = await client.connect()
        await stream.send(framed(query(name(f"slow-100-gone{number}.scripted.example"))))
        stream.sock.close()
    assert await client.alive()


async def reset_after_the_question(client: Client) -> None:
    for number in range(50):
        stream = await client.connect()
        await stream.send(framed(query(name(f"slow-100-reset{number}.scripted.example"))))
        stream.reset()
    assert await client.alive()


async def reset_within_the_answer(client: Client) -> None:
    for _ in range(20):
        stream = await client.connect(receive=4096)
        await stream.send(framed(*[query(name("size-60000.scripted.example"), TXT)] * 5))
        await stream.some(100)
        stream.reset()
    assert await client.alive()


async def urgent_data(client: Client) -> None:
    stream = await client.connect()
    stream.sock.send(b"!", socket.MSG_OOB)
    await stream.send(framed(FAST))
    assert await stream.ids(1) == [1]


async def keepalive_asked_for(client: Client) -> None:
    """RFC 7828: an option that may be ignored, and not be taken for a fault."""
    stream = await client.connect()
    await stream.send(framed(query(HOST, ident=3, edns=opt(options=option(11, b"")))))
    assert (await stream.message()).rcode == 0


async def silent_from_the_beginning(client: Client) -> None:
    stream = await client.connect()
    assert IDLE[0] < await stream.closed_after() < IDLE[1]


async def silent_after_an_answer(client: Client) -> None:
    stream = await client.connect()
    await stream.send(framed(FAST))
    assert await stream.ids(1) == [1]
    assert IDLE[0] < await stream.closed_after() < IDLE[1]


async def a_question_now_and_then(client: Client) -> None:
    """Who goes on asking is not idle."""
    stream = await client.connect()
    for number in range(8):
        await stream.send(framed(query(HOST, ident=number)))
        assert await stream.ids(1) == [number]
        await asyncio.sleep(1.9)


async def slow_loris(client: Client) -> None:
    """An octet now and then is no question, and earns no more time."""
    stream = await client.connect()
    octets = framed(query(b"\x3f" + b"a" * 63 + HOST))
    until = asyncio.create_task(stream.closed_after())
    try:
        for octet in octets:
            if until.done():
                break
            await stream.send(bytes([octet]))
            await asyncio.sleep(0.5)
    except Closed:
        pass
    assert await until < IDLE[1]


async def never_reads(client: Client) -> None:
    """What is not read is not piled up without bound, and others do not wait."""
    before = client.daemon.memory()
    stream = await client.connect(receive=4096)
    big = framed(*[query(name("size-60000.scripted.example"), TXT)] * 20)
    try:
        async with asyncio.timeout(5):
            for _ in range(50):  # 60 MB of answers
                await stream.send(big)
                await asyncio.sleep(0.01)
    except (TimeoutError, Closed):
        pass
    assert await client.alive()
    assert client.daemon.memory() - before < 15 << 20
    assert await stream.closed_after() < GIVE_UP


QUICK = (
    one_question,
    one_question_over_ipv6,
    two_in_one_segment,
    a_hundred_at_once,
    out_of_order,
    the_length_in_two_parts,
    octet_by_octet,
    one_and_a_half,
    five_hundred_in_turn,
    half_closed_after_the_question,
    half_closed_after_twenty,
    one_id_for_two_questions,
    one_question_many_times,
    a_big_answer,
    a_big_answer_read_slowly,
    closed_after_the_question,
    reset_after_the_question,
    reset_within_the_answer,
    urgent_data,
    keepalive_asked_for,
)
PATIENT = (silent_from_the_beginning, silent_after_an_answer, a_question_now_and_then, slow_loris, never_reads)

# -- 20 cases of garbage: (what is sent before, what is sent again and again)

_RANDOM = Random(54)
_SHORT = struct.pack("!H", 11) + FAST
_LONG = struct.pack("!H", len(FAST) + 16) + FAST
_CUT = struct.pack("!H", 14) + FAST
GARBAGE: dict[str, tuple[bytes, bytes]] = {
    "a length less than a header": (b"", _SHORT),
    "a length less than a header, after a question": (framed(AGAIN), _SHORT),
    "a length less than a header, with a question": (b"", framed(AGAIN) + _SHORT),
    "a length greater than the message": (b"", _LONG),
    "a length greater than the message, after a question": (framed(AGAIN), _LONG),
    "a length greater than the message, with a question": (b"", framed(AGAIN) + _LONG),
    "a length that cuts the message": (b"", _CUT),
    "a length that cuts the message, after a question": (framed(AGAIN), _CUT),
    "a length that cuts the message, with a question": (b"", framed(AGAIN) + _CUT),
    "an octet after the question": (b"", framed(FAST + b"\0")),
    "8 octets after the question": (b"", framed(FAST + _RANDOM.randbytes(8))),
    "1,024 octets after the question": (b"", framed(FAST + _RANDOM.randbytes(1024))),
    "20,000 octets after the question": (b"", framed(FAST + _RANDOM.randbytes(20_000))),
    "1,024 octets of chance": (b"", framed(_RANDOM.randbytes(1024))),
    "65,535 octets of chance": (b"", framed(_RANDOM.randbytes(65_535))),
    "chance without a length": (b"", _RANDOM.randbytes(3000)),
    "messages without an octet": (b"", bytes(200)),
    "a request for a web page": (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "a hello of TLS": (b"", bytes.fromhex("16030100c8010000c40303") + _RANDOM.randbytes(194)),
    "replies": (b"", framed(header(0x8180, 1) + FAST[12:])),
}


def garbage(what: str) -> Case:
    """Sends it every half second until an error comes back or the connection ends."""

    async def case(client: Client) -> None:
        before, again = GARBAGE[what]
        stream = await client.connect()
        if before:
            await stream.send(before)
            assert (await stream.message()).rcode == 0, "the good question is answered"
        try:
            async with asyncio.timeout(GIVE_UP):
                while await _passed_over(stream, again):
                    pass
        except Closed:
            pass
        assert await client.alive()

    return case


async def _passed_over(stream: Stream, data: bytes) -> bool:
    """Sends it; whether no error came back, half a second long."""
    await stream.send(data)
    until = time.monotonic() + 0.5
    while (left := until - time.monotonic()) > 0:
        try:
            reply = await stream.message(left)
        except TimeoutError:
            return True
        if reply.rcode:
            return False
    return True


# -- all of them


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Standing]:
    with standing(lab) as built:
        yield built


@pytest.fixture(scope="module")
def warm(daemon: Standing) -> int:
    """The daemon's memory after each kind of work was done once."""
    asyncio.run(_played(daemon, a_big_answer))
    asyncio.run(_played(daemon, a_hundred_at_once))
    return daemon.memory()


async def _played(daemon: Standing, case: Case) -> None:
    client = Client(daemon)
    try:
        await case(client)
    finally:
        for sock in client.open:
            sock.close()


@pytest.fixture(scope="module")
def endings(daemon: Standing, warm: int) -> dict[str, BaseException | None]:
    """How the cases that take their time ended: all at once, each on connections of its own."""
    cases: dict[str, Case] = {case.__name__: case for case in PATIENT} | {what: garbage(what) for what in GARBAGE}

    async def all_of_them() -> list[BaseException | None]:
        return await asyncio.gather(*(_played(daemon, case) for case in cases.values()), return_exceptions=True)

    return dict(zip(cases, asyncio.run(all_of_them()), strict=True))


def test_row_54_there_are_25_cases_and_20_of_garbage() -> None:
    assert (len({*QUICK, *PATIENT}), len(GARBAGE)) == (25, 20)


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.__name__)
def test_row_54(daemon: Standing, warm: int, case: Case) -> None:
    asyncio.run(_played(daemon, case))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", [*(case.__name__ for case in PATIENT), *GARBAGE])
def test_row_54_side_by_side(endings: dict[str, BaseException | None], what: str) -> None:
    ending = endings[what]
    if ending is not None:
        raise ending


def test_row_54_the_memory_does_not_grow(daemon: Standing, warm: int, endings: object) -> None:
    assert daemon.memory() - warm < 20 << 20


# -- row 55


def test_row_55_ten_thousand_connections(daemon: Standing) -> None:
    """As many at a time as a client's files allow. Only the oldest idle ones have to go."""
    host = daemon.machine.lab.client
    most, healthy, held = 0, 0, []
    waiting = dial(host, socket.SOCK_STREAM)
    with inside(host):
        try:
            for number in range(10_000):
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                sock.settimeout(5)
                sock.connect((DAEMON, 53))
                held.append(sock)
                if len(held) > 1000:
                    held.pop(0).close()
                if number == 9_700:
                    waiting.close()
                    waiting = dial(host, socket.SOCK_STREAM)
                    waiting.sendall(framed(query(name("slow-2500-flood.scripted.example"), ident=77)))
                if number % 100 == 99:
                    reply = ask(host, query(name(f"plain-flood{number}.scripted.example")), patience=2.0)
                    healthy += reply is not None and read(reply).rcode == 0
                    most = max(most, daemon.descriptors())
            held[-1].sendall(framed(FAST))
            assert held[-1].recv(512)[2:4] == FAST[:2], "the newest is served"
            assert waiting.recv(512)[2:4] == b"\0\x4d", "who waits for an answer is not idle"
            held[0].settimeout(1)
            try:
                assert held[0].recv(1) == b"", "the oldest idle one is closed"
            except ConnectionResetError:
                pass
        finally:
            for sock in (*held, waiting):
                sock.close()
    assert healthy == 100
    assert most < 400
