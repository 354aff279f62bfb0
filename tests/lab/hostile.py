"""A DNS server that does as it is told: what it says, in how many ways it spoils it, what it loses, when it is dead.

The test holds a `Hostile`; the server is a process on a host of the lab, which takes an instruction a line
and keeps its own account of what it was asked. It knows nothing but its script: what is not in it is NXDOMAIN.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Any

from .hosts import Host
from .replies import BADCOOKIE, KINDS, NOERROR, NXDOMAIN, SPOILS, Reply, nothing
from .wire import decode_name

STRAY = {4: "192.0.2.66", 6: "2001:db8:1::66"}  # whence comes what comes from another address
_COOKIE, _UDP_SEGMENT = 10, 103
_AT_ONCE = 64  # datagrams of a flood in one system call (UDP_MAX_SEGMENTS in older kernels)


@dataclass(frozen=True)
class Asked:
    """One question that arrived. name: in the case in which it came. lost: the network took it, by instruction."""

    time: float
    server: str
    client: str
    port: int
    id: int
    name: str
    kind: int
    over: str
    cookie: str
    lost: bool


class Hostile:
    """The test's hand on one server process. Addresses are written "203.0.113.61" or "203.0.113.61:5301"."""

    def __init__(self, host: Host, *listen: str) -> None:
        argv = (sys.executable, "-m", "tests.lab.hostile", *listen)
        self.process = host.start(*argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout and self.process.stdin
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("the hostile server does not start")

    def _do(self, what: str, **how: Any) -> Any:
        assert self.process.stdout and self.process.stdin
        self.process.stdin.write(json.dumps({"do": what, **how}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def say(self, name: str, *replies: Reply) -> None:
        """To the name ("a.example"), to one kind of question for it ("a.example/AAAA"), or to all below it
        ("*.example"): these replies, each time."""
        self.say_all({name: replies})

    def say_all(self, script: Mapping[str, Sequence[Reply]]) -> None:
        """The same for many names at once."""
        self.say_in_turn({name: [replies] for name, replies in script.items()})

    def say_in_turn(self, script: Mapping[str, Sequence[Sequence[Reply]]]) -> None:
        """The first replies to the first question, the second to the second; the last ones from then on."""
        self._do("say", script={n: [[_dump(r) for r in play] for play in plays] for n, plays in script.items()})

    def be(self, server: str = "", **settings: Any) -> None:
        """How one address (or all) behaves: loss_in, loss_out (0 to 1), delay, jitter (seconds), dead (bool), rcode
        (instead of all that it would say), cookies ("", "give", "demand"), secret (int; another one forgets the
        cookies that were given)."""
        self._do("be", server=server, settings=settings)

    def asked(self, name: str = "", server: str = "") -> list[Asked]:
        """What arrived: for this name or all, in any case; at one address or all."""
        return [Asked(*entry) for entry in self._do("asked", name=name.lower(), server=server)]

    def counts(self) -> dict[str, int]:
        """How many questions arrived at each address."""
        return dict(self._do("counts"))

    def forget(self) -> None:
        """Begins the account anew."""
        self._do("forget")

    def close(self) -> None:
        """Ends the server."""
        self.process.kill()
        self.process.wait()


def _dump(reply: Reply) -> dict[str, Any]:
    fields = {key: value for key, value in vars(reply).items() if value}
    for section in ("answer", "authority", "additional"):
        if section in fields:
            fields[section] = [one.hex() for one in fields[section]]
    return fields


@contextmanager
def hostile(host: Host, *listen: str) -> Iterator[Hostile]:
    """A server for the length of the block."""
    server = Hostile(host, *listen)
    try:
        yield server
    finally:
        server.close()


# -- the process


@dataclass
class _Server:
    """One address at which questions arrive, and how it behaves."""

    text: str
    udp: socket.socket
    loss_in: float = 0.0
    loss_out: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    dead: bool = False
    rcode: int = NOERROR
    cookies: str = ""
    secret: int = 1
    strays: dict[str, socket.socket] = field(default_factory=dict)

    def stray(self, source: str) -> socket.socket:
        """A socket with another port, or with another address."""
        if source not in self.strays:
            own, port = self.udp.getsockname()[:2]
            version = ip_address(own).version
            self.strays[source] = _udp(own, 0) if source == "port" else _udp(STRAY[version], port)
        return self.strays[source]


@dataclass(frozen=True)
class _Question:
    message: bytes
    end: int
    opt: bool
    room: int
    cookie: bytes
    name: str
    kind: int


Send = Callable[[bytes], Any]


class _Player:
    """Plays the script to whoever asks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.servers: dict[str, _Server] = {}
        self.script: dict[str, list[list[Reply]]] = {}
        self.known: set[str] = set()
        self.played: Counter[str] = Counter()
        self.log: list[Asked] = []
        self.counts: Counter[str] = Counter()
        self.random = random.Random(20)

    # -- instructions

    def do(self, order: dict[str, Any]) -> Any:
        match order["do"]:
            case "say":
                for text, plays in order["script"].items():
                    name, slash, kind = text.partition("/")
                    key = name.lower() + slash + kind
                    self.script[key] = [[_load(reply) for reply in play] for play in plays]
                    self.played[key] = 0
                    self.known.add(name.lower())
            case "be":
                for server in [self.servers[order["server"]]] if order["server"] else self.servers.values():
                    for name, value in order["settings"].items():
                        setattr(server, name, value)
            case "asked":
                wanted, at = order["name"], order["server"]
                return [
                    list(asdict(asked).values())
                    for asked in self.log
                    if (not wanted or asked.name.lower() == wanted) and (not at or asked.server == at)
                ]
            case "counts":
                return self.counts
            case "forget":
                self.log.clear()
                self.counts.clear()
        return None

    def play(self, name: str, kind: int) -> Sequence[Reply]:
        """What is said to this question now: the longest match of the script."""
        word = next((word for word, number in KINDS.items() if number == kind), str(kind))
        name = name.lower()
        labels = name.split(".")
        for candidate in (name, *("*." + ".".join(labels[cut:]) for cut in range(1, len(labels))), "*"):
            for key in (f"{candidate}/{word}", candidate):
                if key in self.script:
                    plays = self.script[key]
                    turn = min(self.played[key], len(plays) - 1)
                    self.played[key] += 1
                    return plays[turn]
        return (nothing(NOERROR if name in self.known else NXDOMAIN),)

    # -- questions

    def datagrams(self, server: _Server) -> None:
        """Answers every question that waits at this address."""
        for _ in range(256):
            try:
                data, client = server.udp.recvfrom(65535)
            except OSError:
                return
            lost = server.dead or self.random.random() < server.loss_in
            question = self.note(server, data, client, "udp", lost)
            if question is not None and not lost:
                self.answer(server, question, "udp", client, server.udp)

    def note(self, server: _Server, data: bytes, client: Any, over: str, lost: bool) -> _Question | None:
        self.counts[server.text] += 1
        try:
            question = _read(data)
        except (ValueError, struct.error, IndexError):
            return None
        ident = int.from_bytes(data[:2], "big")
        entry = (server.text, client[0], client[1], ident, question.name, question.kind, over, question.cookie.hex())
        self.log.append(Asked(time.monotonic(), *entry, lost))
        return question

    def answer(
        self, server: _Server, question: _Question, over: str, client: Any, udp: socket.socket, tcp: Send | None = None
    ) -> None:
        """Sends what the script says, each reply in its time."""
        refused = server.cookies == "demand" and not self._known_cookie(server, question, client[0])
        replies = self.play(question.name, question.kind)
        if refused and over == "udp" or server.rcode:
            replies = (Reply(rcode=server.rcode or BADCOOKIE),)
        for reply in replies:
            if reply.over not in ("", over):
                continue
            message = self.make(server, question, reply, over, client[0])
            after = reply.after + server.delay + server.jitter * self.random.random()
            if tcp is not None:
                self._later(after, tcp, len(message).to_bytes(2, "big") + message)
            elif self.random.random() >= server.loss_out:
                sock = server.stray(reply.source) if reply.source else udp
                if reply.flood:
                    self._later(after, _flood, sock, message, client, reply)
                else:
                    self._later(after, _send, sock, message, client)

    def _later(self, after: float, what: Callable[..., Any], *arguments: Any) -> None:
        if after:
            self.loop.call_later(after, what, *arguments)
        else:
            what(*arguments)

    def _known_cookie(self, server: _Server, question: _Question, client: str) -> bool:
        return question.cookie[8:] == _server_cookie(server, question.cookie[:8], client)

    def make(self, server: _Server, question: _Question, reply: Reply, over: str, client: str) -> bytes:
        """The message, spoilt as it is wished."""
        head, end = question.message[:2], question.end
        sections: list[Sequence[bytes]] = [reply.answer, reply.authority, reply.additional]
        option = b""
        if question.cookie and server.cookies and reply.cookie != "none":
            mine = question.cookie[:8]
            if reply.cookie == "wrong":
                mine = bytes(byte ^ 0xFF for byte in mine)
            whole = mine + _server_cookie(server, question.cookie[:8], client)
            option = struct.pack("!HH", _COOKIE, len(whole)) + whole
        opt = b"\0" + struct.pack("!HHIH", KINDS["OPT"], 1232, reply.rcode >> 4 << 24, len(option)) + option
        opt = opt if question.opt else b""
        body = b"".join(one for section in sections for one in section)
        flags = 0x8180 | reply.rcode & 15
        if over == "udp" and not reply.big and end + len(body) + len(opt) > question.room:
            body, flags, sections = b"", flags | 0x0200, [(), (), ()]
        counts = [len(section) for section in sections]
        counts[2] += bool(opt)
        message = head + struct.pack("!5H", flags, 1, *counts) + question.message[12:end] + body + opt
        return SPOILS[reply.spoil](message, end) if reply.spoil else message

    async def stream(self, server: _Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Questions over TCP, any number on a connection. A dead server lets them hang."""
        client = writer.get_extra_info("peername")
        try:
            while True:
                data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                question = self.note(server, data, client, "tcp", server.dead)
                if question is not None and not server.dead:
                    self.answer(server, question, "tcp", client, server.udp, writer.write)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


def _read(data: bytes) -> _Question:
    name, at = decode_name(data, 12)
    kind, _ = struct.unpack_from("!HH", data, at)
    end = position = at + 4
    if data[4:6] != b"\0\1":
        raise ValueError("not one question")
    opt, room, cookie = False, 512, b""
    if data[10:12] != b"\0\0" and data[position] == 0:
        number, room, _, length = struct.unpack_from("!HHIH", data, position + 1)
        opt = number == KINDS["OPT"]
        position += 11
        last = position + length
        while position < last:
            code, size = struct.unpack_from("!HH", data, position)
            if code == _COOKIE:
                cookie = data[position + 4 : position + 4 + size]
            position += 4 + size
    return _Question(data, end, opt, max(room, 512), cookie, name, kind)


def _server_cookie(server: _Server, client_cookie: bytes, client: str) -> bytes:
    return hashlib.sha256(b"%d" % server.secret + client_cookie + client.encode()).digest()[:8]


def _load(fields: dict[str, Any]) -> Reply:
    for section in ("answer", "authority", "additional"):
        fields[section] = tuple(bytes.fromhex(one) for one in fields.get(section, ()))
    return Reply(**fields)


def _send(sock: socket.socket, message: bytes | bytearray, client: Any) -> None:
    try:
        sock.sendto(message, client)
    except OSError:  # the one who asked has gone, and an ICMP message said so
        pass


def _flood(sock: socket.socket, message: bytes, client: Any, reply: Reply) -> None:
    """The message with 65,536 ids (or all but the right one), as one who guesses would send it."""
    right = int.from_bytes(message[:2], "big")
    target = (client[0], (client[1] + reply.port) % 65536 or 1, *client[2:])
    size = len(message)
    together = bytearray(message * _AT_ONCE)
    sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, size)
    for start in range(0, 65536, _AT_ONCE):
        together[0::size] = bytes([start >> 8]) * _AT_ONCE
        together[1::size] = bytes(range(start & 0xFF, (start & 0xFF) + _AT_ONCE))
        if reply.flood == "wrong" and start <= right < start + _AT_ONCE:
            together[(right - start) * size + 1] ^= 1
        _send(sock, together, target)
    sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 0)


def _udp(own: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.setblocking(False)
    sock.bind((own, port))
    return sock


def _split(text: str) -> tuple[str, int]:
    if text.startswith("["):
        own, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        own, _, port = text.partition(":")
    else:
        own, port = text, "53"
    return own, int(port)


async def serve(listen: Sequence[str]) -> None:
    """Serves at the addresses, and obeys what comes in by its standard input until that ends."""
    loop = asyncio.get_running_loop()
    player = _Player(loop)
    for text in listen:
        own, port = _split(text)
        server = player.servers[text] = _Server(text, _udp(own, port))
        loop.add_reader(server.udp.fileno(), player.datagrams, server)
        await asyncio.start_server(partial(player.stream, server), own, port, backlog=4096)
    orders = asyncio.StreamReader(limit=256 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("ready", flush=True)
    while line := await orders.readline():
        print(json.dumps(player.do(json.loads(line))), flush=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="tests.lab.hostile", description=__doc__)
    arguments.add_argument("listen", nargs="+", help="ADDRESS or ADDRESS:PORT")
    asyncio.run(serve(arguments.parse_args().listen))
