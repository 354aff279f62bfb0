"""Network namespaces without names, and wires whose other end is a file descriptor of the test."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from tests.lab.hosts import inhabitants
from tests.worlds import PATIENCE

_NEWNS, _NEWNET = 0x20000, 0x40000000  # include/uapi/linux/sched.h
_DETACH = 2
_TUN, _TAP, _NO_PI, _SET_IFF = 1, 2, 0x1000, 0x400454CA  # include/uapi/linux/if_tun.h
_libc = ctypes.CDLL(None, use_errno=True)


def _call(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def own_mounts() -> None:
    """From here on what this process mounts is seen by nobody else."""
    _call(_libc.unshare(_NEWNS))
    _call(_libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None))  # MS_REC | MS_PRIVATE


@contextlib.contextmanager
def private_run() -> Iterator[None]:
    """An empty /run."""
    _call(_libc.mount(b"tests", b"/run", b"tmpfs", 0, None))
    try:
        yield
    finally:
        _call(_libc.umount2(b"/run", _DETACH))


def sh(command: str, check: bool = True) -> str:
    """What a command line says."""
    done = subprocess.run(
        command, shell=True, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20
    )
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.stderr}{done.stdout}")
    return done.stdout


def json_of(command: str) -> Any:
    return json.loads(sh(command) or "[]")


class Space:
    """A network namespace, held open by a descriptor."""

    def __init__(self) -> None:
        before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call(_libc.unshare(_NEWNET))
            self.fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.name = os.readlink("/proc/self/ns/net")
            # Nobody here doubts that an address is unique: they are usable at once.
            sh("ip link set lo up; sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")
        finally:
            _call(_libc.setns(before, _NEWNET))
            os.close(before)

    @property
    def path(self) -> str:
        """For `ip link set ... netns PATH`."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread, and the sockets and processes that it makes, belong to this namespace."""
        before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call(_libc.setns(self.fd, _NEWNET))
            yield
        finally:
            _call(_libc.setns(before, _NEWNET))
            os.close(before)

    def close(self) -> None:
        """Ends what was started in it; call it from outside."""
        end_inhabitants(self.name)
        os.close(self.fd)


def end_inhabitants(name: str) -> None:
    """Kills the processes in this namespace, the caller excepted."""
    deadline = time.monotonic() + PATIENCE
    while pids := [pid for pid in inhabitants(name) if pid != os.getpid()]:
        assert time.monotonic() < deadline, f"{pids} do not end"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


class Wire:
    """A link of this namespace whose packets come to the test: `tun` (IP) or `tap` (Ethernet)."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = (_TUN if kind == "tun" else _TAP) | _NO_PI
        fcntl.ioctl(self.fd, _SET_IFF, struct.pack("16sH22x", name.encode(), flags))
        self.seen: list[bytes] = []
        sh(f"ip link set {name} up")

    def drain(self) -> list[bytes]:
        """All packets so far."""
        while True:
            try:
                self.seen.append(os.read(self.fd, 65536))
            except BlockingIOError:
                return self.seen

    def carried(self, token: bytes) -> list[bytes]:
        """The packets so far that hold these bytes."""
        return [packet for packet in self.drain() if token in packet]

    def wait_for(self, token: bytes) -> bytes:
        """The first packet that holds these bytes."""
        deadline = time.monotonic() + PATIENCE
        while not (found := self.carried(token)):
            left = deadline - time.monotonic()
            assert left > 0, f"{token!r} did not come by {self.name}"
            select.select([self.fd], [], [], left)
        return found[0]

    def send(self, packet: bytes) -> None:
        os.write(self.fd, packet)

    def close(self) -> None:
        os.close(self.fd)


def echoed(packet: bytes) -> bytes:
    """A UDP packet (IP without options) on its way back; swapped addresses and ports leave checksums right."""
    if packet[0] >> 4 == 4:
        return packet[:12] + packet[16:20] + packet[12:16] + packet[22:24] + packet[20:22] + packet[24:]
    return packet[:8] + packet[24:40] + packet[8:24] + packet[42:44] + packet[40:42] + packet[44:]
