"""The control socket, both ends of it; who may ask for what, and what garbage does."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from splitwgd import control
from splitwgd.control import Control, NoDaemon, ask, socket_path
from splitwgd.errors import SplitwgError

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    return tmp_path / "run/control.sock"


async def echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"asked": request}


def play(story: Callable[[Control], Awaitable[None]], handle: Answer = echo) -> None:
    async def run() -> None:
        end = Control(handle)
        await end.serve()
        try:
            await story(end)
        finally:
            end.close()

    asyncio.run(run())


async def asked(request: dict[str, Any]) -> dict[str, Any]:
    """As the client does it, in a thread of its own."""
    return await asyncio.to_thread(ask, request)


async def lines(*sent: bytes) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_unix_connection(socket_path(), limit=1 << 22)
    writer.write(b"".join(sent))
    writer.write_eof()
    async with asyncio.timeout(10):
        answers = (await reader.read()).splitlines()
    writer.close()
    return [json.loads(answer) for answer in answers]


def test_the_socket_is_in_the_runtime_directory_for_root_and_its_group(path: Path) -> None:
    async def story(end: Control) -> None:
        assert socket_path() == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660

    play(story)
    assert not path.exists()


def test_by_default_it_is_under_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert socket_path() == "/run/splitwg/control.sock"


def test_a_request_gets_its_answer() -> None:
    async def story(end: Control) -> None:
        assert await asked({"do": "status"}) == {"asked": {"do": "status"}}

    play(story)


def test_several_requests_on_one_connection_are_answered_in_order() -> None:
    async def story(end: Control) -> None:
        answers = await lines(*(b'{"do": "status", "n": %d}\n' % number for number in range(5)))
        assert [answer["asked"]["n"] for answer in answers] == [0, 1, 2, 3, 4]

    play(story)


GARBAGE = [b"\n", b"hello\n", b"{\n", b"\xff\xfe\n", b"[]\n", b"5\n", b'{"do": 5}\n', b'{"doo": "status"}\n', b"null\n"]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_told_so_and_the_next_line_is_answered(garbage: bytes) -> None:
    async def story(end: Control) -> None:
        first, second = await lines(garbage, b'{"do": "status"}\n')
        assert set(first) == {"error"}
        assert second == {"asked": {"do": "status"}}

    play(story)


@pytest.mark.parametrize("flood", [b"x" * (3 << 20), b"[" * 100_000 + b"\n", b'{"do": "status"}'])
def test_a_line_without_end_or_bottom_harms_nobody_else(flood: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def story(end: Control) -> None:
        try:
            await lines(flood)
        except OSError:
            pass  # it was hung up on
        assert await asked({"do": "status"}) == {"asked": {"do": "status"}}

    play(story)


@pytest.mark.parametrize("user", [0, os.geteuid()])
@pytest.mark.parametrize("verb", ["status", "reload", "down", "up", "teardown"])
def test_root_and_the_daemons_own_user_may_do_all(monkeypatch: pytest.MonkeyPatch, verb: str, user: int) -> None:
    monkeypatch.setattr(control, "_user", lambda sock: user)

    async def story(end: Control) -> None:
        assert await asked({"do": verb}) == {"asked": {"do": verb}}

    play(story)


@pytest.mark.parametrize("verb", ["reload", "down", "up", "teardown", "anything"])
def test_others_may_look_and_change_nothing(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setattr(control, "_user", lambda sock: 65534)
    done: list[str] = []

    async def handle(request: dict[str, Any]) -> dict[str, Any]:
        done.append(request["do"])
        return {}

    async def story(end: Control) -> None:
        await asked({"do": "status"})
        with pytest.raises(SplitwgError, match=f"only root may {verb}"):
            await asked({"do": verb})
        assert done == ["status"]

    play(story, handle)


def test_the_user_at_the_other_end_is_the_kernels_word() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert control._user(here) == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run sudo ./do test")
def test_a_child_that_is_nobody_may_look_and_not_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        monkeypatch.setenv("RUNTIME_DIRECTORY", open_to_all)

        async def story(end: Control) -> None:
            os.chmod(socket_path(), 0o666)
            python = os.path.realpath(sys.executable)
            argv = [
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                python,
                "-c",
                AS_NOBODY,
                socket_path(),
            ]
            child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
            said, _ = await child.communicate()
            assert json.loads(said) == [{"error": "only root may reload"}, {"asked": {"do": "status"}}]

        play(story)


AS_NOBODY = """
import json, socket, sys
sock = socket.socket(socket.AF_UNIX); sock.connect(sys.argv[1])
sock.sendall(b'{"do": "reload"}\\n{"do": "status"}\\n'); sock.shutdown(socket.SHUT_WR)
print(json.dumps([json.loads(line) for line in sock.makefile("rb")]))
"""


def test_what_the_daemon_refuses_is_an_error_at_the_client() -> None:
    async def refuse(request: dict[str, Any]) -> dict[str, Any]:
        raise SplitwgError("not today")

    async def story(end: Control) -> None:
        with pytest.raises(SplitwgError, match=r"^not today$"):
            await asked({"do": "status"})

    play(story, refuse)


@pytest.mark.parametrize("leave", ["a dead socket", "a file"])
def test_what_a_killed_process_left_is_replaced(path: Path, leave: str) -> None:
    path.parent.mkdir()
    if leave == "a file":
        path.write_text("")
    else:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))

    async def story(end: Control) -> None:
        assert await asked({"do": "status"})

    play(story)


def test_a_socket_that_somebody_removed_is_no_trouble_at_the_end(path: Path) -> None:
    async def story(end: Control) -> None:
        path.unlink()

    play(story)


def test_an_end_that_was_never_opened_can_be_closed() -> None:
    Control(echo).close()


def test_without_a_daemon_the_client_says_so(path: Path) -> None:
    with pytest.raises(NoDaemon, match=f"splitwgd does not answer on {path}"):
        ask({"do": "status"})
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NoDaemon, match="Connection refused"):
        ask({"do": "status"})


@pytest.mark.parametrize("said", [b"", b'{"half": ', b"nonsense\n"])
def test_a_daemon_that_ends_in_the_middle_of_its_answer_is_none(path: Path, said: bytes) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1000)
                client.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with pytest.raises(SplitwgError):
                ask({"do": "status"})
        finally:
            thread.join()


def test_without_the_right_to_ask_the_client_says_run_as_root(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("splitwgd.control.socket.socket.connect", denied)
    with pytest.raises(SplitwgError, match=f"no right to ask the daemon on {path}; run as root") as error:
        ask({"do": "status"})
    assert not isinstance(error.value, NoDaemon)
