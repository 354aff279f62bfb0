"""One server under test, alone in a client of its own: starts it, loads it, reads its clocks, ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..lab.hosts import Host, inhabitants
from .dnsperf import Load, parse_load
from .names import TUNNELED, Questions
from .peers import Peer

# Not beside the files that the server watches.
SAID = "/run/said"
_LOG, _REPORT = f"{SAID}/server", f"{SAID}/dnsperf"
PATIENCE = 120.0  # seconds for an answer after a start
_TICK = os.sysconf("SC_CLK_TCK")


class Machine:
    """The server `peer` in `host`, kept to one core."""

    def __init__(self, peer: Peer, host: Host, core: int) -> None:
        self.peer = peer
        self.host = host
        self.core = core
        self.process: subprocess.Popen[str] | None = None

    def install(self, domains: Sequence[str]) -> None:
        """Writes what the server reads."""
        for path, text in self.peer.files(domains).items():
            self.host.write(path, text)

    def start(self) -> float:
        """Starts the server; the seconds until it answers a question for the last of the listed names."""
        probe = self.probe(f"n1.{TUNNELED}")
        begin = time.monotonic()
        onto_core = ("taskset", "-c", str(self.core))
        self.process = self.host.start("sh", "-c", f'exec "$@" >>{_LOG} 2>&1', "sh", *onto_core, *self.peer.argv)
        return self.answered(probe) - begin

    def probe(self, name: str) -> subprocess.Popen[str]:
        """Begins to ask for a name, until there is an answer."""
        probe = self.host.start(sys.executable, "-m", "tests.bench.probe", name, stdout=subprocess.PIPE)
        assert probe.stdout
        probe.stdout.readline()
        return probe

    def answered(self, probe: subprocess.Popen[str]) -> float:
        """When the answer came, by time.monotonic(). Raises RuntimeError when the server has ended or is silent."""
        assert probe.stdout and self.process
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                probe.wait(0.5)
                return float(probe.stdout.read())
            except subprocess.TimeoutExpired:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    probe.kill()
                    said = self.host.read(_LOG).strip()[-2000:]
                    raise RuntimeError(f"{self.peer.name} does not answer; it said: {said}") from None

    def stop(self) -> None:
        """Ends the server, as systemd would."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    # -- load

    def load(self, questions: Questions, *options: str) -> Load:
        """One run of dnsperf."""
        return parse_load(self.host.run(*_dnsperf(questions, options), timeout=300).stdout)

    def begin_load(self, questions: Questions, *options: str) -> subprocess.Popen[str]:
        """The same, while something else happens; `end_load` waits for it."""
        into = ("sh", "-c", f'exec "$@" >{_REPORT}', "sh")
        return self.host.start(*into, *_dnsperf(questions, options))

    def end_load(self, process: subprocess.Popen[str]) -> Load:
        """What came of it."""
        process.wait(300)
        return parse_load(self.host.read(_REPORT))

    # -- clocks and sets

    def _processes(self) -> list[Path]:
        """The server and what it started."""
        assert self.process is not None
        # Host starts a program as the leader of a session of its own.
        return [Path(f"/proc/{pid}") for pid in inhabitants(self.host.netns) if os.getsid(pid) == self.process.pid]

    def processor_seconds(self) -> float:
        """What the server has used so far, all threads, user and kernel mode."""
        ticks = 0
        for process in self._processes():
            words = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += int(words[11]) + int(words[12])  # utime, stime: proc(5) counts them as 14 and 15
        return ticks / _TICK

    def memory(self) -> dict[str, float]:
        """Resident, proportional and highest resident size, in bytes."""
        found = {"rss": 0.0, "pss": 0.0, "peak": 0.0}
        for process in self._processes():
            status, rollup = _sizes(process / "status"), _sizes(process / "smaps_rollup")
            found["rss"] += status["VmRSS"]
            found["peak"] += status["VmHWM"]
            found["pss"] += rollup["Pss"]
        return found

    def fill(self, addresses: Iterable[str]) -> None:
        """Puts addresses into the server's set, as if it had learned them before."""
        addresses = list(addresses)
        for start in range(0, len(addresses), 10_000):
            elements = ", ".join(f"{address} timeout 1h" for address in addresses[start : start + 10_000])
            text = f"add element inet wg_routing wg_domains4 {{ {elements} }}"
            self.host.run("nft", "-f", "-", input=text, timeout=120)

    def set_size(self) -> int:
        """How many addresses the set holds."""
        listing = self.host.run("nft", "list", "set", "inet", "wg_routing", "wg_domains4", timeout=60).stdout
        return listing.count(" expires ")


def _dnsperf(questions: Questions, options: Iterable[str]) -> tuple[str, ...]:
    return ("dnsperf", "-s", "127.0.0.1", "-d", str(questions.path), *options)


def _sizes(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}
