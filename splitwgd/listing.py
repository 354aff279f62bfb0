"""The commands of the list: add, remove, list, import."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from splitwgd.config import load_config
from splitwgd.control import NoDaemon, ask
from splitwgd.errors import ConfigError, Problem, SplitwgError
from splitwgd.importing import Imported, Listed, read_list
from splitwgd.names import NameProblem, Pattern, parse_pattern, to_text
from splitwgd.outcome import plain_errors
from splitwgd.store import Disk, add_domains, remove_domain

_SHOWN = 20  # domains whose addresses are told, and lines that were not taken
_TOO_MANY = 5000  # for a file that people edit


class _Domain(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic from click 8.4 on
    name = "domain"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Pattern:
        try:
            return parse_pattern(value)
        except NameProblem as problem:
            self.fail(f"{value!r}: {problem.what}; {problem.remedy}", param, ctx)


_domains = click.argument("domains", nargs=-1, required=True, type=_Domain(), metavar="DOMAIN...")


@click.command()
@_domains
@click.pass_obj
@plain_errors
def add(path: str, domains: tuple[Pattern, ...]) -> None:
    """Tunnel these domains from now on.

    example.com is itself and all below it, =example.com only itself, *.example.com only what is below; with ! before
    it, it is an exception. The file keeps its comments.
    """
    done = _written(path, [Listed(domain) for domain in domains])
    for domain, added in zip(domains, done, strict=True):
        click.echo(f"{domain} {'added' if added else 'is listed already'}")
    _have_reloaded(domain for domain, added in zip(domains, done, strict=True) if added)


@click.command()
@_domains
@click.pass_obj
@plain_errors
def remove(path: str, domains: tuple[Pattern, ...]) -> None:
    """Tunnel these domains no longer. The file keeps its comments."""
    for domain in domains:
        try:
            removed = remove_domain(path, domain)
        except OSError as error:
            raise _unwritable(path, error) from error
        click.echo(f"{domain} {'removed' if removed else 'is not listed in this file'}")
    _have_reloaded(())


@click.command("list")
@click.pass_obj
@plain_errors
def list_(path: str) -> None:
    """The domains and networks that are tunneled."""
    for tunnel in load_config(path, Disk()).tunnels:
        listed = sorted(map(str, tunnel.listed), key=lambda text: text.lstrip("!=*."))
        for entry in dict.fromkeys((*map(str, tunnel.patterns), *listed, *map(str, tunnel.networks))):
            click.echo(entry)


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True), metavar="FILE...")
@click.pass_obj
@plain_errors
def import_(path: str, files: tuple[str, ...]) -> None:
    """Add the domains of other programs' lists; - is standard input.

    Plain lists, hosts files, dnsmasq's server=, nftset= and ipset= lines, v2fly's domain lists and the article's
    domains.toml, also mixed. Lines that are not taken are told. Exit status: 1 if no domain was found.
    """
    found: dict[Pattern, Listed] = {}
    for file in files:
        for listed in _read(file, set()):
            found.setdefault(listed.pattern, listed)
    if not found:
        raise SplitwgError("no domain was found")
    if len(found) > _TOO_MANY:
        what = f"{len(found)} domains are too many for a file that people read"
        raise SplitwgError(f'{what}; leave them in a list, and name that: lists = ["/path/of/it"] under [tunneled]')
    done = _written(path, list(found.values()))
    click.echo(f"{sum(done)} added, {len(done) - sum(done)} listed already")
    _have_reloaded(pattern for pattern, added in zip(found, done, strict=True) if added)


def _read(file: str, seen: set[str]) -> list[Listed]:
    """Also what a list of v2fly's includes, from the same folder."""
    seen.add(file)
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_bytes().decode()
    except OSError as error:
        raise ConfigError([Problem(file, f"cannot be read ({error.strerror})", "check the path")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(file, "is no text", "give a list of domains")]) from error
    found = read_list(text)
    _tell_skipped(file, found)
    listed = found.listed
    for name in found.includes:
        other = os.path.join(os.path.dirname(file), os.path.basename(name))
        if other not in seen:
            listed += _read(other, seen)
    return listed


def _tell_skipped(file: str, found: Imported) -> None:
    for skipped in found.skipped[:_SHOWN]:
        click.echo(f"{file}:{skipped.line}: not taken: {skipped.text!r}: {skipped.why}", err=True)
    if len(found.skipped) > _SHOWN:
        click.echo(f"{file}: and {len(found.skipped) - _SHOWN} lines more", err=True)


def _written(path: str, listed: list[Listed]) -> list[bool]:
    try:
        return add_domains(path, [(each.pattern, each.comment) for each in listed])
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: str, error: OSError) -> SplitwgError:
    return SplitwgError(f"{path} cannot be written ({error.strerror}); run as root")


def _have_reloaded(added: Iterable[Pattern]) -> None:
    """Has the daemon read it, and tells what that means for these."""
    try:
        ask({"do": "reload"})
        for pattern in [pattern for pattern in added if not pattern.exception][:_SHOWN]:
            addresses = ask({"do": "why", "of": to_text(pattern.name)}).get("addresses", [])
            count = sum(1 for address in addresses if address["tunnel"])
            told = f"{count} address{'es' * (count != 1)}" if count else "its addresses when it is looked up"
            click.echo(f"{pattern} is tunneled now: {told}")
    except NoDaemon:
        click.echo("splitwgd does not run: it will be so when it starts")
