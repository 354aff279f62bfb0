"""The control socket: one JSON object a line, asked and answered. Who may change something is root's question.

`serve` is the daemon's end, `ask` the client's.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from splitwgd.errors import SplitwgError

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
READING = frozenset({"status", "why", "watch"})
_PATIENCE = 30.0  # seconds; a reload of a long list takes its time
_LINE_LIMIT = 1 << 20


def socket_path() -> str:
    """In $RUNTIME_DIRECTORY, by default /run/splitwg."""
    return os.path.join(os.environ.get("RUNTIME_DIRECTORY", "/run/splitwg"), "control.sock")


class NoDaemon(SplitwgError):
    """Nobody answers on the control socket."""


class Control:
    """The daemon's end of the socket."""

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self._server: asyncio.AbstractServer | None = None

    async def serve(self) -> None:
        path = socket_path()
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        if os.path.exists(path):
            os.unlink(path)  # left by a process that was killed; the DNS port shows that none is alive
        self._server = await asyncio.start_unix_server(self._serve_one, path, limit=_LINE_LIMIT)
        os.chmod(path, 0o660)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(line, writer.get_extra_info("socket"))
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass  # the client has gone, or its line has no end
        finally:
            writer.close()

    async def _answer(self, line: bytes, sock: socket.socket) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except ValueError:
            return {"error": "this is no JSON"}
        if not isinstance(request, dict) or not isinstance(request.get("do"), str):
            return {"error": 'ask as in {"do": "status"}'}
        if request["do"] not in READING and _user(sock) not in (0, os.geteuid()):
            return {"error": f"only root may {request['do']}"}
        try:
            return await self.handle(request)
        except SplitwgError as error:
            return {"error": str(error)}

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            Path(socket_path()).unlink(missing_ok=True)  # Python 3.13 has done it already


def _user(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """The daemon's answer. Raises NoDaemon when there is none, SplitwgError with what it refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(socket_path())
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as stream:
                line = stream.readline(_LINE_LIMIT)
        except PermissionError as error:
            raise SplitwgError(f"no right to ask the daemon on {socket_path()}; run as root") from error
        except OSError as error:
            raise NoDaemon(f"splitwgd does not answer on {socket_path()} ({error.strerror or error})") from error
    if not line:
        raise NoDaemon("splitwgd ended before it answered")
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise NoDaemon("splitwgd ended in the middle of its answer") from error
    assert isinstance(answer, dict)
    if "error" in answer:
        raise SplitwgError(str(answer["error"]))
    return answer
