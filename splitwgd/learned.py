"""The ledger of tunneled addresses: which names hold each, and until when. Never shortens a life.

Mirrors what the kernel acknowledged; `now` is the caller's clock in seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from splitwgd.names import Name, NameProblem, parse_name, to_text
from splitwgd.objects import Element
from splitwgd.svcb import Address

Place = tuple[str, Address]  # (set, address)
_element = partial(tuple.__new__, Element)  # half the time of `Element(...)`
COMMENT_LIMIT = 110  # bytes; the kernel takes 128 with its zero (NFTNL_UDATA_COMMENT_MAXLEN)
# An element outlives its answer by this, in seconds: applications keep an address for longer than its TTL.
SLACK = 3600
SPARE = 900  # ... and by this much more, so that the next answer need not renew it at once
_MORE = "+"
_ALONE = COMMENT_LIMIT - len(_MORE) - 1  # bytes of a name that leave room for the sign
_DAY = 64  # seconds that share a page of the calendar


@dataclass(slots=True)
class Holding:
    """Who holds an address. until: when its element ends. comment: what the element says of its names.
    promised: until when somebody may still believe an answer with it. strangers: whether names hold it that
    are no longer known, as after a restart."""

    until: float
    comment: str
    promised: float = 0.0
    names: dict[Name, None] = field(default_factory=dict)
    strangers: bool = False


@dataclass(slots=True)
class Grant:
    """What must be in the kernel before an answer may be given: for places that are `new` there, and for
    those that have to be `renewed`."""

    name: Name
    places: Sequence[Place]
    ttl: float
    new: list[Element]
    renewed: list[Element]


class Remembered(NamedTuple):
    """What outlives a reboot of an address. until: when its element ends. more: whether names hold it that are not
    known."""

    set: str
    address: Address
    until: float
    names: tuple[Name, ...]
    more: bool

    def element(self, now: float) -> Element:
        """As it should stand in its set."""
        comment = ""
        for name in self.names:
            comment = _with(comment, _comment(name))
        return Element(*self[:2], _with(comment, _MORE) if self.more else comment, self.until - now)


class Ledger:
    """address -> holding, for every set.

    slack: seconds by which an element outlives every answer that was given with its address. spare: seconds
    on top, so that the next answer need not renew it at once. grace: seconds for which an address is promised at
    least: who is told of one with TTL 0 still connects to it.
    """

    def __init__(self, min_lifetime: float, slack: float, spare: float = 0.0, grace: float = 0.0) -> None:
        self.min_lifetime = min_lifetime
        self.slack = slack
        self.spare = spare
        self.grace = grace
        self._holdings: dict[Place, Holding] = {}
        # By the end of their life; pages may be out of date.
        self._calendar: defaultdict[int, list[Place]] = defaultdict(list)
        self._none_before: dict[tuple[str, Name | None], float] = {}  # when somebody looked in vain for victims
        self._sizes: defaultdict[str, int] = defaultdict(int)
        self._of_name: dict[Name, int] = {}

    def __len__(self) -> int:
        return len(self._holdings)

    def size(self, set_: str) -> int:
        """How many addresses a set holds."""
        return self._sizes[set_]

    def sizes(self) -> dict[str, int]:
        """The same for all sets that hold any."""
        return {set_: count for set_, count in sorted(self._sizes.items()) if count}

    def held_by(self, name: Name) -> int:
        """How many addresses a name holds."""
        return self._of_name.get(name, 0)

    def grant(self, name: Name, places: Sequence[Place], ttl: float, now: float) -> Grant:
        """What to write so that an answer with this TTL may be given for the name. Changes nothing.

        places: without doubles.
        """
        life = ttl + self.slack
        if life < self.min_lifetime:
            life = self.min_lifetime
        whole, own = life + self.spare, _comment(name)
        holding, new, renewed = self._holdings.get, [], []
        for place in places:
            known = holding(place)
            if known is None or known.until <= now:
                new.append(_element((place[0], place[1], own, whole)))
                continue
            left = known.until - now
            comment = known.comment if name in known.names else _with(known.comment, own)
            if left < life or comment != known.comment:
                renewed.append(Element(*place, comment, max(whole, left)))
        return Grant(name, places, ttl, new, renewed)

    def record(self, grant: Grant, now: float) -> None:
        """The kernel acknowledged this."""
        name, promised = grant.name, now + (grant.ttl if grant.ttl > self.grace else self.grace)
        holdings, made = self._holdings, 0
        for element in grant.new:
            place = element[:2]
            if place in holdings:  # others have written it in the same turn, or it had ended
                self._live(element, now)
                continue
            until = now + element.seconds
            holdings[place] = Holding(until, element.name, promised, {name: None})
            self._enter(place, until)
            made += 1
        if grant.new:
            self._none_before.clear()
            self._of_name[name] = self._of_name.get(name, 0) + made
        if made == len(grant.places):
            return
        for element in grant.renewed:
            self._live(element, now)
        for place in grant.places:
            holding = holdings[place]
            holding.promised = max(holding.promised, promised)
            self._hold(holding, name)

    def _enter(self, place: Place, until: float) -> None:
        """It is in its set."""
        self._sizes[place[0]] += 1
        self._calendar[int(until) // _DAY].append(place)

    def _hold(self, holding: Holding, name: Name) -> None:
        if name not in holding.names:
            holding.names[name] = None
            self._of_name[name] = self._of_name.get(name, 0) + 1

    def restore(self, elements: Iterable[Element], now: float) -> None:
        """Takes over what a former process left in the kernel; the comment tells whose it was.

        What was promised nobody knows any more: all of it, then.
        """
        for element in elements:
            holding = self._live(element, now)
            holding.promised = max(holding.promised, now + element.seconds - self.slack)
            for word in element.name.split():
                try:
                    name = parse_name(word)
                except NameProblem:
                    holding.strangers = True
                    continue
                self._hold(holding, name)

    def remember(self, places: Iterable[Place], now: float) -> list[Remembered]:
        """What should outlive a reboot of these places."""
        return [
            # Of an element without a name nobody knows whose it was.
            Remembered(*place, holding.until, tuple(holding.names), holding.strangers or not holding.names)
            for place in places
            if (holding := self._holdings.get(place)) is not None and holding.until > now
        ]

    def recall(self, addresses: Iterable[Remembered], now: float) -> None:
        """Takes over what was remembered and is in the kernel now; all of it is promised, as in `restore`."""
        for each in addresses:
            holding = self._live(each.element(now), now)
            holding.promised = max(holding.promised, each.until - self.slack)
            holding.strangers = holding.strangers or each.more
            for name in each.names:
                self._hold(holding, name)

    def of(self, name: Name) -> list[Place]:
        """What a name holds. Looks at everything."""
        return [place for place, holding in self._holdings.items() if name in holding.names]

    def holding(self, place: Place, now: float) -> Holding | None:
        """Who holds an address that lives."""
        holding = self._holdings.get(place)
        return holding if holding is not None and holding.until > now else None

    def holds(self, place: Place, now: float) -> bool:
        """Whether the address lives."""
        holding = self._holdings.get(place)
        return holding is not None and holding.until > now

    def longest(self, max_ttl: float) -> float:
        """The longest life that `grant` gives, in seconds; max_ttl: of answers."""
        return max(self.min_lifetime, max_ttl + self.slack) + self.spare

    def _live(self, element: Element, now: float) -> Holding:
        place, until = element[:2], now + element.seconds
        holding = self._holdings.get(place)
        if holding is not None and holding.until <= now:  # it had gone, and its names with it
            self._forget(place)
            holding = None
        if holding is None:
            holding = self._holdings[place] = Holding(until, element.name, 0.0, {})
            self._enter(place, until)
            return holding
        for word in element.name.split():  # others may have written in the same turn
            holding.comment = _with(holding.comment, word)
        if until > holding.until:
            holding.until = until
            self._calendar[int(until) // _DAY].append(place)
        return holding

    def release(self, stays: Callable[[Name, str], bool]) -> list[Place]:
        """Takes away the names that `stays(name, set)` denies; returns the addresses that nobody holds now."""
        free = []
        self._none_before.clear()
        for place, holding in list(self._holdings.items()):
            gone = [name for name in holding.names if not stays(name, place[0])]
            if not gone:
                continue
            if len(gone) == len(holding.names) and not holding.strangers:
                self._forget(place)
                free.append(place)
                continue
            for name in gone:
                del holding.names[name]
                self._let_go(name)
        return free

    def _forget(self, place: Place) -> None:
        holding = self._holdings.pop(place)
        self._sizes[place[0]] -= 1
        for name in holding.names:
            self._let_go(name)

    def _let_go(self, name: Name) -> None:
        self._of_name[name] -= 1
        if not self._of_name[name]:
            del self._of_name[name]

    def expire(self, now: float) -> None:
        """Forgets what the kernel has let go."""
        self._none_before = {key: when for key, when in self._none_before.items() if when > now}
        for page in sorted(page for page in self._calendar if (page + 1) * _DAY <= now):
            for place in self._calendar.pop(page):
                holding = self._holdings.get(place)
                if holding is not None and holding.until <= now:
                    self._forget(place)

    def victims(
        self, set_: str, count: int, now: float, name: Name | None = None, spared: Container[Place] = ()
    ) -> list[Place]:
        """So many addresses (or fewer, where there are not so many) that can go: those that end first, and none
        that is still promised or spared. set_: of this one, or of any if empty. name: only what it alone holds."""
        if now < self._none_before.get((set_, name), now):
            return []
        found: dict[Place, None] = {}
        earliest = float("inf")
        for page in sorted(self._calendar):
            for place in self._calendar[page]:
                holding = self._holdings.get(place)
                if holding is None or int(holding.until) // _DAY != page or set_ and place[0] != set_:
                    continue
                if name is not None and list(holding.names) != [name]:
                    continue
                earliest = min(earliest, now if place in spared else holding.promised)
                if holding.promised <= now and place not in spared:
                    found[place] = None
                    if len(found) >= count:
                        return list(found)
        if now < earliest < float("inf") and len(self._none_before) < 1000:
            self._none_before[set_, name] = earliest  # a promise is never taken back: no need to look until then
        return list(found)

    def evict(self, places: Iterable[Place]) -> None:
        """They are out of their sets."""
        for place in places:
            if place in self._holdings:
                self._forget(place)

    def places(self) -> set[Place]:
        """Every address in every set."""
        return set(self._holdings)

    def in_order(self) -> list[Place]:
        """The same, the oldest first."""
        return list(self._holdings)

    def elements(self, now: float, places: Iterable[Place] | None = None) -> list[Element]:
        """Everything that lives (of these places), as it should stand in the sets."""
        return [
            Element(*place, holding.comment, holding.until - now)
            for place in (self._holdings if places is None else places)
            if (holding := self._holdings.get(place)) is not None and holding.until - now >= 1
        ]


def merged(elements: Sequence[Element]) -> Sequence[Element]:
    """One element for each place: with the longest life, and with the names of all."""
    if len({address for _, address, _, _ in elements}) == len(elements):
        return elements  # as nearly always
    found: dict[Place, Element] = {}
    for element in elements:
        place = element[:2]
        other = found.get(place)
        if other is not None:
            comment = other.name
            for word in element.name.split():
                comment = _with(comment, word)
            element = Element(*place, comment, max(other.seconds, element.seconds))
        found[place] = element
    return list(found.values())


def _comment(name: Name) -> str:
    text = to_text(name)
    return text if len(text) <= _ALONE else _MORE


def _with(comment: str, name: str) -> str:
    """The comment with one more name, or with a sign that there are more than it can hold."""
    words = comment.split()
    if _MORE in words or name in words:
        return comment
    longer = f"{comment} {name}" if comment else name
    if name != _MORE and len(longer) + 1 + len(_MORE) <= COMMENT_LIMIT:
        return longer
    return f"{comment} {_MORE}" if comment else _MORE
