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
WIREGUARD = "/etc/wireguard/wg0.conf"
OURS = "nft list tables; ip -4 rule | grep -v 'lookup [mld]'; ip link | grep wg0; ip route show table 100 2>/dev/null"
DOMAINS = Path("/etc/splitwg/domains.toml")


def sh(command: str) -> str:
    """What a command says."""
    return subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=120).stdout.strip()


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


def lost_during(command: str) -> tuple[int, list[str]]:
    """How many asked while a command ran and a moment longer, each by a socket of his own, and who had no answer."""
    question = b"\0\1\1\0\0\1\0\0\0\0\0\0\x09localhost\0\0\1\0\1"
    asked: list[socket.socket] = []
    lost: list[str] = []
    running, end = subprocess.Popen(command, shell=True), 0.0
    while not end or time.monotonic() < end:
        if not end and running.poll() is not None:
            end = time.monotonic() + 0.5
        stream = len(asked) % 5 == 0
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        sock.settimeout(5)
        asked.append(sock)
        try:
            sock.connect(("127.0.0.53", 53))
            sock.sendall(len(question).to_bytes(2, "big") + question if stream else question)
        except OSError as error:
            lost.append(f"{sock.type.name} {len(asked)}: {error}")
        time.sleep(0.01)
    for number, sock in enumerate(asked):
        with sock:
            try:
                if not sock.recv(512):
                    lost.append(f"{sock.type.name} {number}: hung up")
            except OSError as error:
                lost.append(f"{sock.type.name} {number}: {error}")
    return len(asked), lost


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
    found["runs as"] = sh("ps -o user= -p " + found["start"]["MainPID"])
    found["capabilities"] = sh(f"grep -h ^Cap /proc/{found['start']['MainPID']}/status")
    found["reverse path"] = sh("cat /proc/sys/net/ipv4/conf/wg0/rp_filter")
    found["asked by others"] = sh(f"setpriv --reuid 65534 --regid 65534 --clear-groups {STATUS}")
    found["asked by the group"] = sh(f"setpriv --reuid 65534 --regid splitwg --clear-groups {STATUS}")
    found["changed by the group"] = sh("setpriv --reuid 65534 --regid splitwg --clear-groups splitwg down 2>&1")
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
    found["lost in a restart"] = lost_during("systemctl restart splitwgd")
    found["restart"] = show("splitwgd")
    found["wireguard goes on"] = bool(wireguard) and sh("pidof wireguard-go") == wireguard
    Path(WIREGUARD).write_text(Path(WIREGUARD).read_text().replace("10.1.0.2/24", "10.1.0.3/24"))
    found["wireguard reloaded"] = sh("systemctl reload splitwgd 2>&1"), sh("ip -4 -o addr show wg0")
    right = DOMAINS.read_text()
    DOMAINS.write_text(right + "[routing]\ntabel = 5\n")
    found["bad reload"] = (
        sh("systemctl reload splitwgd; echo $?"),
        sh("journalctl -u splitwgd -o cat | grep tabel"),
        closed(),
    )
    DOMAINS.write_text(right)
    found["lost in a crash"] = lost_during("kill -KILL $(systemctl show -P MainPID splitwgd); sleep 2")
    sh("kill -TERM $(systemctl show -P MainPID splitwgd)")
    found["terminated"] = closed() and until(lambda: restarted(2)) and closed()
    found["kept"] = sh("systemctl show -P NFileDescriptorStore splitwgd")
    sh("systemctl stop splitwgd")
    found["stop"] = show("splitwgd")
    found["state file"] = sh("stat -c %a /var/lib/splitwg/learned.json")
    found["stopped: kept"] = sh("systemctl show -P NFileDescriptorStore splitwgd")
    found["stopped: left"] = sh(f"{OURS}; pidof wireguard-go")
    sh("systemctl start splitwgd; splitwg teardown")
    found["torn down"] = (
        until(lambda: show("splitwgd")["ActiveState"] == "inactive"),
        sh(OURS),
        show("splitwgd")["Result"],
    )
    DOMAINS.write_text(right + '[routing]\non_stop = "closed"\n')
    sh("systemctl start splitwgd; systemctl stop splitwgd")
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


STATUS = "splitwg status --json 2>&1 | head -c 30"
HOLD = "import socket,time; s=socket.socket(2,2); s.bind(('127.0.0.53',53)); print(1,flush=True); time.sleep(60)"

if __name__ == "__main__":
    Path("/out/report.json").write_text(json.dumps(story()))
