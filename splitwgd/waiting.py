"""The questions that are under way, everybody who waits for their answers, and what became of them all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from splitwgd.cache import Entry
from splitwgd.listener import Client
from splitwgd.message import AAAA, HTTPS, A, Query
from splitwgd.names import Name
from splitwgd.zones import Group, Zones

OF_A_NAME = 32  # questions of unusual types for one name that may be under way: each is a chance for a forger
_USUAL = frozenset({A, AAAA, HTTPS})  # there are not so many of these
ASKERS = 16_384  # of one question


@dataclass(slots=True)
class Counts:
    """What happened to questions since the start."""

    asked: int = 0
    from_cache: int = 0
    tunneled: int = 0
    failed: int = 0
    withheld: int = 0
    stale: int = 0
    local: int = 0
    bad: int = 0


class Pending:
    """One question. stale: what it was answered with before, which may stand in. timer: until that is given.
    given: whether it has been."""

    __slots__ = ("askers", "given", "group", "query", "stale", "timer", "zones")

    def __init__(self, query: Query, group: Group, zones: Zones) -> None:
        self.query = query
        self.group = group
        self.zones = zones
        self.askers: list[tuple[Query, Client]] = []
        self.stale: Entry | None = None
        self.given = False
        self.timer: asyncio.TimerHandle | None = None


class Waiting:
    """All of them, by key: equal questions are asked once (no birthday attack, and no needless load)."""

    def __init__(self) -> None:
        self._pending: dict[bytes, Pending] = {}
        self._names: dict[Name, int] = {}
        self.get = self._pending.get

    def __contains__(self, key: bytes) -> bool:
        return key in self._pending

    def __len__(self) -> int:
        return len(self._pending)

    def anybody(self) -> bool:
        """Whether somebody waits for an answer that he has not had."""
        return any(pending.askers and not pending.given for pending in self._pending.values())

    def open(self, pending: Pending) -> bool:
        """Whether it may be asked."""
        query = pending.query
        if query.qtype not in _USUAL:
            under_way = self._names.get(query.name, 0)
            if under_way >= OF_A_NAME:
                return False
            self._names[query.name] = under_way + 1
        self._pending[query.key] = pending
        return True

    def join(self, pending: Pending, query: Query, client: Client) -> bool:
        """Whether there is still room for this asker."""
        if len(pending.askers) >= ASKERS:
            return False
        pending.askers.append((query, client))
        return True

    def close(self, pending: Pending) -> list[tuple[Query, Client]]:
        """It is answered: those who waited."""
        if pending.timer is not None:
            pending.timer.cancel()
        query = pending.query
        if self._pending.get(query.key) is pending:
            del self._pending[query.key]
            if query.qtype not in _USUAL:
                self._names[query.name] -= 1
                if not self._names[query.name]:
                    del self._names[query.name]
        askers, pending.askers = pending.askers, []
        return askers
