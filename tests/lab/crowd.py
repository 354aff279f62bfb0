"""A crowd of clients: asks many questions, each with an id of its own, and keeps every answer as it came.

Where a test wants it, looks into the kernel's sets in the moment of receipt: `outside` are then the addresses of
the answer that were in none of them.
"""

from __future__ import annotations

import json
import random
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import Any

from .hosts import Host
from .load import family_of
from .replies import KINDS
from .wire import decode_name, encode_name


@dataclass(frozen=True)
class Heard:
    """What became of one question. took: seconds, None if nothing came. wire: the reply."""

    name: str
    took: float | None
    wire: bytes
    outside: tuple[str, ...]

    @property
    def rcode(self) -> int | None:
        """The return code without EDNS's part; None if nothing came."""
        return self.wire[3] & 15 if len(self.wire) > 3 else None

    @cached_property
    def message(self) -> Any:
        """The reply as dnslib reads it."""
        from dnslib import DNSRecord  # here: the crowd's own process starts without it, and in half the time

        return DNSRecord.parse(self.wire)

    @property
    def addresses(self) -> list[str]:
        """Every address in the answer: of A and AAAA records, and of hints."""
        return addresses_in(self.wire) if self.wire else []

    @property
    def ttls(self) -> set[int]:
        """The TTLs of the answer section."""
        return {record.ttl for record in self.message.rr}

    @property
    def errors(self) -> list[int]:
        """The codes of the extended errors (RFC 8914)."""
        options = [option for record in self.message.ar if record.rtype == KINDS["OPT"] for option in record.rdata]
        return [int.from_bytes(option.data[:2], "big") for option in options if option.code == 15]


def addresses_in(wire: bytes) -> list[str]:
    """The addresses that a client may use of a reply: of the A and AAAA records in its answer, and of the hints."""
    found = []
    _, at = decode_name(wire, 12)
    at += 4
    for _ in range(int.from_bytes(wire[6:8], "big")):
        _, at = decode_name(wire, at)
        kind, _, _, length = struct.unpack_from("!HHIH", wire, at)
        rdata = wire[at + 10 : at + 10 + length]
        at += 10 + length
        if kind in (KINDS["A"], KINDS["AAAA"]):
            found.append(rdata)
        elif kind in (KINDS["HTTPS"], KINDS["SVCB"]):
            found += _hints(rdata)
    return [str(ip_address(packed)) for packed in found]


def _hints(rdata: bytes) -> Iterator[bytes]:
    _, at = decode_name(rdata, 2)
    while at < len(rdata):
        key, length = struct.unpack_from("!HH", rdata, at)
        size = {4: 4, 6: 16}.get(key, 0)
        for start in range(at + 4, at + 4 + length if size else 0, size or 1):
            yield rdata[start : start + size]
        at += 4 + length


class Crowd:
    """A crowd that is under way."""

    def __init__(self, host: Host, questions: Sequence[str], **job: Any) -> None:
        """questions: "name" (for A) or "name/KIND".

        job: server, over ("udp", "tcp"), every (seconds between questions), most (questions that are open at the
        same time), patience (seconds), resend (seconds
        after which an unanswered question is sent again), sockets (over which they are spread), check (looks into
        the sets), edns (size; 0 for none), copies (each question is asked so many times at once).
        """
        self.questions = list(questions) * int(job.get("copies", 1))
        argv = (sys.executable, "-m", "tests.lab.crowd")
        self.process = host.start(*argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"questions": self.questions, **job}))
        self.process.stdin.close()

    def wait(self) -> list[Heard]:
        """Their answers, in the order of the questions."""
        assert self.process.stdout
        found = json.loads(self.process.stdout.read())
        self.process.wait()
        pairs = zip(self.questions, found, strict=True)
        return [
            Heard(question.partition("/")[0], took, bytes.fromhex(wire), tuple(outside))
            for question, (took, wire, outside) in pairs
        ]


def ask(host: Host, questions: Sequence[str], **job: Any) -> list[Heard]:
    """Asks and waits for all answers; as `Crowd`."""
    return Crowd(host, questions, **job).wait()


# -- the process


@dataclass
class _Open:
    number: int
    sock: socket.socket
    wire: bytes
    sent: float
    resend: float


def _query(ident: int, question: str, edns: int) -> bytes:
    name, _, kind = question.partition("/")
    number = KINDS[kind] if kind in KINDS else int(kind or 1)
    opt = b"\0" + struct.pack("!HHIH", KINDS["OPT"], edns, 0, 0) if edns else b""
    head = struct.pack("!6H", ident, 0x0100, 1, 0, 0, 1 if edns else 0)
    return head + encode_name(name) + struct.pack("!HH", number, 1) + opt


class _Sets:
    """The kernel's learned sets, asked directly."""

    def __init__(self) -> None:
        from nftables import Nftables

        self.nft = Nftables()

    def outside(self, wire: bytes) -> list[str]:
        """The addresses of this reply that are in no set."""
        return [a for a in addresses_in(wire) if not self._has(a)]

    def _has(self, text: str) -> bool:
        family = ip_address(text).version
        return any(self._holds(f"wg_{kind}{family}", text) for kind in ("domains", "networks"))

    def _holds(self, set_: str, text: str) -> bool:
        while True:
            status, _, error = self.nft.cmd(f"get element inet wg_routing {set_} {{ {text} }}")
            if "Interrupted" not in error:  # EINTR: somebody else's transaction came between
                return bool(status == 0)


class _Udp:
    """Questions over UDP, many at a time."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.server = job.get("server", "127.0.0.53")
        self.patience = job.get("patience", 5.0)
        self.resend = job.get("resend", 0.0)
        self.sets = _Sets() if job.get("check") else None
        self.poll = select.epoll()
        self.sockets = [self._socket() for _ in range(job.get("sockets", 32))]
        self.open: dict[tuple[int, int], _Open] = {}
        self.results: list[Any] = [(None, "", ())] * len(job["questions"])
        self.random = random.Random(5)

    def _socket(self) -> socket.socket:
        sock = socket.socket(family_of(self.server), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.connect((self.server, 53))
        self.poll.register(sock, select.EPOLLIN)
        return sock

    def run(self) -> list[Any]:
        """What became of each question."""
        by_fd = {sock.fileno(): sock for sock in self.sockets}
        questions, every = self.job["questions"], self.job.get("every", 0.0)
        most = self.job.get("most", 65536)
        start = checked = time.monotonic()
        number = 0
        while number < len(questions) or self.open:
            now = time.monotonic()
            burst = 0
            while number < len(questions) and now >= start + number * every and burst < 64 and len(self.open) < most:
                self._ask(number, questions[number], now)
                number += 1
                burst += 1
            if now - checked > 0.02:
                self._look_at_the_clock(now)
                checked = now
            wait = 0.0 if number < len(questions) and burst == 64 else min(0.01, every or 0.01)
            for fd, _ in self.poll.poll(wait, 256):
                self._hear(by_fd[fd])
        return self.results

    def _ask(self, number: int, question: str, now: float) -> None:
        sock = self.sockets[number % len(self.sockets)]
        ident = self.random.randrange(65536)
        while (sock.fileno(), ident) in self.open:
            ident = self.random.randrange(65536)
        wire = _query(ident, question, self.job.get("edns", 1232))
        self.open[sock.fileno(), ident] = _Open(number, sock, wire, now, now + (self.resend or 1e9))
        self._send(sock, wire)

    def _send(self, sock: socket.socket, wire: bytes) -> None:
        try:
            sock.send(wire)
        except OSError:  # refused, or no room: it counts as lost, or is sent again
            pass

    def _hear(self, sock: socket.socket) -> None:
        while True:
            try:
                wire = sock.recv(65535)
            except OSError:
                return
            found = self.open.pop((sock.fileno(), int.from_bytes(wire[:2], "big")), None)
            if found is not None:
                outside = self.sets.outside(wire) if self.sets else ()
                self.results[found.number] = (time.monotonic() - found.sent, wire.hex(), outside)

    def _look_at_the_clock(self, now: float) -> None:
        # In the order of sending, unless some were sent again: what is not old enough ends the search.
        for key, waiting in list(self.open.items()) if self.resend else self._oldest(now):
            if now - waiting.sent > self.patience:
                del self.open[key]
            elif now > waiting.resend:
                waiting.resend = now + self.resend
                self._send(waiting.sock, waiting.wire)

    def _oldest(self, now: float) -> list[tuple[tuple[int, int], _Open]]:
        old = []
        for item in self.open.items():
            if now - item[1].sent <= self.patience:
                break
            old.append(item)
        return old


def _over_tcp(job: dict[str, Any]) -> Iterator[Any]:
    """One question a connection, one after the other."""
    sets = _Sets() if job.get("check") else None
    server = job.get("server", "127.0.0.53")
    for number, question in enumerate(job["questions"]):
        started = time.monotonic()
        query = _query(number & 0xFFFF, question, job.get("edns", 1232))
        try:
            with socket.create_connection((server, 53), timeout=job.get("patience", 5.0)) as sock:
                sock.sendall(len(query).to_bytes(2, "big") + query)
                with sock.makefile("rb") as stream:
                    wire = stream.read(int.from_bytes(stream.read(2), "big"))
        except OSError:
            wire = b""
        took = time.monotonic() - started if wire else None
        yield took, wire.hex(), sets.outside(wire) if sets and wire else ()


def main() -> None:
    """Does the job that comes in by standard input."""
    job = json.loads(sys.stdin.read())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(list(_over_tcp(job)) if job.get("over") == "tcp" else _Udp(job).run()))


if __name__ == "__main__":
    main()
