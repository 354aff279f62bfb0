"""Configurations in memory, and waiting for what must come true; for the tests that touch the outside."""

from __future__ import annotations

import asyncio
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from ipaddress import IPv4Address, IPv6Address

from splitwgd.config import Config, load_config
from splitwgd.objects import Ip
from splitwgd.servers import Server

PATIENCE = 10.0  # seconds; a test that waits this long has failed
PATH = "/etc/splitwg/domains.toml"


def key(number: int) -> bytes:
    """A private key as `wg genkey` would clamp it (RFC 7748 §5); as good as any for a public one."""
    return bytes((number & 0xF8,)) + bytes((number,)) * 30 + bytes((number & 0x3F | 0x40,))


def text_of(raw: bytes) -> str:
    return b64encode(raw).decode()


WG = f"""
[Interface]
PrivateKey = {text_of(key(1))}
Address = 10.1.0.2/24, fd00:10:1::2/64
[Peer]
PublicKey = {text_of(key(2))}
PresharedKey = {text_of(key(3))}
Endpoint = 198.51.100.130:51820
AllowedIPs = 0.0.0.0/0, ::/0
"""


class Files:
    """The files of a configuration, in memory (`config.Files`)."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts

    def read(self, path: str) -> bytes:
        if path not in self.texts:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.texts[path].encode()

    def glob(self, pattern: str) -> list[str]:
        return sorted(path for path in self.texts if fnmatch(path, pattern))

    def stamp(self, path: str) -> tuple[int, ...]:
        return len(self.texts[path]), hash(self.texts[path])

    def pieces(self, path: str) -> Iterator[bytes]:
        yield self.read(path)

    def rest(self) -> None:
        pass


def make_config(
    *,
    domains: str = '"example.com"',
    networks: str = "",
    dns: str = "",
    routing: str = "",
    wg: str = WG,
    hosts: str = "",
) -> Config:
    """One tunnel, wg0. `dns` and `routing` are further lines of their sections, `hosts` is the hosts file."""
    text = f"""
[dns]
tunneled = ["10.1.0.1"]
default = ["203.0.113.53"]
{dns}
[tunneled]
domains = [{domains}]
networks = [{networks}]
[wireguard]
config = "wg0.conf"
[routing]
{routing}
"""
    return load_config(PATH, Files({PATH: text, "/etc/splitwg/wg0.conf": wg, "/etc/hosts": hosts}))


def server(address: str, port: int = 53) -> Server:
    return Server(ip(address), port)


def ip(text: str) -> Ip:
    return IPv6Address(text) if ":" in text else IPv4Address(text)


def free_port(address: str = "127.0.0.1") -> int:
    """A port that is free for UDP and for TCP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(100):
        with socket.socket(family, socket.SOCK_DGRAM) as udp, socket.socket(family, socket.SOCK_STREAM) as tcp:
            udp.bind((address, 0))
            try:
                tcp.bind((address, udp.getsockname()[1]))
            except OSError:
                continue
            return int(udp.getsockname()[1])
    raise AssertionError("no port is free")


def wait_until(true: Callable[[], object]) -> None:
    """Looks again and again; fails when it does not come true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


async def eventually(true: Callable[[], object]) -> None:
    """The same on a loop."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.005)
