"""What an answer may say: whose policy it is under, which of its addresses may be given, and which enter a set.

A tunneled name's HTTPS and SVCB records may lead to other names (RFC 9460 §2.4): those are tunneled from then on,
for as long as somebody may remember the record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from splitwgd.admission import Admission
from splitwgd.answers import read_reply
from splitwgd.cache import group_of_chain
from splitwgd.learned import Place
from splitwgd.local import no_data
from splitwgd.message import AAAA, HEADER, QR, A, Query
from splitwgd.names import Name, to_text
from splitwgd.reply import Reply
from splitwgd.ruleset import domain_set
from splitwgd.svcb import Address
from splitwgd.trimmed import trimmed
from splitwgd.zones import Group, Zones

OF_AN_ANSWER = 64  # addresses; who answers with more wants to fill the set
_LEADS_LIMIT = 10_000
_TOLD_LIMIT = 1000
_NOT_CARRIED = "an address of a kind that the tunnel does not carry"  # which is no news
_REBINDING = "an answer that leads a public name into a private network was emptied (dns.private)"
_SLACK = 3600.0  # seconds; as the ledger's: applications keep a record for longer than its TTL


@dataclass(slots=True)
class Lead:
    """Who led to a name, the group that it belongs to since, and until when."""

    origin: Name
    group: Group
    until: float


class RememberedLead(NamedTuple):
    """What outlives a reboot of a lead."""

    name: Name
    origin: Name
    until: float


class Vetting:
    """Decides by one configuration. tell: takes a sentence for the log, about what was left out."""

    def __init__(self, zones: Zones, admission: Admission, tell: Callable[[str], None]) -> None:
        self.zones = zones
        self.admission = admission
        self.tell = tell
        self.left_out = 0  # addresses, so far
        self.leads: dict[Name, Lead] = {}
        self._told: set[tuple[Name, Address]] = set()
        self._sets: dict[str, dict[int, str]] = {}

    def find(self, name: Name) -> Group:
        """The group that a name belongs to."""
        group = self.zones.find(name)
        if group.tunnel is None and self.leads and (lead := self.leads.get(name)) is not None:
            return lead.group
        return group

    def policy(self, reply: Reply) -> Group:
        """The group whose policy a reply is under: of its name, or of the tunneled name that is its alias."""
        return group_of_chain(reply.chain, self.find)

    def holder(self, reply: Reply) -> Name:
        """The tunneled name that answers for the addresses of a tunneled reply."""
        if len(reply.chain) == 1 and not self.leads:
            return reply.chain[0]
        for name in reply.chain:
            if self.zones.find(name).tunnel is not None:
                return name
            if (lead := self.leads.get(name)) is not None:
                return lead.origin
        return reply.chain[0]

    def places(self, group: Group, addresses: Collection[Address]) -> list[Place]:
        """Where the addresses that `vet` let pass belong, each once; those that are tunneled by themselves are
        left alone."""
        if group.tunnel is None:
            return []
        if self.admission.networks:
            addresses = [address for address in addresses if not self.admission.is_listed(address)]
        sets = self._sets.get(group.tunnel)
        if sets is None:
            sets = self._sets[group.tunnel] = {4: domain_set(group.tunnel, 4), 16: domain_set(group.tunnel, 6)}
        if len(addresses) == 1:
            (address,) = addresses
            return [(sets[len(address)], address)]
        return [(sets[len(address)], address) for address in dict.fromkeys(addresses)]

    def may_hold(self, name: Name, set_: str) -> bool:
        """Whether the addresses of this name belong into this set."""
        group = self.find(name)
        return group.tunnel is not None and set_.startswith(f"{group.tunnel}_")

    def admitted(self, addresses: Iterable[Address], holder: Name) -> list[Address]:
        """Those of a tunneled name that may enter a set by this configuration."""
        return [address for address in addresses if not self.admission.objection(address, holder)]

    def vet(self, query: Query, reply: Reply, group: Group) -> tuple[Reply, Group]:
        """The reply without what may not be given, and the group whose policy it is under. group: the question's."""
        policy, addresses = group if len(reply.chain) == 1 else self.policy(reply), reply.addresses
        few = policy.tunnel is None or len(addresses) <= OF_AN_ANSWER
        if few and not reply.stray and self.admission.are_harmless(addresses, policy.widths):
            return reply, policy
        objection: Callable[[Address], str]
        if policy.tunnel is not None:
            objection = partial(self._objection, self.holder(reply), policy)
        elif group == self.zones.default:
            objection = partial(self._rebinding, query.name)
        else:
            objection = _none  # a zone of the user's own servers
        if not reply.stray and (policy.tunnel is None or len(reply.addresses) <= OF_AN_ANSWER):
            for address in reply.addresses:
                if objection(address):
                    break
            else:
                return reply, policy

        def admits(address: Address) -> bool:
            found = objection(address)
            if found:
                self._tell(reply.chain[0], address, found)
            return not found

        left = trimmed(reply, query, admits, OF_AN_ANSWER if policy.tunnel is not None else len(reply.addresses))
        if query.qtype in (A, AAAA) and not left.addresses and reply.addresses:
            left = _nothing(query)
        return left, policy

    def _objection(self, holder: Name, policy: Group, address: Address) -> str:
        """Why the address may not be given for a tunneled name; empty when it may."""
        admission = self.admission
        if admission.networks and admission.is_listed(address):
            return ""
        if (4 if len(address) == 4 else 6) not in policy.families:
            return _NOT_CARRIED
        return admission.objection(address, holder)

    def _rebinding(self, name: Name, address: Address) -> str:
        """The same for a plain name."""
        return _REBINDING if self.admission.rebinds(address, name) else ""

    def _tell(self, name: Name, address: Address, objection: str) -> None:
        if objection == _NOT_CARRIED:
            return
        self.left_out += 1
        if (name, address) not in self._told and len(self._told) < _TOLD_LIMIT:
            self._told.add((name, address))
            # Which plain names are asked for is nobody's business; the tunneled ones stand in the configuration.
            what = f"{to_text(name)}: left out of the tunnel and of the answer: {objection}"
            self.tell(objection if objection == _REBINDING else what)

    # -- where HTTPS and SVCB records lead

    def follow(self, reply: Reply, policy: Group, now: float) -> list[Name] | None:
        """From now on the targets of a tunneled reply are tunneled. Returns those that were not before; None
        when there are too many of them all."""
        new: list[Name] = []
        for target in reply.targets:
            group = self.zones.find(target)
            if group != self.zones.default:  # tunneled already, local, or with servers that the user named for it
                continue
            until = now + reply.ttl + _SLACK
            lead = self.leads.get(target)
            if lead is not None:
                lead.until = max(lead.until, until)
                continue
            if len(self.leads) >= _LEADS_LIMIT:
                self.leads = {name: kept for name, kept in self.leads.items() if kept.until > now}
                if len(self.leads) >= _LEADS_LIMIT:
                    return None
            self.leads[target] = Lead(self.holder(reply), policy, until)
            new.append(target)
        return new

    def remember(self, now: float) -> list[RememberedLead]:
        """The leads that should outlive a reboot."""
        return [RememberedLead(name, lead.origin, lead.until) for name, lead in self.leads.items() if lead.until > now]

    def recall(self, leads: Iterable[RememberedLead]) -> None:
        """Follows them as if their records had been seen, where their origins are still tunneled."""
        for name, origin, until in leads:
            group = self.zones.find(origin)
            if group.tunnel is None or self.zones.find(name) != self.zones.default or len(self.leads) >= _LEADS_LIMIT:
                continue
            self.leads.setdefault(name, Lead(origin, group, until))

    def successor(self, zones: Zones, admission: Admission) -> Vetting:
        """The same for another configuration: what led to a name still does if it is still tunneled."""
        new = Vetting(zones, admission, self.tell)
        new.left_out, new._told = self.left_out, self._told
        for name, lead in self.leads.items():
            group = zones.find(lead.origin)
            if group.tunnel is not None:
                new.leads[name] = Lead(lead.origin, group, lead.until)
        return new


def _none(address: Address) -> str:
    return ""


def _nothing(query: Query) -> Reply:
    """NODATA in our own words."""
    body = no_data(query)
    head = HEADER.pack(0, body.flags | QR, 1, body.answers, body.authorities, 0)
    return read_reply(head + query.question + body.records, query)
