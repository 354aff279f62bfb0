"""The nft table: what its rules say."""

from __future__ import annotations

import re

from splitwgd.objects import Table
from splitwgd.ruleset import make_table
from splitwgd.transaction import table_text
from tests.samples import WG, config_with
from tests.tables import ARTICLE, BYPASS, DOWN, NETWORKS, all_rules, each_table, rules_of

# -- what the rules say


INTO = "meta mark set meta mark & 0xffffff00 | 0x1 ct mark set ct mark & 0xffffff00 | 0x1 counter"
PORT_53 = "meta l4proto { tcp, udp } th dport 53"


def test_the_articles_domains_are_led_into_the_tunnel_by_these_rules() -> None:
    assert rules_of(ARTICLE, "output") == [
        'oifname "lo" return',
        "meta mark & 0xff == 0xfe return",
        "meta mark & 0xff == 0x1 return",
        "ct mark & 0xff == 0x1 meta mark set meta mark & 0xffffff00 | 0x1 return",
        "ct direction reply return",
        f"{PORT_53} return",
        # The article's tunnel has no v6 address: who was told of one hears at once that it leads nowhere.
        "ip6 daddr @wg_domains6 meta l4proto tcp counter reject with tcp reset",
        "ip6 daddr @wg_domains6 counter reject with icmpx admin-prohibited",
        "ip6 daddr @wg_networks6 meta l4proto tcp counter reject with tcp reset",
        "ip6 daddr @wg_networks6 counter reject with icmpx admin-prohibited",
        f"ip daddr @wg_domains4 {INTO}",
        f"ip6 daddr @wg_domains6 {INTO}",
        f"ip daddr @wg_networks4 {INTO}",
        f"ip6 daddr @wg_networks6 {INTO}",
    ]


def test_every_question_is_the_forwarders() -> None:
    assert rules_of(ARTICLE, "output_nat") == [
        "meta mark & 0xff { 0xfe, 0x1 } return",
        "fib daddr type local return",
        "ip6 daddr fe80::/10 return",
        f"{PORT_53} counter redirect to :53",
    ]


def test_what_is_forwarded_goes_the_same_way() -> None:
    assert rules_of(ARTICLE, "prerouting") == [
        'iifname "lo" return',
        'iifname != "wg0" ip daddr { 10.1.0.2 } fib saddr type != local counter drop',
        'iifname "wg0" ct state new ct mark set ct mark & 0xffffff00 | 0x1',
        'iifname "wg0" return',
        "fib daddr type local return",
        "ct mark & 0xff == 0x1 meta mark set meta mark & 0xffffff00 | 0x1 return",
        "ct direction reply return",
        *rules_of(ARTICLE, "output")[-4:],
    ]


def test_what_leaves_by_the_tunnel_bears_the_tunnels_address() -> None:
    assert rules_of(ARTICLE, "postrouting") == ['meta mark & 0xff == 0x1 oifname "wg0" masquerade']


def test_every_chain_has_its_place() -> None:
    assert {chain.name: chain.shape for chain in ARTICLE.chains} == {
        "output": ("route", "output", -150, "accept"),
        "prerouting": ("filter", "prerouting", -150, "accept"),
        "output_nat": ("nat", "output", -100, "accept"),
        "refuse": ("filter", "output", 0, "accept"),
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


def test_without_the_redirect_port_53_is_like_any_other() -> None:
    table = make_table(config_with({"dns.redirect": "false"}))
    assert rules_of(table, "output_nat") == []
    assert "dport 53" not in table_text(table, None)


def test_bypassed_servers_are_neither_redirected_nor_kept_from_the_tunnel() -> None:
    table = make_table(config_with({"dns.bypass": BYPASS}))
    for chain, end in (("output_nat", "counter redirect to :53"), ("output", "return")):
        exempt = [rule for rule in rules_of(table, chain) if rule.endswith(f"{PORT_53} {end}")]
        assert exempt == [
            f"ip daddr != {{ 192.0.2.77 }} {PORT_53} {end}",
            f"ip6 daddr != {{ 2001:db8::77 }} {PORT_53} {end}",
        ]


def test_while_the_tunnel_is_down_on_purpose_its_packets_are_refused_before_they_are_marked() -> None:
    output = rules_of(make_table(config_with({}), down=DOWN), "output")
    for match in ("ct mark & 0xff == 0x1", "ip daddr @wg_domains4", "ip6 daddr @wg_networks6"):
        about = [rule.removeprefix(match) for rule in output if rule.startswith(match)]
        assert about[:2] == [
            " meta l4proto tcp counter reject with tcp reset",
            " counter reject with icmpx admin-prohibited",
        ]
        assert "mark set" in about[2]
    assert "reject" not in " ".join(rules_of(make_table(config_with({})), "output"))


def test_what_has_no_v6_route_of_its_own_does_not_slip_into_the_tunnel() -> None:
    wg = WG.replace("::/0", "::/1, 8000::/1, 2001:db8:7::/48")
    inside = "{ 2001:db8:7::/48, fd00:1::/64 }"
    match = f'meta mark & 0xff != 0x1 oifname "wg0" ip6 daddr != {inside}'
    assert rules_of(make_table(config_with({}, wg)), "refuse")[-2:] == [
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


def test_outer_packets_of_an_adopted_link_pass() -> None:
    assert rules_of(make_table(config_with({}), [0xCA6C]), "output")[2] == "meta mark 0xca6c return"


def test_sets_of_names_are_hashes_and_networks_are_merged_intervals() -> None:
    sets = {set_.name: set_ for set_ in make_table(config_with({"tunneled.networks": NETWORKS})).sets}
    assert list(sets) == ["wg_domains4", "wg_domains6", "wg_networks4", "wg_networks6"]
    assert sets["wg_domains4"].shape == ("ipv4_addr", frozenset({"timeout"}), 131072)
    assert sets["wg_domains6"].shape == ("ipv6_addr", frozenset({"timeout"}), 131072)
    assert {str(network) for network in sets["wg_networks4"].members} == {"198.51.100.0/24", "203.0.113.4/32"}
    assert {str(network) for network in sets["wg_networks6"].members} == {"2001:db8::/32"}


@each_table
def test_no_write_of_a_mark_touches_a_foreign_bit(mask: int, table: Table) -> None:
    text = table_text(table, None)
    keeping = re.findall(r"(meta|ct) mark set \1 mark & (0x[0-9a-f]+) \| (0x[0-9a-f]+)\b", text)
    assert len(keeping) == text.count("mark set") > 0
    for _, kept, put in keeping:
        assert int(kept, 16) == ~mask & 0xFFFFFFFF
        assert int(put, 16) & ~mask == 0


@each_table
def test_no_comparison_of_a_mark_looks_at_a_foreign_bit(mask: int, table: Table) -> None:
    for rule in all_rules(table):
        if "outer packets of an adopted link" not in rule.comment:
            compared = re.sub(r"(meta|ct) mark set \1 mark & 0x\w+ \| 0x\w+", "", rule.text)
            assert compared.count(" mark") + compared.startswith("mark") == compared.count(f" mark & {mask:#x} ")


@each_table
def test_a_rule_is_known_by_a_comment_that_the_kernel_takes(mask: int, table: Table) -> None:
    digests: dict[str, str] = {}
    for rule in all_rules(table):
        assert re.fullmatch(r"[^\"\n]+ \[[0-9a-f]{8}\]", rule.comment)
        assert len(rule.comment.encode()) < 128
        assert digests.setdefault(rule.comment, rule.text) == rule.text


def test_another_mark_makes_other_comments() -> None:
    other = make_table(config_with({"routing.fwmark": "0x2"}))
    ours = {rule.comment for rule in all_rules(make_table(config_with({}))) if "0x1" in rule.text}
    assert ours.isdisjoint(rule.comment for rule in all_rules(other))
