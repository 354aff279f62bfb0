"""DNS cookies towards servers (RFC 7873): eight bytes that a forger, who does not see our questions, must guess.

A server that has once returned ours is held to it from then on, over UDP.
"""

from __future__ import annotations

import struct

from splitwgd.errors import MessageError
from splitwgd.message import COOKIE, option

_OURS = 8
_THEIRS = range(8, 33)


class CookieJar:
    """The cookie of one server. secret: eight bytes that nobody else knows, one for each server."""

    __slots__ = ("held_to_it", "options", "secret")

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.options = option(COOKIE, secret)
        self.held_to_it = False

    def accepts(self, options: bytes) -> bool:
        """Whether a reply with these EDNS options may be the server's; learns the server's cookie from it."""
        try:
            found = _cookie(options)
        except MessageError:
            return False
        if found is None:
            return not self.held_to_it
        if found[:_OURS] != self.secret:
            return False  # RFC 7873 §5.3
        if len(found) - _OURS in _THEIRS:
            self.held_to_it = True
            self.options = option(COOKIE, found)
        return True

    def forget(self) -> None:
        """The server answered over TCP, where nobody can forge, and knows of no cookies any more."""
        self.held_to_it = False
        self.options = option(COOKIE, self.secret)


def _cookie(options: bytes) -> bytes | None:
    position = 0
    while position < len(options):
        if position + 4 > len(options):
            raise MessageError("an option that ends too early")
        code, length = struct.unpack_from("!HH", options, position)
        value = options[position + 4 : position + 4 + length]
        position += 4 + length
        if len(value) < length:
            raise MessageError("an option longer than its record")
        if code == COOKIE:
            return value
    return None
