"""Sockets that systemd keeps while we restart (sd_notify(3), FDSTORE): questions wait in them, and are not refused.

Without systemd nothing is kept, and every call does nothing.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

_FIRST = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


class Shelf:
    """What a former process of the unit left, and what the next one will find."""

    def __init__(self) -> None:
        self._left = _inherited()

    def take(self, name: str) -> socket.socket | None:
        """The socket that was kept under this name; it is still kept."""
        return self._left.pop(name, None)

    def keep(self, name: str, sock: socket.socket) -> None:
        """Hands over a copy. A name has one socket, and no colon."""
        # FDPOLL: an ICMP error that waits in a socket is an event, and systemd would let go of it for that.
        self._tell(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", sock)

    def drop(self, name: str) -> None:
        """It is kept no longer."""
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def clear(self) -> None:
        """What nobody has taken is kept no longer: it is where we do not listen any more."""
        for name, sock in self._left.items():
            sock.close()
            self.drop(name)
        self._left = {}

    @staticmethod
    def _tell(words: str, *sockets: socket.socket) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        if address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ours:
                ours.connect(f"\0{address[1:]}" if address.startswith("@") else address)
                socket.send_fds(ours, [words.encode()], [sock.fileno() for sock in sockets])


def _inherited() -> dict[str, socket.socket]:
    """By name; and no child of ours takes them for its own."""
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    count, process = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    if process != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[str, socket.socket] = {}
    for descriptor, name in zip(range(_FIRST, _FIRST + int(count)), names, strict=False):
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:  # no socket: it is not of us
            continue
        sock.set_inheritable(False)
        sock.setblocking(False)
        found[name] = sock
    return found
