"""The ledger of tunneled addresses: which names hold each, and until when. Never shortens a life.

Mirrors what the kernel acknowledged; `now` is the caller's clock in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from splitwgd.names import Name, NameProblem, parse_name, to_text
from splitwgd.objects import Element, Ip

Place = tuple[str, Ip]  # (set, address)
COMMENT_LIMIT = 110  # bytes; the kernel takes 128 with its zero (NFTNL_UDATA_COMMENT_MAXLEN)
_MORE = "+"


@dataclass(slots=True)
class Holding:
    """Who holds an address. `strangers`: names that are no longer known, as after a restart."""

    until: float
    names: set[Name] = field(default_factory=set)
    strangers: bool = False


def may_enter(address: Ip) -> bool:
    """Whether an answer may put this into a set: what never leaves this machine or its link may not."""
    stays = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local
    return not stays


class Ledger:
    """address -> holding, for every set."""

    def __init__(self, min_lifetime: float, slack: float) -> None:
        self.min_lifetime = min_lifetime
        self.slack = slack
        self._holdings: dict[Place, Holding] = {}

    def __len__(self) -> int:
        return len(self._holdings)

    def life(self, ttl: float) -> float:
        """How long an address must stay after an answer with this TTL was given, in seconds."""
        return max(self.min_lifetime, ttl + self.slack)

    def wanted(self, name: Name, places: Iterable[Place], ttl: float, now: float) -> list[Element]:
        """The elements to write so that an answer with this TTL may be given. Changes nothing."""
        elements = []
        for place in dict.fromkeys(places):
            known = self._holdings.get(place)
            left = max(self.life(ttl), known.until - now if known else 0.0)
            names = known.names | {name} if known else {name}
            elements.append(Element(*place, _comment(names, bool(known and known.strangers)), left))
        return elements

    def record(self, name: Name, elements: Iterable[Element], now: float) -> None:
        """The kernel acknowledged these for this name."""
        for element in elements:
            holding = self._holdings.setdefault((element.set, element.address), Holding(0.0))
            holding.until = max(holding.until, now + element.seconds)
            holding.names.add(name)

    def restore(self, elements: Iterable[Element], now: float) -> None:
        """Takes over what a former process left in the kernel; the comment tells whose it was."""
        for element in elements:
            holding = self._holdings.setdefault((element.set, element.address), Holding(0.0))
            holding.until = max(holding.until, now + element.seconds)
            for word in element.name.split():
                try:
                    holding.names.add(parse_name(word))
                except NameProblem:
                    holding.strangers = True

    def release(self, stays: Callable[[Name, str], bool]) -> list[Place]:
        """Takes away the names that `stays(name, set)` denies; returns the addresses that nobody holds now."""
        free = []
        for place, holding in list(self._holdings.items()):
            gone = {name for name in holding.names if not stays(name, place[0])}
            holding.names -= gone
            if gone and not holding.names and not holding.strangers:
                del self._holdings[place]
                free.append(place)
        return free

    def expire(self, now: float) -> None:
        """Forgets what the kernel has let go."""
        self._holdings = {place: holding for place, holding in self._holdings.items() if holding.until > now}

    def elements(self, now: float) -> list[Element]:
        """Everything that lives, as it should stand in the sets."""
        return [
            Element(*place, _comment(holding.names, holding.strangers), holding.until - now)
            for place, holding in self._holdings.items()
            if holding.until - now >= 1
        ]


def merged(elements: Iterable[Element]) -> list[Element]:
    """One element for each place: with the longest life, and with the names of all."""
    lives: dict[Place, float] = {}
    words: dict[Place, set[str]] = {}
    for element in elements:
        place = (element.set, element.address)
        lives[place] = max(lives.get(place, 0.0), element.seconds)
        words.setdefault(place, set()).update(element.name.split())
    return [Element(*place, _fitted(words[place]), life) for place, life in lives.items()]


def _comment(names: set[Name], strangers: bool) -> str:
    return _fitted({to_text(name) for name in names} | ({_MORE} if strangers else set()))


def _fitted(words: set[str]) -> str:
    """The names, as many as a comment holds, and a sign if there are more."""
    comment, more = "", _MORE in words
    for word in sorted(words - {_MORE}):
        if len(comment) + len(word) + 2 + len(_MORE) > COMMENT_LIMIT:
            more = True
            break
        comment += f"{word} "
    return (comment + _MORE if more else comment).strip()
