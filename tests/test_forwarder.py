"""From a question to its answer, with a kernel and servers that the test holds in its hand."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from dnslib import AAAA, CNAME, QTYPE, RR, DNSRecord
from dnslib import A as ARecord

from splitwgd.answers import Reply, read_reply
from splitwgd.cache import Cache
from splitwgd.config import Config
from splitwgd.errors import KernelError, MachineError, UpstreamError
from splitwgd.forwarder import WRITE_TRIES, Forwarder
from splitwgd.learned import Ledger
from splitwgd.message import Query
from splitwgd.upstream import Done
from splitwgd.zones import Group, Zones
from tests.worlds import ip, make_config

SERVFAIL, NXDOMAIN = 2, 3


class FakeNft:
    """Keeps what it was told, as lines; `failing` is how many of the next transactions it refuses."""

    def __init__(self, story: list[str]) -> None:
        self.story = story
        self.texts: list[str] = []
        self.failing = 0
        self.refuses: tuple[str, ...] = ()
        self.error: type[Exception] = KernelError

    def run(self, text: str) -> None:
        if self.failing or any(word in text for word in self.refuses):
            self.failing = max(self.failing - 1, 0)
            raise self.error("no space left")
        self.texts.append(text)
        self.story.append("written")

    def elements(self) -> dict[str, str]:
        """The address and comment of everything that was written, the last word counts."""
        found = {}
        for text in self.texts:
            for address, comment in re.findall(r'([0-9a-f.:]+) timeout \d+s expires \d+s comment "([^"]*)"', text):
                found[address] = comment
        return found


class FakeUpstreams:
    """Questions under way, answered when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Query, Group, Done]] = []

    def ask(self, query: Query, group: Group, done: Done) -> None:
        self.asked.append((query, group, done))

    def groups(self) -> list[str]:
        return [group.name for _, group, _ in self.asked]


class FakeClient:
    def __init__(self, story: list[str], stream: bool = False) -> None:
        self.story = story
        self.stream = stream
        self.replies: list[DNSRecord] = []

    def send(self, reply: bytes) -> None:
        self.replies.append(DNSRecord.parse(reply))
        self.story.append("answered")

    @property
    def reply(self) -> DNSRecord:
        (only,) = self.replies
        return only


class Desk:
    """A forwarder with fakes on all sides."""

    def __init__(self, config: Config) -> None:
        self.story: list[str] = []
        self.nft = FakeNft(self.story)
        self.upstreams = FakeUpstreams()
        self.ledger = Ledger(3600, 3600)
        parts: tuple[Any, ...] = (self.ledger, Cache(config.cache_size), self.upstreams, self.nft)
        self.forwarder = Forwarder(asyncio.get_running_loop(), Zones(config), *parts)

    def ask(self, name: str, kind: str = "A", ident: int = 7, stream: bool = False) -> FakeClient:
        question = DNSRecord.question(name, kind)
        question.header.id = ident
        client = FakeClient(self.story, stream)
        self.forwarder.take(bytes(question.pack()), client)
        return client

    def answer(self, *records: str, rcode: int = 0, ttl: int = 300, place: int = -1) -> None:
        """The servers answer the last question (or that at `place`); "b A 1.2.3.4" is one record."""
        query, _, done = self.upstreams.asked.pop(place)
        done(reply_to(query, *records, rcode=rcode, ttl=ttl))

    def fail(self) -> None:
        self.upstreams.asked.pop()[2](UpstreamError("default: nobody at home"))


def reply_to(query: Query, *records: str, rcode: int = 0, ttl: int = 300) -> Reply:
    reply = DNSRecord.parse(b"\0\7\1\0\0\1\0\0\0\0\0\0" + query.question).reply()
    reply.header.rcode = rcode
    for record in records:
        owner, kind, data = record.split()
        made = {"A": ARecord, "AAAA": AAAA, "CNAME": CNAME}[kind](data)
        reply.add_answer(RR(owner, getattr(QTYPE, kind), ttl=ttl, rdata=made))
    return read_reply(bytes(reply.pack()), query)


async def turn() -> None:
    """What was put off until the next turn of the loop is done."""
    for _ in range(3):
        await asyncio.sleep(0)


def play(story: Callable[[Desk], Awaitable[None]], config: Config | None = None) -> None:
    async def run() -> None:
        desk = Desk(config or make_config())
        await story(desk)
        await turn()

    asyncio.run(run())


def data(reply: DNSRecord) -> list[str]:
    return [str(record.rdata) for record in reply.rr]


# -- the one promise


@pytest.mark.parametrize(("kind", "address"), [("A", "203.0.113.1"), ("AAAA", "2001:db8::1")])
def test_a_tunneled_answer_leaves_only_after_its_address_was_written(kind: str, address: str) -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("www.example.com", kind)
        assert desk.upstreams.groups() == ["wg0"]
        desk.answer(f"www.example.com {kind} {address}")
        assert client.replies == []
        await turn()
        assert desk.story == ["written", "answered"]
        assert desk.nft.elements() == {address: "www.example.com"}
        assert data(client.reply) == [address]

    play(story)


def test_a_plain_answer_writes_nothing() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("www.example.net")
        assert desk.upstreams.groups() == ["default"]
        desk.answer("www.example.net A 203.0.113.1")
        assert data(client.reply) == ["203.0.113.1"]
        await turn()
        assert desk.nft.texts == []

    play(story)


@pytest.mark.parametrize("error", [KernelError, MachineError])
def test_without_the_write_there_is_servfail_and_nothing_is_kept(error: type[Exception]) -> None:
    async def story(desk: Desk) -> None:
        desk.nft.error, desk.nft.failing = error, 99
        client = desk.ask("www.example.com")
        desk.answer("www.example.com A 203.0.113.1")
        await turn()
        assert client.reply.header.rcode == SERVFAIL and client.reply.rr == []
        assert desk.forwarder.counts.withheld == 1
        assert len(desk.ledger) == 0
        desk.nft.failing = 0
        again = desk.ask("www.example.com")
        assert len(desk.upstreams.asked) == 1  # not from the cache
        desk.answer("www.example.com A 203.0.113.1")
        await turn()
        assert data(again.reply) == ["203.0.113.1"]

    play(story)


def test_a_write_that_is_refused_once_is_tried_again() -> None:
    async def story(desk: Desk) -> None:
        desk.nft.failing = WRITE_TRIES - 1
        client = desk.ask("www.example.com")
        desk.answer("www.example.com A 203.0.113.1")
        await turn()
        assert data(client.reply) == ["203.0.113.1"]

    play(story)


def test_the_answers_of_one_turn_share_one_transaction() -> None:
    async def story(desk: Desk) -> None:
        clients = [desk.ask(f"n{number}.example.com") for number in range(20)]
        for number in reversed(range(20)):
            desk.answer(f"n{number}.example.com A 203.0.113.{number}")
        await turn()
        assert len(desk.nft.texts) == 1
        assert desk.story == ["written"] + ["answered"] * 20
        assert [data(client.reply) for client in clients] == [[f"203.0.113.{number}"] for number in range(20)]

    play(story)


def test_one_answer_that_cannot_be_written_takes_no_other_down() -> None:
    async def story(desk: Desk) -> None:
        desk.nft.refuses = ("203.0.113.66",)
        good, bad, plain = desk.ask("good.example.com"), desk.ask("bad.example.com"), desk.ask("plain.example.net")
        desk.answer("plain.example.net A 203.0.113.66")
        desk.answer("bad.example.com A 203.0.113.66")
        desk.answer("good.example.com A 203.0.113.1")
        await turn()
        assert data(good.reply) == ["203.0.113.1"]
        assert data(plain.reply) == ["203.0.113.66"]
        assert bad.reply.header.rcode == SERVFAIL
        assert desk.nft.elements() == {"203.0.113.1": "good.example.com"}

    play(story)


def test_every_address_of_an_answer_is_written_and_none_that_stays_here() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("example.com")
        desk.answer(*(f"example.com A {address}" for address in ("203.0.113.1", "127.0.0.1", "0.0.0.0", "203.0.113.2")))
        await turn()
        assert set(desk.nft.elements()) == {"203.0.113.1", "203.0.113.2"}
        assert len(client.reply.rr) == 4

    play(story)


@pytest.mark.parametrize(
    ("asked", "alias"), [("www.example.net", "edge.example.com"), ("www.example.com", "edge.example.net")]
)
def test_a_tunneled_name_anywhere_in_the_chain_puts_its_addresses_into_the_set(asked: str, alias: str) -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask(asked)
        desk.answer(f"{asked} CNAME {alias}.", f"{alias} A 203.0.113.1")
        await turn()
        assert desk.story == ["written", "answered"]
        (holder,) = desk.nft.elements().values()
        assert holder.endswith(".example.com")
        assert len(client.reply.rr) == 2

    play(story)


def test_addresses_beside_the_chain_are_not_written() -> None:
    async def story(desk: Desk) -> None:
        desk.ask("www.example.com")
        desk.answer("www.example.com A 203.0.113.1", "victim.example.net A 198.51.100.7")
        await turn()
        assert set(desk.nft.elements()) == {"203.0.113.1"}

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
        assert len(desk.nft.texts) == 1

    play(story)


def test_an_answer_is_kept_and_given_again_with_its_ttl_counted_down() -> None:
    async def story(desk: Desk) -> None:
        desk.ask("example.com")
        desk.answer("example.com A 203.0.113.1", ttl=300)
        await turn()
        clock = desk.forwarder.loop.time
        desk.forwarder.loop.time = lambda: clock() + 100  # type: ignore[method-assign]
        again = desk.ask("example.com", ident=9)
        assert desk.upstreams.asked == []
        assert (again.reply.header.id, data(again.reply)) == (9, ["203.0.113.1"])
        assert 199 <= again.reply.rr[0].ttl <= 200
        desk.forwarder.loop.time = lambda: clock() + 301  # type: ignore[method-assign]
        desk.ask("example.com")
        assert len(desk.upstreams.asked) == 1
        desk.forwarder.loop.time = clock  # type: ignore[method-assign]
        assert desk.forwarder.counts.from_cache == 1

    play(story)


@pytest.mark.parametrize("name", ["example.com", "example.net"])
def test_when_nobody_answers_it_is_servfail_and_asked_anew_next_time(name: str) -> None:
    async def story(desk: Desk) -> None:
        client, other = desk.ask(name), desk.ask(name, ident=8)
        desk.fail()
        assert (client.reply.header.rcode, other.reply.header.rcode) == (SERVFAIL, SERVFAIL)
        desk.ask(name)
        assert len(desk.upstreams.asked) == 1

    play(story)


def test_nxdomain_of_a_tunneled_name_is_passed_on() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("example.com")
        desk.answer(rcode=NXDOMAIN)
        assert client.reply.header.rcode == NXDOMAIN
        assert desk.nft.texts == []

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
        client = FakeClient(desk.story)
        desk.forwarder.take(message, client)
        assert [reply.header.rcode for reply in client.replies] == rcodes
        assert desk.upstreams.asked == []
        assert desk.forwarder.counts.bad == 1

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
        desk.forwarder.swap(Zones(config))
        desk.answer(f"{name} A 198.51.100.66")
        assert client.replies == [] and desk.upstreams.groups() == [then]
        desk.answer(f"{name} A 203.0.113.1")
        await turn()
        assert data(client.reply) == ["203.0.113.1"]
        assert set(desk.nft.elements()) == ({"203.0.113.1"} if then == "wg0" else set())

    play(story)


def test_a_change_between_answer_and_write_is_noticed_too() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("example.com")
        desk.answer("example.com A 198.51.100.66")
        desk.forwarder.swap(Zones(NO_LONGER))
        await turn()
        assert client.replies == [] and desk.upstreams.groups() == ["default"]
        desk.answer("example.com A 203.0.113.1")
        await turn()
        assert data(client.reply) == ["203.0.113.1"]

    play(story)


def test_an_alias_that_becomes_tunneled_while_its_question_is_under_way_is_written() -> None:
    async def story(desk: Desk) -> None:
        client = desk.ask("www.example.org")
        desk.forwarder.swap(Zones(TUNNELED_TOO))
        desk.answer("www.example.org CNAME edge.example.net.", "edge.example.net A 203.0.113.1")
        await turn()
        assert desk.story == ["written", "answered"]
        assert len(client.reply.rr) == 2

    play(story)


def test_the_known_addresses_of_an_added_name_are_written_before_the_swap_and_asked_for_afresh_after_it() -> None:
    async def story(desk: Desk) -> None:
        desk.ask("www.example.net")
        desk.answer("www.example.net A 203.0.113.1", ttl=300)
        desk.ask("www.example.org")
        desk.answer("www.example.org CNAME edge.example.net.", "edge.example.net A 203.0.113.2")
        desk.ask("other.example.org")
        desk.answer("other.example.org A 203.0.113.3")
        assert desk.nft.texts == []
        zones = Zones(TUNNELED_TOO)
        desk.forwarder.admit(zones)
        assert desk.nft.elements() == {"203.0.113.1": "www.example.net", "203.0.113.2": "edge.example.net"}
        assert len(desk.nft.texts) == 1
        desk.forwarder.swap(zones)
        desk.ask("www.example.net")
        assert desk.upstreams.groups() == ["wg0"]
        known = desk.ask("other.example.org")
        assert data(known.reply) == ["203.0.113.3"]

    play(story)


def test_when_the_known_addresses_cannot_be_written_nothing_has_changed() -> None:
    async def story(desk: Desk) -> None:
        desk.ask("www.example.net")
        desk.answer("www.example.net A 203.0.113.1")
        desk.nft.failing = 99
        with pytest.raises(KernelError):
            desk.forwarder.admit(Zones(TUNNELED_TOO))
        assert len(desk.ledger) == 0
        assert data(desk.ask("www.example.net").reply) == ["203.0.113.1"]

    play(story)


def test_with_nothing_known_an_admission_writes_nothing() -> None:
    async def story(desk: Desk) -> None:
        desk.forwarder.admit(Zones(TUNNELED_TOO))
        assert desk.nft.texts == []

    play(story)


def test_released_are_the_addresses_that_only_removed_names_held() -> None:
    async def story(desk: Desk) -> None:
        for name, address in (("a.example.com", 1), ("b.example.net", 1), ("a.example.com", 2), ("b.example.net", 3)):
            desk.forwarder.cache.resize(0)
            desk.ask(name)
            desk.answer(f"{name} A 203.0.113.{address}")
            await turn()
        assert desk.forwarder.release() == []
        desk.forwarder.swap(Zones(make_config()))
        assert desk.forwarder.release() == [ip("203.0.113.3")]
        assert desk.nft.texts[-1] == "delete element inet wg_routing wg_domains4 { 203.0.113.3 }"
        assert desk.forwarder.release() == []
        desk.forwarder.swap(Zones(NO_LONGER))
        desk.nft.failing = 1  # as when one of them has ended by itself
        assert set(desk.forwarder.release()) == {ip(f"203.0.113.{last}") for last in (1, 2)}
        assert sum(text.startswith("delete element") for text in desk.nft.texts[-2:]) == 2

    play(story, TUNNELED_TOO)


def test_a_life_is_never_shortened_by_a_later_answer() -> None:
    async def story(desk: Desk) -> None:
        for ttl in (40_000, 60):
            desk.forwarder.cache.resize(0)
            desk.ask("example.com")
            desk.answer("example.com A 203.0.113.1", ttl=ttl)
            await turn()
        lives = [int(life) for text in desk.nft.texts for life in re.findall(r"timeout (\d+)s", text)]
        assert min(lives) >= 43_000

    play(story)


def test_silence_of_a_group_is_told_once_and_its_return_too(caplog: pytest.LogCaptureFixture) -> None:
    async def story(desk: Desk) -> None:
        for _ in range(3):
            desk.ask("secret.example.net")
            desk.fail()
        desk.ask("secret.example.net")
        desk.answer("secret.example.net A 203.0.113.1")

    with caplog.at_level("INFO", "splitwgd.dns"):
        play(story)
    assert [record.getMessage() for record in caplog.records] == [
        "no answer from default: nobody at home",
        "default answers again",
    ]
