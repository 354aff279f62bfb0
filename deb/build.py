"""Builds dist/splitwg_VERSION_all.deb: `python -m deb.build`, by ./do deb.

Plain dpkg-deb on a tree that is laid out here. The same commit makes the same bytes: the libraries are fixed by
deb/python.txt, and every time in the package is that of the commit (SOURCE_DATE_EPOCH).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from splitwgd import __version__

ROOT = Path(__file__).resolve().parent.parent
DEB = ROOT / "deb"
MAINTAINER = "The splitwg authors <splitwg@splitwg.invalid>"
PRIVATE = "usr/lib/splitwg"
DOC = "usr/share/doc/splitwg"
# -I: nothing of the caller's environment; -S: nothing of the system's Python libraries but the standard one.
PROGRAM = """#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/usr/lib/splitwg")

from splitwgd.{} import main

main()
"""
CONTROL = """Package: splitwg
Version: {version}
Architecture: all
Maintainer: {maintainer}
Installed-Size: {size}
Depends: python3 (>= 3.11), libnftables1, passwd, systemd | systemd-standalone-sysusers
Suggests: wireguard-go, wireguard-tools
Section: net
Priority: optional
Description: chosen domains through WireGuard, and nothing of them any other way
 splitwg answers this machine's DNS questions, learns the addresses of the
 domains that you list, and leads packets to them through a WireGuard tunnel;
 all other traffic goes its usual way. While the tunnel is down, what is
 listed is refused instead of let out in clear.
 .
 One command, "splitwg setup wg0.conf", sets the machine up, and "splitwg
 revert" brings back every byte. The Python libraries that it needs are
 private copies.
"""
CHANGES = """splitwg ({version}) unstable; urgency=medium

  * What is new is told in changelog.gz.

 -- {maintainer}  {date}
"""
COPYRIGHT = """splitwg, with private copies in /usr/lib/splitwg of the Python libraries below.
On Debian, /usr/share/common-licenses has the Apache License 2.0 (Apache-2.0) and
the GNU General Public License (GPL-2).
"""
# Where programs look for what completes their command lines, by the name of the file in completions/.
COMPLETIONS = {
    "splitwg.bash": "usr/share/bash-completion/completions/splitwg",
    "splitwg.zsh": "usr/share/zsh/vendor-completions/_splitwg",
    "splitwg.fish": "usr/share/fish/vendor_completions.d/splitwg.fish",
}


class Refused(Exception):
    """There is no package to be made; the text says why."""


def lay_out(tree: Path, version: str, moment: int) -> None:
    """The files of the package below `tree`. moment: the time of the change that it is made of."""
    libraries(tree / PRIVATE)
    for source in sorted((ROOT / "splitwgd").glob("*.py")):
        put(tree / PRIVATE / "splitwgd" / source.name, source.read_bytes())
    for name, module in (("splitwg", "cli"), ("splitwgd", "daemon")):
        put(tree / "usr/bin" / name, PROGRAM.format(module).encode(), 0o755)
    for unit in sorted((ROOT / "systemd").glob("*.service")):
        put(tree / "usr/lib/systemd/system" / unit.name, unit.read_bytes())
    put(tree / "usr/lib/sysusers.d/splitwg.conf", (ROOT / "systemd/splitwg.sysusers").read_bytes())
    put(tree / "usr/share/splitwg/domains.toml", (ROOT / "etc/domains.toml").read_bytes())
    put(tree / "usr/share/python3/runtime.d/splitwg.rtupdate", (DEB / "splitwg.rtupdate").read_bytes(), 0o755)
    put(tree / "usr/share/lintian/overrides/splitwg", (DEB / "lintian-overrides").read_bytes())
    for page in sorted(ROOT.glob("man/*.[1-8]")):
        put(tree / f"usr/share/man/man{page.suffix[1:]}" / f"{page.name}.gz", packed(page.read_bytes()))
    for completion in sorted(ROOT.glob("completions/*")):
        put(tree / COMPLETIONS[completion.name], completion.read_bytes())
    documents(tree, version, moment)


def libraries(folder: Path) -> None:
    """Private copies of the Python libraries. Raises Refused where one of them is no pure Python."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += [
        "--no-compile",
        "--use-pep517",
        "--require-hashes",
        f"--requirement={DEB / 'python.txt'}",
        f"--target={folder}",
    ]
    subprocess.run(pip, check=True)
    shutil.rmtree(folder / "bin", ignore_errors=True)  # programs of theirs
    for cache in list(folder.rglob("__pycache__")):
        shutil.rmtree(cache)
    if compiled := [str(path) for path in folder.rglob("*") if is_compiled(path)]:
        raise Refused(f"the package is for all architectures, and this is for one: {', '.join(compiled)}")


def is_compiled(path: Path) -> bool:
    """Whether it is machine code, whatever its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF" or path.suffix in (".so", ".pyd", ".a", ".o")


def documents(tree: Path, version: str, moment: int) -> None:
    """README and docs, copyright, changelogs."""
    date = format_datetime(datetime.fromtimestamp(moment, UTC))
    changes = CHANGES.format(version=version, maintainer=MAINTAINER, date=date)
    put(tree / DOC / "copyright", licences(tree / PRIVATE).encode())
    put(tree / DOC / "changelog.Debian.gz", packed(changes.encode()))
    put(tree / DOC / "changelog.gz", packed((ROOT / "CHANGELOG.md").read_bytes()))
    put(tree / DOC / "README.md", (ROOT / "README.md").read_bytes())
    put(tree / DOC / "examples/wg0.conf", (ROOT / "etc/wg0.conf.example").read_bytes())
    (tree / DOC / "examples/domains.toml").symlink_to("../../../splitwg/domains.toml")
    for document in sorted((ROOT / "docs").rglob("*.md")):
        put(tree / DOC / "docs" / document.relative_to(ROOT / "docs"), document.read_bytes())


def licences(folder: Path) -> str:
    """The copyright file: our licence and those of the libraries, whose own files then go."""
    parts = [COPYRIGHT, "splitwg\n=======\n\n" + (ROOT / "LICENSE").read_text()]
    for about in sorted(folder.glob("*.dist-info")):
        name, _, version = about.name.removesuffix(".dist-info").partition("-")
        texts = [licence(path) for path in sorted(about.rglob("*")) if path.is_file() and _is_licence(path)]
        if not texts:
            raise Refused(f"{name} comes without a licence")
        title = f"{name} {version}"
        parts.append(f"{title}\n{'=' * len(title)}\n\n" + "\n".join(texts))
        shutil.rmtree(about)  # nobody asks it; it says also how it was installed, which differs each time
    return "\n\n".join(parts)


def _is_licence(path: Path) -> bool:
    return path.name.upper().startswith(("LICEN", "COPYING", "NOTICE"))


def licence(path: Path) -> str:
    """What to say of a licence: its text, or its name where every Debian system has the text (policy 12.5)."""
    text = path.read_text()
    if "Apache License" in text and "TERMS AND CONDITIONS" in text:
        return "Apache-2.0 (/usr/share/common-licenses/Apache-2.0).\n"
    if "GNU GENERAL PUBLIC LICENSE" in text and "TERMS AND CONDITIONS" in text:
        return "GPL-2.0 (/usr/share/common-licenses/GPL-2).\n"
    return text


def put(path: Path, data: bytes, mode: int = 0o644) -> None:
    """A file of the package."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def packed(data: bytes) -> bytes:
    """As `gzip -9n`: without name and time."""
    return gzip.compress(data, 9, mtime=0)


def describe(tree: Path, version: str) -> None:
    """What dpkg reads: control, sums, and what it runs."""
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    # As dpkg-gencontrol counts: each file in KiB, one for all else.
    size = sum((path.stat().st_size + 1023) // 1024 for path in files)
    size += sum(1 for path in tree.rglob("*") if path.is_dir() or path.is_symlink())
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files]
    control = CONTROL.format(version=version, maintainer=MAINTAINER, size=size)
    put(tree / "DEBIAN/control", control.encode())
    put(tree / "DEBIAN/md5sums", "".join(sums).encode())
    for script in ("postinst", "prerm", "postrm"):
        put(tree / "DEBIAN" / script, (DEB / script).read_bytes(), 0o755)


def build(into: Path, revision: int) -> Path:
    """Makes the package; returns where it is. revision: counts the packages of one version of splitwg."""
    version = f"{__version__}-{revision}"
    moment = int(os.environ.get("SOURCE_DATE_EPOCH") or last_change())
    package = into / f"splitwg_{version}_all.deb"
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        lay_out(tree, version, moment)
        describe(tree, version)
        for path in (tree, *tree.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
            elif not path.is_symlink() and path.is_relative_to(tree / PRIVATE):
                path.chmod(0o644)
            os.utime(path, (moment, moment), follow_symlinks=False)
        argv = ["dpkg-deb", "--root-owner-group", "-Zxz", "--threads-max=1", "--build", str(tree), str(package)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(moment)}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr.strip())
    return package


def last_change() -> str:
    """When the commit was made that this checkout is of; of a tree without git, its changelog's time."""
    argv = ["git", "-c", "safe.directory=*", "log", "-1", "--format=%ct"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or str(int((ROOT / "CHANGELOG.md").stat().st_mtime))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./do deb", description="builds dist/splitwg_VERSION_all.deb")
    parser.add_argument("--revision", type=int, default=1, help="counts the packages of one version (1)")
    options = parser.parse_args()
    if not shutil.which("dpkg-deb"):
        print("deb: there is no dpkg-deb; please install dpkg", file=sys.stderr)
        return 1
    try:
        package = build(ROOT / "dist", options.revision)
    except Refused as error:
        print(f"deb: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    print(package.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
