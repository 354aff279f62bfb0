"""The hand on links, addresses, rules, routes and conntrack. What is ours is known by what the kernel holds:
rules and routes by their protocol number, a link by its alias. Nothing else is ever touched.
"""

from __future__ import annotations

import errno
import functools
import logging
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_interface
from typing import Any, ParamSpec, TypeVar

from pyroute2 import IPRoute, NFCTSocket
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

from splitwgd.downlinks import candidates
from splitwgd.errors import KernelError, MachineError
from splitwgd.objects import (
    MAIN_TABLE,
    Interface,
    Ip,
    Link,
    LooseReversePath,
    Object,
    Route,
    Rule,
    Surroundings,
)
from splitwgd.sysctls import forwards, is_loosened, send_redirects, sends_redirects

log = logging.getLogger("splitwgd.kernel")
P = ParamSpec("P")
T = TypeVar("T")

PROTOCOL = 83  # of our rules and routes; free in iproute2's rt_protos
ALIAS = "splitwg"
_REDIRECTING = "splitwg send_redirects"  # before this link was up the machine sent them, see put_link
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_VERSIONS = {int(family): version for version, family in _FAMILIES.items()}
_UNICAST, _BLACKHOLE = 1, 6  # rtm_type, include/uapi/linux/rtnetlink.h
_TO_TABLE, _INVERT = 1, 0x2  # FR_ACT_TO_TBL, FIB_RULE_INVERT, include/uapi/linux/fib_rules.h
_UP = 0x1  # IFF_UP
_DST_NAT = 1 << 5  # IPS_DST_NAT, include/uapi/linux/netfilter/nf_conntrack_common.h
_LINK_SCOPE = 253  # RT_SCOPE_LINK
_DOUBTED = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED: nobody can listen there


def _translated(method: Callable[P, T]) -> Callable[P, T]:
    """The library's errors end here: a link may vanish, or a dump be cut short, under any reading."""

    @functools.wraps(method)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return method(*arguments, **options)
        except NetlinkError as error:
            raise _explained("netlink", error) from error

    return run


class Netlink:
    """One rtnetlink socket. Used by one thread."""

    def __init__(self) -> None:
        self._ip = IPRoute()

    def close(self) -> None:
        self._ip.close()

    # -- what is there

    @_translated
    def observe(self, links: Iterable[str]) -> list[Object]:
        """All that is ours, and the sysctls of the links in question."""
        found: list[Object] = [*self._rules(), *self._routes()]
        for name, index in self._ours().items():
            found.append(self._link(name, index))
        found += [LooseReversePath(link) for link in links if is_loosened(link)]
        return found

    @_translated
    def kind(self, link: str) -> str | None:
        """The kind of a link ("wireguard", "tun", ...; empty for a plain one), or None when there is none."""
        found = self._get_link(link)
        return None if found is None else found.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""

    @_translated
    def is_ours(self, link: str) -> bool:
        found = self._get_link(link)
        return found is not None and _is_ours(found)

    @_translated
    def is_up(self, link: str) -> bool:
        found = self._get_link(link)
        return found is not None and bool(found["flags"] & _UP)

    @_translated
    def surroundings(self) -> Surroundings:
        """This machine's addresses, its gateways', its links, its default routes, and for whom it forwards."""
        own, texts, defaults, uplinks = [], [], set(), set()
        for message in self._ip.get_addr():
            texts.append(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
            if texts[-1] and not (message.get_attr("IFA_FLAGS") or message["flags"]) & _DOUBTED:
                own.append((message["index"], ip_address(texts[-1])))
        for family in _FAMILIES.values():
            for route in self._ip.get_routes(family=family):
                if route["dst_len"] > 1 or route["type"] != _UNICAST:  # two halves are a default route, too
                    continue
                hops = [route, *(route.get_attr("RTA_MULTIPATH") or ())]
                uplinks |= {hop.get_attr("RTA_OIF") or hop.get("oif", 0) for hop in hops}
                if route["dst_len"] == 0 and route.get_attr("RTA_TABLE") == MAIN_TABLE:
                    texts += [hop.get_attr("RTA_GATEWAY") for hop in hops]
                    defaults.add((route.get_attr("RTA_OIF") or 0, route.get_attr("RTA_PRIORITY") or 0))
        links, ports = set(), set()
        for link in self._ip.get_links():
            links.add((link["index"], link.get_attr("IFLA_IFNAME"), bool(link["flags"] & _UP)))
            if link.get_attr("IFLA_MASTER"):  # a bridge's port: what comes in there comes in by the bridge
                ports.add(link["index"])
        addresses = frozenset(ip_address(text).packed for text in texts if text)
        downlinks = frozenset(
            each for each in candidates(links, own, uplinks | ports) if forwards(each.name, each.address.version)
        )
        return Surroundings(addresses, frozenset(links), frozenset(defaults), downlinks)

    def uplink_mtu(self, endpoint: Ip | None, mark: int) -> int | None:
        """The MTU of the link by which our outer packets leave, or None without a route."""
        target = str(endpoint) if endpoint else "192.0.2.1"  # any address that takes the default route
        try:
            (route,) = self._ip.route("get", dst=target, mark=mark)
            (link,) = self._ip.get_links(route.get_attr("RTA_OIF"))
        except (NetlinkError, ValueError):
            return None
        return int(link.get_attr("IFLA_MTU"))

    def _get_link(self, name: str) -> Any:
        links = list(self._ip.get_links())
        return next((link for link in links if link.get_attr("IFLA_IFNAME") == name), None)

    def _ours(self) -> dict[str, int]:
        links = (link for link in self._ip.get_links() if _is_ours(link))
        return {link.get_attr("IFLA_IFNAME"): link["index"] for link in links}

    def _link(self, name: str, index: int) -> Link:
        (link,) = self._ip.get_links(index)
        addresses = frozenset(self._addresses(index))
        # One that is down has no MTU that could be right: it is put again, and comes up.
        return Link(name, link.get_attr("IFLA_MTU") if link["flags"] & _UP else 0, addresses)

    def _addresses(self, index: int) -> dict[Interface, dict[str, Any]]:
        """The addresses of a link, each with what it takes to delete it."""
        found = {}
        for message in self._ip.get_addr(index=index):
            if message["scope"] == _LINK_SCOPE:  # the kernel makes link-local ones by itself
                continue
            # IFA_ADDRESS is the peer's where there is one (include/uapi/linux/if_addr.h).
            peer, length = message.get_attr("IFA_ADDRESS"), message["prefixlen"]
            own = message.get_attr("IFA_LOCAL") or peer
            found[ip_interface(f"{own}/{length}")] = {
                "index": index,
                "family": message["family"],
                "address": peer,
                "local": own,
                "prefixlen": length,
            }
        return found

    def _rules(self) -> Iterable[Rule]:
        for family in _FAMILIES.values():
            for rule in self._ip.get_rules(family=family):
                if rule.get_attr("FRA_PROTOCOL") == PROTOCOL and _is_plain(rule):
                    mark, mask = rule.get_attr("FRA_FWMARK") or 0, rule.get_attr("FRA_FWMASK") or 0
                    priority, table = rule.get_attr("FRA_PRIORITY") or 0, rule.get_attr("FRA_TABLE")
                    yield Rule(_VERSIONS[rule["family"]], priority, mark, mask, table)

    def _routes(self) -> Iterable[Route]:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in self._ip.get_links()}
        for family in _FAMILIES.values():
            for route in self._ip.get_routes(family=family, proto=PROTOCOL):
                if route["proto"] != PROTOCOL or route["dst_len"] or route["type"] not in (_UNICAST, _BLACKHOLE):
                    continue
                link = names.get(route.get_attr("RTA_OIF")) if route["type"] == _UNICAST else None
                metric = route.get_attr("RTA_PRIORITY") or 0
                yield Route(_VERSIONS[route["family"]], route.get_attr("RTA_TABLE"), link, metric)

    # -- changes

    def put_rule(self, rule: Rule) -> None:
        self._change("rule", "add", rule)

    def remove_rule(self, rule: Rule) -> None:
        self._change("rule", "del", rule)

    def _change(self, kind: str, verb: str, obj: Rule | Route) -> None:
        settings = self._rule(obj) if isinstance(obj, Rule) else self._route(obj)
        self._do(str(obj), lambda: getattr(self._ip, kind)(verb, **settings), verb)

    def _rule(self, rule: Rule) -> dict[str, Any]:
        return {
            "family": _FAMILIES[rule.family],
            "priority": rule.priority,
            "fwmark": rule.mark,
            "fwmask": rule.mask,
            "table": rule.table,
            "protocol": PROTOCOL,
        }

    @_translated
    def put_route(self, route: Route) -> None:
        self._change("route", "replace", route)  # of another type, it may stand there already

    @_translated
    def remove_route(self, route: Route) -> None:
        if route.link is None or self._get_link(route.link) is not None:  # else it went with its link
            self._change("route", "del", route)

    def _route(self, route: Route) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "family": _FAMILIES[route.family],
            "dst": "default",
            "table": route.table,
            "priority": route.metric,
            "proto": PROTOCOL,
        }
        if route.link is None:
            return settings | {"type": "blackhole"}
        found = self._get_link(route.link)
        if found is None:
            raise KernelError(f"{route}: there is no link {route.link}")
        return settings | {"oif": found["index"]}

    def make_wireguard(self, name: str) -> bool:
        """Makes a link of kind `wireguard`; False when this kernel knows no such kind."""
        try:
            self._ip.link("add", ifname=name, kind="wireguard")
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                return False
            raise _explained(f"ip link add {name} type wireguard", error) from error
        return True

    @_translated
    def put_link(self, link: Link) -> None:
        """Gives a link its alias, MTU and addresses, and brings it up.

        WireGuard of the kernel's then takes net.ipv4.conf.all.send_redirects away from the machine for good
        (drivers/net/wireguard/device.c, wg_open): the alias keeps that it has to be given back.
        """
        found = self._get_link(link.name)
        if found is None:
            raise KernelError(f"{link}: there is no such link")
        index = found["index"]
        alias = found.get_attr("IFLA_IFALIAS")
        if not _is_ours(found):
            alias = _REDIRECTING if self.kind(link.name) == "wireguard" and sends_redirects() else ALIAS
        self._do(str(link), lambda: self._ip.link("set", index=index, ifalias=alias, mtu=link.mtu, state="up"))
        present = self._addresses(index)
        for address in link.addresses - present.keys():
            settings = {"index": index, "address": str(address.ip), "prefixlen": address.network.prefixlen}
            self._do(f"ip address add {address}", functools.partial(self._ip.addr, "add", **settings))
        for address in present.keys() - link.addresses:
            self._do(f"ip address del {address}", functools.partial(self._ip.addr, "del", **present[address]), "del")

    @_translated
    def remove_link(self, name: str) -> None:
        found = self._get_link(name)
        if found is not None and _is_ours(found):
            self._do(f"ip link del {name}", lambda: self._ip.link("del", index=found["index"]), "del")
            if found.get_attr("IFLA_IFALIAS") == _REDIRECTING:
                try:
                    send_redirects()
                except MachineError as error:  # as in a container whose /proc/sys is not to be written
                    log.warning("%s", error)

    @_translated
    def end_flows(self, addresses: Iterable[Ip], mark: int, mask: int, ended: int) -> None:
        """Ends what goes to these addresses and bears the mark: TCP gets another one, by which the ruleset resets
        it (were its entry deleted, who only receives would wait for ever); the others' entries are deleted."""
        targets = set(addresses)
        for family in _FAMILIES.values():
            self._end(targets, family, mark, mask, ended)

    def _end(self, targets: set[Ip], family: socket.AddressFamily, mark: int, mask: int, ended: int) -> None:
        with NFCTSocket(nfgen_family=family) as conntrack:
            for flow in list(conntrack.dump(mark=mark, mark_mask=mask)):  # a delete would end a lazy dump
                original = flow.get_attr("CTA_TUPLE_ORIG")
                if flow_target(original) in targets:
                    ports = original.get_attr("CTA_TUPLE_PROTO")
                    change = functools.partial(conntrack.entry, "del", tuple_orig=original)
                    if ports and ports.get_attr("CTA_PROTO_NUM") == socket.IPPROTO_TCP:
                        marked = {"mark": ended, "mark_mask": mask}
                        change = functools.partial(conntrack.entry, "set", tuple_orig=original, **marked)
                    self._do("conntrack", change, "del")  # it may have ended by itself

    @_translated
    def forget_questions(self) -> None:
        """Deletes the entries of flows to port 53 elsewhere that no NAT has led anywhere: NAT decides by a flow's first
        packet, and the next one is that then."""
        for family in _FAMILIES.values():
            with NFCTSocket(nfgen_family=family) as conntrack:
                for protocol in (socket.IPPROTO_UDP, socket.IPPROTO_TCP):
                    asked = NFCTAttrTuple(family=family, proto=protocol, dport=53)
                    # The kernel selects: there may be a quarter of a million flows.
                    for flow in list(conntrack.dump(tuple_orig=asked)):
                        original = flow.get_attr("CTA_TUPLE_ORIG")
                        # To loopback nothing leaves; after a restart there are thousands, and each costs a round trip.
                        if not flow.get_attr("CTA_STATUS") & _DST_NAT and not flow_target(original).is_loopback:
                            change = functools.partial(conntrack.entry, "del", tuple_orig=original)
                            self._do("conntrack", change, "del")

    def _do(self, what: str, change: Callable[[], object], verb: str = "add") -> None:
        """Runs one change. That it is so already, or gone already, is what was wanted."""
        fine = {
            "add": (errno.EEXIST,),
            "replace": (),
            "del": (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL),
        }
        try:
            change()
        except NetlinkError as error:
            if error.code not in fine[verb]:
                raise _explained(what, error) from error


def flow_target(flow: Any) -> Ip:
    """Where the packets of a conntrack tuple go."""
    addresses = flow.get_attr("CTA_TUPLE_IP")
    return ip_address(addresses.get_attr("CTA_IP_V4_DST") or addresses.get_attr("CTA_IP_V6_DST"))


def _explained(what: str, error: NetlinkError) -> KernelError | MachineError:
    if error.code == errno.EPERM:
        return MachineError(f"{what}: no right to; run as root or with CAP_NET_ADMIN")
    return KernelError(f"{what}: {error.args[-1]}")


def _is_ours(link: Any) -> bool:
    return link.get_attr("IFLA_IFALIAS") in (ALIAS, _REDIRECTING)


def _is_plain(rule: Any) -> bool:
    """Whether a rule looks at nothing but the mark: one that somebody narrowed is not the one we made."""
    narrow: tuple[str, ...] = ("FRA_SRC", "FRA_DST", "FRA_IIFNAME", "FRA_OIFNAME", "FRA_IP_PROTO", "FRA_UID_RANGE")
    narrow += ("FRA_SPORT_RANGE", "FRA_DPORT_RANGE", "FRA_TUN_ID")
    looks = any(rule.get_attr(name) for name in narrow) or rule["tos"] or rule["flags"] & _INVERT
    return rule["action"] == _TO_TABLE and not looks
