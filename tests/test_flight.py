"""One question to servers on loopback that are silent, slow, broken or lying: what is asked, and what is believed."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Iterable

import pytest
from dnslib import EDNS0, QTYPE, RR, DNSRecord, EDNSOption
from dnslib import A as ARecord

from splitwgd.errors import UpstreamError
from splitwgd.flight import WRONG_LIMIT, mixed
from splitwgd.message import OPT, question_for, read_query
from splitwgd.names import parse_name
from splitwgd.ports import random_ident
from splitwgd.reply import Reply
from splitwgd.servers import Transport
from splitwgd.upstream import Upstreams
from tests.datagrams import (
    QUERY,
    Fake,
    Outcome,
    Peer,
    Tcp,
    Udp,
    addresses,
    answer,
    ask,
    framed,
    group_of,
    leave_unmarked,
    lose_patience,
    other,
    over_tcp,
    play,
    says,
    send,
)
from tests.samples import question
from tests.streams import HTTPS, TLS, Asked, Host
from tests.worlds import eventually, free_port, server


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_unmarked(monkeypatch)
    lose_patience(monkeypatch)


def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked again because time has passed."""
    lose_patience(monkeypatch, 8, 9)


# -- what is asked


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_server_is_asked_and_its_answer_taken(address: str) -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(), address=address) as fake:
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.1"]
            ((message, _),) = fake.asked
            asked = DNSRecord.parse(message)
            assert (str(asked.q.qname), asked.q.qtype, asked.header.rd) == ("example.com.", 1, 1)
            (edns,) = asked.ar
            assert (edns.rtype, edns.edns_len, edns.edns_do) == (OPT, 1232, 0)

    play(story)


def test_the_clients_wish_for_proofs_is_passed_on() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says()) as fake:
            await ask(upstreams, fake, query=read_query(question("example.com", do=1)))
            assert DNSRecord.parse(fake.asked[0][0]).ar[0].edns_do == 1

    play(story)


def test_each_attempt_has_a_port_and_an_id_of_its_own() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as silent:
            assert isinstance(await ask(upstreams, silent), UpstreamError)
            assert len(silent.asked) == 3
            assert len({client for _, client in silent.asked}) == 3
            assert len({data[:2] for data, _ in silent.asked}) > 1

    play(story)


def test_ids_are_drawn_by_chance() -> None:
    drawn = [random_ident() for _ in range(20_000)]
    assert set(drawn) <= set(range(65_536))
    assert len(set(drawn)) > 16_000  # of 20,000 about 17,200 differ
    for byte in (Counter(ident >> 8 for ident in drawn), Counter(ident & 0xFF for ident in drawn)):
        expected = len(drawn) / 256
        chi2 = sum((byte[value] - expected) ** 2 / expected for value in range(256))
        assert 150 < chi2 < 400  # once in a billion runs it is not


def test_the_case_is_drawn_letter_by_letter_and_nothing_else_is_touched() -> None:
    name = b"\x3f" + b"a" * 63 + b"\x0bA-z0_\xc1\xe1[`{@\0\0\1\0\1"
    found = [mixed(name) for _ in range(64)]
    assert all(each.lower() == name.lower() and each[-4:] == name[-4:] for each in found)
    assert len(set(found)) > 60
    for place in (*range(1, 64), 65, 67):  # each letter in both cases
        assert {each[place] | 0x20 for each in found} == {name[place] | 0x20}
        assert len({each[place] for each in found}) == 2


# -- what is believed


def other_port(fake: Fake, data: bytes, client: Peer) -> None:
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
    "no question": other(lambda data: data[:2] + b"\x81\x80" + bytes(8)),
    "nothing": other(lambda data: b""),
    "a header": other(lambda data: forged(data)[:12]),
    "noise": other(lambda data: b"\xff" * 600),
    "a cut reply": other(lambda data: forged(data)[:-1]),
    "counts that lie": other(lambda data: forged(data)[:6] + b"\xff\xff" + forged(data)[8:]),
    "a loop of aliases": other(
        lambda data: forged(data)[:29] + b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\2\xc0\x0c",
    ),
    "somebody else's cookie": other(lambda data: with_cookie(data, b"guessed!" + b"theirs!!")),
    "FORMERR with another id": other(lambda data: bytes([data[0] ^ 1, data[1]]) + b"\x81\x81" + bytes(8)),
}


def with_cookie(data: bytes, cookie: bytes | None = None) -> bytes:
    """The reply of a server that knows cookies; by default ours and its own."""
    reply = DNSRecord.parse(answer(data))
    reply.add_ar(EDNS0(opts=[EDNSOption(10, cookie or our_cookie(data) + b"theirs!!")]))
    return bytes(reply.pack())


def cookie_of(data: bytes) -> bytes:
    (edns,) = DNSRecord.parse(data).ar
    (found,) = [option.data for option in edns.rdata if option.code == 10]
    return bytes(found)


def our_cookie(data: bytes) -> bytes:
    return cookie_of(data)[:8]


@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_answer_to_the_question_is_passed_over(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch)

    def lie_first(fake: Fake, data: bytes, client: Peer) -> None:
        for _ in range(WRONG_LIMIT - 1):
            LIES[lie](fake, data, client)
        says()(fake, data, client)

    async def story(upstreams: Upstreams) -> None:
        async with Fake(lie_first, over_tcp(address="192.0.2.9")) as fake:
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.1"]
            assert len(fake.asked) == 1
            assert upstreams.discarded == WRONG_LIMIT - 1

    play(story)


def test_a_lie_from_another_port_does_not_even_arrive() -> None:
    def lie_first(fake: Fake, data: bytes, client: Peer) -> None:
        other_port(fake, data, client)
        says()(fake, data, client)

    async def story(upstreams: Upstreams) -> None:
        async with Fake(lie_first) as fake:
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.1"]
            assert upstreams.discarded == 0

    play(story)


@pytest.mark.parametrize("lie", ["another id", "a cut reply"])
def test_too_many_lies_and_the_question_is_asked_where_nobody_can_guess(
    lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient(monkeypatch)

    def lie_often(fake: Fake, data: bytes, client: Peer) -> None:
        for _ in range(WRONG_LIMIT):
            LIES[lie](fake, data, client)
        other(forged)(fake, data, client)  # at last one that would fit, but the port is closed

    async def story(upstreams: Upstreams) -> None:
        async with Fake(lie_often, over_tcp(address="192.0.2.9")) as fake:
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.9"]
            assert (len(fake.asked), len(fake.asked_over_tcp)) == (1, 1)
            assert upstreams.discarded == WRONG_LIMIT
            assert len(upstreams.ports) == 0

    play(story)


def test_a_port_on_which_somebody_guessed_is_not_used_again() -> None:
    def lie_first(fake: Fake, data: bytes, client: Peer) -> None:
        LIES["another id"](fake, data, client)
        says()(fake, data, client)

    async def story(upstreams: Upstreams) -> None:
        async with Fake(lie_first) as liar, Fake(says()) as fake:
            await ask(upstreams, liar)
            assert len(upstreams.ports) == 0
            await ask(upstreams, fake)
            assert len(upstreams.ports) == 1  # which rests

    play(story)


def test_an_answer_that_comes_twice_is_taken_once() -> None:
    def twice(fake: Fake, data: bytes, client: Peer) -> None:
        says()(fake, data, client)
        says()(fake, data, client)

    async def story(upstreams: Upstreams) -> None:
        async with Fake(twice) as fake:
            outcomes = send(upstreams, group_of(fake, name="g"))
            await eventually(lambda: outcomes)
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.1"]
        assert len(outcomes) == 1

    play(story)


def test_an_answer_that_cannot_be_read_is_as_none() -> None:
    cut = other(lambda data: answer(data)[:-3])

    async def story(upstreams: Upstreams) -> None:
        async with Fake(cut) as first, Fake(says()) as second:
            assert addresses(await ask(upstreams, first, second)) == ["192.0.2.1"]
        async with Fake(cut) as fake:
            outcome = await ask(upstreams, fake)
            assert "a record longer than its message" in str(outcome) or "ends too early" in str(outcome)

    play(story)


def test_lives_are_brought_between_the_bounds_of_the_moment() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(), over_tcp()) as fake, Fake(says(tc=True), over_tcp()) as truncating:
            for bounds, ttl in (((0, 30), 30), ((90, 100), 90), ((0, 86_400), 60)):
                upstreams.ttl_bounds = bounds
                for each in (fake, truncating):
                    outcome = await ask(upstreams, each)
                    assert isinstance(outcome, Reply) and outcome.ttl == ttl

    play(story)


# -- the case of letters (0x20)


def test_a_server_that_repeats_the_drawn_case_is_believed() -> None:
    async def story(upstreams: Upstreams) -> None:
        upstreams.mix_case = True
        async with Fake(says()) as fake:
            names = set()
            for _ in range(8):
                outcome = await ask(upstreams, fake)
                assert addresses(outcome) == ["192.0.2.1"]
                assert isinstance(outcome, Reply) and outcome.chain == (QUERY.name,)
                names.add(fake.asked[-1][0][12:25])
            assert len(names) > 3 and {name.lower() for name in names} == {QUERY.name}

    play(story)


def test_a_server_that_does_not_is_asked_over_tcp_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch)
    lower = other(lambda data: forged(data[:12] + data[12:].lower()))

    async def story(upstreams: Upstreams) -> None:
        upstreams.mix_case = True
        long = question_for(parse_name("a-name-with-many-letters.example.com"), 1)
        async with Fake(lower, over_tcp(address="192.0.2.9")) as fake:
            assert addresses(await ask(upstreams, fake, query=long)) == ["192.0.2.9"]
            assert len(fake.asked) == len(fake.asked_over_tcp) == 1

    play(story)


# -- cookies (RFC 7873)


def test_a_server_that_knows_cookies_gets_its_own_back() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(other(with_cookie)) as fake, Fake(says()) as another:
            for _ in range(3):
                assert addresses(await ask(upstreams, fake, another)) == ["192.0.2.1"]
            first, *later = [cookie_of(data) for data, _ in fake.asked]
            assert len(first) == 8 and later == [first + b"theirs!!"] * 2
            await ask(upstreams, another)
            assert cookie_of(another.asked[-1][0]) != first  # each server gets another half of ours

    play(story)


def test_a_server_that_knew_cookies_is_held_to_them_and_asked_over_tcp_when_it_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient(monkeypatch)

    async def story(upstreams: Upstreams) -> None:
        async with Fake(other(with_cookie), over_tcp(address="192.0.2.9")) as fake:
            await ask(upstreams, fake)
            fake.udp = other(forged)  # everything is right but for the cookie
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.9"]
            assert upstreams.discarded == 1 and len(fake.asked_over_tcp) == 1
            # Over TCP nobody can forge, and it bore no cookie: what it said over UDP may be true after all.
            assert addresses(await ask(upstreams, fake)) == ["203.0.113.66"]
            assert [len(cookie_of(data)) for data, _ in fake.asked] == [8, 16, 8]

    play(story)


def test_the_right_answer_may_come_after_one_without_a_cookie() -> None:
    def lie_first(fake: Fake, data: bytes, client: Peer) -> None:
        other(forged)(fake, data, client)
        other(with_cookie)(fake, data, client)

    async def story(upstreams: Upstreams) -> None:
        async with Fake(other(with_cookie)) as fake:
            await ask(upstreams, fake)
            fake.udp = lie_first
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.1"]

    play(story)


def bad_cookie(data: bytes) -> bytes:
    reply = DNSRecord.parse(answer(data, rcode=7))
    reply.add_ar(EDNS0(ext_rcode=1, opts=[EDNSOption(10, our_cookie(data) + b"theirs!!")]))
    return bytes(reply.pack())


def test_a_server_that_wants_another_cookie_first_is_asked_over_tcp() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(other(bad_cookie), over_tcp(address="192.0.2.9")) as fake, Fake(says()) as second:
            assert addresses(await ask(upstreams, fake, second)) == ["192.0.2.9"]
            assert second.asked == []

    play(story)


def test_its_wish_for_a_cookie_is_nobody_elses_business() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(other(bad_cookie), lambda data: [framed(bad_cookie_over_tcp(data))]) as fake:
            assert isinstance(await ask(upstreams, fake), UpstreamError)

    def bad_cookie_over_tcp(data: bytes) -> bytes:
        reply = DNSRecord.parse(answer(data, rcode=7))
        reply.add_ar(EDNS0(ext_rcode=1))
        return bytes(reply.pack())

    play(story)


# -- servers without EDNS (RFC 6891 §7)


def knows_no_edns(refuse: bytes) -> Udp:
    """Refuses what has an OPT record with this header."""

    def udp(fake: Fake, data: bytes, client: Peer) -> None:
        fake.send(data[:2] + refuse if data[10:12] != b"\0\0" else answer(data), client)

    return udp


@pytest.mark.parametrize("rcode", [1, 4])
def test_a_server_without_edns_is_asked_again_without_it_at_once_and_from_then_on(
    rcode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient(monkeypatch)

    async def story(upstreams: Upstreams) -> None:
        refuse = bytes([0x81, 0x80 | rcode]) + bytes(8)
        async with Fake(knows_no_edns(refuse)) as fake, Fake(says()) as second:
            for _ in range(2):
                assert addresses(await ask(upstreams, fake, second)) == ["192.0.2.1"]
            assert [data[10:12] for data, _ in fake.asked] == [b"\0\1", b"\0\0", b"\0\0"]
            assert len({client for _, client in fake.asked}) == 3
            assert second.asked == []

    play(story)


@pytest.mark.parametrize("rcode", [1, 4])
def test_such_a_server_may_repeat_the_question(rcode: int) -> None:
    def udp(fake: Fake, data: bytes, client: Peer) -> None:
        fake.send(answer(data, rcode=rcode) if data[10:12] != b"\0\0" else answer(data), client)

    async def story(upstreams: Upstreams) -> None:
        async with Fake(udp) as fake:
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.1"]

    play(story)


def test_a_server_that_does_not_like_one_question_is_asked_the_others_with_edns() -> None:
    """unbound 1.26 says FORMERR, without an OPT record, to types 128 to 248."""

    def udp(fake: Fake, data: bytes, client: Peer) -> None:
        asked = DNSRecord.parse(data).q.qtype
        fake.send(answer(data, rcode=1) if asked == 200 else answer(data), client)

    async def story(upstreams: Upstreams) -> None:
        async with Fake(udp) as fake:
            outcome = await ask(upstreams, fake, query=question_for(parse_name("www.example.com"), 200))
            assert isinstance(outcome, Reply) and outcome.rcode == 1
            assert addresses(await ask(upstreams, fake)) == ["192.0.2.1"]
            with_edns = [data[10:12] == b"\0\1" for data, _ in fake.asked]
            assert with_edns == [True, False, True]

    play(story)


def test_a_server_that_refuses_without_edns_too_is_not_asked_for_ever() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(other(lambda data: data[:2] + b"\x81\x81" + bytes(8))) as fake, Fake(says()) as second:
            assert addresses(await ask(upstreams, fake, second)) == ["192.0.2.1"]
            assert 2 <= len(fake.asked) <= 4

    play(story)


# -- refusals


@pytest.mark.parametrize("rcode", [2, 5, 9])  # 4 would say that it knows no EDNS
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


def test_when_one_refuses_and_the_others_are_silent_the_refusal_is_the_answer() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(rcode=5)) as first, Fake() as second:
            outcome = await ask(upstreams, first, second)
            assert isinstance(outcome, Reply) and outcome.rcode == 5

    play(story)


def test_nxdomain_is_an_answer() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(rcode=3)) as first, Fake(says()) as second:
            outcome = await ask(upstreams, first, second)
            assert isinstance(outcome, Reply) and outcome.rcode == 3
            assert second.asked == []

    play(story)


def test_a_closed_port_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch)

    async def story(upstreams: Upstreams) -> None:
        closed = server("127.0.0.1", free_port())
        async with Fake(says()) as second:
            assert addresses(await ask(upstreams, closed, second)) == ["192.0.2.1"]
        outcome = await ask(upstreams, closed, server("127.0.0.2", closed.port))
        assert isinstance(outcome, UpstreamError) and not outcome.no_way
        assert str(outcome) == (
            f"default: 127.0.0.1:{closed.port} Connection refused; 127.0.0.2:{closed.port} Connection refused"
        )

    play(story)


def test_where_there_is_no_way_to_anybody_that_is_told() -> None:
    nowhere = server("fe80::53")  # a link-local address needs a link

    async def story(upstreams: Upstreams) -> None:
        outcome = await ask(upstreams, nowhere)
        assert isinstance(outcome, UpstreamError) and outcome.no_way
        async with Fake() as silent:
            outcome = await ask(upstreams, nowhere, silent)
            assert isinstance(outcome, UpstreamError) and not outcome.no_way

    play(story)


def test_without_servers_there_is_no_answer() -> None:
    async def story(upstreams: Upstreams) -> None:
        assert str(await ask(upstreams)) == "default: no server"

    play(story)


def test_an_error_names_every_server_that_was_asked_once() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake() as first, Fake() as second:
            outcome = await ask(upstreams, first, second)
            assert isinstance(outcome, UpstreamError)
            assert str(outcome) == f"default: {first.server} no answer in time; {second.server} no answer in time"

    play(story)


# -- over streams


def pieces(data: bytes) -> Iterable[bytes]:
    for byte in framed(answer(data, "192.0.2.9")):
        yield bytes([byte])


def test_a_truncated_answer_is_asked_for_again_over_tcp_of_the_same_server() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(tc=True), pieces) as fake, Fake(says()) as second:
            assert addresses(await ask(upstreams, fake, second)) == ["192.0.2.9"]
            assert second.asked == []
            (asked,) = [DNSRecord.parse(data) for data in fake.asked_over_tcp]
            assert str(asked.q.qname) == "example.com." and [record.rtype for record in asked.ar] == [OPT]

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
    "not all of it": lambda data: [framed(answer(data, tc=True))],
}


@pytest.mark.parametrize("broken", BROKEN)
def test_whom_tcp_fails_with_is_followed_by_the_next(broken: str) -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(tc=True), BROKEN[broken]) as first, Fake(says()) as second:
            assert addresses(await ask(upstreams, first, second)) == ["192.0.2.1"]

    play(story)


def test_an_answer_that_cannot_be_had_whole_is_none() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Fake(says(tc=True), BROKEN["not all of it"]) as fake:
            assert isinstance(await ask(upstreams, fake), UpstreamError)

    play(story)


def test_silence_over_tcp_is_not_waited_for_for_ever() -> None:
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
        async with Fake(tcp=pieces) as slow:

            def both(fake: Fake, data: bytes, client: Peer) -> None:
                says(tc=True)(fake, data, client)
                says(tc=True)(slow, *slow.asked[0])

            async with Fake(both, pieces) as second:
                outcomes: list[Outcome] = send(upstreams, group_of(slow, second))
                await eventually(lambda: outcomes)
                await asyncio.sleep(0.05)
        assert len(outcomes) == 1

    play(story)


def echo_address(asked: Asked) -> None:
    asked.reply(answer(asked.message, "192.0.2.53"))


@pytest.mark.parametrize("transport", [TLS, HTTPS])
def test_a_server_that_is_asked_over_tls_is_asked_in_no_other_way(transport: Transport) -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Host(transport, echo_address) as host:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
                plain.setblocking(False)
                plain.bind(("127.0.0.1", host.server.port))
                for _ in range(3):
                    assert addresses(await ask(upstreams, host.server)) == ["192.0.2.53"]
                with pytest.raises(BlockingIOError):
                    plain.recv(512)
            assert (len(host.asked), len(host.peers)) == (3, 1)
            assert struct.unpack_from("!6H", host.asked[0].message)[1:] == (0x0120, 1, 0, 0, 1)
            upstreams.channels.close()

    play(story)


def test_a_tls_server_that_fails_is_followed_by_the_next() -> None:
    async def story(upstreams: Upstreams) -> None:
        async with Host(TLS, lambda asked: asked.peer.transport.abort()) as host, Fake(says()) as second:
            assert addresses(await ask(upstreams, host.server, second)) == ["192.0.2.1"]

    play(story)
