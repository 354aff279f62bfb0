"""How each server of a group is doing, and so in which order they are asked: the fastest that answers first.

A server that is silent goes to the end of the order, and is asked a question of our own now and then: it costs
no client any time to find out that it is back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from splitwgd.servers import Server

SILENCES = 3  # in a row, without any answer for...
SILENT_FOR = 1.0  # ... seconds, make a server dead; a lossy one answers now and then
FASTER = 0.7  # another server comes first when it takes less than this part of the first one's time
PROBE_WANTED = 1.0  # seconds between our own questions to a dead server while clients ask for its names
PROBE_DEAD = 15.0  # ... and while they do not
PROBE_IDLE = 60.0  # ... and to one that is well and not asked, to know how fast it is


@dataclass(slots=True)
class Health:
    """One server. times in seconds of the caller's clock; took: smoothed, None before the first answer. surely:
    whether it is dead not only by one question's word, which it may not want to answer."""

    took: float | None = None
    silences: int = 0
    heard: float = float("-inf")
    dead: bool = False
    surely: bool = False
    probed: float = float("-inf")


class Ward:
    """The servers of one group."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = tuple(servers)
        self.order = self.servers
        self._health = {server: Health() for server in servers}
        self._first = self._health[servers[0]] if servers else Health()  # that of order[0], within reach

    def answered(self, server: Server, took: float, now: float) -> bool:
        """It answered after so many seconds; whether it had surely been dead."""
        is_first = server is self.order[0]
        health = self._first if is_first else self._health[server]
        health.silences = 0
        health.heard = now
        was_dead, was_sure = health.dead, health.surely
        # As TCP smooths its round trips (RFC 6298 §2.3).
        health.took = took if health.took is None or was_dead else health.took + (took - health.took) / 8
        if was_dead or not is_first:
            health.dead = health.surely = False
            self._sort()
        return was_sure

    def silent(self, server: Server, now: float, own: bool = False) -> bool:
        """It did not answer in time; whether it is taken for dead from now on. own: it was a question of ours."""
        health = self._health[server]
        health.silences += 1
        health.surely = health.dead and (own or health.surely)
        if health.dead or health.silences < SILENCES or now - health.heard < SILENT_FOR:
            return False
        return self._die(server, now)

    def unheard(self, server: Server, since: float, now: float) -> None:
        """A question went without an answer; a server that has answered no other since then is dead."""
        if self._health[server].heard < since:
            self._die(server, now)

    def failed(self, server: Server, now: float) -> bool:
        """It cannot be reached, says the network; whether that is news."""
        self._health[server].surely = True
        return self._die(server, now)

    def _die(self, server: Server, now: float) -> bool:
        health = self._health[server]
        news = not health.dead
        health.dead = True
        if news:
            health.probed = now
            self._sort()
        return news

    def took(self, server: Server) -> float | None:
        """Seconds that it takes to answer; None where it has not been asked."""
        return self._health[server].took

    def is_dead(self, server: Server) -> bool:
        """Whether it would only be asked after all others."""
        return self._health[server].dead

    def to_probe(self, now: float, wanted: bool) -> list[Server]:
        """The servers that a question of our own is due for; they count as asked. wanted: whether clients have
        just asked for what these servers have."""
        due = []
        for place, server in enumerate(self.order):
            health = self._health[server]
            wait = (PROBE_WANTED if wanted else PROBE_DEAD) if health.dead else PROBE_IDLE
            if (place or health.dead) and now - max(health.probed, health.heard) >= wait:
                health.probed = now
                due.append(server)
        return due

    def _sort(self) -> None:
        """Dead ones last. The first stays first unless another is clearly faster; unmeasured ones stay where
        the configuration has them."""
        alive = [server for server in self.servers if not self._health[server].dead]
        dead = [server for server in self.servers if self._health[server].dead]
        if alive:
            first = self.order[0] if self.order[0] in alive else alive[0]
            fastest = min(alive, key=self._took)
            if self._took(fastest) < FASTER * self._took(first):
                first = fastest
            alive = [first, *sorted((server for server in alive if server is not first), key=self._took)]
        self.order = (*alive, *dead)
        self._first = self._health[self.order[0]]

    def _took(self, server: Server) -> float:
        took = self._health[server].took
        return float("inf") if took is None else took
