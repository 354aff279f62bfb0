"""The Debian package as a file: the same bytes each time, pure Python, in order for lintian."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deb.build import is_compiled
from tests.debian.packages import package


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the package, with what dpkg reads in DEBIAN."""
    folder = tmp_path_factory.mktemp("package")
    subprocess.run(["dpkg-deb", "--raw-extract", package("first"), folder], check=True)
    return folder


def test_two_builds_have_the_same_bytes() -> None:
    assert package("first") != package("again")
    assert package("first").read_bytes() == package("again").read_bytes()


def test_lintian_finds_nothing() -> None:
    suppressed: list[str] = []
    argv = ["lintian", *suppressed, "--info", "--pedantic", "--display-info", "--fail-on=error,warning,info,pedantic"]
    done = subprocess.run([*argv, package("first")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_runs_on_every_architecture_and_every_python(tree: Path) -> None:
    files = [path for path in tree.rglob("*") if path.is_file()]
    assert [path for path in files if is_compiled(path) or path.suffix == ".pyc"] == []
    assert "Architecture: all\n" in (tree / "DEBIAN/control").read_text()


def test_nothing_of_it_stands_where_anothers_files_are(tree: Path) -> None:
    """No file in /etc, so that there is none that a purge or an upgrade has to ask about; libraries only of our own."""
    folders = ["usr/bin", "usr/lib/splitwg", "usr/lib/systemd/system", "usr/lib/sysusers.d", "usr/share"]
    files = [str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()]
    assert [name for name in files if not name.startswith(("DEBIAN/", *folders))] == []
    assert sorted(name for name in files if name.startswith("usr/bin")) == ["usr/bin/splitwg", "usr/bin/splitwgd"]
