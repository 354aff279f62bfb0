"""A busy client: endless new flows, lookups, connections at once after an answer, a long download.

Each kind runs as a process inside the client, prints "ready", then one JSON object when its time is
up or it is told to end by SIGTERM.  It judges nothing: it counts what happened to it.
"""

from __future__ import annotations

import argparse
import errno
import resource
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .load import family_of, report, told_to_end
from .lookups import connect_at_once, lookups

PATIENCE = 3.0  # seconds after which a connection or an echo counts as lost


def _ticks(every: float, seconds: float) -> Iterator[int]:
    """Count ticks on a steady beat; it catches up after a delay, so that no tick is lost."""
    start = time.monotonic()
    number = 0
    while not told_to_end() and number * every < seconds:
        if (early := start + number * every - time.monotonic()) > 0:
            time.sleep(early)
        yield number
        number += 1


def _open(kind: socket.SocketKind, address: str, port: int) -> tuple[socket.socket, int]:
    """A new socket on its way to an address, and what connect() said."""
    sock = socket.socket(family_of(address), kind | socket.SOCK_NONBLOCK)
    if kind == socket.SOCK_STREAM:  # closed by a reset: no port is kept waiting
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return sock, sock.connect_ex((address, port))


class Stream:
    """A new TCP connection and a new UDP flow at every tick, each counted by what became of it."""

    def __init__(self) -> None:
        self.tcp: Counter[str] = Counter()
        self.udp: Counter[str] = Counter()
        self.poll = select.epoll()
        self.waiting: dict[int, tuple[socket.socket, float]] = {}

    def knock(self, address: str) -> None:
        """Open both flows to an address."""
        sock, said = _open(socket.SOCK_STREAM, address, 80)
        self._watch(sock, said, self.tcp, select.EPOLLOUT)
        sock, said = _open(socket.SOCK_DGRAM, address, 9)
        if not said:
            try:
                sock.send(b"?")
            except OSError as error:
                said = error.errno or 0
        self._watch(sock, said, self.udp, select.EPOLLIN)

    def _watch(self, sock: socket.socket, said: int, count: Counter[str], event: int) -> None:
        count["tried"] += 1
        if said not in (0, errno.EINPROGRESS):
            count[errno.errorcode[said]] += 1
            sock.close()
            return
        self.poll.register(sock, event)
        self.waiting[sock.fileno()] = (sock, time.monotonic() + PATIENCE)

    def listen(self, timeout: float) -> None:
        """Count what has come back."""
        for number, _ in self.poll.poll(timeout, 256):
            sock, _ = self.waiting.pop(number)
            failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            stream = sock.type & socket.SOCK_STREAM
            count = self.tcp if stream else self.udp
            if failed:
                count[errno.errorcode[failed]] += 1
            else:
                count["connected" if stream else sock.recv(256).decode().strip()] += 1
            sock.close()

    def give_up(self, everything: bool) -> None:
        """Count as lost what has waited too long, oldest first."""
        now = time.monotonic()
        for number, (sock, until) in list(self.waiting.items()):
            if until > now and not everything:
                return
            (self.tcp if sock.type & socket.SOCK_STREAM else self.udp)["lost"] += 1
            del self.waiting[number]
            sock.close()


def stream(args: argparse.Namespace) -> dict[str, Any]:
    """New flows to the addresses in turn, every few milliseconds."""
    soft_hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft_hard[1], soft_hard[1]))
    flows = Stream()
    for number in _ticks(args.every / 1000, args.seconds):
        flows.knock(args.address[number % len(args.address)])
        flows.listen(0)
        flows.give_up(everything=False)
    end = time.monotonic() + PATIENCE
    while flows.waiting and time.monotonic() < end:
        flows.listen(0.05)
    flows.give_up(everything=True)
    return {"tcp": flows.tcp, "udp": flows.udp}


def download(args: argparse.Namespace) -> dict[str, Any]:
    """A long steady download: how many lines came, and how often it stalled for 1.5 s or more."""
    lines: list[str] = []
    gaps: list[float] = []
    failed = ""
    try:
        with socket.create_connection((args.address[0], 80), timeout=PATIENCE) as sock:
            sock.settimeout(args.patience)
            sock.sendall(f"GET /slow?seconds={args.seconds} HTTP/1.1\r\nHost: lab\r\n\r\n".encode())
            with sock.makefile("r", encoding="ascii", newline="\n") as page:
                while not told_to_end() and page.readline().strip():
                    continue
                last = time.monotonic()
                while not told_to_end() and (line := page.readline()):
                    lines.append(line.strip())
                    gaps.append(time.monotonic() - last)
                    last = time.monotonic()
    except OSError as error:
        failed = errno.errorcode.get(error.errno or 0, "timeout")
    return {
        "caller": lines[0] if lines else "",
        "lines": max(0, len(lines) - 1),
        "completed": len(lines) == 1 + round(args.seconds * 20),
        "error": failed,
        "longest_gap": max(gaps, default=0.0),
        "stalls": sum(gap > 1.5 for gap in gaps),
    }


def main() -> None:
    """Make the traffic which the command line asks for."""
    parser = argparse.ArgumentParser(prog="tests.lab.traffic", description=__doc__)
    parser.add_argument("kind_of_traffic", choices=list(KINDS))
    parser.add_argument("--address", action="append", help="where to (stream: may be given again)")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--every", type=float, default=2, help="milliseconds between ticks")
    parser.add_argument("--pattern", default="n{}.fresh.tunneled.example")
    parser.add_argument("--first", type=int, default=0, help="the first number of the pattern")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--server", default="127.0.0.53")
    parser.add_argument("--transport", choices=["udp", "tcp"], default="udp")
    parser.add_argument("--kind", choices=["A", "AAAA"], default="A")
    parser.add_argument("--patience", type=float, default=5)
    args = parser.parse_args()
    report(lambda: KINDS[args.kind_of_traffic](args))


KINDS = {"stream": stream, "lookups": lookups, "connect-at-once": connect_at_once, "download": download}

if __name__ == "__main__":
    main()
