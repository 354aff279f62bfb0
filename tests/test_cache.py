"""The cache: answers given again with their TTLs counted down, within bounds, by whoever has the say now."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dnslib import DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.answers import Reply, read_reply
from splitwgd.cache import Cache, group_of_chain
from splitwgd.message import CD, Query, fit_reply, read_query
from splitwgd.names import Name, parse_name
from splitwgd.zones import Group
from tests.samples import answer, ask, question

DIRECT = Group("default", (), 0xFE)
TUNNEL = Group("wg0", (), 0x1, "wg0", "wg")
QUERY = ask("www.example.com")
ZONE = "www.example.com. 300 IN CNAME host.example.com.\nhost.example.com. 60 IN A 192.0.2.1\n"
REPLY = read_reply(answer(QUERY, ZONE), QUERY)
NOW = 1000.0


def kept(cache: Cache, query: Query = QUERY, reply: Reply = REPLY, group: Group = DIRECT, now: float = NOW) -> Cache:
    cache.put(query.key, query.name, reply, group, now)
    return cache


def ttls(cache: Cache, now: float) -> list[int] | None:
    body = cache.get(QUERY.key, now)
    return None if body is None else [record.ttl for record in DNSRecord.parse(fit_reply(QUERY, body, False)).rr]


@pytest.mark.parametrize(
    ("age", "expected"),
    [(0, [300, 60]), (0.9, [300, 60]), (1, [299, 59]), (30.5, [270, 30]), (59.9, [241, 1]), (60, None), (999, None)],
)
def test_ttls_count_down_until_the_shortest_ends(age: float, expected: list[int] | None) -> None:
    assert ttls(kept(Cache(10)), NOW + age) == expected


def test_a_ttl_beside_the_answer_may_end_first_and_stays_at_0() -> None:
    beside = "example.com. 5 IN NS ns.example.com."
    cache = kept(Cache(10), reply=read_reply(answer(QUERY, ZONE, beside), QUERY))
    body = cache.get(QUERY.key, NOW + 30)
    assert body is not None
    assert [record.ttl for record in DNSRecord.parse(bytes(body)).auth] == [0]


def test_what_has_ended_is_forgotten() -> None:
    cache = kept(Cache(10))
    cache.get(QUERY.key, NOW + 60)
    assert len(cache) == 0


def test_each_answer_is_a_copy() -> None:
    cache = kept(Cache(10))
    for _ in range(2):
        body = cache.get(QUERY.key, NOW + 10)
        assert body is not None
        fit_reply(QUERY, body, False)
    assert ttls(cache, NOW) == [300, 60]


def test_what_is_not_there_is_not_found() -> None:
    assert Cache(10).get(QUERY.key, NOW) is None


def test_what_may_not_be_kept_is_passed_over() -> None:
    assert len(kept(Cache(10), reply=replace(REPLY, ttl=0))) == 0


def test_a_cache_without_a_size_keeps_nothing() -> None:
    assert ttls(kept(Cache(0)), NOW) is None


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 5))
def test_it_never_outgrows_its_size_and_the_oldest_leaves_first(numbers: list[int], size: int) -> None:
    cache = Cache(size)
    for number in numbers:
        cache.put(bytes((number,)), QUERY.name, REPLY, DIRECT, NOW)
    youngest = list(dict.fromkeys(reversed(numbers)))[:size]
    assert [number for number in range(10) if cache.get(bytes((number,)), NOW)] == sorted(youngest)


@pytest.mark.parametrize("size", [0, 2, 5])
def test_a_smaller_size_drops_the_oldest(size: int) -> None:
    cache = Cache(5)
    for number in range(5):
        cache.put(bytes((number,)), QUERY.name, REPLY, DIRECT, NOW)
    cache.resize(size)
    assert [number for number in range(5) if cache.get(bytes((number,)), NOW)] == list(range(5))[5 - size :]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (question("WWW.Example.COM"), True),
        (question("www.example.com", ident=99), True),
        (question("www.example.com", edns=None), True),
        (question("www.example.com", edns=4096), True),
        (question("www.example.com", "AAAA"), False),
        (question("ww.example.com"), False),
        (question("www.example.com", do=1), False),
        (question("www.example.com")[:3] + bytes((CD,)) + question("www.example.com")[4:], False),
    ],
    ids=["case", "id", "no EDNS", "size", "type", "name", "DO", "CD"],
)
def test_one_answer_serves_questions_that_mean_the_same(other: bytes, same: bool) -> None:
    assert (kept(Cache(10)).get(read_query(other).key, NOW) is not None) is same


# -- who has the say


def says(*tunneled: str) -> dict[Name, Group]:
    return {parse_name(name): TUNNEL for name in tunneled}


@pytest.mark.parametrize(
    ("tunneled", "group"),
    [
        ([], DIRECT),
        (["www.example.com"], TUNNEL),
        (["host.example.com"], TUNNEL),
        (["other.example.com"], DIRECT),
    ],
)
def test_a_tunneled_alias_makes_the_whole_answer_tunneled(tunneled: list[str], group: Group) -> None:
    assert group_of_chain(REPLY.chain, lambda name: says(*tunneled).get(name, DIRECT)) is group


def test_what_belongs_to_another_group_now_is_found_while_it_lives_and_dropped() -> None:
    other = ask("static.example.com")
    static = read_reply(answer(other, "static.example.com. 60 IN A 192.0.2.9"), other)
    cache = kept(kept(Cache(10)), other, static)

    def find(name: Name) -> Group:
        return says("host.example.com").get(name, DIRECT)

    assert [entry.name for entry in cache.moved(find, NOW + 59)] == [QUERY.name]
    assert cache.moved(find, NOW + 60) == []
    cache.drop_moved(find)
    assert cache.get(QUERY.key, NOW) is None
    assert cache.get(other.key, NOW) is not None
    assert cache.moved(find, NOW) == []


def test_what_is_tunneled_no_more_has_moved_too() -> None:
    cache = kept(Cache(10), group=TUNNEL)
    assert [entry.until for entry in cache.moved(lambda name: DIRECT, NOW)] == [NOW + 60]
    cache.drop_moved(lambda name: DIRECT)
    assert len(cache) == 0
