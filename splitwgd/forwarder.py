"""Answers questions: from the cache, or from the group of servers that the name belongs to.

The one promise: an answer with tunneled addresses leaves only after the kernel has acknowledged them in their
sets. Answers that come in during one turn of the loop share one transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from splitwgd.answers import Reply
from splitwgd.cache import Cache, group_of_chain
from splitwgd.errors import KernelError, SplitwgError, UpstreamError
from splitwgd.learned import Ledger, Place, may_enter, merged
from splitwgd.listener import Client
from splitwgd.message import SERVFAIL, BadQuery, Query, error_reply, fit_reply, read_query
from splitwgd.names import Name, to_text
from splitwgd.nft import Nft
from splitwgd.objects import Element, Ip
from splitwgd.ruleset import domain_set
from splitwgd.transaction import delete_text, insert_text
from splitwgd.upstream import Upstreams
from splitwgd.zones import Group, Zones

log = logging.getLogger("splitwgd.dns")
WRITE_TRIES = 3  # a transaction that meets another one may be refused once


@dataclass(slots=True)
class _Pending:
    """A question under way, and everybody who waits for its answer."""

    query: Query
    group: Group
    waiting: list[tuple[Query, Client]]


@dataclass(frozen=True, slots=True)
class _Held:
    """An answer that is held back until its addresses are in their sets."""

    pending: _Pending
    reply: Reply
    policy: Group
    holder: Name
    elements: list[Element]


@dataclass(slots=True)
class Counts:
    """What happened to questions since the start."""

    asked: int = 0
    from_cache: int = 0
    tunneled: int = 0
    failed: int = 0
    withheld: int = 0
    bad: int = 0


@dataclass
class Forwarder:
    """The DNS side of the daemon. `zones` is replaced by one assignment when the configuration changes."""

    loop: asyncio.AbstractEventLoop
    zones: Zones
    ledger: Ledger
    cache: Cache
    upstreams: Upstreams
    nft: Nft
    counts: Counts = field(default_factory=Counts)
    _pending: dict[bytes, _Pending] = field(default_factory=dict)
    _silent: set[str] = field(default_factory=set)  # groups whose last question had no answer
    _held: list[_Held] = field(default_factory=list)

    def take(self, data: bytes, client: Client) -> None:
        """One message from a client; the answer goes out by `client.send`, now or later."""
        self.counts.asked += 1
        try:
            query = read_query(data)
        except BadQuery as bad:
            self.counts.bad += 1
            if bad.reply is not None:
                client.send(bad.reply)
            return
        body = self.cache.get(query.key, self.loop.time())
        if body is not None:
            self.counts.from_cache += 1
            client.send(fit_reply(query, body, client.stream))
            return
        pending = self._pending.get(query.key)
        if pending is not None:
            pending.waiting.append((query, client))
            return
        self._ask(_Pending(query, self.zones.find(query.name), [(query, client)]))

    def _ask(self, pending: _Pending) -> None:
        self._pending[pending.query.key] = pending
        if pending.group.tunnel is not None:
            self.counts.tunneled += 1
        self.upstreams.ask(pending.query, pending.group, lambda outcome: self._answered(pending, outcome))

    def _answered(self, pending: _Pending, outcome: Reply | UpstreamError) -> None:
        group = self.zones.find(pending.query.name)
        if group != pending.group:
            # The configuration changed while the question was under way: what came back is not this
            # group's word, and may be outside the sets. It is asked again, of the right ones.
            pending.group = group
            self._ask(pending)
            return
        if isinstance(outcome, UpstreamError):
            # Which names are asked for is nobody's business, not even the journal's; and one line is enough.
            log.debug("%s: no answer: %s", to_text(pending.query.name), outcome)
            if group.name not in self._silent:
                log.warning("no answer from %s", outcome)
            self._silent.add(group.name)
            self._fail(pending)
            return
        if group.name in self._silent:
            self._silent.discard(group.name)
            log.info("%s answers again", group.name)
        policy = group_of_chain(outcome.chain, self.zones.find)
        places = _places(policy, outcome.addresses)
        if not places:
            self._settle(pending, outcome, policy)
            return
        holder = _holder(outcome, self.zones)
        elements = self.ledger.wanted(holder, places, outcome.ttl, self.loop.time())
        if not self._held:
            self.loop.call_soon(self._write)
        self._held.append(_Held(pending, outcome, policy, holder, elements))

    def _write(self) -> None:
        """Everything held back, in one transaction; if that fails, each by itself."""
        held, self._held = self._held, []
        together = self._put([element for one in held for element in one.elements])
        now = self.loop.time()
        for one in held:
            if not together and not self._put(one.elements):
                self.counts.withheld += 1
                self._fail(one.pending)
                continue
            self.ledger.record(one.holder, one.elements, now)
            if group_of_chain(one.reply.chain, self.zones.find) == one.policy:
                self._settle(one.pending, one.reply, one.policy)
            else:  # the configuration changed within this turn of the loop: as in _answered
                one.pending.group = self.zones.find(one.pending.query.name)
                self._ask(one.pending)

    def _put(self, elements: list[Element]) -> bool:
        """Whether the kernel acknowledged these."""
        text = insert_text(merged(elements))
        for _ in range(WRITE_TRIES):
            try:
                self.nft.run(text)
            except SplitwgError as error:
                failure = error
            else:
                return True
        log.error("%d addresses were not written, their answers are withheld: %s", len(elements), failure)
        return False

    def _settle(self, pending: _Pending, reply: Reply, policy: Group) -> None:
        self.cache.put(pending.query.key, pending.query.name, reply, policy, self.loop.time())
        self._send(pending, lambda query, client: fit_reply(query, bytearray(reply.body), client.stream))

    def _fail(self, pending: _Pending) -> None:
        self.counts.failed += 1
        self._send(pending, lambda query, client: error_reply(query, SERVFAIL))

    def _send(self, pending: _Pending, make: Callable[[Query, Client], bytes]) -> None:
        del self._pending[pending.query.key]
        for query, client in pending.waiting:
            client.send(make(query, client))

    # -- reload

    def admit(self, zones: Zones) -> None:
        """Puts into the sets what clients may still remember of names that `zones` newly tunnels.

        Raises KernelError when the kernel refuses; nothing has changed then.
        """
        now = self.loop.time()
        additions: list[tuple[Name, list[Element]]] = []
        for entry in self.cache.moved(zones.find, now):
            policy = group_of_chain(entry.reply.chain, zones.find)
            places = _places(policy, entry.reply.addresses)
            if places:
                holder = _holder(entry.reply, zones)
                additions.append((holder, self.ledger.wanted(holder, places, entry.until - now, now)))
        elements = [element for _, group in additions for element in group]
        if elements and not self._put(elements):
            raise KernelError("the addresses of the added names could not be written")
        for holder, group in additions:
            self.ledger.record(holder, group, now)

    def swap(self, zones: Zones) -> None:
        """From here on names belong to these zones."""
        self.zones = zones
        self.cache.drop_moved(zones.find)

    def release(self) -> list[Ip]:
        """Takes the addresses that no tunneled name holds any more out of their sets; returns them.

        In one turn of the loop: an answer that brought one of them anew in between would be given away.
        """

        def stays(name: Name, set_: str) -> bool:
            group = self.zones.find(name)
            return group.tunnel is not None and set_.startswith(f"{group.tunnel}_")

        places = self.ledger.release(stays)
        if not places:
            return []
        try:
            self.nft.run(delete_text(places))
        except KernelError:  # one that has ended by itself fails them all
            for place in places:
                self._take_out(place)
        return [address for _, address in places]

    def _take_out(self, place: Place) -> None:
        try:
            self.nft.run(delete_text([place]))
        except KernelError as error:
            log.debug("%s was not in its set: %s", place[1], error)


def _holder(reply: Reply, zones: Zones) -> Name:
    """The tunneled name of the chain: the one that was asked for, or an alias of it."""
    return next(name for name in reply.chain if zones.find(name).tunnel is not None)


def _places(group: Group, addresses: tuple[Ip, ...]) -> list[Place]:
    """Where the addresses of an answer belong; nowhere if its names are not tunneled."""
    if group.tunnel is None:
        return []
    return [(domain_set(group.tunnel, address.version), address) for address in addresses if may_enter(address)]
