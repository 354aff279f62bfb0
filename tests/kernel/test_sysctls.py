"""The hand on the sysctls: what is loosened is tightened again, and what is forwarded is seen."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest

from splitwgd.netlink import Netlink
from splitwgd.objects import LooseReversePath
from splitwgd.sysctls import forwards, has_ipv6, is_strict, loosen, send_redirects, sends_redirects, tighten
from tests.kernel.spaces import Space, Wire, sh


@pytest.fixture
def wg0(wire: Callable[[str, str], Wire]) -> Wire:
    return wire("wg0", "tun")


@pytest.mark.parametrize("default", [0, 1])
def test_the_reverse_path_is_loose_while_wanted_and_then_as_by_default(
    netlink: Netlink, wg0: Wire, default: int
) -> None:
    sh(f"sysctl -qw net.ipv4.conf.default.rp_filter={default}; sysctl -qw net.ipv4.conf.wg0.rp_filter={default}")
    assert netlink.observe(["wg0"]) == []
    loosen("wg0")
    assert netlink.observe(["wg0"]) == [LooseReversePath("wg0")]
    tighten("wg0")
    assert sh("sysctl -n net.ipv4.conf.wg0.rp_filter").strip() == str(default)
    assert netlink.observe(["wg0"]) == []


def test_redirects_are_sent_again(space: Space) -> None:
    sh("sysctl -qw net.ipv4.conf.all.send_redirects=0")
    assert not sends_redirects()
    send_redirects()
    assert sends_redirects() and sh("sysctl -n net.ipv4.conf.all.send_redirects").strip() == "1"


def test_what_is_loose_by_default_is_not_our_doing_and_stays(netlink: Netlink, wg0: Wire) -> None:
    sh("sysctl -qw net.ipv4.conf.default.rp_filter=2 net.ipv4.conf.wg0.rp_filter=2")
    assert netlink.observe(["wg0"]) == []
    tighten("wg0")
    assert sh("sysctl -n net.ipv4.conf.wg0.rp_filter").strip() == "2"


@pytest.mark.parametrize(
    ("all_", "default", "own", "strict"),
    [(0, 0, 0, False), (0, 1, None, True), (0, 1, 1, True), (1, 0, 0, True), (1, 0, 2, True), (0, 2, 2, False)],
)
def test_strict_is_what_would_drop_replies_but_for_our_doing(
    netlink: Netlink, wg0: Wire, all_: int, default: int, own: int | None, strict: bool
) -> None:
    sh(f"sysctl -qw net.ipv4.conf.all.rp_filter={all_} net.ipv4.conf.default.rp_filter={default}")
    if own is None:
        assert is_strict("wg1") is strict
        return
    sh(f"sysctl -qw net.ipv4.conf.wg0.rp_filter={own}")
    assert is_strict("wg0") is strict


def test_sysctls_of_a_link_that_is_gone_are_no_error(netlink: Netlink) -> None:
    loosen("nothing")
    tighten("nothing")
    assert netlink.observe(["nothing"]) == []


def test_forwarding_is_seen_by_link_and_for_ipv6_as_a_whole(wg0: Wire) -> None:
    sh("sysctl -qw net.ipv4.ip_forward=0")
    assert not forwards("wg0", 4) and not forwards("wg0", 6) and not forwards("nothing", 4)
    sh("sysctl -qw net.ipv4.conf.wg0.forwarding=1 net.ipv6.conf.all.forwarding=1")
    assert forwards("wg0", 4) and not forwards("lo", 4) and forwards("wg0", 6)


def test_ipv6_may_be_switched_off(wg0: Wire) -> None:
    assert has_ipv6()
    sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
    assert not has_ipv6()


def test_what_cannot_be_read_is_no_answer(wg0: Wire) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for look in (has_ipv6, lambda: forwards("wg0", 4), lambda: is_strict("wg0")):
            with pytest.raises(OSError, match="Too many open files"):
                look()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
