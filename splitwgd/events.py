"""Listens to what the kernel tells of its own: something changed in links, addresses, rules, routes or our nft tables.

Says that, and hardly what: whoever wants to know looks (see reconciler).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from enum import IntFlag

_NETLINK_NETFILTER = 12
_NFPROTO_INET, _NFPROTO_ARP = 1, 3  # linux/netfilter.h


class Heard(IntFlag):
    """What may have changed by somebody else's doing."""

    NOTHING = 0
    SOMETHING = 1
    ELEMENTS = 3  # and the sets' elements may be among it


class Events:
    """Says that something changed in links, addresses, rules, routes or our nft tables, without saying what."""

    # Messages of nf_tables (include/uapi/linux/netfilter/nf_tables.h): new and deleted tables, chains, rules
    # and sets, and deleted elements. Ours do not concern us: elements come and go by the thousand.
    _CHANGES = frozenset({0, 2, 3, 5, 6, 8, 9, 11, 14})
    _OF_ELEMENTS = frozenset({0, 2, 9, 11, 14})
    _NFT_SUBSYSTEM, _NFT_GROUP = 10, 7
    _SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
    # RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE.
    _ROUTE_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400
    # Others have a number only: RTNLGRP_IPV6_RULE, and IPV4_NETCONF and IPV6_NETCONF, which tell of forwarding.
    _MORE_GROUPS = (19, 24, 25)

    def __init__(self, table: str, unheard: int = 0) -> None:
        """table: the name of the tables, inet and arp, whose changes concern us. unheard: the netlink port of a socket
        whose changes of them are not told, since they are many."""
        name = table.encode() + b"\0"
        self._table = struct.pack("=HH", 4 + len(name), 1) + name  # the first attribute of every kind of event
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self.route = socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE)
        self.route.bind((0, self._ROUTE_GROUPS))
        for group in self._MORE_GROUPS:
            self.route.setsockopt(self._SOL_NETLINK, self._ADD_MEMBERSHIP, group)
        self.nft = socket.socket(socket.AF_NETLINK, flags, _NETLINK_NETFILTER)
        self.nft.bind((0, 0))
        if unheard:
            _attach(self.nft, _from_others(unheard))
        self.nft.setsockopt(self._SOL_NETLINK, self._ADD_MEMBERSHIP, self._NFT_GROUP)
        self._own: frozenset[int] = frozenset()
        self._others: set[int] = set()  # that this drain has met

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        return (self.route, self.nft)

    def drain(self, sock: socket.socket) -> Heard:
        """Reads all that waits; whether any of it may concern us."""
        heard = Heard.NOTHING
        self._others = set()
        while True:
            try:
                data = sock.recv(65_536)
            except BlockingIOError:
                return heard
            except OSError:  # ENOBUFS: events were lost, so anything may have happened
                heard = Heard.ELEMENTS
                continue
            heard |= Heard.SOMETHING if sock is self.route else self._in(data)

    def _in(self, data: bytes) -> Heard:
        heard = Heard.NOTHING
        position = 0
        while position + 20 <= len(data):
            length, kind, _, _, port, family = struct.unpack_from("=IHHIIB", data, position)
            if (
                kind >> 8 == self._NFT_SUBSYSTEM
                and kind & 0xFF in self._CHANGES
                and family in (_NFPROTO_INET, _NFPROTO_ARP)
                and data.startswith(self._table, position + 20)  # behind struct nfgenmsg
                and not self._is_own(port)
            ):
                of_elements = family == _NFPROTO_INET and kind & 0xFF in self._OF_ELEMENTS
                heard |= Heard.ELEMENTS if of_elements else Heard.SOMETHING
            position += max((length + 3) & ~3, 16)
        return heard

    def _is_own(self, port: int) -> bool:
        if port not in self._own and port not in self._others:
            self._own = own_ports()  # it may be a new socket
            if port not in self._own:
                self._others.add(port)  # to look takes milliseconds where there are many sockets
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


_SO_ATTACH_FILTER = 26


def _from_others(port: int) -> list[tuple[int, int, int, int]]:
    """A classic BPF program (linux/filter.h): no event whose first message bears this port, and they all do."""
    (swapped,) = struct.unpack("!I", struct.pack("=I", port))
    load_port, if_equal, give = (0x20, 0, 0, 12), (0x15, 0, 1, swapped), 0x06
    return [load_port, if_equal, (give, 0, 0, 0), (give, 0, 0, 0xFFFFFFFF)]


def _attach(sock: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))
