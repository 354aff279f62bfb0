"""The command watch: lookups as they happen, and what they do to the sets and the tunnel."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from splitwgd.control import ask
from splitwgd.outcome import plain_errors

_EVERY = 0.5  # seconds between two looks
# The types that people meet (IANA, Resource Record TYPEs).
_TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 64: "SVCB"}
_TYPES |= {65: "HTTPS", 255: "ANY"}
_RCODES = {2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


@click.command()
@plain_errors
def watch() -> None:
    """Lookups as they happen: what was asked, where it went, how it ended; and the tunnel's traffic. q quits."""
    live = sys.stdout.isatty()
    before: dict[str, Any] = {}
    with _keyboard() as quits:
        while True:
            found = ask({"do": "watch"})
            lines = [*map(_lookup, found["lookups"]), *_changes(before, found)]
            if found["missed"]:
                lines.append(f"and {found['missed']} more")
            for line in lines:
                click.echo(f"\r\x1b[K{line}" if live else line)
            if live:
                click.echo(f"\r\x1b[K{click.style(_traffic(before, found), reverse=True)}", nl=False)
            sys.stdout.flush()
            before = found
            if quits():
                break
    if live:
        click.echo()


def _lookup(each: dict[str, Any]) -> str:
    kind = _TYPES.get(each["type"], f"TYPE{each['type']}")
    end = _RCODES.get(each["rcode"]) or (f"{each['records']} records" if each["records"] else "no such record")
    colour = None if each["group"] == "default" else "red" if each["rcode"] == 2 else "green"
    words = f"{kind:<5} {each['name']:<40} {each['group']:<10} {end}, {each['ms']:.0f} ms"
    return click.style(f"{time.strftime('%H:%M:%S')}  {words}", fg=colour)


def _changes(before: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """What has come into the sets."""
    for name, count in found["addresses"].items() if before else ():
        if more := count - before["addresses"].get(name, 0):
            yield f"          {name}: {more:+} addresses, {count} in all"


def _traffic(before: dict[str, Any], found: dict[str, Any]) -> str:
    parts = []
    for link, (received, sent) in found["traffic"].items():
        was = before.get("traffic", {}).get(link, (received, sent))
        rates = [max(now - then, 0) / _EVERY / 1024 for now, then in zip((received, sent), was, strict=True)]
        parts.append(f"{link}: {rates[0]:.1f} KiB/s in, {rates[1]:.1f} KiB/s out")
    return f" {'; '.join(parts)}; {sum(found['addresses'].values())} addresses; q quits "


@contextmanager
def _keyboard() -> Iterator[Callable[[], bool]]:
    """Waits a moment; whether q was pressed meanwhile. A keyboard is read key by key, and left as it was."""
    if not sys.stdin.isatty():
        yield _wait
        return
    keyboard = sys.stdin.fileno()
    was = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield lambda: bool(select.select([keyboard], [], [], _EVERY)[0]) and os.read(keyboard, 1) in (b"q", b"Q", b"")
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, was)


def _wait() -> bool:
    time.sleep(_EVERY)
    return False
