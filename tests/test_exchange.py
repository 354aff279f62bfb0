"""Exchanges: whom a question is put to, in which order, for how long, and what becomes of each reply."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.exchange import DEADLINE, PATIENCE, TCP_PATIENCE, Attempt, Exchange, Verdict
from splitwgd.servers import Server

FIRST, SECOND, THIRD = (Server(ip_address(f"192.0.2.{number}")) for number in (1, 2, 3))
NOW = 1000.0


def all_attempts(exchange: Exchange, now: float = NOW) -> list[Attempt]:
    """What is asked when every server is silent for as long as it may."""
    attempts = []
    while (attempt := exchange.next(now)) is not None:
        attempts.append(attempt)
        now += attempt.patience
    return attempts


def test_servers_are_asked_in_their_order_round_by_round_with_more_patience() -> None:
    attempts = all_attempts(Exchange([FIRST, SECOND], NOW))
    assert [(attempt.server, attempt.patience) for attempt in attempts[:4]] == [
        (FIRST, 0.4),
        (SECOND, 0.4),
        (FIRST, 0.8),
        (SECOND, 0.8),
    ]
    assert not any(attempt.tcp for attempt in attempts)


@given(st.integers(1, 12))
def test_a_stub_resolver_hears_of_failure_before_it_gives_up(count: int) -> None:
    servers = [Server(ip_address(f"192.0.2.{number}")) for number in range(count)]
    attempts = all_attempts(Exchange(servers, NOW))
    assert sum(attempt.patience for attempt in attempts) <= DEADLINE + 1e-6 < 5
    assert [attempt.server for attempt in attempts] == (servers * len(PATIENCE))[: len(attempts)]
    assert all(attempt.patience > 0 for attempt in attempts)


def test_one_server_is_asked_once_a_round() -> None:
    assert [attempt.patience for attempt in all_attempts(Exchange([FIRST], NOW))] == list(PATIENCE)


def test_the_last_attempt_has_what_is_left() -> None:
    attempt = Exchange([FIRST], NOW).next(NOW + DEADLINE - 0.25)
    assert attempt is not None
    assert attempt.patience == pytest.approx(0.25)


@pytest.mark.parametrize("late", [DEADLINE, DEADLINE + 10])
def test_nobody_is_asked_after_the_deadline(late: float) -> None:
    assert Exchange([FIRST, SECOND], NOW).next(NOW + late) is None


def test_nobody_is_asked_where_there_is_nobody() -> None:
    assert Exchange([], NOW).next(NOW) is None


def test_a_server_that_failed_is_not_asked_again() -> None:
    exchange = Exchange([FIRST, SECOND, THIRD], NOW)
    exchange.next(NOW)
    exchange.failed(FIRST)
    exchange.failed(THIRD)
    assert {attempt.server for attempt in all_attempts(exchange)} == {SECOND}


def test_when_all_have_failed_there_is_no_use_in_going_on() -> None:
    exchange = Exchange([FIRST, SECOND], NOW)
    exchange.failed(FIRST)
    exchange.failed(SECOND)
    assert exchange.next(NOW) is None


def test_the_same_server_is_asked_over_tcp() -> None:
    assert Exchange([FIRST], NOW).over_tcp(SECOND, NOW) == Attempt(SECOND, True, TCP_PATIENCE)


@pytest.mark.parametrize(("late", "patience"), [(DEADLINE - 1, 1.0), (DEADLINE, 0.1), (DEADLINE + 9, 0.1)])
def test_tcp_has_what_is_left_and_never_less_than_a_moment(late: float, patience: float) -> None:
    assert Exchange([FIRST], NOW).over_tcp(FIRST, NOW + late).patience == pytest.approx(patience)


@pytest.mark.parametrize(
    ("rcode", "truncated", "tcp", "verdict"),
    [
        (0, False, False, Verdict.ANSWER),
        (3, False, False, Verdict.ANSWER),
        (0, False, True, Verdict.ANSWER),
        (0, True, False, Verdict.OVER_TCP),
        (3, True, False, Verdict.OVER_TCP),
        (0, True, True, Verdict.ANSWER),
        (1, False, False, Verdict.ANOTHER),
        (2, False, False, Verdict.ANOTHER),
        (4, False, True, Verdict.ANOTHER),
        (5, False, False, Verdict.ANOTHER),
        (16, False, False, Verdict.ANOTHER),
        (23, False, True, Verdict.ANOTHER),
    ],
)
def test_a_reply_is_taken_or_asked_for_over_tcp_or_another_server_is(
    rcode: int, truncated: bool, tcp: bool, verdict: Verdict
) -> None:
    assert Exchange([FIRST], NOW).judge(rcode, truncated, tcp) is verdict
