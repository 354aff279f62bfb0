"""How the demo speaks and measures: chapters, commands, answers, check marks, and what the ISP saw meanwhile.

Every command that is shown is the command that is run, and no fact is printed that was not measured.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from types import FrameType
from typing import TextIO

from .hosts import ROOT, Host, inhabitants
from .machine import LOG, Machine, program
from .world import Lab
from .zone import resolve

WIDTH = 80
INDENT = "   "
MARKS_AT = 38  # the column of the check marks, where the answer leaves room
LOG_LINES = 60
BURST = 30  # of lookups of new names
PATIENCE = 10.0  # seconds for the daemon to get ready, or to notice a change
HOME = "/run/demo"
_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "cyan": "36"}
_STATE = "; ".join(
    ("nft list ruleset", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all")
    + ("ip -br link", "ip -br addr", "sysctl -a 2>/dev/null | grep -E 'rp_filter|src_valid_mark|forwarding'")
)


class Story:
    """What is told, and how much of it held."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        # Only a terminal is painted, and only if its owner has nothing against it (no-color.org).
        self.colour = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.held = 0
        self.failed: list[str] = []
        self._started = time.monotonic()
        self._chapter = "the start"
        self._marks = ("✓", "✗") if out.encoding.lower().startswith("utf") else ("ok", "NO")

    def line(self, text: str = "", *colours: str) -> None:
        """One line as it is, at once."""
        print(self._paint(text, *colours), file=self.out, flush=True)

    def _paint(self, text: str, *colours: str) -> str:
        codes = ";".join(_COLOURS[colour] for colour in colours)
        return f"\x1b[{codes}m{text}\x1b[0m" if codes and self.colour else text

    def chapter(self, title: str, text: str) -> None:
        """A new chapter: its title, and in a sentence what is tried."""
        self._chapter = title
        self.line()
        self.line(title, "bold")
        self.say(text)

    def say(self, text: str, *colours: str) -> None:
        """Sentences or an answer: long lines are broken, empty ones left out."""
        for line in _wrapped(text):
            self.line(line, *colours)

    def command(self, host: str, command: str) -> None:
        """A command as it is typed."""
        self.line(f"{INDENT}{self._paint(host + '$', 'dim')} {self._paint(command, 'cyan')}")

    def check(self, answer: str, claim: str, held: bool) -> None:
        """What came back, and whether it is as claimed."""
        mark = f"{self._marks[0]} {claim}" if held else f"{self._marks[1]} expected: {claim}"
        *before, last = _wrapped(answer or "(nothing)")
        room = max(MARKS_AT, len(last) + 2)
        if room + len(mark) > WIDTH:
            before, last, room = [*before, last], "", max(0, min(MARKS_AT, WIDTH - len(mark)))
        for line in before:
            self.line(line)
        self.line(f"{last:{room}}" + self._paint(mark, "green" if held else "red"))
        if held:
            self.held += 1
        else:
            self.failed.append(f"{self._chapter}: expected: {claim}; but: {' '.join(answer.split()) or 'nothing'}")

    def broke_off(self, error: Exception) -> None:
        """It could not be told to its end; that is a failure too."""
        self.failed.append(f"{self._chapter}: broke off: {type(error).__name__}: {error}")
        self.line(f"{INDENT}{self._marks[1]} broke off", "red")

    def end(self, log: str) -> int:
        """The sum; with a failure also which, and what the daemon wrote. Returns the exit status."""
        self.line()
        if self.failed:
            self.line("The end of the daemon's log:", "bold")
            self.say("\n".join(log.splitlines()[-LOG_LINES:]) or "(it wrote nothing)", "dim")
            self.line()
        for failure in self.failed:
            for line in textwrap.wrap(failure, WIDTH, initial_indent=f"{self._marks[1]} ", subsequent_indent="  "):
                self.line(line, "red")
        total = self.held + len(self.failed)
        took = time.monotonic() - self._started
        verdict = f"{self.held} of {total} checks held in {took:.1f} s"
        self.line(verdict, "bold", "red" if self.failed else "green")
        return 1 if self.failed or not total else 0


def _wrapped(text: str) -> list[str]:
    wrapper = textwrap.TextWrapper(
        WIDTH, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False, tabsize=4
    )
    return [part for line in text.splitlines() for part in wrapper.wrap(line)]


class Stage:
    """The lab and the client in it, with its files in place, as the story is told of them."""

    def __init__(self, world: Lab, story: Story, config: str) -> None:
        self.lab = world
        self.story = story
        self.machine = Machine(world)
        self.machine.configure(config)
        self.env = {"HOME": HOME, "PATH": f"{HOME}/bin:{os.environ['PATH']}"}
        for name in ("splitwg", "splitwgd"):
            call = f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.join(program(name))} "$@"\n'
            world.client.write(f"{HOME}/bin/{name}", call, 0o755)
        for host in (world.client, world.isp):  # so that what is typed is short
            host.write(f"{HOME}/.curlrc", "silent\nshow-error\nmax-time = 3\n")
            host.write(f"{HOME}/.digrc", "+tries=1 +time=2\n")

    def start_daemon(self) -> bool:
        """Whether it got ready."""
        self.machine.start(ready=False)
        process = self.machine.process
        until(lambda: "ready: " in self.log() or process is None or process.poll() is not None)
        return "ready: " in self.log()

    def log(self) -> str:
        """What the daemon wrote; nothing if it was never started."""
        return self.lab.client.run("cat", LOG, check=False).stdout

    def state(self) -> list[str]:
        """All that a network tool could have changed in the client, and how many processes there are."""
        found = self.lab.client.run("sh", "-c", _STATE, check=False).stdout.splitlines()
        return [*found, f"{len(inhabitants(self.lab.client.netns))} processes"]

    def run(self, command: str, host: Host | None = None) -> tuple[str, int]:
        """Shows a command and runs it, in the client or elsewhere: all that it wrote, and its exit status."""
        self.story.command(host.name if host else "", command)
        try:
            done = (host or self.lab.client).run("sh", "-c", command, check=False, env=self.env)
        except subprocess.TimeoutExpired as error:
            return f"no end after {error.timeout:.0f} s", 1
        return (done.stdout + done.stderr).strip(), done.returncode

    def shell(self) -> None:
        """A shell in the client for whoever sits at the terminal, until he leaves it."""
        shell = ("bash", "--norc", "--noprofile") if shutil.which("bash") else ("sh",)
        env = ("env", *(f"{key}={value}" for key, value in self.env.items()), "PS1=client# ")
        # A handler, not SIG_IGN, which the shell would inherit: there Ctrl-C is for what runs in the shell.
        before = signal.signal(signal.SIGINT, lambda number, frame: None)
        try:
            self.lab.client.start(*env, *shell, "-i", stdin=None, start_new_session=False).wait()
        finally:
            signal.signal(signal.SIGINT, before)

    def ask(self, command: str, expected: str, claim: str, host: Host | None = None) -> None:
        """A command whose answer has to be just this."""
        answer, _ = self.run(command, host)
        self.story.check(answer, claim, answer == expected)

    def refused(self, command: str) -> None:
        """A command that has to fail, and at once."""
        started = time.monotonic()
        answer, status = self.run(command)
        took = time.monotonic() - started
        self.story.check(f"{answer}\n(after {took:.2f} s)", "refused at once", status != 0 and took < 1)

    @contextmanager
    def watched(self, *, hidden: tuple[str, ...] = (), plain: tuple[str, ...] = ()) -> Iterator[None]:
        """Says at the end of the block what the ISP saw of each name in clear: nothing, or the visit."""
        with self.lab.capture() as seen:
            yield
        for name in (*hidden, *plain):
            home = _homes(name)
            packets = sum(packet.from_client and packet.dst in home for packet in seen.packets)
            questions = len(seen.questions(name))
            claim, held = f"nothing of {name}", packets == questions == 0
            if name in plain:  # its name may be known from before
                claim, held = f"your visit to {name}", packets > 0
            self.story.check(f"ISP saw: {packets} packets, {questions} questions", claim, held)
        if hidden and seen.tunnel:
            self.story.say(f"(and {seen.tunnel} sealed packets between you and the VPN)", "dim")


def until(holds: Callable[[], bool]) -> bool:
    """Waits until it holds; whether it came to that."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _homes(name: str) -> set[str]:
    """Every address that the name, or one below it which is asked here, has or is said to have."""
    names = (name, f"www.{name}", *(f"n{number}.fresh.{name}" for number in range(BURST)))
    answers = [resolve(n, kind, honest) for n in names for kind in ("A", "AAAA") for honest in (True, False)]
    records = [record for answer in answers if answer for record in answer.records]
    return {str(ip_address(record.data)) for record in records if record.kind in ("A", "AAAA")}


class Bell:
    """Ctrl-C and SIGTERM: heard at once while the story is told, and not while the lab is built or closed."""

    def __init__(self) -> None:
        self.rung = 0
        self._audible = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ring)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        self.rung = number
        if self._audible:
            self._audible = False
            raise KeyboardInterrupt

    @contextmanager
    def heard(self) -> Iterator[None]:
        """For the length of the block it raises KeyboardInterrupt; also for what rang before."""
        self._audible = True
        try:
            if self.rung:
                raise KeyboardInterrupt
            yield
        finally:
            self._audible = False
