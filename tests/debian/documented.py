"""The commands of the documents, as somebody types them who reads: on a machine on which nothing is set up.

A name of the real internet stands for one of the lab's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LAB = {"icanhazip.com": "tunneled.example", "github.com": "tunneled.example"}
# What the reader is told to have, or has from before.
LISTS = {
    "domains.toml": '[dns]\ntunneled = ["10.1.0.1"]\ndefault = ["9.9.9.9"]\n[tunneled]\ndomains = ["old.example"]\n',
    "/etc/dnsmasq.d/tunneled.conf": "server=/from-dnsmasq.example/10.1.0.1\nnftset=/from-dnsmasq.example/4#inet#t#s\n",
}
_FENCE = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATIENCE = 120  # seconds


def commands(docs: Path) -> Iterator[tuple[str, str]]:
    """Each line of the pages' examples with its page; the quick start's last ones, which end everything, at the end."""
    *begin, end = _FENCE.findall((docs / "quick-start.md").read_text())
    pages = {page.stem: _FENCE.findall(page.read_text()) for page in sorted(docs.glob("*.md"))}
    pages = {"quick-start": begin} | {name: found for name, found in pages.items() if name != "quick-start"}
    for name, found in (*pages.items(), ("quick-start", [end])):
        for line in "".join(found).splitlines():
            yield name, line


def followed(docs: Path, package: Path, wg_conf: Path) -> list[dict[str, Any]]:
    """What each of them said, and its status; whoever asks something is told yes."""
    home = Path("/root/reader")
    home.mkdir()
    shutil.copy(package, home / "splitwg_0.1.0-1_all.deb")
    shutil.copy(wg_conf, home / "wg0.conf")
    for name, text in LISTS.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(text)
    said = []
    for page, command in commands(docs):
        for real, lab in LAB.items():
            command = command.replace(real, lab)
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        options |= {"cwd": home, "env": os.environ | {"HOME": str(home)}, "input": "y\n" * 3, "timeout": _PATIENCE}
        done = subprocess.run(("sh", "-c", command), check=False, **options)
        said.append({"page": page, "command": command, "status": done.returncode, "said": done.stdout})
    shutil.rmtree(home)
    (home / "/etc/dnsmasq.d/tunneled.conf").unlink()
    (home / "/etc/dnsmasq.d").rmdir()
    return said
