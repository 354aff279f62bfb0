"""Whole Debian systems to boot, made by mmdebstrap on first use and kept in a cache: `python -m tests.debian.roots`.

They hold what a machine has before somebody installs splitwg: systemd, Python, what the package depends on, and the
programs by which the tests look. No copy is ever booted itself: `furnished` lays a layer in memory over it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from tests.vm.kernel import RELEASES, KernelUnavailable, write_sources

NEEDED = "apt,ca-certificates,dbus,init-system-helpers,kmod,passwd,python3,systemd,systemd-sysv,udev"
LOOKING = "conntrack,curl,iproute2,nftables,procps,wireguard-tools"
DEPENDED_ON = "libnftables1,wireguard-go"
# One machine with a plain /etc/resolv.conf, and one whose DNS is systemd-resolved's.
FURTHER = {"bookworm": "", "trixie": "systemd-resolved"}
# What else may be on a machine, each beside splitwg. Their services are in need of being started (`SETTINGS`).
BESIDE = "trixie"
PEERS = "bind9-dnsutils,dnsmasq,firewalld,ifupdown,isc-dhcp-client,network-manager,ufw,unbound"
ASIDE = "openresolv"  # would be in the way of the others: it is kept as a file in /srv
# Each saves a second or more of every test; none is of the system that is tested.
SETTINGS = (
    'rm -f "$1"/etc/systemd/system/timers.target.wants/*',
    'echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/fast"',
)
PEERS_SETTINGS = (
    f'chroot "$1" sh -c "cd /srv && apt-get update -qq && apt-get -qq -o APT::Sandbox::User=root download {ASIDE}"',
    "for unit in dnsmasq unbound firewalld ufw NetworkManager NetworkManager-dispatcher NetworkManager-wait-online"
    ' networking ModemManager wpa_supplicant; do chroot "$1" systemctl --quiet disable $unit || true; done',
)


class NoRoot(Exception):
    """The system could not be made; the text says why, and what to do."""


def cached_root(release: str, peers: bool = False) -> Path:
    """The system of a Debian release; deleting it from the cache gets the newest. Raises NoRoot.

    peers: with those, and with a plain /etc/resolv.conf.
    """
    wanted = ",".join(filter(None, (NEEDED, LOOKING, DEPENDED_ON, PEERS if peers else FURTHER[release])))
    settings = (*SETTINGS, *PEERS_SETTINGS) if peers else SETTINGS
    version = sha256(repr((wanted, settings)).encode()).hexdigest()[:8]
    name = f"{release}-peers" if peers else f"{release}-plain"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "splitwg" / "debian"
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / f"{name}-{version}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            if not shutil.which("mmdebstrap"):
                raise NoRoot("needs mmdebstrap, which ./do test-system installs")
            for old in cache.glob(f"{name}-*"):
                shutil.rmtree(old)
            partial = cache / f"{name}-partial"
            _make(release, wanted, settings, partial)
            # Renamed only when complete, so that an interrupted run is never taken for a system.
            partial.rename(root)
    return root


def _make(release: str, packages: str, settings: tuple[str, ...], root: Path) -> None:
    print(f"making a Debian system ({release}) in {root}, once", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_sources(release, Path(folder))
        except KernelUnavailable as error:
            raise NoRoot(str(error)) from error
        argv = ["mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=minbase"]
        argv += [f"--include={packages}", *(f"--customize-hook={line}" for line in settings), release, str(root)]
        argv += [str(path) for path in sorted(Path(folder).iterdir()) if path.read_text().strip()]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(root, ignore_errors=True)
        raise NoRoot(f"mmdebstrap cannot make a Debian system ({release}): {done.stderr.strip()[-600:]}")


@contextmanager
def furnished(release: str, folder: Path, files: dict[str, str | Path], peers: bool = False) -> Iterator[Path]:
    """A system of its own for the length of the block, in memory, with these files (a text, or a file to copy).

    folder: an empty one. Mounts, so it is for an enclosure.
    """
    base = cached_root(release, peers)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", folder], check=True)
    root = folder / "root"
    for name in ("upper", "work", "root"):
        (folder / name).mkdir()
        (folder / name).chmod(0o755)
    layers = f"lowerdir={base},upperdir={folder}/upper,workdir={folder}/work"
    try:
        subprocess.run(["mount", "-t", "overlay", "-o", layers, "none", root], check=True)
        for name, what in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # a symlink would lead out of it
            if isinstance(what, Path):
                shutil.copy(what, path)
            else:
                path.write_text(what)
        yield root
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", folder], check=False)


def main() -> int:
    """Makes all that are not there yet."""
    try:
        for release in RELEASES:
            cached_root(release)
        cached_root(BESIDE, peers=True)
    except NoRoot as error:
        print(f"debian: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
