"""What systemd hears from us, on a socket of the test's."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitwgd.notify import Notify


@pytest.fixture(params=["a path", "an abstract name"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    name = f"{tmp_path}/notify" if request.param == "a path" else f"@splitwg-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(name.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


@pytest.fixture
def notify(systemd: socket.socket) -> Iterator[Notify]:
    made = Notify()
    yield made
    made._notifier.socket.close()


def test_each_word_arrives_as_systemd_wants_it(systemd: socket.socket, notify: Notify) -> None:
    notify.ready("on: 3 domains")
    assert systemd.recv(1000) == b"READY=1\nSTATUS=on: 3 domains"
    notify.reloading()
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", systemd.recv(1000))
    notify.status("closed")
    assert systemd.recv(1000) == b"STATUS=closed"
    notify.alive()
    assert systemd.recv(1000) == b"WATCHDOG=1"
    notify.stopping()
    assert systemd.recv(1000) == b"STOPPING=1"


def test_a_status_is_one_line_whatever_it_says(systemd: socket.socket, notify: Notify) -> None:
    """Else its second line would be an assignment of its own (sd_notify(3))."""
    notify.status("there is trouble:\nSTOPPING=1")
    assert b"\n" not in systemd.recv(1000)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sdnotify leaves its socket open
def test_without_systemd_every_word_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify = Notify()
    for word in (
        notify.reloading,
        notify.alive,
        notify.stopping,
        lambda: notify.ready("x"),
        lambda: notify.status("x"),
    ):
        word()


def test_a_systemd_that_has_gone_is_no_error(systemd: socket.socket, notify: Notify) -> None:
    systemd.close()
    notify.status("is anybody there?")


@pytest.mark.parametrize(
    ("interval", "owner", "every"),
    [
        ("30000000", "ours", 15.0),
        ("30000000", None, 15.0),
        ("30000000", "999999999", None),
        (None, None, None),
        ("", "ours", None),
        ("soon", "ours", None),
        ("-5", "ours", None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_interval_if_it_is_ours(
    monkeypatch: pytest.MonkeyPatch, interval: str | None, owner: str | None, every: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", interval), ("WATCHDOG_PID", str(os.getpid()) if owner == "ours" else owner)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert Notify.keep_alive_every() == every
