"""How a command of the client ends: an error is a sentence and an exit status, never a traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from splitwgd.errors import SplitwgError


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Errors of ours go to stderr, a line each."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except SplitwgError as error:
            for line in str(error).splitlines():
                click.echo(f"splitwg: {line}", err=True)
            sys.exit(error.exit_status)

    return run
