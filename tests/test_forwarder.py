"""From a question to its answer, with a kernel, servers and a clock that the test holds in its hand."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from dnslib import DNSRecord

from splitwgd.admission import Admission
from splitwgd.cache import FAILURE
from splitwgd.config import Config
from splitwgd.errors import KernelError, MachineError
from splitwgd.forwarder import READY_FOR, READY_LIMIT, STALE_AFTER, STALE_TTL
from splitwgd.message import AD, RD, upstream_query
from splitwgd.waiting import ASKERS, OF_A_NAME
from tests.desk import SLACK, Desk, FakeClient, play, reply_to, turn
from tests.samples import extended_error, question
from tests.worlds import WG, make_config

NXDOMAIN, REFUSED = 3, 5
NO_V6 = WG.replace(", fd00:10:1::2/64", "").replace(", ::/0", "")
NO_V4 = WG.replace("10.1.0.2/24, ", "").replace("0.0.0.0/0, ", "")


# -- the one promise


@pytest.mark.parametrize(("kind", "address"), [("A", "203.0.113.1"), ("AAAA", "2001:db8::1")])
def test_a_tunneled_answer_leaves_only_after_its_address_was_written(kind: str, address: str) -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("www.example.com", kind)
        assert desk.upstreams.groups() == ["wg0"]
        desk.answer(f"www.example.com {kind} {address}")
        assert client.raw == []
        await turn()
        assert desk.story == ["written", "answered"]
        assert desk.elements.comments() == {address: "www.example.com"}
        assert client.said == [address]

    play(story)


def test_a_plain_answer_writes_nothing() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("www.example.net")
        assert desk.upstreams.groups() == ["default"]
        desk.answer("www.example.net A 203.0.113.1")
        assert client.said == ["203.0.113.1"]
        await turn()
        assert desk.elements.transactions == []

    play(story)


@pytest.mark.parametrize("error", [KernelError, MachineError])
def test_without_the_write_there_is_servfail_with_its_reason_and_nothing_is_kept(error: type[Exception]) -> None:
    async def story(desk: Desk) -> None:
        desk.elements.error, desk.elements.failing = error, 99
        client = await desk.resolve("www.example.com", "www.example.com A 203.0.113.1")
        assert client.said == "SERVFAIL"
        assert extended_error(client.reply) == (0, "splitwg: the addresses could not be put into the tunnel's set")
        assert desk.forwarder.counts.withheld == 1
        assert len(desk.ledger) == len(desk.forwarder.cache) == 0
        desk.elements.failing = 0
        again = await desk.resolve("www.example.com", "www.example.com A 203.0.113.1")
        assert again.said == ["203.0.113.1"]

    play(story)


def test_a_write_that_is_refused_is_tried_again() -> None:
    async def story(desk: Desk) -> None:
        desk.elements.failing = 2
        client = await desk.resolve("www.example.com", "www.example.com A 203.0.113.1")
        assert client.said == ["203.0.113.1"]

    play(story)


def test_the_answers_of_one_turn_share_one_transaction() -> None:
    async def story(desk: Desk) -> None:
        clients = [desk.ask(f"n{number}.example.com") for number in range(20)]
        for number in reversed(range(20)):
            desk.answer(f"n{number}.example.com A 203.0.113.{number}")
        await turn()
        assert len(desk.elements.transactions) == 1
        assert desk.story == ["written"] + ["answered"] * 20
        assert [client.said for client in clients] == [[f"203.0.113.{number}"] for number in range(20)]

    play(story)


def test_one_answer_that_cannot_be_written_takes_no_other_down() -> None:
    async def story(desk: Desk) -> None:
        desk.elements.refuses = ("203.0.113.66",)
        good, bad, plain = desk.ask("good.example.com"), desk.ask("bad.example.com"), desk.ask("plain.example.net")
        desk.answer("plain.example.net A 203.0.113.66")
        desk.answer("bad.example.com A 203.0.113.66")
        desk.answer("good.example.com A 203.0.113.1")
        await turn()
        assert (good.said, plain.said, bad.said) == (["203.0.113.1"], ["203.0.113.66"], "SERVFAIL")
        assert desk.elements.comments() == {"203.0.113.1": "good.example.com"}

    play(story)


def test_every_address_of_an_answer_is_written_and_what_may_not_be_is_not_given() -> None:
    async def story(desk: Desk) -> None:
        addresses = ("203.0.113.1", "127.0.0.1", "10.0.0.1", "0.0.0.0", "203.0.113.2")
        client = await desk.resolve("example.com", *(f"example.com A {address}" for address in addresses))
        assert set(desk.elements.comments()) == {"203.0.113.1", "203.0.113.2"}
        assert client.said == ["203.0.113.1", "203.0.113.2"]
        assert len(desk.notes) == 3

    play(story)


@pytest.mark.parametrize(
    ("asked", "alias"), [("www.example.net", "edge.example.com"), ("www.example.com", "edge.example.net")]
)
def test_a_tunneled_name_anywhere_in_the_chain_puts_its_addresses_into_the_set(asked: str, alias: str) -> None:
    async def story(desk: Desk) -> None:
        client = await desk.resolve(asked, f"{asked} CNAME {alias}.", f"{alias} A 203.0.113.1")
        assert desk.story == ["written", "answered"]
        (holder,) = desk.elements.comments().values()
        assert holder.endswith(".example.com")
        assert len(client.reply.rr) == 2

    play(story)


@pytest.mark.parametrize("name", ["www.example.com", "www.example.net"])
def test_addresses_beside_the_chain_are_neither_written_nor_given_nor_kept(name: str) -> None:
    async def story(desk: Desk) -> None:
        client = await desk.resolve(name, f"{name} A 203.0.113.1", "victim.example.com A 198.51.100.7")
        assert client.said == ["203.0.113.1"]
        assert "198.51.100.7" not in desk.elements.comments()
        assert desk.ask(name).said == ["203.0.113.1"]
        victim = desk.ask("victim.example.com")
        assert victim.raw == []

    play(story)


@pytest.mark.parametrize("ttl", [0, 1, 300, 3600, 86_400])
def test_an_element_outlives_its_answer(ttl: int) -> None:
    async def story(desk: Desk) -> None:
        client = await desk.resolve("example.com", "example.com A 203.0.113.1", ttl=ttl)
        assert client.reply.rr[0].ttl == ttl
        assert desk.elements.seconds("203.0.113.1") >= ttl + SLACK

    play(story)


def test_an_element_outlives_each_record_of_its_answer() -> None:
    async def story(desk: Desk) -> None:
        client = await desk.resolve("example.com", "example.com 30 CNAME a.example.", "a.example 86400 A 203.0.113.1")
        longest = max(record.ttl for record in client.reply.rr)
        assert desk.elements.seconds("203.0.113.1") >= longest + SLACK

    play(story)


def test_a_life_is_never_shortened_by_a_later_answer() -> None:
    async def story(desk: Desk) -> None:
        desk.forwarder.cache.resize(0, 0, 0)
        for ttl in (40_000, 60):
            await desk.resolve("example.com", "example.com A 203.0.113.1", ttl=ttl)
        assert desk.elements.seconds("203.0.113.1") >= 43_000

    play(story)


def test_what_the_servers_refuse_bears_no_address_of_a_tunneled_name() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("example.com")
        desk.answer("example.com A 203.0.113.1", rcode=NXDOMAIN)
        await turn()
        assert set(desk.elements.comments()) == {"203.0.113.1"}  # whoever reads it for all that
        assert client.reply.header.rcode == NXDOMAIN

    play(story)


@pytest.mark.parametrize("rcode", [2, REFUSED])
def test_an_error_bears_no_address_of_a_tunneled_name(rcode: int) -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("example.com")
        desk.answer("example.com A 203.0.113.1", rcode=rcode)
        await turn()
        assert client.said == "SERVFAIL"
        assert "203.0.113.1" not in desk.elements.comments()

    play(story)


# -- who is asked, and how often


def test_one_question_is_asked_once_for_all_who_wait_and_each_gets_its_own_reply() -> None:
    async def story(desk: Desk) -> None:
        clients = [desk.ask(name, ident=ident) for name, ident in (("example.com", 1), ("EXAMPLE.com", 2))]
        assert len(desk.upstreams.asked) == 1
        desk.answer("example.com A 203.0.113.1")
        late = desk.ask("example.COM", ident=3)  # while the answer is held back
        await turn()
        assert [client.reply.header.id for client in (*clients, late)] == [1, 2, 3]
        names = [client.reply.q.qname.label for client in (*clients, late)]
        assert names == [(b"example", b"com"), (b"EXAMPLE", b"com"), (b"example", b"COM")]
        assert len(desk.elements.transactions) == 1

    play(story)


@pytest.mark.parametrize("name", ["www.example.com", "www.example.net"])
def test_ten_thousand_askers_are_one_question(name: str) -> None:
    async def story(desk: Desk) -> None:
        message = question(name)
        clients = [desk.take(number.to_bytes(2, "big") + message[2:]) for number in range(10_000)]
        assert len(desk.upstreams.asked) == 1
        desk.answer(f"{name} A 203.0.113.1")
        await turn()
        assert [int.from_bytes(client.raw[0][:2], "big") for client in clients] == list(range(10_000))
        assert len({client.raw[0][2:] for client in clients}) == 1
        assert all(len(client.raw) == 1 for client in clients)

    play(story)


def test_askers_of_one_question_are_bounded() -> None:
    async def story(desk: Desk) -> None:
        message = question("example.net")
        for _ in range(ASKERS):
            desk.take(message)
        late = desk.take(message)
        assert (late.said, late.why) == ("SERVFAIL", 0)
        desk.answer("example.net A 203.0.113.1")
        assert desk.ask("example.net").said == ["203.0.113.1"]

    play(story)


def test_questions_for_one_name_are_bounded_and_others_are_not_touched() -> None:
    async def story(desk: Desk) -> None:
        def ask(number: int) -> FakeClient:
            message = bytearray(question("example.net"))
            message[25:27] = (1000 + number).to_bytes(2, "big")
            return desk.take(bytes(message))

        clients = [ask(number) for number in range(OF_A_NAME)]
        assert all(client.raw == [] for client in clients)
        late = ask(OF_A_NAME)
        assert (late.said, late.why) == ("SERVFAIL", 0)
        assert len(desk.upstreams.asked) == OF_A_NAME
        assert desk.ask("www.example.net").raw == []
        desk.answer(place=0)
        assert ask(OF_A_NAME + 1).raw == []

    play(story)


def test_an_answer_is_kept_and_given_again_with_its_ttl_counted_down() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.com", "example.com A 203.0.113.1")
        desk.clock.advance(100.5)
        again = desk.ask("example.com", ident=9)
        assert desk.upstreams.asked == []
        assert (again.reply.header.id, again.said, again.reply.rr[0].ttl) == (9, ["203.0.113.1"], 200)
        desk.clock.advance(199.5)
        desk.ask("example.com")
        assert len(desk.upstreams.asked) == 1
        assert desk.forwarder.counts.from_cache == 1

    play(story)


def test_whether_an_answer_was_validated_does_not_depend_on_who_asked_first() -> None:
    async def story(desk: Desk) -> None:
        desk.ask("example.net")
        ((asked, _, done),) = desk.upstreams.asked
        wish = bytearray(question("example.net"))
        wish[2:4] = (RD | AD).to_bytes(2, "big")
        client = desk.take(bytes(wish))  # RFC 6840 §5.7: the same question, and who asks understands AD
        assert int.from_bytes(upstream_query(asked, 1, asked.question)[2:4], "big") & AD
        assert client.raw == []

    play(story)


def test_nxdomain_of_a_tunneled_name_is_passed_on() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("example.com")
        desk.answer(rcode=NXDOMAIN)
        assert client.said == "NXDOMAIN" and client.why is None
        assert desk.elements.transactions == []

    play(story)


def test_what_does_not_fit_a_datagram_is_truncated_and_a_stream_has_it_whole() -> None:
    async def story(desk: Desk) -> None:
        short, long = desk.ask("example.net"), desk.ask("example.net", stream=True)
        desk.answer(*(f"example.net A 203.0.113.{number}" for number in range(100)))
        assert short.reply.header.tc == 1 and short.reply.rr == []
        assert long.reply.header.tc == 0 and len(long.reply.rr) == 100

    play(story)


@pytest.mark.parametrize(
    ("message", "rcodes"), [(b"", []), (b"\0" * 11, []), (b"\0\7\x81\0" + b"\0" * 8, []), (b"\0" * 12, [1])]
)
def test_what_is_no_question_is_dropped_or_refused_and_never_asked(message: bytes, rcodes: list[int]) -> None:
    async def story(desk: Desk) -> None:
        client = desk.take(message)
        assert [DNSRecord.parse(reply).header.rcode for reply in client.raw] == rcodes
        assert desk.upstreams.asked == []
        assert client.hung_up is not bool(rcodes)  # a stream on which that comes is of no use
        assert desk.forwarder.counts.bad == 1

    play(story)


# -- ready replies


def test_a_reply_that_was_given_from_the_cache_is_ready_for_the_next_who_asks_the_same() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.com", "example.com A 203.0.113.1")
        assert desk.ready == {}
        message = question("ExAmPLe.com", ident=0x1234)
        client = desk.take(message)
        assert desk.ready == {message[2:]: client.raw[0][2:]}
        desk.ask("example.com")
        desk.ask("example.com", edns=None)
        assert len(desk.ready) == 3  # whatever differs in a byte

    play(story)


def test_a_ready_reply_is_the_slow_one_but_for_a_second_of_its_ttl() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.net", "example.net A 203.0.113.1", ttl=40)
        message = question("example.net")
        seen = 0
        for _ in range(400):
            desk.clock.advance(0.0995)
            prepared = desk.ready.get(message[2:])
            slow = desk.take(message)
            if prepared is not None and slow.raw:
                seen += 1
                ready = DNSRecord.parse(message[:2] + prepared)
                (theirs,), (ours,) = slow.reply.rr, ready.rr
                assert 0 <= ours.ttl - theirs.ttl <= 1
                ours.ttl = theirs.ttl
                assert bytes(ready.pack()) == slow.raw[0]
        assert seen > 300
        assert len(desk.upstreams.asked) == 1  # when it had ended, it was asked for

    play(story)


def test_ready_replies_are_gone_after_a_second() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.net", "example.net A 203.0.113.1")
        for _ in range(2):
            desk.ask("example.net")
            desk.clock.advance(READY_FOR / 2)
            desk.ask("EXAMPLE.net")
            assert len(desk.ready) == 2
            desk.clock.advance(READY_FOR / 2)
            assert desk.ready == {}

    play(story)


def test_what_is_not_ready() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.net", "example.net A 203.0.113.1", ttl=10)
        assert desk.ask("example.net", stream=True).said == ["203.0.113.1"]  # streams have no size
        assert desk.ready == {}
        desk.clock.advance(9.5)
        assert desk.ask("example.net").said == ["203.0.113.1"]  # ends within the second
        assert desk.ready == {}

    play(story)


def test_ready_replies_are_bounded() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.net", "example.net A 203.0.113.1")
        for size in range(600, 600 + READY_LIMIT + 10):
            desk.ask("example.net", edns=size)
        assert len(desk.ready) == READY_LIMIT

    play(story)


def test_nothing_is_ready_after_a_swap() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.net", "example.net A 203.0.113.1")
        desk.ask("example.net")
        kept = desk.ready
        assert kept
        desk.swap(TUNNELED_TOO)
        assert desk.ready == {} and desk.ready is kept  # which the listener holds

    play(story)


# -- popular names


@pytest.mark.parametrize("name", ["www.example.com", "www.example.net"])
def test_a_popular_name_is_asked_for_again_before_it_ends_and_nobody_waits(name: str) -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve(name, f"{name} A 203.0.113.1", ttl=100)
        desk.ask(name)
        desk.clock.advance(91)
        for _ in range(3):
            assert desk.ask(name).said == ["203.0.113.1"]
        assert desk.upstreams.names() == [name]  # once
        desk.answer(f"{name} A 203.0.113.2", ttl=100)
        await turn()
        assert ("203.0.113.2" in desk.elements.comments()) is name.endswith(".com")
        desk.clock.advance(50)
        assert desk.ask(name).said == ["203.0.113.2"]

    play(story)


def test_what_nobody_asked_for_again_ends() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.net", "example.net A 203.0.113.1", ttl=100)
        desk.clock.advance(95)
        desk.ask("example.net")
        assert desk.upstreams.asked == []

    play(story)


def test_while_a_popular_name_cannot_be_had_again_the_old_answer_is_given_to_its_end() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.net", "example.net A 203.0.113.1", ttl=100)
        desk.ask("example.net")
        desk.clock.advance(95)
        desk.ask("example.net")
        desk.fail()
        assert desk.ask("example.net").said == ["203.0.113.1"]
        assert desk.upstreams.asked == []

    play(story)


def test_who_joins_a_question_that_began_before_the_end_gets_the_stale_answer_too() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.net", "example.net A 203.0.113.1", ttl=100)
        desk.ask("example.net")
        desk.clock.advance(99.5)
        desk.ask("example.net")
        desk.clock.advance(1)
        client = desk.ask("example.net")
        desk.fail()
        assert client.said == ["203.0.113.1"]

    play(story)


def test_who_joins_a_question_that_began_before_the_end_waits_for_the_fresh_answer() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.net", "example.net A 203.0.113.1", ttl=100)
        desk.ask("example.net")
        desk.clock.advance(99.9)
        desk.ask("example.net")
        desk.clock.advance(0.2)
        client = desk.ask("example.net")
        assert client.raw == []
        desk.answer("example.net A 203.0.113.2")
        assert client.said == ["203.0.113.2"] and client.why is None

    play(story)


# -- no answer


@pytest.mark.parametrize(("name", "group"), [("example.com", "wg0"), ("example.net", "default")])
def test_when_nobody_answers_it_is_servfail_with_a_reason_and_not_asked_again_at_once(name: str, group: str) -> None:
    async def story(desk: Desk) -> None:
        client, other = desk.ask(name), desk.ask(name, ident=8)
        desk.fail()
        for each in (client, other):
            assert each.said == "SERVFAIL"
            assert extended_error(each.reply) == (22, f"splitwg: no server of {group} answers")
        desk.clock.advance(FAILURE - 0.1)
        again = desk.ask(name)
        assert (again.said, again.why, desk.upstreams.asked) == ("SERVFAIL", 22, [])
        assert desk.ask(name, "AAAA").raw == []  # another question may have luck
        desk.clock.advance(0.1)
        desk.ask(name)
        assert len(desk.upstreams.asked) == 2

    play(story, make_config(dns="stale = 0"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("example.com", "splitwg: the tunnel wg0 is down"),
        ("example.net", "splitwg: there is no route to the DNS servers"),
    ],
)
def test_when_there_is_no_way_that_is_told_and_it_is_asked_anew_at_once(name: str, reason: str) -> None:
    async def story(desk: Desk) -> None:
        for _ in range(2):
            client = desk.ask(name)
            desk.fail(no_way=True)
            assert client.said == "SERVFAIL"
            assert extended_error(client.reply) == (23, reason)

    play(story)


@pytest.mark.parametrize(("rcode", "word"), [(2, "SERVFAIL"), (REFUSED, "REFUSED"), (16, "rcode 16")])
def test_an_error_of_the_servers_is_servfail_with_their_word_and_not_asked_for_again_at_once(
    rcode: int, word: str
) -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("example.net")
        query, _, done = desk.upstreams.asked.pop()
        done(replace(reply_to(query), rcode=rcode))
        again = desk.ask("example.net")
        for each in (client, again):
            assert each.said == "SERVFAIL"
            assert extended_error(each.reply) == (22, f"splitwg: the servers of default answer {word}")
        assert desk.upstreams.asked == []

    play(story)


def test_when_a_group_answers_again_its_failures_are_forgiven() -> None:
    async def story(desk: Desk) -> None:
        for name in ("a.example.net", "b.example.net", "c.example.com"):
            desk.ask(name)
            desk.fail()
        desk.ask("d.example.net")
        desk.answer("d.example.net A 203.0.113.1")
        desk.ask("a.example.net")
        assert desk.upstreams.names() == []  # it may be this name alone that nobody answers
        desk.upstreams.on_recovery(desk.forwarder.zones.default)
        desk.ask("a.example.net")
        desk.ask("c.example.com")  # of another group
        assert desk.upstreams.names() == ["a.example.net"]
        tunnel = desk.forwarder.vetting.find(b"\7example\3com\0")
        desk.upstreams.on_recovery(tunnel)
        desk.ask("c.example.com")
        assert desk.upstreams.names() == ["a.example.net", "c.example.com"]

    play(story)


def test_silence_of_a_group_is_told_once_and_its_return_too(caplog: pytest.LogCaptureFixture) -> None:
    async def story(desk: Desk) -> None:
        for number in range(3):
            desk.ask(f"secret{number}.example.net")
            desk.fail()
        desk.ask("secret.example.net")
        desk.answer("secret.example.net A 203.0.113.1")

    with caplog.at_level("INFO", "splitwgd.dns"):
        play(story)
    assert [record.getMessage() for record in caplog.records] == [
        "no answer from default: nobody at home",
        "default answers again",
    ]


# -- stale answers (RFC 8767)


async def ended(desk: Desk, name: str, after: float = 100) -> None:
    """A name whose answer has ended so many seconds ago."""
    await desk.resolve(name, f"{name} A 203.0.113.1", ttl=100)
    desk.clock.advance(100 + after)
    desk.story.clear()


def is_stale(client: FakeClient) -> bool:
    return (client.said, client.why, client.reply.rr[0].ttl) == (["203.0.113.1"], 3, STALE_TTL)


@pytest.mark.parametrize("name", ["www.example.com", "www.example.net"])
def test_a_client_that_has_waited_long_enough_gets_what_was_true_before(name: str) -> None:
    async def story(desk: Desk) -> None:
        await ended(desk, name)
        client, other = desk.ask(name), desk.ask(name)
        desk.clock.advance(STALE_AFTER - 0.1)
        assert client.raw == other.raw == []
        desk.clock.advance(0.1)
        assert is_stale(client) and is_stale(other)
        assert is_stale(desk.ask(name))  # who comes later need not wait: the question is still under way
        assert len(desk.upstreams.asked) == 1
        desk.answer(f"{name} A 203.0.113.2", ttl=100)
        await turn()
        assert len(client.raw) == 1
        assert desk.ask(name).said == ["203.0.113.2"]
        assert desk.forwarder.counts.stale == 3

    play(story)


@pytest.mark.parametrize("name", ["www.example.com", "www.example.net"])
def test_when_nobody_answers_it_is_given_at_once_and_nobody_is_asked_for_a_while(name: str) -> None:
    async def story(desk: Desk) -> None:
        await ended(desk, name)
        client = desk.ask(name)
        desk.fail()
        assert is_stale(client)
        assert is_stale(desk.ask(name)) and desk.upstreams.asked == []
        assert desk.forwarder.counts.failed == 0
        desk.clock.advance(FAILURE)
        desk.ask(name)
        assert len(desk.upstreams.asked) == 1

    play(story)


def test_a_servers_failure_is_no_answer_and_its_denial_is_one() -> None:
    async def story(desk: Desk) -> None:
        await ended(desk, "a.example.net")
        await ended(desk, "b.example.net")
        first = desk.ask("a.example.net")
        desk.answer(rcode=2)
        assert is_stale(first)
        second = desk.ask("b.example.net")
        desk.answer(rcode=NXDOMAIN)
        assert second.said == "NXDOMAIN"

    play(story)


@pytest.mark.parametrize(("stale", "after", "given"), [(1000, 900, True), (1000, 1100, False), (0, 1, False)])
def test_it_stands_in_as_long_as_it_may(stale: int, after: float, given: bool) -> None:
    async def story(desk: Desk) -> None:
        await ended(desk, "www.example.net", after)
        client = desk.ask("www.example.net")
        desk.fail()
        assert client.said == (["203.0.113.1"] if given else "SERVFAIL")

    play(story, make_config(dns=f"stale = {stale}"))


def test_a_stale_tunneled_answer_is_given_while_its_elements_live_and_then_they_live_on() -> None:
    async def story(desk: Desk) -> None:
        await ended(desk, "www.example.com", 3000)
        client = desk.ask("www.example.com")
        desk.fail()
        assert is_stale(client)
        assert desk.story == ["written", "answered"]
        assert desk.elements.seconds("203.0.113.1") >= STALE_TTL + SLACK
        assert {element.seconds for element in desk.ledger.elements(desk.clock.now)} == {
            desk.elements.seconds("203.0.113.1")
        }

    play(story)


def test_a_stale_tunneled_answer_is_not_given_when_its_elements_are_gone() -> None:
    async def story(desk: Desk) -> None:
        await ended(desk, "www.example.com", 6000)
        client = desk.ask("www.example.com")
        desk.clock.advance(STALE_AFTER)
        assert client.raw == []
        desk.fail()
        assert (client.said, client.why) == ("SERVFAIL", 22)

    play(story)


def test_a_stale_tunneled_answer_is_not_given_when_its_elements_cannot_be_renewed() -> None:
    async def story(desk: Desk) -> None:
        await ended(desk, "www.example.com", 3000)
        desk.elements.failing = 99
        client = desk.ask("www.example.com")
        desk.fail()
        assert (client.said, client.why) == ("SERVFAIL", 22)

    play(story)


def test_when_the_write_of_the_new_answer_fails_the_old_one_stands_in() -> None:
    async def story(desk: Desk) -> None:
        await ended(desk, "www.example.com")
        client = desk.ask("www.example.com")
        desk.elements.refuses = ("203.0.113.2",)
        desk.answer("www.example.com A 203.0.113.2")
        await turn()
        assert is_stale(client)

    play(story)


def test_what_belongs_to_another_group_now_does_not_stand_in() -> None:
    async def story(desk: Desk) -> None:
        await ended(desk, "www.example.net")
        await desk.resolve("a.example.com", "a.example.com A 203.0.113.1")  # even where its address lives in the set
        client = desk.ask("www.example.net")
        desk.swap(TUNNELED_TOO)
        desk.clock.advance(STALE_AFTER)
        assert client.raw == []
        desk.fail()
        desk.fail()
        assert client.said == "SERVFAIL"
        assert desk.elements.comments() == {"203.0.113.1": "a.example.com"}

    play(story)


# -- without a server


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("localhost", "A", ["127.0.0.1"]),
        ("a.localhost", "AAAA", ["::1"]),
        ("1.0.0.127.in-addr.arpa", "PTR", ["localhost."]),
        ("facebookcorewwwi.onion", "A", "NXDOMAIN"),
        ("printer.local", "A", "NXDOMAIN"),
        ("x.invalid", "A", "NXDOMAIN"),
        ("1.0.168.192.in-addr.arpa", "PTR", "NXDOMAIN"),
        ("_dns.resolver.arpa", "SVCB", "NOERROR"),
        ("use-application-dns.net", "A", "NXDOMAIN"),
        ("mask.icloud.com", "A", "NOERROR"),
        ("nas.lan", "A", ["192.168.1.5"]),
        ("nas.lan", "AAAA", "NOERROR"),
    ],
)
def test_local_names_are_answered_before_anything_is_asked(name: str, kind: str, said: str | list[str]) -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask(name.upper(), kind)
        assert (client.said, desk.upstreams.asked, desk.elements.transactions) == (said, [], [])
        assert desk.forwarder.counts.local == 1
        assert len(desk.forwarder.cache) == 0

    play(story, make_config(hosts="192.168.1.5 nas.lan"))


def test_the_hosts_of_a_tunneled_name_enter_the_sets_first() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("example.com")
        assert client.raw == []
        await turn()
        assert desk.story == ["written", "answered"]
        assert client.said == ["203.0.113.7"]
        assert set(desk.elements.comments()) == {"203.0.113.7", "2001:db8::7"}
        assert desk.elements.seconds("203.0.113.7") >= client.reply.rr[0].ttl + SLACK
        assert desk.ask("example.com").said == ["203.0.113.7"]
        assert desk.upstreams.asked == []

    play(story, make_config(hosts="203.0.113.7 example.com\n2001:db8::7 example.com"))


def test_the_hosts_of_a_name_below_a_tunneled_one_enter_the_sets_first() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("www.example.com")
        await turn()
        assert (client.said, desk.story) == (["203.0.113.7"], ["written", "answered"])

    play(story, make_config(hosts="203.0.113.7 www.example.com"))


def test_hosts_that_cannot_be_written_are_not_given() -> None:
    async def story(desk: Desk) -> None:
        desk.elements.failing = 99
        client = desk.ask("example.com")
        await turn()
        assert (client.said, client.why) == ("SERVFAIL", 0)

    play(story, make_config(hosts="203.0.113.7 example.com"))


@pytest.mark.parametrize("name", ["example.com", "example.net"])
def test_any_is_answered_by_one_record_and_not_asked(name: str) -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask(name, "ANY")
        (record,) = client.reply.rr
        assert (record.rtype, client.reply.header.rcode) == (13, 0)  # HINFO (RFC 8482 §4.2)
        assert desk.upstreams.asked == []

    play(story)


@pytest.mark.parametrize("name", ["facebookcorewwwi.onion", "x.invalid", "use-application-dns.net"])
def test_any_of_a_name_that_is_nobodys_is_nxdomain(name: str) -> None:
    async def story(desk: Desk) -> None:
        assert desk.ask(name, "ANY").said == "NXDOMAIN"  # RFC 6761 §6.4, RFC 7686 §2

    play(story)


@pytest.mark.parametrize(("wg", "kind", "other"), [(NO_V6, "AAAA", "A"), (NO_V4, "A", "AAAA")])
def test_addresses_that_the_tunnel_does_not_carry_are_not_asked_for(wg: str, kind: str, other: str) -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("www.example.com", kind)
        assert client.said == "NOERROR"
        assert [record.rtype for record in client.reply.auth] == [6]  # NODATA with its SOA (RFC 2308 §2.2)
        assert desk.upstreams.asked == []
        assert desk.ask("www.example.com", other).raw == []
        assert desk.ask("www.example.net", kind).raw == []

    play(story, make_config(wg=wg))


def test_a_name_that_only_a_loop_can_bring_is_refused() -> None:
    async def story(desk: Desk) -> None:
        desk.upstreams.probes[b"\5probe\7example\0"] = None
        client = desk.ask("probe.example")
        assert (client.said, client.reply.rr, desk.upstreams.asked) == ("REFUSED", [], [])
        assert desk.ask("other.example").raw == []

    play(story)


def test_that_home_arpa_is_unsigned_is_asked_outside() -> None:
    async def story(desk: Desk) -> None:
        assert desk.ask("home.arpa", "DS").raw == []
        assert desk.upstreams.groups() == ["default"]

    play(story)


def test_it_still_is_when_the_configuration_changes_meanwhile() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("home.arpa", "DS")
        desk.swap(TUNNELED_TOO)
        desk.answer(rcode=0)
        if not client.raw:
            desk.answer(rcode=0)
        assert client.said == "NOERROR"

    play(story)


# -- where HTTPS records lead


async def led(desk: Desk) -> FakeClient:
    """A tunneled name's HTTPS record leads to a name that is plain."""
    return await desk.resolve("www.example.com", "www.example.com HTTPS 1 svc.example.net. alpn=h2", kind="HTTPS")


def test_hints_enter_the_sets_before_the_answer() -> None:
    async def story(desk: Desk) -> None:
        record = "www.example.com HTTPS 1 . ipv4hint=203.0.113.1 ipv6hint=2001:db8::1"
        await desk.resolve("www.example.com", record, kind="HTTPS")
        assert desk.story == ["written", "answered"]
        assert set(desk.elements.comments()) == {"203.0.113.1", "2001:db8::1"}

    play(story)


def test_where_a_tunneled_name_leads_is_tunneled_too() -> None:
    async def story(desk: Desk) -> None:
        client = await led(desk)
        assert len(client.reply.rr) == 1
        answered = desk.ask("svc.example.net")
        assert desk.upstreams.groups() == ["wg0"]
        desk.answer("svc.example.net A 203.0.113.9")
        await turn()
        assert answered.said == ["203.0.113.9"]
        assert desk.elements.comments() == {"203.0.113.9": "www.example.com"}
        desk.ask("other.example.net")
        assert desk.upstreams.groups() == ["default"]

    play(story)


def test_what_clients_know_of_such_a_name_enters_the_sets_before_the_answer_that_leads_there() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("svc.example.net", "svc.example.net A 203.0.113.9", ttl=5000)
        await desk.resolve("svc.example.net", "svc.example.net AAAA 2001:db8::9", kind="AAAA")
        desk.ask("svc.example.net")
        assert desk.ready
        desk.story.clear()
        await led(desk)
        assert desk.story == ["written", "answered"]
        assert set(desk.elements.comments()) == {"203.0.113.9", "2001:db8::9"}
        assert desk.elements.seconds("203.0.113.9") >= 5000 + SLACK - 1
        assert desk.ready == {}
        desk.ask("svc.example.net")
        assert desk.upstreams.groups() == ["wg0"]  # what was known is the word of the wrong servers

    play(story)


def test_a_plain_question_under_way_for_such_a_name_is_not_answered_as_a_plain_one() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("svc.example.net")
        await led(desk)
        desk.answer("svc.example.net A 203.0.113.9")
        await turn()
        assert "203.0.113.9" in desk.elements.comments() or client.raw == []

    play(story)


def test_when_what_is_known_cannot_be_written_the_answer_is_withheld() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("svc.example.net", "svc.example.net A 203.0.113.9")
        desk.elements.failing = 99
        client = await led(desk)
        assert (client.said, client.why) == ("SERVFAIL", 0)

    play(story)


def test_a_plain_names_records_lead_nowhere() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("www.example.net", "www.example.net HTTPS 1 svc.example.net.", kind="HTTPS")
        desk.ask("svc.example.net")
        assert desk.upstreams.groups() == ["default"]

    play(story)


def test_a_lead_outlives_a_reload_while_its_origin_is_tunneled() -> None:
    async def story(desk: Desk) -> None:
        await led(desk)
        desk.swap(make_config(domains='"example.com", "example.edu"'))
        desk.ask("svc.example.net")
        assert desk.upstreams.groups() == ["wg0"]
        desk.swap(NO_LONGER)
        desk.answer("svc.example.net A 203.0.113.9")
        assert desk.upstreams.groups() == ["default"]

    play(story)


def test_what_may_not_enter_a_set_does_not_enter_it_by_a_lead_either() -> None:
    taken = Admission(taken=frozenset({ip_address("198.51.100.130").packed}))  # the tunnel's own endpoint

    async def story(desk: Desk) -> None:
        await desk.resolve("svc.example.net", "svc.example.net A 198.51.100.130")
        await led(desk)
        assert desk.elements.comments() == {}

    play(story, admission=taken)


def test_what_clients_know_by_an_alias_of_such_a_name_enters_the_sets_too() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("x.example.net", "x.example.net CNAME svc.example.net.", "svc.example.net A 203.0.113.9")
        await led(desk)
        desk.ask("x.example.net")
        assert "203.0.113.9" in desk.elements.comments() or desk.upstreams.groups() == ["default"]

    play(story)


# -- reload


TUNNELED_TOO = make_config(domains='"example.com", "example.net"')
NO_LONGER = make_config(domains='"example.org"')


@pytest.mark.parametrize(
    ("name", "config", "first", "then"),
    [("example.net", TUNNELED_TOO, "default", "wg0"), ("example.com", NO_LONGER, "wg0", "default")],
)
def test_a_question_under_way_while_the_configuration_changes_is_asked_again_of_the_right_servers(
    name: str, config: Config, first: str, then: str
) -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask(name)
        assert desk.upstreams.groups() == [first]
        desk.swap(config)
        desk.answer(f"{name} A 198.51.100.66")
        assert client.raw == [] and desk.upstreams.groups() == [then]
        desk.answer(f"{name} A 203.0.113.1")
        await turn()
        assert client.said == ["203.0.113.1"]
        assert set(desk.elements.comments()) == ({"203.0.113.1"} if then == "wg0" else set())

    play(story)


def test_a_change_between_answer_and_write_is_noticed_too() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("example.com")
        desk.answer("example.com A 198.51.100.66")
        desk.swap(NO_LONGER)
        await turn()
        assert client.raw == [] and desk.upstreams.groups() == ["default"]
        desk.answer("example.com A 203.0.113.1")
        await turn()
        assert client.said == ["203.0.113.1"]

    play(story)


def test_an_alias_that_becomes_tunneled_while_its_question_is_under_way_is_written() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("www.example.org")
        desk.swap(TUNNELED_TOO)
        desk.answer("www.example.org CNAME edge.example.net.", "edge.example.net A 203.0.113.1")
        await turn()
        assert desk.story == ["written", "answered"]
        assert len(client.reply.rr) == 2

    play(story)


def test_a_question_under_way_whose_name_becomes_local_is_answered_here() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("nas.lan")
        desk.swap(make_config(hosts="192.168.1.5 nas.lan"))
        desk.answer("nas.lan A 203.0.113.66")
        assert client.said == ["192.168.1.5"] and desk.upstreams.asked == []

    play(story)


@pytest.mark.parametrize(
    "swapped",
    [
        False,
        True,
    ],
)
def test_a_plain_answer_that_leads_into_the_private_network_is_emptied(swapped: bool) -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("www.example.net")
        if swapped:  # the group is another object then, and the same one
            desk.swap(make_config(domains='"example.com", "example.edu"'))
        desk.answer("www.example.net A 192.168.1.1")
        assert client.said == "NOERROR" and client.reply.rr == []

    play(story)


def test_the_known_addresses_of_an_added_name_are_written_before_the_swap_and_asked_for_afresh_after_it() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("www.example.net", "www.example.net A 203.0.113.1")
        await desk.resolve(
            "www.example.org", "www.example.org CNAME edge.example.net.", "edge.example.net A 203.0.113.2"
        )
        await desk.resolve("other.example.org", "other.example.org A 203.0.113.3")
        assert desk.elements.transactions == []
        vetting = desk.admit(TUNNELED_TOO)
        assert desk.elements.comments() == {"203.0.113.1": "www.example.net", "203.0.113.2": "edge.example.net"}
        assert len(desk.elements.transactions) == 1
        desk.forwarder.swap(vetting.zones, desk.forwarder.local, vetting)
        desk.ask("www.example.net")
        assert desk.upstreams.groups() == ["wg0"]
        assert desk.ask("other.example.org").said == ["203.0.113.3"]

    play(story)


def test_when_the_known_addresses_cannot_be_written_nothing_has_changed() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("www.example.net", "www.example.net A 203.0.113.1")
        desk.elements.failing = 99
        with pytest.raises(KernelError):
            desk.admit(TUNNELED_TOO)
        assert len(desk.ledger) == 0
        assert desk.ask("www.example.net").said == ["203.0.113.1"]

    play(story)


def test_with_nothing_known_an_admission_writes_nothing() -> None:
    async def story(desk: Desk) -> None:
        desk.admit(TUNNELED_TOO)
        assert desk.elements.transactions == []

    play(story)


def test_what_may_not_enter_a_set_is_not_admitted() -> None:
    taken = Admission(taken=frozenset({ip_address("198.51.100.130").packed}))

    async def story(desk: Desk) -> None:
        await desk.resolve("www.example.net", "www.example.net A 198.51.100.130", "www.example.net A 203.0.113.1")
        desk.admit(TUNNELED_TOO)
        assert set(desk.elements.comments()) == {"203.0.113.1"}

    play(story, admission=taken)


def test_after_a_swap_only_the_servers_of_the_new_groups_are_remembered() -> None:
    async def story(desk: Desk) -> None:
        desk.swap(make_config(dns='forward = {"ts.net" = ["100.100.100.100"]}'))
        assert {group.name for group in desk.upstreams.kept} == {"default", "wg0", "forward ts.net"}

    play(story)


def test_a_host_that_is_added_to_the_hosts_file_is_felt_at_once() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("www.example.net", "www.example.net A 203.0.113.1")
        desk.swap(make_config(hosts="203.0.113.7 www.example.net"))
        assert desk.ask("www.example.net").said == ["203.0.113.7"]

    play(story)


def test_so_is_one_that_is_tunneled() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.com", "example.com A 203.0.113.1")
        desk.swap(make_config(hosts="203.0.113.7 example.com"))
        client = desk.ask("example.com")
        await turn()
        assert client.said == ["203.0.113.7"]

    play(story)


def test_released_are_the_addresses_that_only_removed_names_held() -> None:
    async def story(desk: Desk) -> None:
        desk.forwarder.cache.resize(0, 0, 0)
        for name, last in (("a.example.com", 1), ("b.example.net", 1), ("a.example.com", 2), ("b.example.net", 3)):
            await desk.resolve(name, f"{name} A 203.0.113.{last}")
        assert desk.forwarder.release() == []
        desk.swap(make_config())
        assert desk.forwarder.release() == [ip_address("203.0.113.3").packed]
        assert set(desk.elements.comments()) == {"203.0.113.1", "203.0.113.2"}
        assert desk.forwarder.release() == []
        desk.swap(NO_LONGER)
        desk.elements.failing = 1  # as when one of them has ended by itself
        assert set(desk.forwarder.release()) == {ip_address(f"203.0.113.{last}").packed for last in (1, 2)}
        assert desk.elements.comments() == {}

    play(story, TUNNELED_TOO)


def test_what_happened_is_counted() -> None:
    async def story(desk: Desk) -> None:
        await desk.resolve("example.com", "example.com A 203.0.113.1")
        await desk.resolve("example.net", "example.net A 203.0.113.1")
        for name in ("example.com", "localhost", "x.example.net"):
            desk.ask(name)
        desk.fail()
        desk.take(b"")
        counts = desk.forwarder.counts
        assert (counts.asked, counts.from_cache, counts.tunneled, counts.failed) == (6, 1, 1, 1)
        assert (counts.withheld, counts.stale, counts.local, counts.bad) == (0, 0, 1, 1)

    play(story)
