"""Many datagrams at once, on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import cast

import pytest

import splitwgd.bulk
from splitwgd.bulk import COUNT, QUESTION, Asker, Bulk
from splitwgd.turn import Turn

Taken = list[tuple[bytes, Asker]]
NOTHING: dict[bytes, bytes] = {}


class Loop:
    """Keeps what is to be called soon."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, step: Callable[[], None]) -> None:
        self.soon.append(step)

    def turn(self) -> None:
        (step,), self.soon = self.soon, []
        step()


def make_bulk(sock: socket.socket, loop: Loop | None = None) -> Bulk:
    return Bulk(Turn(cast(asyncio.AbstractEventLoop, loop or Loop())), sock)


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """A server's socket, and three clients'."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    sockets = [socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(4)]
    server, *clients = sockets
    server.bind((request.param, 0))
    for client in clients:
        client.connect(server.getsockname())
    yield server, clients
    for sock in sockets:
        sock.close()


def test_each_gets_its_own_reply_and_the_others_are_taken_with_their_addresses(
    pair: tuple[socket.socket, list[socket.socket]],
) -> None:
    server, (one, two, three) = pair
    one.send(b"\0\1known")
    two.send(b"\0\2new")
    three.send(b"\xff\3known")
    two.send(b"\0\4other")
    taken: Taken = []
    ready = {b"known": b"<answer>", b"other": b"<longer answer>"}
    assert make_bulk(server).exchange(ready.get, lambda *what: taken.append(what)) == (4, 3)
    ((data, asker),) = taken
    assert data == b"\0\2new"
    assert asker.address[2:4] == two.getsockname()[1].to_bytes(2, "big")
    assert (one.recv(100), three.recv(100), two.recv(100)) == (
        b"\0\1<answer>",
        b"\xff\3<answer>",
        b"\0\4<longer answer>",
    )


def test_a_long_row_is_read_in_portions_and_again_and_again(pair: tuple[socket.socket, list[socket.socket]]) -> None:
    server, (one, two, _) = pair
    bulk, taken = make_bulk(server), Taken()
    for number in range(COUNT + 10):
        (one if number % 2 else two).send(b"%04d" % number + b"x" * number)
    assert bulk.exchange(NOTHING.get, lambda *what: taken.append(what)) == (COUNT, 0)
    assert len(taken) == COUNT
    bulk.exchange(NOTHING.get, lambda *what: taken.append(what))
    assert [data for data, _ in taken] == [b"%04d" % number + b"x" * number for number in range(COUNT + 10)]
    assert len({asker.address for _, asker in taken[1::2]}) == 1


def test_replies_of_one_turn_go_out_together_each_to_its_asker(
    pair: tuple[socket.socket, list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, (one, two, three) = pair
    loop, taken = Loop(), Taken()
    bulk = make_bulk(server, loop)
    for client in (one, two, three):
        client.send(b"\0\1q")
    bulk.exchange(NOTHING.get, lambda *what: taken.append(what))
    askers = [asker for _, asker in taken]
    for number in range(2 * COUNT + 1):
        askers[number % 3].send(b"%d" % number + b"x" * number)
    with pytest.raises(BlockingIOError):
        one.recv(10)
    loop.turn()
    for place, client in enumerate((one, two, three)):
        expected = [b"%d" % number + b"x" * number for number in range(2 * COUNT + 1) if number % 3 == place]
        assert [client.recv(2000) for _ in expected] == expected
    askers[0].send(b"next")
    loop.turn()
    assert one.recv(10) == b"next"


def test_ready_ones_around_one_that_is_not_are_sent_too(pair: tuple[socket.socket, list[socket.socket]]) -> None:
    server, (one, two, three) = pair
    taken: Taken = []
    for number in range(COUNT):
        (one, two, three)[number % 3].send(b"%02d" % number + (b"new" if number % 7 == 3 else b"q"))
    _, given = make_bulk(server).exchange({b"q": b"a"}.get, lambda *what: taken.append(what))
    new = [number for number in range(COUNT) if number % 7 == 3]
    assert (given, [int(data[:2]) for data, _ in taken]) == (COUNT - len(new), new)
    for place, client in enumerate((one, two, three)):
        expected = [b"%02da" % number for number in range(COUNT) if number % 3 == place and number not in new]
        assert [client.recv(10) for _ in expected] == expected


def test_what_is_too_long_is_cut_and_what_is_empty_is_taken(pair: tuple[socket.socket, list[socket.socket]]) -> None:
    server, (one, *_) = pair
    taken: Taken = []
    one.send(b"z" * (QUESTION + 1))
    one.send(b"")
    one.send(b"z")
    make_bulk(server).exchange(NOTHING.get, lambda *what: taken.append(what))
    assert [data for data, _ in taken] == [b"z" * QUESTION, b"", b"z"]


def test_where_nothing_waits_it_says_so(pair: tuple[socket.socket, list[socket.socket]]) -> None:
    with pytest.raises(BlockingIOError):
        make_bulk(pair[0]).exchange(NOTHING.get, print)


def test_a_client_that_has_left_does_not_keep_the_others_from_theirs(
    pair: tuple[socket.socket, list[socket.socket]],
) -> None:
    server, (one, two, three) = pair
    for client in (one, two, three):
        client.send(b"\0\1q")
    one.close()
    assert make_bulk(server).exchange({b"q": b"a"}.get, print) == (3, 3)
    assert two.recv(10) == three.recv(10) == b"\0\1a"


def test_one_that_cannot_be_sent_does_not_keep_the_next_from_its_client(
    pair: tuple[socket.socket, list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, (one, two, three) = pair
    for client in (one, two, three):
        client.send(b"\0\1q")
    bulk = make_bulk(server)
    send, lost = splitwgd.bulk._libc.sendmmsg, [2]

    class Libc:
        recvmmsg = splitwgd.bulk._libc.recvmmsg

        @staticmethod
        def sendmmsg(descriptor: int, messages: object, count: int, flags: int) -> int:
            """As the kernel does when the first, or the second, is refused."""
            if lost and count == lost[0] + 1:
                return int(send(descriptor, messages, 1, flags))
            if lost and count == lost[0]:
                lost.clear()
                return -1
            return int(send(descriptor, messages, count, flags))

    monkeypatch.setattr(splitwgd.bulk, "_libc", Libc)
    assert bulk.exchange({b"q": b"a"}.get, print) == (3, 3)
    assert one.recv(10) == three.recv(10) == b"\0\1a"
    with pytest.raises(BlockingIOError):
        two.recv(10)
