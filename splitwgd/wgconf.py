"""Reads a wg-quick file (wg-quick(8)): the interface, its peers, and what we will not do of it.

Commands (PostUp and the like) are named, never run.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from splitwgd.errors import Problem
from splitwgd.names import NameProblem, parse_name
from splitwgd.objects import Endpoint, Interface, Network, Peer


@dataclass(frozen=True)
class WgConfig:
    """A wg-quick file. mtu None: choose by the uplink. `notes` says what of the file is not followed."""

    path: str
    private_key: bytes = field(repr=False)
    addresses: tuple[Interface, ...]
    listen_port: int
    mtu: int | None
    peers: tuple[Peer, ...]
    notes: tuple[str, ...]

    def carries(self, family: int) -> bool:
        """Whether packets of this family can travel: an address of it, and a peer that accepts it."""
        allowed = any(network.version == family for peer in self.peers for network in peer.allowed)
        return allowed and any(address.version == family for address in self.addresses)


def parse_wgconf(text: str, path: str) -> tuple[WgConfig | None, list[Problem]]:
    """The file's value, or None with every problem in it. Each problem names its line.

    What stands there is repeated only where it cannot be a key: a private one must not get into a log.
    """
    reader = _Reader(path)
    for number, line in enumerate(text.split("\n"), 1):
        reader.take(number, line)
    return reader.finish()


_COMMANDS = ("preup", "postup", "predown", "postdown")
# Followed by wg-quick, needless or harmful here; each with the reason that the log gives.
_NOT_FOLLOWED = {
    "dns": "splitwgd is the resolver",
    "table": "splitwgd routes by mark, as with Table = off",
    "fwmark": "splitwgd marks the outer packets itself",
    "saveconfig": "splitwgd never writes this file",
}


def _key(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        # A key is a secret: what stands there is not repeated in a message.
        raise ValueError("is no WireGuard key", "paste the 44 characters that `wg genkey` or your provider gave")
    return raw


def _private_key(text: str) -> bytes:
    """As WireGuard keeps it: clamped (RFC 7748 §5)."""
    raw = bytearray(_key(text))
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return bytes(raw)


def _preshared_key(text: str) -> bytes | None:
    raw = _key(text)
    return raw if any(raw) else None  # zeros are WireGuard's way to say none


def _number(low: int, high: int, **words: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.lower() in words:
            return words[text.lower()]
        try:
            value = int(text, 0)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"= {text!r} is out of range", f"write a number from {low} to {high}")
        return value

    return parse


def _addresses(text: str) -> list[Interface]:
    return [_parsed(ip_interface, part, "an address such as 10.1.0.2/24") for part in _parts(text)]


def _networks(text: str) -> list[Network]:
    return [_parsed(_network, part, "networks such as 0.0.0.0/0, ::/0") for part in _parts(text)]


def _network(text: str) -> Network:
    return ip_network(text, strict=False)  # wg(8) masks host bits silently


def _parts(text: str) -> list[str]:
    return [part for part in (piece.strip() for piece in text.split(",")) if part]


def _parsed(parse: Callable[[str], Any], text: str, wanted: str) -> Any:
    try:
        return parse(text)
    except ValueError:
        raise ValueError(f"= {text!r} cannot be read", f"write {wanted}") from None


def is_port(text: str) -> bool:
    """Whether this is a port by number, 1 to 65535."""
    return text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536


def parse_endpoint(text: str) -> Endpoint:
    """`192.0.2.1:51820`, `[2001:db8::1]:51820` or `vpn.example.com:51820`."""
    host, colon, port = text.rpartition(":")
    remedy = "write HOST:PORT, an IPv6 address in brackets"
    if not colon or not is_port(port):
        raise ValueError(f"= {text!r} has no port", remedy)
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    try:
        return Endpoint(str(ip_address(bare)), int(port))
    except ValueError:
        if bracketed or ":" in bare or bare.replace(".", "").isdigit():
            raise ValueError(f"= {text!r} holds no address", remedy) from None
    try:
        parse_name(bare)
    except NameProblem as problem:
        raise ValueError(f"= {text!r}: {problem.what}", problem.remedy) from None
    return Endpoint(bare, int(port))


# key -> (reader of the value, whether the key may be repeated)
_INTERFACE: dict[str, tuple[Callable[[str], Any], bool]] = {
    "privatekey": (_private_key, False),
    "address": (_addresses, True),
    "listenport": (_number(0, 65535), False),
    "mtu": (_number(576, 65535), False),
}
_PEER: dict[str, tuple[Callable[[str], Any], bool]] = {
    "publickey": (_key, False),
    "presharedkey": (_preshared_key, False),
    "allowedips": (_networks, True),
    "endpoint": (parse_endpoint, False),
    "persistentkeepalive": (_number(0, 65535, off=0), False),
}


def _harmless(key: str) -> str:
    """The word as written, if it cannot be a WireGuard key."""
    return repr(key) if key.isascii() and key.isalpha() and len(key) <= 20 else "this line"


class _Reader:
    """Collects sections line by line; every problem is kept with its line, and reading goes on."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.interface: dict[str, Any] | None = None
        self.peers: list[tuple[int, dict[str, Any]]] = []
        self.section: dict[str, Any] | None = None
        self.keys: dict[str, tuple[Callable[[str], Any], bool]] = {}

    def take(self, number: int, line: str) -> None:
        content = line.partition("#")[0].strip()
        if not content:
            return
        if content.startswith("["):
            self._begin(number, content)
            return
        key, equals, value = (part.strip() for part in content.partition("="))
        if not equals or not key:
            self._problem(number, f"{_harmless(content)} is no setting", "write KEY = VALUE")
        elif self.section is None:
            self._problem(number, f"{_harmless(key)} stands before any section", "put it under [Interface] or [Peer]")
        else:
            self._set(number, key, value)

    def _begin(self, number: int, content: str) -> None:
        match content.lower():
            case "[interface]" if self.interface is None:
                self.interface = self.section = {}
                self.keys = _INTERFACE
            case "[interface]":
                self._problem(number, "a second [Interface]", "keep one")
            case "[peer]":
                self.section = {}
                self.peers.append((number, self.section))
                self.keys = _PEER
            case _:
                self._problem(
                    number, f"unknown section {_harmless(content[1:-1])}", "the sections are [Interface] and [Peer]"
                )

    def _set(self, number: int, key: str, value: str) -> None:
        assert self.section is not None
        name = key.lower()
        if self.keys is _INTERFACE and name in _COMMANDS:
            self.notes.append(f"{self.path}:{number}: not run: {key} = {value}")
            return
        if self.keys is _INTERFACE and name in _NOT_FOLLOWED:
            self.notes.append(f"{self.path}:{number}: not followed: {key} = {value} ({_NOT_FOLLOWED[name]})")
            return
        if name not in self.keys:
            known = ", ".join(sorted(self.keys))
            self._problem(number, f"unknown key {_harmless(key)}", f"the keys here are {known}")
            return
        read, repeatable = self.keys[name]
        try:
            parsed = read(value)
        except ValueError as error:
            self._problem(number, f"{key} {error.args[0]}", error.args[1])
            parsed = None
        if repeatable:
            self.section.setdefault(name, []).extend(parsed or [])
        elif name in self.section:
            self._problem(number, f"{key} for the second time", "keep one")
        else:
            self.section[name] = parsed

    def _problem(self, number: int | None, what: str, remedy: str) -> None:
        where = self.path if number is None else f"{self.path}:{number}"
        self.problems.append(Problem(where, what, remedy))

    def finish(self) -> tuple[WgConfig | None, list[Problem]]:
        interface = self.interface
        if interface is None:
            self._problem(None, "no [Interface] section", "this has to be a wg-quick file, see wg-quick(8)")
            interface = {}
        else:
            if "privatekey" not in interface:
                self._problem(None, "[Interface] has no PrivateKey", "add the one of this machine")
            if "address" not in interface:
                self._problem(None, "[Interface] has no Address", "add what your provider gave, as in 10.1.0.2/24")
        if not self.peers:
            self._problem(None, "no [Peer] section", "add the server's PublicKey, Endpoint and AllowedIPs")
        for number, peer in self.peers:
            if "publickey" not in peer:
                self._problem(number, "this [Peer] has no PublicKey", "add the server's")
            if not peer.get("allowedips"):
                self._problem(number, "this [Peer] has no AllowedIPs", "write AllowedIPs = 0.0.0.0/0, ::/0")
        keys = [key for _, peer in self.peers if (key := peer.get("publickey"))]
        if len(set(keys)) < len(keys):
            self._problem(None, "two [Peer] sections with the same PublicKey", "make them one")
        if self.problems:
            return None, self.problems
        return self._config(interface), []

    def _config(self, interface: dict[str, Any]) -> WgConfig:
        # A network belongs to one peer; as with wg(8), to the last one that claims it.
        owner = {network: peer["publickey"] for _, peer in self.peers for network in peer["allowedips"]}
        peers = tuple(
            Peer(
                public_key=peer["publickey"],
                preshared_key=peer.get("presharedkey"),
                allowed=frozenset(n for n in peer["allowedips"] if owner[n] == peer["publickey"]),
                keepalive=peer.get("persistentkeepalive", 0),
                endpoint=peer.get("endpoint"),
            )
            for _, peer in self.peers
        )
        return WgConfig(
            path=self.path,
            private_key=interface["privatekey"],
            addresses=tuple(interface["address"]),
            listen_port=interface.get("listenport", 0),
            mtu=interface.get("mtu"),
            peers=peers,
            notes=tuple(self.notes),
        )
