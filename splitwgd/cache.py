"""Answers that may be given again, and questions that failed a moment ago. Bounded in entries and bytes.

What has ended stays for a while: it may stand in for an answer that cannot be had (RFC 8767).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

from splitwgd.message import Query, Why
from splitwgd.names import Name
from splitwgd.reply import Reply
from splitwgd.zones import Group

FAILURE = 5.0  # seconds for which a failure is believed (RFC 9520 §3.2: at least one, at most five minutes)
# Of an entry beside its bytes: its objects and their places in two dictionaries, measured.
_OVERHEAD = 900
_PREFETCH_FROM = 2  # hits; a name that was asked for again will be asked for once more


@dataclass(slots=True)
class Entry:
    """One kept reply: when it came, when it ends (seconds of the caller's clock), who answered it, how many
    bytes it takes, and how often it was given."""

    reply: Reply
    query: Query
    group: Group
    since: float
    until: float
    size: int
    hits: int = 0
    renewing: bool = False

    @property
    def name(self) -> Name:
        return self.query.name

    def is_due(self, now: float) -> bool:
        """Whether to ask again now, so that the next asker need not wait: it is popular and about to end."""
        left = self.until - now
        return self.hits >= _PREFETCH_FROM and left <= max(1.0, (self.until - self.since) / 10) and not self.renewing


class Cache:
    """Replies by the question's key. size: entries; memory: bytes; stale: seconds past the end."""

    def __init__(self, size: int, memory: int = 64 << 20, stale: float = 0.0) -> None:
        self.size = size
        self.memory = memory
        self.stale_for = stale
        self.used = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._failures: dict[bytes, tuple[float, Group, Why]] = {}
        self._former: list[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, query: Query, reply: Reply, group: Group, now: float) -> None:
        """Keeps a reply for its TTL; one that may not be kept is passed over."""
        key = query.key
        if self._failures:
            self._failures.pop(key, None)
        if not reply.ttl or not self.size:
            return
        if key in self._entries:
            self.drop(key)
        size = _OVERHEAD + len(reply.records) + 3 * len(key)
        self._entries[key] = Entry(reply, query, group, now, now + reply.ttl, size)
        self.used += size
        if len(self._entries) > self.size or self.used > self.memory:
            self._make_room()

    def get(self, key: bytes, now: float) -> Entry | None:
        """The reply, or None where there is none that may be given as it is."""
        entry = self._entries.get(key)
        if entry is None or now >= entry.until:
            return None
        entry.hits += 1
        return entry

    def stale(self, key: bytes, now: float) -> Entry | None:
        """The reply that has ended, if it may still stand in."""
        entry = self._entries.get(key)
        return entry if entry is not None and now < entry.until + self.stale_for else None

    def fail(self, key: bytes, group: Group, why: Why, now: float) -> None:
        """No answer was to be had: not to be tried again at once."""
        while len(self._failures) >= 1000:
            del self._failures[next(iter(self._failures))]
        self._failures[key] = (now + FAILURE, group, why)

    def failure(self, key: bytes, now: float) -> Why | None:
        """Why this question failed a moment ago."""
        found = self._failures.get(key)
        if found is None or now >= found[0]:
            return None
        return found[2]

    def forgive(self, group: Group | None = None) -> None:
        """Forgets the failures (of a group): its servers answer again, or the network is another one."""
        self._failures = {k: f for k, f in self._failures.items() if group is not None and f[1] != group}

    def resize(self, size: int, memory: int, stale: float) -> None:
        """From now on so many entries, bytes, and seconds past the end."""
        self.size, self.memory, self.stale_for = size, memory, stale
        self._make_room()

    def with_names(self, names: Container[Name], now: float) -> list[Entry]:
        """The living entries whose chain has one of these."""
        return [e for e in self._entries.values() if now < e.until and any(name in names for name in e.reply.chain)]

    def replies(self) -> Iterator[Reply]:
        """All that are kept, also those that have ended."""
        return (entry.reply for entry in self._entries.values())

    def drop(self, key: bytes) -> None:
        """Forgets this question's reply."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used -= entry.size

    def moved(self, find: Callable[[Name], Group], now: float) -> list[Entry]:
        """The living entries whose name now belongs to another group (or whose aliases do)."""
        return [e for e in self._entries.values() if now < e.until and group_of_chain(e.reply.chain, find) != e.group]

    def drop_moved(self, find: Callable[[Name], Group]) -> None:
        """Gives no longer what another group has to answer now; `former` still tells of it."""
        for key, entry in list(self._entries.items()):
            if group_of_chain(entry.reply.chain, find) != entry.group:
                self.drop(key)
                self._former.append(entry)
        self._failures.clear()

    def former(self, now: float) -> list[Entry]:
        """What was dropped when its group changed and has not ended: its name may come back before that."""
        self._former = [entry for entry in self._former if now < entry.until]
        return self._former

    def drop_names(self, names: Container[Name]) -> None:
        """Forgets what is known of these."""
        for key in [key for key, entry in self._entries.items() if entry.name in names]:
            self.drop(key)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._failures.clear()
        self.used = 0

    def _make_room(self) -> None:
        """The oldest leave; who was asked for since gets a second chance, but one."""
        while self._entries and (len(self._entries) > self.size or self.used > self.memory):
            key, entry = self._entries.popitem(last=False)
            if entry.hits and self.size:
                entry.hits = 0
                self._entries[key] = entry
            else:
                self.used -= entry.size


def group_of_chain(chain: tuple[Name, ...], find: Callable[[Name], Group]) -> Group:
    """The group whose policy an answer is under: a tunneled alias makes the whole answer tunneled."""
    first = find(chain[0])
    if first.tunnel is None:
        for name in chain[1:]:
            group = find(name)
            if group.tunnel is not None:
                return group
    return first
