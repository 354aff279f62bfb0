"""Exchanges: whom a question is put to, in which order, for how long, and what becomes of each reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.exchange import DEADLINE, FIRST_PATIENCE, PATIENCE, Attempt, Exchange, Verdict, judge
from splitwgd.servers import Server, Transport
from tests.worlds import server

FIRST, SECOND, THIRD = (server(f"192.0.2.{number}") for number in (1, 2, 3))
NOW = 1000.0


def all_attempts(exchange: Exchange, now: float = NOW + FIRST_PATIENCE) -> list[Attempt]:
    """What is asked after the first when every server is silent for as long as it may."""
    attempts = []
    while (attempt := exchange.next(now)) is not None:
        attempts.append(attempt)
        now += attempt.patience
    return attempts


def order(*attempts: Attempt) -> list[Server]:
    return [attempt.server for attempt in attempts]


def test_servers_are_asked_in_their_order_round_by_round_with_more_patience() -> None:
    attempts = all_attempts(Exchange([FIRST, SECOND], (), NOW))
    assert [(attempt.server, attempt.patience) for attempt in attempts[:4]] == [
        (SECOND, 0.25),
        (FIRST, 0.35),
        (SECOND, 0.35),
        (FIRST, 0.45),
    ]


def test_within_300_ms_another_server_is_asked() -> None:
    assert FIRST_PATIENCE == PATIENCE[0] < 0.3


@given(st.integers(1, 12), st.integers(0, 12))
def test_a_stub_resolver_hears_of_failure_before_it_gives_up(count: int, dead: int) -> None:
    servers = [server(f"192.0.2.{number}") for number in range(count)]
    attempts = all_attempts(Exchange(servers, servers[count - min(dead, count) :], NOW))
    assert FIRST_PATIENCE + sum(attempt.patience for attempt in attempts) <= DEADLINE + 1e-6 < 5
    assert all(attempt.patience > 0 for attempt in attempts)
    if not dead:
        assert order(*attempts) == (servers * len(PATIENCE))[1 : len(attempts) + 1]


def test_one_server_is_asked_once_a_round() -> None:
    assert [attempt.patience for attempt in all_attempts(Exchange([FIRST], (), NOW))] == list(PATIENCE[1:])


def test_a_dead_server_is_asked_once_and_nobody_waits_for_it_twice() -> None:
    attempts = order(*all_attempts(Exchange([FIRST, SECOND, THIRD], [THIRD], NOW)))
    assert attempts[:5] == [SECOND, THIRD, FIRST, SECOND, FIRST]
    assert attempts.count(THIRD) == 1


def test_where_all_are_dead_they_are_asked_like_others() -> None:
    attempts = all_attempts(Exchange([FIRST, SECOND], [SECOND, FIRST], NOW))
    assert attempts == all_attempts(Exchange([FIRST, SECOND], (), NOW))


def test_the_last_attempt_has_what_is_left() -> None:
    attempt = Exchange([FIRST], (), NOW).next(NOW + DEADLINE - 0.2)
    assert attempt is not None
    assert attempt.patience == pytest.approx(0.2)


@pytest.mark.parametrize(("late", "left"), [(0, DEADLINE), (1.5, DEADLINE - 1.5), (DEADLINE, 0), (DEADLINE + 10, 0)])
def test_what_is_left_is_told_and_nobody_is_asked_after_the_deadline(late: float, left: float) -> None:
    exchange = Exchange([FIRST, SECOND], (), NOW)
    assert exchange.left(NOW + late) == left
    assert (exchange.next(NOW + late) is None) is (not left)


def test_nobody_is_asked_where_there_is_nobody() -> None:
    assert Exchange([], (), NOW).next(NOW) is None


def test_a_server_that_failed_is_not_asked_again() -> None:
    exchange = Exchange([FIRST, SECOND, THIRD], (), NOW)
    exchange.failed(FIRST)
    exchange.failed(THIRD)
    assert set(order(*all_attempts(exchange))) == {SECOND}


def test_when_all_have_failed_there_is_no_use_in_going_on() -> None:
    exchange = Exchange([FIRST, SECOND], (), NOW)
    exchange.failed(FIRST)
    exchange.failed(SECOND)
    assert exchange.next(NOW) is None


PLAIN, TLS, HTTPS = Transport.PLAIN, Transport.TLS, Transport.HTTPS


@pytest.mark.parametrize(
    ("rcode", "truncated", "transport", "stream", "verdict"),
    [
        (0, False, PLAIN, False, Verdict.ANSWER),
        (3, False, PLAIN, False, Verdict.ANSWER),
        (0, False, PLAIN, True, Verdict.ANSWER),
        (0, True, PLAIN, False, Verdict.OVER_TCP),
        (3, True, PLAIN, False, Verdict.OVER_TCP),
        (2, True, PLAIN, False, Verdict.OVER_TCP),
        (0, True, PLAIN, True, Verdict.ANOTHER),  # there is no more room to be had
        (0, True, TLS, True, Verdict.ANOTHER),
        (0, True, HTTPS, True, Verdict.ANOTHER),
        (0, False, TLS, True, Verdict.ANSWER),
        (3, False, HTTPS, True, Verdict.ANSWER),
        (23, False, PLAIN, False, Verdict.OVER_TCP),  # BADCOOKIE: where nobody can forge, none is needed
        (1, False, PLAIN, False, Verdict.ANOTHER),
        (2, False, PLAIN, False, Verdict.ANOTHER),
        (4, False, PLAIN, True, Verdict.ANOTHER),
        (5, False, TLS, True, Verdict.ANOTHER),
        (16, False, PLAIN, False, Verdict.ANOTHER),
        (23, False, PLAIN, True, Verdict.ANOTHER),
        (23, False, HTTPS, True, Verdict.ANOTHER),
    ],
)
def test_a_reply_is_taken_or_asked_for_over_tcp_or_another_server_is(
    rcode: int, truncated: bool, transport: Transport, stream: bool, verdict: Verdict
) -> None:
    assert judge(rcode, truncated, transport, stream) is verdict
