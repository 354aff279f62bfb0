"""The cache: answers given again, within bounds, by whoever has the say now; what has ended, and what failed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dnslib import DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.answers import read_reply
from splitwgd.cache import FAILURE, Cache, group_of_chain
from splitwgd.message import CD, Query, Why, fit_reply, question_for, read_query
from splitwgd.names import Name, parse_name
from splitwgd.reply import Reply, counted_down
from splitwgd.zones import Group
from tests.samples import answer, ask, question

DIRECT = Group("default", (), 0xFE)
TUNNEL = Group("wg0", (), 0x1, "wg0", "wg")
QUERY = ask("www.example.com")
ZONE = "www.example.com. 300 IN CNAME host.example.com.\nhost.example.com. 60 IN A 192.0.2.1\n"
REPLY = read_reply(answer(QUERY, ZONE), QUERY)
NOW = 1000.0
WHY = Why(22, "nobody answers")


def kept(cache: Cache, query: Query = QUERY, reply: Reply = REPLY, group: Group = DIRECT, now: float = NOW) -> Cache:
    cache.put(query, reply, group, now)
    return cache


def ttls(cache: Cache, now: float) -> list[int] | None:
    """Of the answer as a client gets it."""
    entry = cache.get(QUERY.key, now)
    if entry is None:
        return None
    body = counted_down(entry.reply, int(now - entry.since))
    return [record.ttl for record in DNSRecord.parse(fit_reply(QUERY, body, False)).rr]


def numbered(number: int) -> Query:
    return question_for(parse_name(f"n{number}.example.com"), 1)


def there(cache: Cache, most: int = 10) -> list[int]:
    """Which of the numbered are kept, without asking for them."""
    return [number for number in range(most) if cache.stale(numbered(number).key, NOW) is not None]


@pytest.mark.parametrize(
    ("age", "expected"),
    [(0, [300, 60]), (0.9, [300, 60]), (1, [299, 59]), (30.5, [270, 30]), (59.9, [241, 1]), (60, None), (999, None)],
)
def test_ttls_count_down_until_the_shortest_ends(age: float, expected: list[int] | None) -> None:
    assert ttls(kept(Cache(10)), NOW + age) == expected


def test_an_entry_tells_who_asked_who_answered_and_from_when_to_when() -> None:
    entry = kept(Cache(10), group=TUNNEL).get(QUERY.key, NOW + 1)
    assert entry is not None
    assert (entry.reply, entry.query, entry.name, entry.group) == (REPLY, QUERY, QUERY.name, TUNNEL)
    assert (entry.since, entry.until) == (NOW, NOW + 60)


def test_what_is_not_there_is_not_found() -> None:
    assert Cache(10).get(QUERY.key, NOW) is None


def test_a_newer_answer_takes_the_place_of_the_older_and_is_new_in_all() -> None:
    cache = kept(Cache(10))
    for _ in range(3):
        cache.get(QUERY.key, NOW)
    newer = read_reply(answer(QUERY, "www.example.com. 90 IN A 192.0.2.2"), QUERY)
    entry = kept(cache, reply=newer, now=NOW + 50).get(QUERY.key, NOW + 100)
    assert entry is not None and (entry.reply, entry.hits, entry.renewing) == (newer, 1, False)
    assert len(cache) == 1


def test_what_may_not_be_kept_is_passed_over() -> None:
    assert len(kept(Cache(10), reply=replace(REPLY, ttl=0))) == 0


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


# -- bounds


def test_a_cache_without_a_size_keeps_nothing() -> None:
    assert ttls(kept(Cache(0)), NOW) is None


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 5))
def test_it_never_outgrows_its_size_and_the_oldest_leaves_first(numbers: list[int], size: int) -> None:
    cache = Cache(size)
    for number in numbers:
        kept(cache, numbered(number))
    youngest = list(dict.fromkeys(reversed(numbers)))[:size]
    assert there(cache) == sorted(youngest)


def test_who_was_asked_for_gets_a_second_chance_but_one() -> None:
    cache = Cache(3)
    for number in range(3):
        kept(cache, numbered(number))
    for _ in range(5):
        cache.get(numbered(0).key, NOW)
    assert there(kept(cache, numbered(3))) == [0, 2, 3]
    assert there(kept(cache, numbered(4))) == [0, 3, 4]
    assert there(kept(cache, numbered(5))) == [0, 4, 5]
    assert there(kept(cache, numbered(6))) == [4, 5, 6]  # it is its turn again, and nobody has asked since


def test_a_cache_where_all_were_asked_for_makes_room_all_the_same() -> None:
    cache = Cache(3)
    for number in range(10):
        kept(cache, numbered(number)).get(numbered(number).key, NOW)
        assert len(cache) <= 3


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000)), max_size=40))
def test_it_never_outgrows_its_bytes(puts: list[tuple[int, int]]) -> None:
    cache = Cache(1000, memory=8000)
    for number, size in puts:
        kept(cache, numbered(number), replace(REPLY, records=bytes(size)))
        assert cache.used <= 8000
        assert len(cache) * 900 + sum(len(e.reply.records) for e in cache.moved(lambda name: TUNNEL, NOW)) <= 8000
    for number in range(10):
        cache.drop(numbered(number).key)
    assert (cache.used, len(cache)) == (0, 0)


def test_what_is_larger_than_all_of_it_is_not_kept() -> None:
    assert len(kept(Cache(10, memory=2000), reply=replace(REPLY, records=bytes(2000)))) == 0


@pytest.mark.parametrize("size", [0, 2, 5])
def test_a_smaller_size_drops_the_oldest(size: int) -> None:
    cache = Cache(5)
    for number in range(5):
        kept(cache, numbered(number)).get(numbered(number).key, NOW)
    cache.resize(size, 1 << 20, 0)
    assert there(cache) == list(range(5))[5 - size :]


def test_less_memory_drops_the_oldest() -> None:
    cache = Cache(5)
    for number in range(5):
        kept(cache, numbered(number))
    cache.resize(5, cache.used // 2, 0)
    assert there(cache) == [3, 4]


# -- what has ended (RFC 8767)


@pytest.mark.parametrize(("stale_for", "age", "found"), [(0, 59, True), (0, 60, False), (100, 159, True)])
def test_what_has_ended_may_stand_in_for_a_while(stale_for: float, age: float, found: bool) -> None:
    cache = kept(Cache(10, stale=stale_for))
    entry = cache.stale(QUERY.key, NOW + age)
    assert (entry is not None and entry.reply is REPLY) is found
    assert (cache.get(QUERY.key, NOW + age) is not None) is (age < 60)
    assert cache.stale(QUERY.key, NOW + 60 + stale_for) is None
    assert cache.stale(b"another", NOW) is None


def test_how_long_it_may_can_be_changed() -> None:
    cache = kept(Cache(10))
    cache.resize(10, 1 << 20, 1000)
    assert cache.stale(QUERY.key, NOW + 1059) is not None


# -- popular names


@pytest.mark.parametrize(
    ("ttl", "asked_at", "due"),
    [
        (300, [1, 2, 3], False),
        (300, [1, 269], False),
        (300, [1, 270], True),
        (300, [275], False),  # once is not popular
        (300, [275, 276], True),
        (5, [1, 3.9], False),
        (5, [1, 4], True),
        (1, [0, 0], True),
    ],
)
def test_what_is_popular_and_about_to_end_is_due(ttl: int, asked_at: list[float], due: bool) -> None:
    cache = kept(Cache(10), reply=replace(REPLY, ttl=ttl))
    entry = None
    for at in asked_at:
        entry = cache.get(QUERY.key, NOW + at)
    assert entry is not None and entry.is_due(NOW + asked_at[-1]) is due
    entry.renewing = True
    assert not entry.is_due(NOW + asked_at[-1])


# -- what failed (RFC 9520)


def test_a_failure_is_believed_for_some_seconds() -> None:
    cache = Cache(10)
    cache.fail(QUERY.key, DIRECT, WHY, NOW)
    assert [cache.failure(QUERY.key, NOW + age) for age in (0, FAILURE - 0.1, FAILURE)] == [WHY, WHY, None]
    assert cache.failure(b"another", NOW) is None
    assert 1 <= FAILURE <= 300  # RFC 9520 §3.2


def test_an_answer_ends_a_failure_even_if_it_may_not_be_kept() -> None:
    cache = Cache(10)
    cache.fail(QUERY.key, DIRECT, WHY, NOW)
    kept(cache, reply=replace(REPLY, ttl=0))
    assert cache.failure(QUERY.key, NOW) is None


@pytest.mark.parametrize(("group", "left"), [(None, []), (DIRECT, [2]), (TUNNEL, [1]), (Group("x", (), 0), [1, 2])])
def test_failures_are_forgiven_to_a_group_or_to_all(group: Group | None, left: list[int]) -> None:
    cache = Cache(10)
    cache.fail(b"1", DIRECT, WHY, NOW)
    cache.fail(b"2", TUNNEL, WHY, NOW)
    cache.forgive(group)
    assert [number for number in (1, 2) if cache.failure(b"%d" % number, NOW)] == left


def test_failures_are_bounded_and_the_oldest_leave() -> None:
    cache = Cache(10)
    for number in range(3000):
        cache.fail(b"%d" % number, DIRECT, WHY, NOW)
    known = [number for number in range(3000) if cache.failure(b"%d" % number, NOW)]
    assert known == list(range(2000, 3000))


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
    cache = kept(kept(Cache(10, stale=1000)), other, static)

    def find(name: Name) -> Group:
        return says("host.example.com").get(name, DIRECT)

    assert [entry.name for entry in cache.moved(find, NOW + 59)] == [QUERY.name]
    assert cache.moved(find, NOW + 60) == []
    cache.drop_moved(find)
    assert cache.get(QUERY.key, NOW) is None
    assert cache.stale(QUERY.key, NOW) is None
    assert cache.get(other.key, NOW) is not None
    assert cache.moved(find, NOW) == []
    assert [entry.name for entry in cache.former(NOW + 59)] == [QUERY.name]
    assert cache.former(NOW + 60) == []


def test_what_is_tunneled_no_more_has_moved_too_and_failures_are_forgotten() -> None:
    cache = kept(Cache(10), group=TUNNEL)
    cache.fail(b"a key", TUNNEL, WHY, NOW)
    assert [entry.until for entry in cache.moved(lambda name: DIRECT, NOW)] == [NOW + 60]
    cache.drop_moved(lambda name: DIRECT)
    assert (len(cache), cache.used, cache.failure(b"a key", NOW)) == (0, 0, None)


def test_all_that_is_known_of_names_is_found_by_their_aliases_too_and_forgotten_by_their_own_name() -> None:
    cache = Cache(100)
    alias = ask("www.example.net")
    via = read_reply(answer(alias, ZONE.replace("www.example.com.", "www.example.net.")), alias)
    kept(cache, alias, via)
    host = [read_query(question("host.example.com", kind, do=do)) for kind in ("A", "AAAA", "TXT") for do in (0, 1)]
    for query in host:
        kept(cache, query, replace(REPLY, chain=(query.name,)))
    for name in ("example.com", "a.host.example.com", "www.example.com"):
        kept(cache, ask(name), replace(REPLY, chain=(ask(name).name,)))
    names = {parse_name("host.example.com")}
    found = cache.with_names(names, NOW + 59)
    assert sorted(entry.query.key for entry in found) == sorted(query.key for query in (alias, *host))
    assert cache.with_names(names, NOW + 60) == []
    cache.drop_names(names)
    assert [entry.name for entry in cache.with_names(names, NOW)] == [alias.name]
    assert len(cache) == 4
