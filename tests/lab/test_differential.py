"""10,000 questions of every kind to splitwgd and to unbound, which both ask the same authority: whatever differs in
rcode, flags or answer is named in docs/conformance.md, or a defect.

DIFFERENCES is the one list of what may differ; the document's table has a line for each.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import pytest

from tests.fuzz.packets import AA, AD, ANY, AXFR, CD, CH, CNAME, IN, IXFR, OPT, RA, RD, TC, TSIG, Z, opt, option, query
from tests.fuzz.reader import Message, read

from .asking import DAEMON, ask, ask_all, ask_stream
from .atlas import NAMES
from .authority import authority, reference
from .hosts import ROOT, Host
from .machine import CONFIG, Machine
from .wire import encode_name
from .world import Lab

COUNT = 10_000
COMMON = (1, 2, 5, 6, 12, 15, 16, 28, 33, 64, 65, ANY)
# Every type that has a number, some that have none, and those that are no data.
TYPES = (*range(1, 66), 99, *range(104, 110), 128, 200, *range(249, 262), 1000, 32768, 32769, 65279, 65280, 65534)
CLASSES = (IN,) * 80 + (CH, 4, 254, 255, 65280)
SPECIAL = (
    *("localhost", "www.localhost", "1.0.0.127.in-addr.arpa", "x.invalid", "x.onion", "x.test", "x.home.arpa"),
    *("1.0.0.10.in-addr.arpa", "1.1.168.192.in-addr.arpa", "_dns.resolver.arpa", "use-application-dns.net"),
    *("version.bind", "id.server", "mask.icloud.com"),
)
SIZES = (None, None, 0, 512, 513, 700, 1000, 1220, 1232, 1232, 1400, 4096, 65535)
FLAGS = {"AA": AA, "TC": TC, "RD": RD, "RA": RA, "Z": Z, "AD": AD, "CD": CD}


@dataclass(frozen=True)
class Question:
    """One question as a client may ask it; size: of its EDNS, None for none."""

    name: bytes
    rtype: int
    rclass: int
    flags: int
    size: int | None
    do: bool

    def packet(self, number: int) -> bytes:
        """The message; every seventh has an option that nobody knows."""
        options = option(65001, b"?") if number % 7 == 0 else b""
        edns = b"" if self.size is None else opt(self.size, 0x8000 * self.do, options=options)
        return query(self.name, self.rtype, self.rclass, self.flags, number & 0xFFFF, edns)


@dataclass(frozen=True)
class Case:
    """A question, and what came back from both."""

    asked: Question
    ours: Message
    theirs: Message

    def differs(self) -> set[str]:
        """In what."""
        found = {what for what, flag in FLAGS.items() if self.ours.flags & flag != self.theirs.flags & flag}
        found |= {"rcode"} if self.ours.rcode != self.theirs.rcode else set()
        found |= {"answers"} if answers(self.ours) != answers(self.theirs) else set()
        found |= {"question"} if self.ours.questions != self.theirs.questions else set()
        found |= {"edns"} if edns(self.ours) != edns(self.theirs) else set()
        return found

    def at(self, *names: str) -> bool:
        """Whether the question is for one of these names of the atlas."""
        return self.asked.name.lower() in {encode_name(f"{name}.diff.example") for name in names}


def answers(message: Message) -> Counter[tuple[bytes, int, bytes]]:
    """The records of the answer, whatever their order and TTLs; nothing of one that is cut off."""
    return Counter() if message.flags & TC else Counter(message.canonical(record) for record in message.answers)


def edns(message: Message) -> int | None:
    """The flags of the OPT record, if there is one."""
    return message.opt.ttl & 0xFFFF if message.opt else None


def is_any(case: Case, differs: set[str]) -> bool:
    return case.asked.rtype == ANY and differs <= {"answers", "rcode", "AA", "TC"}


def is_another_class(case: Case, differs: set[str]) -> bool:
    return case.asked.rclass != IN and case.ours.rcode == 5


def is_meta(case: Case, differs: set[str]) -> bool:
    return case.asked.rtype in (OPT, 249, TSIG, IXFR, AXFR, 253, 254) and case.ours.rcode == 5


def is_formerr_by_number(case: Case, differs: set[str]) -> bool:
    return case.asked.rtype in range(128, 249) and case.theirs.rcode == 1 and not case.ours.answers


def is_no_recursion(case: Case, differs: set[str]) -> bool:
    return not case.asked.flags & RD and case.theirs.rcode == 5


def is_the_end_of_an_alias(case: Case, differs: set[str]) -> bool:
    followed = any(record.rtype == CNAME for record in case.ours.answers)
    return followed and (differs == {"rcode"} and case.theirs.rcode == 3 or case.at("away"))


def is_an_alias_to_itself(case: Case, differs: set[str]) -> bool:
    return case.at("itself") and case.asked.rtype == CNAME


def is_special(case: Case, differs: set[str]) -> bool:
    return case.asked.name.lower() in map(encode_name, SPECIAL) and case.ours.rcode in (0, 3)


# What may differ; docs/conformance.md says why, under the same names.
DIFFERENCES: dict[str, Callable[[Case, set[str]], bool]] = {
    "another-class": is_another_class,
    "any": is_any,
    "meta-types": is_meta,
    "types-128-to-248": is_formerr_by_number,
    "no-recursion-desired": is_no_recursion,
    "end-of-an-alias": is_the_end_of_an_alias,
    "alias-to-itself": is_an_alias_to_itself,
    "special-names": is_special,
}


def questions() -> list[Question]:
    """The same ones in each run: each name with each common type, then what chance gives."""
    random = Random(53)
    special = [encode_name(name) for name in SPECIAL]
    pairs = [(name, rtype) for name in (*NAMES, *special) for rtype in COMMON]
    while len(pairs) < COUNT:
        name = random.choice(NAMES if random.random() < 0.98 else special)
        pairs.append((name, random.choice(COMMON if random.random() < 0.5 else TYPES)))
    random.shuffle(pairs)
    return [_question(name, rtype, random) for name, rtype in pairs]


def _question(name: bytes, rtype: int, random: Random) -> Question:
    if random.random() < 0.3:  # the length of a label is never a letter
        turned = (octet ^ 0x20 if 65 <= octet & 0xDF <= 90 and random.random() < 0.5 else octet for octet in name)
        name = bytes(turned)
    flags = RD * (random.random() < 0.97) | AD * (random.random() < 0.2) | CD * (random.random() < 0.2)
    size = random.choice(SIZES)
    return Question(name, rtype, random.choice(CLASSES), flags, size, size is not None and random.random() < 0.3)


def answered(host: Host, server: str, asked: Sequence[Question]) -> list[Message]:
    """What comes back by UDP, each readable by a strict reader."""
    packets = [question.packet(number) for number, question in enumerate(asked)]
    replies = ask_all(host, packets, server)
    if server != DAEMON:  # unbound gives no more than 100 errors a second
        for _ in range(3):
            for place in [place for place, reply in enumerate(replies) if reply is None]:
                replies[place] = ask(host, packets[place], server, patience=1.0)
                time.sleep(0.02)
    got = []
    for packet, reply in zip(packets, replies, strict=True):
        assert reply is not None, f"{server} is silent on {packet.hex()}"
        got.append(read(reply))
        assert got[-1].id == int.from_bytes(packet[:2], "big")
    return got


def answered_over_tcp(host: Host, server: str, asked: Sequence[Question]) -> list[Message]:
    """The same, each on a connection of its own."""
    got = []
    for number, question in enumerate(asked):
        reply = ask_stream(host, question.packet(number), server)
        assert reply is not None, f"{server} is silent on {question} over TCP"
        got.append(read(reply))
    return got


@pytest.fixture(scope="module")
def cases(lab: Lab) -> Iterator[list[Case]]:
    """Everything asked of both, once more over TCP where it was too long for UDP."""
    machine = Machine(lab)
    try:
        standing, other = authority(lab.internet), reference(lab.internet)
        servers = 'default = ["203.0.113.53", "203.0.113.54"]'
        assert servers in CONFIG
        machine.configure(CONFIG.replace(servers, f'default = ["{standing}"]'))
        machine.start()
        asked = questions()
        ours, theirs = answered(lab.client, DAEMON, asked), answered(lab.internet, other, asked)
        found = [Case(*case) for case in zip(asked, ours, theirs, strict=True)]
        long = [case.asked for case in found if case.ours.flags & case.theirs.flags & TC][:500]
        ours, theirs = answered_over_tcp(lab.client, DAEMON, long), answered_over_tcp(lab.internet, other, long)
        yield found + [Case(*case) for case in zip(long, ours, theirs, strict=True)]
    finally:
        machine.clean()


def explanation(case: Case) -> str:
    """The name of the difference that explains this one; empty for none."""
    differs = case.differs()
    return next((name for name, explains in DIFFERENCES.items() if explains(case, differs)), "")


def told(case: Case) -> str:
    """A difference as a line."""
    ours, theirs = (f"rcode {m.rcode} flags {m.flags:04x} {len(m.answers)} answers" for m in (case.ours, case.theirs))
    return f"{sorted(case.differs())}: {case.asked}: {ours}; unbound: {theirs}"


@pytest.mark.timeout(120)
def test_whatever_differs_is_explained(cases: list[Case]) -> None:
    assert len(cases) >= COUNT
    left = [told(case) for case in cases if case.differs() and not explanation(case)]
    assert not left, f"{len(left)}:\n" + "\n".join(left[:40])


def test_every_explanation_is_needed(cases: list[Case]) -> None:
    explained = Counter(explanation(case) for case in cases if case.differs())
    assert DIFFERENCES.keys() <= explained.keys()
    # Those that explain much would hide something if they explained more.
    assert sum(explained.values()) < COUNT / 4, explained


def test_every_explanation_is_told_in_the_document() -> None:
    text = (ROOT / "docs" / "conformance.md").read_text()
    assert set(re.findall(r"^\| `([\w-]+)` \|", text, re.M)) == DIFFERENCES.keys()
