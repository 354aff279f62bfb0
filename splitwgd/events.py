"""Listens to what the kernel tells of its own: something changed in links, addresses, rules, routes or nft.

Says that, not what: whoever wants to know looks (see reconciler).
"""

from __future__ import annotations

import os
import socket
import struct

_NETLINK_NETFILTER = 12


class Events:
    """Says that something changed in links, addresses, rules, routes or nft, without saying what."""

    # Messages of nf_tables (include/uapi/linux/netfilter/nf_tables.h): new and deleted tables, chains, rules
    # and sets, and deleted elements. Ours do not concern us: elements come and go by the thousand.
    _CHANGES = frozenset({0, 2, 3, 5, 6, 8, 9, 11, 14})
    _NFT_SUBSYSTEM, _NFT_GROUP = 10, 7
    _SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
    # RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE; v6 rules have a group only.
    _ROUTE_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400
    _IPV6_RULE_GROUP = 19

    def __init__(self) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self.route = socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE)
        self.route.bind((0, self._ROUTE_GROUPS))
        self.route.setsockopt(self._SOL_NETLINK, self._ADD_MEMBERSHIP, self._IPV6_RULE_GROUP)
        self.nft = socket.socket(socket.AF_NETLINK, flags, _NETLINK_NETFILTER)
        self.nft.bind((0, 0))
        self.nft.setsockopt(self._SOL_NETLINK, self._ADD_MEMBERSHIP, self._NFT_GROUP)
        self._own: frozenset[int] = frozenset()

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        return (self.route, self.nft)

    def drain(self, sock: socket.socket) -> bool:
        """Reads all that waits; whether any of it may concern us."""
        concerning = False
        while True:
            try:
                data = sock.recv(65_536)
            except BlockingIOError:
                return concerning
            except OSError:  # ENOBUFS: events were lost, so anything may have happened
                concerning = True
                continue
            concerning = concerning or sock is self.route or self._is_a_change(data)

    def _is_a_change(self, data: bytes) -> bool:
        position = 0
        while position + 16 <= len(data):
            length, kind, _, _, port = struct.unpack_from("=IHHII", data, position)
            if kind >> 8 == self._NFT_SUBSYSTEM and kind & 0xFF in self._CHANGES and not self._is_own(port):
                return True
            position += max((length + 3) & ~3, 16)
        return False

    def _is_own(self, port: int) -> bool:
        if port not in self._own:
            self._own = own_ports()  # it may be a new socket
        return port in self._own

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def own_ports() -> frozenset[int]:
    """The netlink ports of this process's sockets to netfilter, libnftables' among them (netlink(7)).

    An event bears the port of whoever made the change.
    """
    inodes = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            inodes.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue  # the one that listed them
    ports = set()
    with open("/proc/net/netlink") as sockets:
        next(sockets)
        for line in sockets:
            _, protocol, port, *_, inode = line.split()
            if int(protocol) == _NETLINK_NETFILTER and f"socket:[{inode}]" in inodes:
                ports.add(int(port))
    return frozenset(ports)
