"""Runs in a booted Debian with a network, as a unit: from `apt install` to `apt purge`, with a reboot between.

Writes what it found; judges nothing. The second boot goes on where the first has ended. Needs nothing but Python.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, "/srv/splitwg")
from tests.debian.documented import followed
from tests.system.inside import DOMAINS, sh, until
from tests.system.inside_setup import CONF, world
from tests.system.inside_stream import Stream, caller

OUT, PACKAGES = Path("/out"), "/srv/packages"
APT = ("apt-get", "-y", "-o", "Dpkg::Use-Pty=0")
PATIENCE = 300  # seconds for a command, also on an emulated machine
COMPILED = "find /usr/lib/splitwg/splitwgd -name '*.pyc' | wc -l"
LOOK = """
import splitwgd.daemon
print([name for name, module in sys.modules.items() if "dist-packages" in (getattr(module, "__file__", "") or "")])
"""
# What counts, or is different each time it is read.
VOLATILE = re.compile(r"nf_conntrack_count|/stable_secret$|/route/flush$")


def ran(*argv: str) -> list[Any]:
    """A command's status and all that it said."""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False, **options)
    return [done.returncode, done.stdout]


def everything() -> dict[str, str]:
    """All of /etc, and of the network in the kernel: rules, routes, links, rulesets, settings."""
    found = world()
    for key, command in (
        ("rules", "ip -4 rule; ip -6 rule"),
        ("routes", "ip -4 route show table all; ip -6 route show table all"),
        ("links", "ip -o link | cut -d' ' -f2"),
        ("ruleset", "nft --stateless list ruleset"),
        ("user", "getent passwd splitwg; getent group splitwg"),
    ):
        found[key] = sh(command)
    for path in Path("/proc/sys/net").rglob("*"):
        if path.is_file() and not VOLATILE.search(str(path)):
            try:
                found[str(path)] = path.read_text()
            except OSError:  # some are only to be written
                continue
    return found


def differing(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is not as it was."""
    lines = []
    for key in sorted(before | after):
        if before.get(key) != after.get(key):
            lines.append(f"{key}: {before.get(key)} -> {after.get(key)}")
    return lines


def settled(before: dict[str, str]) -> list[str]:
    """The same, when what was told to end has had a moment."""
    until(lambda: not differing(before, everything()), 3)
    return differing(before, everything())


class Visitor(threading.Thread):
    """Goes to a tunneled site all the time, and keeps as whom the site saw this machine."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: dict[str, int] = {}
        self.end = False

    def run(self) -> None:
        while not self.end:
            who = visit("tunneled.example")
            self.seen[who] = self.seen.get(who, 0) + 1
            time.sleep(0.05)


def visit(name: str) -> str:
    """As whom a site sees us; what else came where it could not be reached."""
    try:
        with socket.create_connection((name, 80), timeout=2) as sock:
            sock.sendall(f"GET / HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
            answer = b""
            while part := sock.recv(4096):
                answer += part
        return answer.decode().split("\r\n\r\n")[-1].strip()
    except OSError as error:
        return type(error).__name__


def callers(*names: str) -> list[str]:
    """As whom each of these sites sees this machine, when a tunnel has had a moment to come up."""
    until(lambda: caller(names[0]), 10)
    return [caller(name) for name in names]


def install(found: dict[str, Any]) -> None:
    """Also removed and purged without ever having been set up, and compiled anew for another Python."""
    found["tried"] = ran(*APT, "install", f"{PACKAGES}/first.deb")
    found["not wanted"] = ran(*APT, "purge", "splitwg")
    found["purged untouched"] = differing(json.loads((OUT / "before.json").read_text()), everything()) + left()
    found["install"] = ran(*APT, "install", f"{PACKAGES}/first.deb")
    found["version"] = sh("dpkg-query -W -f '${Version}' splitwg; echo; splitwg --version; splitwgd --version")
    found["compiled"] = sh(COMPILED)
    sh("sleep 0.05; touch /tmp/before")
    found["another Python"] = ran("/usr/share/python3/runtime.d/splitwg.rtupdate", "rtupdate", "python3.0", "python3.1")
    found["compiled again"] = sh(f"{COMPILED}; find /usr/lib/splitwg -name '*.pyc' ! -newer /tmp/before | wc -l")
    Path("/tmp/look").write_text(Path("/usr/bin/splitwg").read_text().replace("\nmain()\n", LOOK))
    found["of the system's Python"] = sh("python3 -IS /tmp/look; rm /tmp/look")
    found["before setup"] = sh("systemctl is-enabled splitwgd; systemctl is-active splitwgd").split()
    (OUT / "packaged.json").write_text(json.dumps(everything()))


def set_up(found: dict[str, Any]) -> None:
    found["setup"] = ran("splitwg", "setup", CONF, "--yes")
    found["enable"] = ran("systemctl", "enable", "--now", "splitwgd")
    found["add"] = ran("splitwg", "add", "tunneled.example", "blocked.example")


def the_articles_tests(found: dict[str, Any]) -> None:
    """In its order; then its fourth by an editor."""
    found["tunneled, plain"] = callers("tunneled.example", "plain.example")
    found["down"] = ran("splitwg", "down")
    found["down: tunneled, plain"] = [caller("tunneled.example"), caller("plain.example")]
    found["up"] = ran("splitwg", "up")
    found["up: tunneled, plain"] = callers("tunneled.example", "plain.example")
    found["later: before"] = caller("later.example")
    DOMAINS.write_text(DOMAINS.read_text().replace('"blocked.example"', '"blocked.example", "later.example"'))
    found["later: noticed"] = until(lambda: "later.example" in sh("splitwg why later.example | grep 'is tunneled'"))
    found["later: after"] = caller("later.example")
    found["lie"] = sh("getent ahostsv4 blocked.example | cut -d' ' -f1 | sort -u")
    found["doctor"] = ran("splitwg", "doctor")
    found["journal"] = sh("journalctl -u splitwgd -u splitwgd-guard -o short-monotonic --no-hostname --no-pager")


class Streams:
    """What programs ask meanwhile; a tunneled site is visited only while it is tunneled."""

    def __init__(self, visits: bool) -> None:
        os.environ["RES_OPTIONS"] = "timeout:3 attempts:1"
        self.stream, self.visitor = Stream(), Visitor()
        self.stream.start()
        if visits:
            self.visitor.start()

    def during(self, phase: str, *argv: str) -> list[Any]:
        """Runs a command, and goes on for a moment."""
        self.stream.phase = phase
        try:
            return ran(*argv)
        finally:
            time.sleep(0.5)

    def end(self) -> dict[str, Any]:
        """What was asked and lost in each phase, and as whom the tunneled site saw us."""
        self.stream.phase, self.visitor.end = "end", True
        self.stream.join()
        return {"asked": self.stream.asked, "lost": self.stream.lost, "seen as": self.visitor.seen}


def upgrade(found: dict[str, Any]) -> None:
    streams = Streams(visits=True)
    for phase, argv in (
        ("reload", ("systemctl", "reload", "splitwgd")),
        ("restart", ("systemctl", "restart", "splitwgd")),
        ("upgrade", (*APT, "install", f"{PACKAGES}/second.deb")),
    ):
        pid = sh("systemctl show -P MainPID splitwgd")
        found[phase] = streams.during(phase, *argv)
        found[f"{phase}: another process"] = pid != sh("systemctl show -P MainPID splitwgd")
    found["streams"] = streams.end()
    found["upgraded"] = sh("dpkg-query -W -f '${Version}' splitwg")
    found["upgraded: active"] = sh("systemctl is-active splitwgd splitwgd-guard").split()
    found["upgraded: tunneled, plain"] = callers("tunneled.example", "plain.example")


def rebooted(found: dict[str, Any]) -> None:
    found["active"] = until(lambda: sh("systemctl is-active splitwgd") == "active", 60)
    found["tunneled, plain"] = callers("tunneled.example", "plain.example")
    found["failed"] = sh("systemctl --failed --plain --no-legend")
    found["journal of the boot before"] = sh(
        "journalctl -b -1 -o short-monotonic --no-hostname --no-pager | tail -n 60"
    )
    found["journal"] = sh("journalctl -b -u splitwgd -u splitwgd-guard -o short-monotonic --no-hostname --no-pager")


def come_and_go(found: dict[str, Any]) -> None:
    """Stopped, reverted, removed and purged, each while programs look names up."""
    streams = Streams(visits=False)
    for phase in ("stop", "start"):
        found[phase] = streams.during(phase, "systemctl", phase, "splitwgd")
    found["revert"] = streams.during("revert", "splitwg", "revert", "--yes")
    found["reverted"] = settled(without_configuration(json.loads((OUT / "packaged.json").read_text())))
    found["setup again"] = streams.during("setup", "splitwg", "setup", "--yes")
    found["again: tunneled"] = callers("tunneled.example")
    before = json.loads((OUT / "before.json").read_text())
    DOMAINS.write_text("[dns")  # whatever state the configuration is in
    found["remove"] = streams.during("remove", *APT, "remove", "splitwg")
    users = {"user", *(f"etc/{name}" for name in ("passwd", "group", "shadow", "gshadow"))}
    differs = settled(without_configuration(before))
    found["removed"] = [line for line in differs if line.partition(":")[0] not in users]
    found["kept"] = sorted(os.listdir("/etc/splitwg"))
    found["purge"] = streams.during("purge", *APT, "purge", "splitwg")
    found["streams"] = streams.end()
    found["purged"] = settled(before)
    found["left"] = left()
    found["dpkg"] = sh("dpkg-query -W splitwg 2>/dev/null")


def read_and_follow(found: dict[str, Any]) -> None:
    """Whoever comes to it by the documents."""
    found["documented"] = followed(Path("/srv/splitwg/docs"), Path(PACKAGES) / "second.deb", Path(CONF))
    found["followed to the end"] = settled(json.loads((OUT / "before.json").read_text()))


def without_configuration(before: dict[str, str]) -> dict[str, str]:
    """What was there, and what of the user's configuration is there now: that is to stay."""
    return before | {key: value for key, value in everything().items() if key.startswith("etc/splitwg")}


def left() -> list[str]:
    """Files that are the package's by their name, or whose owner there is no longer."""
    named = sh(r"find / /run -xdev \( -path /srv -o -path /tmp -o -path /out \) -prune -o -name '*splitwg*' -print")
    return [*named.splitlines(), *sh("find /etc /run /var -xdev -nouser").splitlines()]


FIRST = (install, set_up, the_articles_tests, upgrade)
SECOND = (rebooted, come_and_go, read_and_follow)


def main() -> None:
    """One boot's part of it."""
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    found: dict[str, Any] = {}
    begun = OUT / "before.json"
    number, parts = (2, SECOND) if begun.exists() else (1, FIRST)
    if number == 1:
        until(lambda: caller("plain.example"), 60)
        found["before"] = caller("plain.example")
        begun.write_text(json.dumps(everything()))
    for part in parts:
        started = time.monotonic()
        part(found)
        found[f"seconds of {part.__name__}"] = round(time.monotonic() - started, 1)
        (OUT / f"progress-{number}.json").write_text(json.dumps(found, indent=1))
    (OUT / f"report-{number}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
