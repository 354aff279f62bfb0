"""The nft table: what its rules say."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from itertools import product

import pytest

from splitwgd.bypasses import known_resolvers
from splitwgd.objects import FilterRule, Table
from splitwgd.ruleset import COUNTED, make_table, reason
from splitwgd.transaction import table_text
from tests.samples import ARTICLE_WG, WG, config_with
from tests.tables import ARTICLE, BYPASS, DOWN, NETWORKS, all_rules, each_table, rules_of

# -- what the rules say


INTO = "meta mark set meta mark & 0xffffff00 | 0x1 counter"
SAVED = "meta mark & 0xff == 0x1 ct mark set ct mark & 0xffffff00 | 0x1"
OF_BEFORE = "meta mark & 0xff == 0x1 ct status confirmed ct mark & 0xff != 0x1"
ENDED = "ct mark & 0xff == 0xff ct direction original"
REFUSED = ("meta l4proto tcp counter reject with tcp reset", "counter reject with icmpx admin-prohibited")
END_OF_BEFORE = [
    f"{OF_BEFORE} ct mark & 0xff != 0xff counter ct mark set ct mark & 0xffffff00 | 0xff",
    *(f"{OF_BEFORE} {refused}" for refused in REFUSED),
]
FLOWS = "meta l4proto { tcp, udp } th dport"
PORT_53 = f"{FLOWS} 53"


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


def test_every_chain_has_its_place() -> None:
    assert {chain.name: chain.shape for chain in ARTICLE.chains} == {
        "output": ("route", "output", -150, "accept"),
        "prerouting": ("filter", "prerouting", -150, "accept"),
        "output_nat": ("nat", "output", -100, "accept"),
        "refuse": ("filter", "output", 0, "accept"),
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


def test_without_the_redirect_port_53_is_like_any_other() -> None:
    table = make_table(config_with({"dns.redirect": "false"}))
    assert rules_of(table, "output_nat") == []
    assert "dport 53" not in table_text(table, None)


def test_bypassed_servers_are_neither_redirected_nor_kept_from_the_tunnel() -> None:
    table = make_table(config_with({"dns.bypass": BYPASS}))
    for chain, end in (("output_nat", "53 counter redirect to :53"), ("output", "{ 53, 853 } return")):
        exempt = [rule for rule in rules_of(table, chain) if rule.endswith(f"{FLOWS} {end}")]
        assert exempt == [
            f"ip daddr != {{ 192.0.2.77 }} {FLOWS} {end}",
            f"ip6 daddr != {{ 2001:db8::77 }} {FLOWS} {end}",
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


# -- other ways to ask


def refusals(port: int) -> list[str]:
    return [
        f"th dport {port} meta l4proto tcp counter reject with tcp reset",
        f"th dport {port} counter reject with icmpx admin-prohibited",
    ]


def shortened(rules: list[str]) -> list[str]:
    """The rules without the members of the sets of resolvers."""
    return [re.sub(r"(daddr !=) \{[^}]+\}", r"\1 RESOLVERS", rule) for rule in rules]


SCREEN = [
    f"{FLOWS} != {{ 53, 443, 853 }} return",
    "meta l4proto != { tcp, udp } return",
    "th dport 443 ip daddr != RESOLVERS return",
    "th dport 443 ip6 daddr != RESOLVERS return",
]
FORWARDED = [*(f"{ENDED} {refused}" for refused in REFUSED), *END_OF_BEFORE]
ALL_REFUSED = [*refusals(443), *refusals(853), *refusals(53)]


def test_who_asks_somebody_else_is_refused_and_whoever_asks_nothing_leaves_first() -> None:
    assert shortened(rules_of(ARTICLE, "refuse")) == [
        'oifname "lo" return',
        *SCREEN,
        "meta mark & 0xff { 0xfe, 0x1 } return",
        "fib daddr type local return",
        *ALL_REFUSED,
    ]


def test_who_is_forwarded_is_refused_the_same_but_for_what_somebody_leads_on_purpose() -> None:
    assert shortened(rules_of(ARTICLE, "refuse_forwarded")) == [
        *FORWARDED,
        *SCREEN,
        "ct status dnat return",
        "th dport 443 meta mark & 0xff { 0x1 } return",
        *ALL_REFUSED,
    ]


@pytest.mark.parametrize("off", list(product([False, True], repeat=3)))
def test_each_refusal_can_be_switched_off_by_itself(off: tuple[bool, ...]) -> None:
    keys = {"dns.redirect": 53, "dns.refuse_doh": 443, "dns.refuse_tls": 853}
    left = [port for port, without in zip(keys.values(), off, strict=True) if not without]
    table = make_table(
        config_with({key: "false" for key, without in zip(keys, off, strict=True) if without}, ARTICLE_WG)
    )
    for chain, before in (("refuse", ['oifname "lo" return']), ("refuse_forwarded", FORWARDED)):
        rules = rules_of(table, chain)
        if not left:
            assert rules == before
            continue
        assert rules[len(before)] == f"{FLOWS} != {{ {', '.join(map(str, left))} }} return"
        refused = [rule for rule in rules[len(before) :] if "reject" in rule]
        assert refused == [rule for port in (443, 853, 53) if port in left for rule in refusals(port)]
        assert any("443 ip" in rule for rule in rules) == (443 in left)
    marked = [rule for rule in rules_of(table, "output") if rule.startswith(FLOWS)]
    unmarked = [port for port in left if port != 443]
    assert marked == ([f"{FLOWS} {{ {', '.join(map(str, unmarked))} }} return"] if unmarked else [])


def test_servers_of_the_configuration_may_be_asked_over_https_and_bypassed_ones_everything() -> None:
    config = config_with(
        {
            "dns.default": '["9.9.9.9"]',
            "dns.tunneled": '["https://8.8.8.8/dns-query#dns.google"]',
            "dns.forward": '{ "a.b" = ["https://[2620:fe::fe]/dns-query#dns.quad9.net"] }',
            "dns.bypass": '["1.1.1.1", "2606:4700:4700::1111"]',
        }
    )
    for chain in ("refuse", "refuse_forwarded"):
        rules = rules_of(make_table(config), chain)
        known = [
            ip_network(text)
            for rule in rules
            if rule.startswith("th dport 443 ip") and rule.endswith("return")
            for text in rule.partition("{ ")[2].partition(" }")[0].split(", ")
        ]
        for asked in ("9.9.9.9", "8.8.8.8", "2620:fe::fe", "1.1.1.1", "2606:4700:4700::1111"):
            assert not any(ip_address(asked) in network for network in known), asked
        for other in ("9.9.9.10", "8.8.4.4", "2620:fe::9", "1.0.0.1", "2606:4700:4700::1001", "45.90.28.9"):
            assert any(ip_address(other) in network for network in known), other
        bypass = ["ip daddr { 1.1.1.1 } return", "ip6 daddr { 2606:4700:4700::1111 } return"]
        assert [rule for rule in rules if rule in bypass] == bypass
        assert rules.index(bypass[1]) < rules.index(refusals(443)[0])


def test_where_every_known_resolver_is_a_server_of_ours_none_is_refused() -> None:
    servers = [f'"{address}"' for network in known_resolvers(4) for address in network]
    rules = rules_of(make_table(config_with({"dns.bypass": f"[{', '.join(servers)}]"})), "refuse")
    assert "th dport 443 meta nfproto ipv4 return" in rules


def test_what_is_counted_is_known_by_the_reason_in_its_comment() -> None:
    counted = {reason(rule): rule.text for rule in all_rules(ARTICLE) if reason(rule) in COUNTED.values()}
    assert counted.keys() == set(COUNTED.values())
    assert all(re.search(r" counter (redirect|reject|ct mark set)", text) for text in counted.values())
    assert reason(FilterRule("", "somebody's")) == ""
