"""Answers that may be given again, with their TTLs counted down. Bounded; the oldest leaves first."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from splitwgd.answers import Reply
from splitwgd.names import Name
from splitwgd.zones import Group


@dataclass(frozen=True, slots=True)
class Entry:
    """One kept reply: when it came, when it ends (seconds of the caller's clock), and who answered it."""

    reply: Reply
    name: Name
    group: Group
    since: float
    until: float


class Cache:
    """Replies by the question's key."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._entries: dict[bytes, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: bytes, name: Name, reply: Reply, group: Group, now: float) -> None:
        """Keeps a reply for its TTL; one that may not be kept is passed over."""
        if not reply.ttl or not self.size:
            return
        self._entries.pop(key, None)
        while len(self._entries) >= self.size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = Entry(reply, name, group, now, now + reply.ttl)

    def get(self, key: bytes, now: float) -> bytearray | None:
        """A copy of the reply's body with what is left of its TTLs, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.until:
            del self._entries[key]
            return None
        body = bytearray(entry.reply.body)
        age = int(now - entry.since)
        if age:
            for place in entry.reply.ttl_places:
                (ttl,) = struct.unpack_from("!I", body, place)
                struct.pack_into("!I", body, place, max(ttl - age, 0))
        return body

    def resize(self, size: int) -> None:
        self.size = size
        while len(self._entries) > size:
            del self._entries[next(iter(self._entries))]

    def moved(self, find: Callable[[Name], Group], now: float) -> list[Entry]:
        """The living entries whose name now belongs to another group (or whose aliases do)."""
        return [e for e in self._entries.values() if now < e.until and group_of_chain(e.reply.chain, find) != e.group]

    def drop_moved(self, find: Callable[[Name], Group]) -> None:
        """Forgets what another group has to answer now."""
        kept = {k: e for k, e in self._entries.items() if group_of_chain(e.reply.chain, find) == e.group}
        self._entries = kept


def group_of_chain(chain: tuple[Name, ...], find: Callable[[Name], Group]) -> Group:
    """The group whose policy an answer is under: a tunneled alias makes the whole answer tunneled."""
    groups = [find(name) for name in chain]
    return next((group for group in groups if group.tunnel is not None), groups[0])
