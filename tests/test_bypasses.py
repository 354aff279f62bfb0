"""The well-known resolvers: what is said of them, and what is left of them without those that are wanted."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from itertools import combinations

import pytest

from splitwgd.admission import Kind, kind_of
from splitwgd.bypasses import NAMES, OPERATORS, known_resolvers
from splitwgd.names import parse_name, tails
from splitwgd.objects import Network

NETWORKS = [network for operator in OPERATORS for network in operator.networks]


def holds(networks: Iterable[Network], address: str) -> bool:
    return any(ip_address(address) in network for network in networks)


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("dns.google", "8.8.8.8 8.8.4.4 2001:4860:4860::8888"),
        ("mozilla.cloudflare-dns.com", "1.1.1.1 1.0.0.1 104.16.249.249 2606:4700:4700::1111"),
        ("dns.quad9.net", "9.9.9.9 149.112.112.112 2620:fe::fe"),
        ("dns.adguard-dns.com", "94.140.14.14 2a10:50c0::ad1:ff"),
        ("doh.opendns.com", "208.67.222.222 146.112.41.2 2620:119:35::35"),
        ("abc123.dns.nextdns.io", "45.90.28.0 45.90.30.255 2a07:a8c0::ab:c123"),
        ("adblock.dns.mullvad.net", "194.242.2.2 194.242.2.3 2a07:e340::2"),
        ("dns.controld.com", "76.76.2.0 76.76.10.5 2606:1a40::"),
        ("doh.cleanbrowsing.org", "185.228.168.9 185.228.169.168 2a0d:2a00:1::"),
        ("doh.dns.sb", "185.222.222.222 45.11.45.11 2a09::"),
    ],
)
def test_who_is_known_is_known_by_name_and_by_address(name: str, addresses: str) -> None:
    (apex,) = set(tails(parse_name(name))) & set(NAMES)
    (operator,) = [operator for operator in OPERATORS if apex in operator.names]
    for address in addresses.split():
        assert holds(operator.networks, address), address
        assert holds(known_resolvers(ip_address(address).version), address)


def test_each_operator_says_where_it_is_known_from() -> None:
    assert all(operator.page.startswith("https://") for operator in OPERATORS)
    assert len({operator.page for operator in OPERATORS}) == len(OPERATORS)
    assert all(operator.names and operator.networks for operator in OPERATORS)


def test_nobody_is_named_twice() -> None:
    assert all(list(map(NAMES.__contains__, tails(name))).count(True) == 1 for name in NAMES)
    assert len(set(NAMES)) == len(NAMES)
    assert not [pair for pair in combinations(NETWORKS, 2) if pair[0].overlaps(pair[1])]


def test_no_name_is_a_whole_top_level_and_no_network_somebodys_whole_house() -> None:
    assert all(len(list(tails(name))) > 2 for name in NAMES)
    assert all(network.prefixlen >= {4: 24, 6: 48}[network.version] for network in NETWORKS)
    assert all(kind_of(network.network_address.packed) is Kind.GLOBAL for network in NETWORKS)


@pytest.mark.parametrize("family", [4, 6])
def test_by_family_they_are_all_there_once_and_in_order(family: int) -> None:
    known = known_resolvers(family)
    assert list(known) == sorted(known, key=lambda network: int(network.network_address))
    assert sum(network.num_addresses for network in known) == sum(
        network.num_addresses for network in NETWORKS if network.version == family
    )
    assert {network.version for network in known} == {family}


def test_who_is_spared_is_left_out_alone() -> None:
    spared = frozenset(
        ip_address(text) for text in ("9.9.9.9", "1.1.1.2", "45.90.28.7", "2620:fe::fe", "192.0.2.1", "fe80::1")
    )
    four, six = known_resolvers(4, spared), known_resolvers(6, spared)
    for each in spared:
        assert not holds([*four, *six], str(each))
    for address in ("9.9.9.10", "1.1.1.1", "1.1.1.3", "45.90.28.6", "45.90.28.8", "45.90.28.255"):
        assert holds(four, address), address
    assert holds(six, "2620:fe::9")
    lost = sum(network.num_addresses for network in known_resolvers(4)) - sum(n.num_addresses for n in four)
    assert lost == 3


def test_a_range_is_left_out_by_its_addresses_as_far_as_it_goes() -> None:
    spared = frozenset(ip_network("45.90.28.0/24")) | {ip_address("8.8.8.8")}
    assert not holds(known_resolvers(4, spared), "45.90.28.128")
    assert holds(known_resolvers(4, spared), "45.90.30.1")
