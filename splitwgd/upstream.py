"""All questions that are under way, and what is known of the servers that they go to.

A question of a client travels as a `flight`; questions of our own find out whether a dead server is back, and
whether a server asks us in its turn.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from splitwgd.answers import TTL_LIMIT
from splitwgd.channels import Channels
from splitwgd.desk import Desk
from splitwgd.errors import UpstreamError
from splitwgd.exchange import FIRST_PATIENCE
from splitwgd.flight import Done, Flight
from splitwgd.message import A, Query, question_for
from splitwgd.names import ROOT, Name, parse_name
from splitwgd.ports import Ports
from splitwgd.servers import Server
from splitwgd.turn import Turn
from splitwgd.zones import Group

log = logging.getLogger("splitwgd.dns")
_NS = 2
_PROBE_EVERY = 1.0  # seconds between looks at who is to be probed
_WANTED = 10.0  # seconds since a client's question that somebody may be waiting to ask again
_PROBE_WHILE_USED = 120.0  # seconds since a client's question: nobody waits for the servers of an idle machine


class Upstreams:
    """All questions that are under way."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channels: Channels | None = None,
        ports: Ports | None = None,
        limit: int = 8192,
    ) -> None:
        """limit: questions that may be under way."""
        self.limit = limit
        self.loop = loop
        self.channels = channels or Channels(loop)
        self.ports = ports or Ports(Turn(loop))
        self.ttl_bounds = (0, TTL_LIMIT)
        self.mix_case = False
        self.first: dict[Flight, None] = {}  # whose first attempt is under way, the oldest first
        self.later: set[Flight] = set()
        self.on_recovery: Callable[[Group], None] = lambda group: None
        self.discarded = 0  # replies that did not fit their question
        self._desks: dict[Group, Desk] = {}
        self._at_hand: Desk | None = None  # that of the group that was asked last
        self.probes: dict[Name, tuple[Group, Server]] = {}
        self._tick: asyncio.TimerHandle | None = None
        self._probe: asyncio.TimerHandle | None = None

    def ask(self, query: Query, group: Group, done: Done) -> None:
        """Calls `done` once, later, with the reply or with why there is none."""
        desk = self._desk(group)
        if len(self.first) + len(self.later) >= self.limit:
            error = UpstreamError(f"{group.name}: {self.limit} questions are under way already")
            self.loop.call_soon(done, error)
            return
        flight = Flight(self, desk, query, done)
        desk.used = flight.begun
        servers = desk.ward.order
        if desk.looping:
            servers = tuple(server for server in servers if server not in desk.looping)
        flight.begin(servers)
        if self._probe is None:
            self._probe = self.loop.call_later(_PROBE_EVERY, self._send_probes)

    def under_way(self) -> int:
        """How many questions wait for their answers, ours among them."""
        return len(self.first) + len(self.later)

    def await_first(self, flight: Flight) -> None:
        """Wakes the flight if its first attempt is not answered in time: one timer for all of them."""
        self.first[flight] = None
        if self._tick is None:
            self._tick = self.loop.call_later(FIRST_PATIENCE, self._wake)

    def _wake(self) -> None:
        begun = self.loop.time() - FIRST_PATIENCE
        late = []
        for flight in self.first:
            if flight.begun > begun:
                break
            late.append(flight)
        for flight in late:
            if flight in self.first:  # it may have ended with another one
                flight.silence()
        self._tick = None
        if self.first:
            oldest = next(iter(self.first))
            self._tick = self.loop.call_at(oldest.begun + FIRST_PATIENCE, self._wake)

    def refresh(self) -> None:
        """The network is another one: nothing that was learned of the servers, and no open socket, is good now."""
        self.ports.refresh()
        self.channels.drop(lambda way: True)
        self._at_hand = None
        for group in list(self._desks):
            self._desks[group] = Desk(group)

    def keep_only(self, groups: Iterable[Group]) -> None:
        """Forgets the servers of other groups."""
        kept = set(groups)
        self._at_hand = None
        self._desks = {group: desk for group, desk in self._desks.items() if group in kept}
        ways = {post.way for desk in self._desks.values() for post in desk.posts.values()}
        self.channels.drop(lambda way: way not in ways)

    def state(self) -> dict[str, dict[str, dict[str, Any]]]:
        """How the servers do, by group: in a word, and the milliseconds until they answer (None: not asked yet)."""
        return {
            group.name: {
                str(server): {"is": self._word(desk, server), "ms": _milliseconds(desk.ward.took(server))}
                for server in group.servers
            }
            for group, desk in self._desks.items()
        }

    @staticmethod
    def _word(desk: Desk, server: Server) -> str:
        if server in desk.looping:
            return "asks us"
        return "silent" if desk.ward.is_dead(server) else "well"

    # -- questions of our own

    def _send_probes(self) -> None:
        now = self.loop.time()
        used = [desk for desk in self._desks.values() if now - desk.used < _PROBE_WHILE_USED]
        for desk in used:
            for server in desk.ward.to_probe(now, now - desk.used < _WANTED):
                self.send_one(desk.group, server, question_for(ROOT, _NS))
        self._probe = self.loop.call_later(_PROBE_EVERY, self._send_probes) if used else None

    def send_one(self, group: Group, server: Server, query: Query) -> None:
        """A question of our own to one server, for the sake of being asked."""
        Flight(self, self._desk(group), query, lambda outcome: None, own=True).begin((server,))

    def look_for_loops(self, groups: Iterable[Group]) -> None:
        """Asks each server once for a name that nobody else knows: if that comes to us, the server asks us."""
        self.probes.clear()
        for group in groups:
            for server in group.servers:
                name = parse_name(f"{secrets.token_hex(8)}.splitwg-probe.example")
                self.probes[name] = (group, server)
                self.send_one(group, server, question_for(name, A))

    def came_back(self, name: Name) -> bool:
        """Whether this is such a name; its server is not asked again then."""
        found = self.probes.get(name) if self.probes else None
        if found is None:
            return False
        group, server = found
        if server not in self._desk(group).looping:
            log.error(
                "the server %s of %s asks splitwgd in its turn, and is left out; name another one", server, group.name
            )
        self._desk(group).looping.add(server)
        return True

    def _desk(self, group: Group) -> Desk:
        desk = self._at_hand
        if desk is None or desk.group is not group:
            desk = self._at_hand = self._desks.get(group) or self._desks.setdefault(group, Desk(group))
            desk.group = group
        return desk

    def close(self) -> None:
        """Ends every question that is under way, without an answer."""
        for flight in [*self.first, *self.later]:
            flight.drop(0.0)
        for timer in (self._tick, self._probe):
            if timer is not None:
                timer.cancel()
        self.channels.close()
        self.ports.close()


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
