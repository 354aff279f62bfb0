"""Runs in a booted machine with a network: programs look names up while it is set up, stopped and reverted."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, "/srv/splitwg")
from tests.system.inside import sh
from tests.system.inside_setup import CONF, changed, world


class Stream(threading.Thread):
    """Looks a name up every 20 ms, as programs do it, and counts by what happens meanwhile."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.phase = "before"
        self.asked: dict[str, int] = {}
        self.lost: dict[str, list[str]] = {}

    def run(self) -> None:
        while self.phase != "end":
            phase = self.phase
            self.asked[phase] = self.asked.get(phase, 0) + 1
            try:
                socket.getaddrinfo("plain.example", 80, socket.AF_INET, socket.SOCK_STREAM)
            except OSError as error:
                self.lost.setdefault(phase, []).append(str(error))
            time.sleep(0.02)


def caller(name: str) -> str:
    """As whom a web site sees this machine."""
    return sh(f"curl -s4 -m 5 http://{name}/")


def story() -> dict[str, Any]:
    os.environ["RES_OPTIONS"] = "timeout:3 attempts:1"
    found: dict[str, Any] = {}
    before, stream = world(), Stream()
    stream.start()
    time.sleep(0.5)
    for phase, words in (
        ("setup", f"splitwg setup {CONF} --yes"),
        ("stop", "systemctl stop splitwgd"),
        ("start", "systemctl start splitwgd"),
        ("give-back", "splitwg dns give-back"),
        ("take", "splitwg dns take"),
        ("revert", "splitwg revert --purge --yes"),
    ):
        stream.phase = phase
        found[f"{phase} says"] = sh(f"{words} 2>&1; echo status $?")
        Path("/out/progress.json").write_text(json.dumps(found))
        if phase == "setup":
            listed = Path("/etc/splitwg/domains.toml")
            listed.write_text(listed.read_text().replace('"github.com"', '"tunneled.example"'))
            time.sleep(1)
        time.sleep(0.5)
        found[f"{phase}: callers"] = [caller("tunneled.example"), caller("plain.example")]
    stream.phase = "after"
    time.sleep(0.3)
    stream.phase = "end"
    stream.join()
    found |= {"asked": stream.asked, "lost": stream.lost, "changed": changed(before)}
    found["journal"] = sh("journalctl -u splitwgd -u splitwgd-guard -o short-monotonic --no-hostname | tail -60")
    return found


if __name__ == "__main__":
    Path("/out/report.json").write_text(json.dumps(story()))
