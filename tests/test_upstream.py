"""Questions to servers on loopback that are silent, slow, broken or lying. Marks: tests/kernel/test_upstream_marks."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from dnslib import QTYPE, RR, DNSRecord
from dnslib import A as ARecord

from splitwgd.answers import Reply
from splitwgd.errors import UpstreamError
from splitwgd.message import A, question_for
from splitwgd.names import parse_name
from splitwgd.servers import Server
from splitwgd.upstream import Upstreams
from splitwgd.zones import Group
from tests.worlds import eventually, free_port, ip, server

QUERY = question_for(parse_name("example.com"), A)
Outcome = Reply | UpstreamError
Udp = Callable[["Fake", bytes, tuple[str, int]], None]
Tcp = Callable[[bytes], Iterable[bytes]]


@pytest.fixture(autouse=True)
def unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    """SO_MARK needs root, and time is dear."""

    def plain(server: Server, kind: socket.SocketKind, group: Group) -> socket.socket:
        family = socket.AF_INET if server.address.version == 4 else socket.AF_INET6
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    monkeypatch.setattr("splitwgd.upstream._socket", plain)
    monkeypatch.setattr("splitwgd.exchange.PATIENCE", (0.1, 0.1, 0.1))


class Fake:
    """A DNS server. `udp` does what it does with a datagram, `tcp` gives the pieces of its answer."""

    def __init__(self, udp: Udp | None = None, tcp: Tcp | None = None, address: str = "127.0.0.1") -> None:
        self.udp = udp
        self.tcp = tcp
        self.asked: list[tuple[bytes, tuple[str, int]]] = []
        self.server = server(address, free_port(address))
        self.sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind((address, self.server.port))
        self.streams: asyncio.Server | None = None

    async def __aenter__(self) -> Fake:
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self._take)
        if self.tcp is not None:
            self.streams = await asyncio.start_server(self._serve, str(self.server.address), self.server.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self.sock.fileno())
        self.sock.close()
        if self.streams is not None:
            self.streams.close()
            await self.streams.wait_closed()

    def _take(self) -> None:
        data, client = self.sock.recvfrom(4096)
        self.asked.append((data, client))
        if self.udp is not None:
            self.udp(self, data, client)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        assert self.tcp is not None
        for piece in self.tcp(await reader.readexactly(length)):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()


def answer(question: bytes, address: str = "192.0.2.1", rcode: int = 0, tc: bool = False, name: str = "") -> bytes:
    record = DNSRecord.parse(question)
    reply = record.reply()
    reply.header.rcode, reply.header.tc = rcode, int(tc)
    if name:
        reply.q.qname = name
    if rcode == 0 and not tc:
        reply.add_answer(RR(str(reply.q.qname), QTYPE.A, ttl=60, rdata=ARecord(address)))
    return bytes(reply.pack())


def says(**how: Any) -> Udp:
    return other(lambda data: answer(data, **how))


def other(change: Callable[[bytes], bytes]) -> Udp:
    def send(fake: Fake, data: bytes, client: tuple[str, int]) -> None:
        fake.sock.sendto(change(data), client)

    return send


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def play(story: Callable[[Upstreams], Awaitable[None]]) -> None:
    """A story leaves no socket, timer or question behind."""

    async def run() -> None:
        upstreams = Upstreams(asyncio.get_running_loop())
        before = len(os.listdir("/proc/self/fd"))
        await story(upstreams)
        assert not upstreams.flights
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(run())


async def ask(upstreams: Upstreams, *fakes: Fake | Server) -> Outcome:
    servers = tuple(fake.server if isinstance(fake, Fake) else fake for fake in fakes)
    outcomes: list[Outcome] = []
    upstreams.ask(QUERY, Group("default", servers, 0), outcomes.append)
    assert outcomes == []  # never before the call has returned
    await eventually(lambda: outcomes)
    return outcomes[0]


def addresses(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Reply), outcome
    return [str(address) for address in outcome.addresses]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_server_is_asked_and_its_answer_taken(address: str) -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(), address=address) as fake:
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.1"]
            (question, _) = fake.asked[0]
            assert str(DNSRecord.parse(question).q.qname) == "example.com."

    play(story)


def test_when_the_first_is_silent_the_second_is_asked() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as silent, Fake(says()) as second:
            assert addresses(await ask(upstreams, silent, second)) == ["192.0.2.1"]
            assert (len(silent.asked), len(second.asked)) == (1, 1)

    play(story)


def test_the_first_may_still_answer_while_the_second_is_asked() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as slow:

            def now(fake: Fake, data: bytes, client: tuple[str, int]) -> None:
                says(address="192.0.2.77")(slow, *slow.asked[0])

            async with Fake(now) as second:
                assert addresses(await ask(upstreams, slow, second)) == ["192.0.2.77"]

    play(story)


def other_port(fake: Fake, data: bytes, client: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as liar:
        liar.bind(("127.0.0.1", 0))
        liar.sendto(answer(data, "203.0.113.66"), client)


def forged(data: bytes) -> bytes:
    return answer(data, "203.0.113.66")


LIES: dict[str, Udp] = {
    "another id": other(lambda data: bytes([data[0] ^ 1]) + forged(data)[1:]),
    "another name": other(lambda data: answer(data, "203.0.113.66", name="example.net")),
    "another type": other(lambda data: forged(data)[:25] + b"\0\x1c" + forged(data)[27:]),
    "a question": other(lambda data: forged(data)[:2] + b"\x01\x00" + forged(data)[4:]),
    "another opcode": other(lambda data: forged(data)[:2] + b"\xa0\x00" + forged(data)[4:]),
    "two questions": other(lambda data: forged(data)[:4] + b"\0\2" + forged(data)[6:]),
    "nothing": other(lambda data: b""),
    "a header": other(lambda data: forged(data)[:12]),
    "noise": other(lambda data: b"\xff" * 600),
    "another port": other_port,
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_answer_to_the_question_is_passed_over(lie: str) -> None:
    def lie_first(fake: Fake, data: bytes, client: tuple[str, int]) -> None:
        for _ in range(3):
            LIES[lie](fake, data, client)
        says()(fake, data, client)

    async def story(upstreams: Upstreams) -> None:
        async with Fake(lie_first) as fake:
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.1"]
            assert len(fake.asked) == 1

    play(story)


def test_an_answer_that_comes_twice_is_taken_once() -> None:
    def twice(fake: Fake, data: bytes, client: tuple[str, int]) -> None:
        says()(fake, data, client)
        says()(fake, data, client)

    async def story(upstreams: Upstreams) -> None:
        outcomes: list[Outcome] = []
        async with Fake(twice) as fake:
            upstreams.ask(QUERY, Group("g", (fake.server,), 0), outcomes.append)
            await eventually(lambda: outcomes)
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.1"]
        assert len(outcomes) == 1

    play(story)


def test_each_attempt_has_a_port_and_an_id_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as silent:
            assert isinstance(await ask(upstreams, silent), UpstreamError)
            assert len(silent.asked) == 3
            assert len({client for _, client in silent.asked}) == 3
            assert len({data[:2] for data, _ in silent.asked}) > 1

    play(story)


@pytest.mark.parametrize("rcode", [2, 4, 5, 9])
def test_what_one_refuses_another_may_know(rcode: int) -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(rcode=rcode)) as first, Fake(says()) as second:
            assert addresses(await ask(upstreams, first, second)) == ["192.0.2.1"]
            assert len(first.asked) == 1

    play(story)


def test_when_all_refuse_the_refusal_is_the_answer_and_nobody_is_asked_twice() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(rcode=5)) as first, Fake(says(rcode=2)) as second:
            outcome = await ask(upstreams, first, second)
            assert isinstance(outcome, Reply) and outcome.rcode == 2
            assert (len(first.asked), len(second.asked)) == (1, 1)

    play(story)


def test_nxdomain_is_an_answer() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(rcode=3)) as first, Fake(says()) as second:
            outcome = await ask(upstreams, first, second)
            assert isinstance(outcome, Reply) and outcome.rcode == 3
            assert second.asked == []

    play(story)


def test_a_closed_port_is_known_at_once() -> None:
    async def story(upstreams: Upstreams) -> None:
        closed = server("127.0.0.1", free_port())
        async with Fake(says()) as second:
            assert addresses(await ask(upstreams, closed, second)) == ["192.0.2.1"]
        outcome = await ask(upstreams, closed, server("127.0.0.2", closed.port))
        assert str(outcome) == (
            f"default: 127.0.0.1:{closed.port} Connection refused; 127.0.0.2:{closed.port} Connection refused"
        )

    play(story)


def test_an_error_names_every_server_that_was_asked() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as first, Fake() as second:
            outcome = await ask(upstreams, first, second)
            assert isinstance(outcome, UpstreamError)
            for fake in (first, second):
                assert f"{fake.server} no answer in time" in str(outcome)

    play(story)


def test_without_servers_there_is_no_answer() -> None:
    async def story(upstreams: Upstreams) -> None:
        assert str(await ask(upstreams)) == "default: no server"

    play(story)


def test_the_whole_question_ends_in_time_however_many_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitwgd.exchange.DEADLINE", 0.15)

    async def story(upstreams: Upstreams) -> None:
        async with Fake() as silent:
            assert isinstance(await ask(upstreams, *[silent] * 50), UpstreamError)
            assert 1 <= len(silent.asked) <= 3

    play(story)


def test_an_answer_that_cannot_be_read_is_as_none() -> None:
    cut = other(lambda data: answer(data)[:-3])

    async def story(upstreams: Upstreams) -> None:
        async with Fake(cut) as first, Fake(says()) as second:
            assert addresses(await ask(upstreams, first, second)) == ["192.0.2.1"]

    play(story)


# -- TCP


def pieces(data: bytes) -> Iterable[bytes]:
    for byte in framed(answer(data, "192.0.2.9")):
        yield bytes([byte])


def test_a_truncated_answer_is_asked_for_again_over_tcp_of_the_same_server() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(tc=True), pieces) as fake, Fake(says()) as second:
            assert addresses(await ask(upstreams, fake, second)) == ["192.0.2.9"]
            assert second.asked == []

    play(story)


def test_over_tcp_an_answer_may_be_as_long_as_it_gets() -> None:
    def long(data: bytes) -> Iterable[bytes]:
        record = DNSRecord.parse(data).reply()
        for number in range(3000):
            record.add_answer(RR("example.com", QTYPE.A, ttl=60, rdata=ARecord(f"10.0.{number // 250}.{number % 250}")))
        return [framed(bytes(record.pack()))]

    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(tc=True), long) as fake:
            assert len(addresses(await ask(upstreams, fake))) == 3000

    play(story)


BROKEN: dict[str, Tcp | None] = {
    "closed": None,
    "ended before the length": lambda data: [b"\0"],
    "ended in the middle": lambda data: [framed(answer(data))[:-1]],
    "ended at once": lambda data: [],
    "an empty message": lambda data: [b"\0\0"],
    "the answer to another question": lambda data: [framed(answer(data, name="example.net"))],
    "another id": lambda data: [framed(bytes([data[0] ^ 1]) + answer(data)[1:])],
    "what cannot be read": lambda data: [framed(answer(data)[:-3])],
    "a refusal": lambda data: [framed(answer(data, rcode=2))],
}


@pytest.mark.parametrize("broken", BROKEN)
def test_whom_tcp_fails_with_is_followed_by_the_next(broken: str) -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(tc=True), BROKEN[broken]) as first, Fake(says()) as second:
            assert addresses(await ask(upstreams, first, second)) == ["192.0.2.1"]

    play(story)


def test_silence_over_tcp_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitwgd.exchange.TCP_PATIENCE", 0.1)

    async def story(upstreams: Upstreams) -> None:
        with socket.create_server(("127.0.0.1", 0)) as hole:  # accepts, and says nothing
            async with Fake(says()) as second:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                    udp.bind(hole.getsockname())
                    udp.setblocking(False)
                    loop = asyncio.get_running_loop()

                    def truncate() -> None:
                        data, client = udp.recvfrom(4096)
                        udp.sendto(answer(data, tc=True), client)

                    loop.add_reader(udp.fileno(), truncate)
                    first = server(*hole.getsockname())
                    assert addresses(await ask(upstreams, first, second)) == ["192.0.2.1"]
                    loop.remove_reader(udp.fileno())

    play(story)


def test_two_truncated_answers_make_one_outcome() -> None:
    async def story(upstreams: Upstreams) -> None:
        outcomes: list[Outcome] = []
        async with Fake(tcp=pieces) as slow:

            def both(fake: Fake, data: bytes, client: tuple[str, int]) -> None:
                says(tc=True)(fake, data, client)
                says(tc=True)(slow, *slow.asked[0])

            async with Fake(both, pieces) as second:
                upstreams.ask(QUERY, Group("g", (slow.server, second.server), 0), outcomes.append)
                await eventually(lambda: outcomes)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    await asyncio.wait([task])
        await asyncio.sleep(0)
        assert len(outcomes) == 1

    play(story)


# -- limits and ends


def test_more_than_the_limit_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitwgd.upstream.IN_FLIGHT_LIMIT", 2)

    async def story(upstreams: Upstreams) -> None:
        outcomes: list[Outcome] = []
        async with Fake() as silent:
            group = Group("default", (silent.server,), 0)
            for _ in range(3):
                upstreams.ask(QUERY, group, outcomes.append)
            await eventually(lambda: outcomes)
            assert str(outcomes[0]) == "default: 2 questions are under way already"
            upstreams.close()

    play(story)


def test_after_close_nobody_is_answered() -> None:
    async def story(upstreams: Upstreams) -> None:
        outcomes: list[Outcome] = []
        async with Fake() as fake, Fake(says()) as later:
            upstreams.ask(QUERY, Group("default", (fake.server,), 0), outcomes.append)
            await eventually(lambda: fake.asked)
            upstreams.close()
            says()(fake, *fake.asked[0])
            assert addresses(await ask(upstreams, later)) == ["192.0.2.1"]
        assert outcomes == []

    play(story)


def test_many_questions_at_once_each_get_their_own_answer() -> None:
    async def story(upstreams: Upstreams) -> None:
        def own(fake: Fake, data: bytes, client: tuple[str, int]) -> None:
            label = str(DNSRecord.parse(data).q.qname).split(".")[0]
            fake.sock.sendto(answer(data, f"192.0.2.{label[1:]}"), client)

        async with Fake(own) as fake:
            group = Group("default", (fake.server,), 0)
            outcomes: dict[int, Outcome] = {}
            for number in range(200):
                query = question_for(parse_name(f"n{number}.example.com"), A)
                upstreams.ask(query, group, lambda outcome, n=number: outcomes.__setitem__(n, outcome))  # type: ignore[misc]
            await eventually(lambda: len(outcomes) == 200)
            assert all(addresses(outcomes[number]) == [str(ip(f"192.0.2.{number}"))] for number in range(200))

    play(story)
