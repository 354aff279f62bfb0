"""The corpus of odd packets and its mutants, at the living daemon: rows 39 and 40 of docs/conformance.md.

`tests/fuzz` has fed the decoders with the same packets; here they have to get past everything else, too.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from tests.fuzz import corpus
from tests.fuzz.campaign import mutants
from tests.fuzz.odd_queries import NAME as FIRST
from tests.fuzz.odd_replies import asked_type
from tests.fuzz.packets import A, framed, name, opt, query
from tests.fuzz.reader import Unreadable, read
from tests.fuzz.targets import NOT_ASKED

from .asking import ask, ask_all, dial, read_framed
from .authority import AUTHORITY, SCRIPTED, SCRIPTED_VPN, authority, scripted, scripted_behind_the_tunnel
from .machine import Machine
from .standing import exceptions
from .world import Lab

COUNT = 10_000
TUNNELED = 2_000  # of the replies
PATIENCE = 6.0  # seconds: the five of a stub resolver, and one for a machine with other things to do
CONFIG = f"""\
[dns]
tunneled = ["{SCRIPTED_VPN}"]
default = ["{AUTHORITY}"]
[dns.forward]
"fuzz.example" = ["{SCRIPTED}"]
[tunneled]
domains = ["tunl.example"]
"""


def packets(kind: str) -> list[bytes]:
    """The corpus and as many mutants as make COUNT of them."""
    known = list(getattr(corpus, kind)().values())
    return known + list(mutants(kind, 39, COUNT - len(known)))


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    built = Machine(lab)
    try:
        authority(lab.internet)
        built.configure(CONFIG)
        built.start()
        yield built
    finally:
        built.clean()
        # A start looks at each flow to port 53, and the next module's daemons would have these 20,000 to look at.
        lab.client.run("conntrack", "-F")


def healthy(machine: Machine, number: int) -> bool:
    """Whether a good question that is in no cache has its answer."""
    reply = ask(machine.lab.client, query(name(f"q{number}.wild.diff.example"), ident=4711), patience=5.0)
    return reply is not None and (message := read(reply)).id == 4711 and len(message.answers) == 1


def no_exception(machine: Machine) -> None:
    assert exceptions(machine.log()) == ""


def drained(sock: socket.socket) -> list[bytes]:
    """Whatever waits in a socket."""
    sock.setblocking(False)
    found = []
    try:
        while True:
            found.append(sock.recv(65_535))
    except OSError:
        return found
    finally:
        sock.settimeout(5)


def silent(packet: bytes) -> bool:
    """Whether nothing may be said to it."""
    return len(packet) < 12 or bool(packet[2] & 0x80)


def test_row_39_odd_packets_as_queries(machine: Machine) -> None:
    sent = [packet for packet in packets("queries") if len(packet) <= 65_507]
    health, replies = 0, 0
    client = machine.lab.client
    with dial(client, socket.SOCK_DGRAM) as deaf, dial(client, socket.SOCK_DGRAM) as heard:
        for number, packet in enumerate(sent, 1):
            (deaf if silent(packet) else heard).send(packet)
            if number % 100 == 0:
                health += healthy(machine, number)
                for reply in drained(heard):
                    assert read(reply).flags & 0x8000
                    replies += 1
        assert drained(deaf) == [], "nothing is said to what is no question"
    assert health == len(sent) // 100
    assert len(sent) > 0.99 * COUNT and replies > 0.8 * sum(not silent(packet) for packet in sent)
    no_exception(machine)


def test_row_39_odd_packets_over_tcp(machine: Machine) -> None:
    """Each odd packet on a connection of its own, and then a good question: an answer to that, or the end."""
    client = machine.lab.client
    outcomes: Counter[str] = Counter()
    for packet in corpus.queries().values():
        with dial(client, socket.SOCK_STREAM, patience=8.0) as stream:
            try:
                stream.sendall(framed(packet, query(name("host0.diff.example"), ident=4712)))
                while (reply := read_framed(stream)) is not None and read(reply).id != 4712:
                    assert not silent(packet)
            except ConnectionResetError:
                reply = None
            outcomes["the end" if reply is None else "an answer"] += 1
    assert outcomes["an answer"] > 150, outcomes
    assert healthy(machine, 0)
    no_exception(machine)


class Liar:
    """Says the packets, each to the question whose name has its number, with the question put right."""

    def __init__(self, replies: Sequence[bytes]) -> None:
        self.replies = replies
        self.lock = threading.Lock()

    def __call__(self, packet: bytes, stream: bool) -> list[bytes]:
        number, end = packet[14:19], packet.index(b"\0", 12) + 5
        if not number.isdigit() or int(number) >= len(self.replies):
            return []  # a mutant of a test before this one, asked for once more
        reply = self.replies[int(number)]
        if len(reply) < 12 or len(reply) <= len(FIRST) + 16:
            return [packet[:2] + reply[2:]]
        # Mutants were made with the question of the corpus; a name of the same length takes its place.
        return [packet[:2] + reply[2:12] + packet[12:end] + reply[12 + len(FIRST) + 4 :]]


@pytest.mark.timeout(150)
def test_row_40_odd_packets_as_replies(machine: Machine) -> None:
    """Whatever the upstream says: SERVFAIL or a good answer, before a client's patience ends."""
    replies = packets("replies")
    liar = Liar(replies)
    types = [asked_type(reply) for reply in replies]
    sent = [
        query(
            name(f"q{number:05}.{'tunl' if number % (COUNT // TUNNELED) == 0 else 'fuzz'}.example"),
            A if rtype in NOT_ASKED else rtype,
            ident=number,
            edns=opt(),
        )
        for number, rtype in enumerate(types)
    ]
    outcomes: Counter[str] = Counter()
    lab = machine.lab
    with scripted(lab.internet, SCRIPTED, liar), scripted_behind_the_tunnel(lab.vpn, liar):
        for packet, reply in zip(sent, ask_all(lab.client, sent, at_once=800, patience=PATIENCE), strict=True):
            if reply is None:
                outcomes["hang"] += 1
                continue
            try:
                message = read(reply)
            except Unreadable as error:
                outcomes[f"unreadable: {error}"] += 1
                continue
            assert (message.id, message.questions[0][0]) == (int.from_bytes(packet[:2], "big"), packet[12:33])
            outcomes[f"rcode {message.rcode}"] += 1
    bad = {what: count for what, count in outcomes.items() if what not in ("rcode 0", "rcode 2", "rcode 3")}
    assert not bad, outcomes
    assert outcomes["rcode 0"] > COUNT // 10 and outcomes["rcode 2"] > COUNT // 10, outcomes
    assert healthy(machine, 1_000_000)
    no_exception(machine)
