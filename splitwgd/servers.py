"""DNS servers as the configuration writes them: how each is asked, and where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, ip_address

from splitwgd.objects import Ip
from splitwgd.wgconf import is_port


class Transport(Enum):
    """How a server is asked."""

    PLAIN = "plain"  # UDP, and TCP for what does not fit
    TLS = "tls"  # RFC 7858
    HTTPS = "https"  # RFC 8484, over HTTP/2


@dataclass(frozen=True)
class Server:
    """A DNS server. name: what its certificate must say (TLS, HTTPS). path: of the URL (HTTPS).

    scope: the link of a link-local address, empty for all others.
    """

    address: Ip
    port: int = 53
    transport: Transport = Transport.PLAIN
    name: str = ""
    path: str = ""
    scope: str = ""

    def __str__(self) -> str:
        if self.port == 53:
            return str(self.address)
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


def parse_server(text: str) -> Server:
    """An address, with or without a port. Raises ValueError with what is wrong."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = "53" if bracket and not rest else rest.removeprefix(":") if rest.startswith(":") else ""
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, "53"
    if not is_port(port):
        raise ValueError("has no valid port")
    address = parse_address(host)
    if address.is_unspecified or isinstance(address, IPv6Address) and address.ipv4_mapped:
        raise ValueError("is another name for this machine or for an IPv4 address")
    return Server(address, int(port))


def parse_address(text: str) -> Ip:
    """An address without a scope. Raises ValueError with what is wrong."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("is no IP address") from None
    if "%" in text:
        raise ValueError("has a scope, and link-local addresses cannot be used here")
    return address
