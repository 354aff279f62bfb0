"""A lab server's secure door: DNS over TLS or HTTPS, in front of the plain server at the same address.

    python -m tests.lab.secure (TLS | HTTPS) ADDRESS AUTHORITY

writes its authority's certificate to the file AUTHORITY and "ready" when it listens. Ends by a signal.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from splitwgd.servers import Transport
from tests.streams import ALPN, Asked, Peer
from tests.streams import Host as Door
from tests.tls import NAME, OURS, authority, certified

from .hosts import Host

PORT = {Transport.TLS: 853, Transport.HTTPS: 443}


@contextmanager
def secure_door(host: Host, transport: Transport, address: str) -> Iterator[str]:
    """The door stands; the certificate of its authority, in PEM."""
    file = f"/run/authority-{transport.name}"
    words = (sys.executable, "-m", "tests.lab.secure", transport.name, address, file)
    child = host.start(*words, stdout=subprocess.PIPE)
    assert child.stdout
    with child:
        try:
            if child.stdout.readline() != "ready\n":
                raise RuntimeError(f"no secure door at {address}")
            yield host.read(file)
        finally:
            child.kill()


def url(transport: Transport, address: str, name: str = NAME) -> str:
    """As a configuration names it."""
    return f"tls://{address}#{name}" if transport is Transport.TLS else f"https://{address}/dns-query#{name}"


def main() -> None:
    """As the head of this file says."""
    kind, address, file = sys.argv[1:]
    transport = Transport[kind]
    Path(file).write_bytes(authority(OURS).cert_pem.bytes())
    asyncio.run(_serve(transport, address))


async def _serve(transport: Transport, address: str) -> None:
    door = Door(transport, lambda asked: _pass_on(asked, address), address=address)
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Peer(door), address, PORT[transport], ssl=certified(ALPN[transport]))
    print("ready", flush=True)
    await asyncio.Event().wait()


def _pass_on(asked: Asked, address: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.sendto(asked.message, (address, 53))
        asked.reply(sock.recv(4096))


if __name__ == "__main__":
    main()
