"""The hand on nf_tables: runs transactions through libnftables. A context belongs to one thread.

(Two threads on one context crash the process; see docs/decisions.) Addresses in a text come only from
`ipaddress`, since libnftables looks up what is no address as a host name.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from contextlib import suppress
from typing import Any

from splitwgd.errors import KernelError, MachineError

_NETLINK_NETFILTER = 12


class Nft:
    """One libnftables context."""

    def __init__(self) -> None:
        try:
            import nftables

            before = _sockets()
            self._context: Any = nftables.Nftables()
        except (ImportError, OSError) as error:
            raise MachineError(f"libnftables cannot be used ({error}); install libnftables1") from error
        self._context.set_json_output(True)
        self._opened = [fd for inode, fd in _sockets().items() if inode not in before]

    def socket(self) -> socket.socket:
        """A second descriptor of this context's netlink socket, which its commands go through.

        libnftables does not tell it, so it is what appeared when the context was made.
        """
        for descriptor in self._opened:
            found = socket.socket(fileno=os.dup(descriptor))
            if (found.family, found.proto) == (socket.AF_NETLINK, _NETLINK_NETFILTER):
                os.set_inheritable(descriptor, False)
                return found
            found.close()
        raise MachineError("libnftables has no netlink socket; is /proc mounted?")

    def close(self) -> None:
        """Frees the context."""
        self._context = None

    def run(self, text: str) -> None:
        """One transaction: all of it or nothing. Raises KernelError with nft's own first words."""
        self._run(text)

    def list_table(self, name: str, elements: bool = True, family: str = "inet") -> dict[str, Any]:
        """`nft -j list table FAMILY NAME`; empty when there is no such table. elements: also those of the sets
        that are no interval sets, which may be tens of thousands."""
        if elements:
            return self._list(f"list table {family} {name}")
        # Terse, libnftables 1.0.6 still fetches the elements of one table, but not those of a whole family.
        self._context.set_terse_output(True)
        try:
            whole = self._list(f"list ruleset {family}")
        finally:
            self._context.set_terse_output(False)
        ours = [item for item in whole["nftables"] for kind, obj in item.items() if _table(kind, obj) == name]
        for item in ours:
            if "interval" in item.get("set", {}).get("flags", ()):
                item["set"] = self._list_set(f"{family} {name}", item["set"]["name"]) or item["set"]
        return {"nftables": ours} if ours else {}

    def list_others(self, name: str) -> dict[str, Any]:
        """The ruleset without that table of ours, and without the elements of sets."""
        self._context.set_terse_output(True)
        try:
            whole = self._list("list ruleset")
        finally:
            self._context.set_terse_output(False)
        items = [item for item in whole["nftables"] if name not in [_table(kind, obj) for kind, obj in item.items()]]
        return {"nftables": items}

    def _list(self, command: str) -> dict[str, Any]:
        try:
            listing = json.loads(self._run(command))
        except KernelError as error:
            if "No such file or directory" in str(error):
                return {}
            raise
        assert isinstance(listing, dict)
        return listing

    def _list_set(self, table: str, name: str) -> dict[str, Any] | None:
        listing = self._list(f"list set {table} {name}")  # empty if it has gone since
        return next((item["set"] for item in listing.get("nftables", ()) if "set" in item), None)

    def _run(self, text: str) -> str:
        status, output, error = self._context.cmd(text)
        if status:
            raise _explained(error)
        return str(output)


def _sockets() -> dict[int, int]:
    """This process's sockets: descriptors by inode, since a descriptor may be another one's a moment later."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that listed them
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                found[status.st_ino] = int(name)
    return found


def _table(kind: str, obj: dict[str, Any]) -> object:
    """The name of the table that an object of a listing is, or is in."""
    return obj.get("name" if kind == "table" else "table")


def _explained(error: str) -> KernelError | MachineError:
    words = error.strip().splitlines() or ["libnftables gave no reason"]
    first = words[0].removeprefix("internal:0:0-0: ")
    if "Operation not permitted" in error:
        return MachineError(f"nf_tables: {first}; run as root or with CAP_NET_ADMIN")
    if "Protocol not supported" in error or "netlink socket" in error:
        return MachineError(f"this kernel has no nf_tables ({first}); load it (modprobe nf_tables)")
    return KernelError(f"nf_tables: {first}")
