"""Which group of servers answers for a name: the longest match among tunneled names, exceptions and zones."""

from __future__ import annotations

from dataclasses import dataclass

from splitwgd.config import Config, Tunnel
from splitwgd.names import ROOT, Name, Scope, tails
from splitwgd.servers import Server


@dataclass(frozen=True)
class Group:
    """Servers that are asked alike. link: what the sockets are bound to, so that they take it or fail.

    tunnel: the sets' prefix where the group's addresses are tunneled, None where they are not.
    families: of addresses that its tunnel carries. local: answered on this machine (`local`), never asked.
    """

    name: str
    servers: tuple[Server, ...]
    mark: int
    link: str | None = None
    tunnel: str | None = None
    families: frozenset[int] = frozenset({4, 6})
    local: bool = False


class Zones:
    """A table of names; looking one up takes as long as the name has labels, however many are listed."""

    def __init__(self, config: Config) -> None:
        direct = config.routing.direct
        self.default = Group("default", config.default, direct)
        self._itself: dict[Name, Group] = {}
        self._below: dict[Name, Group] = {}
        for tunnel in config.tunnels:
            group = Group(tunnel.name, tunnel.servers, tunnel.mark, tunnel.link, tunnel.sets, _carried(tunnel))
            for pattern in tunnel.patterns:
                target = self.default if pattern.exception else group
                if pattern.scope is not Scope.ONLY_BELOW:
                    self._put(self._itself, pattern.name, target, pattern.scope is Scope.ONLY_ITSELF)
                if pattern.scope is not Scope.ONLY_ITSELF:
                    self._put(self._below, pattern.name, target, pattern.scope is Scope.ONLY_BELOW)
        for name, servers in config.forward:
            group = Group(f"forward {name!r}", servers, direct)
            self._itself[name] = self._below[name] = group

    @staticmethod
    def _put(table: dict[Name, Group], name: Name, group: Group, exact: bool) -> None:
        """`=example.com` and `*.example.com` say more than `example.com`, and win over it."""
        if exact or name not in table:
            table[name] = group

    def find(self, name: Name) -> Group:
        """The group for a lower-case wire name."""
        found = self._itself.get(name)
        if found is not None:
            return found
        if name == ROOT:
            return self.default
        for tail in tails(name[1 + name[0] :]):
            found = self._below.get(tail)
            if found is not None:
                return found
        return self.default


def _carried(tunnel: Tunnel) -> frozenset[int]:
    return frozenset(family for family in (4, 6) if tunnel.wireguard.carries(family))
