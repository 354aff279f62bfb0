"""Kept connections to servers on loopback: real sockets, real TLS, real HTTP/2. Marks: tests/kernel/test_way."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from h2.errors import ErrorCodes

from splitwgd import channels as module
from splitwgd.channels import Channels
from splitwgd.servers import Transport
from splitwgd.way import Way
from tests.streams import (
    ALPN,
    GROUP,
    HTTPS,
    TCP,
    TLS,
    Asked,
    Heard,
    Host,
    Peer,
    answer_to,
    ask,
    echo,
    every_transport,
    question,
)
from tests.tls import certified, trusting
from tests.worlds import PATIENCE, eventually, free_port

framed = pytest.mark.parametrize("transport", [TCP, TLS])
encrypted = pytest.mark.parametrize("transport", [TLS, HTTPS])


@pytest.fixture(autouse=True)
def unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    """SO_MARK needs root."""

    def plain(way: Way, kind: socket.SocketKind) -> socket.socket:
        return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    monkeypatch.setattr(module, "open_socket", plain)


def play(story: Callable[[Channels], Awaitable[None]], tls: ssl.SSLContext | None = None) -> None:
    """A story leaves no socket and no timer behind, and no complaint on the loop."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        complaints: list[object] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        channels = Channels(loop, tls or trusting())
        before = len(os.listdir("/proc/self/fd"))
        try:
            await story(channels)
        finally:
            channels.close()
        assert not channels.open
        await eventually(lambda: len(os.listdir("/proc/self/fd")) == before)
        assert complaints == []
        timers = [timer for timer in loop._scheduled if "_Channel" in repr(timer)]  # type: ignore[attr-defined]
        assert all(timer.cancelled() for timer in timers)

    asyncio.run(run())


def hold(asked: Asked) -> None:
    """Says nothing."""


def hang_up(asked: Asked) -> None:
    asked.peer.transport.abort()


@every_transport
def test_questions_share_a_connection_and_are_answered_in_any_order(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport, hold) as host:
            heard = [ask(channels, host, f"n{number}.example", number) for number in range(20)]
            await eventually(lambda: len(host.asked) == 20)
            for asked in reversed(host.asked):
                asked.reply()
            for each in heard:
                await each.answer()
            assert len(host.peers) == 1

    play(story)


@every_transport
def test_a_later_question_finds_the_connection_open(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            for _ in range(3):
                await ask(channels, host).answer()
            assert len(host.peers) == 1

    play(story)


def test_ids_on_the_wire_are_drawn_and_differ_from_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([9, 9, 9, 4])
    monkeypatch.setattr("secrets.randbits", lambda bits: next(drawn) + (bits << 8))

    async def story(channels: Channels) -> None:
        async with Host(TCP, hold) as host:
            heard = [ask(channels, host, ident=1), ask(channels, host, ident=1)]
            await eventually(lambda: len(host.asked) == 2)
            assert [asked.message[:2] for asked in host.asked] == [b"\x10\x09", b"\x10\x04"]
            for asked in host.asked:
                asked.reply()
            for each in heard:
                await each.answer()

    play(story)


def test_over_https_it_is_a_post_that_says_nothing_of_us() -> None:
    async def story(channels: Channels) -> None:
        async with Host(HTTPS) as host:
            await ask(channels, host, ident=0xABCD).answer()
            assert host.asked[0].message == question(ident=0)
            assert host.heads[0] == {
                b":method": b"POST",
                b":scheme": b"https",
                b":authority": b"dns.example:%d" % host.server.port,
                b":path": b"/dns-query",
                b"accept": b"application/dns-message",
                b"content-type": b"application/dns-message",
                b"content-length": b"%d" % len(question()),
            }

    play(story)


@every_transport
def test_a_thousand_questions_at_once(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            heard = [ask(channels, host, f"n{number}.example", number) for number in range(1000)]
            for each in heard:
                await each.answer()
            assert len(host.peers) == 1

    play(story)


@every_transport
def test_when_too_many_wait_the_next_is_refused(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 3)

    async def story(channels: Channels) -> None:
        async with Host(transport, hold) as host:
            waiting = [ask(channels, host) for _ in range(3)]
            assert await ask(channels, host).failure() == "3 questions wait already"
            await eventually(lambda: len(host.asked) == 3)
            host.asked[0].reply()
            await eventually(lambda: any(each.outcomes for each in waiting))
            last = ask(channels, host)
            await eventually(lambda: len(host.asked) == 4)
            host.asked[3].reply()
            await last.answer()

    play(story)


@every_transport
@pytest.mark.parametrize("other", ["mark", "link", "server"])
def test_another_way_is_another_connection(transport: Transport, other: str) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            await ask(channels, host).answer()
            server, group = host.server, GROUP
            match other:
                case "mark":
                    group = replace(GROUP, mark=1)
                case "link":
                    group = replace(GROUP, link="wg0")
                case "server":
                    server = replace(server, path="/other")
            await Heard(channels, server, question(), group).answer()
            assert len(host.peers) == 2

    play(story)


@every_transport
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
def test_a_server_that_closed_an_idle_connection_is_asked_on_a_fresh_one(transport: Transport, seen: bool) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            await ask(channels, host).answer()
            host.peers[0].transport.abort()
            if seen:
                await eventually(lambda: not channels.open)
            await ask(channels, host).answer()
            assert len(host.peers) == 2

    play(story)


@every_transport
def test_what_waits_when_a_used_connection_ends_is_asked_again_once(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            await ask(channels, host).answer()
            host.play = lambda asked: hang_up(asked) if asked.peer is host.peers[0] else asked.reply()
            heard = [ask(channels, host, f"n{number}.example") for number in range(5)]
            for each in heard:
                await each.answer()
            assert len(host.peers) == 2
            host.play = hang_up
            assert await ask(channels, host).failure() == "closed the connection"
            assert len(host.peers) == 3

    play(story)


@every_transport
def test_what_was_asked_again_is_not_asked_a_third_time(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport, hold) as host:
            stuck = ask(channels, host, "stuck.example")
            for _ in range(2):
                served = ask(channels, host)
                while not served.outcomes:
                    await asyncio.sleep(0.005)
                    for asked in host.asked:
                        if b"stuck" not in asked.message:
                            asked.reply()
                    host.asked = [asked for asked in host.asked if b"stuck" in asked.message]
                before = len(host.asked)
                host.alive[0].transport.close()
                while not stuck.outcomes and len(host.asked) == before:
                    await asyncio.sleep(0.005)
            assert await stuck.failure() == "closed the connection"
            assert len(host.peers) == 2

    play(story)


@every_transport
def test_what_waits_when_a_fresh_connection_ends_has_failed(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport, hang_up) as host:
            heard = [ask(channels, host), ask(channels, host)]
            for each in heard:
                assert await each.failure() in ("closed the connection", "Connection reset by peer")
            assert len(host.peers) == 1

    play(story)


@every_transport
def test_an_answer_counts_even_if_the_connection_ends_right_behind_it(transport: Transport) -> None:
    def answer_and_close(asked: Asked) -> None:
        asked.reply()
        asked.peer.transport.close()

    async def story(channels: Channels) -> None:
        async with Host(transport, answer_and_close) as host:
            for number in range(1, 4):
                await ask(channels, host).answer()
                assert len(host.peers) == number

    play(story)


def test_an_answer_is_read_even_if_the_next_question_meets_a_closed_door() -> None:
    async def story(channels: Channels) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            server = replace(Host(TCP).server, port=listening.getsockname()[1])
            first = ask(channels, server)
            peer, _ = await channels.loop.sock_accept(listening)
            asked = await channels.loop.sock_recv(peer, 100)
            # All in one turn: the answer and a reset are there when the second question is to be sent.
            peer.send(asked[:2] + answer_to(asked[2:]))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            second = ask(channels, server, "second.example")
            await first.answer()
            peer, _ = await channels.loop.sock_accept(listening)
            assert b"second" in await channels.loop.sock_recv(peer, 100)
            second.give_up()
            peer.close()

    play(story)


@encrypted
def test_a_session_is_forgotten_when_it_led_to_nothing(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            for play_on in (echo, hang_up, echo):
                host.play = play_on
                await ask(channels, host).outcome()
                for peer in host.alive:
                    peer.transport.abort()
                await eventually(lambda: not channels.open)
            assert [peer.resumed for peer in host.peers] == [False, True, False]

    play(story)


@encrypted
def test_a_session_is_resumed_on_its_own_way_only(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            await ask(channels, host).answer()
            host.peers[0].transport.abort()
            await eventually(lambda: not channels.open)
            await ask(channels, host).answer()
            await Heard(channels, host.server, question(), replace(GROUP, mark=1)).answer()
            channels.drop(lambda way: way.mark == 0)
            await ask(channels, host).answer()
            assert [peer.resumed for peer in host.peers] == [False, True, False, False]

    play(story)


@pytest.mark.parametrize("how", ["GOAWAY", "REFUSED_STREAM"])
def test_what_an_https_server_did_not_look_at_is_asked_again_once(how: str) -> None:
    async def story(channels: Channels) -> None:
        async with Host(HTTPS) as host:

            def refuse(asked: Asked) -> None:
                if how == "GOAWAY":
                    asked.peer.h2.close_connection()
                else:
                    asked.peer.h2.reset_stream(asked.stream, ErrorCodes.REFUSED_STREAM)

            def refuse_first(asked: Asked) -> None:
                host.play = echo
                refuse(asked)

            host.play = refuse_first
            await ask(channels, host).answer()
            assert len(host.peers) == (2 if how == "GOAWAY" else 1)
            host.play = refuse
            assert await ask(channels, host).failure() == "refused the question"

    play(story)


# Certificates.


def unasked(host: Host, name: bytes = b"example") -> bool:
    """Whether nothing that was asked, encrypted or not, came to the server."""
    return not host.asked and name + b"\3com" not in host.seen


BAD_CERTIFICATES: dict[str, tuple[dict[str, Any], str, str]] = {
    "another name": ({"name": "dns.example.net"}, "the lab", "Hostname mismatch, certificate is not valid for"),
    "a name below": ({"name": "sub.dns.example"}, "the lab", "Hostname mismatch, certificate is not valid for"),
    "ended": ({"ended": True}, "the lab", "certificate has expired"),
    "nobody's": ({}, "somebody else", "unable to get local issuer certificate"),
}


@encrypted
@pytest.mark.parametrize("case", BAD_CERTIFICATES)
def test_a_server_without_the_right_certificate_is_not_asked(transport: Transport, case: str) -> None:
    how, trusted, why = BAD_CERTIFICATES[case]

    async def story(channels: Channels) -> None:
        async with Host(transport, certificate=certified(("dot", "h2"), **how)) as host:
            failure = await ask(channels, host).failure()
            assert failure.startswith(f"has no valid certificate for dns.example: {why}")
            assert unasked(host)

    play(story, trusting(trusted))


def test_the_systems_trust_store_does_not_know_our_authority() -> None:
    async def story(channels: Channels) -> None:
        async with Host(TLS) as host:
            failure = await ask(Channels(channels.loop), host).failure()
            assert failure.startswith("has no valid certificate for dns.example: ")
            assert unasked(host)

    play(story)


@encrypted
@pytest.mark.parametrize(
    "said", [b"\0\x0cno TLS here!", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\0\2\2\x28"]
)
def test_a_server_that_does_not_speak_tls_gets_no_question_in_clear(transport: Transport, said: bytes) -> None:
    async def story(channels: Channels) -> None:
        async with Host(TCP, raw=lambda peer: peer.transport.write(said)) as host:
            server = replace(host.server, transport=transport, name="dns.example", path="/dns-query")
            assert (await ask(channels, server).failure()).startswith("failed at TLS: ")
            assert host.seen.startswith(b"\x16\x03\x01")  # a ClientHello
            assert unasked(host)

    play(story)


@every_transport
def test_a_server_that_never_finishes_the_handshake(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """For TCP: one whose packets are dropped, as by a full backlog."""
    monkeypatch.setattr(module, "CONNECT", 0.1)

    async def story(channels: Channels) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(0)
            address = listening.getsockname()
            # The backlog has room for one; the kernel drops what comes after it.
            fillers = [socket.socket() for _ in range(2 if transport is TCP else 0)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            async with Host(transport) as host:
                server = replace(host.server, port=address[1])
                heard = [ask(channels, server), ask(channels, server)]
                for each in heard:
                    assert await each.failure() == "no connection within 0.1 s"
                await ask(channels, host).answer()
            for filler in fillers:
                filler.close()

    play(story)


def test_dns_over_tls_does_without_alpn_and_https_does_not() -> None:
    async def story(channels: Channels) -> None:
        async with Host(TLS, certificate=certified()) as host:
            await ask(channels, host).answer()
        async with Host(HTTPS, certificate=certified(("http/1.1",))) as host:
            assert await ask(channels, host).failure() == "does not speak HTTP/2"
            assert unasked(host)

    play(story)


def test_a_name_that_no_certificate_can_bear() -> None:
    async def story(channels: Channels) -> None:
        async with Host(TLS) as host:
            failure = await ask(channels, replace(host.server, name="")).failure()
            assert failure == "no certificate can be for ''"

    play(story)


# Servers that cannot be reached, or that misbehave.


@every_transport
def test_a_server_that_is_not_there(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            server = host.server
        assert await ask(channels, server).failure() == "Connection refused"
        assert await ask(channels, replace(server, port=free_port())).failure() == "Connection refused"

    play(story)


def test_a_link_local_address_on_a_link_that_is_not_there() -> None:
    async def story(channels: Channels) -> None:
        async with Host(TCP) as host:
            assert await ask(channels, replace(host.server, scope="none0")).failure() == "No such device"

    play(story)


@framed
@pytest.mark.parametrize("said", [b"\0\0", b"\0\x0bshort of it", b"\0\1\0"])
def test_what_is_not_dns_ends_the_connection(transport: Transport, said: bytes) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport, lambda asked: asked.peer.transport.write(said)) as host:
            assert await ask(channels, host).failure() == "sent what is not DNS"
            await eventually(lambda: not host.alive)
            host.play = echo
            await ask(channels, host).answer()
            # On a connection that has served, it is an end like any other.
            host.play = lambda asked: asked.peer.transport.write(said) if len(host.peers) == 2 else asked.reply()
            await ask(channels, host).answer()
            assert len(host.peers) == 3

    play(story)


def test_what_is_not_http_ends_the_connection() -> None:
    async def story(channels: Channels) -> None:
        async with Host(HTTPS, raw=lambda peer: peer.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as host:
            assert await ask(channels, host).failure() == "broke the rules of HTTP/2 (FrameTooLargeError)"
            await eventually(lambda: not host.alive)

    play(story)


@framed
def test_an_answer_to_another_id_is_passed_over(transport: Transport) -> None:
    def lie_first(asked: Asked) -> None:
        asked.reply(bytes([asked.message[0] ^ 1]) + answer_to(asked.message)[1:])
        asked.reply()
        asked.reply()

    async def story(channels: Channels) -> None:
        async with Host(transport, lie_first) as host:
            for _ in range(2):
                await ask(channels, host).answer()
            assert len(host.peers) == 1

    play(story)


@every_transport
def test_a_server_that_sends_byte_by_byte(transport: Transport) -> None:
    sent: list[bytes] = []

    def slowly(asked: Asked) -> None:
        loop, transport = asyncio.get_running_loop(), asked.peer.transport
        asked.peer.transport = Caught(sent.append)
        asked.reply()
        asked.peer.transport = transport
        for place, byte in enumerate(b"".join(sent)):
            loop.call_later(place / 1000, transport.write, bytes([byte]))

    async def story(channels: Channels) -> None:
        async with Host(transport, slowly) as host:
            await ask(channels, host).answer()
            assert len(host.peers) == 1

    play(story)


class Caught(asyncio.Transport):
    """Takes what is written."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        super().__init__()
        self.write = take  # type: ignore[method-assign, assignment]


def reply_with(body: bytes, asked: Asked) -> None:
    asked.reply(asked.message[:2] + body)


@every_transport
def test_an_answer_of_any_size(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            for size in (12, 512, 16_384, 65_535):
                reply = bytes(range(256)) * 256
                host.play = partial(reply_with, reply[2:size])
                assert await ask(channels, host).outcome() == question()[:2] + reply[2:size]

    play(story)


@every_transport
def test_a_question_of_any_size(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport, lambda asked: asked.reply(asked.message[:12] + asked.message[-100:])) as host:
            heard = []
            for size in (65_535, 120, 40_000, 65_535):
                heard.append(Heard(channels, host.server, question() + os.urandom(size - len(question()))))
            for each in heard:
                assert await each.outcome() == each.message[:12] + each.message[-100:]

    play(story)


@every_transport
def test_a_question_larger_than_the_sockets_buffer(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(way: Way, kind: socket.SocketKind) -> socket.socket:
        sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return sock

    monkeypatch.setattr(module, "open_socket", narrow)

    async def story(channels: Channels) -> None:
        async with Host(transport, partial(reply_with, b"0123456789")) as host:
            for size in (0, 65_000):
                heard = Heard(channels, host.server, question() + bytes(size))
                assert await heard.outcome() == question()[:2] + b"0123456789"
            (channel,) = channels.open.values()
            assert channel.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    play(story)


@framed
def test_a_server_that_takes_nothing_does_not_fill_our_memory(transport: Transport) -> None:
    def read_no_more(peer: Peer) -> None:
        peer.transport.pause_reading()

    async def story(channels: Channels) -> None:
        async with Host(transport, raw=read_no_more) as host:
            heard = [Heard(channels, host.server, question())]
            await eventually(lambda: host.seen)
            while not any(each.outcomes for each in heard):
                heard.append(Heard(channels, host.server, question() + bytes(65_000)))
                await asyncio.sleep(0)
            assert {await each.failure() for each in heard[:-1]} == {"does not take what is sent"}
            assert len(heard) < 200

    play(story)


@every_transport
def test_a_server_that_takes_slowly_gets_all(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            await ask(channels, host).answer()
            peer = host.peers[0]
            host.play = lambda asked: asked.reply(asked.message[:40])
            peer.transport.pause_reading()
            size = peer.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            heard: list[Heard] = []
            while len(heard) * 60_000 < size + 3_000_000 and not next(iter(channels.open.values())).out:
                heard.append(Heard(channels, host.server, question() + bytes(60_000)))
                await asyncio.sleep(0)
            peer.transport.resume_reading()
            for each in heard:
                assert await each.outcome() == each.message[:40]
            assert len(host.peers) == 1

    play(story)


# Idle, silent and given up.


@every_transport
def test_an_idle_connection_is_closed_in_order(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", {transport: 0.1})

    async def story(channels: Channels) -> None:
        async with Host(transport, hold) as host:
            waiting = ask(channels, host)
            await asyncio.sleep(0.3)  # longer than idle, but a question waits
            assert host.alive
            host.asked[0].reply()
            await waiting.answer()
            await eventually(lambda: not host.alive)
            assert host.peers[0].ended == "in order"
            assert host.peers[0].goaway == (transport is HTTPS)
            assert not channels.open
            host.play = echo
            await ask(channels, host).answer()

    play(story)


def test_a_tls_server_is_told_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end without close_notify could be an attacker's work (RFC 8446 §6.1)."""
    monkeypatch.setattr(module, "IDLE", {TLS: 0.1})

    def serve(listening: socket.socket) -> bytes:
        connection, _ = listening.accept()
        with certified(ALPN[TLS]).wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as tls:
            asked = tls.recv(100)
            tls.send(asked[:2] + answer_to(asked[2:]))
            return tls.recv(100)

    async def story(channels: Channels) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(PATIENCE)
            served = channels.loop.run_in_executor(None, serve, listening)
            server = Host(TLS).server
            await ask(channels, replace(server, port=listening.getsockname()[1])).answer()
            assert await served == b""

    play(story)


@every_transport
def test_who_gave_up_hears_nothing(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport, hold) as host:
            early, waiting, late = ask(channels, host), ask(channels, host), ask(channels, host)
            early.give_up()  # before it was sent
            await eventually(lambda: len(host.asked) >= 2)
            waiting.give_up()  # while it waits
            for asked in host.asked if transport is not HTTPS else host.asked[-1:]:
                asked.reply()
            await eventually(lambda: late.outcomes)
            refused = ask(channels, replace(host.server, scope="none0"))
            refused.give_up()  # when it has failed, and was not told yet
            host.play = echo
            await ask(channels, host).answer()
            for each in (early, waiting, late, refused):
                each.give_up()
            assert (early.outcomes, waiting.outcomes, refused.outcomes) == ([], [], [])
            assert len(host.peers) == 1

    play(story)


def test_over_https_the_server_hears_that_we_gave_up() -> None:
    async def story(channels: Channels) -> None:
        async with Host(HTTPS, hold) as host:
            heard = ask(channels, host)
            await eventually(lambda: host.asked)
            heard.give_up()
            await eventually(lambda: host.peers[0].reset == {1})

    play(story)


async def give_up(channels: Channels, host: Host, count: int, listening: bool = True) -> None:
    """Questions that the server hears and does not answer (or does not hear)."""
    for number in range(len(host.asked) + 1, len(host.asked) + count + 1):
        heard = ask(channels, host)
        while listening and len(host.asked) < number:
            await asyncio.sleep(0.005)
        heard.give_up()


@framed
@pytest.mark.parametrize("used", [True, False])
def test_a_connection_on_which_nothing_comes_back_is_thrown_away(transport: Transport, used: bool) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            if used:
                await ask(channels, host).answer()
            host.play = hold
            await give_up(channels, host, 2)
            waiting = ask(channels, host)
            await eventually(lambda: len(host.asked) == 3 + used)
            assert len(host.peers) == 1
            host.play = echo
            ask(channels, host).give_up()
            await waiting.answer()
            assert len(host.peers) == 2

    play(story)


def test_an_https_connection_without_a_sign_of_life_is_thrown_away() -> None:
    async def story(channels: Channels) -> None:
        async with Host(HTTPS) as host:
            await ask(channels, host).answer()
            host.peers[0].transport.pause_reading()
            await give_up(channels, host, 3, listening=False)
            await ask(channels, host).answer()
            assert len(host.peers) == 2

    play(story)


@every_transport
def test_a_slow_server_keeps_its_connection(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            host.play = hold
            for _ in range(3):
                await give_up(channels, host, 2)
                if transport is not HTTPS:  # there a PING is answered
                    host.asked[-1].reply()
                await eventually(lambda: next(iter(channels.open.values())).silence == 0)
            host.play = echo
            await ask(channels, host).answer()
            assert len(host.peers) == 1

    play(story)


@every_transport
def test_giving_up_while_it_connects_does_not_end_the_attempt(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport) as host:
            for _ in range(5):
                ask(channels, host).give_up()
            await ask(channels, host).answer()
            assert len(host.peers) == 1

    play(story)


@every_transport
def test_connections_can_be_thrown_away(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        tunneled = replace(GROUP, mark=1, link="wg0")
        async with Host(transport, hold) as host:
            kept, moved = ask(channels, host), Heard(channels, host.server, question(), tunneled)
            await eventually(lambda: len(host.asked) == 2)
            channels.drop(lambda way: way.link == "wg0")
            await eventually(lambda: len(host.peers) == 3 and len(host.asked) == 3)
            assert len(host.alive) == 2
            for asked in host.asked:
                if asked.peer in host.alive:
                    asked.reply()
            await kept.answer()
            await moved.answer()

    play(story)


@every_transport
def test_closing_ends_everything_without_a_word(transport: Transport) -> None:
    async def story(channels: Channels) -> None:
        async with Host(transport, hold) as host:
            heard = [ask(channels, host) for _ in range(4)]
            await eventually(lambda: len(host.asked) == 4)
            heard.append(Heard(channels, host.server, question(), replace(GROUP, mark=1)))  # still connecting
            channels.close()
            for each in heard:
                each.give_up()
            await eventually(lambda: not host.alive)
            assert [each.outcomes for each in heard] == [[]] * 5
            assert not channels.open

    play(story)
