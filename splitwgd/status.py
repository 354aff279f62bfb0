"""What `splitwg status` says: one value made of what is wanted, what the kernel holds and how the peers do.

Words and numbers only; the same value is printed for people and as JSON.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from splitwgd.config import Config
from splitwgd.diff import Diff
from splitwgd.kernel import Observed
from splitwgd.objects import PeerState, Table
from splitwgd.plan import Plan
from splitwgd.questions import COUNTED
from splitwgd.rules import reason

# A peer that carries traffic renews its session every 120 s and gives it up after 180 s (WireGuard paper, §6.1).
SESSION = 180


def make_status(
    config: Config,
    plan: Plan,
    observed: Observed,
    lacking: Diff,
    states: Mapping[str, list[PeerState]],
    down: frozenset[str],
    addresses: Mapping[str, int],
    now: float,
) -> dict[str, Any]:
    """addresses: learned ones, by set. now: seconds since the epoch. `state` is on, closed or down."""
    tunnels = []
    for tunnel in config.tunnels:
        peers = [_peer(state, now) for state in states.get(tunnel.link, [])]
        ages = [peer["handshake_age"] for peer in peers if peer["handshake_age"] is not None]
        tunnels.append(
            {
                "link": tunnel.link,
                "wanted": "down" if tunnel.link in down else "up",
                "domains": len(tunnel.patterns) + len(tunnel.listed),
                "networks": len(tunnel.networks),
                "servers": [str(server) for server in tunnel.servers],
                "peers": peers,
                "handshake_age": min(ages, default=None),
            }
        )
    return {
        "state": _state(tunnels, bool(lacking)),
        "config": config.path,
        "tunnels": tunnels,
        "addresses": dict(addresses),
        "bypasses": bypasses(observed.plan),
        "wanted": [str(obj) for obj in plan.objects.values()],
        "held": [str(obj) for obj in observed.plan.objects.values()],
        "differs": [str(change) for change in (*lacking.grow, *lacking.shrink)],
    }


def bypasses(found: Plan) -> dict[str, int]:
    """What was met of other ways to ask, since the rules were written: flows that were led here, packets refused, and
    flows found open, see COUNTED."""
    counts = dict.fromkeys(COUNTED, 0)
    by_reason = {why: count for count, why in COUNTED.items()}
    tables = (obj for obj in found.objects.values() if isinstance(obj, Table))
    for rule in (rule for table in tables for chain in table.chains for rule in chain.rules):
        count = by_reason.get(reason(rule))
        if count is not None:
            counts[count] += rule.packets
    return counts


def _state(tunnels: list[dict[str, Any]], lacking: bool) -> str:
    if all(tunnel["wanted"] == "down" for tunnel in tunnels):
        return "down"
    alive = all(t["handshake_age"] is not None and t["handshake_age"] < SESSION for t in tunnels)
    return "on" if alive and not lacking else "closed"


def _peer(state: PeerState, now: float) -> dict[str, Any]:
    return {
        "public_key": b64encode(state.public_key).decode(),
        "endpoint": str(state.endpoint) if state.endpoint else None,
        "handshake_age": max(round(now - state.handshake), 0) if state.handshake else None,
        "received": state.received,
        "sent": state.sent,
    }


def status_line(status: Mapping[str, Any]) -> str:
    """One line for `systemctl status`."""
    parts = []
    for tunnel in status["tunnels"]:
        age = tunnel["handshake_age"]
        shake = "no handshake yet" if age is None else f"handshake {age} s ago"
        parts.append(f"{tunnel['domains']} domains through {tunnel['link']} ({tunnel['wanted']}, {shake})")
    addresses = sum(status["addresses"].values())
    return f"{status['state']}: {'; '.join(parts)}; {addresses} addresses"
