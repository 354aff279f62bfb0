"""`splitwg setup` and its undoing, step by step: look, decide, write down, change; and the machine's DNS last of all.

There is no moment without DNS: the daemon answers before the machine is led to it, and the machine is led back before
the daemon stops. What fails half-way is rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from splitwgd import installing, takeover
from splitwgd.changes import DNS, UNITS, Book, Change, File, Step, describe
from splitwgd.config import Config, load_config
from splitwgd.control import NoDaemon, ask
from splitwgd.errors import ConfigError, MachineError, Problem
from splitwgd.files import Tree
from splitwgd.installing import DAEMON, DOMAINS, GUARD, USERS, USUAL_WIREGUARD, WIREGUARD, named_wireguard
from splitwgd.machine import is_active, look, scene, shared
from splitwgd.programs import Programs
from splitwgd.recorder import Recorder
from splitwgd.removal import remove_from_kernel
from splitwgd.resolvers import network_servers
from splitwgd.store import Disk, with_values
from splitwgd.wgconf import parse_wgconf

_STATE = "/var/lib/splitwg"


@dataclass(frozen=True)
class Prepared:
    """What setup will do. `shown`: the same for a person; empty where all is so already."""

    steps: tuple[Step, ...]
    shown: tuple[str, ...]
    notes: tuple[str, ...]


class _Planned(Disk):
    """The files as they will be."""

    def __init__(self, tree: Tree, planned: Mapping[str, bytes]) -> None:
        super().__init__()
        self.tree = tree
        self.planned = planned

    def read(self, path: str) -> bytes:
        return self.planned[path] if path in self.planned else super().read(self.tree.real(path))


class Setup:
    """One machine; everything of it below the tree's root."""

    def __init__(self, tree: Tree, programs: Programs) -> None:
        self.tree = tree
        self.programs = programs
        self.recorder = Recorder(tree, programs, {**installing.AFTER, **takeover.AFTER})

    # -- setup

    def prepare(self, source: str | None) -> Prepared:
        """Looks and decides; changes nothing. source: the user's wg-quick file. Raises MachineError with everything
        that has to be mended first, ConfigError for what is wrong in the files."""
        wireguard, domains = self._files(source)
        config = load_config(DOMAINS, _Planned(self.tree, {WIREGUARD: wireguard, DOMAINS: domains.encode()}))
        machine = look(self.tree, self.programs, config.listen)
        if hindrances := installing.hindrances(machine):
            raise MachineError("\n".join(hindrances))
        stage = scene(self.tree, self.programs)
        if problems := takeover.problems(stage, config.listen, DOMAINS):
            raise ConfigError(problems)
        texts = {} if machine.packaged else {name: shared(name) for name in (USERS, DAEMON, GUARD)}
        steps = [*installing.configuration(domains, wireguard), *installing.service(machine, texts)]
        wanted = self.recorder.wanting(steps)
        shown = self._show(wanted)
        if wanted or not is_active(self.programs, DAEMON):
            shown.append(f"start   {DAEMON}, {GUARD}")
        dns = self.recorder.wanting(takeover.take(stage, config.listen, config.redirect, config.auto))
        shown += self._show(dns)
        for step in dns:
            if isinstance(step, Change) and step.path in takeover.AFTER:
                words = (word for word in takeover.AFTER[step.path] if not word.startswith("--"))
                shown.append(" ".join(("run    ", *words)))
        return Prepared(tuple(wanted), tuple(shown), config.notes)

    def _show(self, steps: list[Step]) -> list[str]:
        lines = []
        for step in steps:
            lines += describe(step, self.tree.read(step.path) if isinstance(step, Change) else None)
        return lines

    def _files(self, source: str | None) -> tuple[bytes, str]:
        """The WireGuard file and domains.toml, as they will be."""
        existing = self.tree.read(DOMAINS)
        if existing is not None and not isinstance(existing, File):
            raise MachineError(f"{DOMAINS} is no plain file; move it away, or put its target in its place")
        here = (WIREGUARD, named_wireguard(existing.data) if existing else "", USUAL_WIREGUARD)
        path = source or next((path for path in here if path and self.tree.exists(path)), None)
        if path is None:
            problem = Problem(USUAL_WIREGUARD, "there is no such file", "name your VPN's: splitwg setup FILE")
            raise ConfigError([problem])
        real = path if source else self.tree.real(path)
        try:
            with open(real, "rb") as file:
                wireguard = file.read()
            text = wireguard.decode("utf-8-sig")
        except OSError as error:
            raise ConfigError([Problem(path, f"cannot be read ({error.strerror})", "check owner and mode")]) from error
        except ValueError as error:
            raise ConfigError([Problem(path, "is not UTF-8", "this has to be a wg-quick file")]) from error
        _, problems = parse_wgconf(text, path)
        if problems:
            raise ConfigError(problems)
        example = shared("domains.toml").encode()
        if existing and existing.data != example:
            return wireguard, with_values(DOMAINS, existing.data, {"wireguard.config": WIREGUARD})
        auto = bool(network_servers(_Planned(self.tree, {}), ()))
        return wireguard, with_values("domains.toml", example, installing.settings(text, auto))

    def carry_out(self, prepared: Prepared) -> list[str]:
        """Does it. On any error, or Ctrl-C, what was done is taken back; then the error goes on."""
        was_active = is_active(self.programs, DAEMON)
        recorder = self.recorder
        with recorder.locked():
            before = recorder.book() if recorder.is_set_up else None
        try:
            with recorder.locked():
                recorder.make(prepared.steps)
            # Not locked: the unit itself takes the DNS when the daemon is ready, and we only see to it below.
            if prepared.steps or not was_active:
                self._start(was_active)
            return self.take()
        except BaseException as error:
            if left := self._take_back(before, was_active):
                raise MachineError("\n".join([str(error), "and not all of it could be taken back:", *left])) from error
            raise

    def _take_back(self, before: Book | None, was_active: bool) -> list[str]:
        if not was_active:
            self.programs.run("systemctl", "stop", DAEMON, GUARD)
            remove_from_kernel(DOMAINS)
        with self.recorder.locked():
            if not any(entry.group == DNS for entry in before or ()):
                self.recorder.undo((DNS,))  # the unit itself may have taken it
            return self.recorder.roll_back(before)

    def _start(self, was_active: bool) -> None:
        # Without the guard, which would close before there is a daemon that answers: at boot that is right, now there
        # are programs that ask.
        first = ("restart",) if was_active else ("start", "--job-mode=ignore-dependencies")
        for words in ((*first, DAEMON), ("start", GUARD)):
            ran = self.programs.run("systemctl", *words)
            if ran.status:
                said = self.programs.run("journalctl", "-u", words[-1], "-n", "5", "-o", "cat", "--no-pager").text
                raise MachineError(f"{words[-1]} does not start: {ran.text}\n{said}")

    # -- the machine's DNS

    def take(self) -> list[str]:
        """Leads the machine's DNS to the daemon, if the machine was set up. Returns what was done."""
        if not self.recorder.is_set_up:
            return []
        try:
            ask({"do": "status"})
        except NoDaemon as error:
            raise MachineError(f"{error}; the machine's DNS stays as it is") from error
        config = self._config()
        with self.recorder.locked():
            stage = scene(self.tree, self.programs)
            if problems := takeover.problems(stage, config.listen, DOMAINS):
                raise ConfigError(problems)
            steps = takeover.take(stage, config.listen, config.redirect, config.auto)
            wanted = self.recorder.wanting(steps)
            self.recorder.make(steps)
        return [line for step in wanted for line in describe(step)]

    def give_back(self) -> list[str]:
        """Leads it where it went before. Returns what a person has to know."""
        if not self.recorder.is_set_up:
            return []
        with self.recorder.locked():
            return self.recorder.undo((DNS,))

    def tear_down(self, path: str) -> list[str]:
        """Gives the DNS back and removes everything from the kernel. path: the configuration's."""
        try:
            return self.give_back()
        finally:
            remove_from_kernel(path)

    def _config(self) -> Config:
        return load_config(DOMAINS, _Planned(self.tree, {}))

    # -- revert

    def revert(self, purge: bool) -> list[str]:
        """Brings the machine back to what it was before setup, however far that came. Returns what a person has to
        know. purge: the configuration and what was learned go as well."""
        told = []
        if self.recorder.is_set_up:
            told += self.give_back()
            self.programs.run("systemctl", "stop", DAEMON, GUARD)
            remove_from_kernel(DOMAINS)
            with self.recorder.locked():
                told += self.recorder.undo((UNITS,))
                self.recorder.forget()
            self.programs.run("systemctl", "reset-failed", DAEMON, GUARD)
        if purge:
            self.tree.remove_all(installing.FOLDER)
            self.tree.remove_all(_STATE)
        return told
