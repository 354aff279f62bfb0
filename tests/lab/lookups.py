"""Names asked by a busy client: on a steady beat, or each with a connection at once after its answer.

Counts what came back and judges nothing; every lookup has a source port of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import socket
import time
from collections import Counter
from typing import Any

from . import wire
from .load import family_of, told_to_end

RCODES = {0: "answered", 2: "servfail", 3: "nxdomain"}


async def ask(server: str, name: str, kind: str, transport: str) -> wire.Reply:
    """One lookup, from a port of its own."""
    loop = asyncio.get_running_loop()
    query = wire.query(hash(name) & 0xFFFF, name, kind)
    stream = transport == "tcp"
    with socket.socket(family_of(server), socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (server, 53))
        await loop.sock_sendall(sock, len(query).to_bytes(2, "big") + query if stream else query)
        if not stream:
            return wire.read_reply(await loop.sock_recv(sock, 65535), query)
        got = b""
        while len(got) < 2 or len(got) < 2 + int.from_bytes(got[:2], "big"):
            if not (more := await loop.sock_recv(sock, 65535)):
                raise ConnectionResetError
            got += more
        return wire.read_reply(got[2:], query)


async def _lookups(args: argparse.Namespace) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    took: list[float] = []

    async def one(name: str) -> None:
        started = time.monotonic()
        counts["asked"] += 1
        try:
            reply = await asyncio.wait_for(ask(args.server, name, args.kind, args.transport), args.patience)
        except TimeoutError:
            counts["lost"] += 1
        except OSError as error:
            counts[errno.errorcode.get(error.errno or 0, "reset")] += 1
        except ValueError as error:
            counts[str(error)] += 1
        else:
            took.append(time.monotonic() - started)
            counts[RCODES.get(reply.rcode, f"rcode {reply.rcode}")] += 1

    start = time.monotonic()
    under_way: set[asyncio.Task[None]] = set()
    number = 0
    while not told_to_end() and number < args.count and number * args.every / 1000 < args.seconds:
        # sleep(0) too: the answers of the others are read even when this is behind its beat
        await asyncio.sleep(max(0.0, start + number * args.every / 1000 - time.monotonic()))
        task = asyncio.create_task(one(args.pattern.format(args.first + number)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        number += 1
    await asyncio.gather(*under_way)
    took.sort()
    return {**counts, "max": took[-1] if took else None, "median": took[len(took) // 2] if took else None}


def lookups(args: argparse.Namespace) -> dict[str, Any]:
    """Lookups on a steady beat, none waiting for another."""
    return asyncio.run(_lookups(args))


def _connect_at_once(args: argparse.Namespace, name: str) -> str:
    query = wire.query(hash(name) & 0xFFFF, name, args.kind)
    tcp = args.transport == "tcp"
    family = socket.AF_INET6 if args.kind == "AAAA" else socket.AF_INET
    with (
        socket.socket(family_of(args.server), socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as dns,
        socket.socket(family, socket.SOCK_STREAM) as web,  # made before the answer: connect() comes next
    ):
        dns.settimeout(args.patience)
        web.settimeout(args.patience)
        dns.connect((args.server, 53))
        dns.sendall(len(query).to_bytes(2, "big") + query if tcp else query)
        answer = dns.recv(65535)
        addresses = wire.read_reply(answer[2:] if tcp else answer, query).addresses
        if not addresses:
            return "no address"
        web.connect((addresses[0], 80))
        web.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
        with web.makefile("rb") as page:
            return page.read().decode().rpartition("\r\n")[2].strip() or "no page"


def connect_at_once(args: argparse.Namespace) -> dict[str, Any]:
    """For each name: ask, connect to the answer in the very next system call, note who the web saw."""
    callers: Counter[str] = Counter()
    for number in range(args.first, args.first + args.count):
        if told_to_end():
            break
        try:
            callers[_connect_at_once(args, args.pattern.format(number))] += 1
        except TimeoutError:
            callers["timeout"] += 1
        except (OSError, ValueError) as error:
            callers[errno.errorcode.get(getattr(error, "errno", None) or 0, str(error))] += 1
    return dict(callers)
