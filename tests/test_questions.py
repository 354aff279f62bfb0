"""Which questions are led to the forwarder, and which other ways to ask are refused."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from itertools import product

import pytest

from splitwgd.bypasses import known_resolvers
from splitwgd.objects import FilterRule
from splitwgd.questions import COUNTED
from splitwgd.rules import reason
from splitwgd.ruleset import make_table
from splitwgd.transaction import table_text
from tests.samples import ARTICLE_WG, config_with
from tests.tables import ARTICLE, BYPASS, DOWNLINKS, END_OF_BEFORE, ENDED, FLOWS, REFUSED, all_rules, rules_of

PORT_53 = f"{FLOWS} 53"


def test_every_question_is_the_forwarders() -> None:
    assert rules_of(ARTICLE, "output_nat") == [
        "meta mark & 0xff { 0xfe, 0x1 } return",
        "fib daddr type local return",
        "ip6 daddr fe80::/10 return",
        f"{PORT_53} counter redirect to :53",
    ]


def test_who_is_forwarded_is_led_to_the_door_on_his_own_link() -> None:
    table = make_table(config_with({}), downlinks=DOWNLINKS)
    assert rules_of(table, "prerouting_nat") == [
        "fib daddr type { local, broadcast, anycast, multicast } return",
        "fib daddr . iif oif exists return",
        f'iifname "docker0" meta nfproto ipv4 {PORT_53} counter dnat ip to 172.17.0.1:253',
        f'iifname "docker0" meta nfproto ipv6 {PORT_53} counter dnat ip6 to [fe80::3]:253',
        f'iifname "virbr0" meta nfproto ipv4 {PORT_53} counter dnat ip to 192.168.122.1:253',
    ]
    assert rules_of(ARTICLE, "prerouting_nat") == []


def test_who_is_forwarded_may_ask_bypassed_servers() -> None:
    rules = rules_of(make_table(config_with({"dns.bypass": BYPASS}), downlinks=DOWNLINKS), "prerouting_nat")
    assert [rule.partition(" meta")[0] for rule in rules[2:]] == [
        'iifname "docker0" ip daddr != { 192.0.2.77 }',
        'iifname "docker0" ip6 daddr != { 2001:db8::77 }',
        'iifname "virbr0" ip daddr != { 192.0.2.77 }',
    ]


def test_without_the_redirect_port_53_is_like_any_other() -> None:
    table = make_table(config_with({"dns.redirect": "false"}), downlinks=DOWNLINKS)
    assert rules_of(table, "output_nat") == rules_of(table, "prerouting_nat") == []
    assert "dport 53" not in table_text(table, None)


def test_bypassed_servers_are_neither_redirected_nor_kept_from_the_tunnel() -> None:
    table = make_table(config_with({"dns.bypass": BYPASS}))
    for chain, end in (("output_nat", "53 counter redirect to :53"), ("output", "{ 53, 853 } return")):
        exempt = [rule for rule in rules_of(table, chain) if rule.endswith(f"{FLOWS} {end}")]
        assert exempt == [
            f"ip daddr != {{ 192.0.2.77 }} {FLOWS} {end}",
            f"ip6 daddr != {{ 2001:db8::77 }} {FLOWS} {end}",
        ]


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
