"""Fetches a Debian release's kernel and a static busybox with apt into a cache, unpacked and never installed.

The machine's own apt lists, packages and /boot are left alone: the package lists of the wanted release are
kept in the cache too. Refuses a machine whose apt sources name no Debian release."""

import fcntl
import lzma
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

RELEASES = ("bookworm", "trixie")
# The cloud flavour would unpack to a quarter of the size but has no 9p file system.
METAPACKAGE = "linux-image-amd64"


class KernelUnavailable(Exception):
    """The kernel could not be fetched or unpacked; the text says which step failed."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package, with a module index, and a busybox to start it with."""

    root: Path
    version: str

    @property
    def image(self) -> Path:
        unpacked = self.root / "vmlinux"
        return unpacked if unpacked.exists() else self.root / "boot" / f"vmlinuz-{self.version}"

    @property
    def modules(self) -> Path:
        return self.root / "lib" / "modules" / self.version

    @property
    def busybox(self) -> Path:
        return self.root / "busybox"

    def module_files(self, *names: str) -> dict[str, bytes]:
        """File name and uncompressed content of the named modules, each after what it depends on."""
        files: dict[str, bytes] = {}
        for name in names:
            plan = _run("modprobe", "-d", str(self.root), "-S", self.version, "--show-depends", name)
            for line in plan.splitlines():
                # Code built into the kernel is listed as "builtin NAME".
                if line.startswith("insmod "):
                    path = Path(line.split()[1])
                    packed = path.suffix == ".xz"
                    content = path.read_bytes()
                    files[path.name.removesuffix(".xz")] = lzma.decompress(content) if packed else content
        return files


def cached_kernel(release: str) -> Kernel:
    """The kernel of a Debian release, fetched on first use; deleting it from the cache gets the newest."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "splitwg" / "vm"
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / release
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            partial = cache / f"{release}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            _fetch(release, partial)
            # Renamed only when complete, so that an interrupted fetch is never taken for a kernel.
            partial.rename(root)
    (image,) = (root / "boot").glob("vmlinuz-*")
    return Kernel(root, image.name.removeprefix("vmlinuz-"))


def _fetch(release: str, root: Path) -> None:
    apt = root / "apt"
    for folder in ("sources", "lists/partial", "cache/archives/partial", "packages"):
        (apt / folder).mkdir(parents=True)
    write_sources(release, apt / "sources")
    options = (
        "-o", "Dir::Etc::sourcelist=/dev/null",
        "-o", f"Dir::Etc::sourceparts={apt / 'sources'}",
        "-o", f"Dir::State::lists={apt / 'lists'}",
        "-o", f"Dir::Cache={apt / 'cache'}",
        # apt's own user may not be able to enter the cache folder.
        "-o", "APT::Sandbox::User=root",
    )  # fmt: skip
    _run("apt-get", *options, "-qq", "update")
    depends = _run("apt-cache", *options, "depends", METAPACKAGE)
    concrete = re.search(r"Depends: (linux-image-\d\S*)", depends)
    if concrete is None:
        raise KernelUnavailable(f"{release} has no {METAPACKAGE} to fetch")
    _run("apt-get", *options, "-qq", "download", concrete[1], "busybox-static", folder=apt / "packages")
    for package in (apt / "packages").glob("*.deb"):
        _run("dpkg-deb", "-x", str(package), str(root))
    # Newer releases unpack to usr/bin and usr/lib.
    next(root.glob("**/bin/busybox")).rename(root / "busybox")
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
    version = concrete[1].removeprefix("linux-image-")
    _run("depmod", "-b", str(root), version)
    # Unpacking xz takes an emulated processor half of its whole boot; other formats unpack fast enough there.
    image = (root / "boot" / f"vmlinuz-{version}").read_bytes()
    start = image.find(b"\xfd7zXZ\0")
    if start >= 0:
        (root / "vmlinux").write_bytes(lzma.LZMADecompressor().decompress(image[start:]))
    shutil.rmtree(apt)


def write_sources(release: str, folder: Path) -> None:
    """The machine's own Debian sources with the release's name replaced; anybody else's sources left out."""
    own = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    suite = re.compile(rf"(?<!\S){re.escape(own)}(?=(-updates|-security)?(\s|$))")
    written = 0
    for path in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        if path.suffix not in (".list", ".sources") or not path.exists():
            continue
        text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
        parts = text.splitlines() if path.suffix == ".list" else re.split(r"\n\s*\n", text)
        kept = [suite.sub(release, part) for part in parts if suite.search(part) and " main" in part]
        (folder / path.name).write_text("\n\n".join(kept) + "\n")
        written += len(kept)
    if not own or not written:
        raise KernelUnavailable("this machine's apt sources name no Debian release to fetch a kernel from")


def _run(*command: str, folder: Path | None = None) -> str:
    try:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    except OSError as error:
        raise KernelUnavailable(f"{command[0]}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise KernelUnavailable(f"{command[0]} failed: {error.stderr.strip()}") from error
