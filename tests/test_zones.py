"""Zones: the longest match wins, whatever stands above or below it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import splitwgd.zones
from splitwgd.names import Name, parse_name, parse_pattern
from splitwgd.zones import Zones
from tests.samples import config_with, load, toml

CONFIG = config_with(
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
ZONES = Zones(CONFIG)


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


def test_what_was_asked_before_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parents of names are remembered; which names were asked, and how many, must not matter."""
    monkeypatch.setattr(splitwgd.zones, "_REMEMBERED", 7)
    random = Random(7)
    words = ["github", "com", "www", "ts", "net", "lan", "a", "status", "example", "org", "sub", "home", "only"]
    names = [".".join(random.choices(words, k=random.randint(1, 4))) for _ in range(1500)]
    used = Zones(CONFIG)
    for name in [*names, *names]:
        assert used.find(parse_name(name)) == Zones(CONFIG).find(parse_name(name)), name
    assert len(used._below) <= 7


# -- lists, and names that are answered here


def zones_of(
    domains: Iterable[str] = (), listed: Iterable[str] = (), local: Iterable[str] = (), forward: Iterable[str] = ()
) -> Zones:
    changes = {"tunneled.domains": str(list(domains)), "tunneled.lists": '["list"]'}
    changes["dns.forward"] = "{ " + ", ".join(f'"{zone}" = ["192.0.2.53"]' for zone in forward) + " }"
    config = load(toml(changes), files={"/etc/splitwg/list": "\n".join(listed)})
    return Zones(config, map(parse_pattern, local))


def group_of(zones: Zones, name: str) -> str:
    return zones.find(parse_name(name)).name.split()[0]


@pytest.mark.parametrize(
    ("domains", "listed", "itself", "below"),
    [
        ([], ["a.example"], "wg0", "wg0"),
        ([], ["=a.example"], "wg0", "default"),
        ([], ["*.a.example"], "default", "wg0"),
        (["example"], ["!a.example"], "default", "default"),
        (["a.example"], ["!*.a.example"], "wg0", "default"),
        (["!=a.example"], ["a.example"], "default", "wg0"),
        (["*.a.example"], ["!a.example"], "default", "wg0"),
        (["a.example"], ["a.example"], "wg0", "wg0"),
    ],
)
def test_a_list_adds_to_the_domains(domains: list[str], listed: list[str], itself: str, below: str) -> None:
    zones = zones_of(domains, listed)
    assert (group_of(zones, "a.example"), group_of(zones, "www.a.example")) == (itself, below)


def test_a_long_list_is_found_whole_and_nothing_beside_it() -> None:
    names = [f"host{number}.example" for number in range(2000)]
    zones = zones_of(listed=names)
    assert {group_of(zones, name) for name in names} == {group_of(zones, f"www.{names[-1]}")} == {"wg0"}
    assert {group_of(zones, f"x{name}") for name in names} == {group_of(zones, "example")} == {"default"}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("onion", "local"),
        ("abc.onion", "local"),
        ("mine.onion", "wg0"),
        ("a.mine.onion", "wg0"),
        ("test", "wg0"),  # of the same name the configuration's own counts, where it says something of it
        ("a.test", "local"),
        ("corp", "forward"),
        ("a.corp", "forward"),
        ("host.lan.example", "local"),  # only itself
        ("a.host.lan.example", "wg0"),
        ("lan.example", "wg0"),
        ("kept.example", "local"),  # an exception does not send it out
        ("a.kept.example", "local"),
        ("b.kept.example", "default"),
        ("use-application-dns.net", "local"),
        ("a.net", "wg0"),
    ],
)
def test_names_that_are_answered_here(name: str, group: str) -> None:
    zones = zones_of(
        domains=["mine.onion", "=test", "lan.example", "!b.kept.example", "net"],
        listed=["!kept.example"],
        forward=["corp"],
        local=["onion", "test", "corp", "=host.lan.example", "kept.example", "use-application-dns.net"],
    )
    assert group_of(zones, name) == group
    assert zones.find(parse_name(name)).local == (group == "local")


def test_groups_are_all_that_may_be_asked() -> None:
    zones = zones_of(domains=["a.example"], forward=["ts.net", "corp"], local=["onion"])
    assert sorted(group.name.split()[0] for group in zones.groups()) == ["default", "forward", "forward", "wg0"]


def test_of_two_tunnels_each_has_its_own_names() -> None:
    config = load(toml({"tunneled.lists": '["list"]'}), files={"/etc/splitwg/list": "a.example\n=b.example"})
    other = load(
        toml({"tunneled.domains": "['c.example']", "tunneled.lists": '["list"]'}),
        files={"/etc/splitwg/list": "b.a.example\n*.b.example"},
    )
    second = replace(other.tunnels[0], name="wg1")
    zones = Zones(replace(config, tunnels=(*config.tunnels, second)))
    tunneled = {name: group_of(zones, name) for name in ("github.com", "a.example", "b.a.example", "x.b.a.example")}
    assert list(tunneled.values()) == ["wg0", "wg0", "wg1", "wg1"]
    assert [group_of(zones, name) for name in ("b.example", "a.b.example", "c.example")] == ["wg0", "wg1", "wg1"]


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


@given(st.dictionaries(pattern_texts, st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8), texts)
def test_a_name_belongs_to_the_most_precise_pattern_that_covers_it(
    entries: dict[str, tuple[bool, bool]], name: str
) -> None:
    """Wherever it stands: in the configuration or in a list."""
    patterns = {text if tunneled else f"!{text}": listed for text, (tunneled, listed) in entries.items()}
    zones = zones_of(
        [text for text, listed in patterns.items() if not listed], [text for text, listed in patterns.items() if listed]
    )
    assert (group_of(zones, name) == "wg0") == expected(list(patterns), name)
