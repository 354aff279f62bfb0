"""WireGuard in userspace: runs wireguard-go or boringtun-cli as a child, and speaks to it over its socket.

The protocol is WireGuard's cross-platform one (wireguard.com/xplatform). The child outlives us on purpose:
a tunnel that carries somebody's download need not break because its keeper is restarted.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from ipaddress import ip_network

from splitwgd.errors import KernelError, MachineError
from splitwgd.objects import Device, Endpoint, Peer, PeerState
from splitwgd.wgconf import parse_endpoint

SOCKETS = "/var/run/wireguard"
_PROGRAMS = (("wireguard-go", "-f"), ("boringtun-cli", "-f"))
_START_PATIENCE = 5.0  # seconds


class Uapi:
    """The children that we started, and every link that answers on a socket."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []

    def make(self, link: str) -> None:
        """Starts a child that makes the link. Raises MachineError when there is no program for it."""
        self.reap()
        program = next((p for p in _PROGRAMS if shutil.which(p[0])), None)
        if program is None:
            raise MachineError(
                "this kernel has no WireGuard, and neither wireguard-go nor boringtun-cli is installed; "
                "install one of them (apt install wireguard-go)"
            )
        with tempfile.TemporaryFile() as said:
            # A session of its own: Ctrl-C in our terminal is not meant for the tunnel.
            child = subprocess.Popen(
                [*program, link],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                # WG_SUDO: boringtun must keep the right to mark its packets (it drops privileges otherwise).
                env={**os.environ, "LOG_LEVEL": "error", "WG_SUDO": "1"},
                start_new_session=True,
            )
            deadline = time.monotonic() + _START_PATIENCE
            while not self.answers(link):
                if child.poll() is not None or time.monotonic() > deadline:
                    child.kill()
                    child.wait()
                    said.seek(0)
                    words = said.read().decode(errors="replace").strip().splitlines()
                    reason = words[-1] if words else "it said nothing"
                    raise KernelError(f"{program[0]} {link} did not start: {reason}")
                time.sleep(0.01)
        self._children.append(child)

    def reap(self) -> None:
        """Collects children that have ended, so that none stays a zombie."""
        # One whose link is gone may still be ending while its successor runs: it is collected next time.
        self._children = [child for child in self._children if child.poll() is None]

    def answers(self, link: str) -> bool:
        """Whether a userspace WireGuard listens for this link."""
        try:
            _talk(link, "get=1\n\n")
        except KernelError:
            return False
        return True

    def configure(self, device: Device, found: Device | None) -> None:
        """Makes the device so; peers that stay as they are keep their sessions."""
        lines = ["set=1"]
        if found is None or found.private_key != device.private_key:
            lines.append(f"private_key={device.private_key.hex()}")
        if device.listen_port and (found is None or found.listen_port != device.listen_port):
            lines.append(f"listen_port={device.listen_port}")
        lines.append(f"fwmark={device.fwmark}")
        before = found.peers if found else frozenset()
        kept = {peer.public_key for peer in device.peers}
        for peer in before:
            if peer.public_key not in kept:
                lines += [f"public_key={peer.public_key.hex()}", "remove=true"]
        for peer in device.peers - before:
            lines += _peer_lines(peer)
        _talk(device.link, "\n".join(lines) + "\n\n")

    def mark(self, link: str, mark: int) -> None:
        """The fwmark of the outer packets; 0 for none."""
        _talk(link, f"set=1\nfwmark={mark}\n\n")

    def aim(self, link: str, public_key: bytes, endpoint: Endpoint) -> None:
        """Where this peer is reached from now on. The endpoint's host is an address."""
        _talk(link, f"set=1\npublic_key={public_key.hex()}\nupdate_only=true\nendpoint={endpoint}\n\n")

    def read(self, link: str) -> tuple[Device, list[PeerState]]:
        """The device as it is. Raises KernelError when nothing answers."""
        return _parse(link, _talk(link, "get=1\n\n"))


def _peer_lines(peer: Peer) -> Iterable[str]:
    yield f"public_key={peer.public_key.hex()}"
    yield f"preshared_key={(peer.preshared_key or bytes(32)).hex()}"
    if peer.endpoint is not None:
        yield f"endpoint={peer.endpoint}"
    yield f"persistent_keepalive_interval={peer.keepalive}"
    yield "replace_allowed_ips=true"
    for network in sorted(peer.allowed, key=str):
        yield f"allowed_ip={network}"


def _talk(link: str, request: str) -> list[tuple[str, str]]:
    """One request, and the answer's key=value lines."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(2.0)
        try:
            sock.connect(f"{SOCKETS}/{link}.sock")
            sock.sendall(request.encode())
            answer = b""
            while not answer.endswith(b"\n\n"):
                part = sock.recv(65536)
                if not part:
                    break
                answer += part
        except OSError as error:
            raise KernelError(f"{link}: its userspace WireGuard does not answer ({error})") from error
    values = [(key, value) for key, _, value in (line.partition("=") for line in answer.decode().splitlines()) if key]
    if ("errno", "0") not in values:
        raise KernelError(f"{link}: its userspace WireGuard refused: {values}")
    return values


def _parse(link: str, values: list[tuple[str, str]]) -> tuple[Device, list[PeerState]]:
    device = {"private_key": "", "listen_port": "0", "fwmark": "0"}
    peers: list[dict[str, str]] = []
    allowed: list[list[str]] = []
    for key, value in values:
        if key == "public_key":
            peers.append({"public_key": value})
            allowed.append([])
        elif key == "allowed_ip":
            allowed[-1].append(value)
        elif peers:
            peers[-1][key] = value
        else:
            device[key] = value
    found = Device(
        link,
        bytes.fromhex(device["private_key"]),
        int(device["listen_port"]),
        int(device["fwmark"], 0),
        frozenset(_peer(peer, networks) for peer, networks in zip(peers, allowed, strict=True)),
    )
    return found, [_state(peer) for peer in peers]


def _peer(values: dict[str, str], networks: list[str]) -> Peer:
    preshared = bytes.fromhex(values.get("preshared_key", ""))
    return Peer(
        bytes.fromhex(values["public_key"]),
        preshared if any(preshared) else None,
        frozenset(ip_network(network) for network in networks),
        int(values.get("persistent_keepalive_interval", "0")),
        parse_endpoint(values["endpoint"]) if "endpoint" in values else None,
    )


def _state(values: dict[str, str]) -> PeerState:
    return PeerState(
        bytes.fromhex(values["public_key"]),
        parse_endpoint(values["endpoint"]) if "endpoint" in values else None,
        int(values.get("last_handshake_time_sec", "0")),
        int(values.get("rx_bytes", "0")),
        int(values.get("tx_bytes", "0")),
    )
