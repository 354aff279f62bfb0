"""Transactions: how the table is written, and that it is known again when it is read back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from splitwgd.objects import Chain, Element, FilterRule, Set, Table
from splitwgd.ruleset import make_table
from splitwgd.transaction import read_table, table_text
from tests.samples import config_with
from tests.tables import ARTICLE, NETWORKS, each_table

# -- written


STATEMENT = re.compile(
    r"(add table|flush table) inet wg_routing"
    r"|(delete chain|delete set|flush set) inet wg_routing \w+"
    r"|add set inet wg_routing \w+ \{ type ipv[46]_addr; flags \w+;( size \d+;)? \}"
    r"|add chain inet wg_routing \w+ \{ type \w+ hook \w+ priority -?\d+; policy accept; \}"
    r"|add element inet wg_routing \w+ \{ [^{}]+ \}"
    r'|add rule inet wg_routing \w+ [^"].* comment "[^"]+"'
)


def words(text: str, *verbs: str) -> list[str]:
    """The statements that begin with one of these, without the table's name."""
    return [line.replace("inet wg_routing ", "") for line in text.split("\n") if line.startswith(verbs)]


@each_table
def test_a_transaction_is_a_statement_a_line(mask: int, table: Table) -> None:
    for line in table_text(table, None).split("\n"):
        assert STATEMENT.fullmatch(line), line
        assert line.count("{") == line.count("}")
        assert line.count("(") == line.count(")")
        assert "  " not in line


@each_table
def test_what_a_rule_names_is_made_before_it(mask: int, table: Table) -> None:
    made: set[str] = set()
    for line in table_text(table, None).split("\n"):
        verb, what, *_ = line.split()
        if (verb, what) in (("add", "set"), ("add", "chain")):
            made.add(line.split()[4])
        elif (verb, what) == ("add", "rule"):
            assert {line.split()[4], *re.findall(r"@(\w+)", line)} <= made


def test_an_unchanged_table_is_rewritten_without_touching_learned_addresses() -> None:
    text = table_text(ARTICLE, ARTICLE, [Element("wg_domains4", ip_address("192.0.2.1").packed, "github.com", 60.0)])
    assert text.split("\n")[:2] == ["add table inet wg_routing", "flush table inet wg_routing"]
    assert words(text, "delete", "flush set", "add element") == ["flush set wg_networks4", "flush set wg_networks6"]


def test_networks_are_replaced_whole() -> None:
    text = table_text(make_table(config_with({"tunneled.networks": NETWORKS})), ARTICLE)
    assert words(text, "flush set", "add element") == [
        "flush set wg_networks4",
        "add element wg_networks4 { 198.51.100.0/24, 203.0.113.4/32 }",
        "flush set wg_networks6",
        "add element wg_networks6 { 2001:db8::/32 }",
    ]


def with_set(table: Table, name: str, **changes: Any) -> Table:
    return replace(table, sets=tuple(replace(s, **changes) if s.name == name else s for s in table.sets))


def test_a_set_of_another_shape_is_made_anew_with_its_elements_in_it() -> None:
    found = with_set(ARTICLE, "wg_domains4", flags=frozenset({"interval", "timeout"}))  # as the article made it
    elements = [
        Element("wg_domains4", ip_address("192.0.2.1").packed, "github.com", 90.0),
        Element("wg_domains6", ip_address("2001:db8::1").packed, "github.com", 90.0),
    ]
    text = table_text(ARTICLE, found, elements)
    deleted, made, filled = (
        text.index(f"{verb} inet wg_routing wg_domains4") for verb in ("delete set", "add set", "add element")
    )
    assert text.index("flush table") < deleted < made < filled
    assert words(text, "add element", "delete set") == [
        "delete set wg_domains4",
        'add element wg_domains4 { 192.0.2.1 timeout 90s expires 90s comment "github.com" }',
    ]


def test_a_table_that_is_not_there_comes_with_all_its_elements() -> None:
    elements = [Element("wg_domains4", ip_address("192.0.2.1").packed, "github.com", 90.0)]
    assert len(words(table_text(ARTICLE, None, elements), "add element")) == 1
    assert words(table_text(ARTICLE, None, elements), "delete") == []


def test_what_somebody_else_put_into_our_table_goes() -> None:
    chain = Chain("theirs", "filter", "output", 0, (FilterRule("", "theirs"),))
    found = replace(
        ARTICLE,
        chains=(*ARTICLE.chains, chain),
        sets=(*ARTICLE.sets, Set("extra", "mark", frozenset())),
        strays=frozenset({("map", "m"), ("counter", "c")}),
    )
    assert words(table_text(ARTICLE, found), "delete") == [
        "delete counter c",
        "delete map m",
        "delete chain theirs",
        "delete set extra",
    ]


def test_a_chain_at_another_hook_is_made_anew() -> None:
    chains = tuple(replace(chain, priority=7) if chain.name == "output" else chain for chain in ARTICLE.chains)
    text = table_text(ARTICLE, replace(ARTICLE, chains=chains))
    assert words(text, "delete") == ["delete chain output"]
    assert text.index("delete chain inet wg_routing output") < text.index("add chain inet wg_routing output ")


FOUR = ip_address("192.0.2.1").packed
ELEMENTS = [
    Element("wg_domains4", FOUR, "a.example b.example", 3600.0),
    Element("wg_domains6", ip_address("2001:db8::1").packed, "a.example", 90.0),
    Element("wg_domains4", ip_address("192.0.2.2").packed, "a.example", 60.0),
]


def test_elements_are_put_in_one_group_a_set() -> None:
    assert words(table_text(ARTICLE, None, ELEMENTS), "add element") == [
        'add element wg_domains4 { 192.0.2.1 timeout 3600s expires 3600s comment "a.example b.example", '
        '192.0.2.2 timeout 60s expires 60s comment "a.example" }',
        'add element wg_domains6 { 2001:db8::1 timeout 90s expires 90s comment "a.example" }',
    ]


def test_no_elements_are_no_text() -> None:
    assert words(table_text(ARTICLE, None), "add element") == []


def test_a_comment_is_written_whole() -> None:
    comment = "a." * 49 + "example +"
    (element,) = words(table_text(ARTICLE, None, [Element("wg_domains4", FOUR, comment, 60.0)]), "add element")
    assert f'comment "{comment}"' in element


def test_no_life_is_shortened_by_rounding() -> None:
    (element,) = words(table_text(ARTICLE, None, [Element("wg_domains4", FOUR, "a.example", 3600.4)]), "add element")
    assert "timeout 3601s expires 3601s" in element


# -- read back


def listing(table: Table, elements: Iterable[Any] = ()) -> dict[str, Any]:
    """What `nft -j list table` prints of it (1.0.6), rules as good as empty; elements are of wg_domains4."""
    common = {"family": table.family, "table": table.name}
    items: list[dict[str, Any]] = [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}]
    items.append({"table": {"family": table.family, "name": table.name, "handle": 1}})
    for place, set_ in enumerate(table.sets):
        body = {**common, "name": set_.name, "type": set_.type, "handle": place, "flags": sorted(set_.flags)}
        if set_.size:
            body["size"] = set_.size
        if set_.members:
            body["elem"] = [_member(member) for member in set_.members]
        if set_.name == "wg_domains4" and elements:
            body["elem"] = list(elements)
        items.append({"set": body})
    for chain in table.chains:
        shape = {"type": chain.type, "hook": chain.hook, "prio": chain.priority, "policy": "accept"}
        items.append({"chain": {**common, "name": chain.name, "handle": 9, **shape}})
    for chain in table.chains:
        for rule in chain.rules:
            items.append({"rule": {**common, "chain": chain.name, "handle": 9, "comment": rule.comment, "expr": []}})
    return {"nftables": items}


def _member(network: Any) -> Any:
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


LEARNED = {"elem": {"val": "192.0.2.1", "timeout": 3600, "expires": 3599, "comment": "github.com"}}


@each_table
def test_a_table_is_known_again_when_it_is_read_back(mask: int, table: Table) -> None:
    assert read_table(listing(table)) == (table, [])


def test_a_table_of_another_family_is_another_table() -> None:
    table = Table("wg_routing", (), ARTICLE.chains[:1], family="arp")
    assert read_table(listing(table)) == (table, [])
    assert all(" arp wg_routing" in line for line in table_text(table, None).splitlines())


def test_the_kernels_order_is_no_part_of_a_table() -> None:
    backwards = replace(ARTICLE, sets=ARTICLE.sets[::-1], chains=ARTICLE.chains[::-1])
    assert read_table(listing(backwards))[0] == ARTICLE


@pytest.mark.parametrize(
    "stray",
    [
        {"map": {"family": "inet", "name": "m", "table": "wg_routing", "type": "ipv4_addr", "map": "mark"}},
        {"counter": {"family": "inet", "name": "c", "table": "wg_routing", "packets": 0, "bytes": 0}},
        {"chain": {"family": "inet", "name": "x", "table": "wg_routing", "handle": 9}},
        {"set": {"family": "inet", "name": "x", "table": "wg_routing", "type": "mark"}},
    ],
    ids=["a map", "a counter", "a chain", "a set"],
)
def test_what_somebody_added_makes_another_table(stray: dict[str, Any]) -> None:
    found = listing(ARTICLE)
    found["nftables"].append(stray)
    assert read_table(found)[0] not in (ARTICLE, None)


@pytest.mark.parametrize("flags", ["dormant", ["dormant"]])
def test_a_table_that_somebody_put_to_sleep_is_another_table(flags: Any) -> None:
    found = listing(ARTICLE)
    found["nftables"][1]["table"]["flags"] = flags
    assert read_table(found)[0] not in (ARTICLE, None)


def test_a_policy_that_somebody_changed_makes_another_table() -> None:
    found = listing(ARTICLE)
    next(item for item in found["nftables"] if "chain" in item)["chain"]["policy"] = "drop"
    assert read_table(found)[0] not in (ARTICLE, None)


@pytest.mark.parametrize("place", range(4))
def test_a_rule_that_was_changed_makes_another_table(place: int) -> None:
    found = listing(ARTICLE)
    rules = [item for item in found["nftables"] if "rule" in item]
    match place:
        case 0:
            found["nftables"].remove(rules[3])
        case 1:
            rules[3]["rule"]["comment"] = "somebody's"
        case 2:
            del rules[3]["rule"]["comment"]
        case 3:
            rules[3]["rule"]["comment"], rules[4]["rule"]["comment"] = (rules[p]["rule"]["comment"] for p in (4, 3))
    assert read_table(found)[0] != ARTICLE


def test_learned_addresses_are_read_with_their_names_and_what_is_left_of_their_lives() -> None:
    table, elements = read_table(listing(ARTICLE, [LEARNED]))
    assert table == ARTICLE
    assert elements == [Element("wg_domains4", ip_address("192.0.2.1").packed, "github.com", 3599.0)]


def test_an_element_without_a_comment_is_read_and_one_without_an_end_is_not_ours() -> None:
    nameless = {"elem": {"val": "192.0.2.2", "timeout": 60, "expires": 5}}
    _, elements = read_table(listing(ARTICLE, [nameless, "192.0.2.3", {"elem": {"val": "192.0.2.4", "comment": "x"}}]))
    assert elements == [Element("wg_domains4", ip_address("192.0.2.2").packed, "", 5.0)]


def test_ranges_are_read_as_the_networks_that_they_are() -> None:
    wanted = make_table(config_with({"tunneled.networks": '["10.0.0.0/30", "10.0.0.4/31", "10.0.0.6/32"]'}))
    found = listing(wanted)
    (networks,) = [item["set"] for item in found["nftables"] if item.get("set", {}).get("name") == "wg_networks4"]
    networks["elem"] = [{"range": ["10.0.0.0", "10.0.0.6"]}]
    assert read_table(found)[0] == wanted


def test_no_table_is_none() -> None:
    assert read_table({"nftables": [{"metainfo": {"version": "1.0.6"}}]}) == (None, [])
    assert read_table({}) == (None, [])


def test_nft_1_1_4_writes_one_flag_without_a_list() -> None:
    """`"flags": "timeout"`, until "json: Do not reduce single-item arrays on output" (2025-08); RHEL has it too."""
    found = listing(ARTICLE)
    for item in found["nftables"]:
        if "set" in item:
            (item["set"]["flags"],) = item["set"]["flags"]
    assert read_table(found)[0] == ARTICLE


FOREIGN = [
    (
        "ipv4_addr",
        ["interval", "timeout"],
        {"elem": {"val": {"prefix": {"addr": "192.0.2.0", "len": 24}}, "expires": 9}},
    ),
    ("ipv4_addr", ["interval", "timeout"], {"elem": {"val": {"range": ["192.0.2.1", "192.0.2.3"]}, "expires": 9}}),
    ("inet_service", ["interval"], 80),
    ("inet_service", ["timeout"], {"elem": {"val": 80, "expires": 9}}),
    ("ifname", ["timeout"], {"elem": {"val": "eth0", "expires": 9}}),
    (["ipv4_addr", "inet_service"], ["timeout"], {"elem": {"val": {"concat": ["192.0.2.1", 80]}, "expires": 9}}),
]


@pytest.mark.parametrize(("kind", "flags", "elem"), FOREIGN, ids=[str(elem) for *_, elem in FOREIGN])
def test_whatever_somebody_put_into_our_table_is_read_without_an_error(kind: Any, flags: list[str], elem: Any) -> None:
    found = listing(ARTICLE)
    foreign = {"family": "inet", "name": "theirs", "table": "wg_routing", "type": kind, "flags": flags, "elem": [elem]}
    found["nftables"].append({"set": foreign})
    table, elements = read_table(found)
    assert table is not None
    assert table != ARTICLE, "it is seen, and goes with the next rewrite"
    assert "delete set inet wg_routing theirs" in table_text(ARTICLE, table)
    assert elements == []


def test_a_network_that_was_added_by_hand_goes_and_nothing_else_is_touched() -> None:
    by_hand = frozenset({ip_network("10.0.0.0/8")})
    found, _ = read_table(listing(with_set(ARTICLE, "wg_networks4", members=by_hand)))
    assert found != ARTICLE
    assert words(table_text(ARTICLE, found), "delete", "add element") == []
    assert "flush set wg_networks4" in words(table_text(ARTICLE, found), "flush set")
