"""The servers of the lab, each a process inside a host: a DNS server, or the web with UDP echo.

They say what was asked and by whom, and nothing else: the DNS recurses nowhere, the web serves no file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import time
from functools import partial
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from . import wire, zone

UDP_LIMIT = 512  # as if EDNS did not exist: the big name is always truncated
LINES_PER_SECOND = 20


def plain(address: str) -> str:
    """An address without the mapping into v6."""
    parsed = ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


class Dns:
    """Answers from the zone, and writes down every question before it answers."""

    def __init__(self, honest: bool, log: str) -> None:
        self.honest = honest
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def answer(self, query: bytes, server: str, client: str, transport: str) -> bytes | None:
        """The reply to a query, or None for what deserves none."""
        try:
            name, kind, _ = wire.question(query)
        except ValueError:
            return None
        entry = {"time": time.monotonic(), "server": server, "client": client, "transport": transport}
        os.write(self.log, json.dumps({**entry, "name": name, "kind": kind}).encode() + b"\n")
        answer = zone.resolve(name, kind, self.honest)
        if answer is None:
            return None
        return wire.reply(query, answer, UDP_LIMIT if transport == "udp" else 65535)


class Datagrams(asyncio.DatagramProtocol):
    """The UDP side of a DNS server at one address."""

    def __init__(self, dns: Dns, server: str) -> None:
        self.dns = dns
        self.server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if reply := self.dns.answer(data, self.server, addr[0], "udp"):
            self.transport.sendto(reply, addr)


async def dns_stream(dns: Dns, server: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The TCP side of a DNS server at one address: any number of questions on a connection."""
    client = writer.get_extra_info("peername")[0]
    try:
        while True:
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            if reply := dns.answer(query, server, client, "tcp"):
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        writer.close()


async def serve_dns(honest: bool, log: str, listen: list[str]) -> None:
    """Serve DNS at the addresses until the process is ended."""
    dns = Dns(honest, log)
    loop = asyncio.get_running_loop()
    for server in listen:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((server, 53))
        await loop.create_datagram_endpoint(partial(Datagrams, dns, server), sock=sock)
        await asyncio.start_server(partial(dns_stream, dns, server), server, 53, backlog=4096)
    print("ready", flush=True)
    await asyncio.Event().wait()


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Tell the caller's address at once, or slowly: /slow?seconds=S ticks on after the address."""
    try:
        caller = plain(writer.get_extra_info("peername")[0])
        head = await reader.readuntil(b"\r\n\r\n")
        url = urlsplit(head.split()[1].decode())
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n")
        writer.write(f"{caller}\n".encode())
        await writer.drain()
        if url.path == "/slow":
            for tick in range(round(float(parse_qs(url.query)["seconds"][0]) * LINES_PER_SECOND)):
                await asyncio.sleep(1 / LINES_PER_SECOND)
                writer.write(f"{tick}\n".encode())
                await writer.drain()
    except (asyncio.IncompleteReadError, OSError):  # a caller who only knocked, or has gone
        pass
    finally:
        writer.close()


def echo(sock: socket.socket) -> None:
    """Answer every waiting packet with its caller's address, from the very address that was called."""
    while True:
        try:
            _, pktinfo, _, caller = sock.recvmsg(2048, 256)
            sock.sendmsg([f"{plain(caller[0])}\n".encode()], pktinfo, 0, caller)
        except BlockingIOError:
            return
        except OSError:  # the caller cannot be reached: the next one may be
            continue


async def serve_web() -> None:
    """Serve the web and the echo at every address of the host until the process is ended."""
    for family, wildcard in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        await asyncio.start_server(web, wildcard, 80, family=family, backlog=4096)
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.setblocking(False)
    sock.bind(("::", 9))
    asyncio.get_running_loop().add_reader(sock, echo, sock)
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Run the server which the command line asks for."""
    parser = argparse.ArgumentParser(prog="tests.lab.servers", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("web")
    dns = roles.add_parser("dns")
    dns.add_argument("--honest", action="store_true")
    dns.add_argument("--log", required=True)
    dns.add_argument("--listen", action="append", required=True)
    args = parser.parse_args()
    asyncio.run(serve_web() if args.role == "web" else serve_dns(args.honest, args.log, args.listen))


if __name__ == "__main__":
    main()
