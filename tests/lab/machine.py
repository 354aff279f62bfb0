"""The client of the lab with splitwgd on it: writes its files, starts and ends the daemon, asks the client.

Everything is the real thing under its ordinary path; only the names of the two programs come from here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

from .world import Lab

DOMAINS = "/etc/splitwg/domains.toml"
WIREGUARD = "/etc/wireguard/wg0.conf"
LOG = "/run/splitwgd.log"
RESOLV = "/etc/resolv.conf"
CONFIG = """\
# The lab's configuration.
[dns]
tunneled = ["10.1.0.1"]
default = ["203.0.113.53", "203.0.113.54"]

[tunneled]
domains = [
    "tunneled.example",  # with all below
    "blocked.example",
]
"""


def program(name: str) -> list[str]:
    """How to start splitwgd or splitwg: the installed script, else the module by the same Python."""
    script = Path(sys.executable).parent / name
    module = {"splitwgd": "daemon", "splitwg": "cli"}[name]
    return [str(script)] if script.exists() else [sys.executable, "-c", f"from splitwgd.{module} import main; main()"]


class Machine:
    """splitwgd in the lab's client."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.process: subprocess.Popen[str] | None = None
        self.configure(CONFIG)
        lab.client.write(WIREGUARD, lab.wg_conf, 0o600)
        self._before = lab.client.read(RESOLV)
        lab.client.write(RESOLV, "nameserver 127.0.0.53\n")

    def configure(self, text: str) -> None:
        """Writes domains.toml, without a word to the daemon."""
        self.lab.client.write(DOMAINS, text)

    def start(self, ready: bool = True, env: dict[str, str] | None = None) -> None:
        """Starts the daemon; returns when it is ready (or has ended, if it never will be)."""
        self.lab.client.write(LOG, "")
        into = ["sh", "-c", f'exec "$@" 2>>{LOG}', "sh", *program("splitwgd")]
        self.process = self.lab.client.start(*([*_env(env), *into]))
        if ready:
            self.wait_for_log("ready: ", 90)  # emulated, it takes its time

    def log(self) -> str:
        """What the daemon wrote since its start."""
        return self.lab.client.read(LOG)

    def wait_for_log(self, words: str, patience: float = 20) -> None:
        """Until the daemon has said this."""
        self.wait_for(lambda: words in self.log(), f"{words!r} in the log", patience)

    def wait_for(self, holds: Any, what: str, patience: float = 20) -> None:
        """Until it holds; an AssertionError with the daemon's log when it does not come true."""
        deadline = time.monotonic() + patience
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {patience} s in vain for {what}; the log:\n{self.log()}")
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """To the daemon alone, not to what it started."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: int = SIGTERM) -> int:
        """Ends the daemon by a signal; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(timeout=15)
        self.process = None
        return status

    def splitwg(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The client program."""
        return self.lab.client.run(*program("splitwg"), *words, check=check, timeout=30)

    def status(self) -> dict[str, Any]:
        """`splitwg status --json`."""
        found: dict[str, Any] = json.loads(self.splitwg("status", "--json", check=False).stdout)
        return found

    def dig(self, *words: str, server: str = "127.0.0.53") -> list[str]:
        """`dig +short` at the daemon (or another server), by lines."""
        words = ("dig", "+short", "+tries=1", "+timeout=6", f"@{server}", *words)
        return self.lab.client.run(*words, check=False).stdout.split()

    def rcode(self, name: str, *words: str) -> str:
        """The status that dig shows for a name."""
        answer = self.lab.client.run("dig", "+tries=1", "+timeout=6", "@127.0.0.53", name, *words, check=False).stdout
        return answer.partition("status: ")[2].partition(",")[0]

    def clean(self) -> None:
        """Whatever the test did: no daemon, nothing of it in the kernel, and the lab's own DNS server again."""
        if self.process is not None and self.process.poll() is None:
            self.end(SIGKILL)
        self.splitwg("teardown")
        self.lab.client.run("sh", "-c", "rm -f /var/lib/splitwg/*")  # the next test has learned nothing yet
        self.lab.client.write(RESOLV, self._before)


def _env(env: dict[str, str] | None) -> list[str]:
    return ["env", *(f"{key}={value}" for key, value in env.items())] if env else []
