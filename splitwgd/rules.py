"""The words of which the rules of the nft table are made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from splitwgd.objects import FilterRule, Interface, Ip, Network

FAMILY = {4: "ip", 6: "ip6"}
Rules = tuple[FilterRule, ...]


@dataclass(frozen=True)
class Bits:
    """Matches and writes of marks that leave all other bits as they are."""

    mask: int
    direct: int
    ended: int

    def has(self, mark: int, what: str = "meta") -> str:
        return f"{what} mark & {self.mask:#x} == {mark:#x}"

    def lacks(self, mark: int, what: str = "meta") -> str:
        return f"{what} mark & {self.mask:#x} != {mark:#x}"

    def put(self, mark: int, what: str = "meta") -> str:
        return f"{what} mark set {what} mark & {~self.mask & 0xFFFFFFFF:#x} | {mark:#x}"


def rule(text: str, why: str) -> FilterRule:
    """A rule with its reason; the comment says both, so that another text makes another comment."""
    return FilterRule(text, f"{why} [{hashlib.sha256(text.encode()).hexdigest()[:8]}]")


TO_ITSELF = rule('oifname "lo" return', "to this machine itself")  # first, since it is most of a resolver's packets


def refused(match: str, why: str) -> Iterable[FilterRule]:
    """At once: TCP heeds a reset, but not always an ICMP error about its first packet.

    The refusal itself goes over lo and must not be matched.
    """
    yield rule(f"{match} meta l4proto tcp counter reject with tcp reset", why)
    yield rule(f"{match} counter reject with icmpx admin-prohibited", why)


def reason(rule: FilterRule) -> str:
    """Why a rule is there, by its comment; of somebody else's rule that is anything."""
    return rule.comment.rpartition(" [")[0]


def braces(members: Iterable[Ip | Network | Interface | int]) -> str:
    """An anonymous set in nft's text; empty for no members."""
    texts = [hex(member) if isinstance(member, int) else str(member) for member in members]
    return f"{{ {', '.join(texts)} }}" if texts else ""


def numbers(ports: Iterable[int]) -> str:
    """The same for ports."""
    return f"{{ {', '.join(map(str, sorted(ports)))} }}"
