"""DNS servers as the configuration writes them: how each is asked, and where.

    9.9.9.9    9.9.9.9:5353    [2620:fe::fe]:5353    fe80::1%eth0           UDP and TCP
    tls://9.9.9.9#dns.quad9.net    tls://[2620:fe::fe]:8853#dns.quad9.net   DNS over TLS
    https://9.9.9.9/dns-query#dns.quad9.net                                 DNS over HTTPS

A server is written by its address, for resolving its name would need a server. The name behind # is what its
certificate must bear: a domain, or an address where the certificate is made out to that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, ip_address

from splitwgd.names import NameProblem, parse_name, to_text
from splitwgd.objects import Ip
from splitwgd.settings import ValueProblem
from splitwgd.wgconf import is_port


class Transport(Enum):
    """How a server is asked."""

    PLAIN = "plain"  # UDP, and TCP for what does not fit
    TLS = "tls"  # RFC 7858
    HTTPS = "https"  # RFC 8484, over HTTP/2


@dataclass(frozen=True)
class Server:
    """A DNS server. name: what its certificate must bear, in ASCII (TLS, HTTPS). path: of the URL (HTTPS).

    scope: the link of a link-local address, by its name or its number, empty for all others.
    """

    address: Ip
    port: int = 53
    transport: Transport = Transport.PLAIN
    name: str = ""
    path: str = ""
    scope: str = ""

    def __post_init__(self) -> None:
        fields = (self.address, self.port, self.transport, self.name, self.path, self.scope)
        object.__setattr__(self, "_hash", hash(fields))

    def __hash__(self) -> int:
        """Worked out once: servers are looked up for every question."""
        return self._hash  # type: ignore[attr-defined,no-any-return]

    def __str__(self) -> str:
        host = f"{self.address}%{self.scope}" if self.scope else str(self.address)
        usual = self.port == _USUAL_PORT[self.transport]
        if self.transport is Transport.PLAIN and usual:
            return host
        where = (f"[{host}]" if self.address.version == 6 else host) + ("" if usual else f":{self.port}")
        if self.transport is Transport.PLAIN:
            return where
        return f"{self.transport.value}://{where}{'' if self.path == _USUAL_PATH else self.path}#{self.name}"


_USUAL_PORT = {Transport.PLAIN: 53, Transport.TLS: 853, Transport.HTTPS: 443}
_USUAL_PATH = "/dns-query"
_EXAMPLE = "tls://9.9.9.9#dns.quad9.net"
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")  # RFC 3986 §3.3
_LINK = re.compile(r"[A-Za-z0-9_=+.-]{1,15}")


def parse_server(text: str) -> Server:
    """A server in one of the forms above; `str` writes it back. Raises ValueProblem."""
    if not text.isprintable() or " " in text:
        raise ValueProblem("has a space or something invisible in it", "remove it")
    scheme, is_url, rest = text.partition("://")
    if is_url:
        return _encrypted(scheme, rest)
    if "#" in text:
        raise ValueProblem("has a # but is asked in clear", f"write {_EXAMPLE}; a port stands behind a colon")
    host, port = _host_and_port(text, Transport.PLAIN)
    address, scope = parse_host(host)
    return Server(address, port, scope=scope)


def _encrypted(scheme: str, rest: str) -> Server:
    transports = {"tls": Transport.TLS, "https": Transport.HTTPS}  # RFC 3986 §3.1: in any case
    transport = transports.get(scheme.lower())
    if transport is None:
        raise ValueProblem(f"begins with {scheme[:20]}://", "write tls:// or https://, or the address alone")
    where, _, name = rest.partition("#")
    if "?" in where:
        raise ValueProblem("has a query string", "remove what stands behind the ?")
    authority, slash, path = where.partition("/")
    if "@" in authority:
        raise ValueProblem("has a user in it", "remove what stands before the @")
    if transport is Transport.TLS and slash:
        raise ValueProblem("has a path, and DNS over TLS knows none", "remove it, or write https://")
    if authority.count(":") > 1 and not authority.startswith("["):
        raise ValueProblem("has an IPv6 address without brackets", "write tls://[2620:fe::fe]#dns.quad9.net")
    if not _PATH.fullmatch(slash + path or "/"):
        raise ValueProblem("has a path that no URL can have", "write it percent-encoded")
    host, port = _host_and_port(authority, transport)
    address, scope = parse_host(host)
    usual_path = _USUAL_PATH if transport is Transport.HTTPS else ""
    return Server(address, port, transport, _certificate_name(name), slash + path or usual_path, scope)


def _host_and_port(text: str, transport: Transport) -> tuple[str, int]:
    usual = str(_USUAL_PORT[transport])
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = usual if bracket and not rest else rest.removeprefix(":") if rest.startswith(":") else ""
        if bracket and ":" not in host:
            raise ValueProblem("has brackets, which are for IPv6 addresses", "remove them")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, usual
    if not is_port(port):
        raise ValueProblem("has no valid port", "write a number from 1 to 65535 behind the colon, or no colon")
    return host, int(port)


def parse_host(text: str) -> tuple[Ip, str]:
    """The address of a server, and the link behind its % if it is link-local. Raises ValueProblem."""
    bare, percent, scope = text.partition("%")
    try:
        address = ip_address(bare)
    except ValueError:
        raise ValueProblem("is no IP address", f"write the address, and a name only behind #: {_EXAMPLE}") from None
    is_v6 = isinstance(address, IPv6Address)
    if address.is_unspecified or isinstance(address, IPv6Address) and address.ipv4_mapped:
        raise ValueProblem("is another name for this machine or for an IPv4 address", "write the address itself")
    if address.is_multicast:
        raise ValueProblem("is a group of hosts (multicast)", "write one server's address")
    if bool(percent) != (is_v6 and address.is_link_local):
        if percent:
            raise ValueProblem("has a scope and is not link-local", "remove the % and what follows")
        raise ValueProblem("is link-local and does not say on which link", f"write {bare}%eth0 or so")
    if percent and (not _LINK.fullmatch(scope) or scope.isdigit() and not 0 < int(scope) < 1 << 31):
        raise ValueProblem("has no link's name behind the %", f"write {bare}%eth0 or so")
    return address, scope


def _certificate_name(text: str) -> str:
    if not text or "%" in text:
        raise ValueProblem("does not say which name the certificate bears", f"add it behind a #, as in {_EXAMPLE}")
    try:
        return str(ip_address(text))
    except ValueError:
        return _domain(text)


def _domain(text: str) -> str:
    try:
        name = to_text(parse_name(text))
    except NameProblem as problem:
        raise ValueProblem(f"has no name behind the #: {problem.what}", problem.remedy) from None
    if name.rpartition(".")[2].isdigit():  # RFC 1123 §2.1: no top-level domain is
        raise ValueProblem("has neither a name nor an address behind the #", f"write it as in {_EXAMPLE}")
    return name


def parse_address(text: str) -> Ip:
    """An address without a scope. Raises ValueError with what is wrong."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("is no IP address") from None
    if "%" in text:
        raise ValueError("has a scope, and link-local addresses cannot be used here")
    return address
