"""What the kernel tells of its own: that something changed which may concern us."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing

import pytest

from splitwgd.elements import Elements
from splitwgd.events import Events, Heard
from splitwgd.nft import Nft
from splitwgd.objects import Element
from splitwgd.owner import Owner
from tests.kernel.spaces import Wire, sh

STIRS = [
    "ip link set wg0 mtu 1300",
    "ip addr add 192.168.7.1/24 dev wg0",
    "ip -6 addr add 2001:db8:7::1/64 dev wg0",
    "ip rule del priority 32767",
    "ip -6 rule del priority 32766",
    "ip route add blackhole default table 100",
    "ip -6 route add blackhole default table 100",
    "nft delete table inet t",
    "nft flush chain inet t c",
    "nft add chain inet t d",
    "nft add rule inet t c accept",
    "nft add set inet t x '{ type ipv4_addr; }'",
    "nft delete table arp t",
    "nft flush chain arp t c",
]


ELEMENTS = [
    "nft delete table inet t",
    "nft delete set inet t s",
    "nft delete element inet t s '{ 203.0.113.7 }'",
    "nft flush set inet t s",
    "nft add set inet t x '{ type ipv4_addr; }'",
    "nft flush ruleset",
]
ADDRESS = b"\xcb\0\x71\1"


@pytest.fixture
def table() -> None:
    """A table with an element in its set, and a chain with a rule; and one of the arp family with a rule."""
    set_ = "set s { type ipv4_addr; flags timeout; elements = { 203.0.113.7 }; }"
    sh(f"nft 'table inet t {{ {set_}; chain c {{ drop; }}; }}; table arp t {{ chain c {{ drop; }}; }}'")


def quiet(events: Events) -> Events:
    for sock in events.sockets:
        events.drain(sock)
    return events


def heard(events: Events) -> Heard:
    return events.drain(events.route) | events.drain(events.nft)


@pytest.mark.parametrize("stir", [*ELEMENTS, *STIRS])
def test_events_tell_of_what_may_concern_us_and_whether_elements_are_in_it(
    wire: Callable[[str, str], Wire], table: None, stir: str
) -> None:
    wire("wg0", "tun")
    with closing(quiet(Events("t"))) as events:
        sh(stir)
        told = heard(events)
        assert told is (Heard.ELEMENTS if stir in ELEMENTS else Heard.SOMETHING)


@pytest.mark.parametrize(
    "stir", ["nft add table inet u", "nft add table ip t", "nft delete table ip6 t", "nft flush chain inet tt c"]
)
def test_what_others_do_in_their_own_tables_concerns_nobody(table: None, stir: str) -> None:
    """A host of containers changes its rules all day, and each look at ours costs."""
    sh("nft 'table ip6 t { }; table inet tt { chain c { accept; }; }'")
    with closing(quiet(Events("t"))) as events:
        sh(stir)
        assert events.drain(events.nft) is Heard.NOTHING


def test_one_event_with_elements_is_not_hidden_by_those_without(table: None) -> None:
    with closing(quiet(Events("t"))) as events:
        sh("nft add chain inet t d; nft delete element inet t s '{ 203.0.113.7 }'; nft add chain inet t e")
        assert events.drain(events.nft) is Heard.ELEMENTS
        assert heard(events) is Heard.NOTHING


def test_our_own_addresses_concern_nobody_and_what_somebody_takes_out_does(table: None) -> None:
    nft = Nft()
    with closing(quiet(Events("t"))) as events:
        nft.run("add element inet t s { 203.0.113.1 }\ndelete element inet t s { 203.0.113.1 }\nflush table inet t")
        sh("nft add element inet t s '{ 203.0.113.2 }'")
        assert heard(events) is Heard.NOTHING
        sh("nft delete element inet t s '{ 203.0.113.2 }'")
        assert heard(events) is Heard.ELEMENTS


# -- the filter in front of the socket


def arrived(sock: socket.socket) -> bytes:
    """All that the kernel has put into the socket, whether it concerns us or not."""
    data = b""
    while True:
        try:
            data += sock.recv(65_536)
        except BlockingIOError:
            return data


def test_the_changes_of_one_socket_do_not_even_arrive_and_those_of_others_do(table: None) -> None:
    one = Element("s", ADDRESS, "a.example", 600)
    with (
        closing(Owner("t")) as owner,
        closing(Owner("t")) as other,
        closing(Events("t", owner.port)) as events,
    ):
        unheard, another = Elements(owner), Elements(other)
        arrived(events.nft)
        unheard.write([one])
        unheard.write((), [one])
        unheard.write((), (), [("s", ADDRESS)])
        assert arrived(events.nft) == b""
        another.write([one])
        assert ADDRESS in arrived(events.nft)
        sh("nft add element inet t s '{ 203.0.113.2 }'")
        assert b"\xcb\0\x71\2" in arrived(events.nft)
        another.write((), (), [("s", ADDRESS)])
        assert heard(events) is Heard.NOTHING, "it is of this process"
        unheard.write([one])
        sh("nft delete element inet t s '{ 203.0.113.1 }'")
        assert heard(events) is Heard.ELEMENTS


def test_without_a_filter_all_arrives(table: None) -> None:
    with closing(Owner("t")) as owner, closing(Events("t")) as events:
        arrived(events.nft)
        Elements(owner).write([Element("s", ADDRESS, "a.example", 600)])
        assert ADDRESS in arrived(events.nft)


def test_the_changes_of_the_forwarder_take_no_room_from_those_of_others(table: None) -> None:
    many = [Element("s", number.to_bytes(4, "big"), "a.example", 600) for number in range(1000)]
    with closing(Owner("t")) as owner, closing(Events("t", owner.port)) as events:
        events.nft.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        quiet(events)
        Elements(owner).put(many)
        assert heard(events) is Heard.NOTHING, "nothing was lost, since nothing came"
        sh("nft add chain inet t d")
        assert heard(events) is Heard.SOMETHING


def test_lost_events_count_as_a_change_of_everything(table: None) -> None:
    """What somebody puts in concerns nobody; that there was more of it than could be heard does."""
    with closing(Events("t")) as events:
        events.nft.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        quiet(events)
        members = ", ".join(f"203.0.113.{number}" for number in range(256))
        sh(f"nft add element inet t s '{{ {members} }}'")
        assert events.drain(events.nft) is Heard.ELEMENTS
