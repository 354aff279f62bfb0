"""The gate: an answer passes when its addresses are acknowledged, and a set that is full makes room or says no.

The sets are in memory here and behave as nf_tables' do; with real ones: tests/kernel/test_elements.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import cast

import pytest

import splitwgd.gate
from splitwgd.elements import Elements
from splitwgd.errors import KernelError, MissingError
from splitwgd.gate import Gate
from splitwgd.learned import Grant, Ledger, Place
from splitwgd.names import Name, parse_name
from splitwgd.objects import Element
from splitwgd.turn import Turn

SET4, SET6 = "wg_domains4", "wg_domains6"
A, B, C = (parse_name(f"{letter}.example") for letter in "abc")
LIFE = 3600


class Sets:
    """Sets that hold so many each. failing: how many of the next transactions are refused; broken: a set that
    refuses each."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.busy = False  # else another thread writes
        self.held: dict[Place, Element] = {}
        self.failing = 0
        self.broken = ""
        self.there = True  # else somebody has deleted their table
        self.transactions: list[tuple[int, int, int]] = []  # how many were new, renewed and gone

    def write(
        self, new: Sequence[Element], renewed: Sequence[Element] = (), gone: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        gone = list(gone)
        self.transactions.append((len(new), len(renewed), len(gone)))
        if not self.there:
            raise MissingError("nf_tables: No such file or directory")
        if self.failing:
            self.failing -= 1
            raise KernelError("nf_tables: Resource temporarily unavailable")
        after = dict(self.held)
        for place in gone:
            if place not in after:
                raise KernelError("nf_tables: No such file or directory")
            del after[place]
        for element in (*new, *renewed):
            place = (element.set, element.address)
            if place in after and element in new:
                raise KernelError("nf_tables: File exists")
            if element.set == self.broken:
                raise KernelError("nf_tables: No such file or directory")
            after[place] = element
        if max(Counter(set_ for set_, _ in after).values(), default=0) > self.size:
            raise KernelError("nf_tables: a set is full")
        self.held = after

    def put(self, elements: Sequence[Element]) -> None:
        self.write((), elements)

    def names(self) -> dict[Place, str]:
        return {place: element.name for place, element in self.held.items()}


class Loop(asyncio.SelectorEventLoop):
    """A real loop whose clock can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class House:
    """A gate with its ledger and its sets, on a running loop."""

    def __init__(self, size: int) -> None:
        self.loop = cast(Loop, asyncio.get_running_loop())
        self.sets = Sets(size)
        self.ledger = Ledger(LIFE, 60)
        self.gate = Gate(Turn(self.loop), self.ledger, cast(Elements, self.sets), size)
        self.done: dict[str, bool] = {}

    def grant(self, name: Name, *places: Place, ttl: float = 60) -> Grant:
        return self.ledger.grant(name, places, ttl, self.loop.time())

    def hold(self, word: str, name: Name, *places: Place, ttl: float = 60) -> None:
        """An answer; what became of it stands in `done` under its word."""

        def done(may: bool) -> None:
            assert word not in self.done, "each answer is given once"
            self.done[word] = may
            if may:
                assert set(places) <= set(self.sets.held), "what is said is there"

        self.gate.hold(self.grant(name, *places, ttl=ttl), done)

    async def learn(self, name: Name, *places: Place, ttl: float = 0) -> None:
        """An answer that is over; without a TTL its addresses can be spared."""
        self.hold(f"learnt {len(self.done)}", name, *places, ttl=ttl)
        await turn()


async def turn() -> None:
    """What was put off until the next turn of the loop is done."""
    for _ in range(3):
        await asyncio.sleep(0)


Story = Callable[[House], Coroutine[object, object, None]]


def play(story: Story, size: int = 100) -> None:
    """Nothing may be raised, not even where only the loop would hear of it."""
    heard: list[object] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context))
        await story(House(size))

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(run())
    assert heard == []


def four(*numbers: int) -> list[Place]:
    return [(SET4, bytes((192, 0, 2, number))) for number in numbers]


SIX = (SET6, bytes.fromhex("20010db8" + "00" * 11 + "01"))
ONE, TWO, THREE, FOUR, FIVE = four(1, 2, 3, 4, 5)


# -- the promise


def test_while_another_thread_writes_an_answer_waits_and_the_loop_does_not() -> None:
    async def story(house: House) -> None:
        house.sets.busy = True
        house.hold("a", A, ONE)
        await asyncio.sleep(0.01)
        house.hold("b", B, TWO)
        await asyncio.sleep(0.01)
        assert (house.done, house.sets.transactions) == ({}, [])
        house.sets.busy = False
        await asyncio.sleep(0.01)
        assert house.done == {"a": True, "b": True} and house.sets.transactions == [(2, 0, 0)]

    play(story)


def test_what_waits_for_another_thread_is_written_before_addresses_are_released() -> None:
    async def story(house: House) -> None:
        house.sets.busy = True
        house.hold("a", A, ONE)
        assert house.gate.release(lambda name, set_: True) == [] and house.done == {"a": True}
        house.sets.busy = False
        await asyncio.sleep(0.01)
        assert len(house.sets.transactions) == 1

    play(story)


def test_an_answer_passes_after_its_addresses_were_written_and_not_before() -> None:
    async def story(house: House) -> None:
        house.hold("a", A, ONE, SIX)
        assert (house.done, house.sets.held, len(house.ledger)) == ({}, {}, 0)
        await turn()
        assert house.done == {"a": True}
        assert house.sets.names() == {ONE: "a.example", SIX: "a.example"}
        assert house.ledger.places() == {ONE, SIX}

    play(story)


def test_an_answer_that_needs_no_write_passes_at_once_and_is_a_promise() -> None:
    async def story(house: House) -> None:
        house.ledger.spare = 900
        await house.learn(A, ONE, ttl=600)
        house.loop.ahead = 580
        house.hold("again", A, ONE, ttl=600)
        assert house.done["again"]
        assert house.sets.transactions == [(1, 0, 0)]
        assert house.ledger.victims(SET4, 1, house.loop.time() + 599) == []

    play(story)


def test_an_answer_without_addresses_passes_at_once() -> None:
    async def story(house: House) -> None:
        house.hold("empty", A)
        assert house.done == {"empty": True}

    play(story)


def test_what_comes_in_one_turn_shares_a_transaction() -> None:
    async def story(house: House) -> None:
        await house.learn(C, THREE)
        house.loop.ahead = LIFE / 2
        house.hold("a", A, ONE, TWO)
        house.hold("b", B, ONE)
        house.hold("c", C, THREE)
        await turn()
        assert house.done == {"learnt 0": True, "a": True, "b": True, "c": True}
        assert house.sets.transactions[1:] == [(2, 1, 0)]
        assert house.sets.names() == {THREE: "c.example", ONE: "a.example b.example", TWO: "a.example"}

    play(story)


def test_what_comes_while_answers_are_given_is_not_forgotten() -> None:
    async def story(house: House) -> None:
        house.gate.hold(house.grant(A, ONE), lambda may: house.hold("second", A, TWO))
        await turn()
        assert house.done == {"second": True}

    play(story)


# -- when the kernel refuses


def test_a_transaction_that_fails_takes_nobody_else_with_it() -> None:
    async def story(house: House) -> None:
        house.sets.broken = SET6
        house.hold("a", A, ONE)
        house.hold("b", B, SIX)
        house.hold("c", C, TWO)
        await turn()
        assert house.done == {"a": True, "b": False, "c": True}
        assert house.ledger.places() == {ONE, TWO}
        assert house.ledger.held_by(B) == 0

    play(story)


def test_answers_that_share_an_address_share_its_element_when_each_stands_for_itself() -> None:
    """What the comment forgets is let go after a restart, whoever was promised it."""

    async def story(house: House) -> None:
        house.sets.failing = 1
        house.hold("a", A, ONE)
        house.hold("b", B, ONE)
        await turn()
        assert house.done == {"a": True, "b": True}
        assert house.sets.names() == {ONE: "a.example b.example"}

    play(story)


@pytest.mark.parametrize(("failures", "passes"), [(1, True), (2, True), (3, False)])
def test_an_answer_is_tried_three_times(failures: int, passes: bool) -> None:
    async def story(house: House) -> None:
        house.sets.failing = failures
        house.hold("a", A, ONE)
        await turn()
        assert house.done == {"a": passes}
        assert len(house.ledger) == len(house.sets.held) == passes

    play(story)


def test_a_table_that_is_gone_is_not_tried_again_until_the_repair_had_its_time() -> None:
    """Each try would take the time that the repair needs, on the same loop and under the kernel's same lock."""

    async def story(house: House) -> None:
        house.sets.there = False
        for word, name, place in (("a", A, ONE), ("b", B, TWO), ("c", C, THREE)):
            house.hold(word, name, place)
        await turn()
        assert house.done == {"a": False, "b": False, "c": False}
        assert len(house.sets.transactions) == 2  # all together, and the first one alone
        house.sets.there = True
        house.hold("too early", A, ONE)
        await turn()
        assert len(house.sets.transactions) == 2
        house.loop.ahead = splitwgd.gate._UNTIL_REPAIRED
        house.hold("later", A, ONE)
        await turn()
        assert (house.done["too early"], house.done["later"]) == (False, True)

    play(story)


def test_an_address_that_somebody_else_put_there_is_taken_over() -> None:
    async def story(house: House) -> None:
        house.sets.held[ONE] = Element(*ONE, "", 5)
        house.hold("a", A, ONE, TWO)
        await turn()
        assert house.done == {"a": True}
        assert house.sets.held[ONE] == Element(*ONE, "a.example", LIFE)

    play(story)


def test_an_address_that_somebody_else_took_out_is_put_back_with_the_answer_that_renews_it() -> None:
    async def story(house: House) -> None:
        await house.learn(A, ONE)
        house.sets.held.clear()
        house.loop.ahead = LIFE / 2
        house.hold("a", A, ONE)
        await turn()
        assert house.done["a"] and ONE in house.sets.held

    play(story)


def test_the_same_complaint_is_made_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async def story(house: House) -> None:
        house.sets.broken = SET4
        for ahead in (0, 30, 59):
            house.loop.ahead = ahead
            house.hold(f"a{ahead}", A, ONE)
            await turn()
        assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
            "addresses cannot be written, their answers are withheld: nf_tables: No such file or directory"
        ]
        house.loop.ahead = 62
        house.hold("a62", A, ONE)
        await turn()
        assert len(caplog.records) == 2
        assert not any(house.done.values())

    play(story)


# -- a set that is full


def test_who_ends_first_and_is_promised_no_more_makes_room() -> None:
    async def story(house: House) -> None:
        await house.learn(A, ONE)
        house.loop.ahead = 100
        await house.learn(A, TWO)
        await house.learn(A, THREE, ttl=900)
        house.hold("b", B, FOUR)
        await turn()
        assert house.done["b"]
        assert set(house.sets.held) == house.ledger.places() == {TWO, THREE, FOUR}
        assert house.gate.evicted == 1

    play(story, size=3)


def test_what_is_promised_makes_room_for_nobody_and_later_does(caplog: pytest.LogCaptureFixture) -> None:
    async def story(house: House) -> None:
        await house.learn(A, ONE, TWO, ttl=600)
        house.hold("b", B, THREE)
        await turn()
        assert not house.done["b"]
        assert set(house.sets.held) == house.ledger.places() == {ONE, TWO}
        assert "a set is full of addresses that are still promised" in caplog.text
        house.hold("six", B, SIX)
        house.hold("known", B, ONE)
        await turn()
        assert house.done["six"] and house.done["known"], "another set, and an address that is there, are no matter"
        house.loop.ahead = 601
        house.hold("later", B, THREE)
        await turn()
        assert house.done["later"]
        assert house.gate.evicted == 1

    play(story, size=2)


def test_what_has_ended_makes_room_and_is_no_eviction() -> None:
    async def story(house: House) -> None:
        await house.learn(A, ONE, TWO)
        house.loop.ahead = LIFE + 64
        house.sets.held.clear()  # the kernel's clock is the same
        house.hold("b", B, THREE)
        await turn()
        assert house.done["b"]
        assert (house.gate.evicted, house.sets.transactions[1:]) == (0, [(1, 0, 0)])

    play(story, size=2)


def test_one_who_asks_for_too_much_is_refused_and_the_others_of_the_turn_are_not() -> None:
    async def story(house: House) -> None:
        await house.learn(A, ONE, TWO, ttl=600)
        house.hold("greedy", B, *four(*range(10, 20)))
        house.hold("modest", C, THREE)
        await turn()
        assert (house.done["greedy"], house.done["modest"]) == (False, True)

    play(story, size=3)


def test_an_answer_does_not_make_room_with_an_address_of_its_own() -> None:
    """The usual case of a full set: an old name asks again, and has one more address than the last time."""

    async def story(house: House) -> None:
        await house.learn(A, ONE)
        house.loop.ahead = 100
        await house.learn(B, TWO, THREE)
        house.hold("a", A, ONE, FOUR)
        await turn()
        assert house.done["a"]
        assert {ONE, FOUR} <= set(house.sets.held)

    play(story, size=3)


def test_an_answer_does_not_make_room_with_an_address_of_another_that_waits() -> None:
    """Ledger.record raises KeyError then; who waits is never told, and all who ask later wait with them."""

    async def story(house: House) -> None:
        house.ledger.spare = 900
        await house.learn(A, ONE)
        await house.learn(B, TWO, ttl=900)
        house.hold("b", B, TWO, SIX)
        house.hold("a", A, ONE, (SET6, bytes(16)))  # nothing to write for ONE, which can be spared
        house.hold("c", C, THREE)
        await turn()
        assert set(house.done) >= {"a", "b", "c"}, "each is told"
        assert house.done["b"]
        assert house.done["a"] != house.done["c"], "there is room for one of them"

    play(story, size=2)


# -- a name that wants too much


def test_a_name_holds_no_more_than_it_may_and_its_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitwgd.gate, "OF_A_NAME", 3)

    async def story(house: House) -> None:
        await house.learn(B, FIVE)
        house.loop.ahead = 100
        await house.learn(A, ONE, TWO)
        house.loop.ahead = 200
        await house.learn(A, THREE)
        house.hold("a", A, FOUR)
        await turn()
        assert house.done["a"]
        assert len({ONE, TWO} & house.ledger.places()) == 1
        assert house.ledger.places() == set(house.sets.held) >= {THREE, FOUR, FIVE}
        assert (house.ledger.held_by(A), house.gate.evicted) == (3, 1)

    play(story)


def test_of_what_it_shares_or_has_promised_nothing_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitwgd.gate, "OF_A_NAME", 2)

    async def story(house: House) -> None:
        await house.learn(A, ONE)
        await house.learn(B, ONE)
        await house.learn(A, TWO, ttl=600)
        house.hold("a", A, THREE)
        house.hold("b", B, THREE)
        house.hold("known", A, TWO)
        await turn()
        assert (house.done["a"], house.done["b"], house.done["known"]) == (False, True, True)
        assert house.ledger.places() == {ONE, TWO, THREE}

    play(story)


def test_a_name_with_many_ipv4_addresses_gets_an_ipv6_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitwgd.gate, "OF_A_NAME", 2)

    async def story(house: House) -> None:
        await house.learn(A, ONE, TWO)
        house.hold("six", A, SIX)
        await turn()
        assert house.done["six"]

    play(story)


# -- taking out


def test_what_is_taken_out_goes_even_if_some_had_gone_by_themselves() -> None:
    async def story(house: House) -> None:
        await house.learn(A, ONE, TWO, THREE, SIX)
        del house.sets.held[TWO]
        house.gate.take_out([ONE, TWO, SIX])
        assert set(house.sets.held) == {THREE}

    play(story)


def test_many_are_taken_out_in_few_transactions() -> None:
    async def story(house: House) -> None:
        many = [(SET4, number.to_bytes(4, "big")) for number in range(1000)]
        await house.learn(A, *many)
        house.gate.take_out(many)
        assert house.sets.held == {}
        assert len(house.sets.transactions) < 10

    play(story, size=1000)


def test_what_no_name_holds_any_more_is_released_and_the_rest_stays() -> None:
    async def story(house: House) -> None:
        await house.learn(A, ONE, TWO)
        await house.learn(B, TWO)
        assert house.gate.release(lambda name, set_: name == B) == [ONE]
        assert set(house.sets.held) == house.ledger.places() == {TWO}

    play(story)


def test_an_answer_that_waits_while_addresses_are_released_keeps_its_own() -> None:
    """A reload between two turns."""

    async def story(house: House) -> None:
        await house.learn(A, ONE, ttl=86_400)
        house.hold("b", B, ONE, TWO)
        house.hold("c", C, THREE)
        house.gate.release(lambda name, set_: name in (B, C))
        await turn()
        assert house.done["b"] and house.done["c"]
        assert house.ledger.places() == set(house.sets.held) == {ONE, TWO, THREE}

    play(story)


def test_the_answer_of_a_name_that_goes_is_told_of_before_its_addresses_go() -> None:
    """Who waits for it asks again then (forwarder): the configuration is another one."""

    async def story(house: House) -> None:
        await house.learn(A, ONE, ttl=86_400)
        house.hold("b", B, ONE, TWO)
        house.hold("c", C, THREE)
        assert set(house.gate.release(lambda name, set_: name == C)) == {ONE, TWO}
        assert house.done["b"]
        await turn()
        assert house.done["c"]
        assert house.ledger.places() == set(house.sets.held) == {THREE}

    play(story)


# -- admission at a reload


def test_what_is_admitted_is_written_at_once_and_shares_its_elements() -> None:
    async def story(house: House) -> None:
        await house.learn(C, THREE)
        house.gate.admit([house.grant(A, ONE, TWO), house.grant(B, ONE, THREE)])
        assert house.sets.names() == {
            ONE: "a.example b.example",
            TWO: "a.example",
            THREE: "c.example b.example",
        }
        assert house.ledger.held_by(A) == house.ledger.held_by(B) == 2
        house.gate.admit([])

    play(story)


def test_what_cannot_be_admitted_raises_and_is_not_recorded() -> None:
    async def story(house: House) -> None:
        grants = [house.grant(A, ONE), house.grant(B, TWO)]
        house.sets.failing = 1
        with pytest.raises(KernelError):
            house.gate.admit(grants)
        assert len(house.ledger) == 0
        house.gate.admit(grants)
        assert house.ledger.places() == set(house.sets.held) == {ONE, TWO}

    play(story)
