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
STATES = ON, CLOSED, LEAKING, OFF = ("on", "closed", "leaking", "off")


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
    """addresses: learned ones, by set. now: seconds since the epoch. `state`: one of STATES; `because`: a sentence."""
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
    state, because = _judged(config, tunnels, lacking)
    return {
        "state": state,
        "because": because,
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


def _judged(config: Config, tunnels: list[dict[str, Any]], lacking: Diff) -> tuple[str, str]:
    if any(isinstance(put.wanted, Table) and put.wanted.family == "inet" for put in lacking.grow):
        return LEAKING, "the nft table is not as it has to be: listed sites may leave in clear"
    for tunnel in tunnels:
        if tunnel["wanted"] == "down":
            return CLOSED, f"{tunnel['link']} was taken down (splitwg up brings it back)"
    if lacking:
        return CLOSED, "something of splitwg's is not as it should be in the kernel: see below"
    kept_alive = {tunnel.link for tunnel in config.tunnels if any(peer.keepalive for peer in tunnel.wireguard.peers)}
    ages = []
    for tunnel in tunnels:
        link, age = tunnel["link"], tunnel["handshake_age"]
        if age is None:
            return CLOSED, f"{link} has had no handshake yet: the VPN's server has not answered"
        # Without keep-alives there is a handshake when there is something to send, and not before.
        if age >= SESSION and link in kept_alive:
            return CLOSED, f"{link}: the last handshake was {age} s ago: the VPN's server does not answer"
        ages.append(f"{link}, last handshake {age} s ago")
    return ON, f"listed sites go through {'; '.join(ages)}"


def _peer(state: PeerState, now: float) -> dict[str, Any]:
    return {
        "public_key": b64encode(state.public_key).decode(),
        "endpoint": str(state.endpoint) if state.endpoint else None,
        "handshake_age": max(round(now - state.handshake), 0) if state.handshake else None,
        "received": state.received,
        "sent": state.sent,
    }


def traffic_of(states: Mapping[str, list[PeerState]]) -> dict[str, tuple[int, int]]:
    """Bytes received and sent, by link."""
    return {link: (sum(p.received for p in peers), sum(p.sent for p in peers)) for link, peers in states.items()}


def status_line(status: Mapping[str, Any]) -> str:
    """One line for `systemctl status`."""
    parts = []
    for tunnel in status["tunnels"]:
        age = tunnel["handshake_age"]
        shake = "no handshake yet" if age is None else f"handshake {age} s ago"
        parts.append(f"{tunnel['domains']} domains through {tunnel['link']} ({tunnel['wanted']}, {shake})")
    addresses = sum(status["addresses"].values())
    return f"{status['state']}: {'; '.join(parts)}; {addresses} addresses"
