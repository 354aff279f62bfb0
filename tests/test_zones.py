"""Zones: the longest match wins, whatever stands above or below it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.names import Name, parse_name
from splitwgd.zones import Zones
from tests.samples import config_with

ZONES = Zones(
    config_with(
        {
            "tunneled.domains": """[
                "github.com", "!status.github.com", "deep.status.github.com",
                "=example.org", "*.example.net", "!*.cdn.example",
                "cdn.example", "=exact.wide.example", "!wide.example", "both.example", "!=both.example",
                "home.ts.net",
            ]""",
            "dns.forward": '{ "ts.net" = ["100.100.100.100"], "lan.github.com" = ["192.0.2.53"] }',
        }
    )
)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("github.com", "wg0"),
        ("api.github.com", "wg0"),
        ("a.b.c.github.com", "wg0"),
        ("github.com.evil.example", "default"),
        ("notgithub.com", "default"),
        ("com", "default"),
        # exceptions, and what is tunneled below them
        ("status.github.com", "default"),
        ("www.status.github.com", "default"),
        ("deep.status.github.com", "wg0"),
        ("a.deep.status.github.com", "wg0"),
        # only itself, only below
        ("example.org", "wg0"),
        ("www.example.org", "default"),
        ("example.net", "default"),
        ("www.example.net", "wg0"),
        ("a.www.example.net", "wg0"),
        # two patterns on one name: the more precise one wins
        ("cdn.example", "wg0"),
        ("a.cdn.example", "default"),
        ("both.example", "default"),
        ("a.both.example", "wg0"),
        ("exact.wide.example", "wg0"),
        ("a.exact.wide.example", "default"),
        # zones of their own
        ("ts.net", "forward"),
        ("host.ts.net", "forward"),
        ("home.ts.net", "wg0"),
        ("lan.github.com", "forward"),
        ("a.lan.github.com", "forward"),
    ],
)
def test_the_longest_match_wins(name: str, group: str) -> None:
    assert ZONES.find(parse_name(name)).name.split()[0] == group


@pytest.mark.parametrize(
    "name",
    [
        b"\x0agithub.com\0",
        b"\x03www\x0agithub.com\0",
        b"\x07git.hub\x03com\0",
        b"\x0b\x06github\x03com\0",
        b"\x0ewww\x06github\x03com\0",
        b"\0",
    ],
)
def test_a_byte_in_a_label_is_never_a_dot(name: Name) -> None:
    assert ZONES.find(name) is ZONES.default


def test_a_tunneled_groups_sockets_can_take_nothing_but_the_tunnel() -> None:
    group = ZONES.find(parse_name("github.com"))
    assert (group.link, group.mark, group.tunnel) == ("wg0", 0x1, "wg")
    assert [str(server) for server in group.servers] == ["10.1.0.1"]


@pytest.mark.parametrize(("name", "server"), [("example.com", "9.9.9.9"), ("host.ts.net", "100.100.100.100")])
def test_other_groups_bear_the_direct_mark_and_are_not_tunneled(name: str, server: str) -> None:
    group = ZONES.find(parse_name(name))
    assert (group.link, group.mark, group.tunnel) == (None, 0xFE, None)
    assert [str(server) for server in group.servers] == [server]


words = st.sampled_from(["a", "b", "c"])
texts = st.lists(words, min_size=1, max_size=4).map(".".join)
pattern_texts = st.builds(lambda scope, name: scope + name, st.sampled_from(["", "=", "*."]), texts)


def expected(patterns: list[str], name: str) -> bool:
    """Whether a name is tunneled, said in another way: by the most precise of the patterns that cover it."""
    best, tunneled = (-1, False), False
    for text in patterns:
        bare = text.lstrip("!").removeprefix("=").removeprefix("*.")
        precise = "=" in text or "*" in text
        itself = name == bare and "*" not in text
        below = name.endswith(f".{bare}") and "=" not in text
        rank = (len(bare), precise)
        if (itself or below) and rank > best:
            best, tunneled = rank, not text.startswith("!")
    return tunneled


@given(st.dictionaries(pattern_texts, st.booleans(), min_size=1, max_size=8), texts)
def test_a_name_belongs_to_the_most_precise_pattern_that_covers_it(entries: dict[str, bool], name: str) -> None:
    patterns = [text if tunneled else f"!{text}" for text, tunneled in entries.items()]
    zones = Zones(config_with({"tunneled.domains": str(patterns)}))
    assert (zones.find(parse_name(name)).tunnel == "wg") == expected(patterns, name)
