"""The nft table: what its rules say."""

from __future__ import annotations

from splitwgd.ruleset import make_arp_table, make_table
from tests.samples import WG, config_with
from tests.tables import ARTICLE, DOWN, DOWNLINKS, END_OF_BEFORE, ENDED, FLOWS, NETWORKS, OF_BEFORE, REFUSED, rules_of

INTO = "meta mark set meta mark & 0xffffff00 | 0x1 counter"
SAVED = "meta mark & 0xff == 0x1 ct mark set ct mark & 0xffffff00 | 0x1"


def test_the_articles_domains_are_led_into_the_tunnel_by_these_rules() -> None:
    assert rules_of(ARTICLE, "output") == [
        'oifname "lo" return',
        "meta mark & 0xff == 0xfe return",
        "meta mark & 0xff == 0x1 return",
        "ct mark & 0xff == 0x1 meta mark set meta mark & 0xffffff00 | 0x1 return",
        *(f"{ENDED} {refused}" for refused in REFUSED),
        "ct direction reply ct mark & 0xff == 0xfe return",
        f"{FLOWS} {{ 53, 853 }} return",
        # The article's tunnel has no v6 address: who was told of one hears at once that it leads nowhere.
        "ip6 daddr @wg_domains6 meta l4proto tcp counter reject with tcp reset",
        "ip6 daddr @wg_domains6 counter reject with icmpx admin-prohibited",
        "ip6 daddr @wg_networks6 meta l4proto tcp counter reject with tcp reset",
        "ip6 daddr @wg_networks6 counter reject with icmpx admin-prohibited",
        f"ip daddr @wg_domains4 {INTO}",
        f"ip6 daddr @wg_domains6 {INTO}",
        f"ip daddr @wg_networks4 {INTO}",
        f"ip6 daddr @wg_networks6 {INTO}",
        *END_OF_BEFORE,
        SAVED,
    ]


def test_what_is_forwarded_goes_the_same_way() -> None:
    assert rules_of(ARTICLE, "prerouting") == [
        'iifname "lo" return',
        'iifname != "wg0" ip daddr { 10.1.0.2 } fib saddr type != local counter drop',
        'iifname "wg0" ct state new ct mark set ct mark & 0xffffff00 | 0x1',
        'iifname "wg0" return',
        "ct state != new fib daddr type local return",
        "tcp flags & (syn | ack) != syn fib daddr type local return",
        "fib daddr type local ct mark set ct mark & 0xffffff00 | 0xfe return",
        "ct mark & 0xff == 0x1 meta mark set meta mark & 0xffffff00 | 0x1 return",
        "ct direction reply return",
        f"{FLOWS} {{ 53, 853 }} return",
        *rules_of(ARTICLE, "output")[-8:-4],
        f"{OF_BEFORE} return",
        SAVED,
    ]


def test_what_leaves_by_the_tunnel_bears_the_tunnels_address() -> None:
    assert rules_of(ARTICLE, "postrouting") == ['meta mark & 0xff == 0x1 oifname "wg0" masquerade']


def test_what_comes_to_us_by_the_tunnel_passes_a_firewall_that_asks_for_its_way_back() -> None:
    assert rules_of(ARTICLE, "to_us") == [
        'iifname "wg0" fib daddr type local meta mark set meta mark & 0xffffff00 | 0x1'
    ]


def test_every_chain_has_its_place() -> None:
    assert {chain.name: chain.shape for chain in ARTICLE.chains} == {
        "output": ("route", "output", -150, "accept"),
        "prerouting": ("filter", "prerouting", -150, "accept"),
        "output_nat": ("nat", "output", -100, "accept"),
        # Behind the container engines' own, so that what they lead somewhere has been led.
        "prerouting_nat": ("nat", "prerouting", -90, "accept"),
        "refuse": ("filter", "output", 0, "accept"),
        "to_us": ("filter", "prerouting", -90, "accept"),
        "refuse_forwarded": ("filter", "forward", 0, "accept"),
        "last_door": ("filter", "postrouting", -150, "accept"),
        "postrouting": ("nat", "postrouting", 100, "accept"),
    }


def test_the_mss_is_the_tunnels() -> None:
    match = 'oifname "wg0" tcp flags & (syn | rst) == syn'
    assert f"{match} tcp option maxseg size set rt mtu" in rules_of(ARTICLE, "last_door")


def test_the_last_door_stands_open_to_the_tunnel_and_lo_alone() -> None:
    assert rules_of(ARTICLE, "last_door")[:2] == [
        'oifname "lo" return',
        'meta mark & 0xff == 0x1 oifname != "wg0" counter drop',
    ]


def test_a_question_that_is_led_here_does_not_leave_by_the_link_that_its_program_is_bound_to() -> None:
    assert rules_of(ARTICLE, "last_door")[-2:] == ["ip daddr 127.0.0.0/8 counter drop", "ip6 daddr ::1 counter drop"]


def test_an_answer_to_whom_we_forward_for_is_not_led_into_the_tunnel_with_the_flow_that_it_is_about() -> None:
    rules = rules_of(make_table(config_with({}), downlinks=DOWNLINKS), "output")
    answer = rules.index('ct direction reply oifname { "docker0", "virbr0" } return')
    assert answer < rules.index("ct mark & 0xff == 0x1 meta mark set meta mark & 0xffffff00 | 0x1 return")


def test_while_the_tunnel_is_down_on_purpose_its_packets_are_refused_before_they_are_marked() -> None:
    output = rules_of(make_table(config_with({}), down=DOWN), "output")
    for match in ("ct mark & 0xff == 0x1", "ip daddr @wg_domains4", "ip6 daddr @wg_networks6"):
        about = [rule.removeprefix(match) for rule in output if rule.startswith(match)]
        assert about[:2] == [
            " meta l4proto tcp counter reject with tcp reset",
            " counter reject with icmpx admin-prohibited",
        ]
        assert "mark set" in about[2]
    up = [rule for rule in rules_of(make_table(config_with({})), "output") if "reject" in rule]
    assert all(rule.startswith((ENDED, OF_BEFORE)) for rule in up)


def test_what_has_no_v6_route_of_its_own_does_not_slip_into_the_tunnel() -> None:
    wg = WG.replace("::/0", "::/1, 8000::/1, 2001:db8:7::/48")
    inside = "{ 2001:db8:7::/48, fd00:1::/64 }"
    match = f'meta mark & 0xff != 0x1 oifname "wg0" ip6 daddr != {inside}'
    assert rules_of(make_table(config_with({}, wg)), "refuse")[1:3] == [
        f"{match} meta l4proto tcp counter reject with tcp reset",
        f"{match} counter reject with icmpx admin-prohibited",
    ]
    assert "wg0" not in " ".join(rules_of(ARTICLE, "refuse"))


def test_the_tunnels_own_address_is_not_for_the_lan_to_ask() -> None:
    drops = [rule for rule in rules_of(make_table(config_with({})), "prerouting") if "drop" in rule]
    ours = 'iifname != "wg0"'
    assert drops == [
        f"{ours} ip daddr {{ 10.1.0.2 }} fib saddr type != local counter drop",
        f"{ours} ip6 daddr {{ fd00:1::2 }} fib saddr type != local counter drop",
    ]


def test_who_asks_the_wire_for_the_tunnels_own_address_is_not_heard() -> None:
    table = make_arp_table(config_with({}))
    assert table is not None and (table.family, [chain.hook for chain in table.chains]) == ("arp", ["input"])
    assert rules_of(table, "input") == ["arp operation request arp daddr ip { 10.1.0.2 } drop"]
    assert make_arp_table(config_with({}, WG.replace("10.1.0.2/24, ", ""))) is None, "IPv6 does so by itself"


def test_outer_packets_of_an_adopted_link_pass_whatever_port_they_go_to() -> None:
    table = make_table(config_with({}), [0xCA6C])
    for chain, before in (("output", "redirect"), ("output_nat", "redirect"), ("refuse", "reject")):
        rules = rules_of(table, chain)
        passed = rules.index("meta mark 0xca6c return")
        assert not any(before in rule or "mark set" in rule for rule in rules[:passed] if "oifname" not in rule)


def test_sets_of_names_are_hashes_and_networks_are_merged_intervals() -> None:
    sets = {set_.name: set_ for set_ in make_table(config_with({"tunneled.networks": NETWORKS})).sets}
    assert list(sets) == ["wg_domains4", "wg_domains6", "wg_networks4", "wg_networks6"]
    assert sets["wg_domains4"].shape == ("ipv4_addr", frozenset({"timeout"}), 131072)
    assert sets["wg_domains6"].shape == ("ipv6_addr", frozenset({"timeout"}), 131072)
    assert {str(network) for network in sets["wg_networks4"].members} == {"198.51.100.0/24", "203.0.113.4/32"}
    assert {str(network) for network in sets["wg_networks6"].members} == {"2001:db8::/32"}
