"""What has to change for the kernel to be as planned, in an order in which nothing is ever open."""

from __future__ import annotations

from dataclasses import dataclass

from splitwgd.objects import Device, Link, LooseReversePath, Object, OuterMark, Route, Rule, Table
from splitwgd.plan import Plan


@dataclass(frozen=True)
class Put:
    """Make `wanted`; `found` is the version of it that is there, if one is."""

    wanted: Object
    found: Object | None

    def __str__(self) -> str:
        return f"+ {self.wanted}"


@dataclass(frozen=True)
class Remove:
    """Take away what is ours and no longer wanted."""

    found: Object

    def __str__(self) -> str:
        return f"- {self.found}"


@dataclass(frozen=True)
class Diff:
    """grow: what to put, closing things first. shrink: what to remove, closing things last."""

    grow: tuple[Put, ...]
    shrink: tuple[Remove, ...]

    def __bool__(self) -> bool:
        return bool(self.grow or self.shrink)

    def __str__(self) -> str:
        return "\n".join(str(change) for change in (*self.grow, *self.shrink))


# The order of growth; shrinking goes backwards. Each line: what, and why it stands there.
APPLY_ORDER = (
    "blackhole",  # the tunnel's table is closed before anything is led into it
    "rule",  # marked packets are led there before anything marks them
    "table",  # marks, the last door and the redirect hold before there is a link
    "link",  # made, but nothing is routed into it yet
    "sysctl",  # replies can come in before a packet goes out
    "device",  # keys and peers: from here on the link could carry
    "route",  # now it opens
)


def compare(wanted: Plan, found: Plan) -> Diff:
    """The changes that lead from `found` to `wanted`."""
    grow = [Put(obj, found.objects.get(key)) for key, obj in wanted.objects.items() if found.objects.get(key) != obj]
    shrink = [Remove(obj) for key, obj in found.objects.items() if key not in wanted.objects]
    grow.sort(key=lambda put: _rank(put.wanted))
    shrink.sort(key=lambda remove: _rank(remove.found), reverse=True)
    return Diff(tuple(grow), tuple(shrink))


def is_closing(obj: Object) -> bool:
    """Whether this keeps packets in, rather than letting them into the tunnel."""
    return _step(obj) in ("blackhole", "rule", "table")


def is_closed(wanted: Plan, found: Plan) -> bool:
    """Whether all that keeps packets in is there."""
    return all(found.objects.get(key) == obj for key, obj in wanted.objects.items() if is_closing(obj))


def _rank(obj: Object) -> int:
    return APPLY_ORDER.index(_step(obj))


def _step(obj: Object) -> str:
    match obj:
        case Route(link=None):
            return "blackhole"
        case Route():
            return "route"
        case Rule():
            return "rule"
        case Table():
            return "table"
        case Link():
            return "link"
        case LooseReversePath():
            return "sysctl"
        case Device() | OuterMark():
            return "device"
