"""The hand that writes our nft table: one netlink socket for libnftables' transactions and for batches of our own.

One, because the kernel lets nobody but the socket that owns a table change it (docs/decisions/0019).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from contextlib import suppress
from functools import cached_property

from splitwgd.batch import ask_table, make_batch_of_tables, read_flags
from splitwgd.errors import KernelError, MachineError, MissingError
from splitwgd.nft import Nft

_SO_SNDBUFFORCE = 32
_SOL_NETLINK, _CAP_ACK = 270, 10
_ACKNOWLEDGEMENT = struct.Struct("=IHHIIi")  # nlmsghdr, then nlmsgerr's error


class Owner:
    """Of one table. Any thread may call it; while one is in a transaction (`busy`), others wait."""

    def __init__(self, table: str) -> None:
        self.table = table
        self._nft = Nft()
        self._sock = self._nft.socket()
        self._sock.bind((0, 0))
        self._sock.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # an error need not hold our message
        with suppress(PermissionError):  # then the batches are as large as the ordinary buffer lets them be
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 1 << 20)
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """The netlink port that the kernel's events about these changes bear."""
        return int(self._sock.getsockname()[0])

    @property
    def busy(self) -> bool:
        """Whether whoever writes now has to wait for another thread."""
        return self._lock.locked()

    def send(self, batch: bytes, last: int) -> None:
        """One transaction of `batch`'s making, acknowledged when this returns. last: the message that is.

        Raises KernelError or MachineError, and then nothing has changed.
        """
        with self._lock:
            try:
                self._sock.send(batch)
                # Not a wait: the kernel has said all when `send` returns.
                _, _, _, number, _, error = _ACKNOWLEDGEMENT.unpack_from(self._sock.recv(65_536))
            except OSError as problem:
                raise KernelError(f"nf_tables: {problem.strerror}") from problem
            if error or number != last:
                self._drain()
                raise _explained(-error)

    def run(self, text: str) -> None:
        """The same of nft's own words, by libnftables."""
        with self._lock:
            try:
                self._nft.run(text)
            finally:
                self._drain()

    def _drain(self) -> None:
        """What else the kernel says of a batch that failed; it is all there already."""
        with suppress(OSError):
            while self._sock.recv(65_536, socket.MSG_DONTWAIT):
                pass

    # -- the table as such

    @cached_property
    def can_own(self) -> bool:
        """Whether this kernel knows owners whose tables outlive them (Linux 6.9): asked by trying, once."""
        name = f"{self.table}_probe"
        try:
            self.send(*make_batch_of_tables((name, True), (name, False)))
        except KernelError:
            return False
        return True

    def take(self, anew: bool = False) -> None:
        """The table is there and ours: made, or taken over from an owner that has ended, and woken if dormant.
        anew: without anything of the table that is there."""
        first = ((self.table, False),) if anew else ()
        self.send(*make_batch_of_tables(*first, (self.table, True)))

    def drop(self, name: str) -> None:
        """No table of that name is left; absent is no error."""
        with suppress(MissingError):
            self.send(*make_batch_of_tables((name, False)))

    def flags(self) -> frozenset[str]:
        """Of the table as it is; none where it is absent."""
        with self._lock:
            try:
                self._sock.send(ask_table(self.table))
                return read_flags(self._sock.recv(65_536))
            except OSError as problem:
                raise KernelError(f"nf_tables: {problem.strerror}") from problem
            finally:
                self._drain()

    def close(self) -> None:
        """Lets go of the table; it stays."""
        self._sock.close()
        self._nft.close()


def _explained(number: int) -> KernelError | MachineError:
    if number == errno.EPERM:
        what = "run as root or with CAP_NET_ADMIN, and end the process that owns the table if there is one"
        return MachineError(f"nf_tables: Operation not permitted; {what}")
    if number == errno.ENOENT:
        return MissingError("nf_tables: No such file or directory")
    if number == errno.ENFILE:
        return KernelError("nf_tables: a set is full")
    return KernelError(f"nf_tables: {os.strerror(number)}")
