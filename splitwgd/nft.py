"""The hand on nf_tables: runs transactions through libnftables. A context belongs to one thread.

(Two threads on one context crash the process; see docs/decisions.) Addresses in a text come only from
`ipaddress`, since libnftables looks up what is no address as a host name.
"""

from __future__ import annotations

import json
from typing import Any

from splitwgd.errors import KernelError, MachineError


class Nft:
    """One libnftables context."""

    def __init__(self) -> None:
        try:
            import nftables

            self._context = nftables.Nftables()
        except (ImportError, OSError) as error:
            raise MachineError(f"libnftables cannot be used ({error}); install libnftables1") from error
        self._context.set_json_output(True)

    def run(self, text: str) -> None:
        """One transaction: all of it or nothing. Raises KernelError with nft's own first words."""
        self._run(text)

    def list_table(self, name: str, elements: bool = True) -> dict[str, Any]:
        """`nft -j list table inet NAME`; empty when there is no such table. elements: also those of the sets
        that are no interval sets, which may be tens of thousands."""
        self._context.set_terse_output(not elements)
        try:
            listing = json.loads(self._run(f"list table inet {name}"))
        except KernelError as error:
            if "No such file or directory" in str(error):
                return {}
            raise
        finally:
            self._context.set_terse_output(False)
        assert isinstance(listing, dict)
        for item in listing["nftables"] if not elements else ():
            if "interval" in item.get("set", {}).get("flags", ()):
                item["set"] = self._list_set(name, item["set"]["name"]) or item["set"]
        return listing

    def _list_set(self, table: str, name: str) -> dict[str, Any] | None:
        try:
            listing = json.loads(self._run(f"list set inet {table} {name}"))
        except KernelError:  # it has gone since
            return None
        return next((item["set"] for item in listing["nftables"] if "set" in item), None)

    def _run(self, text: str) -> str:
        status, output, error = self._context.cmd(text)
        if status:
            raise _explained(error)
        return str(output)


def _explained(error: str) -> KernelError | MachineError:
    words = error.strip().splitlines() or ["libnftables gave no reason"]
    first = words[0].removeprefix("internal:0:0-0: ")
    if "Operation not permitted" in error:
        return MachineError(f"nf_tables: {first}; run as root or with CAP_NET_ADMIN")
    if "Protocol not supported" in error or "netlink socket" in error:
        return MachineError(f"this kernel has no nf_tables ({first}); load it (modprobe nf_tables)")
    return KernelError(f"nf_tables: {first}")
