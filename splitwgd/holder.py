"""Finds out which process and unit holds a port, by /proc, so that an error can name it. Changes nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from splitwgd.objects import Ip

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
    return "taken by a process that cannot be seen from here; look with `ss -lnup` and `ss -lntp`"


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
            listening = transport == "udp" or fields[3] == "0A"
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
