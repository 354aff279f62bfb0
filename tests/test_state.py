"""What outlives a reboot: bytes that come back as they went, that a person can read, and that nobody trusts blindly."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import splitwgd.state
from splitwgd.admission import Admission
from splitwgd.learned import Ledger, Remembered
from splitwgd.local import local_patterns
from splitwgd.names import ROOT, Name, parse_name
from splitwgd.objects import Element
from splitwgd.state import State, StateProblem, arrived, pieces, read_state, wanted
from splitwgd.vetting import RememberedLead, Vetting
from splitwgd.zones import Zones
from tests.worlds import make_config

WWW, B, CDN = map(parse_name, ("www.example.com", "b.example.com", "cdn.example.net"))
FOUR, SIX = ip_address("192.0.2.1").packed, ip_address("2001:db8::1").packed
WRITTEN = 1_800_000_000  # 2027-01-15T08:00:00Z
NOW = 1000.0
TEXT = """{
"version": 1,
"written": "2027-01-15T08:00:00Z",
"addresses": [
{"set": "wg_domains4", "address": "192.0.2.1", "until": "2027-01-15T09:00:00Z", "names": ["www.example.com"]},
{"set": "wg_domains6", "address": "2001:db8::1", "until": "2027-01-15T09:00:01Z", "names": ["b.example.com", "+"]}
],
"leads": [
{"name": "cdn.example.net", "origin": "www.example.com", "until": "2027-01-15T10:00:00Z"}
]
}
"""
STATE = State(
    WRITTEN,
    [
        Remembered("wg_domains4", FOUR, WRITTEN + 3600, (WWW,), False),
        Remembered("wg_domains6", SIX, WRITTEN + 3601, (B,), True),
    ],
    [RememberedLead(CDN, WWW, WRITTEN + 7200)],
)


def written(state: State, ahead: float = 0.0) -> bytes:
    return b"".join(pieces(state.addresses, state.leads, state.written, ahead))


# -- there and back


def test_a_person_can_read_it_and_each_address_has_a_line() -> None:
    assert written(STATE).decode() == TEXT
    assert read_state(TEXT.encode()) == STATE


def test_nothing_is_something_too() -> None:
    assert read_state(written(State(WRITTEN))) == State(WRITTEN, [], [])


labels = st.binary(min_size=1, max_size=12).map(bytes.lower)
names = st.lists(labels, max_size=5).map(lambda found: b"".join(bytes((len(x),)) + x for x in found) + ROOT)
times = st.integers(0, 1 << 33)
addresses = st.builds(
    Remembered,
    st.sampled_from(["wg_domains4", 'a "name"', ""]),
    st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
    times,
    st.lists(names, unique=True, max_size=3).map(tuple),
    st.booleans(),
)
states = st.builds(
    State, times, st.lists(addresses, max_size=200), st.lists(st.builds(RememberedLead, names, names, times))
)


@given(states)
def test_it_comes_back_as_it_went_whatever_the_names_are(state: State) -> None:
    assert read_state(written(state)) == state


@given(st.floats(0, 1e9), st.floats(-1e6, 1e9))
def test_a_life_is_not_shortened_by_what_the_file_cannot_say(until: float, ahead: float) -> None:
    state = State(0.0, [Remembered("wg_domains4", FOUR, until, (WWW,), False)])
    (back,) = read_state(written(state, ahead)).addresses
    assert until + ahead <= back.until < until + ahead + 1.001


def test_a_piece_is_small_so_that_others_can_go_on_between() -> None:
    many = [Remembered("wg_domains4", number.to_bytes(4, "big"), WRITTEN, (WWW,), False) for number in range(1000)]
    found = list(pieces(many, (), WRITTEN, 0.0))
    assert max(map(len, found)) < 16_000
    assert read_state(b"".join(found)).addresses == many


# -- damage


def readable(data: bytes) -> bool:
    """Whether it is read; anything but a StateProblem goes through."""
    try:
        read_state(data)
    except StateProblem:
        return False
    return True


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    assert not readable(data)


@given(st.integers(0, len(TEXT) - 3))
def test_a_part_of_a_file_is_not_believed(length: int) -> None:
    assert not readable(TEXT.encode()[:length])


@given(st.data())
def test_a_file_with_other_bytes_in_it_is_read_or_refused(data: st.DataObject) -> None:
    spoilt = bytearray(TEXT.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(spoilt)))
        spoilt[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    readable(bytes(spoilt))


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"version":' * 50_000, b"9" * 100_000, b"\xff\xfe{", b"\0" * 50])
def test_what_is_made_to_hurt_a_reader_does_not(data: bytes) -> None:
    assert not readable(data)


odd: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.just({})
)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    """The ways to everything in the file but its outermost object."""
    if way:
        yield way
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*way, key))


@given(st.sampled_from(list(places(json.loads(TEXT)))), odd)
def test_any_value_in_any_place_is_read_or_refused(way: tuple[Any, ...], value: object) -> None:
    whole = inner = json.loads(TEXT)
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = value
    readable(json.dumps(whole).encode())
    del inner[way[-1]]
    readable(json.dumps(whole).encode())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("192.0.2.1", "192.0.2"),
        ('"192.0.2.1"', "3221225985"),
        ("2027-01-15T09:00:00Z", "2027-01-15T09:00:00"),
        ("2027-01-15T09:00:00Z", "soon"),
        ("www.example.com", "www..com"),
        ("www.example.com", "a" * 64),
        ("www.example.com", "a." * 127 + "a"),
        ("www.example.com", r"\\999.com"),
        ("www.example.com", "é.example"),
        ('["www.example.com"]', '"www.example.com"'),
        ('"set"', '"sets"'),
    ],
)
def test_one_wrong_value_spoils_the_whole(before: str, after: str) -> None:
    assert before in TEXT
    assert not readable(TEXT.replace(before, after, 1).encode())


def test_a_later_version_is_said_to_be_one() -> None:
    with pytest.raises(StateProblem, match=r"written by a later version \(2, and 1 is known\)"):
        read_state(b'{"version": 2, "something": "else"}')


@pytest.mark.parametrize("version", ["0", "-1", "true", "1.0", '"1"', "null"])
def test_no_other_version_is_believed(version: str) -> None:
    assert not readable(TEXT.replace('"version": 1', f'"version": {version}').encode())


# -- clocks


def ends(state: State, wall: float, longest: float = 90_000) -> list[float]:
    """For how long everything lives after a start at that time by the wall clock."""
    found = arrived(state, wall, NOW, longest)
    return [each.until - NOW for each in found.addresses] + [lead.until - NOW for lead in found.leads]


def test_time_went_on_while_the_machine_was_off() -> None:
    assert ends(STATE, WRITTEN + 600) == [3000, 3001, 6600]
    assert ends(STATE, WRITTEN + 3600) == [1, 3600], "the first has ended"
    assert ends(STATE, WRITTEN + 7200) == []


@pytest.mark.parametrize("wall", [0.0, -1e9, WRITTEN - 1, WRITTEN])
def test_a_clock_that_went_backwards_gives_nobody_more_than_was_left(wall: float) -> None:
    assert ends(STATE, wall) == [3600, 3601, 7200]


@given(st.floats(-1e12, 1e12), times, times, st.floats(0, 1e6))
def test_whatever_the_clocks_say_no_life_is_negative_or_longer_than_the_longest(
    wall: float, when: int, until: int, longest: float
) -> None:
    state = State(when, [Remembered("wg_domains4", FOUR, until, (), True)], [RememberedLead(CDN, WWW, until)])
    assert all(0 <= left <= longest + 1e-6 for left in ends(state, wall, longest))


# -- what is taken over


def desk(domains: str = '"example.com"', admission: Admission | None = None) -> tuple[Vetting, Ledger]:
    config = make_config(domains=domains)
    return Vetting(Zones(config, local_patterns(config)), admission or Admission(), print), Ledger(3600, 3600)


def one(set_: str = "wg_domains4", address: bytes = FOUR, *names: Name, more: bool = False) -> Remembered:
    return Remembered(set_, address, NOW + 600, names, more)


def test_what_is_still_tunneled_is_taken_over_with_the_names_that_are() -> None:
    vetting, ledger = desk('"=www.example.com"')
    rows = [one("wg_domains4", FOUR, B, WWW), one("wg_domains6", SIX, B), one("wg_domains6", SIX, WWW)]
    assert wanted(rows, vetting, ledger, NOW) == [one("wg_domains4", FOUR, WWW), rows[2]]


def test_what_the_kernel_has_is_its_own() -> None:
    vetting, ledger = desk()
    ledger.restore([Element("wg_domains4", FOUR, "b.example.com", 5.0)], NOW)
    assert wanted([one("wg_domains4", FOUR, WWW)], vetting, ledger, NOW) == []
    assert wanted([one("wg_domains4", FOUR, WWW)], vetting, ledger, NOW + 5) != [], "it has ended there"


def test_what_ended_since_it_was_read_is_left_out() -> None:
    vetting, ledger = desk()
    assert wanted([one("wg_domains4", FOUR, WWW)], vetting, ledger, NOW + 599) != []
    assert wanted([one("wg_domains4", FOUR, WWW)], vetting, ledger, NOW + 599.5) == []


def test_of_whom_nobody_knows_the_names_nobody_knows_that_it_may_go() -> None:
    vetting, ledger = desk('"=www.example.com"')
    rows = [one("wg_domains4", FOUR, B, more=True), one("wg_domains6", SIX, B)]
    assert wanted(rows, vetting, ledger, NOW) == [one("wg_domains4", FOUR, more=True)]


@pytest.mark.parametrize("set_", ["", "wg_domains6", "wg_networks4", "other_domains4", "wg_domains4 { }", "wg_"])
def test_no_other_set_is_written_than_where_the_address_belongs(set_: str) -> None:
    vetting, ledger = desk()
    assert wanted([one(set_, FOUR, WWW), one(set_, FOUR, more=True)], vetting, ledger, NOW) == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.0.2.9"])
@pytest.mark.parametrize("more", [True, False])
def test_what_nobody_may_lead_to_is_left_out(address: str, more: bool) -> None:
    vetting, ledger = desk(admission=Admission(taken=frozenset({ip_address("192.0.2.9").packed})))
    names = () if more else (WWW,)
    assert wanted([one("wg_domains4", ip_address(address).packed, *names, more=more)], vetting, ledger, NOW) == []


def test_a_set_is_not_filled_beyond_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitwgd.state, "SET_SIZE", 3)
    vetting, ledger = desk()
    ledger.restore([Element("wg_domains4", FOUR, "b.example.com", 5.0)], NOW)
    rows = [one("wg_domains4", ip_address(f"192.0.2.{number}").packed, WWW) for number in range(2, 6)]
    assert wanted([*rows, one("wg_domains6", SIX, WWW)], vetting, ledger, NOW) == [
        *rows[:2],
        one("wg_domains6", SIX, WWW),
    ]
