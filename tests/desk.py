"""A forwarder with a kernel, servers, clients and a clock that the test holds in its hand; the rest of it is real."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from dnslib import RCODE, DNSRecord

from splitwgd.admission import Admission
from splitwgd.answers import read_reply
from splitwgd.cache import Cache
from splitwgd.config import Config
from splitwgd.errors import KernelError, UpstreamError
from splitwgd.flight import Done
from splitwgd.forwarder import Forwarder
from splitwgd.gate import Gate
from splitwgd.learned import Ledger
from splitwgd.local import Local, local_patterns
from splitwgd.message import Query
from splitwgd.names import Name, to_text
from splitwgd.objects import Element
from splitwgd.reply import Reply
from splitwgd.turn import Turn
from splitwgd.vetting import Vetting
from splitwgd.zones import Group, Zones
from tests.samples import answer, extended_error, question
from tests.worlds import make_config

MIN_LIFETIME, SLACK, SPARE = 3600, 3600, 900


class FakeElements:
    """The kernel's sets (`elements.Elements`), as strict as they are. `failing` is how many of the next transactions
    are refused, `refuses` which addresses always are, `busy` that another thread writes."""

    def __init__(self, story: list[str]) -> None:
        self.story = story
        self.held: dict[tuple[str, bytes], Element] = {}
        self.transactions: list[list[str]] = []  # the addresses of each
        self.busy = False
        self.failing = 0
        self.refuses: tuple[str, ...] = ()
        self.error: type[Exception] = KernelError

    def write(
        self, new: Sequence[Element], renewed: Sequence[Element] = (), gone: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        gone = list(gone)
        if not (new or renewed or gone):
            return
        addresses = [text_of(element.address) for element in (*new, *renewed)]
        if self.failing or set(addresses) & set(self.refuses):
            self.failing = max(self.failing - 1, 0)
            raise self.error("nf_tables: no space left")
        if any(key(element) in self.held for element in new) or any(place not in self.held for place in gone):
            raise KernelError("nf_tables: File exists, or not")
        for place in gone:
            del self.held[place]
        self.held.update({key(element): element for element in (*renewed, *new)})
        self.transactions.append(addresses)
        self.story.append("written")

    def put(self, elements: Sequence[Element]) -> None:
        self.write((), elements)

    def comments(self) -> dict[str, str]:
        """By address."""
        return {text_of(address): element.name for (_, address), element in self.held.items()}

    def seconds(self, address: str) -> float:
        (found,) = [element.seconds for element in self.held.values() if text_of(element.address) == address]
        return found


def key(element: Element) -> tuple[str, bytes]:
    return element.set, element.address


def text_of(address: bytes) -> str:
    return str(ip_address(address))


class FakeUpstreams:
    """Questions under way, answered when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Query, Group, Done]] = []
        self.probes: dict[Name, object] = {}
        self.kept: list[Group] = []
        self.on_recovery: Callable[[Group], None] = lambda group: None

    def ask(self, query: Query, group: Group, done: Done) -> None:
        self.asked.append((query, group, done))

    def came_back(self, name: Name) -> bool:
        return name in self.probes

    def keep_only(self, groups: Iterable[Group]) -> None:
        self.kept = list(groups)

    def groups(self) -> list[str]:
        return [group.name for _, group, _ in self.asked]

    def names(self) -> list[str]:
        return [to_text(query.name) for query, _, _ in self.asked]


class Timer:
    """Of the clock."""

    def __init__(self, when: float, act: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self.when = when
        self.act = act
        self.arguments = arguments
        self.ended = False

    def cancel(self) -> None:
        self.ended = True


class Clock:
    """The loop, whose time goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []
        self.call_soon = asyncio.get_running_loop().call_soon

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, act: Callable[..., object], *arguments: object) -> Timer:
        self.timers.append(Timer(self.now + delay, act, arguments))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if not timer.ended and timer.when <= end]:
            timer = min(due, key=lambda each: each.when)
            self.now = max(self.now, timer.when)
            timer.ended = True
            timer.act(*timer.arguments)
        self.now = end


class FakeClient:
    """Who asked."""

    def __init__(self, story: list[str], stream: bool = False) -> None:
        self.story = story
        self.stream = stream
        self.raw: list[bytes] = []
        self.hung_up = False

    def send(self, reply: bytes) -> None:
        self.raw.append(reply)
        self.story.append("answered")

    def hang_up(self) -> None:
        self.hung_up = True

    @property
    def reply(self) -> DNSRecord:
        (only,) = self.raw
        return DNSRecord.parse(only)

    @property
    def said(self) -> str | list[str]:
        """The data of the answers, or the rcode where it is no NOERROR."""
        reply = self.reply
        return [str(record.rdata) for record in reply.rr] or RCODE[reply.header.rcode]

    @property
    def why(self) -> int | None:
        """The code of the extended error."""
        found = extended_error(self.reply)
        return found and found[0]


class Desk:
    """All of it. notes: what was told of addresses that were left out."""

    def __init__(self, config: Config, admission: Admission | None = None) -> None:
        self.story: list[str] = []
        self.notes: list[str] = []
        self.clock = Clock()
        self.elements = FakeElements(self.story)
        self.upstreams = FakeUpstreams()
        self.ledger = Ledger(MIN_LIFETIME, SLACK, SPARE)
        self.admission = admission or Admission(frozenset(config.private))
        clock: Any = self.clock
        elements: Any = self.elements
        upstreams: Any = self.upstreams
        zones = Zones(config, local_patterns(config))
        cache = Cache(config.cache_size, config.cache_bytes, config.stale)
        gate = Gate(Turn(clock), self.ledger, elements)
        vetting = Vetting(zones, self.admission, self.notes.append)
        self.forwarder = Forwarder(clock, zones, Local(config), cache, upstreams, gate, vetting)

    @property
    def ready(self) -> dict[bytes, bytes]:
        return self.forwarder.ready

    def ask(self, name: str, kind: str = "A", ident: int = 7, stream: bool = False, **how: Any) -> FakeClient:
        return self.take(question(name, kind, ident, **how), stream)

    def take(self, message: bytes, stream: bool = False) -> FakeClient:
        client = FakeClient(self.story, stream)
        self.forwarder.take(message, client)
        return client

    def answer(self, *records: str, rcode: int = 0, ttl: int = 300, place: int = -1, **more: Any) -> None:
        """The servers answer the last question (or that at `place`); "b A 1.2.3.4" is one record."""
        query, _, done = self.upstreams.asked.pop(place)
        done(reply_to(query, *records, rcode=rcode, ttl=ttl, **more))

    def fail(self, no_way: bool = False) -> None:
        _, group, done = self.upstreams.asked.pop()
        done(UpstreamError(f"{group.name}: nobody at home", no_way))

    async def resolve(self, name: str, *records: str, kind: str = "A", ttl: int = 300) -> FakeClient:
        """A question and its answer."""
        client = self.ask(name, kind)
        self.answer(*records, ttl=ttl)
        await turn()
        return client

    def admit(self, config: Config) -> Vetting:
        """What a reload to this configuration does before its swap."""
        vetting = self.forwarder.vetting.successor(Zones(config, local_patterns(config)), self.admission)
        self.forwarder.admit(vetting)
        return vetting

    def swap(self, config: Config) -> None:
        """A reload without an admission."""
        vetting = self.forwarder.vetting.successor(Zones(config, local_patterns(config)), self.admission)
        self.forwarder.swap(vetting.zones, Local(config), vetting)


def reply_to(query: Query, *records: str, rcode: int = 0, ttl: int = 300, authority: str = "") -> Reply:
    """records: "owner type data"; a TTL of its own may stand before the type."""
    lines = []
    for record in records:
        owner, *rest = record.split()
        own = [str(ttl)] if not rest[0].isdigit() else []
        lines.append(" ".join([f"{owner}.", *own, "IN", *rest] if own else [f"{owner}.", rest[0], "IN", *rest[1:]]))
    return read_reply(answer(replace(query, flags=0x0100), "\n".join(lines), authority, rcode), query)


async def turn() -> None:
    """What was put off until the next turn of the loop is done."""
    for _ in range(3):
        await asyncio.sleep(0)


def play(
    story: Callable[[Desk], Awaitable[None]], config: Config | None = None, admission: Admission | None = None
) -> None:
    async def run() -> None:
        desk = Desk(config or make_config(), admission)
        await story(desk)
        await turn()

    asyncio.run(run())
