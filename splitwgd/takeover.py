"""How the machine's DNS is led to splitwg: which changes, given who owns the setting (docs/decisions/0022).

Pure: what there is comes as a `Scene`, and what is to be done goes as `changes.Step`s.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from splitwgd.changes import DNS, Change, Deed, File, Step
from splitwgd.errors import Problem
from splitwgd.objects import Ip
from splitwgd.resolvers import STUBS, parse_resolv_conf

RESOLV_CONF = "/etc/resolv.conf"
COPY = "/etc/splitwg/resolv.conf"  # one of `resolvers.SOURCES`
RESOLVED = "/etc/systemd/resolved.conf.d/splitwg.conf"
MANAGER = "/etc/NetworkManager/conf.d/90-splitwg.conf"
# What makes a change of theirs felt. The units call us, and must not wait for a job that waits for them:
# NetworkManager's is not waited for, and resolved's waits for none. That has to end while we still answer: until then
# resolved asks us.
AFTER = {
    RESOLVED: ("systemctl", "--job-mode=ignore-dependencies", "try-reload-or-restart", "systemd-resolved.service"),
    MANAGER: ("systemctl", "--no-block", "reload", "NetworkManager.service"),
}
RECORD = "lo.splitwg"  # resolvconf(8): lo comes before every other link
_OURS = "# Written by `splitwg dns take`; `splitwg dns give-back` brings back what was here before."
_KEPT = ("search", "domain", "options", "sortlist")


@dataclass(frozen=True)
class Scene:
    """Who has a say in this machine's DNS. leads_to: where /etc/resolv.conf is in the end; text: what is there.

    resolvconf: "debian", "openresolv" or "", whichever writes /etc/resolv.conf.
    """

    leads_to: str
    text: str
    resolved: bool = False
    manager: bool = False
    resolvconf: str = ""


def take(scene: Scene, listen: Collection[Ip], redirect: bool, auto: bool) -> list[Step]:
    """What leads the machine's questions to splitwg; what is so already is among it."""
    address = own_address(listen)
    steps: list[Step] = []
    if scene.resolved:
        # Servers that the user gave resolved are those of `auto`; what resolved asks them is led to us.
        steps.append(Change(RESOLVED, File(_resolved_conf(address, reset=not (auto and redirect)).encode()), DNS))
    if scene.resolved and _is_resolveds(scene.leads_to):
        return steps
    if scene.resolvconf:
        metric = " -m 0" if scene.resolvconf == "openresolv" else ""  # Debian's has its order in a file
        return [*steps, Deed("resolvconf", f"{RECORD} {address}{metric}", DNS)]
    if scene.manager:
        steps.append(Change(MANAGER, File(f"{_OURS}\n[main]\ndns=none\n".encode()), DNS))
    if any(server.address not in listen for server in parse_resolv_conf(scene.text)):
        head = f'# What {RESOLV_CONF} said before splitwg; `dns.default = "auto"` reads it.\n'
        steps.append(Change(COPY, File((head + scene.text).encode()), DNS))
    steps.append(Change(RESOLV_CONF, File(resolv_conf(scene.text, address).encode()), DNS))
    return steps


def problems(scene: Scene, listen: Collection[Ip], path: str) -> list[Problem]:
    """Why the DNS cannot be taken with this configuration."""
    if scene.resolved and own_address(listen) in STUBS:
        what = "has nothing but addresses that systemd-resolved never asks"
        return [Problem(f"{path}: dns.listen", what, "add 127.0.0.1")]
    return []


def own_address(listen: Collection[Ip]) -> Ip:
    """Where we are asked: an address that is ours alone, if there is one."""
    return next((address for address in listen if address.is_loopback and address not in STUBS), next(iter(listen)))


def is_ours(text: str) -> bool:
    """Whether a resolv.conf is the one that we wrote."""
    return text.startswith(_OURS)


def resolv_conf(text: str, address: Ip) -> str:
    """resolv.conf(5) with us as the only server, and with the search domains and options that it had.

    Another server behind ours would be asked by whoever is told SERVFAIL, which is what the names of a closed tunnel
    get.
    """
    lines = [line.rstrip() for line in text.splitlines() if line.split()[:1] and line.split()[0] in _KEPT]
    # trust-ad is for a resolver that validates (resolv.conf(5)): we pass on what somebody says who may not.
    lines = [" ".join(word for word in line.split() if word != "trust-ad") for line in lines]
    return "\n".join([_OURS, f"nameserver {address}", *(line for line in lines if line != "options")]) + "\n"


def _resolved_conf(address: Ip, reset: bool) -> str:
    servers = (["DNS="] if reset else []) + [f"DNS={address}"]
    return "\n".join(
        [
            _OURS,
            "[Resolve]",
            *servers,
            "# Every name, but the search domains stay as they are set elsewhere.",
            "Domains=~.",
            "# An answer from its cache could outlive the way into the tunnel.",
            "Cache=no",
            "DNSOverTLS=no",
            "",
        ]
    )


def _is_resolveds(path: str) -> bool:
    return path.startswith("/run/systemd/resolve/") or path.endswith("/lib/systemd/resolv.conf")
