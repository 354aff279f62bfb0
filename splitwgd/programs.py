"""The hand on the programs that manage this machine: systemctl, systemd-sysusers, resolvconf.

Says what they said. What is to be done by them is a `changes.Deed`; each can be undone, and done twice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from splitwgd.changes import Deed
from splitwgd.errors import MachineError

_RECORDS, _FOLDERS = "/run/resolvconf", ("interface", "interfaces", "keys")  # Debian's; openresolv's, to 3.13 and from
_PATIENCE = 120.0  # seconds; a start waits until the daemon answers


@dataclass(frozen=True)
class Ran:
    """How a program ended, and what it said. 127: there is no such program."""

    status: int
    text: str


class Programs:
    """The real ones."""

    def run(self, *argv: str, given: str = "") -> Ran:
        """Runs a program to its end."""
        try:
            done = subprocess.run(
                argv,
                input=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_PATIENCE,
                check=False,
            )
        except (FileNotFoundError, PermissionError):  # the latter also where a directory of PATH is not ours to search
            return Ran(127, f"there is no {argv[0]}")
        except subprocess.TimeoutExpired:
            return Ran(124, f"still not done after {_PATIENCE:.0f} s")
        return Ran(done.returncode, done.stdout.strip())

    def has(self, name: str) -> str:
        """Where a program is, or nothing."""
        return shutil.which(name) or ""

    def must(self, *argv: str, given: str = "") -> None:
        """The same, and it has to succeed. Raises MachineError with what it said."""
        ran = self.run(*argv, given=given)
        if ran.status:
            raise MachineError(f"`{' '.join(argv)}` failed: {ran.text or f'status {ran.status}'}")

    def do(self, deed: Deed) -> None:
        """Raises MachineError."""
        match deed.kind:
            case "user":
                self.must("systemd-sysusers", f"{deed.of}.conf")
            case "enable":
                self.must("systemctl", "--quiet", "enable", deed.of)
            case "resolvconf":
                record, address, *options = deed.of.split()
                ran = self.run("resolvconf", "-a", record, *options, given=f"nameserver {address}\n")
                # It fails with any hook of somebody else's, when the record is long in force.
                if ran.status and not any(os.path.exists(f"{_RECORDS}/{folder}/{record}") for folder in _FOLDERS):
                    raise MachineError(f"resolvconf does not take our record {record}: {ran.text}")
            case kind:
                raise AssertionError(kind)

    def undo(self, deed: Deed) -> None:
        """Whatever there is of it; what is gone already is fine."""
        match deed.kind:
            case "user":
                self.run("userdel", deed.of)
                self.run("groupdel", deed.of)
            case "enable":
                self.run("systemctl", "--quiet", "disable", deed.of)
            case "resolvconf":
                self.run("resolvconf", "-d", deed.of.split()[0])
