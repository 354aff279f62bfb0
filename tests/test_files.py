"""Places in the file system as states: read, put, and put back with all that belongs to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from splitwgd.changes import Directory, File, State, Symlink
from splitwgd.errors import MachineError
from splitwgd.files import NEW, Tree

ME = (os.geteuid(), os.getegid())


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "etc").mkdir()
    return Tree(str(tmp_path))


@pytest.mark.parametrize("before", [None, File(b"old\n", 0o600, *ME), Symlink("../run/nowhere")])
@pytest.mark.parametrize("after", [None, File(b"", 0o4751, *ME, 1_700_000_000_123_456_789), Symlink("/dead", 5)])
def test_what_is_put_is_there_with_mode_and_time_and_nothing_else(tree: Tree, before: State, after: State) -> None:
    tree.put("/etc/f", before)
    tree.put("/etc/f", after)
    found = tree.read("/etc/f")
    assert found == after
    if isinstance(found, File | Symlink) and isinstance(after, File | Symlink):
        assert found.mtime == after.mtime
    assert [name for name in os.listdir(tree.real("/etc")) if name != "f"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, which root alone may")
def test_owner_and_attributes_come_back(tree: Tree, tmp_path: Path) -> None:
    path = tmp_path / "etc/f"
    path.write_bytes(b"x")
    os.chown(path, 12, 34)
    try:
        os.setxattr(path, "user.note", b"mine")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    before = tree.read("/etc/f")
    tree.put("/etc/f", File(b"ours"))
    tree.put("/etc/f", before)
    found = tree.read("/etc/f")
    assert found == before and isinstance(found, File)
    assert (found.uid, found.gid, found.attributes) == (12, 34, (("user.note", b"mine"),))


def test_a_directory_goes_only_while_it_is_empty(tree: Tree) -> None:
    tree.put("/etc/d", Directory(0o700))
    tree.put("/etc/d/f", File(b"", 0o644, *ME))
    tree.put("/etc/d", None)
    assert tree.read("/etc/d") == Directory()
    tree.put("/etc/d/f", None)
    tree.put("/etc/d", None)
    assert tree.read("/etc/d") is None


def test_symlinks_are_followed_below_the_root_and_for_reading_only(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/real").write_text("nameserver 192.0.2.1\n")
    os.symlink("../run/real", tmp_path / "etc/one")
    os.symlink("/etc/one", tmp_path / "etc/two")
    assert (tree.target("/etc/two"), tree.text("/etc/two")) == ("/run/real", "nameserver 192.0.2.1\n")
    tree.put("/etc/two", File(b"ours", 0o644, *ME))
    assert (tmp_path / "run/real").read_text() == "nameserver 192.0.2.1\n"
    assert tree.text("/etc/nothing") == ""


def test_what_was_half_written_is_swept_away_and_overwritten(tree: Tree, tmp_path: Path) -> None:
    half = tmp_path / f"etc/.f{NEW}"
    half.write_text("half")
    tree.put("/etc/f", File(b"whole", 0o644, *ME))
    assert not half.exists()
    half.write_text("half")
    tree.sweep("/etc/f")
    assert not half.exists() and tree.text("/etc/f") == "whole"


def test_ctrl_c_in_the_middle_leaves_nothing_half_written(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_handle: int) -> None:
        assert os.path.exists(tree.real(f"/etc/.f{NEW}"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "fsync", interrupted)
        tree.put("/etc/f", File(b"whole", 0o644, *ME))
    assert os.listdir(tree.real("/etc")) == []


def test_what_is_in_the_way_is_told_and_left_alone(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "etc/f").mkdir()
    with pytest.raises(MachineError, match=r"/etc/f cannot be written \(Is a directory\); move away what is in"):
        tree.put("/etc/f", File(b"", 0o644, *ME))
    assert os.listdir(tmp_path / "etc") == ["f"]
    os.mkfifo(tmp_path / "etc/pipe")
    with pytest.raises(MachineError, match="/etc/pipe is neither a file nor a symlink; move it away"):
        tree.read("/etc/pipe")
    assert tree.read("/etc/pipe/below") is None
