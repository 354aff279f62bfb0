"""Every error that splitwg raises on purpose, by what its reader can do about it.

Four kinds and no more: mend the configuration, mend the machine, try again later, drop the packet.
"""

from __future__ import annotations

from dataclasses import dataclass


class SplitwgError(Exception):
    """All errors raised by this package. `exit_status` is what a program that dies of it returns."""

    exit_status = 1


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file, worded for the person who has to mend it.

    where: the file, and the key or line in it ("/etc/splitwg/domains.toml: dns.tunneled[0]").
    what: what was found there and why it cannot be.
    remedy: what to write instead.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


class ConfigError(SplitwgError):
    """The configuration cannot be used. Carries every problem, not the first one."""

    exit_status = 2

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class MachineError(SplitwgError):
    """This machine lacks something, or another program holds it: says what, and what to do."""


class KernelError(SplitwgError):
    """The kernel refused a change. What was in force before is still in force."""


class MissingError(KernelError):
    """What was to be changed is not there: somebody has deleted the table or a set of it."""


class UpstreamError(SplitwgError):
    """No server of a group gave a usable answer: says which were asked and what each did.

    no_way: none could even be asked, because the link or the route to them is missing.
    """

    def __init__(self, text: str, no_way: bool = False) -> None:
        super().__init__(text)
        self.no_way = no_way


class MessageError(SplitwgError):
    """These bytes are not a DNS message that we can act on."""
