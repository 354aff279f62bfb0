"""Takes everything of splitwg out of the kernel, whether a daemon runs or not."""

from __future__ import annotations

import os
import select
from contextlib import closing

from splitwgd.config import Config, load_config
from splitwgd.control import NoDaemon, ask
from splitwgd.diff import compare
from splitwgd.errors import ConfigError, SplitwgError
from splitwgd.kernel import Kernel
from splitwgd.owner import Owner
from splitwgd.plan import Plan
from splitwgd.ruleset import TABLE
from splitwgd.store import Disk

_STOP_PATIENCE = 10.0  # seconds


def remove_from_kernel(path: str) -> None:
    """Ends the daemon, if there is one, and removes what it or another one left. path: the configuration's.

    Raises SplitwgError with what is still there.
    """
    try:
        _wait_for_end_of(ask({"do": "teardown"})["pid"])
    except NoDaemon:
        pass
    with closing(Owner(TABLE)) as owner, closing(Kernel(owner)) as kernel:
        observed = kernel.observe(config_if_any(path))
        kernel.shrink(compare(Plan.empty(), observed.plan))
        left = kernel.observe(None).plan
    if left.objects:
        raise SplitwgError(f"still there:\n{left}")


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


def config_if_any(path: str) -> Config | None:
    """The configuration, or None where there is none that can be read: what is ours is known by the kernel's marks."""
    try:
        return load_config(path, Disk())
    except ConfigError:
        return None
