"""WireGuard in the kernel, over generic netlink. Makes no link (that is `netlink`) and resolves no names."""

from __future__ import annotations

import contextlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from pyroute2 import WireGuard
from pyroute2.netlink.exceptions import NetlinkError

from splitwgd.errors import KernelError
from splitwgd.objects import Device, Endpoint, Peer, PeerState

_ALLOWED_AT_ONCE = 500


class KernelWireGuard:
    """The devices of kind `wireguard`. Used by one thread."""

    def configure(self, device: Device, found: Device | None) -> None:
        """Makes the device so; peers that stay as they are keep their sessions."""
        head: dict[str, Any] = {"fwmark": device.fwmark}
        if found is None or found.private_key != device.private_key:
            head["private_key"] = b64encode(device.private_key).decode()
        if device.listen_port and (found is None or found.listen_port != device.listen_port):
            head["listen_port"] = device.listen_port
        before = found.peers if found else frozenset()
        kept = {peer.public_key for peer in device.peers}
        with _socket(device.link) as wireguard:
            wireguard.set(device.link, **head)
            for peer in before:
                if peer.public_key not in kept:
                    wireguard.set(device.link, peer={"public_key": _text(peer.public_key), "remove": True})
            for peer in device.peers - before:
                for settings in _peer_settings(peer):
                    wireguard.set(device.link, peer=settings)

    def mark(self, link: str, mark: int) -> None:
        """The fwmark of the outer packets; 0 for none."""
        with _socket(link) as wireguard:
            wireguard.set(link, fwmark=mark)

    def aim(self, link: str, public_key: bytes, endpoint: Endpoint) -> None:
        """Where this peer is reached from now on. The endpoint's host is an address."""
        peer = {"public_key": _text(public_key), "update_only": True, **_endpoint_settings(endpoint)}
        with _socket(link) as wireguard:
            wireguard.set(link, peer=peer)

    def read(self, link: str) -> tuple[Device, list[PeerState]]:
        """The device as it is."""
        with _socket(link) as wireguard:
            messages = list(wireguard.info(link))
        if not messages:
            raise KernelError(f"{link}: the kernel knows no such WireGuard device")
        # A device with many peers comes in several messages, and a peer may be split over two of them.
        peers: dict[bytes, dict[str, Any]] = {}
        networks: dict[bytes, set[Any]] = {}
        for message in messages:
            for found in message.get_attr("WGDEVICE_A_PEERS") or ():
                key = b64decode(found.get_attr("WGPEER_A_PUBLIC_KEY"))
                peers.setdefault(key, found)
                allowed = found.get_attr("WGPEER_A_ALLOWEDIPS") or ()
                networks.setdefault(key, set()).update(ip_network(entry["addr"]) for entry in allowed)
        head = messages[0]
        device = Device(
            link,
            b64decode(head.get_attr("WGDEVICE_A_PRIVATE_KEY") or b""),
            head.get_attr("WGDEVICE_A_LISTEN_PORT") or 0,
            head.get_attr("WGDEVICE_A_FWMARK") or 0,
            frozenset(_peer(key, found, networks[key]) for key, found in peers.items()),
        )
        return device, [_state(key, found) for key, found in peers.items()]


@contextlib.contextmanager
def _socket(link: str) -> Iterator[Any]:
    try:
        with WireGuard() as wireguard:
            yield wireguard
    except NetlinkError as error:
        raise KernelError(f"{link}: the kernel's WireGuard refused: {error.args[-1]}") from error


def _text(key: bytes) -> str:
    return b64encode(key).decode()


def _peer_settings(peer: Peer) -> Iterator[dict[str, Any]]:
    """In one message, or in more where AllowedIPs would not fit into its 64 KiB."""
    allowed = sorted(str(network) for network in peer.allowed)
    settings: dict[str, Any] = {
        "public_key": _text(peer.public_key),
        "preshared_key": _text(peer.preshared_key or bytes(32)),
        "persistent_keepalive": peer.keepalive,
        "replace_allowed_ips": True,
        "allowed_ips": allowed[:_ALLOWED_AT_ONCE],
    }
    if peer.endpoint is not None:
        settings.update(_endpoint_settings(peer.endpoint))
    yield settings
    for start in range(_ALLOWED_AT_ONCE, len(allowed), _ALLOWED_AT_ONCE):
        yield {"public_key": settings["public_key"], "allowed_ips": allowed[start : start + _ALLOWED_AT_ONCE]}


def _endpoint_settings(endpoint: Endpoint) -> dict[str, Any]:
    return {"endpoint_addr": endpoint.host, "endpoint_port": endpoint.port}


def _peer(key: bytes, found: Any, networks: set[Any]) -> Peer:
    preshared = b64decode(found.get_attr("WGPEER_A_PRESHARED_KEY") or b"")
    return Peer(
        key,
        preshared if any(preshared) else None,
        frozenset(networks),
        found.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") or 0,
        _endpoint(found),
    )


def _endpoint(found: Any) -> Endpoint | None:
    endpoint = found.get_attr("WGPEER_A_ENDPOINT")
    return Endpoint(endpoint["addr"], endpoint["port"]) if endpoint else None


def _state(key: bytes, found: Any) -> PeerState:
    handshake = found.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")
    return PeerState(
        key,
        _endpoint(found),
        handshake["tv_sec"] if handshake else 0,
        found.get_attr("WGPEER_A_RX_BYTES") or 0,
        found.get_attr("WGPEER_A_TX_BYTES") or 0,
    )
