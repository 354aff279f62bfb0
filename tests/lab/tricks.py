"""More of what happens to names (see scenarios): how long they last, who shares them, and what lies about them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import wire, zone
from .asking import ask, inside
from .authority import SCRIPTED_VPN, scripted_behind_the_tunnel
from .load import family_of
from .scenarios import DOMAINS, LATER, PLAIN, SERVERS

if TYPE_CHECKING:
    from .leaktest import Scene

SHARED = zone.addresses("shared-a.example")
ROTATING = tuple(f"203.0.113.{last}" for last in range(80, 96))
AGEING = "203.0.113.97"
_DIG = ("dig", "+short", "+tries=1", "+time=2", "@127.0.0.53")


def from_the_cache(scene: Scene) -> None:
    """the same name is asked for 200 times a second"""
    with scene.load():
        asking = [scene.lab.lookups(pattern="tunneled.example", every=10, kind=kind) for kind in ("A", "AAAA")]
        scene.wait(1)
        for lookups in asking:
            told = lookups.stop()
            scene.lost += told["asked"] - told["answered"]


def ttl_one_second(scene: Scene) -> None:
    """an address with TTL 1, used for 3 s"""
    _used(scene, "short.tunneled.example", 3)


def ttl_seven_days(scene: Scene) -> None:
    """an address with a TTL of 7 days"""
    _used(scene, "long.tunneled.example", 0.5)


def _used(scene: Scene, name: str, seconds: float) -> None:
    with scene.load():
        for kind in ("A", "AAAA"):
            scene.asked(*_DIG, name, kind)
        scene.hide(*zone.addresses(name))
        scene.stream(*zone.addresses(name))
        scene.wait(seconds)


def older_than_its_element(scene: Scene) -> None:
    """an answer outlives the least life of an element, and is given from the cache until its end (hours as seconds)"""
    scene.subject.hasten()
    with _behind(scene, {("ageing.tunneled.example", "A"): lambda: [(AGEING, 4)]}), scene.load():
        scene.hide(AGEING)
        began = time.monotonic()
        while (now := time.monotonic() - began) < 4:
            # As a resolver in the program does: no lookup while it has an answer, and it has them from anybody.
            if now % 1.5 < 0.1:
                _said(scene, "ageing.tunneled.example", "A")
            _poke(scene, [AGEING])
            scene.wait(0.1)


def rotating(scene: Scene) -> None:
    """a CDN that gives another address each time; all that it gave are used on"""
    turn = iter(range(1000))
    with (
        _behind(scene, {("rotating.tunneled.example", "A"): lambda: [(ROTATING[next(turn) % len(ROTATING)], 0)]}),
        scene.load(),
    ):
        scene.hide(*ROTATING)
        scene.wait(0.15)
        heard: dict[str, None] = {}
        for _ in range(40):
            heard |= dict.fromkeys(_said(scene, "rotating.tunneled.example", "A"))
            _poke(scene, [*heard])
            scene.wait(0.02)
        if len(heard) < len(ROTATING):
            scene.trouble.append(f"only {len(heard)} addresses of {len(ROTATING)}")


def hostile_answers(scene: Scene) -> None:
    """tunneled names that lead to the VPN, the servers, the router, the machine itself, or tell of other names"""
    lab = scene.lab
    special = ("127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "192.168.1.1", "169.254.169.254")
    fours = (lab.vpn_v4, lab.client_v4, "198.51.100.1", *lab.public_dns[:2], "10.1.0.1", *special)
    sixes = ("::1", "::", "fe80::1", "ff02::1", lab.client_v6, "2001:db8:c::1", "fd00:10:1::1", "::ffff:198.51.100.130")
    told = {(f"evil{n}.tunneled.example", "A"): _saying(each) for n, each in enumerate(fours)}
    told |= {(f"evil{n}.tunneled.example", "AAAA"): _saying(each) for n, each in enumerate(sixes)}
    told |= {("evil99.tunneled.example", "A"): _saying("plain.example " + PLAIN[0], LATER[0])}
    with _behind(scene, told), scene.load():
        for name, kind in told:
            ask(lab.client, wire.query(7, name, kind), patience=2)
        scene.wait(0.5)


def _saying(*addresses: str) -> Callable[[], Sequence[tuple[str, int]]]:
    return lambda: [(address, 300) for address in addresses]


@contextmanager
def _behind(scene: Scene, told: dict[tuple[str, str], Callable[[], Sequence[tuple[str, int]]]]) -> Iterator[None]:
    """The tunneled DNS is one that knows more than the lab's: by name and kind, (address, TTL) each time anew; an
    address may stand behind the name of another owner."""

    def answer(question: bytes, stream: bool) -> list[bytes]:
        name, kind, _ = wire.question(question)
        name = name.lower()
        if say := told.get((name, kind)):
            records = []
            for text, ttl in say():
                owner, _, address = text.rpartition(" ")
                records.append(zone.Record(owner or name, kind, ttl, address))
            found: zone.Answer | None = zone.Answer(zone.NOERROR, tuple(records))
        else:
            found = zone.resolve(name, kind, honest=True)
        return [wire.reply(question, found, 65535 if stream else 512)] if found else []

    with scripted_behind_the_tunnel(scene.lab.vpn, answer):
        scene.subject.configure(DOMAINS, dns=SCRIPTED_VPN)
        yield


def _said(scene: Scene, name: str, kind: str) -> tuple[str, ...]:
    """What the client is told; else the lookup is lost."""
    query = wire.query(7, name, kind)
    reply = ask(scene.lab.client, query, patience=2)
    addresses = tuple(wire.read_reply(reply, query).addresses) if reply else ()
    scene.lost += not addresses
    return addresses


def _poke(scene: Scene, addresses: Sequence[str]) -> None:
    with inside(scene.lab.client):
        for address in addresses:
            with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
                sock.sendto(b"?", (address, 9))


def shared_with_a_plain_name(scene: Scene) -> None:
    """a plain name has the address of a tunneled one, and is asked for, too"""
    scene.subject.configure([*DOMAINS, "shared-a.example"])
    with scene.load():
        _ask_both(scene)
        scene.expect("it is tunneled", lambda: scene.lab.caller(SHARED[0]) == scene.lab.vpn_v4)
        scene.wait(0.5)


def shared_by_two(scene: Scene) -> None:
    """two tunneled names share their addresses; one is removed, comes back, and the other is removed"""
    both = ("shared-a.example", "shared-b.example")
    scene.subject.configure([*DOMAINS, *both])
    with scene.load():
        _ask_both(scene)
        for names in ((both[1],), both, (both[0],)):
            scene.subject.configure([*DOMAINS, *names])
            scene.expect("it is tunneled", lambda: scene.lab.caller(SHARED[0]) == scene.lab.vpn_v4)
            for name in names:
                for kind in ("A", "AAAA"):
                    scene.asked(*_DIG, name, kind)
        scene.wait(0.3)


def shared_and_removed(scene: Scene) -> None:
    """of a tunneled and a plain name with the same addresses the tunneled one is removed"""
    scene.subject.configure([*DOMAINS, "shared-a.example"])
    with scene.load():
        for name in ("shared-a.example", "shared-b.example"):
            scene.asked(*_DIG, name)
        scene.subject.configure(DOMAINS)
        scene.expect("it is plain", lambda: scene.lab.caller(SHARED[0]) == scene.lab.client_v4)


def _ask_both(scene: Scene) -> None:
    for name in ("shared-a.example", "shared-b.example"):
        for kind in ("A", "AAAA"):
            scene.asked(*_DIG, name, kind)
    scene.hide(*SHARED)
    scene.stream(*SHARED)


def many_names(scene: Scene) -> None:
    """a list of 100,000 names is loaded, and another one after it"""
    with scene.load():
        for first in (0, 50_000):
            names = [f"n{number}.listed.example" for number in range(first, first + 100_000)]
            scene.lab.client.write("/etc/splitwg/many.txt", "\n".join([*names, "later.example", ""]))
            scene.subject.configure(DOMAINS, more='lists = ["many.txt"]\n')
            scene.asked(*_DIG, "later.example")
        scene.hide(*LATER, name="later.example")
        scene.asked(*_DIG, "later.example", "AAAA")
        scene.expect("it is tunneled", lambda: scene.lab.caller(LATER[0]) == scene.lab.vpn_v4)


def over_tls(scene: Scene) -> None:
    """port 853 of foreign servers is tried, v4 and v6, UDP and TCP"""
    with scene.load():
        scene.hide(*SERVERS)
        scene.wait(0.15)
        for server in SERVERS:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with inside(scene.lab.client):
                    sock = socket.socket(family_of(server), kind)
                with sock:
                    sock.settimeout(0.3)
                    try:
                        sock.connect((server, 853))
                        sock.send(b"\x16\x03\x01")
                    except OSError:
                        continue  # refused


TRICKS: tuple[Callable[[Scene], None], ...] = (
    from_the_cache,
    ttl_one_second,
    ttl_seven_days,
    older_than_its_element,
    rotating,
    hostile_answers,
    shared_with_a_plain_name,
    shared_by_two,
    shared_and_removed,
    many_names,
    over_tls,
)
NO_TRICK_FOR_THE_ARTICLE: dict[Callable[[Scene], None], str] = {many_names: "it has no lists"}
