"""Why there is no fresh answer: extended errors for whoever runs dig (RFC 8914 §4 has the codes)."""

from __future__ import annotations

from splitwgd.message import Why
from splitwgd.zones import Group

_OTHER, _STALE, _NO_AUTHORITY, _NETWORK = 0, 3, 22, 23
WITHHELD = Why(_OTHER, "splitwg: the addresses could not be put into the tunnel's set")
TOO_MANY = Why(_OTHER, "splitwg: too many ask for this name at once")
STALE = Why(_STALE, "splitwg: no server answers, this is what it said before")


def no_way(group: Group) -> Why:
    """Its servers could not even be asked."""
    if not group.servers:
        return Why(_NETWORK, f"splitwg: no server is known for {group.name}")
    what = f"the tunnel {group.link} is down" if group.link else "there is no route to the DNS servers"
    return Why(_NETWORK, f"splitwg: {what}")


def silent(group: Group) -> Why:
    """None of its servers answered."""
    return Why(_NO_AUTHORITY, f"splitwg: no server of {group.name} answers")


def refused(group: Group, rcode: int) -> Why:
    """They answered, but with an error."""
    said = _RCODES.get(rcode, f"rcode {rcode}")
    return Why(_NO_AUTHORITY, f"splitwg: the servers of {group.name} answer {said}")


_RCODES = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED", 9: "NOTAUTH"}
