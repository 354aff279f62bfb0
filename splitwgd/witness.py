"""Who asks what, while somebody watches (`splitwg watch`). Nobody pays for it while nobody does."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from splitwgd.forwarder import Forwarder
from splitwgd.listener import Client, Listener
from splitwgd.message import BadQuery, Query, read_query
from splitwgd.names import to_text

KEPT = 1000  # lookups between two reports; the oldest are let go, and counted
PATIENCE = 5.0  # seconds after a report without another one: then nobody watches any more


class Witness:
    """Stands between the doors and the forwarder, from one report to some seconds after the last one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: Listener, forwarder: Forwarder) -> None:
        self.loop = loop
        self.listener = listener
        self.forwarder = forwarder
        self._seen: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._count = 0
        self._end: asyncio.TimerHandle | None = None

    def report(self) -> dict[str, Any]:
        """What was answered since the last report: name, type (its number), group, rcode, records, milliseconds.
        missed: how many more there were. A report that is the first one begins the watch."""
        if self._end is not None:
            self._end.cancel()
        self._end = self.loop.call_later(PATIENCE, self._stop)
        self.listener.ready = {}  # those would be answered without us
        self.listener.take = self._take
        lookups, missed = list(self._seen), self._count - len(self._seen)
        self._seen.clear()
        self._count = 0
        return {"lookups": lookups, "missed": missed}

    def _stop(self) -> None:
        self.listener.ready = self.forwarder.ready
        self.listener.take = self.forwarder.take
        self._seen.clear()
        self._count, self._end = 0, None

    def _take(self, data: bytes, client: Client) -> None:
        try:
            client = _Watched(self, read_query(data), client, self.loop.time())
        except BadQuery:
            pass  # it has no name
        self.forwarder.take(data, client)

    def note(self, query: Query, reply: bytes, took: float) -> None:
        """One that was answered after so many seconds."""
        self._count += 1
        self._seen.append(
            {
                "name": to_text(query.name),
                "type": query.qtype,
                "group": self.forwarder.vetting.find(query.name).name,
                "rcode": reply[3] & 0xF,
                "records": int.from_bytes(reply[6:8], "big"),
                "ms": round(took * 1000, 1),
            }
        )


class _Watched:
    """A client whose answer is noted."""

    def __init__(self, witness: Witness, query: Query, client: Client, since: float) -> None:
        self.witness = witness
        self.query = query
        self.client = client
        self.since = since
        self.stream = client.stream

    def send(self, reply: bytes) -> None:
        self.witness.note(self.query, reply, self.witness.loop.time() - self.since)
        self.client.send(reply)

    def hang_up(self) -> None:
        self.client.hang_up()
