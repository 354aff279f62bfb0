"""Keeps Python's collector of circular garbage out of the questions' way.

What is kept here (answers, addresses) is kept for long and holds no circles, and there is much of it: to look through
what a busy second leaves costs a tenth of the second, and stops everything for many milliseconds at a time. So the
collector looks only at what a quiet second left, and at everything once in a while (docs/decisions/0016).
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

EVERY = 1.0  # seconds between looks
BUSY = 300  # questions; what they leave takes 2 ms to look through
WHOLE = 3600.0  # seconds between looks at everything, which take 0.1 s with 65,000 addresses
# Objects more than before (or more than there were then), that nobody has looked at: each closed stream is a circle of
# asyncio's.
MANY = 200_000


class Garbage:
    """The collector of this process, from `start` to `close`. asked: how many questions there were so far."""

    def __init__(self, loop: asyncio.AbstractEventLoop, asked: Callable[[], int]) -> None:
        self.loop = loop
        self.asked = asked
        self._asked = 0
        self._unseen, self._many = 0, MANY
        self._whole = loop.time() + WHOLE
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """From here on it looks only when told to."""
        gc.disable()
        gc.freeze()
        self._timer = self.loop.call_later(EVERY, self.look)

    def look(self) -> None:
        """Collects what the last second left, unless that is too much; it is then looked at with the whole."""
        total = self.asked()
        asked, self._asked = total - self._asked, total
        if asked > BUSY:
            self._unseen += gc.get_count()[0]
        if self._unseen > self._many or (asked <= BUSY and self.loop.time() >= self._whole):
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            self._unseen, self._many = 0, max(MANY, gc.get_freeze_count())
            self._whole = self.loop.time() + WHOLE
        else:
            if asked <= BUSY:
                gc.collect(0)
            gc.freeze()
        self._timer = self.loop.call_later(EVERY, self.look)

    def close(self) -> None:
        """The collector is its own master again."""
        if self._timer is not None:
            self._timer.cancel()
        gc.unfreeze()
        gc.enable()
