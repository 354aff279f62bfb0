"""Runs in the booted machine, as a unit: sets it up, breaks off, reverts, and writes what it found of it each time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, "/srv/splitwg")
from tests.system.inside import answered, sh, until

CONF = "/root/vpn.conf"
# What the user database's own programs leave: locks, backups of the former version.
LEFT_BY_USERDEL = {f"etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow")} | {"etc/.pwd.lock"}


def world() -> dict[str, str]:
    """Every file of /etc with its bytes, mode, owner and time, and what of the kernel is anybody's."""
    found = {"nft": sh("nft list tables"), "rules": sh("ip rule; ip -6 rule"), "links": sh("ls /sys/class/net")}
    found["routes"] = sh("ip route show table 100; ip -6 route show table 100")
    for path in sorted(Path("/etc").rglob("*")):
        state = path.lstat()
        name = str(path).lstrip("/")
        if name in LEFT_BY_USERDEL:
            continue
        link = os.readlink(path) if path.is_symlink() else ""
        data = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not link else ""
        users = name in ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow")
        when = 0 if path.is_dir() or link or users else state.st_mtime_ns
        found[name] = f"{link} {data} {state.st_mode:o} {state.st_uid}:{state.st_gid} {when}"
    return found


def changed(before: dict[str, str]) -> list[str]:
    """What is not as it was."""
    after = world()
    return sorted(
        f"{key}: {before.get(key)} -> {after.get(key)}" for key in before | after if before.get(key) != after.get(key)
    )


def splitwg(*arguments: str) -> tuple[int, str]:
    """A command of the client's: its status and all that it said."""
    done = subprocess.run(("splitwg", *arguments), capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def set_up_and_back(found: dict[str, Any]) -> None:
    before = world()
    found["setup"] = splitwg("setup", CONF, "--yes")
    found["active"] = sh("systemctl is-active splitwgd splitwgd-guard").split()
    found["enabled"] = sh("systemctl is-enabled splitwgd splitwgd-guard").split()
    found["answered"] = answered()
    found["resolv.conf"] = Path("/etc/resolv.conf").read_text()
    found["key"] = sh("stat -c '%a %U' /etc/splitwg/wg0.conf")
    after = world()
    found["setup twice"] = splitwg("setup", CONF, "--yes")
    found["twice changed"] = [key for key in after if after[key] != world().get(key)]
    found["give-back"] = splitwg("dns", "give-back")
    found["given back"] = sh("cat /etc/resolv.conf")
    sh("systemctl restart splitwgd")
    found["restart: taken"] = sh("cat /etc/resolv.conf")
    sh("systemctl stop splitwgd")
    found["stop: given back"] = sh("cat /etc/resolv.conf")
    sh("systemctl start splitwgd")
    found["start: taken"] = sh("cat /etc/resolv.conf")
    splitwg("dns", "give-back")
    found["take"] = splitwg("dns", "take")
    found["taken"] = sh("cat /etc/resolv.conf")
    found["revert"] = splitwg("revert", "--yes")
    found["kept"] = sorted(os.listdir("/etc/splitwg"))
    found["revert twice"] = splitwg("revert", "--yes")
    found["purge"] = splitwg("revert", "--purge", "--yes")
    found["reverted"] = changed(before)
    found["units left"] = sh("systemctl list-units --all --plain --no-legend 'splitwg*'")


def broken_off(found: dict[str, Any]) -> None:
    """Killed again and again, ever later, until it comes to its end."""
    before = world()
    found["killed"] = {}
    delay = 0.3
    while True:
        child = subprocess.Popen(("splitwg", "setup", CONF, "--yes"), stdout=subprocess.DEVNULL)
        try:
            child.wait(delay)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
            child.kill()
            child.wait()
        said = splitwg("revert", "--purge", "--yes")
        found["killed"][f"after {delay:.2f} s"] = [said[0], *changed(before)]
        if ended:
            break
        delay += 0.6
    child = subprocess.Popen(("splitwg", "setup", CONF, "--yes"), stdout=subprocess.DEVNULL)
    until(lambda: Path("/etc/splitwg/wg0.conf").exists())
    child.send_signal(signal.SIGINT)
    found["Ctrl-C"] = [child.wait(), *changed(before)]


def bad_input(found: dict[str, Any]) -> None:
    """Each: status, words, and what was changed."""
    before = world()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
        thief.bind(("127.0.0.1", 53))
        found["port taken"] = [*splitwg("setup", CONF, "--yes"), changed(before)]
    drop_in = Path("/etc/systemd/system/splitwgd.service.d/fails.conf")
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nExecStart=\nExecStart=/bin/sh -c 'echo it will not; exit 2'\n")
    before = world()
    found["no start"] = [*splitwg("setup", CONF, "--yes"), changed(before)]
    drop_in.unlink()
    drop_in.parent.rmdir()
    before = world()
    sh("mkdir -p /var/lib/splitwg-setup && mount -t tmpfs -o size=4k,mode=700 none /var/lib/splitwg-setup")
    Path("/var/lib/splitwg-setup/filler").write_bytes(b"x" * 4096)
    found["disk full"] = [*splitwg("setup", CONF, "--yes"), changed(before)]
    sh("umount /var/lib/splitwg-setup")
    for path, words in (("/etc/resolv.conf", "a mount"), ("/etc", "read-only")):
        sh(f"mount --bind {path} {path} && mount -o remount,bind,ro {path}")
        found[words] = [*splitwg("setup", CONF, "--yes"), changed(before)]
        sh(f"umount {path}")
    nobody = "setpriv --reuid 65534 --clear-groups splitwg setup 2>&1; echo $?"
    found["nobody"] = sh(nobody)
    found["no netlink"] = sh(
        "setpriv --bounding-set=-net_admin --inh-caps=-net_admin splitwg setup /root/vpn.conf 2>&1"
    )
    found["bad changed"] = changed(before)


def code(name: str) -> int | None:
    """With which code somebody on 127.0.0.53 answers for a name; None where nobody does."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        try:
            sock.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1", ("127.0.0.53", 53))
            return sock.recv(512)[3] & 0xF
        except OSError:
            return None


def beside_resolved(found: dict[str, Any]) -> None:
    """Who answers its stub's clients is told by `use-application-dns.net`, of which only we say it is not there."""
    resolved = found["resolved"] = {}
    before = world()
    sh("rm /etc/resolv.conf; ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf")
    resolved["start"] = sh("systemctl enable systemd-resolved 2>&1; systemctl start systemd-resolved 2>&1")
    resolved["before"] = [code("localhost"), code("use-application-dns.net")]
    mine = world()
    resolved["setup"] = splitwg("setup", CONF, "--yes")
    until(lambda: sh("systemctl is-active systemd-resolved") == "active")
    resolved["set up"] = [code("localhost"), code("use-application-dns.net")]
    resolved["default"] = sh("grep -m1 ^default /etc/splitwg/domains.toml")
    resolved["drop-in"] = sh("cat /etc/systemd/resolved.conf.d/splitwg.conf")
    resolved["link"] = os.readlink("/etc/resolv.conf")
    resolved["its servers"] = sh("grep ^nameserver /run/systemd/resolve/resolv.conf").splitlines()
    resolved["auto"] = "192.0.2.53" in sh("splitwg status --json")
    resolved["through it"] = sh("resolvectl query --legend=no use-application-dns.net 2>&1")
    resolved["doctor"] = sh("splitwg doctor --json | grep -B1 -A1 mend")
    sh("systemctl restart splitwgd")
    resolved["restarted"] = [code("localhost"), code("use-application-dns.net")]
    sh("systemctl stop splitwgd")
    until(lambda: sh("systemctl is-active systemd-resolved") == "active")
    resolved["given back"] = [until(lambda: code("localhost") == 0), code("use-application-dns.net")]
    sh("systemctl start splitwgd")
    resolved["taken again"] = [until(lambda: code("localhost") == 0), code("use-application-dns.net")]
    resolved["revert"] = splitwg("revert", "--purge", "--yes")
    resolved["reverted"] = [until(lambda: code("localhost") == 0), code("use-application-dns.net"), *changed(mine)]
    sh("systemctl disable --now systemd-resolved; rm /etc/resolv.conf; cp -p /root/resolv.conf /etc/resolv.conf")
    resolved["left"] = changed(before)


def story() -> dict[str, Any]:
    found: dict[str, Any] = {}
    started = time.monotonic()
    parts = [set_up_and_back, broken_off, bad_input]
    if os.path.exists("/lib/systemd/systemd-resolved"):
        parts.append(beside_resolved)
    for part in parts:
        part(found)
        Path("/out/progress.json").write_text(json.dumps(found, indent=1))
        found[f"seconds of {part.__name__}"] = round(time.monotonic() - started, 1)
    found["journal"] = sh("journalctl -u splitwgd -u splitwgd-guard -o short-monotonic --no-hostname | tail -60")
    return found


if __name__ == "__main__":
    Path("/out/report.json").write_text(json.dumps(story()))
