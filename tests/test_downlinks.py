"""Which links lead to hosts that we forward for."""

from __future__ import annotations

import pytest

from splitwgd.downlinks import candidates
from splitwgd.objects import Downlink
from tests.worlds import ip

LINKS = [(1, "lo", True), (2, "eth0", True), (3, "docker0", True), (4, "veth1", True), (5, "br-0a1b", True)]
ADDRESSES = [
    *((1, ip(text)) for text in ("127.0.0.1", "::1", "203.0.113.9")),
    *((2, ip(text)) for text in ("198.51.100.2", "2001:db8:c::2", "fe80::2")),
    *((3, ip(text)) for text in ("fe80::3", "172.18.0.1", "172.17.0.1", "fd00:17::1")),
    *((5, ip(text)) for text in ("fe80::5", "169.254.1.1")),
]


def found(links: list[tuple[int, str, bool]] = LINKS, others: frozenset[int] = frozenset({2})) -> set[Downlink]:
    return set(candidates(links, ADDRESSES, others))


def test_each_has_one_address_of_a_family_and_a_link_local_one_only_where_there_is_no_other() -> None:
    assert found() == {
        Downlink("docker0", 3, ip("172.17.0.1")),
        Downlink("docker0", 3, ip("fd00:17::1")),
        Downlink("br-0a1b", 5, ip("169.254.1.1")),
        Downlink("br-0a1b", 5, ip("fe80::5")),
    }


def test_the_order_of_addresses_changes_nothing() -> None:
    assert set(candidates(LINKS, ADDRESSES[::-1], {2})) == found()


def test_beyond_an_uplink_there_are_strangers() -> None:
    assert {each.name for each in found(others=frozenset({2, 3, 5}))} == set()
    assert {each.name for each in found(others=frozenset())} == {"eth0", "docker0", "br-0a1b"}


def test_a_link_that_is_down_is_none() -> None:
    assert found([(3, "docker0", False)]) == set()


@pytest.mark.parametrize("name", ["br*", 'a"b', "sixteen-letters-", "br{1}", "x;y", "\\"])
def test_a_name_that_nft_would_read_otherwise_is_none(name: str) -> None:
    assert found([(3, name, True)]) == set()
