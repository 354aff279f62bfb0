"""The way to a server: sockets that take it or fail, whatever is asked on them."""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple

from splitwgd.servers import Server


class Way(NamedTuple):
    """To a server, by a mark, bound to a link: what two questions must have in common to share a connection."""

    server: Server
    mark: int
    link: str | None


def open_socket(way: Way, kind: socket.SocketKind) -> socket.socket:
    """A socket that takes the way or fails: the mark chooses the table, the link binds it."""
    family = socket.AF_INET if way.server.address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, way.mark)
        if way.link is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way.link.encode() + b"\0")
    except OSError:
        sock.close()
        raise
    return sock


def endpoint(server: Server) -> tuple[str, int] | tuple[str, int, int, int]:
    """What `connect` takes. Raises OSError when the link of a link-local address is not there."""
    if not server.scope:
        return str(server.address), server.port
    try:
        link = int(server.scope) if server.scope.isdigit() else socket.if_nametoindex(server.scope)
        return str(server.address), server.port, 0, link
    except OSError as error:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error
