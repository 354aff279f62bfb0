"""Holds answers back until the kernel has acknowledged their addresses, and keeps the sets within their bounds.

What comes in during one turn of the loop shares a transaction. If that fails, each answer stands for itself.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

from splitwgd.elements import Elements
from splitwgd.errors import KernelError, MissingError, SplitwgError
from splitwgd.learned import Grant, Ledger, Place, merged
from splitwgd.names import Name
from splitwgd.objects import Element
from splitwgd.ruleset import SET_SIZE
from splitwgd.turn import Turn

log = logging.getLogger("splitwgd.dns")
OF_A_NAME = 1024  # addresses that one name may hold
_TRIES = 3  # of a transaction, which may meet another one
_UNTIL_REPAIRED = 0.05  # seconds for which a table that is gone is not tried: the repair needs the time
_UNTIL_FREE = 0.001
_QUIET = 60.0  # seconds between two complaints about the same thing

Done = Callable[[bool], None]


class Gate:
    """The only way by which learned addresses get into their sets, and out of them."""

    def __init__(self, turn: Turn, ledger: Ledger, elements: Elements, set_size: int = SET_SIZE) -> None:
        self.turn = turn
        self.loop = turn.loop
        self.ledger = ledger
        self.elements = elements
        self.set_size = set_size
        self.evicted = 0
        self._held: list[tuple[Grant, Done]] = []
        self._turn: list[tuple[Grant, Done]] = []  # what is being written
        self._complained: dict[str, float] = {}
        self._missing_until = float("-inf")

    def hold(self, grant: Grant, done: Done) -> None:
        """Calls `done` with whether an answer with these addresses may be given: at once where nothing has to
        be written, otherwise when it was."""
        if not grant.new and not grant.renewed:
            self.ledger.record(grant, self.loop.time())
            done(True)
            return
        if not self._held:
            self.turn.at_end(self._write_when_free)
        self._held.append((grant, done))

    def _write_when_free(self) -> None:
        if self.elements.busy:  # the ruleset is being written: a matter of milliseconds, and of no blocked loop
            self.loop.call_later(_UNTIL_FREE, self._write_when_free)
        else:
            self._write()

    def _write(self) -> None:
        held, self._held = self._held, []
        self._turn = held
        now = self.loop.time()
        together = len(held) > 1 and self._put_together([grant for grant, _ in held], now)
        for grant, done in held:
            if not together and now < self._missing_until:
                done(False)
                continue
            if not together:
                # Anew: what was to be written may be there by now, for another one of this turn.
                grant = self.ledger.grant(grant.name, grant.places, grant.ttl, now)
                if not self._put(grant, now):
                    done(False)
                    continue
            self.ledger.record(grant, now)
            done(True)
        self._turn = []

    def _put_together(self, grants: Sequence[Grant], now: float) -> bool:
        new = merged([element for grant in grants for element in grant.new])
        renewed = merged([element for grant in grants for element in grant.renewed])
        if now < self._missing_until or not self._make_room(new, now):
            return False
        held_by = self.ledger.held_by
        for grant in grants:
            if held_by(grant.name) + len(grant.new) > OF_A_NAME and not self._is_within_bounds(grant, now):
                return False
        try:
            self.elements.write(new, renewed)
        except SplitwgError:
            return False
        return True

    def _put(self, grant: Grant, now: float) -> bool:
        """One answer by itself; what should be new may be there already."""
        if not self._is_within_bounds(grant, now) or not self._make_room(grant.new, now):
            self._complain("a set is full of addresses that are still promised; answers with new ones are withheld")
            return False
        failure: SplitwgError | None = None
        for attempt in range(_TRIES):
            try:
                if attempt == 0:
                    self.elements.write(grant.new, grant.renewed)
                else:
                    self.elements.put([*grant.new, *grant.renewed])
            except MissingError as error:
                self._missing_until = now + _UNTIL_REPAIRED
                failure = error
                break
            except SplitwgError as error:
                failure = error
            else:
                return True
        self._complain(f"addresses cannot be written, their answers are withheld: {failure}")
        return False

    def _complain(self, what: str) -> None:
        now = self.loop.time()
        if now - self._complained.get(what, float("-inf")) >= _QUIET:
            self._complained[what] = now
            log.error("%s", what)

    # -- bounds

    def _make_room(self, new: Sequence[Element], now: float) -> bool:
        """Whether there is room for these, perhaps after others have made it."""
        if len(self.ledger) + len(new) <= self.set_size:
            return True  # in any set
        enough = True
        for set_, count in Counter(element.set for element in new).items():
            over = self.ledger.size(set_) + count - self.set_size
            if over > 0:
                self.ledger.expire(now)
                over = self.ledger.size(set_) + count - self.set_size
            if over > 0:
                enough = self._evict(self.ledger.victims(set_, over, now, spared=self._spared()), over) and enough
        return enough

    def _spared(self) -> set[Place]:
        """What the answers of this turn need."""
        return {place for grant, _ in self._turn for place in grant.places}

    def _is_within_bounds(self, grant: Grant, now: float) -> bool:
        over = self.ledger.held_by(grant.name) + len(grant.new) - OF_A_NAME
        if over <= 0 or not grant.new:
            return True
        return self._evict(self.ledger.victims("", over, now, grant.name, self._spared()), over)

    def _evict(self, victims: list[Place], wanted: int) -> bool:
        self.take_out(victims)
        self.ledger.evict(victims)
        self.evicted += len(victims)
        return len(victims) >= wanted

    def take_out(self, places: Sequence[Place]) -> None:
        """Takes these out of their sets; it is no matter if some have gone by themselves."""
        for start in range(0, len(places), 256):
            part = places[start : start + 256]
            try:
                self.elements.write((), (), part)
            except KernelError:  # one that is absent fails them all
                for place in part:
                    self._take_out(place)

    def _take_out(self, place: Place) -> None:
        try:
            self.elements.write((), (), [place])
        except KernelError as error:
            log.debug("an address was not in its set %s: %s", place[0], error)

    # -- reload

    def admit(self, grants: Sequence[Grant]) -> None:
        """Writes these at once. Raises KernelError when the kernel refuses; nothing was recorded then."""
        now = self.loop.time()
        self.elements.put(merged([element for grant in grants for element in (*grant.new, *grant.renewed)]))
        for grant in grants:
            self.ledger.record(grant, now)

    def release(self, stays: Callable[[Name, str], bool]) -> list[Place]:
        """Takes the addresses that no name holds any more, to which `stays` is true, out of their sets.

        In one turn of the loop: an answer that brought one of them anew in between would be given away. What
        waits is written first, so that the ledger knows who holds what.
        """
        self._write()
        places = self.ledger.release(stays)
        self.take_out(places)
        return places
