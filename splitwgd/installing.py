"""What `splitwg setup` puts on a machine, and why it cannot: decided from what was seen of it.

Which files there are to be is said here; that they are put so that all can be undone is `recorder`'s.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from posixpath import join
from typing import Any

from splitwgd.changes import CONFIGURATION, UNITS, Change, Deed, File, Step

FOLDER = "/etc/splitwg"
DOMAINS, WIREGUARD = f"{FOLDER}/domains.toml", f"{FOLDER}/wg0.conf"
USUAL_WIREGUARD = "/etc/wireguard/wg0.conf"
DAEMON, GUARD = "splitwgd.service", "splitwgd-guard.service"
USERS = "splitwg.sysusers"
UNIT_FOLDER = "/etc/systemd/system"
PACKAGED = ("/usr/lib/systemd/system", "/lib/systemd/system")
# What makes new units known.
AFTER = {f"{UNIT_FOLDER}/{unit}": ("systemctl", "daemon-reload") for unit in (DAEMON, GUARD)}
_PROGRAMS = "/usr/bin/splitwg"  # what the units call begins so
_THROUGH = "9.9.9.9"  # asked through the tunnel where the VPN names no server of its own: it is reachable from anywhere


@dataclass(frozen=True)
class Machine:
    """What setup has to know of a machine. The texts are sentences about what is wrong, or empty.

    packaged: a package brought the units. enabled: those that start at boot already. user: whether there is the one
    that the daemon runs as. programs: the directory of splitwgd, if it was found.
    """

    root: bool = True
    systemd: bool = True
    kernel: str = ""
    wireguard: str = ""
    taken: tuple[str, ...] = ()
    packaged: bool = False
    enabled: frozenset[str] = frozenset()
    user: bool = False
    programs: str = "/usr/bin"


def hindrances(machine: Machine) -> list[str]:
    """Everything that has to be mended before, each a sentence with its remedy."""
    if not machine.root:
        return ["setup changes files of root's; run it as root (sudo splitwg setup)"]
    found = []
    if not machine.systemd:
        found.append(
            "this machine does not run systemd, which setup hands splitwgd to; write the configuration "
            f"({DOMAINS}), and have your own service manager run splitwgd"
        )
    found += [text for text in (machine.kernel, machine.wireguard, *machine.taken) if text]
    if not machine.programs:
        found.append("the program splitwgd is not in PATH; install it, or link it into /usr/bin")
    return found


def configuration(domains: str, wireguard: bytes) -> list[Step]:
    """The two files of the user's."""
    return [
        Change(WIREGUARD, File(wireguard, 0o600), CONFIGURATION),
        Change(DOMAINS, File(domains.encode()), CONFIGURATION),
    ]


def service(machine: Machine, texts: Mapping[str, str]) -> list[Step]:
    """User, units and their start at boot. texts: the files that a package would have brought, by their names."""
    steps: list[Step] = []
    if not machine.packaged:
        steps.append(Change("/etc/sysusers.d/splitwg.conf", File(texts[USERS].encode()), UNITS))
        for unit in (GUARD, DAEMON):
            text = texts[unit].replace(_PROGRAMS, f"{machine.programs}/splitwg")
            steps.append(Change(f"{UNIT_FOLDER}/{unit}", File(text.encode()), UNITS))
    if not machine.user:
        steps.insert(1, Deed("user", "splitwg", UNITS))
    # What was enabled before is not ours to disable.
    return [*steps, *(Deed("enable", unit, UNITS) for unit in (GUARD, DAEMON) if unit not in machine.enabled)]


def settings(wireguard: str, auto: bool) -> dict[str, Any]:
    """The values that a new domains.toml gets, by key. auto: the network names servers of its own."""
    servers = vpn_servers(wireguard) or [_THROUGH]
    return {"dns.tunneled": servers, "wireguard.config": WIREGUARD} | ({"dns.default": "auto"} if auto else {})


def vpn_servers(text: str) -> list[str]:
    """The servers of the DNS lines of a wg-quick file; search domains, which may stand there, too, are none."""
    found = []
    for line in text.splitlines():
        key, _, value = line.partition("#")[0].partition("=")
        if key.strip().lower() == "dns":
            found += [word.strip() for word in value.split(",")]
    return [word for word in dict.fromkeys(found) if _is_address(word)]


def named_wireguard(domains: bytes) -> str:
    """The wg-quick file that a domains.toml names; nothing where it names none, or cannot be read."""
    try:
        named = tomllib.loads(domains.decode("utf-8-sig"))["wireguard"]["config"]
    except (ValueError, KeyError, TypeError):
        return ""
    return join(FOLDER, named) if isinstance(named, str) else ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
