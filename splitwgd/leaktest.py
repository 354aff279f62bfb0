"""The command leaktest: tries on this machine whether anything of a tunneled name leaves in clear."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any

import click

from splitwgd.config import Config, load_config
from splitwgd.control import ask as ask_daemon
from splitwgd.errors import MachineError, SplitwgError
from splitwgd.names import Name, NameProblem, Scope, parse_name, to_text
from splitwgd.netlink import Netlink
from splitwgd.objects import Ip
from splitwgd.outcome import plain_errors
from splitwgd.probes import ask, knock, look_up, show_oneself
from splitwgd.sightings import Sighting, sighted
from splitwgd.store import Disk
from splitwgd.taps import Tap

_NAMES = 3  # of the configuration, when none is given
_ELSEWHERE = ip_address("9.9.9.9")  # asked where the configuration names no plain server
_LINGER = 0.5  # seconds in which packets may still leave
NOTHING, IN_CLEAR, UNTESTED = 0, 1, 3


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
@plain_errors
def leaktest(path: str, names: tuple[str, ...], as_json: bool) -> None:
    """Look up tunneled NAMEs and connect to them, and see whether anything of that leaves in clear.

    Every link but the tunnel is listened to meanwhile. It asks and connects in earnest, also past the tunnel: if
    this machine leaks, the names are seen. Without NAME: the first ones of the configuration.

    Exit status: 0 nothing was seen, 1 something was seen in clear, 2 the call or the configuration is wrong,
    3 it could not be tested.
    """
    config = load_config(path, Disk())
    chosen = [_tunneled(text, config) for text in names] or _first(config)
    try:
        result = _test(config, chosen)
    except MachineError as error:
        click.echo(f"splitwg: {error}", err=True)
        sys.exit(UNTESTED)
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        _say(result)
    sys.exit(result["status"])


def _tunneled(text: str, config: Config) -> Name:
    try:
        return parse_name(text)
    except NameProblem as problem:
        raise click.BadParameter(f"{text!r}: {problem.what}; {problem.remedy}") from problem


def _first(config: Config) -> list[Name]:
    found = []
    for pattern in (pattern for tunnel in config.tunnels for pattern in tunnel.patterns):
        if not pattern.exception:
            found.append(Name(b"\x03www" + pattern.name) if pattern.scope is Scope.ONLY_BELOW else pattern.name)
    if not found:
        raise MachineError("no domain is listed; name one: splitwg leaktest NAME")
    return found[:_NAMES]


def _test(config: Config, names: list[Name]) -> dict[str, Any]:
    tunnels = [tunnel.link for tunnel in config.tunnels]
    with closing(Netlink()) as netlink:
        around = netlink.surroundings()
    by_index = {index: name for index, name, _ in around.links}
    uplinks = sorted({by_index[index] for index, _ in around.defaults if index in by_index} - {*tunnels, "lo"})
    plain = [server.address for server in config.default if server.port == 53]
    server = next(iter(plain), _ELSEWHERE)
    addresses: dict[Name, set[Ip]] = {}
    with Tap(but=(*tunnels, "lo")) as tap:
        shown = show_oneself()
        for name in names:
            found = look_up(name) | ask(name, server)
            for link in uplinks:
                found |= ask(name, server, link)
            addresses[name] = found | _known(name)
        connected = knock({address for found in addresses.values() for address in found}, uplinks)
        time.sleep(_LINGER)
    own = {ip_address(packed) for packed in around.addresses}
    return _judge(tap, addresses, own, shown, connected)


def _known(name: Name) -> set[Ip]:
    """What the daemon has learned of it."""
    with suppress(SplitwgError):
        return {ip_address(each["address"]) for each in ask_daemon({"do": "why", "of": to_text(name)})["addresses"]}
    return set()


def _judge(tap: Tap, addresses: dict[Name, set[Ip]], own: set[Ip], shown: list[Ip], connected: int) -> dict[str, Any]:
    sought = {address for found in addresses.values() for address in found} - own
    seen: Counter[Sighting] = sighted(tap.packets, sought, set(addresses))
    controls = sighted(tap.packets, shown, ())
    status = IN_CLEAR if seen else UNTESTED if not controls or tap.lost else NOTHING
    return {
        "status": status,
        "names": {to_text(name): sorted(map(str, found)) for name, found in addresses.items()},
        "connected": connected,
        "control": sorted({sighting.link for sighting in controls}),
        "packets": len(tap.packets),
        "lost": tap.lost,
        "seen": [{**asdict(sighting), "count": count} for sighting, count in sorted(seen.items())],
    }


def _say(result: dict[str, Any]) -> None:
    for name, addresses in result["names"].items():
        click.echo(f"{name}: {', '.join(addresses) or 'no address was to be had'}")
    click.echo(f"connections that came about: {result['connected']}")
    for each in result["seen"]:
        count = each["count"]
        words = str(Sighting(each["link"], each["to"], each["port"], each["name"]))
        click.echo(f"{click.style('✗', fg='red')} seen in clear: {words}" + (f" ({count} times)" if count > 1 else ""))
    if result["status"] == NOTHING:
        where = f"{result['packets']} packets that left were looked at, on {', '.join(result['control'])} among others"
        click.echo(f"{click.style('✓', fg='green')} nothing of it was seen in clear ({where})")
    elif result["lost"]:
        click.echo(f"splitwg: {result['lost']} packets left too fast to be looked at; try when it is quiet", err=True)
    elif not result["control"]:
        what = "a packet sent on purpose was not seen to leave: there is no uplink, or it cannot be listened to"
        click.echo(f"splitwg: {what}", err=True)
