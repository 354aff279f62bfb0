"""splitwg: the client. Asks the daemon over its socket, and does by itself what has to work without one."""

from __future__ import annotations

import functools
import json
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import click

from splitwgd import __version__
from splitwgd.config import DEFAULT_PATH, Config, load_config
from splitwgd.control import NoDaemon, ask
from splitwgd.diff import compare
from splitwgd.errors import ConfigError, SplitwgError
from splitwgd.kernel import Kernel
from splitwgd.names import NameProblem, Pattern, parse_pattern
from splitwgd.owner import Owner
from splitwgd.plan import Plan
from splitwgd.ruleset import TABLE
from splitwgd.status import bypasses
from splitwgd.store import Disk, add_domain, remove_domain

_STOP_PATIENCE = 10.0  # seconds


def _plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """An error is a sentence on stderr and an exit status, never a traceback."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except SplitwgError as error:
            click.echo(f"splitwg: {error}", err=True)
            sys.exit(error.exit_status)

    return run


def _domain(text: str) -> Pattern:
    try:
        return parse_pattern(text)
    except NameProblem as problem:
        raise click.BadParameter(f"{text!r}: {problem.what}; {problem.remedy}") from problem


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="splitwg")
@click.option("--config", "path", default=DEFAULT_PATH, metavar="PATH", help=f"Default: {DEFAULT_PATH}")
@click.pass_context
def main(context: click.Context, path: str) -> None:
    """Chosen domains through WireGuard, and nothing of them any other way.

    Exit status: 0 done, 1 it could not be done, 2 the call or the configuration is wrong.
    """
    context.obj = os.path.abspath(path)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
@_plain_errors
def status(path: str, as_json: bool) -> None:
    """What is wanted, what the kernel holds, and when the last handshake was."""
    try:
        found = ask({"do": "status"})
    except NoDaemon:
        found = _status_without_daemon(path)
    click.echo(json.dumps(found, indent=2) if as_json else _in_words(found))


def _status_without_daemon(path: str) -> dict[str, Any]:
    config = _config_if_any(path)
    with closing(Owner(TABLE)) as owner, closing(Kernel(owner)) as kernel:
        observed = kernel.observe(config)
    held = [str(obj) for obj in observed.plan.objects.values()]
    closed = any(text.startswith("nft table") for text in held)
    return {
        "state": "stopped, closed" if closed else "stopped, open",
        "config": path,
        "tunnels": [],
        "addresses": {},
        "bypasses": bypasses(observed.plan),
        "held": held,
        "differs": [],
        "trouble": "splitwgd does not run",
    }


def _in_words(found: dict[str, Any]) -> str:
    lines = [f"splitwg is {found['state']}" + (f" ({found['trouble']})" if found["trouble"] else "")]
    for tunnel in found["tunnels"]:
        lines.append(
            f"\n{tunnel['link']} (wanted {tunnel['wanted']}): {tunnel['domains']} domains, "
            f"{tunnel['networks']} networks, asked at {', '.join(tunnel['servers'])}"
        )
        for peer in tunnel["peers"]:
            age = peer["handshake_age"]
            shake = "no handshake yet" if age is None else f"last handshake {age} s ago"
            traffic = f"{_size(peer['received'])} in, {_size(peer['sent'])} out"
            lines.append(f"  peer {peer['endpoint'] or 'without an address yet'}: {shake}, {traffic}")
    for set_, count in found["addresses"].items():
        lines.append(f"  {set_}: {count} addresses")
    if "questions" in found:
        counts = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in found["questions"].items())
        lines.append(f"\nquestions: {counts}")
    if met := found.get("bypasses"):
        lines.append(
            f"\nother ways to ask: {met['redirected']} led here; packets refused: {met['refused_plain']} to port 53, "
            f"{met['refused_tls']} over TLS, {met['refused_https']} over HTTPS\n"
            f"connections that were open before the address of a listed name was known: {met['found_open']}"
        )
    lines.append("\nthe kernel holds:" if found["held"] else "\nthe kernel holds nothing of splitwg")
    lines += [f"  {line}" for line in found["held"]]
    if found["differs"]:
        lines.append("\nand that is not as wanted:")
        lines += [f"  {line}" for change in found["differs"] for line in change.splitlines()]
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


@main.command()
@_plain_errors
def down() -> None:
    """Take the link away. The daemon stays, and what is tunneled stays closed."""
    _tell(ask({"do": "down"}), "down: what is tunneled is closed")


@main.command()
@_plain_errors
def up() -> None:
    """Bring the link back."""
    _tell(ask({"do": "up"}), "up")


def _tell(answer: dict[str, Any], done: str) -> None:
    if answer.get("trouble"):
        raise SplitwgError(answer["trouble"])
    click.echo(done)


@main.command()
@click.argument("domains", nargs=-1, required=True, type=_domain, metavar="DOMAIN...")
@click.pass_obj
@_plain_errors
def add(path: str, domains: tuple[Pattern, ...]) -> None:
    """Tunnel these domains from now on."""
    for domain in domains:
        _edit(add_domain, path, domain, "added", "is listed already")
    _have_reloaded()


@main.command()
@click.argument("domains", nargs=-1, required=True, type=_domain, metavar="DOMAIN...")
@click.pass_obj
@_plain_errors
def remove(path: str, domains: tuple[Pattern, ...]) -> None:
    """Tunnel these domains no longer."""
    for domain in domains:
        _edit(remove_domain, path, domain, "removed", "is not listed in this file")
    _have_reloaded()


def _edit(edit: Callable[[str, Pattern], bool], path: str, domain: Pattern, done: str, not_done: str) -> None:
    try:
        changed = edit(path, domain)
    except OSError as error:
        raise SplitwgError(f"{path} cannot be written ({error.strerror}); run as root") from error
    click.echo(f"{domain} {done if changed else not_done}")


def _have_reloaded() -> None:
    try:
        ask({"do": "reload"})
    except NoDaemon:
        click.echo("splitwgd does not run: it will be so when it starts")


@main.command("list")
@click.pass_obj
@_plain_errors
def list_(path: str) -> None:
    """The domains and networks that are tunneled."""
    for tunnel in load_config(path, Disk()).tunnels:
        listed = sorted(map(str, tunnel.listed), key=lambda text: text.lstrip("!=*."))
        for entry in dict.fromkeys((*map(str, tunnel.patterns), *listed, *map(str, tunnel.networks))):
            click.echo(entry)


@main.command()
@click.argument("of", metavar="NAME|ADDRESS")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@_plain_errors
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
        if not each["tunnel"]:
            yield f"  {each['address']} is not tunneled" + (f": {', '.join(each['plain'])}" if each["plain"] else "")
            continue
        network = [f"it is in {each['network']}, which is listed"] if each["network"] else []
        names = [*each["names"], *(["others"] if each["more"] else [])]
        held = [f"{', '.join(names)} led to it, for {_time(each['seconds'])} more"] if names else []
        yield f"  {each['address']} is tunneled through {each['tunnel']}: {'; '.join(network + held)}"
        if each["plain"]:
            yield f"    and so, for those who go there, are {', '.join(each['plain'])}: not listed, on the same address"


def _time(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"


@main.command()
@click.pass_obj
@_plain_errors
def teardown(path: str) -> None:
    """Remove everything that splitwg put into the kernel. Ends the daemon. Safe to run twice."""
    try:
        _wait_for_end_of(ask({"do": "teardown"})["pid"])
    except NoDaemon:
        pass
    with closing(Owner(TABLE)) as owner, closing(Kernel(owner)) as kernel:
        observed = kernel.observe(_config_if_any(path))
        kernel.shrink(compare(Plan.empty(), observed.plan))
        left = kernel.observe(None).plan
    if left.objects:
        raise SplitwgError(f"still there:\n{left}")
    click.echo("nothing of splitwg is left in the kernel")


def _wait_for_end_of(pid: int) -> None:
    """Two that remove the same things at once would stumble over each other."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([process], [], [], _STOP_PATIENCE)
    finally:
        os.close(process)
    if not ended:
        raise SplitwgError(f"splitwgd (pid {pid}) was told to stop and still runs after {_STOP_PATIENCE:.0f} s")


def _config_if_any(path: str) -> Config | None:
    try:
        return load_config(path, Disk())
    except ConfigError:
        return None  # what is ours is known by the kernel's own marks
