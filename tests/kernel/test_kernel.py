"""All hands as one: what is found is a Plan, and a Diff is carried out in its order."""

from __future__ import annotations

import os
import shutil

import pytest

from splitwgd.diff import compare
from splitwgd.errors import KernelError
from splitwgd.kernel import Kernel
from splitwgd.objects import Device, Element, Endpoint, Link, LooseReversePath, OuterMark, Route, Table
from splitwgd.plan import Facts, Plan, make_plan
from tests.kernel.spaces import sh
from tests.kernel.test_netlink import world
from tests.kernel.test_reconciler import insert
from tests.worlds import WG, ip, key, make_config

needs_go = pytest.mark.skipif(
    not (shutil.which("wireguard-go") and os.path.exists("/dev/net/tun")), reason="needs wireguard-go and /dev/net/tun"
)
NONE: frozenset[str] = frozenset()


def test_an_untouched_kernel_holds_nothing_of_ours(kernel: Kernel) -> None:
    observed = kernel.observe(None)
    assert (observed.plan, observed.elements) == (Plan.empty(), ())
    assert kernel.states("wg0") == []
    assert kernel.facts(make_config(), NONE) == Facts(uplink_mtu=1500, ownable=kernel._owner.can_own)


@needs_go
def test_a_diff_leads_to_the_plan_and_back(kernel: Kernel) -> None:
    config = make_config(networks='"198.51.100.0/24"')
    before = world()
    plan = make_plan(config, kernel.facts(config, NONE))
    kernel.grow(compare(plan, kernel.observe(config).plan), [])
    assert kernel.observe(config).plan == plan
    assert not compare(plan, kernel.observe(config).plan)
    kernel.shrink(compare(Plan.empty(), kernel.observe(config).plan))
    assert kernel.observe(config).plan == Plan.empty()
    assert world() == before


@needs_go
def test_a_teardown_needs_no_configuration(kernel: Kernel) -> None:
    config = make_config(routing="table = 7\npriority = 9\nfwmark = 4")
    before = world()
    kernel.grow(compare(make_plan(config, kernel.facts(config, NONE)), Plan.empty()), [])
    kernel.shrink(compare(Plan.empty(), kernel.observe(None).plan))
    assert kernel.observe(None).plan == Plan.empty()
    assert world() == before


def test_growth_stops_at_the_first_failure_with_what_closes_in_force(kernel: Kernel) -> None:
    plan = make_plan(make_config(), Facts())
    objects = [obj for obj in plan.objects.values() if not isinstance(obj, Link)]
    with pytest.raises(KernelError):
        kernel.grow(compare(Plan.of(objects), Plan.empty()), [])
    found = set(kernel.observe(None).plan.objects.values())
    closing = {obj for obj in objects if not isinstance(obj, Device | LooseReversePath) and "wg0" not in str(obj)}
    assert found == closing


def test_learned_addresses_are_found_with_their_names(kernel: Kernel) -> None:
    kernel.grow(compare(make_plan(make_config(), Facts(down=frozenset({"wg0"}))), Plan.empty()), [])
    insert("203.0.113.1", "a.example +", 100, kernel._owner)
    (element,) = kernel.observe(None, elements=True).elements
    assert (element.set, element.address, element.name) == ("wg_domains4", ip("203.0.113.1").packed, "a.example +")
    assert kernel.observe(None).elements == ()
    assert kernel.observe(None).plan == kernel.observe(None, elements=True).plan


def test_learned_addresses_are_put_whether_they_are_there_or_not(kernel: Kernel) -> None:
    kernel.grow(compare(make_plan(make_config(), Facts(down=frozenset({"wg0"}))), Plan.empty()), [])
    there = insert("203.0.113.1", "a.example", 100, kernel._owner)
    absent = Element("wg_domains6", ip("2001:db8::1").packed, "b.example", 100)
    kernel.insert([there, absent])
    found = kernel.observe(None, elements=True).elements
    assert {(each.address, each.name) for each in found} == {(each.address, each.name) for each in (there, absent)}


@needs_go
@pytest.mark.parametrize(("mark", "outer"), [(0, []), (0xFE, [OuterMark("wg0", 0xFE)]), (0xCA6C, [])])
def test_a_link_of_somebody_else_is_a_fact_and_no_object(kernel: Kernel, mark: int, outer: list[OuterMark]) -> None:
    sh(f"LOG_LEVEL=silent wireguard-go wg0; wg set wg0 fwmark {mark}; ip link set wg0 up")
    sh("sysctl -qw net.ipv4.conf.wg0.rp_filter=1")
    config = make_config()
    assert kernel.facts(config, NONE).adopted == {"wg0": mark}
    assert list(kernel.observe(config).plan.objects.values()) == outer
    assert kernel.observe(None).plan == Plan.empty()


@needs_go
@pytest.mark.parametrize(("port", "seen"), [("", 0), ("ListenPort = 51999", 51999)])
def test_a_port_that_the_kernel_chose_is_no_difference(kernel: Kernel, port: str, seen: int) -> None:
    config = make_config(wg=WG.replace("[Peer]", f"{port}\n[Peer]", 1))
    kernel.grow(compare(make_plan(config, Facts()), Plan.empty()), [])
    assert int(sh("wg show wg0 listen-port")) > 0
    device = kernel.observe(config).plan.objects["device", "wg0"]
    assert isinstance(device, Device) and device.listen_port == seen


@needs_go
def test_peers_are_aimed_and_their_state_is_told(kernel: Kernel) -> None:
    config = make_config()
    kernel.grow(compare(make_plan(config, Facts()), Plan.empty()), [])
    kernel.aim("wg0", key(2), Endpoint("192.0.2.9", 7))
    (state,) = kernel.states("wg0")
    assert (state.public_key, state.endpoint, state.handshake) == (key(2), Endpoint("192.0.2.9", 7), 0)


@needs_go
def test_the_mtu_of_the_plan_fits_the_way_to_the_endpoint(kernel: Kernel) -> None:
    sh("ip link add dsl type veth peer name far; ip link set far up; ip link set dsl mtu 1492 up")
    sh("ip addr add 192.0.2.2/24 dev dsl; ip route add default via 192.0.2.1")
    facts = kernel.facts(make_config(), NONE)
    assert facts.uplink_mtu == 1492
    assert Link("wg0", 1412, frozenset(make_config().tunnels[0].wireguard.addresses)) in set(
        make_plan(make_config(), facts).objects.values()
    )


def test_plan_without_open_parts_is_what_down_means(kernel: Kernel) -> None:
    config = make_config()
    plan = make_plan(config, kernel.facts(config, frozenset({"wg0"})))
    kernel.grow(compare(plan, Plan.empty()), [])
    assert kernel.observe(config).plan == plan
    assert {type(obj).__name__ for obj in plan.objects.values()} == {Table.__name__, Route.__name__, "Rule"}
