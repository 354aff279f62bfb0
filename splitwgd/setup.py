"""The commands that change this machine's files, and change them back: setup, revert, dns take, dns give-back."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from types import FrameType

import click

from splitwgd.errors import MachineError
from splitwgd.files import Tree
from splitwgd.installing import DOMAINS, FOLDER
from splitwgd.outcome import plain_errors
from splitwgd.programs import Programs
from splitwgd.setting_up import Setup


def _setup() -> Setup:
    return Setup(Tree(), Programs())


def _need_root(what: str) -> None:
    if os.geteuid():
        raise MachineError(f"{what} changes files of root's; run it as root (sudo splitwg {what})")


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        old, new = line.startswith("    - "), line.startswith("    + ")
        click.secho(line, fg="red" if old else "green" if new else None)  # without colours where it is no terminal


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


@click.command()
@click.argument("wg_conf", required=False, type=click.Path(dir_okay=False))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
@plain_errors
def setup(path: str, wg_conf: str | None, yes: bool) -> None:
    """Set this machine up: configuration, service at boot, and its DNS.

    WG_CONF is the wg-quick file of your VPN; by default the one that was set up before, or /etc/wireguard/wg0.conf.
    Shows what it will change, and asks. Safe to run twice; `splitwg revert` takes all of it back.
    """
    if path != DOMAINS:
        raise click.UsageError(f"the service reads {DOMAINS}, and setup makes that one; leave --config out")
    _need_root("setup")
    setting_up = _setup()
    prepared = setting_up.prepare(wg_conf)
    if not prepared.shown:
        click.echo("everything is set up already")
        return
    for note in prepared.notes:
        click.echo(f"note: {note}", err=True)
    _say(prepared.shown)
    if not yes:
        _confirm("do this?")
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        setting_up.carry_out(prepared)  # a signal is as Ctrl-C: what was done is taken back
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    click.echo(f"splitwgd runs, and this machine asks it. {DOMAINS} says what is tunneled; it is read again at once.")


@click.command()
@click.option("--purge", is_flag=True, help=f"Remove {FOLDER} and what was learned, too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@plain_errors
def revert(purge: bool, yes: bool) -> None:
    """Bring this machine back to what it was before setup, byte for byte.

    Also after a setup that was interrupted. Your configuration stays, unless --purge. Safe to run twice.
    """
    _need_root("revert")
    setting_up = _setup()
    if not purge and not setting_up.recorder.is_set_up:
        click.echo("this machine is not set up: there is nothing to bring back")
        return
    if not yes:
        _confirm(f"bring everything back{f', and remove {FOLDER}' if purge else ''}?")
    _say(setting_up.revert(purge))
    click.echo("this machine is as it was before setup" + ("" if purge else f", but for {FOLDER}"))


def _confirm(question: str) -> None:
    try:
        click.confirm(question, abort=True)
    except click.Abort as error:
        raise MachineError("nothing was changed (--yes answers yes)") from error


@click.group()
def dns() -> None:
    """Lead this machine's DNS to splitwg, or back. The service does it by itself."""


@dns.command()
@plain_errors
def take() -> None:
    """Lead this machine's DNS to splitwg.

    Does nothing on a machine that was never set up. Safe to run twice.
    """
    _need_root("dns take")
    _say(_setup().take())


@dns.command("give-back")
@plain_errors
def give_back() -> None:
    """Lead this machine's DNS where it went before. Safe to run twice."""
    _need_root("dns give-back")
    _say(_setup().give_back())
