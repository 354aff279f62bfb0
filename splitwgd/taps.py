"""Listens to what leaves this machine, on every link but some, by a packet socket (packet(7)). Sends nothing."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Collection
from types import TracebackType

from splitwgd.errors import MachineError

_ALL = 0x0003  # ETH_P_ALL
_PACKET, _STATISTICS = 263, 6  # SOL_PACKET, PACKET_STATISTICS (linux/if_packet.h)
_OUTGOING = 4  # PACKET_OUTGOING
_IP = (0x0800, 0x86DD)
_ENOUGH = 600  # bytes of a packet: headers and a question
_AT_MOST = 200_000  # packets


class Tap:
    """What left while the `with` block ran: (link, bytes from the IP header on)."""

    def __init__(self, but: Collection[str]) -> None:
        """but: links that are not listened to. Raises MachineError without the right to listen."""
        self.but = frozenset(but)
        self.packets: list[tuple[str, bytes]] = []
        self.lost = 0  # that could not be looked at
        try:
            # Cooked: the kernel takes off what stands before the IP header, whatever kind of link it is.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))
        except PermissionError as error:
            raise MachineError("no right to listen on the links; run as root") from error
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.setblocking(False)
        self._ended, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Tap:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.send(b".")
        self._thread.join()
        statistics = self._socket.getsockopt(_PACKET, _STATISTICS, 8)
        self.lost += struct.unpack("II", statistics)[1]
        for sock in (self._socket, self._end, self._ended):
            sock.close()

    def _listen(self) -> None:
        while self._ended not in select.select([self._socket, self._ended], [], [])[0]:
            self._drain()
        self._drain()

    def _drain(self) -> None:
        try:
            while True:
                data, (link, protocol, kind, *_) = self._socket.recvfrom(_ENOUGH)
                if kind != _OUTGOING or protocol not in _IP or link in self.but:
                    continue
                if len(self.packets) < _AT_MOST:
                    self.packets.append((link, data))
                else:
                    self.lost += 1
        except OSError:
            return  # nothing is there
