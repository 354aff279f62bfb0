"""The section [routing]: which bits, which table, and how long an address stays tunneled."""

from __future__ import annotations

from dataclasses import dataclass

from splitwgd.settings import Settings

_RESERVED_TABLES = (0, 253, 254, 255)  # include/uapi/linux/rtnetlink.h


@dataclass(frozen=True)
class Routing:
    """Bits, tables and lives. Only bits under `fwmask` are ever written or compared; seconds throughout."""

    fwmark: int = 0x1
    fwmask: int = 0xFF
    table: int = 100
    priority: int = 100
    min_lifetime: int = 3600
    on_stop: str = "open"

    @property
    def direct(self) -> int:
        """The mark of our own packets that go outside: default questions and WireGuard's outer packets."""
        return self.fwmask ^ self.fwmark

    @property
    def ended(self) -> int:
        """What a flow's own mark says when the flow has to end; no packet bears it."""
        return self.fwmask


def read_routing(settings: Settings) -> Routing:
    """What the section says; a problem for each value that cannot be."""
    usual = Routing()
    mark = settings.number("routing.fwmark", usual.fwmark, 1, 0xFFFFFFFF)
    mask = settings.number("routing.fwmask", usual.fwmask, 1, 0xFFFFFFFF)
    if mark & ~mask:
        settings.problem("routing.fwmark", f"{mark:#x} has bits outside fwmask {mask:#x}", "widen the mask")
    elif mark == mask:
        settings.problem("routing.fwmask", f"{mask:#x} leaves no bit for splitwgd's own packets", "widen the mask")
    table = settings.number("routing.table", usual.table, 1, 0xFFFFFFFF)
    if table in _RESERVED_TABLES:
        settings.problem("routing.table", f"{table} belongs to the kernel", "take a number below 253")
    on_stop = settings.plain("routing.on_stop", usual.on_stop, str, '"closed" or "open"')
    if on_stop not in ("closed", "open"):
        settings.problem("routing.on_stop", f"= {on_stop!r}", 'write "closed" or "open"')
    priority = settings.number("routing.priority", usual.priority, 1, 32765)
    life = settings.number("routing.min_lifetime", usual.min_lifetime, 60, 30 * 86400)
    return Routing(mark, mask, table, priority, life, on_stop)
