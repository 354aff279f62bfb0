"""All hands on the kernel as one: observes it as a Plan, and carries out a Diff change by change.

Everything here blocks and belongs to one thread, the reconciler's worker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING

from splitwgd.config import Config
from splitwgd.diff import Diff, Put, Remove
from splitwgd.elements import Elements
from splitwgd.errors import KernelError, MachineError, SplitwgError
from splitwgd.netlink import Netlink
from splitwgd.nft import Nft
from splitwgd.objects import (
    Device,
    Element,
    Endpoint,
    Ip,
    Link,
    LooseReversePath,
    Object,
    OuterMark,
    PeerState,
    Route,
    Rule,
    Surroundings,
    Table,
)
from splitwgd.owner import Owner
from splitwgd.plan import Facts, Plan
from splitwgd.routing import Routing
from splitwgd.ruleset import TABLE
from splitwgd.sysctls import has_ipv6, is_strict, loosen, tighten
from splitwgd.transaction import read_table, table_text
from splitwgd.uapi import Uapi
from splitwgd.wireguard import KernelWireGuard

log = logging.getLogger("splitwgd.kernel")
_STAND_IN = f"{TABLE}_meanwhile"

if TYPE_CHECKING:
    Wire = KernelWireGuard | Uapi


@dataclass(frozen=True)
class Observed:
    """What the kernel holds of ours: the objects, and the learned addresses in the sets."""

    plan: Plan
    elements: tuple[Element, ...]


class Kernel:
    """The kernel, as far as it is ours."""

    def __init__(self, owner: Owner) -> None:
        """owner: outlives this, and is closed by whoever made it."""
        self._nft = Nft()  # for listings, which need no ownership and may take long
        self._owner = owner
        self._elements = Elements(owner)
        self._netlink = Netlink()
        self._kernel_wireguard = KernelWireGuard()
        self._uapi = Uapi()

    def close(self) -> None:
        self._netlink.close()
        self._nft.close()

    def surroundings(self) -> Surroundings:
        """This machine's addresses, gateways and links."""
        return self._netlink.surroundings()

    def facts(self, config: Config, down: frozenset[str]) -> Facts:
        """What a plan has to know of this machine."""
        self._uapi.reap()
        adopted, broken = {}, {}
        links = [tunnel.link for tunnel in config.tunnels]
        for link in links:
            if self._netlink.kind(link) is not None and not self._netlink.is_ours(link):
                try:
                    device, _ = self._wire(link).read(link)
                    # One that is down and bare is what a start of ours left that was killed half-way.
                    if any(device.private_key) or device.peers or self._netlink.is_up(link):
                        adopted[link] = device.fwmark
                except SplitwgError as error:
                    broken[link] = str(error)
        mtus = [self._netlink.uplink_mtu(to, config.routing.direct) for to in _endpoints(config)]
        families = (4, 6) if has_ipv6() else (4,)
        strict = frozenset(link for link in links if is_strict(link))
        return Facts(
            min((mtu for mtu in mtus if mtu), default=1500),
            families,
            strict,
            adopted,
            down,
            broken,
            self._owner.can_own,
            filters_arp=self._filters_arp,
        )

    @cached_property
    def _filters_arp(self) -> bool:
        """Whether this kernel's nf_tables know the arp family (CONFIG_NF_TABLES_ARP): asked by trying, once."""
        table = f"table arp {TABLE}_probe"
        try:
            self._nft.run(f"add {table}\ndelete {table}")
        except KernelError:
            return False
        return True

    def observe(self, config: Config | None, elements: bool = False) -> Observed:
        """What is there now. Without a configuration: what a teardown has to find. elements: learned ones too,
        of which there may be many."""
        links = {tunnel.link for tunnel in config.tunnels} if config else set()
        objects = self._netlink.observe(links)
        table, learned = read_table(self._nft.list_table(TABLE, elements))
        if table is not None:
            objects.append(replace(table, flags=self._owner.flags()))
        arp_table, _ = read_table(self._nft.list_table(TABLE, family="arp"))
        if arp_table is not None:
            objects.append(arp_table)
        ours = {obj.name for obj in objects if isinstance(obj, Link)}
        objects += [self._device(link, config) for link in ours]
        if config is not None:
            objects += self._outer_marks(links - ours, config.routing.direct)
        return Observed(Plan.of(objects), tuple(learned))

    def _device(self, link: str, config: Config | None) -> Object:
        try:
            device, _ = self._wire(link).read(link)
        except KernelError:  # its process has just died; the link follows
            return Device(link, b"", 0, 0, frozenset())
        wanted = [t.wireguard.listen_port for t in config.tunnels if t.link == link] if config else []
        # A port that the kernel chose is as wanted when none was asked for.
        return replace(device, listen_port=0) if 0 in wanted else device

    def _outer_marks(self, links: Iterable[str], direct: int) -> list[Object]:
        found: list[Object] = []
        for link in links:
            try:
                if self._netlink.kind(link) is not None and self._wire(link).read(link)[0].fwmark == direct:
                    found.append(OuterMark(link, direct))
            except SplitwgError:  # it cannot be used: `facts` says why
                continue
        return found

    def states(self, link: str) -> list[PeerState]:
        """How the peers of a link are doing; none where there is no such link."""
        return self._wire(link).read(link)[1] if self._netlink.kind(link) is not None else []

    def aim(self, link: str, public_key: bytes, endpoint: Endpoint) -> None:
        """Where this peer is reached from now on; the endpoint's host is an address."""
        self._wire(link).aim(link, public_key, endpoint)

    def _wire(self, link: str) -> Wire:
        match self._netlink.kind(link):
            case "wireguard":
                return self._kernel_wireguard
            case "tun" | None:
                return self._uapi
            case kind:
                what = f"{link} exists and is no WireGuard link ({kind or 'a device'})"
                raise MachineError(f"{what}; give the link or the wg-quick file another name")

    # -- changes

    def grow(self, diff: Diff, elements: list[Element]) -> None:
        """Puts what is missing, in order. elements: what belongs into learned sets that are made anew.

        Stops at the first failure (KernelError): what would open stands behind what closes.
        """
        for put in diff.grow:
            self._put(put, elements)

    def shrink(self, diff: Diff) -> None:
        """Removes what is no longer wanted, in order."""
        for remove in diff.shrink:
            self._remove(remove)

    def insert(self, elements: list[Element]) -> None:
        """Puts elements into their sets."""
        self._elements.put(elements)

    def take_over(self) -> None:
        """The table that a former process left is ours from now on, as it is, where the kernel knows owners.

        Raises MachineError where another process owns it.
        """
        if not self._owner.can_own:
            log.info("other programs can change our nft table: this kernel knows no owners that last (Linux 6.9)")
        elif "persist" in self._owner.flags():
            self._owner.take()

    def forget_questions(self) -> None:
        """Has flows to DNS servers that are older than the redirect decided anew."""
        self._netlink.forget_questions()

    def end_flows(self, addresses: Iterable[Ip], mark: int, routing: Routing) -> None:
        """Ends what goes to these addresses and bears the mark."""
        self._netlink.end_flows(addresses, mark, routing.fwmask, routing.ended)

    def _put(self, put: Put, elements: list[Element]) -> None:
        match put.wanted:
            case Table() as table:
                found = put.found if isinstance(put.found, Table) else None
                self._put_table(table, found, elements)
            case Rule() as rule:
                self._netlink.put_rule(rule)
            case Route() as route:
                self._netlink.put_route(route)
            case Link() as link:
                if self._netlink.kind(link.name) is None and not self._netlink.make_wireguard(link.name):
                    self._uapi.make(link.name)
                self._netlink.put_link(link)
            case LooseReversePath(link=name):
                loosen(name)
            case Device() as device:
                found_device = put.found if isinstance(put.found, Device) else None
                self._wire(device.link).configure(device, found_device)
            case OuterMark(link=name, mark=mark):
                self._wire(name).mark(name, mark)

    def _put_table(self, table: Table, found: Table | None, elements: list[Element]) -> None:
        if table.flags and found is not None and "persist" not in found.flags:
            # No table gets that flag later, and libnftables before 1.1 cannot make one with it in the transaction
            # that fills it: meanwhile another one does the same.
            self._owner.run(table_text(replace(table, name=_STAND_IN, flags=frozenset()), None, elements))
            self._owner.take(anew=True)
            found = None
        elif table.flags:
            self._owner.take()
        self._owner.run(table_text(table, found, elements))
        self._owner.drop(_STAND_IN)

    def _remove(self, remove: Remove) -> None:
        match remove.found:
            case Table(name=name, family="arp"):
                self._owner.run(f"add table arp {name}\ndelete table arp {name}")  # absent is no error
            case Table(name=name):
                self._owner.drop(name)
            case Rule() as rule:
                self._netlink.remove_rule(rule)
            case Route() as route:
                self._netlink.remove_route(route)
            case Link(name=name):
                self._netlink.remove_link(name)
            case LooseReversePath(link=name):
                tighten(name)
            case OuterMark(link=name):
                self._wire(name).mark(name, 0)
            case Device():
                pass  # goes with its link


def _endpoints(config: Config) -> list[Ip | None]:
    """The addresses of the endpoints; None stands for one that is a name."""
    found: list[Ip | None] = []
    for tunnel in config.tunnels:
        for peer in tunnel.wireguard.peers:
            if peer.endpoint is not None:
                try:
                    found.append(ip_address(peer.endpoint.host))
                except ValueError:
                    found.append(None)
    return found
