"""Wanted tables of many configurations, for the tests of what they say and of how they are written."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from splitwgd.objects import Downlink, FilterRule, Table
from splitwgd.ruleset import make_table
from tests.samples import ARTICLE_TOML, ARTICLE_WG, WG, config_with, load

ARTICLE = make_table(load(ARTICLE_TOML, ARTICLE_WG))
DOWNLINKS = frozenset(
    {
        Downlink("virbr0", 4, ip_address("192.168.122.1")),
        Downlink("docker0", 3, ip_address("172.17.0.1")),
        Downlink("docker0", 3, ip_address("fe80::3")),
    }
)
OF_BEFORE = "meta mark & 0xff == 0x1 ct status confirmed ct mark & 0xff != 0x1"
ENDED = "ct mark & 0xff == 0xff ct direction original"
REFUSED = ("meta l4proto tcp counter reject with tcp reset", "counter reject with icmpx admin-prohibited")
END_OF_BEFORE = [
    f"{OF_BEFORE} ct mark & 0xff != 0xff counter ct mark set ct mark & 0xffffff00 | 0xff",
    *(f"{OF_BEFORE} {refused}" for refused in REFUSED),
]
FLOWS = "meta l4proto { tcp, udp } th dport"
DOWN = frozenset({"wg0"})
NETWORKS = '["198.51.100.0/25", "198.51.100.128/25", "2001:db8::/32", "203.0.113.4/32"]'
BYPASS = '["192.0.2.77", "2001:db8::77"]'
# (the mask, a table under it)
TABLES = [
    pytest.param(0xFF, ARTICLE, id="the article's"),
    pytest.param(0xFF, make_table(config_with({"tunneled.networks": NETWORKS}), [0xCA6C], DOWN), id="down"),
    pytest.param(0xFF, make_table(config_with({"dns.bypass": BYPASS}, WG), [1, 2]), id="bypass"),
    pytest.param(0xFF, make_table(config_with({"dns.redirect": "false"})), id="no redirect"),
    pytest.param(0xFF, make_table(config_with({"dns.bypass": BYPASS}), downlinks=DOWNLINKS), id="for others"),
    pytest.param(
        0xF000, make_table(config_with({"routing.fwmark": "0x4000", "routing.fwmask": "0xf000"})), id="a mask inside"
    ),
    pytest.param(0x80000001, make_table(config_with({"routing.fwmask": "0x80000001"})), id="a mask at both ends"),
    pytest.param(0xFFFFFFFF, make_table(config_with({"routing.fwmask": "0xffffffff"})), id="all bits"),
]
each_table = pytest.mark.parametrize(("mask", "table"), TABLES)


def rules_of(table: Table, chain: str) -> list[str]:
    (found,) = [c for c in table.chains if c.name == chain]
    return [rule.text for rule in found.rules]


def all_rules(table: Table) -> list[FilterRule]:
    return [rule for chain in table.chains for rule in chain.rules]
