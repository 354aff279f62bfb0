"""The client of the lab among hostile servers: where these are, the configuration, and what the sets hold."""

from __future__ import annotations

import json
from collections.abc import Iterable

from .hostile import Hostile
from .machine import Machine

# All at the internet host, where no name of the lab lives.  The last one is asked inside the tunnel.
DEFAULT, SECOND, TUNNELED = "203.0.113.61", "203.0.113.62", "203.0.113.63"
EVERYWHERE = (DEFAULT, SECOND, TUNNELED)
GOOD, EVIL = "203.0.113.10", "203.0.113.66"


def configuration(
    *, default: Iterable[str] = (DEFAULT,), dns: str = "", forward: str = "", networks: str = "", routing: str = ""
) -> str:
    """The hostile servers as the only ones; below tunneled.example everything is tunneled."""
    servers = ", ".join(f'"{server}"' for server in default)
    return f"""
[dns]
tunneled = ["{TUNNELED}"]
default = [{servers}]
{dns}
[dns.forward]
{forward}
[tunneled]
domains = ["tunneled.example"]
networks = [{networks}]
[routing]
{routing}
"""


def begin(machine: Machine, text: str = "") -> None:
    """The daemon runs with this configuration."""
    machine.configure(text or configuration())
    machine.start(ready=False)
    machine.wait_for(lambda: "ready: " in machine.log() or machine.process.poll() is not None, "the start")  # type: ignore[union-attr]
    assert "ready: " in machine.log(), machine.log()


def clients_questions(upstream: Hostile) -> list[str]:
    """The names that were asked for on behalf of somebody: not the daemon's own questions, which find out whether
    a server is alive (the root) or asks us in its turn."""
    return [asked.name for asked in upstream.asked() if asked.name and ".splitwg-probe." not in asked.name]


def learned(machine: Machine) -> set[str]:
    """Every address in the learned sets of the kernel."""
    found: set[str] = set()
    for family in (4, 6):
        listing = machine.lab.client.run("nft", "-j", "list", "set", "inet", "wg_routing", f"wg_domains{family}")
        for item in json.loads(listing.stdout)["nftables"]:
            for element in item.get("set", {}).get("elem", ()):
                found.add(element["elem"]["val"] if isinstance(element, dict) else element)
    return found


def packets_into_the_tunnel(machine: Machine) -> int:
    """How many packets wg0 was given so far."""
    shown = machine.lab.client.run("ip", "-j", "-s", "link", "show", "wg0").stdout
    return int(json.loads(shown)[0]["stats64"]["tx"]["packets"])
