"""Runs in the booted machine, as a unit after splitwgd: does to it what people and crashes do, and writes what came.

Needs nothing but Python; the report is one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROPERTIES = "ActiveState,Result,NRestarts,MainPID,StatusText,ActiveEnterTimestampMonotonic"
DOMAINS = Path("/etc/splitwg/domains.toml")


def sh(command: str) -> str:
    """What a command says."""
    return subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=20).stdout.strip()


def show(unit: str) -> dict[str, str]:
    """What systemd knows of a unit."""
    return dict(line.split("=", 1) for line in sh(f"systemctl show -p {PROPERTIES} {unit}").splitlines())


def until(holds: Callable[[], Any], patience: float = 10) -> bool:
    """Whether it came true."""
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def restarted(number: int) -> bool:
    """Whether it is active again after so many restarts by systemd."""
    found = show("splitwgd")
    return found["NRestarts"] == str(number) and found["ActiveState"] == "active"


def answered() -> bool:
    """Whether somebody answers on port 53."""
    question = b"\0\1\1\0\0\1\0\0\0\0\0\0\x09localhost\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        sock.sendto(question, ("127.0.0.53", 53))
        return sock.recv(512).endswith(bytes((127, 0, 0, 1)))


def closed() -> bool:
    """Whether table, blackhole and rule stand."""
    kernel = sh("nft list tables; ip rule; ip route show table 100")
    return all(words in kernel for words in ("inet wg_routing", "lookup 100", "blackhole default"))


def story() -> dict[str, Any]:
    """From the boot to a stop."""
    found: dict[str, Any] = {"guard": show("splitwgd-guard"), "start": show("splitwgd")}
    found["network-pre"] = show("network-pre.target")
    found["status"] = json.loads(sh("splitwg status --json") or "null")
    found["answered"] = answered()
    DOMAINS.write_text(DOMAINS.read_text().replace('"one.example"', '"one.example", "two.example"'))
    found["reload says"] = sh("systemctl reload splitwgd 2>&1")
    found["reloaded"] = until(lambda: "2 domains" in show("splitwgd")["StatusText"])
    found["pid kept"] = show("splitwgd")["MainPID"] == found["start"]["MainPID"]
    os.kill(int(show("splitwgd")["MainPID"]), signal.SIGSTOP)
    found["hung: restarted"] = until(lambda: restarted(1))
    os.kill(int(show("splitwgd")["MainPID"]), signal.SIGKILL)
    found["killed: closed"] = closed()
    found["killed: restarted"] = until(lambda: restarted(2))
    wireguard = sh("pidof wireguard-go")
    sh("systemctl restart splitwgd")
    found["restart"] = show("splitwgd")
    found["wireguard goes on"] = bool(wireguard) and sh("pidof wireguard-go") == wireguard
    sh("systemctl stop splitwgd")
    found["stop"] = show("splitwgd")
    found["state file"] = sh("stat -c %a /var/lib/splitwg/learned.json")
    found["stopped: closed"] = closed()
    thief = subprocess.Popen([sys.executable, "-Ic", HOLD], stdout=subprocess.PIPE)
    assert thief.stdout is not None and thief.stdout.readline()
    sh("systemctl start splitwgd")
    found["who has the port"] = sh("journalctl -u splitwgd -o cat | grep 'taken by'")
    thief.kill()
    found["given up"] = not until(lambda: show("splitwgd")["ActiveState"] == "active")
    found["failed units"] = sh("systemctl --failed --plain --no-legend")
    DOMAINS.write_text("[dns")
    sh("systemctl restart splitwgd splitwgd-guard")
    found["wrong configuration"] = show("splitwgd"), show("splitwgd-guard")
    found["journal"] = sh("journalctl -u splitwgd -u splitwgd-guard -o short-monotonic --no-hostname")
    return found


HOLD = "import socket,time; s=socket.socket(2,2); s.bind(('127.0.0.53',53)); print(1,flush=True); time.sleep(60)"

if __name__ == "__main__":
    Path("/out/report.json").write_text(json.dumps(story()))
