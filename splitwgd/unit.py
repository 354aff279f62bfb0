"""The commands about the service: `log`, and what splitwgd.service calls as root: `reload`, whose end tells how it
went, and `let-go`, which gives the network back when the service is stopped, and only then (docs/decisions/0024)."""

from __future__ import annotations

import os
from contextlib import suppress

import click

from splitwgd.config import load_config
from splitwgd.control import NoDaemon, ask
from splitwgd.errors import ConfigError, MachineError, SplitwgError
from splitwgd.files import Tree
from splitwgd.installing import DAEMON, GUARD
from splitwgd.outcome import plain_errors
from splitwgd.programs import Programs
from splitwgd.removal import remove_from_kernel
from splitwgd.setting_up import Setup
from splitwgd.store import Disk


@click.command()
@click.pass_obj
@plain_errors
def reload(path: str) -> None:
    """Have the daemon read its files again, the WireGuard file too. An error changes nothing.

    The daemon reads domains.toml and its lists by itself as soon as they change. The WireGuard file, which only root
    may read, is handed to it here.
    """
    disk, files = Disk(), {}
    for tunnel in load_config(path, disk).tunnels:
        with suppress(OSError, UnicodeDecodeError):  # then the daemon's own right has to do
            files[tunnel.wireguard.path] = disk.read(tunnel.wireguard.path).decode()
    answer = ask({"do": "reload", "files": files})
    if answer.get("trouble"):
        click.echo(f"reloaded; the tunnel stays closed: {answer['trouble']}", err=True)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on; Ctrl-C ends it.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=1), default=50, show_default=True, help="So many, the last ones."
)
@plain_errors
def log(follow: bool, lines: int) -> None:
    """What splitwgd has written to the journal."""
    journalctl = Programs().has("journalctl")
    if not journalctl:
        raise MachineError("this machine has no journal; splitwgd writes to the standard error of who started it")
    units = (f"--unit={DAEMON}", f"--unit={GUARD}")
    os.execv(journalctl, (journalctl, *units, f"--lines={lines}", *(["--follow"] if follow else ["--no-pager"])))


@click.command("let-go", hidden=True)
@click.pass_obj
@plain_errors
def let_go(path: str) -> None:
    """What stopping the service means: the network is given back, unless routing.on_stop = "closed".

    Not at a restart, at an upgrade or when the machine goes down.
    """
    programs = Programs()
    jobs = programs.run("systemctl", "list-jobs", "--plain", "--no-legend").text
    if not is_stopped(jobs, programs.run("systemctl", "is-system-running").text) or _on_stop(path) != "open":
        return
    try:
        for line in Setup(Tree(), programs).give_back():  # first, while the daemon still answers
            click.echo(line)
    finally:
        remove_from_kernel(path)
    click.echo("this machine's network is as it was before the start")


def is_stopped(jobs: str, state: str) -> bool:
    """Whether somebody stops the service for good, by systemd's list of jobs and its own state. Where it does not say
    so, it is not: what is wrongly left closed can be opened, what is wrongly opened has leaked."""
    found = [line.split()[1:3] for line in jobs.splitlines() if len(line.split()) >= 3]
    return [DAEMON, "stop"] in found and state != "stopping"


def _on_stop(path: str) -> str:
    try:
        return str(ask({"do": "status"})["on_stop"])  # the configuration in force, whatever the file says now
    except NoDaemon:
        try:
            return load_config(path, Disk()).routing.on_stop
        except ConfigError as error:
            raise SplitwgError(f"what is closed stays closed: {error}") from error
