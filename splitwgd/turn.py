"""What is put off while a socket is read, and done as soon as it is drained.

Packets and transactions share a system call that way, and the loop's own way of putting off (`call_soon`) costs a look
at every descriptor before it comes to it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_Step = Callable[[], None]


class Turn:
    """The steps that wait. Each is done once, in the order in which they were put off; one that raises is told to the
    loop's exception handler and keeps no other from its turn."""

    __slots__ = ("_open", "_steps", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._steps: deque[_Step] = deque()
        self._open = False  # whether somebody comes to them without being called

    def at_end(self, step: _Step) -> None:
        """Does it when the socket that is being read is drained, and where none is, soon."""
        if not self._open and not self._steps:
            self.loop.call_soon(self._end)
        self._steps.append(step)

    def drain(self, read: Callable[..., None], *arguments: object) -> None:
        """Has a socket read, and then does what was put off, also what these steps put off in their turn."""
        self._open = True
        try:
            read(*arguments)
        finally:
            self._end()

    def _end(self) -> None:
        self._open = True
        try:
            while self._steps:
                step = self._steps.popleft()
                try:
                    step()
                except Exception as error:
                    self.loop.call_exception_handler({"message": f"{step} failed", "exception": error})
        finally:
            self._open = False
            if self._steps:  # the process is being ended in the middle of a step
                self.loop.call_soon(self._end)
