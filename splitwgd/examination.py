"""Looks at everything that `findings` judges. Changes nothing, and goes on without root as far as it can."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

from splitwgd.changes import Record
from splitwgd.config import Config
from splitwgd.control import NoDaemon, ask
from splitwgd.errors import MachineError, SplitwgError
from splitwgd.files import Tree
from splitwgd.findings import Seen
from splitwgd.foreign import foreign_routes, foreign_rules, link_mtus, marks_of_wireguards
from splitwgd.holder import holders
from splitwgd.machine import kernel_trouble, scene, wireguard_trouble
from splitwgd.netlink import Netlink
from splitwgd.nft import Nft
from splitwgd.programs import Programs
from splitwgd.recorder import Recorder
from splitwgd.routing import Routing
from splitwgd.ruleset import TABLE
from splitwgd.store import state_path
from splitwgd.sysctls import is_strict_now
from splitwgd.takeover import RESOLVED

_POLICIES = (
    "/etc/firefox/policies/policies.json",
    "/usr/lib/firefox*/distribution/policies.json",
    "/etc/chromium/policies/managed/*.json",
    "/etc/chromium-browser/policies/managed/*.json",
    "/etc/opt/chrome/policies/managed/*.json",
    "/etc/opt/edge/policies/managed/*.json",
    "/etc/brave/policies/managed/*.json",
)
_CLOCKS = ("/var/lib/systemd/timesync/clock", "/var/log/wtmp", "/etc/machine-id")  # written at a time that has passed


def look_around(tree: Tree, programs: Programs, config: Config | None) -> Seen:
    """This machine, now."""
    stage = scene(tree, programs)
    running, trouble = _daemon()
    routing = config.routing if config else Routing()
    links = link_mtus()
    tunnels = [tunnel.link for tunnel in config.tunnels] if config else []
    mtus = [links[link] for link in tunnels if link in links]
    return Seen(
        resolv_conf=stage.text,
        nsswitch=tree.text("/etc/nsswitch.conf"),
        resolved=stage.resolved,
        resolved_is_ours="Cache=no" in tree.text(RESOLVED),
        manager=stage.manager,
        running=running,
        trouble=trouble,
        unfinished=_is_unfinished(tree, programs),
        holders=holders(53),
        links=links,
        tunnel_mtu=mtus[0] if mtus else None,
        uplink_mtu=_uplink_mtu(routing),
        strict=any(is_strict_now(link) for link in tunnels if link in links),
        rules=foreign_rules(),
        routes=foreign_routes(routing.table),
        wireguards=marks_of_wireguards(tunnels),
        ruleset=_ruleset(),
        policies=dict(_policies(tree)),
        kernel=kernel_trouble(),
        wireguard=wireguard_trouble(tree, programs),
        now=time.time(),
        newest=_newest(tree, config),
    )


def _daemon() -> tuple[bool, str]:
    """Whether it runs, and what is the matter with it."""
    try:
        return True, str(ask({"do": "status"}).get("trouble") or "")
    except NoDaemon:
        return False, ""
    except SplitwgError:  # it is there, and only others may ask it
        return True, ""


def _is_unfinished(tree: Tree, programs: Programs) -> bool:
    try:
        return any(isinstance(entry, Record) and not entry.made for entry in Recorder(tree, programs, {}).book())
    except MachineError:
        return False  # not ours to read


def _uplink_mtu(routing: Routing) -> int | None:
    try:
        with closing(Netlink()) as netlink:
            return netlink.uplink_mtu(None, routing.direct)
    except (SplitwgError, OSError):
        return None


def _ruleset() -> dict[str, Any] | None:
    try:
        with closing(Nft()) as nft:
            return nft.list_others(TABLE)
    except SplitwgError:
        return None


def _policies(tree: Tree) -> Iterator[tuple[str, str]]:
    for pattern in _POLICIES:
        for path in sorted(glob.glob(tree.real(pattern))):
            name = path.removeprefix(tree.root.rstrip("/"))
            yield name, tree.text(name)


def _newest(tree: Tree, config: Config | None) -> float:
    files = [path for path in config.files if not glob.has_magic(path)] if config else []
    found = [0.0]
    for path in (*files, *_CLOCKS, state_path()):
        with suppress(OSError):
            found.append(os.stat(tree.real(path)).st_mtime)
    return max(found)
