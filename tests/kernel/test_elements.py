"""The hand on elements: a transaction is acknowledged or has changed nothing, and a renewal is felt by no packet."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_address

import pytest

from splitwgd.elements import Elements
from splitwgd.errors import KernelError, MachineError
from splitwgd.gate import Gate
from splitwgd.learned import COMMENT_LIMIT, Ledger, Place
from splitwgd.names import parse_name
from splitwgd.nft import Nft
from splitwgd.objects import Element
from splitwgd.owner import Owner
from splitwgd.transaction import read_table
from splitwgd.turn import Turn
from tests.kernel.spaces import sh
from tests.worlds import ip

SMALL, SIX, LARGE = "small", "six", "large"
TABLE = """
table inet wg_routing {
  set small { type ipv4_addr; flags timeout; size 3; }
  set six { type ipv6_addr; flags timeout; size 4000; }
  set large { type ipv4_addr; flags timeout; size 65536; }
}
"""


@pytest.fixture
def hand(nft: Nft) -> Iterator[Elements]:
    """The hand, and our table with three sets."""
    nft.run(TABLE)
    with closing(Owner("wg_routing")) as owner:
        yield Elements(owner)


def element(address: str, name: str = "a.example", seconds: float = 600, set_: str = SMALL) -> Element:
    return Element(set_, ip(address).packed, name, seconds)


def place(address: str, set_: str = SMALL) -> Place:
    return (set_, ip(address).packed)


def found() -> dict[str, Element]:
    """What the kernel has, as nft reads it."""
    return {str(ip_address(each.address)): each for each in read_table(Nft().list_table("wg_routing"))[1]}


def many(count: int, name: str = "a.example", set_: str = LARGE, width: int = 4) -> list[Element]:
    return [Element(set_, number.to_bytes(width, "big"), name, 600) for number in range(1, count + 1)]


THREE = [element(f"203.0.113.{number}") for number in (1, 2, 3)]


# -- new


@pytest.mark.parametrize("set_", [SMALL, SIX])
def test_an_address_is_read_back_with_its_name_and_life(hand: Elements, set_: str) -> None:
    address = "2001:db8::1" if set_ == SIX else "203.0.113.1"
    hand.write([element(address, "a.example b.example", 600.5, set_)])
    (there,) = found().values()
    assert (there.set, there.address, there.name) == (set_, ip(address).packed, "a.example b.example")
    assert 590 <= there.seconds <= 601


def test_what_should_be_new_must_be_absent(hand: Elements) -> None:
    hand.write([element("203.0.113.1", "old.example", 60)])
    with pytest.raises(KernelError, match="nf_tables: File exists"):
        hand.write([element("203.0.113.2"), element("203.0.113.1", "new.example")])
    assert {address: each.name for address, each in found().items()} == {"203.0.113.1": "old.example"}


def test_what_has_ended_is_absent(hand: Elements) -> None:
    hand.write([element("203.0.113.1", "old.example", 0.05)])
    sh("sleep 0.2")
    hand.write([element("203.0.113.1", "new.example")])
    assert found()["203.0.113.1"].name == "new.example"


# -- renewed


@pytest.mark.parametrize("before", [60, 600])
def test_a_renewal_replaces_life_and_name(hand: Elements, before: int) -> None:
    old = f'203.0.113.1 timeout {before}s expires 10s comment "old.example"'
    sh(f"nft add element inet wg_routing small '{{ {old} }}'")
    hand.write((), [element("203.0.113.1", "new.example", 600)])
    assert found()["203.0.113.1"].name == "new.example"
    assert found()["203.0.113.1"].seconds > 590


def test_what_was_without_end_or_name_gets_both(hand: Elements) -> None:
    sh("nft add element inet wg_routing small '{ 203.0.113.1 }'")
    hand.put([element("203.0.113.1")])
    assert found()["203.0.113.1"].name == "a.example" and found()["203.0.113.1"].seconds <= 600


def test_what_is_renewed_may_be_absent(hand: Elements) -> None:
    hand.write((), [element("203.0.113.1")])
    assert set(found()) == {"203.0.113.1"}


MISSES = """
table inet counting {
  chain output { type filter hook output priority 0;
    udp dport 4444 ip daddr 127.9.9.9 meta mark != 7 counter comment "all"
  }
}
add chain inet wg_routing output { type filter hook output priority 0; }
add rule inet wg_routing output udp dport 4444 ip daddr 127.9.9.9 ip daddr != @large counter comment "missed"
"""


def counted(chain: str) -> int:
    (count,) = re.findall(r"counter packets (\d+)", sh(f"nft list chain {chain}"))
    return int(count)


def test_while_it_is_renewed_no_packet_misses_an_address(hand: Elements, nft: Nft) -> None:
    one = Element(LARGE, ip("127.9.9.9").packed, "a.example", 600)
    hand.write([one])
    nft.run(MISSES)
    over = threading.Event()

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not over.is_set():
                for _ in range(100):
                    sock.sendto(b"x", ("127.9.9.9", 4444))

    sender = threading.Thread(target=flood)
    sender.start()
    for number in range(1000):
        hand.write((), [one._replace(name=f"n{number}.example")])
    over.set()
    sender.join()
    assert counted("inet counting output") >= 100
    assert counted("inet wg_routing output") == 0
    assert found()["127.9.9.9"].name == "n999.example"


# -- gone


def test_what_is_taken_out_goes_and_nothing_else(hand: Elements) -> None:
    hand.write(THREE)
    hand.write((), (), [place("203.0.113.1"), place("203.0.113.3")])
    assert set(found()) == {"203.0.113.2"}


def test_who_takes_out_what_is_absent_takes_out_nothing(hand: Elements) -> None:
    hand.write(THREE[:1])
    with pytest.raises(KernelError, match="nf_tables: No such file or directory"):
        hand.write(THREE[1:2], (), [place("203.0.113.1"), place("203.0.113.3")])
    assert set(found()) == {"203.0.113.1"}


def test_a_place_that_is_made_can_be_taken_in_the_same_transaction(hand: Elements) -> None:
    hand.write(THREE)
    hand.write([element("203.0.113.4")], (), [place("203.0.113.1")])
    assert set(found()) == {"203.0.113.2", "203.0.113.3", "203.0.113.4"}


# -- full


def test_a_full_set_refuses_another_address_and_stays_as_it_was(hand: Elements) -> None:
    hand.write(THREE)
    before = found()
    with pytest.raises(KernelError, match="nf_tables: a set is full"):
        hand.write([element("203.0.113.4")])
    with pytest.raises(KernelError, match="nf_tables: a set is full"):
        hand.put([element("203.0.113.4")])
    with pytest.raises(KernelError, match="a set is full"):
        hand.write([element("203.0.113.4")], [element("203.0.113.1", "new.example")])
    assert {address: each.name for address, each in found().items()} == {a: e.name for a, e in before.items()}


def test_what_is_in_a_full_set_can_be_renewed(hand: Elements) -> None:
    hand.write(THREE)
    hand.write((), [element(f"203.0.113.{number}", "new.example", 900) for number in (1, 2, 3)])
    assert {(each.name, each.seconds > 890) for each in found().values()} == {("new.example", True)}


# -- many


@pytest.mark.parametrize(("set_", "width"), [(LARGE, 4), (SIX, 16)])
def test_a_thousand_addresses_with_the_longest_names_are_one_transaction(hand: Elements, set_: str, width: int) -> None:
    comment = "x" * (COMMENT_LIMIT - 2) + " +"
    elements = many(1000, comment, set_, width)
    hand.write(elements)
    assert len(found()) == 1000
    hand.write((), elements)
    assert {each.name for each in found().values()} == {comment}
    hand.write((), (), [(set_, each.address) for each in elements])
    assert found() == {}


def test_when_a_thousand_were_refused_the_next_transaction_has_its_own_answer(hand: Elements) -> None:
    """What is left of the former answer in the socket would be taken for it."""
    elements = many(1000, "x" * COMMENT_LIMIT)
    hand.write(elements)
    with pytest.raises(KernelError, match="File exists"):
        hand.write(elements)
    hand.write((), elements)


def test_any_number_can_be_put_present_or_absent(hand: Elements) -> None:
    hand.write(many(700, "old.example"))
    hand.put(many(5000))
    assert len(found()) == 5000
    assert {each.name for each in found().values()} == {"a.example"}


def test_nothing_to_write_is_no_transaction(hand: Elements) -> None:
    with closing(Owner("nowhere")) as owner:
        other = Elements(owner)
        other.write([])
        other.put([])
        other.write((), (), [])


# -- names


@pytest.mark.parametrize("name", ["a.example b.example +", "\\034\\010 +", "x" * 100, "", "_dmarc.xn--a"])
def test_every_name_that_the_ledger_writes_fits_a_comment(hand: Elements, name: str) -> None:
    hand.write([element("203.0.113.1", name)])
    assert found()["203.0.113.1"].name == name
    assert not name or f'comment "{name}"' in sh("nft list set inet wg_routing small")


def test_a_comment_as_long_as_the_ledger_makes_it_is_kept_whole(hand: Elements) -> None:
    name = "x" * (COMMENT_LIMIT - 2) + " +"
    hand.put([element("203.0.113.1", name)])
    assert found()["203.0.113.1"].name == name


# -- refusals


WRONG: dict[str, Callable[[Elements], None]] = {
    "no such set": lambda hand: hand.write([element("203.0.113.1", set_="nowhere")]),
    "no such set to take out of": lambda hand: hand.write((), (), [place("203.0.113.1", "nowhere")]),
    "an IPv6 address for IPv4": lambda hand: hand.write([element("2001:db8::1")]),
    "an IPv4 address for IPv6": lambda hand: hand.write([element("203.0.113.1", set_=SIX)]),
    "one good and one bad": lambda hand: hand.write([element("203.0.113.1"), element("203.0.113.2", set_="nowhere")]),
    "several bad ones": lambda hand: hand.write(
        [element("203.0.113.1", set_=f"no{number}") for number in range(50)], [element("203.0.113.2", set_="nor")]
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_refused_changes_nothing_and_the_next_one_is_acknowledged(hand: Elements, wrong: str) -> None:
    for _ in range(3):
        with pytest.raises(KernelError, match="nf_tables: "):
            WRONG[wrong](hand)
        assert found() == {}
    hand.write(THREE[:1])
    with pytest.raises(KernelError, match="nf_tables: File exists"):
        hand.write(THREE[:1])
    hand.write(THREE[1:2])
    assert set(found()) == {"203.0.113.1", "203.0.113.2"}


def test_a_table_that_is_gone_refuses_and_one_that_is_back_takes_it(hand: Elements, nft: Nft) -> None:
    sh("nft delete table inet wg_routing")
    with pytest.raises(KernelError, match="No such file or directory"):
        hand.put(many(3000))
    nft.run(TABLE)
    hand.put(many(3000))
    assert len(found()) == 3000


def test_a_table_of_the_same_name_in_another_family_is_not_ours(hand: Elements) -> None:
    sh("nft delete table inet wg_routing")
    sh("nft 'table ip wg_routing { set small { type ipv4_addr; flags timeout; }; }'")
    with pytest.raises(KernelError):
        hand.write([element("203.0.113.1")])
    assert "203.0.113.1" not in sh("nft list ruleset")


def test_two_hands_write_into_the_same_set(hand: Elements) -> None:
    with closing(Owner("wg_routing")) as owner:
        other = Elements(owner)
        hand.write(THREE[:1])
        other.write(THREE[1:2])
        with pytest.raises(KernelError, match="File exists"):
            hand.write(THREE[1:2])


def test_without_the_right_to_it_the_error_says_run_as_root(hand: Elements) -> None:
    """In a child, which gives its capabilities away for good."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(None).prctl(47, 4, 0, 0, 0)  # PR_CAP_AMBIENT, CLEAR_ALL
            os.setresuid(65534, 65534, 65534)
            try:
                Elements(Owner("wg_routing")).write(THREE)
                os.write(writing, b"no error")
            except MachineError as error:
                os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        assert "run as root or with CAP_NET_ADMIN" in said.read()
    assert found() == {}


# -- the gate in front of real sets


A, B = parse_name("a.example"), parse_name("b.example")


def passed(gate: Gate, *answers: tuple[bytes, list[str], float]) -> list[bool]:
    """What becomes of these answers (name, addresses, TTL) of one turn."""
    done: list[bool] = []
    for name, addresses, ttl in answers:
        grant = gate.ledger.grant(name, [place(address) for address in addresses], ttl, gate.loop.time())
        gate.hold(grant, done.append)
    gate.loop.run_until_complete(asyncio.sleep(0))
    gate.loop.run_until_complete(asyncio.sleep(0))
    return done


@pytest.fixture
def gate(hand: Elements) -> Iterator[Gate]:
    with closing(asyncio.new_event_loop()) as loop:
        yield Gate(Turn(loop), Ledger(3600, 60), hand, set_size=3)


def test_a_full_set_makes_room_and_what_the_ledger_says_is_what_is_there(gate: Gate) -> None:
    assert passed(gate, (A, ["203.0.113.1", "203.0.113.2"], 0), (B, ["203.0.113.2", "203.0.113.3"], 600)) == [True] * 2
    assert {address: each.name for address, each in found().items()} == {
        "203.0.113.1": "a.example",
        "203.0.113.2": "a.example b.example",
        "203.0.113.3": "b.example",
    }
    assert passed(gate, (A, ["203.0.113.4"], 600)) == [True]
    assert passed(gate, (A, ["203.0.113.5"], 600)) == [False], "all three are promised"
    there = found()
    assert set(there) == {"203.0.113.2", "203.0.113.3", "203.0.113.4"}
    assert {(each.set, each.address) for each in there.values()} == gate.ledger.places()


def test_what_somebody_else_did_to_a_set_withholds_no_answer(gate: Gate) -> None:
    sh("nft add element inet wg_routing small '{ 203.0.113.1 timeout 5s }'")
    assert passed(gate, (A, ["203.0.113.1"], 600), (B, ["203.0.113.2"], 0)) == [True, True]
    assert found()["203.0.113.1"].seconds > 3500
    sh("nft flush set inet wg_routing small")
    assert passed(gate, (A, ["203.0.113.3", "203.0.113.4"], 600)) == [True], "who is gone makes room too"


def test_what_is_released_leaves_its_set(gate: Gate) -> None:
    passed(gate, (A, ["203.0.113.1", "203.0.113.2"], 600), (B, ["203.0.113.2"], 600))
    sh("nft delete element inet wg_routing small '{ 203.0.113.1 }'")
    assert gate.release(lambda name, set_: False) == [place("203.0.113.1"), place("203.0.113.2")]
    assert found() == {}


def test_a_thousand_names_on_shared_addresses_leave_and_only_what_nobody_else_holds_goes_with_them(gate: Gate) -> None:
    gate.set_size = 65_536
    held = random.Random(16)
    names = [parse_name(f"n{number}.example") for number in range(2000)]
    book: dict[str, set[bytes]] = {}
    grants = []
    for name in names:
        addresses = [f"203.0.{held.randrange(8)}.{held.randrange(256)}" for _ in range(3)]
        for address in addresses:
            book.setdefault(address, set()).add(name)
        places = [place(address, LARGE) for address in dict.fromkeys(addresses)]
        grants.append(gate.ledger.grant(name, places, 60, gate.loop.time()))
    gate.admit(grants)
    left = set(held.sample(names, 1000))
    gate.release(lambda name, set_: name in left)
    assert set(found()) == {address for address, holders in book.items() if holders & left} < set(book)
