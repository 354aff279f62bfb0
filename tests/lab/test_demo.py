"""The demo: it tells the whole story, it can fail, and whatever way it ends nothing of it is left."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .hosts import ROOT, NotEnclosed, require_enclosure
from .story import WIDTH, Story

DEMO = (sys.executable, "-m", "tests.lab.demo")
PAINTED = {**{key: value for key, value in os.environ.items() if key != "NO_COLOR"}, "TERM": "xterm"}
CHECKS = (
    r"ready: on: 2 domains through wg0 .*\n +✓ the daemon is ready",
    r"\$ curl -4 tunneled.example\n +198\.51\.100\.130 +✓ the VPN's address\n",
    r"\$ curl -6 tunneled.example\n +2001:db8:b::2 +✓ the VPN's address\n",
    r"isp\$ dig \+short @203\.0\.113\.53 blocked.example\n +203\.0\.113\.99 +✓ the lie that others get",
    r" \$ dig \+short blocked.example\n +203\.0\.113\.40 +✓ the truth",
    r"ISP saw: 0 packets, 0 questions +✓ nothing of tunneled.example",
    r"\$ curl -4 plain.example\n +198\.51\.100\.2 +✓ your own address\n",
    r"ISP saw: [1-9]\d* packets, [1-9]\d* questions +✓ your visit to plain.example",
    r"\$ dig \+short \+tcp @192\.0\.2\.53 blocked.example AAAA\n +2001:db8:1::40 +✓ the truth",
    r"asked there: 0 by you, [1-9]\d* by ISP +✓ they never heard from you",
    r"\$ splitwg down\n.*\n +\$ curl -4 tunneled.example\n(.*\n)+? +\(after 0\.\d+ s\) +✓ refused at once",
    r"[1-9]\d* connections, 0 succeeded +✓ none\n.*[1-9]\d* packets, 0 succ.*\n.*[1-9]\d* lookups, 0 succ",
    r"\$ splitwg up\n.*\n +\$ curl -4 tunneled.example\n +198\.51\.100\.130 +✓",
    r"\$ curl -4 later.example\n +198\.51\.100\.2 +✓(.*\n)+? +later.example added\n.* 2 addresses +✓ added\n"
    r" +\$ curl -4 later.example\n +198\.51\.100\.130 +✓",
    r"\$ sed -i .*\n +in force after \d+\.\d+ s +✓ noticed by itself\n +\$ curl -4 plain.example\n +198\.51\.100\.130",
    r"\$ splitwg status .*\n +splitwg is on: .*\n",
    r" 0 of \d+ lines differ +✓ everything is gone",
)


def processes() -> dict[int, str]:
    """Every living process of the enclosure, with its network namespace."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                found[int(entry.name)] = os.readlink(entry / "ns/net")
        except OSError:  # it has ended, or is a zombie
            continue
    return found


@pytest.fixture
def enclosed() -> Iterator[None]:
    """Where the lab may stand; after the test no process, and so no namespace, is there that was not before."""
    try:
        require_enclosure()
    except NotEnclosed as error:
        pytest.skip(str(error))
    before = processes()
    yield
    assert {pid: netns for pid, netns in processes().items() if before.get(pid) != netns} == {}


@contextmanager
def demo(*options: str, **popen: Any) -> Iterator[subprocess.Popen[str]]:
    """The demo as it runs."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process: subprocess.Popen[str] = subprocess.Popen([*DEMO, *options], text=True, cwd=ROOT, **{**pipes, **popen})
    with process:
        try:
            yield process
        finally:
            process.terminate()  # which it survives only to clean up
            process.wait(30)


def read_until(process: subprocess.Popen[str], words: str) -> None:
    """Reads on to a line with these words."""
    assert process.stdout
    assert any(words in line for line in process.stdout), f"it ended without {words!r}"


@pytest.mark.usefixtures("enclosed")
def test_the_whole_story_holds() -> None:
    with demo() as process:
        told, _ = process.communicate(timeout=40)
    assert process.returncode == 0, told
    for check in CHECKS:
        assert re.search(check, told), f"{check}\n{told}"
    total = told.count("✓")
    assert re.search(rf"^{total} of {total} checks held in \d+\.\d s$", told.splitlines()[-1])
    assert total > 40
    assert "✗" not in told
    assert "\x1b" not in told
    assert [line for line in told.splitlines() if len(line) > WIDTH] == []


@pytest.mark.usefixtures("enclosed")
def test_without_the_daemon_it_fails_and_says_what() -> None:
    with demo("--without-daemon", "--keep") as process:
        told, _ = process.communicate(timeout=40)
    assert process.returncode == 1
    assert re.search(r"\$ curl -4 tunneled.example\n +198\.51\.100\.2 +✗ expected: the VPN's address\n", told)
    assert re.search(r"ISP saw: [1-9]\d* packets, [1-9]\d* questions +✗ expected: nothing of tunneled.example", told)
    assert re.search(r" +✗ expected: refused at once\n", told)
    assert re.search(r"^✗ 1  A site in the file: expected: the VPN's address; but: 198\.51\.100\.2$", told, re.M)
    held, total = map(int, re.findall(r"^(\d+) of (\d+) checks held in ", told, re.M)[0])
    assert held < total / 2
    assert "the end of the daemon's log" in told.lower()
    assert told.splitlines()[-1] == "--keep: stdin is no terminal, so there is no shell"


@pytest.mark.usefixtures("enclosed")
@pytest.mark.parametrize(
    ("words", "number"), [("your ISP", signal.SIGINT), ("$ curl", signal.SIGINT), ("splitwg down", signal.SIGTERM)]
)
def test_interrupted_it_leaves_nothing_and_shows_no_traceback(words: str, number: signal.Signals) -> None:
    with demo() as process:
        read_until(process, words)
        process.send_signal(number)
        process.send_signal(number)  # by an impatient hand
        told, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert told.splitlines()[-1] == "interrupted; everything is gone"
    assert "Traceback" not in told


@pytest.mark.usefixtures("enclosed")
def test_interrupted_while_the_lab_is_built() -> None:
    before = processes()
    with demo() as process:
        while not {pid for pid in processes() if pid not in before and pid != process.pid}:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=20)
    assert (process.returncode, told) == (130, "interrupted; everything is gone\n")


@pytest.mark.usefixtures("enclosed")
def test_keep_gives_a_shell_in_the_client_with_the_daemon_running_once_more() -> None:
    ours, its = os.openpty()
    with demo("--keep", stdin=its, stdout=its, stderr=its, start_new_session=True, env=PAINTED) as process:
        os.close(its)
        told = type_and_read(
            ours, "client# ", "curl -4 tunneled.example plain.example; splitwg status | head -n 1; exit\n"
        )
    os.close(ours)
    assert process.returncode == 0
    assert "\x1b[32m✓ the VPN's address\x1b[0m" in told
    before, _, shell = told.partition("You are in the client now")
    assert re.search(r"(\d+) of \1 checks held", before)
    assert "198.51.100.130\r\n198.51.100.2\r\nsplitwg is on: listed sites go through wg0, last handshake " in shell


def type_and_read(terminal: int, prompt: str, text: str) -> str:
    """Types the text at the first prompt; all that is shown until nobody has the terminal any more."""
    told = ""
    typed = False
    while True:
        try:
            told += os.read(terminal, 65536).decode()
        except OSError:  # hung up
            return told
        if not typed and prompt in told:
            os.write(terminal, text.encode())
            typed = True


def test_outside_of_the_enclosure_it_refuses_in_a_sentence() -> None:
    env = {key: value for key, value in os.environ.items() if key != "SPLITWG_OUTER_NETNS"}
    done = subprocess.run(DEMO, cwd=ROOT, env=env, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"demo: .* sudo \./do test\n", done.stderr)


class Terminal(io.TextIOWrapper):
    """A terminal that keeps what is shown on it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("env", "painted"), [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, False)]
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], painted: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    with Terminal(io.BytesIO(), encoding="utf-8") as shown:
        Story(shown).check("it came back", "as claimed", held=True)
        shown.seek(0)
        assert ("\x1b[32m" in shown.read()) == painted


def test_what_did_not_hold_is_named_with_the_log_and_nothing_is_too_wide() -> None:
    shown = io.BytesIO()
    story = Story(io.TextIOWrapper(shown, encoding="ascii"))
    story.chapter("1  A chapter", "A sentence " * 20)
    story.check("word " * 30, "short", held=True)
    story.check("", "an answer", held=False)
    story.broke_off(RuntimeError("no cable"))
    assert story.end("12:00:00 INFO  the daemon said " + "this " * 30) == 1
    lines = shown.getvalue().decode("ascii").splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "   (nothing)                          NO expected: an answer" in lines
    assert "NO 1  A chapter: broke off: RuntimeError: no cable" in lines
    assert "   12:00:00 INFO  the daemon said this this this this this this this this this" in lines
    assert lines[-1].startswith("1 of 3 checks held")


def test_a_story_without_a_check_is_no_success() -> None:
    assert Story(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")).end("") == 1
