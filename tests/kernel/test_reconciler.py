"""The keeper on a real kernel with real wireguard-go: what is lost comes back, and it never opens by accident."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from splitwgd.config import Config
from splitwgd.elements import Elements
from splitwgd.errors import KernelError
from splitwgd.kernel import Kernel
from splitwgd.learned import Ledger, Remembered
from splitwgd.names import parse_name
from splitwgd.nft import Nft
from splitwgd.objects import Device, Downlink, Element, Endpoint, Link, OuterMark, Route, Rule, Table
from splitwgd.owner import Owner
from splitwgd.plan import Plan
from splitwgd.reconciler import Reconciler
from splitwgd.transaction import read_table
from tests.kernel.spaces import Space, end_inhabitants, sh
from tests.kernel.test_netlink import FOREIGN, world
from tests.worlds import WG, eventually, ip, key, make_config, text_of

pytestmark = pytest.mark.skipif(
    not (shutil.which("wireguard-go") and os.path.exists("/dev/net/tun")), reason="needs wireguard-go and /dev/net/tun"
)
PEERING = ("wg0", key(2))
SETS = "nft list sets inet | sed 's/timeout [^ ]*//; s/expires [^ ]*//'"
Story = Callable[[Reconciler], Awaitable[None]]


def play(space: Space, story: Story, ledger: Ledger | None = None) -> None:
    """Runs a story with a reconciler of its own; afterwards its WireGuard processes are gone."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        reconciler = Reconciler(loop, ledger or Ledger(3600, 3600))
        try:
            await story(reconciler)
        finally:
            kernel = reconciler._worker.kernel
            await reconciler.close()
            end_inhabitants(space.name)
            await eventually(lambda: kernel is None or collected(kernel))

    asyncio.run(run())


def collected(kernel: Kernel) -> bool:
    kernel._uapi.reap()
    return not kernel._uapi._children


async def as_planned(reconciler: Reconciler) -> bool:
    try:
        return not (await reconciler.difference())[1]
    except KernelError:  # a process has just died under it
        return False


async def kept(reconciler: Reconciler, until: Callable[[], Awaitable[bool]], deed: Callable[[], object]) -> None:
    """The keeper runs, the deed is done, and `until` comes true."""
    reconciler.listen(0)
    keeper = asyncio.create_task(reconciler.keep())
    try:
        deed()
        async with asyncio.timeout(15):
            while not await until():
                await asyncio.sleep(0.01)
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


def insert(address: str, name: str = "example.com", seconds: float = 600, owner: Owner | None = None) -> Element:
    """An element in the kernel, as the forwarder puts it there. owner: whoever has the table, if anybody has."""
    family = 6 if ":" in address else 4
    element = Element(f"wg_domains{family}", ip(address).packed, name, seconds)
    with contextlib.ExitStack() as stack:
        Elements(owner or stack.enter_context(closing(Owner("wg_routing")))).put([element])
    return element


def elements() -> dict[str, Element]:
    return {text(each): each for each in read_table(Nft().list_table("wg_routing"))[1]}


def text(element: Element) -> str:
    """Its address, as people write it."""
    return str(ip_address(element.address))


CONFIGS = [
    make_config(),
    make_config(networks='"198.51.100.0/24", "2001:db8:1::/48"', dns='bypass = ["192.0.2.1"]'),
    make_config(routing="fwmark = 0x10000\nfwmask = 0xff0000\ntable = 7\npriority = 9", dns="redirect = false"),
    make_config(wg=WG.replace(", fd00:10:1::2/64", "").replace(", ::/0", "") + "PersistentKeepalive = 25"),
    make_config(wg=WG.replace("[Peer]", "ListenPort = 51999\nMTU = 1300\n[Peer]", 1)),
    make_config(wg=WG + f"[Peer]\nPublicKey = {text_of(key(5))}\nAllowedIPs = 10.1.0.0/24, 10.7.0.0/16\n"),
    make_config(wg=WG.replace("198.51.100.130:51820", "vpn.example.net:51820")),
]


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_after_start_the_kernel_is_as_planned(space: Space, config: Config) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(config)
        assert reconciler.trouble == ""
        observed, lacking = await reconciler.difference()
        assert not lacking
        assert observed.plan == reconciler.plan
        await reconciler.start(config)
        assert (await reconciler.difference())[0].plan == observed.plan

    play(space, story)


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_after_teardown_the_world_is_as_before_to_the_byte(space: Space, config: Config) -> None:
    sh(FOREIGN)
    sh("nft 'table inet filter { chain output { type filter hook output priority 0; accept; }; }'")
    before = world()

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(config)
        assert world() != before
        insert("203.0.113.1", owner=reconciler.owner)
        await reconciler.teardown()
        assert (await reconciler._run(lambda kernel: kernel.observe(config))).plan == Plan.empty()
        assert world() == before
        await reconciler.teardown()
        assert world() == before

    play(space, story)


def test_every_step_of_a_start_is_closed_before_it_is_open(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which the kernel was told."""
    seen: list[str] = []
    put = Kernel._put

    def watched(self: Kernel, change: object, elements: list[Element]) -> None:
        put(self, change, elements)  # type: ignore[arg-type]
        routes = sh("ip route show table 100; ip -6 route show table 100", check=False)
        state = "open" if "dev wg0" in routes else "closed" if routes.count("blackhole") == 2 else "nothing"
        marks = "marks" if "wg_routing" in sh("nft list tables") else ""
        rules = "led" if "lookup 100" in sh("ip rule") or "lookup 100" in sh("ip -6 rule") else ""
        seen.append(" ".join(word for word in (state, rules, marks) if word))

    monkeypatch.setattr(Kernel, "_put", watched)

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())

    play(space, story)
    stages = list(dict.fromkeys(seen))
    assert stages == ["nothing", "closed", "closed led", "closed led marks", "open led marks"]


def test_what_is_remembered_is_in_the_sets_from_their_first_moment_on(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    put = Kernel._put

    def watched(self: Kernel, change: object, there: list[Element]) -> None:
        put(self, change, there)  # type: ignore[arg-type]
        if "wg_routing" in sh("nft list tables"):
            seen.append(set(elements()))

    monkeypatch.setattr(Kernel, "_put", watched)

    async def story(reconciler: Reconciler) -> None:
        def all_lost() -> None:
            now = asyncio.get_running_loop().time()
            known = Remembered("wg_domains4", ip("203.0.113.1").packed, now + 600, (parse_name("example.com"),), False)
            reconciler.ledger.recall([known], now)

        await reconciler.start(make_config(), all_lost)
        await reconciler.teardown()
        await reconciler.start(make_config())  # nobody asks twice
        for _ in range(2):
            await reconciler.start(make_config(), lambda: pytest.fail("the table is there"))

    play(space, story)
    assert seen and all(addresses == {"203.0.113.1"} for addresses in seen)


def test_a_start_on_top_of_a_former_process_keeps_its_addresses_and_its_tunnel(space: Space) -> None:
    async def first(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        insert("203.0.113.1", "a.example.com", 500, reconciler.owner)
        insert("2001:db8::1", "b.example.com +", 400, reconciler.owner)
        reconciler.owner.close()
        pid = sh("pidof wireguard-go")
        ledger = Ledger(3600, 3600)
        follower = Reconciler(asyncio.get_running_loop(), ledger)
        try:
            await follower.start(make_config(networks='"198.51.100.0/24"'))
            now = asyncio.get_running_loop().time()
            found = {text(each): each for each in ledger.elements(now)}
            assert {address: each.name for address, each in found.items()} == {
                "203.0.113.1": "a.example.com",
                "2001:db8::1": "b.example.com +",
            }
            assert 480 < found["203.0.113.1"].seconds <= 500 and 380 < found["2001:db8::1"].seconds <= 400
            assert set(elements()) == set(found)
            assert sh("pidof wireguard-go") == pid
            assert follower.trouble == "" and not (await follower.difference())[1]
        finally:
            await follower.close()

    play(space, first)


@pytest.mark.usefixtures("unowned")
def test_a_start_over_the_rest_of_a_crash_puts_right_what_is_left(space: Space) -> None:
    """What a kill -9 in the middle of a start may leave."""

    async def story(reconciler: Reconciler) -> None:
        config = make_config()
        await reconciler.start(config)
        insert("203.0.113.1", owner=reconciler.owner)
        sh("ip link del wg0; ip rule del priority 100; nft delete chain inet wg_routing last_door")
        await reconciler.start(config)
        assert await as_planned(reconciler)
        assert set(elements()) == {"203.0.113.1"}

    play(space, story)


RELOADS = [
    ({}, {"networks": '"198.51.100.0/24"'}),
    ({"networks": '"198.51.100.0/24", "192.0.2.0/24"'}, {"networks": '"192.0.2.0/25"'}),
    ({"networks": '"192.0.2.0/25"'}, {"networks": '"192.0.2.0/24"'}),
    ({}, {"routing": "fwmark = 2\ntable = 101\npriority = 99"}),
    ({}, {"wg": WG.replace("10.1.0.2/24", "10.1.0.3/24")}),
    ({}, {"wg": WG.replace(text_of(key(2)), text_of(key(6)))}),
    ({}, {"wg": WG.replace("::/0", "2000::/3")}),
    ({"dns": "redirect = false"}, {"dns": 'bypass = ["192.0.2.53"]'}),
]


@pytest.mark.parametrize(("old", "new"), RELOADS, ids=range(len(RELOADS)))
def test_a_reload_goes_through_both_and_ends_with_the_new_one_alone(
    space: Space, old: dict[str, str], new: dict[str, str]
) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config(**old))
        before = reconciler.plan
        insert("203.0.113.1", owner=reconciler.owner)
        pid = sh("pidof wireguard-go")
        config = make_config(**new)
        await reconciler.grow_to(config)
        observed, lacking = await reconciler.difference()
        assert not lacking
        assert set(observed.plan.objects) >= set(before.objects)
        assert all(any(old.subnet_of(new) for new in members(observed.plan)) for old in members(before))
        await reconciler.shrink_to(config)
        observed, lacking = await reconciler.difference()
        assert not lacking and reconciler.trouble == ""
        assert set(elements()) == {"203.0.113.1"}
        assert sh("pidof wireguard-go") == pid

    play(space, story)


def test_a_repair_that_waited_for_a_reload_does_not_bring_the_old_one_back(space: Space) -> None:
    new = make_config(networks='"198.51.100.0/24"')

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        await asyncio.gather(reconciler.shrink_to(new), reconciler._repair())
        assert reconciler.config is new
        assert members((await reconciler.difference())[0].plan)

    play(space, story)


def test_whom_we_forward_for_is_led_by_the_rules_until_he_is_gone(space: Space) -> None:
    docker = Downlink("docker0", 7, ip("172.17.0.1"))

    async def story(reconciler: Reconciler) -> None:
        await reconciler.lead(frozenset({docker}))  # before the start
        await reconciler.start(make_config())
        for there in (True, False, True):
            await reconciler.lead(frozenset({docker} if there else ()))
            assert ("dnat ip to 172.17.0.1:253" in sh("nft list table inet wg_routing")) is there
            assert await as_planned(reconciler)
        await reconciler.teardown()
        await reconciler.lead(frozenset())
        assert sh("nft list tables") == ""

    play(space, story)


def members(plan: Plan) -> set[Any]:
    tables = [obj for obj in plan.objects.values() if isinstance(obj, Table)]
    return {member for table in tables for each in table.sets for member in each.members}


def test_the_link_goes_and_comes_back_and_all_else_stays_closed(space: Space) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        whole = (await reconciler.difference())[0].plan
        insert("203.0.113.1", owner=reconciler.owner)
        await reconciler.take_down(frozenset({"wg0"}))
        observed, lacking = await reconciler.difference()
        assert not lacking
        assert not [obj for obj in observed.plan.objects.values() if isinstance(obj, Link | Device)]
        kinds = [type(obj) for obj in observed.plan.objects.values()]
        assert (kinds.count(Rule), kinds.count(Route), kinds.count(Table)) == (2, 2, 2)
        assert sh("pidof wireguard-go", check=False) == ""
        await reconciler.take_down(frozenset())
        assert (await reconciler.difference())[0].plan == whole
        assert set(elements()) == {"203.0.113.1"}

    play(space, story)


DEEDS = {
    "the table": "nft delete table inet wg_routing",
    "everything of nft": "nft flush ruleset",
    "the arp table": "nft delete table arp wg_routing",
    "the arp table's rules": "nft flush table arp wg_routing",
    "a chain's rules": "nft flush chain inet wg_routing last_door",
    "a chain": "nft delete chain inet wg_routing last_door",
    "a foreign rule in a chain of ours": "nft insert rule inet wg_routing output accept",
    "a foreign chain": "nft add chain inet wg_routing x '{ type filter hook output priority -200; accept; }'",
    "the v4 rule": "ip rule del priority 100",
    "the v6 rule": "ip -6 rule del priority 100",
    "all rules": "ip rule flush; ip -6 rule flush",
    "the v4 table": "ip route flush table 100",
    "the v6 table": "ip -6 route flush table 100",
    "the blackhole": "ip route del blackhole default table 100 metric 200",
    "the last resort": "ip -6 route del default dev wg0 metric 4294967295",
    "the link": "ip link del wg0",
    "the link, down": "ip link set wg0 down",
    "its MTU": "ip link set wg0 mtu 1280",
    "its address": "ip addr flush dev wg0",
    "its peers": f"wg set wg0 peer {text_of(key(2))} remove; ip link set wg0 mtu 1281",
    "all at once": "nft flush ruleset; ip rule flush; ip -6 rule flush; ip link del wg0; ip route flush table 100",
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_somebody_else_took_away_comes_back(space: Space, deed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "nft" in DEEDS[deed]:  # without effect where the table is owned
        monkeypatch.setattr(Owner, "can_own", False)

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config(networks='"198.51.100.0/24"'))
        whole = (await reconciler.difference())[0].plan
        loop = asyncio.get_running_loop()
        reconciler.ledger.restore(
            [insert("203.0.113.1", owner=reconciler.owner), insert("2001:db8::1", "b.example", owner=reconciler.owner)],
            loop.time(),
        )
        before = elements()

        async def whole_again() -> bool:
            return reconciler.repairs > 0 and await as_planned(reconciler)

        await kept(reconciler, whole_again, lambda: sh(DEEDS[deed]))
        assert (await reconciler.difference())[0].plan == whole
        assert {each.address: each.name for each in elements().values()} == {
            each.address: each.name for each in before.values()
        }
        assert all(each.seconds <= before[address].seconds for address, each in elements().items())

    play(space, story)


def test_a_change_while_a_burst_settles_is_told_of_too(space: Space) -> None:
    """Whoever was told of the first one may have looked before the last."""

    async def story(reconciler: Reconciler) -> None:
        told = []
        reconciler.heard = lambda: told.append(reconciler._stirred.is_set())
        reconciler._stirred.set()
        waiting = asyncio.create_task(reconciler._wait_for_a_stir(None))
        while not told:
            await asyncio.sleep(0)
        reconciler._stirred.set()
        await waiting
        assert told == [False, False] and not reconciler._stirred.is_set()

    play(space, story)


def test_a_killed_wireguard_comes_back_with_all_that_hung_on_it(space: Space) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        whole = (await reconciler.difference())[0].plan
        pid = int(sh("pidof wireguard-go"))

        async def whole_again() -> bool:
            return reconciler.repairs > 0 and await as_planned(reconciler)

        await kept(reconciler, whole_again, lambda: os.kill(pid, signal.SIGKILL))
        assert (await reconciler.difference())[0].plan == whole
        assert int(sh("pidof wireguard-go")) != pid

    play(space, story)


@pytest.mark.parametrize("what", ["wg_domains4 { 203.0.113.1 }", "wg_networks4 { 198.51.100.0/24 }"])
@pytest.mark.usefixtures("unowned")
def test_an_address_that_somebody_else_took_out_comes_back(space: Space, what: str) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config(networks='"198.51.100.0/24"'))
        loop = asyncio.get_running_loop()
        reconciler.ledger.restore([insert("203.0.113.1", owner=reconciler.owner)], loop.time())
        reconciler.listen(0)
        before = sh(SETS)
        sh(f"nft delete element inet wg_routing '{what}'")
        reconciler._stirred.clear()
        for sock in reconciler._events.sockets:  # type: ignore[union-attr]
            reconciler._hear(sock)
        assert reconciler._stirred.is_set()
        await reconciler._repair()
        assert sh(SETS) == before

    play(space, story)


@pytest.mark.usefixtures("unowned")
def test_what_we_write_wakes_nobody_and_what_others_take_out_does(space: Space) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        hand = Elements(reconciler.owner)
        reconciler.listen(reconciler.owner.port)
        sockets = reconciler._events.sockets  # type: ignore[union-attr]
        one = Element("wg_domains4", ip("203.0.113.1").packed, "a.example", 600)
        hand.write([one])
        hand.write((), [one])
        hand.write((), (), [(one.set, one.address)])
        hand.put([one])
        await reconciler.shrink_to(make_config(networks='"198.51.100.0/24"'))
        for sock in sockets:
            reconciler._hear(sock)
        assert not reconciler._stirred.is_set()
        sh("ip route add blackhole default table 7")
        for sock in sockets:
            reconciler._hear(sock)
        assert reconciler._stirred.is_set() and not reconciler._look_at_elements
        sh("nft delete element inet wg_routing wg_domains4 '{ 203.0.113.1 }'")
        for sock in sockets:
            reconciler._hear(sock)
        assert reconciler._look_at_elements

    play(space, story)


@pytest.mark.usefixtures("unowned")
def test_a_change_of_something_else_does_not_hide_that_elements_are_missing(space: Space) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        loop = asyncio.get_running_loop()
        reconciler.ledger.restore([insert("203.0.113.1", owner=reconciler.owner)], loop.time())
        reconciler.listen(0)
        for deed in ("nft delete element inet wg_routing wg_domains4 '{ 203.0.113.1 }'", "ip rule del priority 100"):
            sh(deed)
            for sock in reconciler._events.sockets:  # type: ignore[union-attr]
                reconciler._hear(sock)
        await reconciler._repair()
        assert set(elements()) == {"203.0.113.1"}
        assert await as_planned(reconciler)

    play(space, story)


def test_without_any_wireguard_it_is_closed_and_says_why_until_there_is_one(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(reconciler: Reconciler) -> None:
        with monkeypatch.context() as without:
            without.setattr("splitwgd.uapi._PROGRAMS", (("no-such-program", "-f"),))
            await reconciler.start(make_config())
            assert "install one of them" in reconciler.trouble
            observed, lacking = await reconciler.difference()
            kinds = {type(obj) for obj in observed.plan.objects.values()}
            assert kinds == {Table, Rule, Route}
            assert {type(put.wanted) for put in lacking.grow} >= {Link, Device}
            assert "the tunnel is down" in sh("nft list chain inet wg_routing output")
            insert("203.0.113.1", owner=reconciler.owner)
            await reconciler.take_down(frozenset({"wg0"}))
            assert reconciler.trouble == ""
            await reconciler.take_down(frozenset())
            assert reconciler.trouble

        async def open_again() -> bool:
            refused = "the tunnel is down" in sh("nft list chain inet wg_routing output")
            return reconciler.trouble == "" and not refused and await as_planned(reconciler)

        await kept(reconciler, open_again, lambda: None)
        assert set(elements()) == {"203.0.113.1"}

    play(space, story)


def test_what_cannot_even_be_closed_does_not_start(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of 2^16 sets of our names is not needed to see it: a foreign `owner` or a full kernel do the same."""

    def refuse(self: object, rule: Rule) -> None:
        raise KernelError("no rules today")

    async def story(reconciler: Reconciler) -> None:
        with monkeypatch.context() as without:
            without.setattr("splitwgd.netlink.Netlink.put_rule", refuse)
            with pytest.raises(KernelError, match="no rules today"):
                await reconciler.start(make_config())
        await reconciler.start(make_config())
        assert await as_planned(reconciler)

    play(space, story)


def test_a_reload_that_the_kernel_refuses_leaves_the_old_one_in_force(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, rule: Rule) -> None:
        raise KernelError("no rules today")

    async def story(reconciler: Reconciler) -> None:
        config = make_config()
        await reconciler.start(config)
        whole = (await reconciler.difference())[0].plan
        with monkeypatch.context() as without:
            without.setattr("splitwgd.netlink.Netlink.put_rule", refuse)
            with pytest.raises(KernelError):
                await reconciler.grow_to(make_config(routing="table = 101"))
        assert reconciler.config == config

        async def as_before() -> bool:
            return (await reconciler.difference())[0].plan == whole

        await kept(reconciler, as_before, reconciler._stirred.set)

    play(space, story)


# -- links that somebody else made


def adopted(mark: str = "") -> None:
    sh(f"LOG_LEVEL=silent wireguard-go wg0; ip addr add 10.1.0.2/24 dev wg0; ip link set wg0 up; {mark}")


@pytest.mark.parametrize(
    ("mark", "during", "after"), [("", "0xfe", "off"), ("wg set wg0 fwmark 51820", "0xca6c", "0xca6c")]
)
def test_a_link_made_by_hand_is_used_and_left_standing(space: Space, mark: str, during: str, after: str) -> None:
    adopted(mark)
    sh("sysctl -qw net.ipv4.conf.wg0.rp_filter=1 net.ipv4.conf.default.rp_filter=1")
    before = world()
    configuration = sh("wg showconf wg0")

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        observed, lacking = await reconciler.difference()
        assert not lacking and reconciler.trouble == ""
        assert sh("wg show wg0 fwmark").strip() == during
        assert [obj for obj in observed.plan.objects.values() if isinstance(obj, OuterMark)] == (
            [OuterMark("wg0", 0xFE)] if not mark else []
        )
        await reconciler.start(make_config())
        assert await as_planned(reconciler)
        await reconciler.teardown()
        assert sh("wg show wg0 fwmark").strip() == after
        assert sh("wg showconf wg0") == configuration
        assert world() == before

    play(space, story)


@pytest.mark.parametrize("default", [0, 1, 2])
def test_an_adopted_link_that_is_taken_down_stays_and_is_used_no_longer(space: Space, default: int) -> None:
    sh(f"sysctl -qw net.ipv4.conf.default.rp_filter={default}")
    adopted()

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        await reconciler.take_down(frozenset({"wg0"}))
        observed, lacking = await reconciler.difference()
        assert reconciler.trouble == "" and not lacking
        assert "dev wg0" not in sh("ip route show table 100")
        assert "wg0" in sh("ip -br link")
        await reconciler.take_down(frozenset())
        assert await as_planned(reconciler)

    play(space, story)


def test_a_link_of_that_name_that_is_no_wireguard_leaves_it_closed(space: Space) -> None:
    sh("ip link add wg0 type veth peer name far")

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        assert "wg0" in reconciler.trouble
        kinds = {
            type(obj) for obj in (await reconciler._run(lambda kernel: kernel.observe(None))).plan.objects.values()
        }
        assert kinds == {Table, Rule, Route}

    play(space, story)


def test_a_link_that_a_killed_start_had_only_just_made_is_configured_and_goes_at_teardown(space: Space) -> None:
    """Between making it and giving it its alias there is a moment."""
    sh("LOG_LEVEL=silent wireguard-go wg0")

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        assert reconciler.trouble == ""
        assert text_of(key(2)) in sh("wg show wg0 peers")
        await reconciler.teardown()
        assert "wg0" not in sh("ip -br link")

    play(space, story)


# -- endpoints


def test_an_endpoint_with_a_name_is_aimed_when_it_is_known_and_again_after_a_repair(space: Space) -> None:
    config = make_config(wg=WG.replace("198.51.100.130:51820", "vpn.example.net:51820"))

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(config)
        assert (await reconciler.states())["wg0"][0].endpoint is None
        await reconciler.aim(PEERING, Endpoint("192.0.2.9", 51820))
        assert (await reconciler.states())["wg0"][0].endpoint == Endpoint("192.0.2.9", 51820)

        async def aimed_again() -> bool:
            states = (await reconciler.states())["wg0"]
            return reconciler.repairs > 0 and [s.endpoint for s in states] == [Endpoint("192.0.2.9", 51820)]

        await kept(reconciler, aimed_again, lambda: sh("ip link del wg0"))

    play(space, story)


def test_where_the_peers_are_reached_is_known_as_far_as_it_can_be(space: Space) -> None:
    peers = f"[Peer]\nPublicKey = {text_of(key(5))}\nAllowedIPs = 10.7.0.0/16\nEndpoint = [2001:db8::9]:7\n"
    config = make_config(wg=WG.replace("198.51.100.130:51820", "vpn.example.net:51820") + peers)

    async def story(reconciler: Reconciler) -> None:
        assert reconciler.peers.endpoint_addresses(config) == {ip("2001:db8::9").packed}
        await reconciler.start(config)
        await reconciler.aim(PEERING, Endpoint("192.0.2.9", 51820))
        assert reconciler.peers.endpoint_addresses(config) == {ip("2001:db8::9").packed, ip("192.0.2.9").packed}

    play(space, story)


def test_this_machines_addresses_are_told_with_those_of_its_tunnel(space: Space) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        found = await reconciler.surroundings()
        assert {ip(each).packed for each in ("127.0.0.1", "::1", "10.1.0.2", "fd00:10:1::2")} <= found.addresses
        assert {(name, up) for _, name, up in found.links} == {("lo", True), ("wg0", True)}

    play(space, story)


def test_a_peer_that_roamed_by_itself_is_left_where_it_is(space: Space) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        sh(f"wg set wg0 peer {text_of(key(2))} endpoint 192.0.2.77:1")
        await reconciler.shrink_to(make_config(networks='"198.51.100.0/24"'))
        assert (await reconciler.states())["wg0"][0].endpoint == Endpoint("192.0.2.77", 1)

    play(space, story)


@pytest.mark.parametrize("move", ["address", "route"])
def test_wireguard_sends_from_where_this_machine_is_now(space: Space, move: str) -> None:
    sh("ip link add eth0 type veth peer eth1; ip link set eth0 up; ip link set eth1 up")
    sh("ip addr add 192.0.2.2/24 dev eth0; ip addr add 198.51.100.2/24 dev eth1")
    sh("ip route add default via 192.0.2.1")
    roamed = Endpoint("203.0.113.77", 1)
    seen: list[Endpoint] = []

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        sh(f"wg set wg0 peer {text_of(key(2))} endpoint {roamed}")
        reconciler.peers._here = await reconciler.surroundings()
        run = reconciler.peers.worker.run

        async def spied(step: Any, *arguments: Any, **options: Any) -> Any:
            if step is Kernel.aim:
                seen.append(arguments[-1])
            return await run(step, *arguments, **options)

        reconciler.peers.worker.run = spied  # type: ignore[method-assign]

        async def again() -> bool:
            return bool(seen)

        changes = {
            "address": "ip addr add 192.0.2.3/24 dev eth0; ip addr del 192.0.2.2/24 dev eth0",
            "route": "ip route add default dev eth1 metric 50; ip route del default via 192.0.2.1",
        }
        await kept(reconciler, again, lambda: sh(changes[move], check=False))
        assert set(seen) == {roamed}
        assert (await reconciler.states())["wg0"][0].endpoint == roamed

    play(space, story)


# -- what is let go


def test_the_flows_to_an_address_are_forgotten_and_no_others(space: Space) -> None:
    sh("conntrack -I -s 10.1.0.2 -d 203.0.113.1 -p udp --sport 1 --dport 2 --timeout 99 --mark 1")

    async def story(reconciler: Reconciler) -> None:
        config = make_config()
        await reconciler.start(config)
        await reconciler.end_flows([ip("203.0.113.2").packed, ip("2001:db8::1").packed], config)
        assert "203.0.113.1" in sh("conntrack -L")
        await reconciler.end_flows([ip("203.0.113.1").packed, ip("2001:db8::1").packed], config)
        assert "203.0.113.1" not in sh("conntrack -L")
        await reconciler.end_flows([], config)

    play(space, story)


# -- what wg-quick takes, and WireGuard changes on the way


ODD = {
    "a private key that is not clamped": WG.replace(text_of(key(1)), text_of(b"\xff" * 32)),
    "a preshared key of zeros": WG.replace(text_of(key(3)), text_of(bytes(32))),
    "one network at two peers": WG + f"[Peer]\nPublicKey = {text_of(key(5))}\nAllowedIPs = 0.0.0.0/0\n",
    "an MTU below 1280 with IPv6": WG.replace("[Peer]", "MTU = 1200\n[Peer]", 1),
}


@pytest.mark.parametrize("odd", ODD)
def test_whatever_wg_quick_takes_can_be_kept(space: Space, odd: str) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config(wg=ODD[odd]))
        assert reconciler.trouble == ""
        assert await as_planned(reconciler)

    play(space, story)


def test_a_host_without_ipv6_has_its_tunnel_for_ipv4(space: Space) -> None:
    sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")

    async def story(reconciler: Reconciler) -> None:
        config = make_config(wg=WG.replace(", fd00:10:1::2/64", "").replace(", ::/0", ""))
        await reconciler.start(config)
        assert reconciler.trouble == ""
        assert await as_planned(reconciler)

    play(space, story)


def test_after_a_fight_all_is_as_planned(space: Space) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())

        async def fight() -> None:
            for _ in range(4):
                await eventually(lambda: "lookup 100" in sh("ip rule"))
                sh("ip rule del priority 100")

        fighter = asyncio.create_task(fight())

        async def won() -> bool:
            return fighter.done() and reconciler.trouble == "" and await as_planned(reconciler)

        await kept(reconciler, won, lambda: None)

    play(space, story)


def test_a_repair_that_lacks_descriptors_is_told_once_and_tried_until_there_are_some(
    space: Space, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    tries = 0

    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        sh("ip rule del priority 100")
        repair = reconciler._repair

        async def counted() -> bool:
            nonlocal tries
            tries += 1
            return await repair()

        def starve() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            reconciler._stirred.set()

        async def whole_again() -> bool:
            if tries < 3:
                return False
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            return not reconciler.trouble and await as_planned(reconciler)

        monkeypatch.setattr(reconciler, "_repair", counted)
        await kept(reconciler, whole_again, starve)

    try:
        play(space, story)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caplog.text.count("repair failed: the kernel cannot be asked now: Too many open files") == 1


def test_a_link_of_ours_is_replaced_when_the_config_names_another_file(space: Space) -> None:
    async def story(reconciler: Reconciler) -> None:
        await reconciler.start(make_config())
        (tunnel,) = make_config().tunnels
        config = replace(make_config(), tunnels=(replace(tunnel, link="wg9", name="wg9"),))
        await reconciler.grow_to(config)
        await reconciler.shrink_to(config)
        assert await as_planned(reconciler)
        assert [line.split()[0] for line in sh("ip -br link").splitlines()] == ["lo", "wg9"]

    play(space, story)
