"""Finds out which process and unit holds a port, by /proc, so that an error can name it. Changes nothing."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from pathlib import Path

from splitwgd.findings import Holder
from splitwgd.objects import Ip

_LISTENING = "0A"  # TCP_LISTEN, include/net/tcp_states.h
_REMEDIES = {
    "systemd-resolved": "set DNSStubListener=no in /etc/systemd/resolved.conf.d/ and restart systemd-resolved",
    "dnsmasq": "stop it, or give it other addresses (listen-address=, bind-interfaces)",
    "splitwgd": "splitwgd runs already; stop that one first",
}


def holder_of(address: Ip, port: int, kind: socket.SocketKind) -> str:
    """One sentence: who has it, and what to do."""
    inodes = _inodes(address, port, kind)
    for process in _processes():
        if inodes & _sockets_of(process):
            name = _text(process / "comm") or "a process"
            unit = _unit(process)
            who = f"{name} (pid {process.name}{f', {unit}' if unit else ''})"
            words = f"{_text(process / 'cmdline')} {name}"
            remedy = next((text for key, text in _REMEDIES.items() if key in words), None)
            return f"taken by {who}; {remedy or f'stop it (systemctl stop {unit})' if unit else remedy or 'stop it'}"
    return "taken by a process that cannot be seen from here; look as root with `ss -lnup` and `ss -lntp`"


def holders(port: int) -> tuple[Holder, ...] | None:
    """Everybody who has this port, without a name where that cannot be seen; None where nothing can be."""
    found: dict[str, tuple[Ip, str]] = {}
    try:
        for transport in ("udp", "tcp"):
            for suffix in ("", "6"):
                for line in Path(f"/proc/net/{transport}{suffix}").read_text().splitlines()[1:]:
                    fields = line.split()
                    local, _, local_port = fields[1].partition(":")
                    if int(local_port, 16) == port and (transport == "udp" or fields[3] == _LISTENING):
                        found[fields[9]] = (_address(local), transport.upper())
    except FileNotFoundError:
        pass  # this machine does without IPv6
    except OSError:
        return None
    owners = {inode: process for process in _processes() for inode in _sockets_of(process) & found.keys()}
    return tuple(
        Holder(address, transport, *(_names(owners[inode]) if inode in owners else ()))
        for inode, (address, transport) in found.items()
    )


def _names(process: Path) -> tuple[str, int, str]:
    words = _text(process / "cmdline")
    name = next((known for known in _REMEDIES if known in words), "") or _text(process / "comm")
    return name or "a process", int(process.name), _unit(process)


def _address(text: str) -> Ip:
    """As /proc/net has it: in words of the machine's own byte order."""
    return ip_address(b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)))


def _inodes(address: Ip, port: int, kind: socket.SocketKind) -> set[str]:
    transport = "udp" if kind == socket.SOCK_DGRAM else "tcp"
    packed = address.packed
    words = [packed[start : start + 4][::-1].hex().upper() for start in range(0, len(packed), 4)]
    wanted = {"".join(words), "0" * len(words) * 8}  # this address, or all of them
    inodes = set()
    for suffix, length in (("", 8), ("6", 32)):
        for line in _text(Path(f"/proc/net/{transport}{suffix}")).splitlines()[1:]:
            fields = line.split()
            local, _, local_port = fields[1].partition(":")
            listening = transport == "udp" or fields[3] == _LISTENING
            if int(local_port, 16) == port and listening and (local in wanted or local == "0" * length):
                inodes.add(fields[9])
    return inodes


def _processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def _sockets_of(process: Path) -> set[str]:
    inodes: set[str] = set()
    try:
        descriptors = os.listdir(process / "fd")
    except OSError:
        return inodes  # it has ended, or is not ours to look at
    for descriptor in descriptors:
        try:
            target = os.readlink(process / "fd" / descriptor)
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    return inodes


def _unit(process: Path) -> str:
    """The systemd unit, from the cgroup's path (cgroups(7))."""
    for line in _text(process / "cgroup").splitlines():
        for part in reversed(line.split("/")):
            if part.endswith(".service"):
                return part
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
