"""One question to one group of servers, as a state machine without sockets: whom to ask, how, and for how long.

The servers are asked in their order, round by round with more patience each; an earlier one may still answer
while a later one is asked. What a server refuses (SERVFAIL, REFUSED, ...) another may know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from splitwgd.message import NOERROR, NXDOMAIN
from splitwgd.servers import Server

PATIENCE = (0.4, 0.8, 1.6)  # seconds for each server, by round
TCP_PATIENCE = 3.0
# A stub resolver gives up after 5 s (resolv.conf(5)); it should hear SERVFAIL before that.
DEADLINE = 4.5


@dataclass(frozen=True, slots=True)
class Attempt:
    """Ask this server and go on to the next after `patience` seconds."""

    server: Server
    tcp: bool
    patience: float


class Verdict(Enum):
    """What a reply means for the exchange."""

    ANSWER = "take it"
    OVER_TCP = "it did not fit: ask the same server over TCP"
    ANOTHER = "this server cannot tell: ask the next one"


class Exchange:
    """The attempts of one question. Ask `next()` first, and again on silence, failure or ANOTHER."""

    def __init__(self, servers: Sequence[Server], now: float) -> None:
        self._ends = now + DEADLINE
        self._attempts: Iterator[Attempt] = (
            Attempt(server, False, patience) for patience in PATIENCE for server in servers
        )
        self._useless: set[Server] = set()

    def next(self, now: float) -> Attempt | None:
        """The next attempt, or None when there is no use in going on."""
        for attempt in self._attempts:
            left = self._ends - now
            if left <= 0:
                return None
            if attempt.server not in self._useless:
                return Attempt(attempt.server, False, min(attempt.patience, left))
        return None

    def over_tcp(self, server: Server, now: float) -> Attempt:
        """The same server once more, over TCP."""
        return Attempt(server, True, max(min(TCP_PATIENCE, self._ends - now), 0.1))

    def failed(self, server: Server) -> None:
        """This server cannot be reached at all, or said that it will not answer: it is not asked again."""
        self._useless.add(server)

    def judge(self, rcode: int, truncated: bool, tcp: bool) -> Verdict:
        """What to do with a reply that can be read."""
        if truncated and not tcp:
            return Verdict.OVER_TCP
        return Verdict.ANSWER if rcode in (NOERROR, NXDOMAIN) else Verdict.ANOTHER
