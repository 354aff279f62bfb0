"""One question to one group of servers, as a state machine without sockets: whom to ask, how, and for how long.

The servers are asked in the order of their health, the next after 250 ms; an earlier one may still answer while
a later one is asked. What one refuses (SERVFAIL, REFUSED, ...) another may know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from splitwgd.message import ANSWERS, BADCOOKIE
from splitwgd.servers import Server, Transport

FIRST_PATIENCE = 0.25  # seconds for the first server, and in the first round
# ... and in later ones. Not doubled: on a line that loses packets each further try should come soon, and seven
# tries fit into the deadline.
PATIENCE = (FIRST_PATIENCE, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85)
# A stub resolver gives up after 5 s (resolv.conf(5)); it should hear SERVFAIL before that.
DEADLINE = 4.5


@dataclass(frozen=True, slots=True)
class Attempt:
    """Ask this server and go on to the next after `patience` seconds."""

    server: Server
    patience: float


class Verdict(Enum):
    """What a reply means that can be read."""

    ANSWER = "take it"
    OVER_TCP = "it did not fit, or could be forged: ask the same server over TCP"
    ANOTHER = "this server cannot tell: ask the next one"


class Exchange:
    """The attempts of one question after the first, which went to servers[0] at `begun`."""

    def __init__(self, servers: Sequence[Server], dead: Sequence[Server], begun: float) -> None:
        self._ends = begun + DEADLINE
        self._attempts = self._in_rounds(servers, dead)
        self._useless: set[Server] = set()
        next(self._attempts, None)

    @staticmethod
    def _in_rounds(servers: Sequence[Server], dead: Sequence[Server]) -> Iterator[Attempt]:
        """A dead server is asked once, after the others: nobody waits for it twice."""
        alone = len(dead) == len(servers)
        for number, patience in enumerate(PATIENCE):
            for server in servers:
                if server not in dead or alone or number == 0:
                    yield Attempt(server, patience)

    def next(self, now: float) -> Attempt | None:
        """The next attempt, or None when there is no use in going on."""
        left = self._ends - now
        if left <= 0:
            return None
        for attempt in self._attempts:
            if attempt.server not in self._useless:
                return Attempt(attempt.server, min(attempt.patience, left))
        return None

    def left(self, now: float) -> float:
        """Seconds to the deadline."""
        return max(self._ends - now, 0.0)

    def failed(self, server: Server) -> None:
        """This server cannot be reached at all, or said that it will not answer: it is not asked again."""
        self._useless.add(server)


def judge(rcode: int, truncated: bool, transport: Transport, stream: bool) -> Verdict:
    """What to do with a reply that can be read."""
    if not truncated and rcode in ANSWERS:
        return Verdict.ANSWER
    if (truncated or rcode == BADCOOKIE) and transport is Transport.PLAIN and not stream:
        return Verdict.OVER_TCP
    return Verdict.ANOTHER
