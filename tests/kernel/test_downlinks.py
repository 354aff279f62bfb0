"""Whom we forward for, in real packets: their questions are led to doors of ours, and nobody else finds these."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from splitwgd.config import Config
from splitwgd.events import Events, Heard
from splitwgd.listener import Client, Listener
from splitwgd.netlink import Netlink
from splitwgd.nft import Nft
from splitwgd.objects import Downlink
from splitwgd.ruleset import make_table
from splitwgd.transaction import table_text
from splitwgd.turn import Turn
from tests.kernel.spaces import Space, Wire, sh
from tests.kernel.test_ruleset_in_kernel import (
    HOUSE,
    KINDS,
    MEMBERS,
    STRANGERS,
    House,
    all_is_sent,
    container,
    frame,
    from_container,
    met,
)
from tests.worlds import ip, make_config, wait_until

__all__ = ["container"]


@pytest.fixture
def house(wire: Callable[[str, str], Wire]) -> House:
    return House(wire, HOUSE)


@contextlib.contextmanager
def answered(downlinks: frozenset[Downlink], config: Config = HOUSE) -> Iterator[list[bytes]]:
    """The real doors and the rules that lead to them; what comes to them is kept, and answered with "re " before it."""
    taken: list[bytes] = []
    loop = asyncio.new_event_loop()
    listener = Listener(Turn(loop), {})

    def take(data: bytes, client: Client) -> None:
        taken.append(data)
        client.send(b"re " + data)

    async def begin() -> None:
        assert await listener.admit(downlinks) == {}
        await listener.start(take)

    async def end() -> None:
        listener.close()
        await asyncio.sleep(0)

    loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    Nft().run(table_text(make_table(config, downlinks=downlinks), None))
    try:
        yield taken
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(end())
        loop.close()


def downlinks(netlink: Netlink) -> frozenset[Downlink]:
    return netlink.surroundings().downlinks


def told(netlink: Netlink) -> set[str]:
    return {f"{each.name} {each.address}" for each in downlinks(netlink) if not each.address.is_link_local}


# -- who they are


def test_a_bridge_is_one_as_long_as_it_is_forwarded_and_the_uplink_never_is(
    house: House, container: Space, netlink: Netlink
) -> None:
    assert told(netlink) == {"docker0 172.17.0.1", "docker0 fd00:17::1"}
    sh("sysctl -qw net.ipv4.conf.docker0.forwarding=0")
    assert told(netlink) == {"docker0 fd00:17::1"}
    sh("sysctl -qw net.ipv4.conf.docker0.forwarding=1 net.ipv6.conf.all.forwarding=0")
    assert told(netlink) == {"docker0 172.17.0.1"}
    sh("ip addr flush dev docker0")
    assert told(netlink) == set()


@pytest.mark.parametrize(
    "route",
    [
        "ip route add default via 172.17.0.9 metric 900",
        "ip route add default via 172.17.0.9 table 77",
        "ip route add 128.0.0.0/1 via 172.17.0.9",
        "ip route add default table 77 nexthop via 172.17.0.9 nexthop via 198.51.100.1",
        "ip -6 route add default via fd00:17::9 metric 900",
        "ip link set docker0 down",
    ],
)
def test_a_link_that_leads_out_is_none(house: House, container: Space, netlink: Netlink, route: str) -> None:
    sh(route)
    assert told(netlink) == set()


def test_an_address_that_is_still_doubted_is_not_taken(house: House, container: Space, netlink: Netlink) -> None:
    sh("sysctl -qw net.ipv6.conf.all.accept_dad=1 net.ipv6.conf.docker0.accept_dad=1")
    sh("sysctl -qw net.ipv6.conf.docker0.dad_transmits=30; ip addr del fd00:17::1/64 dev docker0")
    sh("ip addr add fd00:18::1/64 dev docker0")
    assert told(netlink) == {"docker0 172.17.0.1"}


@pytest.mark.parametrize("name", ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"])
def test_that_forwarding_begins_is_heard(space: Space, name: str) -> None:
    sh(f"sysctl -qw {name}=0")
    events = Events("wg_routing")
    try:
        sh(f"sysctl -qw {name}=1")
        assert select.select([events.route], [], [], 10)[0]
        assert events.drain(events.route) is Heard.SOMETHING
    finally:
        events.close()


# -- their questions


def ask(container: Space, to: str, kind: socket.SocketKind, question: bytes = b"question", port: int = 53) -> bytes:
    """What the server at `to` answers; on TCP, without the length before it."""
    with container.inside():
        sock = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, kind)
    with sock:
        sock.settimeout(10)
        sock.connect((to, port))  # so that answers of others are not taken
        if kind == socket.SOCK_DGRAM:
            sock.send(question)
            return sock.recv(100)
        sock.sendall(len(question).to_bytes(2, "big") + question)
        with sock.makefile("rb") as stream:
            return stream.read(int.from_bytes(stream.read(2), "big"))


@KINDS
@pytest.mark.parametrize("to", [*STRANGERS, *MEMBERS])
def test_a_containers_question_is_answered_in_the_name_of_whom_it_asks(
    house: House, container: Space, netlink: Netlink, kind: socket.SocketKind, to: str
) -> None:
    with answered(downlinks(netlink)) as taken:
        for number in range(3):
            assert ask(container, to, kind, b"question %d" % number) == b"re question %d" % number
    assert taken == [b"question 0", b"question 1", b"question 2"]
    all_is_sent(house, house.uplink)
    all_is_sent(house, house.tunnel)
    assert not house.uplink.carried(b"question") and not house.tunnel.carried(b"question")
    assert met() == {"redirected": 3}


@KINDS
def test_a_bridge_with_a_link_local_address_alone_serves_too(
    house: House, container: Space, netlink: Netlink, kind: socket.SocketKind
) -> None:
    sh("ip addr del fd00:17::1/64 dev docker0; ip -6 route add fd00:17::/64 dev docker0")
    (near,) = [str(each.address) for each in downlinks(netlink) if each.address.version == 6]
    with container.inside():
        sh(f"ip -6 route replace default via {near} dev eth0")
    with answered(downlinks(netlink)):
        assert ask(container, STRANGERS[1], kind) == b"re question"


@KINDS
def test_a_container_in_the_second_network_of_a_bridge_is_served_too(
    house: House, container: Space, netlink: Netlink, kind: socket.SocketKind
) -> None:
    sh("ip addr add 172.30.0.1/24 dev docker0; ip addr add fd00:30::1/64 dev docker0")
    with container.inside():
        sh("ip addr flush dev eth0; ip addr add 172.30.0.2/24 dev eth0; ip addr add fd00:30::2/64 dev eth0")
        sh("ip route add default via 172.30.0.1; ip -6 route replace default via fd00:30::1")
    with answered(downlinks(netlink)):
        for to in STRANGERS:
            assert ask(container, to, kind) == b"re question"


def test_what_an_engine_leads_to_a_server_is_left_to_it(house: House, container: Space, netlink: Netlink) -> None:
    engine = "table inet engine { chain c { type nat hook prerouting priority -100; udp dport 53 dnat ip to %s; }; }"
    with answered(downlinks(netlink)) as taken:
        sh(f"nft '{engine % '203.0.113.9'}'")
        from_container(container, STRANGERS[0], 53, b"led on purpose")
        assert ip("203.0.113.9").packed in house.uplink.wait_for(b"led on purpose")
    assert taken == []


@pytest.mark.parametrize("to", STRANGERS)
def test_a_bypassed_server_is_asked_by_containers_too(
    house: House, container: Space, netlink: Netlink, to: str
) -> None:
    config = make_config(dns=f'bypass = ["{STRANGERS[0]}", "{STRANGERS[1]}"]')
    with answered(downlinks(netlink), config) as taken:
        from_container(container, to, 53, b"bypassed")
        house.uplink.wait_for(b"bypassed")
    assert taken == []


def test_a_question_that_would_go_back_by_its_own_link_is_refused_as_before(
    house: House, container: Space, netlink: Netlink
) -> None:
    with container.inside():
        sh("ip route add 172.17.0.99/32 via 172.17.0.1")
    with answered(downlinks(netlink)) as taken:
        from_container(container, "172.17.0.99", 53, b"question")
        wait_until(lambda: met() == {"refused_plain": 1})
    assert taken == []


@KINDS
def test_a_server_of_somebody_else_on_this_machine_is_reached(
    house: House, container: Space, netlink: Netlink, kind: socket.SocketKind
) -> None:
    """As libvirt's dnsmasq on the bridge's own port 53."""
    with socket.socket(socket.AF_INET, kind) as server, answered(downlinks(netlink)) as taken:
        server.settimeout(10)
        server.bind(("172.17.0.1", 53))
        if kind == socket.SOCK_DGRAM:
            from_container(container, "172.17.0.1", 53, b"for dnsmasq")
            assert server.recv(100) == b"for dnsmasq"
        else:
            server.listen()
            with container.inside():
                sock = socket.socket(socket.AF_INET, kind)
            with sock:
                sock.connect(("172.17.0.1", 53))
                server.accept()[0].close()
        assert taken == []


# -- and nobody else's


@pytest.mark.parametrize("rules", [True, False])
@pytest.mark.parametrize(("to", "port"), [("172.17.0.1", 253), ("198.51.100.2", 253), (STRANGERS[0], 53)])
def test_nobody_on_the_uplink_reaches_a_door(
    house: House, container: Space, netlink: Netlink, to: str, port: int, rules: bool
) -> None:
    """The control comes to the same socket, after all of them."""
    with answered(downlinks(netlink)) as taken:
        if not rules:
            sh("nft flush ruleset")
        for number in range(50):
            house.uplink.send(frame(f"198.51.100.{100 + number}", to, b"let me in", house, port))
        assert ask(container, "172.17.0.1", socket.SOCK_DGRAM, b"from inside", 253) == b"re from inside"
    assert taken == [b"from inside"]


# -- our own errors to them


@pytest.mark.parametrize("place", [0, 1])
def test_a_container_hears_that_its_packet_is_too_big_for_the_tunnel(
    house: House, container: Space, netlink: Netlink, place: int
) -> None:
    sh("ip link set wg0 mtu 1420")
    with answered(downlinks(netlink)):
        assert too_big(container, MEMBERS[place]) == 1420
    all_is_sent(house, house.uplink)
    assert not [packet for packet in house.uplink.drain() if ip(MEMBERS[place]).packed in packet]


def too_big(container: Space, to: str) -> int:
    """The MTU of the way to an address, after packets of 1,500 bytes that may not be cut; what was learned of it."""
    six = ":" in to
    level, discover, mtu = (socket.IPPROTO_IPV6, 23, 24) if six else (socket.IPPROTO_IP, 10, 14)
    with container.inside():
        sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.setsockopt(level, discover, 2)  # IP_PMTUDISC_DO
        sock.connect((to, 4444))
        sock.settimeout(5)
        with contextlib.suppress(TimeoutError):
            try:
                sock.send(bytes(1500 - (48 if six else 28)))
                sock.recv(1)
            except OSError as error:
                assert error.errno == errno.EMSGSIZE
        return sock.getsockopt(level, mtu)
