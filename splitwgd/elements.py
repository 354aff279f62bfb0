"""The hand on the elements of nf_tables' sets: writes and acknowledges them over a netlink socket of its own."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence

from splitwgd.batch import make_batch
from splitwgd.errors import KernelError, MachineError, MissingError
from splitwgd.objects import Element

_NETFILTER = 12
_SO_SNDBUFFORCE = 32
_SOL_NETLINK, _CAP_ACK = 270, 10
_IN_ONE_BATCH = 1024
_ACKNOWLEDGEMENT = struct.Struct("=IHHIIi")  # nlmsghdr, then nlmsgerr's error


class Elements:
    """Learned addresses of one table. Belongs to one thread."""

    def __init__(self, table: str) -> None:
        self.table = table
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
        self._sock.bind((0, 0))
        self._sock.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # an error need not hold our message
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 1 << 20)
        except PermissionError:
            pass  # then the batches are as large as the ordinary buffer lets them be

    @property
    def port(self) -> int:
        """The netlink port that the kernel's events about these changes bear."""
        return int(self._sock.getsockname()[0])

    def write(
        self, new: Sequence[Element], renewed: Sequence[Element] = (), gone: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        """One transaction, acknowledged when this returns: `new` ones must be absent, `gone` ones be there.

        Raises KernelError, and then nothing has changed.
        """
        if new or renewed or gone:
            self._send(*make_batch(self.table, gone, new, renewed))

    def put(self, elements: Sequence[Element]) -> None:
        """The same for any number, present or absent, in several transactions if need be."""
        for start in range(0, len(elements), _IN_ONE_BATCH):
            self.write((), elements[start : start + _IN_ONE_BATCH])

    def _send(self, batch: bytes, last: int) -> None:
        try:
            self._sock.send(batch)
            _, _, _, number, _, error = _ACKNOWLEDGEMENT.unpack_from(self._sock.recv(65_536))
        except OSError as problem:
            raise KernelError(f"nf_tables: {problem.strerror}") from problem
        if error or number != last:
            self._drain()
            raise _explained(-error)

    def _drain(self) -> None:
        """What else the kernel says of a batch that failed; it is all there already."""
        try:
            while self._sock.recv(65_536, socket.MSG_DONTWAIT):
                pass
        except OSError:
            pass

    def close(self) -> None:
        self._sock.close()


def _explained(number: int) -> KernelError | MachineError:
    if number == errno.EPERM:
        return MachineError("nf_tables: Operation not permitted; run as root or with CAP_NET_ADMIN")
    if number == errno.ENOENT:
        return MissingError("nf_tables: No such file or directory")
    if number == errno.ENFILE:
        return KernelError("nf_tables: a set is full")
    return KernelError(f"nf_tables: {os.strerror(number)}")
