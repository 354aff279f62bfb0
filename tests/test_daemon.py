"""The program splitwgd as far as it needs no root: --check, wrong configurations, its words and exit status, and
what it makes of a configuration. The rest: tests/kernel/test_daemon_runs.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from splitwgd import __version__
from splitwgd.config import Config, load_config
from splitwgd.daemon import Daemon
from splitwgd.store import Disk
from tests.worlds import WG, make_config

TOML = """
[dns]
tunneled = ["10.1.0.1"]
default = ["9.9.9.9"]
[tunneled]
domains = ["github.com", "example.org"]
[wireguard]
config = "wg0.conf"
"""
# As the entry point of the package does it.
PROGRAM = "import sys; from splitwgd.daemon import main; sys.argv[0] = 'splitwgd'; main()"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "wg0.conf").write_text(WG)
    (tmp_path / "domains.toml").write_text(TOML)
    return tmp_path / "domains.toml"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("JOURNAL_STREAM", "NOTIFY_SOCKET")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parent.parent,
        text=True,
        timeout=30,
        env=clean | environment,
    )


def check(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("--check", "--config", str(path), **environment)


def test_a_configuration_in_order_is_said_to_be_so_and_nothing_is_started(path: Path) -> None:
    done = check(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path} is in order: 2 domains\n"


def test_the_names_of_lists_are_counted_too(path: Path) -> None:
    (path.parent / "more.txt").write_text("a.example\nb.example\n")
    path.write_text(TOML.replace("[tunneled]", '[tunneled]\nlists = ["*.txt"]'))
    assert check(path).stdout == f"{path} is in order: 4 domains\n"


def test_what_of_the_wg_quick_file_is_not_followed_is_told(path: Path) -> None:
    (path.parent / "wg0.conf").write_text(WG.replace("[Peer]", "PostUp = touch /tmp/x\n[Peer]", 1))
    done = check(path)
    assert done.returncode == 0
    assert f"{path.parent}/wg0.conf:5: not run: PostUp = touch /tmp/x" in done.stdout


@pytest.mark.parametrize("start", [True, False])
def test_every_problem_is_told_once_with_its_place_and_the_exit_status_is_2(path: Path, start: bool) -> None:
    path.write_text(
        TOML.replace("10.1.0.1", "10.1.0").replace("github.com", "git hub").replace("[dns]", "[dns]\nlisen = []")
    )
    done = run("--config", str(path), *([] if start else ["--check"]))
    assert done.returncode == 2 and done.stdout == ""
    problems = done.stderr.splitlines()
    for place in ("dns.lisen", "dns.tunneled[0]", "tunneled.domains[0]"):
        assert len([line for line in problems if f"{path}: {place}" in line]) == 1
    assert problems[-1].endswith("splitwgd does not start with this configuration (3 to mend)")
    assert len(problems) == 4


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "there is no such file; write one"),
        (lambda path: path.write_text("[dns"), "is not TOML"),
        (lambda path: path.write_bytes(b"\xff"), "is not UTF-8 (byte 0)"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read (Is a directory)"),
        (lambda path: (path.parent / "wg0.conf").unlink(), "wg0.conf cannot be read (No such file or directory)"),
        (lambda path: (path.parent / "wg0.conf").write_text("[Interface]\n"), "[Interface] has no PrivateKey"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_message(path: Path, spoil: object, words: str) -> None:
    spoil(path)  # type: ignore[operator]
    done = check(path)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr


def test_a_private_key_is_never_repeated_in_a_message(path: Path) -> None:
    (path.parent / "wg0.conf").write_text(WG.replace("PrivateKey = ", "PrivateKey = SECRET"))
    done = check(path)
    assert done.returncode == 2 and "PrivateKey is no WireGuard key" in done.stderr
    assert "SECRET" not in done.stderr + done.stdout


def test_in_the_journal_each_line_has_its_level_and_no_time(path: Path) -> None:
    path.write_text("[dns")
    lines = check(path, JOURNAL_STREAM="8:1").stderr.splitlines()
    assert lines and all(line.startswith("<2>") for line in lines)


def test_a_relative_path_is_told_in_full(path: Path) -> None:
    path.unlink()
    done = run("--check", "--config", os.path.relpath(path, Path(__file__).parent.parent))
    assert f"{path}: there is no such file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--version"], 0, f"splitwgd {__version__}"),
        (["--help"], 0, "--check"),
        (["--chekc"], 2, "unrecognized arguments: --chekc"),
        (["--config"], 2, "expected one argument"),
        (["up"], 2, "unrecognized arguments: up"),
    ],
)
def test_the_call(arguments: list[str], status: int, words: str) -> None:
    done = run(*arguments)
    assert done.returncode == status
    assert words in done.stdout + done.stderr
    assert (done.stdout + done.stderr).startswith(("usage: splitwgd", "splitwgd "))


# -- from the inside


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a socket to talk to, the library leaves its own unclosed."""
    monkeypatch.setattr("sdnotify.SystemdNotifier", lambda: SimpleNamespace(notify=lambda text: None))


def play(story: Callable[[Daemon], Awaitable[None]], config: Config | None = None) -> None:
    """With a daemon that has been made and not started: it has touched nothing yet."""

    async def run() -> None:
        daemon = Daemon(config or make_config())
        daemon._line = unknown  # type: ignore[method-assign]
        try:
            await story(daemon)
        finally:
            daemon.watcher.close()
            daemon.forwarder.upstreams.close()
            await daemon.reconciler.close()

    async def unknown() -> str:
        return "unknown"

    asyncio.run(run())


def test_numbers_and_switches_reach_their_places() -> None:
    async def story(daemon: Daemon) -> None:
        def settings() -> list[object]:
            forwarder = daemon.forwarder
            cache, upstreams = forwarder.cache, forwarder.upstreams
            kept = [cache.size, cache.memory, cache.stale_for, upstreams.ttl_bounds, upstreams.mix_case]
            return [*kept, daemon.ledger.min_lifetime]

        assert settings() == [77, 3 << 20, 60, (5, 500), True, 7200]
        daemon._adjust(make_config())
        assert settings() == [10_000, 64 << 20, 86_400, (0, 86_400), False, 3600]

    dns = "cache_size = 77\ncache_memory = 3\nstale = 60\nmin_ttl = 5\nmax_ttl = 500\nmix_case = true"
    play(story, make_config(dns=dns, routing="min_lifetime = 7200"))


def test_replies_that_are_ready_are_the_listeners() -> None:
    async def story(daemon: Daemon) -> None:
        assert daemon.listener.ready is daemon.forwarder.ready

    play(story)


def test_a_mistake_is_told_once_unless_a_reload_was_asked_for(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(str(path), Disk())
    path.write_text("[dns")

    async def story(daemon: Daemon) -> None:
        for forced in (False, False, True, False):
            await daemon._try_reload(forced)
        assert daemon.config is config

    play(story, config)
    assert len([record for record in caplog.records if "is not TOML" in record.getMessage()]) == 2


def test_an_unknown_command_is_told() -> None:
    async def story(daemon: Daemon) -> None:
        assert await daemon._command({"do": "dance"}) == {"error": "there is no 'dance'"}
        assert not daemon.stopped.is_set()
        assert await daemon._command({"do": "teardown"}) == {"pid": os.getpid()}
        assert daemon.stopped.is_set() and daemon.teardown

    play(story)
