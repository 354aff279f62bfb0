"""splitwg: the client. Asks the daemon over its socket, and does by itself what has to work without one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import click

from splitwgd import __version__
from splitwgd.config import DEFAULT_PATH
from splitwgd.control import ask
from splitwgd.doctor import doctor
from splitwgd.errors import SplitwgError
from splitwgd.files import Tree
from splitwgd.leaktest import leaktest
from splitwgd.listing import add, import_, list_, remove
from splitwgd.outcome import plain_errors
from splitwgd.overview import status
from splitwgd.programs import Programs
from splitwgd.setting_up import Setup
from splitwgd.setup import dns, revert, setup
from splitwgd.unit import let_go, log, reload
from splitwgd.watch import watch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="splitwg")
@click.option("--config", "path", default=DEFAULT_PATH, metavar="PATH", help=f"Default: {DEFAULT_PATH}")
@click.pass_context
def main(context: click.Context, path: str) -> None:
    """Chosen domains through WireGuard, and nothing of them any other way.

    Exit status: 0 done, 1 it could not be done, 2 the call or the configuration is wrong; status has its own.
    """
    context.obj = os.path.abspath(path)
    if os.environ.get("NO_COLOR"):
        context.color = False


@main.command()
@plain_errors
def down() -> None:
    """Take the link away. The daemon stays, and what is tunneled stays closed."""
    _tell(ask({"do": "down"}), "down: what is tunneled is closed")


@main.command()
@plain_errors
def up() -> None:
    """Bring the link back."""
    _tell(ask({"do": "up"}), "up: the link is back")


def _tell(answer: dict[str, Any], done: str) -> None:
    if answer.get("trouble"):
        raise SplitwgError(answer["trouble"])
    click.echo(done)


@main.command()
@plain_errors
def flush() -> None:
    """Forget the answers in the cache. Addresses that are in the sets stay there: somebody may still go to them."""
    click.echo(f"{ask({'do': 'flush'})['forgotten']} answers forgotten")


@main.command()
@click.argument("of", metavar="NAME|ADDRESS")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@plain_errors
def why(of: str, as_json: bool) -> None:
    """Where a name or an address goes, what decides it, and which other names share its addresses."""
    found = ask({"do": "why", "of": of})
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_reasons(found)))


def _reasons(found: dict[str, Any]) -> Iterator[str]:
    if found["name"]:
        where = f"is tunneled through {found['tunnel']}" if found["tunnel"] else "is not tunneled"
        reason = f"by the entry for {found['entry']}" if found["entry"] else "not listed"
        if found["led_by"]:
            reason = f"a record of {found['led_by']} leads to it"
        yield f"{found['name']} {where}: {reason}; asked at: {found['asked_at']}"
        if not found["addresses"]:
            yield "  no address of it is known"
    for each in found["addresses"]:
        way = f"; its way: {each['way']}" if "way" in each else ""
        if not each["tunnel"]:
            plain = f": {', '.join(each['plain'])}" if each["plain"] else ""
            yield f"  {each['address']} is not tunneled{plain}{way}"
            continue
        network = [f"it is in {each['network']}, which is listed"] if each["network"] else []
        names = [*each["names"], *(["others"] if each["more"] else [])]
        held = [f"{', '.join(names)} led to it, for {_time(each['seconds'])} more"] if names else []
        yield f"  {each['address']} is tunneled through {each['tunnel']}: {'; '.join(network + held)}"
        if way:
            yield f"    mark {each['mark']}{way}"
        if each["plain"]:
            yield f"    and so, for those who go there, are {', '.join(each['plain'])}: not listed, on the same address"
    for flow in found.get("flows", []):
        size = "" if flow["bytes"] is None else f", {flow['bytes']} bytes"
        yield f"  under way: {flow['protocol']} to {flow['to']} port {flow['port']}{size}"


def _time(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"


@main.command()
@click.pass_obj
@plain_errors
def teardown(path: str) -> None:
    """Remove everything that splitwg put into the kernel, and give DNS back. Ends the daemon. Safe to run twice."""
    for line in Setup(Tree(), Programs()).tear_down(path):
        click.echo(line)
    click.echo("nothing of splitwg is left in the kernel")


for _command in (status, add, remove, list_, import_, setup, revert, dns, doctor, leaktest, log, watch, reload, let_go):
    main.add_command(_command)
