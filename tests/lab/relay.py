"""Somebody's forwarder on the same machine: passes each question on, and each answer back. Counts what it was asked.

It is what a forwarding loop is made of: its server may be the one who asks it.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .hosts import Host
from .wire import question


class Relay:
    """The test's hand on one such process."""

    def __init__(self, host: Host, at: str, to: str) -> None:
        argv = (sys.executable, "-m", "tests.lab.relay", at, to)
        self.process = host.start(*argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("the relay does not start")

    def asked(self, suffix: str) -> int:
        """How many questions it has had for names below this one."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{suffix}\n")
        self.process.stdin.flush()
        return int(json.loads(self.process.stdout.readline()))


@contextmanager
def relay(host: Host, at: str, to: str) -> Iterator[Relay]:
    """A relay at "address:port" that asks "address:port", for the length of the block."""
    running = Relay(host, at, to)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def _socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _end(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port)


def serve(at: str, to: str) -> None:
    """Passes on for ever; a line on the standard input asks for the count."""
    front, back = _socket(), _socket()
    front.bind(_end(at))
    back.connect(_end(to))
    names: list[str] = []
    waiting: dict[int, tuple[bytes, tuple[str, int]]] = {}
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([front, back, sys.stdin], [], [])
        if front in readable:
            data, client = front.recvfrom(4096)
            names.append(question(data)[0].lower())
            waiting[len(names) & 0xFFFF] = (data[:2], client)
            back.send((len(names) & 0xFFFF).to_bytes(2, "big") + data[2:])
        if back in readable:
            try:
                data = back.recv(65535)
            except OSError:  # refused: who asked hears nothing
                continue
            if known := waiting.pop(int.from_bytes(data[:2], "big"), None):
                front.sendto(known[0] + data[2:], known[1])
        if sys.stdin in readable:
            suffix = sys.stdin.readline().strip()
            print(json.dumps(sum(name.endswith(suffix) for name in names)), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
