"""wg-quick files: what is read of them, what is named and not followed, and every problem with its line."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.objects import Endpoint, Peer
from splitwgd.wgconf import WgConfig, parse_endpoint, parse_wgconf
from tests.samples import ARTICLE_WG, OTHER_KEY, PRIVATE_KEY, PUBLIC_KEY

PEER = f"[Peer]\nPublicKey = {PUBLIC_KEY}\nAllowedIPs = 0.0.0.0/0\n"
INTERFACE = f"[Interface]\nPrivateKey = {PRIVATE_KEY}\nAddress = 10.1.0.2/24\n"


def read(text: str) -> WgConfig:
    config, problems = parse_wgconf(text, "wg0.conf")
    assert problems == []
    assert config is not None
    return config


def problems_of(text: str) -> list[str]:
    config, problems = parse_wgconf(text, "wg0.conf")
    assert (config is None) == bool(problems)
    return [str(problem) for problem in problems]


def with_interface(line: str) -> str:
    """A file that is right but for this line, its fourth."""
    return INTERFACE + line + "\n" + PEER


def with_peer(line: str) -> str:
    """A file that is right but for this line, its seventh."""
    return INTERFACE + PEER + line + "\n"


def test_the_articles_file_is_read() -> None:
    config = read(ARTICLE_WG)
    everything = frozenset({ip_network("0.0.0.0/0"), ip_network("::/0")})
    assert config.private_key == bytes(range(31)) + b"\x5f"  # clamped, as WireGuard keeps it
    assert config.addresses == (ip_interface("10.1.0.2/24"),)
    assert (config.mtu, config.listen_port) == (1420, 0)
    assert config.peers == (Peer(bytes(range(32, 64)), None, everything, 25),)
    assert config.peers[0].endpoint == Endpoint("192.0.2.1", 51820)


def test_the_articles_commands_are_named_each_with_its_line_and_not_run() -> None:
    notes = read(ARTICLE_WG).notes
    assert notes[0] == "wg0.conf:5: not followed: Table = off (splitwgd routes by mark, as with Table = off)"
    assert notes[2] == "wg0.conf:9: not run: PostUp = ip rule add fwmark 0x1 table 100 priority 100"
    assert sum("not run: PostUp" in note for note in notes) == 12
    assert sum("not run: PostDown" in note for note in notes) == 2


@pytest.mark.parametrize("key", ["PreUp", "POSTUP", "predown", "PostDown", "DNS", "Table", "FwMark", "SaveConfig"])
def test_what_is_not_followed_is_told(key: str) -> None:
    (note,) = read(with_interface(f"{key} = x")).notes
    assert note.startswith("wg0.conf:4: not ")
    assert f"{key} = x" in note


def test_keys_and_sections_are_read_in_any_case_and_around_comments() -> None:
    text = f"""
# a provider's file
[INTERFACE]   # ours
privatekey={PRIVATE_KEY}#no space
ADDRESS  =  10.1.0.2/24 , fd00::2/64
address = 10.1.0.3
LISTENPORT = 0xCA6C
mtu = 1380
[peer]
pubLICKey = {PUBLIC_KEY}
presharedKEY = {OTHER_KEY}
allowedips = 10.0.0.0/8
AllowedIPs = 192.0.2.7/24,
AllowedIPs = ::/0
persistentkeepalive = off
"""
    config = read(text)
    assert [str(address) for address in config.addresses] == ["10.1.0.2/24", "fd00::2/64", "10.1.0.3/32"]
    assert (config.listen_port, config.mtu) == (51820, 1380)
    (peer,) = config.peers
    assert {str(network) for network in peer.allowed} == {"10.0.0.0/8", "192.0.2.0/24", "::/0"}
    assert peer.preshared_key == bytes(range(64, 96))
    assert (peer.keepalive, peer.endpoint) == (0, None)


@pytest.mark.parametrize(
    ("line", "keepalive"), [("0", 0), ("25", 25), ("65535", 65535), ("0x19", 25), ("off", 0), ("OFF", 0)]
)
def test_a_keepalive_is_seconds_or_off(line: str, keepalive: int) -> None:
    assert read(with_peer(f"PersistentKeepalive = {line}")).peers[0].keepalive == keepalive


def test_port_0_is_the_kernels_choice() -> None:
    assert read(with_interface("ListenPort = 0")).listen_port == 0


def test_a_private_key_is_clamped_and_a_preshared_key_of_zeros_is_none() -> None:
    config = read(with_peer(f"PresharedKey = {'A' * 43}=").replace(PRIVATE_KEY, "/" * 42 + "8="))
    assert (config.private_key[0], config.private_key[31]) == (0xF8, 0x7F)
    assert config.peers[0].preshared_key is None


def test_a_network_that_two_peers_claim_is_the_last_ones() -> None:
    config = read(with_peer("AllowedIPs = ::/0") + PEER.replace(PUBLIC_KEY, OTHER_KEY))
    assert [{str(network) for network in peer.allowed} for peer in config.peers] == [{"::/0"}, {"0.0.0.0/0"}]


def test_peers_stay_in_their_order() -> None:
    config = read(INTERFACE + PEER + PEER.replace(PUBLIC_KEY, OTHER_KEY))
    assert [peer.public_key[0] for peer in config.peers] == [32, 64]


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("192.0.2.1:51820", Endpoint("192.0.2.1", 51820)),
        ("[2001:db8::1]:51820", Endpoint("2001:db8::1", 51820)),
        ("[2001:DB8:0::1]:1", Endpoint("2001:db8::1", 1)),
        ("vpn.example.com:65535", Endpoint("vpn.example.com", 65535)),
        ("4you.example:1", Endpoint("4you.example", 1)),
    ],
)
def test_an_endpoint_is_an_address_or_a_name_with_a_port(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.1",
        "192.0.2.1:",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:+5",
        "192.0.2.300:5",
        "2001:db8::1",
        "2001:db8::1::5",
        "[2001:db8::1]",
        "[vpn.example.com]:5",
        ":5",
        "vpn..example:5",
        "vpn example:5",
        "192.0.2.1:²",
        pytest.param("192.0.2.1:" + "1" * 5000, id="5000 digits"),
    ],
)
def test_an_endpoint_that_leads_nowhere_is_a_problem_of_its_line(text: str) -> None:
    (problem,) = problems_of(with_peer(f"Endpoint = {text}"))
    assert problem.startswith(f"wg0.conf:7: Endpoint = {text!r}")
    assert "; " in problem


ONE_LINE_WRONG = [
    (with_interface("Address = 10.1.0.300"), "wg0.conf:4: Address = '10.1.0.300' cannot be read; write an address"),
    (with_interface("MTU = 575"), "wg0.conf:4: MTU = '575' is out of range; write a number from 576 to 65535"),
    (with_interface("MTU = many"), "wg0.conf:4: MTU = 'many' is out of range"),
    (with_interface("ListenPort = 65536"), "wg0.conf:4: ListenPort = '65536' is out of range"),
    (with_interface("MTU = 1400\nMTU = 1300"), "wg0.conf:5: MTU for the second time; keep one"),
    (with_interface("Adress = 10.1.0.2"), "wg0.conf:4: unknown key 'Adress'; the keys here are address, listenport"),
    (with_interface("PublicKey = x"), "wg0.conf:4: unknown key 'PublicKey'"),
    (with_interface("hello"), "wg0.conf:4: 'hello' is no setting; write KEY = VALUE"),
    (with_interface("= 5"), "wg0.conf:4: this line is no setting"),
    (with_interface("[Interface]"), "wg0.conf:4: a second [Interface]; keep one"),
    (with_interface("[Server]"), "wg0.conf:4: unknown section 'Server'; the sections are [Interface] and [Peer]"),
    (with_peer("AllowedIPs = ::/0, here"), "wg0.conf:7: AllowedIPs = 'here' cannot be read; write networks"),
    (with_peer("PersistentKeepalive = -1"), "wg0.conf:7: PersistentKeepalive = '-1' is out of range"),
    (with_peer("PersistentKeepalive = 65536"), "wg0.conf:7: PersistentKeepalive = '65536' is out of range"),
    (with_peer("PresharedKey = short"), "wg0.conf:7: PresharedKey is no WireGuard key"),
    (with_peer("PostUp = true"), "wg0.conf:7: unknown key 'PostUp'"),
    ("MTU = 1400\n" + INTERFACE + PEER, "wg0.conf:1: 'MTU' stands before any section"),
    (INTERFACE, "wg0.conf: no [Peer] section; add the server's"),
    (PEER, "wg0.conf: no [Interface] section"),
    ("[Interface]\nAddress = 10.1.0.2\n" + PEER, "wg0.conf: [Interface] has no PrivateKey"),
    (f"[Interface]\nPrivateKey = {PRIVATE_KEY}\n" + PEER, "wg0.conf: [Interface] has no Address"),
    (INTERFACE + "[Peer]\nAllowedIPs = ::/0\n", "wg0.conf:4: this [Peer] has no PublicKey"),
    (INTERFACE + f"[Peer]\nPublicKey = {PUBLIC_KEY}\n", "wg0.conf:4: this [Peer] has no AllowedIPs"),
    (INTERFACE + PEER + PEER, "wg0.conf: two [Peer] sections with the same PublicKey; make them one"),
]


@pytest.mark.parametrize(("text", "told"), ONE_LINE_WRONG, ids=[told for _, told in ONE_LINE_WRONG])
def test_one_wrong_thing_is_one_problem(text: str, told: str) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith(told)


def test_every_problem_is_told_at_once() -> None:
    wrong = "[Interface]\nPrivateKey = no\nAddress = no\nMTU = no\n[Peer]\nPublicKey = no\nAllowedIPs = no\nKey = no\n"
    lines = [problem.split(": ")[0] for problem in problems_of(wrong)]
    assert [f"wg0.conf:{number}" for number in (2, 3, 4, 6, 7, 8)] == lines[:6]


def test_two_peers_without_a_key_are_not_called_the_same_peer() -> None:
    without = "[Peer]\nAllowedIPs = ::/0\n"
    assert not [problem for problem in problems_of(INTERFACE + without + without) if "same PublicKey" in problem]


@pytest.mark.parametrize(
    "line",
    [
        f"PrivateKey = {PRIVATE_KEY[:-2]}",
        f"PrivateKey = {PRIVATE_KEY}\nPrivateKey = {PRIVATE_KEY}",
        f"PrivateKey = {PRIVATE_KEY} {PRIVATE_KEY}",
        f"PrivateKey {PRIVATE_KEY}",
        f"PrivateKey: {PRIVATE_KEY}",
        PRIVATE_KEY,
        f"PrivateKey = ä{PRIVATE_KEY}",
    ],
)
def test_a_private_key_is_never_repeated(line: str) -> None:
    problems = problems_of(f"[Interface]\n{line}\nAddress = 10.1.0.2/24\n{PEER}")
    assert problems
    assert not [problem for problem in problems if PRIVATE_KEY[:12] in problem]


def test_a_private_key_is_not_in_the_values_text() -> None:
    assert repr(bytes(range(32)))[2:12] not in repr(read(ARTICLE_WG))


@pytest.mark.parametrize(
    ("addresses", "allowed", "families"),
    [
        ("10.1.0.2/24", "0.0.0.0/0, ::/0", {4}),
        ("10.1.0.2/24, fd00::2/64", "0.0.0.0/0", {4}),
        ("10.1.0.2/24, fd00::2/64", "0.0.0.0/0, ::/0", {4, 6}),
        ("fd00::2/64", "0.0.0.0/0", set()),
    ],
)
def test_a_family_is_carried_by_an_address_and_a_peer_of_it(addresses: str, allowed: str, families: set[int]) -> None:
    interface = f"[Interface]\nPrivateKey = {PRIVATE_KEY}\nAddress = {addresses}\n"
    config = read(interface + f"[Peer]\nPublicKey = {PUBLIC_KEY}\nAllowedIPs = {allowed}\n")
    assert {family for family in (4, 6) if config.carries(family)} == families


pieces = st.sampled_from(
    ["[Interface]", "[Peer]", "[", "PrivateKey", "Address", "AllowedIPs", "Endpoint", "MTU", "=", ",", "#", ":", "\n"]
    + ["0", "1/1", "::", "%", " ", PRIVATE_KEY, "off", "\0"]
)


@given(st.lists(pieces, max_size=30).map("".join))
def test_whatever_is_written_is_a_config_or_problems(text: str) -> None:
    config, problems = parse_wgconf(text, "wg0.conf")
    assert (config is None) == bool(problems)
