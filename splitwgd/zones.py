"""Which group of servers answers for a name: the longest match among tunneled names, exceptions and zones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from splitwgd.config import Config, Tunnel
from splitwgd.message import AAAA, ANY, A
from splitwgd.names import Name, Pattern, Scope, tails, to_text
from splitwgd.patterns import MARK, key_of, number_of, together, verdict
from splitwgd.servers import Server


@dataclass(frozen=True)
class Group:
    """Servers that are asked alike. link: what the sockets are bound to, so that they take it or fail.

    tunnel: the sets' prefix where the group's addresses are tunneled, None where they are not.
    families: of addresses that its tunnel carries; widths: how many bytes those have. local: answered on this
    machine (`local`), never asked. unasked: types of questions that its servers are never asked.
    """

    name: str
    servers: tuple[Server, ...]
    mark: int
    link: str | None = None
    tunnel: str | None = None
    families: frozenset[int] = frozenset({4, 6})
    local: bool = False
    widths: frozenset[int] = field(init=False, compare=False)
    unasked: frozenset[int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        types = {ANY} | {qtype for family, qtype in ((4, A), (6, AAAA)) if family not in self.families}
        object.__setattr__(self, "unasked", frozenset(types))
        object.__setattr__(self, "widths", frozenset({4: 4, 6: 16}[family] for family in self.families))

    def __hash__(self) -> int:
        return hash(self.name)  # groups are looked up for every question


class Zones:
    """Looking a name up takes as long as it has labels, however many are listed.

    local: names that are answered on this machine, unless the configuration tunnels or forwards these very names.
    """

    def __init__(self, config: Config, local: Iterable[Pattern] = ()) -> None:
        direct = config.routing.direct
        self.default = Group("default", config.default, direct)
        self._local = Group("local", (), direct, local=True)
        # Where the few names are that are no tunnel's: by key, the group of itself and that of what is below.
        self._others: dict[str, list[Group | None]] = {}
        for pattern in local:
            groups = self._others.setdefault(key_of(pattern.name), [None, None])
            if pattern.scope is not Scope.ONLY_BELOW:
                groups[0] = self._local
            if pattern.scope is not Scope.ONLY_ITSELF:
                groups[1] = self._local
        for name, servers in config.forward:
            group = Group(f"forward {to_text(name)}", servers, direct)
            self._others[key_of(name)] = [group, group]
        self._tunnels = [_Listing(tunnel) for tunnel in config.tunnels]
        # What `find` needs, within reach: the names that no list has, and the first table of lists, which as a rule
        # is the only one.
        self._near = frozenset(self._others).union(*(listing.near for listing in self._tunnels))
        first, *more = (listing.far for listing in self._tunnels)
        self._buckets, self._mask, self._more = first.buckets, first.mask, bool(more)
        self._below: dict[Name, Group] = {}  # what is below a name and says nothing else itself

    def groups(self) -> list[Group]:
        """All that have servers."""
        found = {self.default: None, **{listing.group: None for listing in self._tunnels}}
        for itself, below in self._others.values():
            found.update((group, None) for group in (itself, below) if group is not None and not group.local)
        return list(found)

    def find(self, name: Name) -> Group:
        """The group for a lower-case wire name."""
        parent = name[1 + name[0] :]
        group = self._below.get(parent)
        if group is None:
            if len(self._below) >= _REMEMBERED:
                self._below.clear()
            group = self._below[parent] = self._find_below(parent)
        key = MARK + name.decode("latin-1")
        if key in self._near or key in self._buckets[hash(key) & self._mask] or self._more:
            return self._decide(key, True) or group
        return group

    def decisive(self, name: Name) -> Name | None:
        """The listed name, itself or above, whose entry says which group a name belongs to; None where none does."""
        for tail in tails(name):
            if self._decide(key_of(tail), tail == name) is not None:
                return tail
        return None

    def _find_below(self, parent: Name) -> Group:
        for tail in tails(parent) if parent else ():
            if (group := self._decide(key_of(tail), False)) is not None:
                return group
        return self.default

    def _decide(self, key: str, itself: bool) -> Group | None:
        """What is said of a name by the entries of this one, which is that name or above it."""
        other = self._others.get(key, _NEITHER)[not itself]
        excepted = False
        for listing in self._tunnels:
            tunneled = listing.says(key, itself)
            if tunneled:
                return listing.group
            excepted = excepted or tunneled is False
        return self.default if excepted and other is None else other


_REMEMBERED = 2048  # parents of names
_NEITHER: list[Group | None] = [None, None]


class _Listing:
    """The patterns of one tunnel: by key the numbers (`patterns`) of the few, and the table of the many."""

    def __init__(self, tunnel: Tunnel) -> None:
        carried = frozenset(family for family in (4, 6) if tunnel.wireguard.carries(family))
        self.group = Group(tunnel.name, tunnel.servers, tunnel.mark, tunnel.link, tunnel.sets, carried)
        self.far = tunnel.listed
        self.near: dict[str, int] = {}
        for pattern in tunnel.patterns:
            key = key_of(pattern.name)
            self.near[key] = together(self.near.get(key, 0), number_of(pattern))

    def says(self, key: str, itself: bool) -> bool | None:
        """Whether a name, or what is below it, is tunneled (`patterns.verdict`)."""
        number, listed = self.near.get(key, 0), self.far.number(key)
        return verdict(together(number, listed) if number and listed else number or listed, itself)
