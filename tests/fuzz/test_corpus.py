"""Each odd packet, and mutants of each, through both decoders: only declared exceptions, bounded work, and
whatever is sent because of them is a message that a strict client can read.

SPLITWG_MUTANTS is how many mutants there are in all; more than a few million are better fed by `python -m tests.fuzz`.
"""

from __future__ import annotations

import os
import time

import pytest

from splitwgd.answers import read_reply
from splitwgd.errors import MessageError
from splitwgd.message import BadQuery, read_query

from . import campaign, odd_queries, odd_replies
from .corpus import FOLDER, queries, replies
from .packets import query
from .targets import feed_query, feed_reply, steps

QUERIES, REPLIES = queries(), replies()
MUTANTS = int(os.environ.get("SPLITWG_MUTANTS", 40_000))
# Lines of Python in about 5 ms on the machine where this was written; wall clocks are for the runner, not for tests.
BOMB, WORST = 100_000, 300_000
BOMBS = ("chained-", "owners-", "two-pointers", "pointer-", "all-65535", "questions-65535")
ONE_MESSAGE = 0.05  # seconds of CPU, a very generous bound for what runs outside of Python


def allowance(what: str) -> int:
    """How many steps this packet may take."""
    return BOMB if what.startswith(BOMBS) or "65535" in what else WORST


def test_the_folder_holds_what_the_scripts_make() -> None:
    """Else: python -m tests.fuzz.corpus."""
    for kind, packets in (("queries", odd_queries.made()), ("replies", odd_replies.made())):
        assert {path.stem: path.read_bytes() for path in (FOLDER / kind).glob("*.bin")} == packets


@pytest.mark.parametrize("what", QUERIES)
def test_what_is_said_to_a_query_is_a_message(what: str) -> None:
    feed_query(QUERIES[what])


@pytest.mark.parametrize("what", REPLIES)
def test_what_is_passed_on_of_a_reply_is_a_message(what: str) -> None:
    feed_reply(REPLIES[what])


@pytest.mark.parametrize("what", QUERIES)
def test_a_query_is_little_work(what: str) -> None:
    def work(data: bytes) -> None:
        try:
            read_query(data)
        except BadQuery:
            pass

    assert steps(work, QUERIES[what], allowance(what)) > 0
    assert cpu_of(work, QUERIES[what]) < ONE_MESSAGE


@pytest.mark.parametrize("what", REPLIES)
def test_a_reply_is_little_work(what: str) -> None:
    data = REPLIES[what]
    asked = read_query(query(odd_queries.NAME))
    asked.qtype = odd_replies.asked_type(data)

    def work(data: bytes) -> None:
        try:
            read_reply(data, asked)
        except MessageError:
            pass

    assert steps(work, data, allowance(what)) > 0
    assert cpu_of(work, data) < ONE_MESSAGE


def cpu_of(work: object, data: bytes) -> float:
    """The best of three, since the machine may be busy with something else."""
    assert callable(work)
    took = []
    for _ in range(3):
        since = time.thread_time()
        work(data)
        took.append(time.thread_time() - since)
    return min(took)


@pytest.mark.timeout(0 if MUTANTS > 100_000 else 120)
@pytest.mark.parametrize("kind", campaign.FEED)
def test_mutants(kind: str) -> None:
    report = campaign.run(kind, 1, MUTANTS // 2)
    stories = [f"{data.hex()[:2000]}\n{story}" for data, story in report.failures.items()]
    assert not stories, "\n".join(stories[:5])
    assert report.fed == MUTANTS // 2
    # A fuzzer whose packets are all refused at the door tests the door.
    assert report.outcomes["question" if kind == "queries" else "reply"] > report.fed // 10
