"""Reads links, rules, routes and marks of others out of the kernel, for doctor. Changes nothing."""

from __future__ import annotations

import socket
from collections.abc import Collection
from contextlib import closing
from typing import Any

from pyroute2 import IPRoute, WireGuard
from pyroute2.netlink.exceptions import NetlinkError

from splitwgd.findings import ForeignRule
from splitwgd.netlink import PROTOCOL

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_INVERT, _LOCAL = 0x2, 255  # FIB_RULE_INVERT, RT_TABLE_LOCAL
# What makes a rule look at more than the mark (include/uapi/linux/fib_rules.h).
_NARROW = (
    *("FRA_IIFNAME", "FRA_OIFNAME", "FRA_UID_RANGE", "FRA_IP_PROTO", "FRA_SPORT_RANGE", "FRA_DPORT_RANGE"),
    *("FRA_L3MDEV", "FRA_TUN_ID"),
)


def link_mtus() -> dict[str, int]:
    """Every link with its MTU; none where they cannot be read."""
    try:
        with closing(IPRoute()) as ip:
            return {link.get_attr("IFLA_IFNAME"): link.get_attr("IFLA_MTU") or 0 for link in ip.get_links()}
    except (NetlinkError, OSError):
        return {}


def foreign_rules() -> tuple[ForeignRule, ...] | None:
    """All rules but ours and the kernel's own of local addresses; None where they cannot be read."""
    found = []
    try:
        with closing(IPRoute()) as ip:
            for family in _FAMILIES:
                found += [_rule(rule) for rule in ip.get_rules(family=family) if not _is_plain(rule)]
    except (NetlinkError, OSError):
        return None
    return tuple(dict.fromkeys(found))


def _is_plain(rule: Any) -> bool:
    return bool(rule.get_attr("FRA_PROTOCOL") == PROTOCOL or rule.get_attr("FRA_TABLE") == _LOCAL)


def _rule(rule: Any) -> ForeignRule:
    narrow = bool(rule["src_len"] or rule["dst_len"] or rule["tos"] or any(map(rule.get_attr, _NARROW)))
    mark, mask = rule.get_attr("FRA_FWMARK") or 0, rule.get_attr("FRA_FWMASK") or 0
    if rule["flags"] & _INVERT:
        # Whoever has not that one thing: nearly everything.
        mark, mask, narrow = 0, 0, False
    return ForeignRule(rule.get_attr("FRA_PRIORITY") or 0, mark, mask, rule.get_attr("FRA_TABLE") or 0, narrow)


def foreign_routes(table: int) -> tuple[str, ...] | None:
    """What others have put into our table; None where it cannot be read."""
    found = []
    try:
        with closing(IPRoute()) as ip:
            for family in _FAMILIES:
                for route in ip.get_routes(family=family, table=table):
                    if route["proto"] != PROTOCOL and route.get_attr("RTA_TABLE") == table:
                        to = route.get_attr("RTA_DST")
                        found.append(f"the route to {to}/{route['dst_len']}" if to else "a default route")
    except (NetlinkError, OSError):
        return None
    return tuple(found)


def marks_of_wireguards(ours: Collection[str]) -> dict[str, int] | None:
    """The marks that other WireGuard links of the kernel's give their outer packets; None without the right to see."""
    found = {}
    try:
        with closing(IPRoute()) as ip:
            links = {link.get_attr("IFLA_IFNAME"): link for link in ip.get_links()}
        names = [
            name for name, link in links.items() if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "wireguard"
        ]
        for name in (name for name in names if name not in ours):
            with closing(WireGuard()) as wireguard:
                found[name] = next(iter(wireguard.info(name))).get_attr("WGDEVICE_A_FWMARK") or 0
    except (NetlinkError, OSError):
        return None
    return found
