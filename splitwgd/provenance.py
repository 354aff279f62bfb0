"""What is known of a name or an address: where it goes, what decides that, and who shares it (`splitwg why`).

Nothing is kept for it: the ledger has who holds an address, and the cache what else has led to it lately.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from splitwgd.cache import Cache
from splitwgd.errors import SplitwgError
from splitwgd.learned import Ledger
from splitwgd.names import Name, NameProblem, parse_name, to_text
from splitwgd.ruleset import domain_set
from splitwgd.svcb import Address
from splitwgd.vetting import Vetting
from splitwgd.zones import Group

_LIMIT = 50  # names and addresses of one answer, for people


class Provenance:
    """One moment's knowledge. now: of the ledger's clock."""

    def __init__(self, vetting: Vetting, ledger: Ledger, cache: Cache, now: float) -> None:
        self.vetting = vetting
        self.ledger = ledger
        self.cache = cache
        self.now = now
        self._tunnels: list[Group] = [group for group in vetting.zones.groups() if group.tunnel is not None]

    def of(self, text: object) -> dict[str, Any]:
        """The same for a text that may be either; raises SplitwgError where it is neither."""
        try:
            address = ip_address(text if isinstance(text, str) else "")
        except ValueError:
            pass
        else:
            return {"name": "", "addresses": [self.of_address(address.packed)]}
        try:
            return self.of_name(parse_name(text if isinstance(text, str) else ""))
        except NameProblem as problem:
            raise SplitwgError(f"{text!r} is neither a name nor an address: {problem}") from problem

    def of_name(self, name: Name) -> dict[str, Any]:
        """entry: the listed name that decides, empty for none. led_by: whose record leads to it, as long as that
        alone makes it tunneled. tunnel: the link, empty where it is not tunneled."""
        zones, group = self.vetting.zones, self.vetting.find(name)
        lead = self.vetting.leads.get(name) if zones.find(name) != group else None
        entry = zones.decisive(name)
        found = dict.fromkeys(address for _, address in self.ledger.of(name))
        for reply in self.cache.replies():
            if name in reply.chain:
                found.update(dict.fromkeys(reply.addresses))
        return {
            "name": to_text(name),
            "tunnel": group.link if group.tunnel is not None else "",
            "asked_at": group.name,
            "entry": to_text(entry) if entry else "",
            "led_by": to_text(lead.origin) if lead else "",
            "addresses": [self.of_address(address) for address in list(found)[:_LIMIT]],
        }

    def of_address(self, address: Address) -> dict[str, Any]:
        """names: tunneled ones that lead to it; more: and others that nobody knows any more; plain: names that are
        not tunneled and have led to it lately. network: that has it, by the configuration. seconds: it stays."""
        network = next((net for net in self.vetting.admission.networks if ip_address(address) in net), None)
        links: list[str | None] = []
        names: list[Name] = []
        more, left = False, 0.0
        for group in self._tunnels:
            assert group.tunnel is not None
            holding = self.ledger.holding((domain_set(group.tunnel, 4 if len(address) == 4 else 6), address), self.now)
            if holding is not None:
                links.append(group.link)
                names += holding.names
                more, left = more or holding.strangers or not holding.names, max(left, holding.until - self.now)
        plain = {
            reply.chain[0]: None
            for reply in self.cache.replies()
            if address in reply.addresses and self.vetting.policy(reply).tunnel is None
        }
        return {
            "address": str(ip_address(address)),
            "tunnel": links[0] if links else self._tunnels[0].link if network else "",
            "network": str(network) if network else "",
            "names": [to_text(name) for name in names[:_LIMIT]],
            "more": more or len(names) > _LIMIT,
            "seconds": round(left),
            "plain": [to_text(name) for name in list(plain)[:_LIMIT]],
        }
