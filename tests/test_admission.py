"""What an answer may lead to: the special addresses of IANA's registries, this machine's, and private networks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.admission import Admission, Kind, kind_of
from splitwgd.names import parse_name

WWW, LAN, IN_LAN, NEAR_LAN = map(parse_name, ("www.example.com", "lan.example", "nas.lan.example", "xlan.example"))
GLOBAL, PRIVATE, NEVER = Kind.GLOBAL, Kind.PRIVATE, Kind.NEVER

# IANA's registries of special-purpose addresses (RFC 6890), IPv4's whole, with what they are to us.
IPV4 = {
    "0.0.0.0/8": NEVER,  # this network
    "10.0.0.0/8": PRIVATE,
    "100.64.0.0/10": PRIVATE,  # shared, of carriers
    "127.0.0.0/8": NEVER,
    "169.254.0.0/16": NEVER,  # the link's, and the metadata service of clouds
    "172.16.0.0/12": PRIVATE,
    "192.0.0.0/24": PRIVATE,  # IETF protocol assignments: DS-Lite, NAT64 discovery
    "192.0.2.0/24": GLOBAL,  # documentation, as are the next but three and four
    "192.31.196.0/24": GLOBAL,  # AS112
    "192.52.193.0/24": GLOBAL,  # AMT
    "192.88.99.0/24": GLOBAL,  # was 6to4's relay
    "192.168.0.0/16": PRIVATE,
    "192.175.48.0/24": GLOBAL,  # AS112
    "198.18.0.0/15": PRIVATE,  # benchmarks
    "198.51.100.0/24": GLOBAL,
    "203.0.113.0/24": GLOBAL,
    "224.0.0.0/4": NEVER,  # multicast
    "240.0.0.0/4": NEVER,  # reserved, and broadcast
}
IPV6 = {
    "::/128": NEVER,
    "::1/128": NEVER,
    "::/96": NEVER,  # IPv4-compatible, of RFC 4291
    "::ffff:0:0/96": NEVER,  # IPv4-mapped: a socket would take it for IPv4
    "::ffff:0:0:0/96": NEVER,  # IPv4-translated, of RFC 2765
    "64:ff9b:1::/48": PRIVATE,  # a NAT64 of one's own
    "100::/64": NEVER,  # discarded
    "100:0:0:1::/64": NEVER,
    "2001::/32": NEVER,  # Teredo: an IPv4 address in disguise
    "2001:1::1/128": GLOBAL,
    "2001:3::/32": GLOBAL,
    "2001:4:112::/48": GLOBAL,
    "2001:20::/28": GLOBAL,
    "2001:db8::/32": GLOBAL,  # documentation
    "2620:4f:8000::/48": GLOBAL,
    "3fff::/20": GLOBAL,  # documentation
    "5f00::/16": NEVER,  # segment routing
    "fc00::/7": PRIVATE,
    "fe80::/10": NEVER,
    "fec0::/10": PRIVATE,  # was site-local
    "ff00::/8": NEVER,
}
BEYOND = {  # the next to the blocks above
    "1.0.0.0": GLOBAL,
    "9.255.255.255": GLOBAL,
    "11.0.0.0": GLOBAL,
    "100.63.255.255": GLOBAL,
    "100.128.0.0": GLOBAL,
    "126.255.255.255": GLOBAL,
    "128.0.0.0": GLOBAL,
    "169.253.255.255": GLOBAL,
    "169.255.0.0": GLOBAL,
    "172.15.255.255": GLOBAL,
    "172.32.0.0": GLOBAL,
    "192.0.1.0": GLOBAL,
    "192.167.255.255": GLOBAL,
    "192.169.0.0": GLOBAL,
    "198.17.255.255": GLOBAL,
    "198.20.0.0": GLOBAL,
    "223.255.255.255": GLOBAL,
    "1fff:ffff::": NEVER,
    "2000::": GLOBAL,
    "2000:ffff::": GLOBAL,
    "2001:1::": GLOBAL,
    "2003::": GLOBAL,
    "3fff:ffff::1": GLOBAL,
    "4000::": NEVER,
    "64:ff9a:ffff::1": NEVER,
    "64:ff9b:0:1::1": NEVER,
    "64:ff9b:2::1": NEVER,
    "fbff::1": NEVER,
    "fe00::1": NEVER,
}


def packed(text: str) -> bytes:
    return ip_address(text).packed


@pytest.mark.parametrize(("block", "kind"), [*IPV4.items(), *IPV6.items()])
def test_a_special_block_is_of_one_kind_from_its_first_address_to_its_last(block: str, kind: Kind) -> None:
    network = ip_network(block)
    middle = network[network.num_addresses // 2]
    assert {kind_of(each.packed) for each in (network[0], middle, network[-1])} == {kind}


@pytest.mark.parametrize(("address", "kind"), BEYOND.items())
def test_what_is_beside_a_special_block_is_not_of_it(address: str, kind: Kind) -> None:
    assert kind_of(packed(address)) is kind


@pytest.mark.parametrize("block", ["2001:2::/48", "2001:10::/28"])
def test_blocks_of_ietf_assignments_that_are_not_global_are_not_admitted(block: str) -> None:
    assert kind_of(ip_network(block)[1].packed) is not GLOBAL


@pytest.mark.parametrize("block", IPV4)
def test_an_ipv4_address_inside_an_ipv6_one_is_what_it_is_by_itself(block: str) -> None:
    """NAT64's well-known prefix (RFC 6052) and 6to4 (RFC 3056); what is mapped leads nowhere at all."""
    inner = ip_network(block)[-1]
    assert kind_of(packed("64:ff9b::")[:12] + inner.packed) is IPV4[block]
    assert kind_of(packed("2002::")[:2] + inner.packed + bytes(10)) is IPV4[block]
    assert kind_of(packed("2002::")[:2] + inner.packed + b"\xff" * 10) is IPV4[block]
    assert kind_of(bytes(10) + b"\xff\xff" + inner.packed) is NEVER


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_nothing_is_admitted_that_the_standard_library_calls_special(address: bytes) -> None:
    """Both ways, but for documentation, and what an IPv6 address carries."""
    read = ip_address(address)
    if read.is_loopback or read.is_unspecified or read.is_multicast or read.is_link_local:
        assert kind_of(address) is NEVER
    if kind_of(address) is PRIVATE and not address.startswith((b"\x20\x02", b"\0\x64\xff\x9b")):
        assert not read.is_global or read in ip_network("192.0.0.0/24") or getattr(read, "is_site_local", False)


# -- objections


def test_a_tunneled_name_may_lead_to_what_is_global() -> None:
    admission = Admission()
    assert admission.objection(packed("192.0.2.1"), WWW) == admission.objection(packed("2001:db8::1"), WWW) == ""


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "a special address"),
        ("::1", "a special address"),
        ("192.168.1.1", "a private address"),
        ("fd00::1", "a private address"),
        ("64:ff9b::10.0.0.1", "a private address"),
        ("2002:7f00:1::1", "a special address"),
    ],
)
def test_a_tunneled_name_may_not_lead_to_what_is_not_and_is_told_why(address: str, why: str) -> None:
    assert Admission().objection(packed(address), WWW) == why


@pytest.mark.parametrize("address", ["203.0.113.53", "2001:db8::53", "192.168.1.254"])
def test_what_this_machine_has_or_needs_is_nobodys_site_whatever_is_allowed(address: str) -> None:
    admission = Admission(private=frozenset({LAN}), taken=frozenset({packed(address)}))
    assert "of this machine" in admission.objection(packed(address), IN_LAN)
    assert admission.objection(packed("203.0.113.54"), WWW) == ""


@pytest.mark.parametrize(("name", "may"), [(LAN, True), (IN_LAN, True), (NEAR_LAN, False), (WWW, False)])
def test_a_zone_that_may_be_private_is_that_zone_and_what_is_below(name: bytes, may: bool) -> None:
    admission = Admission(private=frozenset({LAN}))
    assert admission.allows_private(name) is may
    assert bool(admission.objection(packed("192.168.1.1"), name)) is not may
    assert admission.rebinds(packed("192.168.1.1"), name) is not may


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:192.168.1.1"])
def test_what_is_special_is_not_private_and_no_zone_allows_a_tunneled_name_to_lead_there(address: str) -> None:
    admission = Admission(private=frozenset({LAN}))
    assert admission.objection(packed(address), IN_LAN) == "a special address"


# -- plain names


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "0.0.0.0", "10.0.0.1", "192.168.1.1", "169.254.169.254", "::1", "::", "fd00::1", "fe80::1"]
    + ["::ffff:10.0.0.1", "64:ff9b::192.168.1.1", "2002:c0a8:101::1", "100.64.0.1", "255.255.255.255"],
)
def test_a_plain_name_that_leads_into_the_private_network_is_a_rebinding(address: str) -> None:
    assert Admission().rebinds(packed(address), WWW)


@pytest.mark.parametrize("address", ["192.0.2.1", "8.8.8.8", "2001:db8::1", "64:ff9b::8.8.8.8"])
def test_a_plain_name_that_leads_outside_is_none_even_to_a_server_that_we_need(address: str) -> None:
    assert not Admission(taken=frozenset({packed(address)})).rebinds(packed(address), WWW)


# -- tunneled by address


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        ("198.51.100.7", True),
        ("198.51.101.7", False),
        ("10.9.9.9", True),
        ("2001:db8:1::1", True),
        ("2001:db8:2::1", False),
        ("::ffff:198.51.100.7", False),
    ],
)
def test_what_is_tunneled_by_itself_is_known(address: str, listed: bool) -> None:
    networks = tuple(map(ip_network, ("198.51.100.0/24", "10.0.0.0/8", "2001:db8:1::/48")))
    assert Admission(networks=networks).is_listed(packed(address)) is listed
    assert not Admission().is_listed(packed(address))
