"""Who waits for which question: each is asked once, and neither askers nor questions for a name are without end."""

from __future__ import annotations

import asyncio

import pytest

from splitwgd.config import Config
from splitwgd.message import Query, question_for
from splitwgd.names import parse_name
from splitwgd.waiting import ASKERS, OF_A_NAME, Pending, Waiting
from splitwgd.zones import Zones
from tests.worlds import make_config

CONFIG: Config = make_config()
ZONES = Zones(CONFIG)


class Nobody:
    """A client that is not answered here."""

    stream = False

    def send(self, reply: bytes) -> None:
        raise AssertionError("it only waits")

    def hang_up(self) -> None:
        raise AssertionError("it only waits")


def pending(name: str = "example.com", qtype: int = 1) -> Pending:
    query = question_for(parse_name(name), qtype)
    return Pending(query, ZONES.find(query.name), ZONES)


def test_a_question_is_found_by_its_key_until_it_is_closed() -> None:
    waiting, one = Waiting(), pending()
    assert waiting.get(one.query.key) is None and one.query.key not in waiting
    assert waiting.open(one)
    assert waiting.get(one.query.key) is one and one.query.key in waiting and len(waiting) == 1
    assert waiting.close(one) == []
    assert waiting.get(one.query.key) is None and len(waiting) == 0


def test_those_who_waited_are_handed_out_once_in_their_order() -> None:
    waiting, one = Waiting(), pending()
    waiting.open(one)
    askers: list[tuple[Query, Nobody]] = [(pending().query, Nobody()) for _ in range(5)]
    for query, client in askers:
        assert waiting.join(one, query, client)
    assert waiting.close(one) == askers
    assert waiting.close(one) == []


def test_one_question_has_so_many_askers_and_no_more() -> None:
    waiting, one = Waiting(), pending()
    waiting.open(one)
    assert all(waiting.join(one, one.query, Nobody()) for _ in range(ASKERS))
    assert not waiting.join(one, one.query, Nobody())
    assert len(waiting.close(one)) == ASKERS >= 10_000


def test_a_name_has_so_many_questions_and_no_more_and_others_do_not_suffer() -> None:
    waiting = Waiting()
    found = [pending(qtype=1000 + number) for number in range(OF_A_NAME)]
    assert all(waiting.open(one) for one in found)
    late = pending(qtype=999)
    assert not waiting.open(late)
    assert late.query.key not in waiting
    assert waiting.open(pending("www.example.com", 999))
    waiting.close(found[0])
    assert waiting.open(late)
    assert not waiting.open(pending(qtype=2))


def test_the_usual_questions_for_a_name_are_so_few_that_they_are_not_counted() -> None:
    waiting = Waiting()
    usual = [pending(qtype=qtype) for qtype in (1, 28, 65)]
    for one in (*(pending(qtype=1000 + number) for number in range(OF_A_NAME)), *usual):
        assert waiting.open(one)
    for one in usual:
        waiting.close(one)
    assert not waiting.open(pending(qtype=2))


@pytest.mark.parametrize("times", [1, 3])
def test_what_was_never_opened_can_be_closed_and_counts_for_nothing(times: int) -> None:
    waiting, one = Waiting(), pending(qtype=999)
    waiting.open(one)
    for _ in range(times):
        waiting.close(pending(qtype=999))  # an equal question that failed before it was asked
    assert waiting.get(one.query.key) is one
    for number in range(OF_A_NAME - 1):
        assert waiting.open(pending(qtype=1000 + number))
    assert not waiting.open(pending(qtype=998))


def test_names_are_forgotten_when_nobody_asks_for_them() -> None:
    waiting = Waiting()
    for number in range(1000):
        one = pending(f"n{number}.example.com", 999)
        waiting.open(one)
        waiting.close(one)
    assert not waiting._names


def test_closing_a_question_stops_its_timer() -> None:
    async def run() -> None:
        waiting, one = Waiting(), pending()
        waiting.open(one)
        timer = one.timer = asyncio.get_running_loop().call_later(3600, print)
        waiting.close(one)
        assert timer.cancelled()

    asyncio.run(run())
