"""By which links others may send us their questions: those that lead to hosts that we forward for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set

from splitwgd.objects import Downlink, Ip

_PLAIN = re.compile(r"[A-Za-z0-9_=+.@-]{1,15}")  # that need no quoting in nft, and are no wildcard


def candidates(
    links: Iterable[tuple[int, str, bool]], addresses: Iterable[tuple[int, Ip]], others: Set[int]
) -> Iterator[Downlink]:
    """The links that are up and have an address, once for each family; whether this machine forwards what comes in
    there is not looked at.

    links: (index, name, up). addresses: with their link's index. others: indices of links that are none, above all
    those of default routes: whoever is beyond these is a stranger.
    """
    own: dict[tuple[int, int], list[Ip]] = {}
    for index, address in addresses:
        if not address.is_loopback:
            own.setdefault((index, address.version), []).append(address)
    for index, name, up in links:
        if up and name != "lo" and index not in others and _PLAIN.fullmatch(name):
            for version in (4, 6):
                if found := own.get((index, version)):
                    # Any of them will do; the least is the same each time.
                    yield Downlink(name, index, min(found, key=lambda each: (each.is_link_local, each.packed)))
