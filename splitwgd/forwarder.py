"""Answers questions: from what it knows, or from the group of servers that the name belongs to.

The one promise: an answer with tunneled addresses leaves only after the kernel has acknowledged them in their
sets (`gate`). What an answer may say at all is `vetting`'s to decide.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial

from splitwgd import why
from splitwgd.cache import Cache, Entry
from splitwgd.errors import SplitwgError, UpstreamError
from splitwgd.gate import Gate
from splitwgd.learned import Grant
from splitwgd.listener import Client
from splitwgd.local import Local, goes_out, minimal_any, no_data
from splitwgd.message import (
    ANSWERS,
    ANY,
    REFUSED,
    SERVFAIL,
    BadQuery,
    Body,
    Query,
    Why,
    error_reply,
    fit_reply,
    read_query,
)
from splitwgd.names import to_text
from splitwgd.reply import Reply, counted_down, with_ttl
from splitwgd.upstream import Upstreams
from splitwgd.vetting import Vetting
from splitwgd.waiting import Counts, Pending, Waiting
from splitwgd.zones import Group, Zones

log = logging.getLogger("splitwgd.dns")
# RFC 8767 §5: a client's patience before it gets the stale answer, and the TTL that this one bears; seconds.
STALE_AFTER, STALE_TTL = 1.8, 30
READY_LIMIT = 4096  # replies that are ready to be sent
READY_FOR = 1.0  # seconds, since TTLs count down


@dataclass
class Forwarder:
    """The DNS side of the daemon. `zones`, `local` and `vetting` are replaced when the configuration changes.

    ready: replies by the question's bytes after its id, which the listener sends without a word to anybody.
    """

    loop: asyncio.AbstractEventLoop
    zones: Zones
    local: Local
    cache: Cache
    upstreams: Upstreams
    gate: Gate
    vetting: Vetting
    counts: Counts = field(default_factory=Counts)
    ready: dict[bytes, bytes] = field(default_factory=dict)
    waiting: Waiting = field(default_factory=Waiting)
    _silent: set[str] = field(default_factory=set)  # groups whose last question had no answer

    def __post_init__(self) -> None:
        self.upstreams.on_recovery = self._recovered

    def take(self, data: bytes, client: Client) -> None:
        """One message from a client; the answer goes out by `client.send`, now or later."""
        self.counts.asked += 1
        try:
            query = read_query(data)
        except BadQuery as bad:
            self.counts.bad += 1
            if bad.reply is not None:
                client.send(bad.reply)
            else:
                client.hang_up()
            return
        now = self.loop.time()
        entry = self.cache.get(query.key, now)
        if entry is not None:
            self._give(entry, query, data, client, now)
            return
        pending = self.waiting.get(query.key)
        if pending is not None:
            self._join(pending, query, client)
            return
        group = self.vetting.find(query.name)
        if group.local and goes_out(query):
            group = self.zones.default
        if (
            group.local
            or query.qtype in group.unasked
            or query.name in self.local.hosts
            or query.name in self.upstreams.probes
        ) and self._answer_here(query, group, client):
            return
        pending = Pending(query, group, self.zones)
        pending.askers.append((query, client))
        pending.stale = self.cache.stale(query.key, now)
        failure = self.cache.failure(query.key, now)
        if failure is not None:
            self._fail(pending, failure)  # a moment ago; it is not tried again yet
        elif not self.waiting.open(pending):
            self._fail(pending, why.TOO_MANY)
        else:
            if pending.stale is not None:
                pending.timer = self.loop.call_later(STALE_AFTER, self._give_stale, pending)
            self._ask(pending)

    def _group_of(self, query: Query) -> Group:
        group = self.vetting.find(query.name)
        return self.zones.default if group.local and goes_out(query) else group

    def _give(self, entry: Entry, query: Query, data: bytes, client: Client, now: float) -> None:
        """An answer from the cache."""
        self.counts.from_cache += 1
        reply = fit_reply(query, counted_down(entry.reply, int(now - entry.since)), client.stream)
        client.send(reply)
        if not client.stream and now + READY_FOR < entry.until:
            self._keep_ready(data, reply)
        if entry.is_due(now) and query.key not in self.waiting:
            entry.renewing = True
            pending = Pending(entry.query, self.vetting.find(query.name), self.zones)
            pending.stale = entry
            if self.waiting.open(pending):
                self._ask(pending)

    def _keep_ready(self, data: bytes, reply: bytes) -> None:
        if not self.ready:
            self.loop.call_later(READY_FOR, self.ready.clear)
        if len(self.ready) < READY_LIMIT:
            self.ready[data[2:]] = reply[2:]

    def _join(self, pending: Pending, query: Query, client: Client) -> None:
        if not self.waiting.join(pending, query, client):
            client.send(error_reply(query, SERVFAIL, why.TOO_MANY))
        elif pending.stale is not None and pending.given:
            self._give_stale(pending)
        elif pending.stale is not None and pending.timer is None:  # it was asked before anybody waited
            pending.timer = self.loop.call_later(STALE_AFTER, self._give_stale, pending)

    # -- without a server

    def _answer_here(self, query: Query, group: Group, client: Client) -> bool:
        """Names of this machine, types that are nobody's, and what the tunnel cannot carry."""
        hosts = self.local.addresses(query.name)
        if self.upstreams.came_back(query.name):
            client.send(error_reply(query, REFUSED))
            return True
        if (group.local or hosts) and not goes_out(query):
            body = self.local.body(query)
        elif query.qtype == ANY:
            body = minimal_any(query)
        elif query.qtype in group.unasked:  # the tunnel carries no such addresses
            body = no_data(query)
        else:
            return False
        self.counts.local += 1
        if hosts and group.tunnel is not None:
            # The user's own word is not vetted, but what is tunneled enters the sets first.
            addresses = self.vetting.admitted((address.packed for address in hosts), query.name)
            places = self.vetting.places(group, addresses)
            grant = self.gate.ledger.grant(query.name, places, STALE_TTL, self.loop.time())
            self.gate.hold(grant, partial(self._hosts_written, query, body, client))
        else:
            client.send(fit_reply(query, body, client.stream))
        return True

    @staticmethod
    def _hosts_written(query: Query, body: Body, client: Client, done: bool) -> None:
        client.send(fit_reply(query, body, client.stream) if done else error_reply(query, SERVFAIL, why.WITHHELD))

    # -- asking

    def _ask(self, pending: Pending) -> None:
        if pending.group.local or pending.query.name in self.local.hosts:  # since the last reload
            for query, client in self.waiting.close(pending):
                self._answer_here(query, pending.group, client)
            return
        if pending.group.tunnel is not None:
            self.counts.tunneled += 1
        self.upstreams.ask(pending.query, pending.group, partial(self._answered, pending))

    def _answered(self, pending: Pending, outcome: Reply | UpstreamError) -> None:
        changed = pending.zones is not self.zones or (self.vetting.leads and pending.group.tunnel is None)
        if changed and not self._is_still_right(pending):
            return
        group = pending.group
        if isinstance(outcome, UpstreamError):
            self._no_answer(pending, outcome)
            return
        if self._silent and group.name in self._silent:
            log.info("%s answers again", group.name)
            self._silent.discard(group.name)
        if outcome.rcode not in ANSWERS:
            self._refused(pending, outcome)
            return
        reply, policy = self.vetting.vet(pending.query, outcome, group)
        if policy.tunnel is None:
            self._settle(pending, reply, policy)
            return
        grant = self._grant(reply, policy, reply.longest)
        self.gate.hold(grant, partial(self._written, pending, reply, policy))

    def _grant(self, reply: Reply, policy: Group, ttl: float) -> Grant:
        holder = self.vetting.holder(reply)
        places = self.vetting.places(policy, reply.addresses)
        return self.gate.ledger.grant(holder, places, ttl, self.loop.time())

    def _is_still_right(self, pending: Pending) -> bool:
        """Whether the question was asked of the right servers. If the configuration changed meanwhile, or a
        tunneled name's record led to this one, what came back may not be this group's word, and may be outside
        the sets: it is asked again, of the right ones."""
        group = self._group_of(pending.query)
        pending.zones = self.zones
        if group == pending.group and pending.query.name not in self.local.hosts:
            return True
        pending.group = group
        self._ask(pending)
        return False

    def _written(self, pending: Pending, reply: Reply, policy: Group, done: bool) -> None:
        if pending.zones is not self.zones and not self._is_still_right(pending):
            return
        if done and (not reply.targets or self._follow(reply, policy)):
            self._settle(pending, reply, policy)
        else:
            self.counts.withheld += 1
            self._fail(pending, why.WITHHELD)

    def _follow(self, reply: Reply, policy: Group) -> bool:
        """Whether the names that this answer leads to are tunneled now, with all that clients know of them."""
        now = self.loop.time()
        known = self.vetting.follow(reply, policy, now)
        if known is None:
            return False
        entries = self.cache.with_names(known, now) if known else []
        try:
            self.gate.admit([self._grant_again(entry, policy, self.vetting) for entry in entries])
        except SplitwgError as error:
            log.error("%s", error)
            return False
        for entry in entries:
            self.cache.drop(entry.query.key)
        if known:
            self.ready.clear()
        return True

    def _settle(self, pending: Pending, reply: Reply, policy: Group) -> None:
        self.cache.put(pending.query, reply, policy, self.loop.time())
        for query, client in self.waiting.close(pending):
            client.send(fit_reply(query, reply, client.stream))

    # -- no answer

    def _refused(self, pending: Pending, reply: Reply) -> None:
        """No answer is to be had there, and it is not tried again at once (RFC 9520 §3.2)."""
        reason = why.refused(pending.group, reply.rcode)
        self.cache.fail(pending.query.key, pending.group, reason, self.loop.time())
        self._fail(pending, reason)

    def _no_answer(self, pending: Pending, error: UpstreamError) -> None:
        group = pending.group
        # Which names are asked for is nobody's business, not even the journal's; and one line is enough.
        log.debug("%s: no answer: %s", to_text(pending.query.name), error)
        if group.name not in self._silent:
            log.warning("no answer from %s", error)
        self._silent.add(group.name)
        if error.no_way:
            self._fail(pending, why.no_way(group))
            return
        reason = why.silent(group)
        self.cache.fail(pending.query.key, group, reason, self.loop.time())
        self._fail(pending, reason)

    def _fail(self, pending: Pending, reason: Why) -> None:
        """The stale answer, or SERVFAIL with the reason."""
        self._give_stale(pending)
        for query, client in self.waiting.close(pending):
            self.counts.failed += 1
            client.send(error_reply(query, SERVFAIL, reason))

    def _give_stale(self, pending: Pending) -> None:
        """To those who wait; the question goes on, for those who come later."""
        pending.timer, pending.given = None, True
        entry = pending.stale
        if entry is None or not pending.askers or not self._may_be_given(entry):
            return
        askers, pending.askers = pending.askers, []
        self.counts.stale += len(askers)
        body = with_ttl(entry.reply, STALE_TTL)
        for query, client in askers:
            client.send(fit_reply(query, body, client.stream, why.STALE))

    def _may_be_given(self, entry: Entry) -> bool:
        """A stale tunneled answer only while its elements live, and then they live on."""
        group = self.vetting.policy(entry.reply)
        if group != entry.group or group.tunnel is None:
            return group == entry.group
        grant = self._grant(entry.reply, group, STALE_TTL)
        if grant.new:
            return False
        try:
            self.gate.admit([grant])
        except SplitwgError:
            return False
        return True

    def _recovered(self, group: Group) -> None:
        self._silent.discard(group.name)
        self.cache.forgive(group)

    # -- reload

    def admit(self, vetting: Vetting) -> None:
        """Puts into the sets what clients may still remember of names that are newly tunneled.

        Raises KernelError when the kernel refuses; nothing has changed then.
        """
        now = self.loop.time()
        grants = []
        for entry in (*self.cache.moved(vetting.find, now), *self.cache.former(now)):
            policy = vetting.policy(entry.reply)
            if policy.tunnel is not None:
                grants.append(self._grant_again(entry, policy, vetting))
        self.gate.admit(grants)

    def _grant_again(self, entry: Entry, policy: Group, vetting: Vetting) -> Grant:
        """For an answer from before it was tunneled, which clients may remember."""
        now = self.loop.time()
        holder = vetting.holder(entry.reply)
        places = vetting.places(policy, vetting.admitted(entry.reply.addresses, holder))
        return self.gate.ledger.grant(holder, places, max(entry.since + entry.reply.longest - now, 0.0), now)

    def swap(self, zones: Zones, local: Local, vetting: Vetting) -> None:
        """From here on names belong to these zones."""
        self.zones, self.local, self.vetting = zones, local, vetting
        self.ready.clear()
        self.cache.drop_moved(vetting.find)
        self.cache.drop_names(local.hosts)
        self.upstreams.keep_only(zones.groups())

    def release(self) -> list[bytes]:
        """Takes the addresses that no tunneled name holds any more out of their sets; returns them."""
        return [address for _, address in self.gate.release(self.vetting.may_hold)]
