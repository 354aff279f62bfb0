"""systemd's watchdog hears of us only while we do our work: a lookup by our own door is answered, and the kernel's
tables can be read. A loop that turns and does neither is restarted."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable

from splitwgd.errors import SplitwgError
from splitwgd.notify import Notify
from splitwgd.objects import Ip

log = logging.getLogger("splitwgd")
PATIENCE = 1.0  # seconds for the answer
AGAIN = 1.0  # seconds until the next try after a failed one
_QUESTION = (
    b"\1\0\0\1\0\0\0\0\0\0\x09localhost\0\0\1\0\1"  # RD, one question: localhost A (RFC 6761 §6.3: answered here)
)


class Pulse:
    """doors: the addresses on which we listen; port: on which. look: reads back what the kernel holds."""

    def __init__(
        self, notify: Notify, doors: Callable[[], list[Ip]], port: int, look: Callable[[], Awaitable[object]]
    ) -> None:
        self.notify = notify
        self.doors = doors
        self.port = port
        self.look = look
        self._silent = False

    async def keep(self) -> None:
        """Tells systemd in time, for ever; returns at once where it has no watchdog for us."""
        interval = self.notify.keep_alive_every()
        while interval:
            well = await self._is_well()
            if well:
                self.notify.alive()
            await asyncio.sleep(interval if well else AGAIN)

    async def _is_well(self) -> bool:
        try:
            for address in self.doors()[:1]:
                await self._ask(address)
            await self.look()
        except (OSError, SplitwgError) as error:  # TimeoutError is an OSError
            if not self._silent:
                log.warning(
                    "systemd's watchdog is not told that all is well: %s", str(error) or "no answer to a lookup"
                )
            self._silent = True
            return False
        self._silent = False
        return True

    async def _ask(self, address: Ip) -> None:
        """Raises OSError when there is no answer, or not the right one."""
        loop = asyncio.get_running_loop()
        ident = os.urandom(2)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
            sock.connect((str(address), self.port))
            async with asyncio.timeout(PATIENCE):
                await loop.sock_sendall(sock, ident + _QUESTION)
                reply = await loop.sock_recv(sock, 512)
        if not (reply.startswith(ident) and reply.endswith(bytes((127, 0, 0, 1)))):
            raise OSError(f"{address} answers wrongly")
