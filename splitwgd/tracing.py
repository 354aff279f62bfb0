"""What the kernel says of one address: the way that a packet with a mark would take, and the flows that go there."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection
from contextlib import closing
from ipaddress import ip_address
from typing import Any

from pyroute2 import IPRoute, NFCTSocket
from pyroute2.netlink.exceptions import NetlinkError

from splitwgd.config import Config
from splitwgd.netlink import flow_target
from splitwgd.objects import MAIN_TABLE, Ip

FLOWS = 10  # that are told
# What the kernel answers for routes that lead nowhere (net/ipv4/fib_semantics.c, fib_props).
_NOWHERE = {errno.EINVAL: "a blackhole", errno.EHOSTUNREACH: "unreachable", errno.EACCES: "prohibited"}
_LOOKUP_TABLE = 0x1000  # RTM_F_LOOKUP_TABLE: without it every route is said to be of table main
_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp"}


def traced(found: dict[str, Any], config: Config) -> dict[str, Any]:
    """What `splitwg why` tells, with each address's mark and way, and the flows there of those that are tunneled."""
    marks = {tunnel.link: tunnel.mark for tunnel in config.tunnels}
    for each in found["addresses"][:FLOWS]:
        mark = marks.get(each["tunnel"], 0)
        each |= {"mark": hex(mark), "way": way_of(ip_address(each["address"]), mark)}
    flows = []
    for link, mark in marks.items():
        addresses = {ip_address(each["address"]) for each in found["addresses"] if each["tunnel"] == link}
        flows += flows_to(addresses, mark, config.routing.fwmask)
    return found | {"flows": flows[:FLOWS]}


def way_of(address: Ip, mark: int) -> str:
    """As `ip route get ADDRESS mark MARK` has it, in a few words."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with closing(IPRoute()) as ip:
        try:
            (found, *_) = ip.route("get", family=family, dst=str(address), mark=mark, flags=_LOOKUP_TABLE)
            index = found.get_attr("RTA_OIF")
            (link, *_) = ip.get_links(index)
        except NetlinkError as error:
            return _NOWHERE.get(error.code, os.strerror(error.code))
    gateway, table = found.get_attr("RTA_GATEWAY"), found.get_attr("RTA_TABLE") or MAIN_TABLE
    via = f" via {gateway}" if gateway else ""
    return f"{link.get_attr('IFLA_IFNAME')}{via}" + (f", table {table}" if table != MAIN_TABLE else "")


def flows_to(addresses: Collection[Ip], mark: int, mask: int) -> list[dict[str, Any]]:
    """The flows under way to these that bear the mark, the first ones. packets and bytes: both ways, where the kernel
    counts them (net.netfilter.nf_conntrack_acct); none without the right to look."""
    found: list[dict[str, Any]] = []
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        if not any(address.version == version for address in addresses):
            continue
        try:
            with NFCTSocket(nfgen_family=family) as conntrack:
                # The kernel selects by the mark: there may be a quarter of a million flows.
                for flow in list(conntrack.dump(mark=mark, mark_mask=mask)):
                    original = flow.get_attr("CTA_TUPLE_ORIG")
                    if len(found) < FLOWS and flow_target(original) in addresses:
                        found.append(_told(flow, original))
        except NetlinkError:
            continue
    return found


def _told(flow: Any, original: Any) -> dict[str, Any]:
    ports = original.get_attr("CTA_TUPLE_PROTO")
    number = ports.get_attr("CTA_PROTO_NUM")
    counters = [flow.get_attr(name) for name in ("CTA_COUNTERS_ORIG", "CTA_COUNTERS_REPLY")]
    return {
        "protocol": _PROTOCOLS.get(number, str(number)),
        "to": str(flow_target(original)),
        "port": ports.get_attr("CTA_PROTO_DST_PORT"),
        "bytes": sum(each.get_attr("CTA_COUNTERS_BYTES") or 0 for each in counters if each) if any(counters) else None,
    }
