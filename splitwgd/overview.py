"""The command status: how it stands, in one word and then at length."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import click

from splitwgd.control import NoDaemon, ask
from splitwgd.errors import SplitwgError
from splitwgd.kernel import Kernel
from splitwgd.objects import Table
from splitwgd.outcome import plain_errors
from splitwgd.owner import Owner
from splitwgd.removal import config_if_any
from splitwgd.ruleset import TABLE
from splitwgd.status import CLOSED, LEAKING, OFF, STATES, bypasses

_COLOURS = dict(zip(STATES, ("green", "yellow", "red", "cyan"), strict=True))
UNKNOWN = 4  # the exit status where it cannot be told
_Section = tuple[str, list[tuple[str, ...]]]  # a title, and rows


class _WrongCall(click.UsageError):
    exit_code = UNKNOWN


class _Status(click.Command):
    """Whose exit status says how it stands, so that a wrong call must not have one of those."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _WrongCall(error.format_message(), ctx) from error


@click.command(cls=_Status)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
@plain_errors
def status(path: str, as_json: bool) -> None:
    """How it stands: on, closed, leaking or off; then the tunnel, its servers, and what the kernel holds.

    on: listed sites go through the tunnel. closed: they are refused. leaking: a part of what closes is missing, and
    they may leave in clear. off: nothing of splitwg is there. Exit status: 0 to 3 in this order, 4 it cannot be told.
    """
    try:
        found = _found(path)
    except SplitwgError as error:
        click.echo(f"splitwg: {error}", err=True)
        sys.exit(UNKNOWN)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        word = click.style(found["state"], fg=_COLOURS[found["state"]], bold=True)
        click.echo(f"splitwg is {word}: {found['because']}")
        _show(list(_sections(found)))
    sys.exit(STATES.index(found["state"]))


def _found(path: str) -> dict[str, Any]:
    try:
        return ask({"do": "status"})
    except NoDaemon:
        pass
    with closing(Owner(TABLE)) as owner, closing(Kernel(owner)) as kernel:
        observed = kernel.observe(config_if_any(path))
    objects = observed.plan.objects.values()
    state, because = OFF, "splitwgd does not run, and nothing of it is in the kernel"
    if any(isinstance(obj, Table) and _closes(obj) for obj in objects):
        state, because = CLOSED, "splitwgd does not run (systemctl start splitwgd); what it left refuses listed sites"
    elif objects:
        state, because = LEAKING, "splitwgd does not run, and only a part of what it left is there (splitwg teardown)"
    return {
        "state": state,
        "because": because,
        "config": path,
        "tunnels": [],
        "addresses": {},
        "bypasses": bypasses(observed.plan),
        "held": [str(obj) for obj in objects],
        "differs": [],
        "trouble": "splitwgd does not run",
    }


def _closes(table: Table) -> bool:
    """Whether what makes it close is still in it, whoever has been there since."""
    full = {chain.name for chain in table.chains if chain.rules}
    return full >= {"output", "last_door"}


def _sections(found: dict[str, Any]) -> Iterator[_Section]:
    for tunnel in found["tunnels"]:
        listed = f"{tunnel['domains']} domains, {tunnel['networks']} networks"
        yield f"tunnel {tunnel['link']}, wanted {tunnel['wanted']}: {listed}", [_peer(peer) for peer in tunnel["peers"]]
    servers: list[tuple[str, ...]] = [
        (server, how["is"], f"{how['ms']:.0f} ms" if how["ms"] else "", group)
        for group, members in found.get("servers", {}).items()
        for server, how in members.items()
    ]
    if servers:
        yield "servers asked", servers
    if found["addresses"]:
        yield "addresses in the kernel's sets", [(name, str(count)) for name, count in found["addresses"].items()]
    if "questions" in found:
        yield "questions", [(word.replace("_", " "), str(count)) for word, count in found["questions"].items()]
    met = found["bypasses"]
    yield (
        "other ways to ask",
        [
            ("questions to others, led here", str(met["redirected"])),
            ("refused: to port 53", str(met["refused_plain"])),
            ("refused: over TLS", str(met["refused_tls"])),
            ("refused: over HTTPS", str(met["refused_https"])),
            ("open in clear before the name was known", str(met["found_open"])),
        ],
    )
    if found.get("repairs"):
        yield f"removed by others and put back: {found['repairs']} times", []
    yield "the kernel holds" if found["held"] else "the kernel holds nothing of splitwg", [(h,) for h in found["held"]]
    if found["differs"]:
        lines = [line for change in found["differs"] for line in change.splitlines()]
        yield "and that is not as wanted", [(line,) for line in lines]


def _peer(peer: dict[str, Any]) -> tuple[str, ...]:
    age = peer["handshake_age"]
    shake = "no handshake yet" if age is None else f"last handshake {age} s ago"
    where = peer["endpoint"] or "without an address yet"
    return where, shake, f"{_size(peer['received'])} in", f"{_size(peer['sent'])} out"


def _show(sections: list[_Section]) -> None:
    """In columns for a person, and plain for a pipe."""
    if not sys.stdout.isatty():
        for title, rows in sections:
            click.echo(f"\n{title}" + (":" if rows else ""))
            for row in rows:
                click.echo("  " + "  ".join(filter(None, row)))
        return
    from rich.console import Console  # not needed by scripts, and slow to import
    from rich.padding import Padding
    from rich.table import Table as Columns
    from rich.text import Text

    console = Console(highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")
    for title, rows in sections:
        console.print()
        console.print(Text(title, style="bold"))
        columns = Columns.grid(padding=(0, 2))
        for row in rows:
            columns.add_row(*map(Text, row))
        if rows:
            console.print(Padding(columns, (0, 0, 0, 2)))


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")
