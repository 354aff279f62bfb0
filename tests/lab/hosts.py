"""One machine of the lab: a network and a mount namespace held open by one sleeping process.

What a host writes under /run, /etc and /var/lib stays in its memory and ends with it.  Refuses to
start anywhere but inside the enclosure, so that no command can reach the machine's own network.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# The machine's own /etc/wireguard is hidden too: no real key is ever readable in the lab.
# A fresh sysfs shows the interfaces of the host instead of those of the machine.
_HOLD = """
set -e
mount -t tmpfs -o mode=755 lab /run
for dir in etc var/lib; do
    mkdir -p /run/.lab/$dir/upper /run/.lab/$dir/work
    mount -t overlay -o lowerdir=/$dir,upperdir=/run/.lab/$dir/upper,workdir=/run/.lab/$dir/work lab /$dir
done
for dir in /etc/splitwg /etc/wireguard /var/lib/splitwg; do
    mkdir -p $dir
    mount -t tmpfs -o mode=700 lab $dir
done
mount -t sysfs lab /sys
rm -f /etc/resolv.conf /etc/hosts
printf 'nameserver %s\\n' "$2" > /etc/resolv.conf
printf '127.0.0.1 localhost\\n::1 localhost\\n127.0.1.1 %s\\n' "$1" > /etc/hosts
ip link set lo up
echo ready
exec sleep infinity
"""


class NotEnclosed(RuntimeError):
    """The lab was asked to start where it could touch the machine's own network."""


def require_enclosure() -> None:
    """Refuse to go on unless this process is root in a network namespace that is not the machine's."""
    outer = os.environ.get("SPLITWG_OUTER_NETNS")
    if os.geteuid() != 0:
        raise NotEnclosed("the lab needs root: run sudo ./do test")
    if not outer:
        raise NotEnclosed("SPLITWG_OUTER_NETNS is not set: start the lab by sudo ./do test")
    if outer == os.readlink("/proc/self/ns/net"):
        raise NotEnclosed("this is the machine's own network namespace: start the lab by sudo ./do test")


def inhabitants(netns: str) -> list[int]:
    """The living processes inside a network namespace, which is given as readlink shows it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/net") == netns:
                found.append(int(entry.name))
        except OSError:  # it has ended meanwhile, or is a zombie
            continue
    return found


class Host:
    """A machine of the lab.  Whatever runs in it is ended by close(), daemons included."""

    def __init__(self, name: str, nameserver: str) -> None:
        require_enclosure()
        self.name = name
        self._children: list[subprocess.Popen[str]] = []
        # A session of its own: Ctrl-C is for the test run, which then closes its hosts in order.
        unshare = ("unshare", "--net", "--mount", "--propagation", "private")
        holder = subprocess.Popen(
            [*unshare, "sh", "-c", _HOLD, "sh", name, nameserver],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert holder.stdout
        if holder.stdout.readline() != "ready\n":
            with holder:
                holder.kill()
            raise RuntimeError(f"cannot build the host {name!r}")
        self._children.append(holder)
        self.pid = holder.pid
        self.netns = os.readlink(f"/proc/{holder.pid}/ns/net")

    def _inside(self, argv: tuple[str, ...]) -> list[str]:
        # Both nsenter and env replace themselves: the process id is that of the program itself.
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "env", f"--chdir={ROOT}", *argv]

    def run(
        self,
        *argv: str,
        check: bool = True,
        timeout: float = 15,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the host to its end; `env` is added to the environment."""
        done = subprocess.run(
            self._inside(argv),
            check=False,
            timeout=timeout,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
        )
        if check and done.returncode != 0:
            error = subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
            error.add_note(f"on {self.name}: {done.stdout}{done.stderr}")
            raise error
        return done

    def start(self, *argv: str, **popen: Any) -> subprocess.Popen[str]:
        """Start a program inside the host; end it by its own pid, close() does so at the latest."""
        options = {"stdin": subprocess.DEVNULL, "text": True, "start_new_session": True, **popen}
        child: subprocess.Popen[str] = subprocess.Popen(self._inside(argv), **options)
        self._children.append(child)
        return child

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file as the host sees it, with the directories above it."""
        script = 'mkdir -p "${1%/*}" && cat > "$1" && chmod "$2" "$1"'
        self.run("sh", "-c", script, "sh", path, f"{mode:o}", input=text)

    def read(self, path: str) -> str:
        """The text of a file as the host sees it."""
        return self.run("cat", path).stdout

    def close(self) -> None:
        """End every process inside the host and, with the last of them, its namespaces."""
        deadline = time.monotonic() + 5
        while pids := inhabitants(self.netns):
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {pids} on {self.name} do not end")
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.005)
        for child in self._children:
            with child:  # reaps it and closes its pipes
                pass
