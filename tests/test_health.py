"""How servers do: the fastest that answers is asked first, the dead one last, and who is asked by ourselves when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.health import PROBE_DEAD, PROBE_IDLE, PROBE_WANTED, SILENCES, SILENT_FOR, Ward
from splitwgd.servers import Server
from tests.worlds import server

FIRST, SECOND, THIRD = (server(f"192.0.2.{number}") for number in (1, 2, 3))
ALL = (FIRST, SECOND, THIRD)
NOW = 1000.0


def ward(*took: float | None) -> Ward:
    """Servers that have each answered once, or never."""
    made = Ward(ALL)
    for each, seconds in zip(ALL, took, strict=False):
        if seconds is not None:
            made.answered(each, seconds, NOW)
    return made


def silent(made: Ward, who: Server, times: int = SILENCES, now: float = NOW + SILENT_FOR) -> bool:
    return [made.silent(who, now) for _ in range(times)][-1]


# -- order


def test_at_first_the_order_is_the_configurations() -> None:
    assert Ward(ALL).order == ALL


@pytest.mark.parametrize(
    ("took", "order"),
    [
        ((0.1, 0.2, 0.05), (THIRD, FIRST, SECOND)),
        ((0.1, 0.02, 0.05), (SECOND, THIRD, FIRST)),
        ((0.1, 0.09, 0.08), (FIRST, THIRD, SECOND)),  # not clearly faster: no reason to change
        ((0.1, None, 0.2), (FIRST, THIRD, SECOND)),
        ((None, 0.1, None), (SECOND, FIRST, THIRD)),
    ],
)
def test_the_fastest_comes_first_when_it_is_clearly_faster(
    took: tuple[float | None, ...], order: tuple[Server, ...]
) -> None:
    assert ward(*took).order == order


def test_times_are_smoothed() -> None:
    made = ward(0.1, 0.2)
    made.answered(SECOND, 0.001, NOW)
    assert made.order[0] is FIRST  # once may be an accident
    for _ in range(10):
        made.answered(SECOND, 0.001, NOW)
    assert made.order[0] is SECOND


def test_a_first_server_that_grows_slow_is_overtaken() -> None:
    made = ward(0.1, 0.2)
    for _ in range(30):
        made.answered(FIRST, 0.9, NOW)
        made.answered(SECOND, 0.2, NOW)
    assert made.order == (SECOND, FIRST, THIRD)


# -- death


def test_three_silences_in_a_row_without_any_answer_for_a_second_are_death() -> None:
    made = ward(0.1, 0.2, 0.3)
    assert not silent(made, FIRST, SILENCES - 1)
    assert not made.is_dead(FIRST)
    assert made.silent(FIRST, NOW + SILENT_FOR)
    assert made.is_dead(FIRST) and made.order == (SECOND, THIRD, FIRST)
    assert not made.silent(FIRST, NOW + SILENT_FOR)  # which is no news


def test_a_server_that_answers_now_and_then_is_not_dead() -> None:
    made = ward(0.1)
    for second in range(10):
        assert not silent(made, FIRST, SILENCES - 1, NOW + second)
        made.answered(FIRST, 0.1, NOW + second)
    assert not silent(made, FIRST, 50, NOW + 9 + SILENT_FOR / 2)
    assert not made.is_dead(FIRST)


def test_who_has_never_answered_is_dead_after_three_silences() -> None:
    made = Ward(ALL)
    assert silent(made, SECOND) and made.is_dead(SECOND)
    assert made.order == (FIRST, THIRD, SECOND)


def test_who_cannot_be_reached_is_dead_at_once() -> None:
    made = ward(0.1, 0.2, 0.3)
    assert made.failed(FIRST, NOW)
    assert not made.failed(FIRST, NOW)
    assert made.is_dead(FIRST) and made.order == (SECOND, THIRD, FIRST)


def test_who_answers_is_alive_again_and_its_old_times_count_no_more() -> None:
    made = ward(0.001, 0.2)
    made.failed(FIRST, NOW)
    assert made.answered(FIRST, 0.9, NOW)
    assert not made.is_dead(FIRST) and made.order[:2] == (SECOND, FIRST)
    assert not made.answered(FIRST, 0.9, NOW)
    assert not silent(made, FIRST, SILENCES - 1, NOW + 100)


def test_when_all_are_dead_they_keep_an_order() -> None:
    made = ward(0.3, 0.2, 0.1)
    for each in ALL:
        made.failed(each, NOW)
    assert made.order == ALL
    made.answered(SECOND, 0.2, NOW)
    assert made.order == (SECOND, FIRST, THIRD)


@given(
    st.lists(st.tuples(st.sampled_from(ALL), st.sampled_from(["answered", "silent", "failed"]), st.floats(0.001, 2)))
)
def test_whatever_happens_the_order_has_each_once_and_the_dead_last(events: list[tuple[Server, str, float]]) -> None:
    made, now = Ward(ALL), NOW
    for who, what, seconds in events:
        now += seconds
        if what == "answered":
            made.answered(who, seconds, now)
        else:
            getattr(made, what)(who, now)
        assert sorted(made.order, key=ALL.index) == list(ALL)
        dead = [made.is_dead(each) for each in made.order]
        assert dead == sorted(dead)


# -- questions of our own


def probed(made: Ward, who: Server, begin: float, seconds: int, wanted: bool = True) -> list[int]:
    """In which seconds after `begin` this server is due."""
    return [second for second in range(1, seconds + 1) if who in made.to_probe(begin + second, wanted)]


@pytest.mark.parametrize(("wanted", "due"), [(True, list(range(1, 46))), (False, [15, 30, 45])])
def test_a_dead_server_is_asked_often_while_its_names_are_asked_for_and_seldom_otherwise(
    wanted: bool, due: list[int]
) -> None:
    assert (PROBE_WANTED, PROBE_DEAD) == (1, 15)
    made = ward(0.1, 0.2, 0.3)
    made.failed(SECOND, NOW)
    assert probed(made, SECOND, NOW, 45, wanted) == due


@pytest.mark.parametrize("who", [FIRST, SECOND])
def test_a_dead_server_is_asked_wherever_it_stands(who: Server) -> None:
    made = Ward((who,))
    made.failed(who, NOW)
    assert made.to_probe(NOW + PROBE_WANTED / 2, True) == []
    assert made.to_probe(NOW + PROBE_WANTED, True) == [who]


def test_who_is_well_but_not_asked_by_others_is_asked_now_and_then_and_the_first_never() -> None:
    made = ward(0.1, 0.2, 0.3)
    for wanted in (False, True):
        assert made.to_probe(NOW + PROBE_IDLE - 1, wanted) == []
    assert made.to_probe(NOW + PROBE_IDLE, True) == [SECOND, THIRD]
    assert made.to_probe(NOW + PROBE_IDLE + 1, True) == []
    made.answered(SECOND, 0.2, NOW + PROBE_IDLE + 10)  # by a client's question
    assert made.to_probe(NOW + 2 * PROBE_IDLE, False) == [THIRD]


def test_who_was_never_asked_is_due_at_once() -> None:
    assert Ward(ALL).to_probe(NOW, True) == [SECOND, THIRD]
