"""Does what programs do with a name, and what they should not be able to do: asks for it, and connects to it.

For leaktest: what comes back matters less than what leaves. Everything ends within seconds.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address

from splitwgd.answers import is_reply_to, read_reply
from splitwgd.errors import SplitwgError
from splitwgd.message import question_for, upstream_query
from splitwgd.names import Name, to_text
from splitwgd.objects import Ip

CONTROLS = (ip_address("192.0.2.1"), ip_address("2001:db8::1"))  # documentation's: nobody is there
_DISCARD = 9  # port
_PORTS = (443, 80)
_TYPES = (1, 28)  # A, AAAA
_ANSWERED, _CONNECTED = 2.0, 3.0  # seconds


def look_up(name: Name) -> set[Ip]:
    """By this machine's own means, whatever they are (getaddrinfo(3))."""
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:1")  # resolv.conf(5); it is read at the first question
    try:
        found = socket.getaddrinfo(to_text(name), None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found}


def ask(name: Name, server: Ip, link: str = "") -> set[Ip]:
    """By a question to that very server, on that very link, as a program does that has its own idea of DNS."""
    found: set[Ip] = set()
    for qtype in _TYPES:
        query, ident = question_for(name, qtype), secrets.randbits(16)
        with _socket(server, socket.SOCK_DGRAM, link) as sock, suppress(OSError, SplitwgError):
            sock.connect((str(server), 53))
            sock.send(upstream_query(query, ident, query.question))
            if select.select([sock], [], [], _ANSWERED)[0]:
                data = sock.recv(4096)
                if is_reply_to(data, ident, query.question):
                    found |= {ip_address(address) for address in read_reply(data, query).addresses}
    return found


def knock(addresses: Iterable[Ip], links: Iterable[str]) -> int:
    """Connects to each, by whatever way the kernel has for it and bound to each of the links; returns how many
    connections came about."""
    waiting: list[socket.socket] = []
    for address in addresses:
        for link in ("", *links):
            with _socket(address, socket.SOCK_DGRAM, link) as sock, suppress(OSError):
                sock.sendto(b"\0", (str(address), _PORTS[0]))
            for port in _PORTS:
                sock = _socket(address, socket.SOCK_STREAM, link)
                sock.setblocking(False)
                with suppress(OSError):
                    sock.connect_ex((str(address), port))
                waiting.append(sock)
    open_, deadline = 0, time.monotonic() + _CONNECTED
    while waiting and (left := deadline - time.monotonic()) > 0:
        for sock in select.select([], waiting, [], left)[1]:
            open_ += sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            waiting.remove(sock)
            sock.close()
    for sock in waiting:
        sock.close()
    return open_


def show_oneself() -> list[Ip]:
    """Sends a packet that has nothing to hide to each of CONTROLS, as far as the next router; returns to which."""
    sent = []
    for address in CONTROLS:
        with _socket(address, socket.SOCK_DGRAM, "") as sock, suppress(OSError):
            level, name = (
                (socket.IPPROTO_IP, socket.IP_TTL)
                if address.version == 4
                else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
            )
            sock.setsockopt(level, name, 1)
            sock.sendto(b"splitwg leaktest", (str(address), _DISCARD))
            sent.append(address)
    return sent


def _socket(address: Ip, kind: socket.SocketKind, link: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, kind)
    if link:
        with suppress(OSError):  # gone since
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode() + b"\0")
    return sock
