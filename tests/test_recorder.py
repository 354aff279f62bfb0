"""Whatever stops us and wherever: the book brings back every byte, mode, owner, time and link that was there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splitwgd.changes import CONFIGURATION, DNS, UNITS, Change, Deed, File, State, Step
from splitwgd.errors import MachineError
from splitwgd.files import Tree
from splitwgd.programs import Programs, Ran
from splitwgd.recorder import FOLDER, Recorder

ME = (os.geteuid(), os.getegid())
RELOAD = ("systemctl", "restart", "resolved")
DROP_IN, ETC = "/etc/resolved.conf.d/splitwg.conf", "/etc/resolv.conf"
STEPS: list[Step] = [
    Change("/etc/splitwg/wg0.conf", File(b"key", 0o600, *ME), CONFIGURATION),
    Change("/etc/unit.service", File(b"ours", 0o644, *ME), UNITS),
    Deed("enable", "splitwgd", UNITS),
    Change(DROP_IN, File(b"[Resolve]", 0o644, *ME), DNS),
    Change(ETC, File(b"nameserver 127.0.0.1\n", 0o644, *ME), DNS),
]
EVERY = (CONFIGURATION, UNITS, DNS)


class Said(Programs):
    """No systemd can be had here: what it would be told, one line each, in a file that outlives a kill."""

    def __init__(self, path: Path, fails: str = "") -> None:
        self.path = path
        self.fails = fails

    def run(self, *argv: str, given: str = "") -> Ran:
        with open(self.path, "a") as file:
            file.write(" ".join(argv) + "\n")
        return Ran(1, "it would not") if self.fails and self.fails in argv else Ran(0, "")

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


def snapshot(root: Path) -> dict[str, Any]:
    """Everything below, and its times."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else "directory"
        times = 0 if path.is_dir() and not path.is_symlink() else state.st_mtime_ns
        found[str(path.relative_to(root))] = (what, state.st_mode, state.st_uid, state.st_gid, times)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "run").mkdir()
    (root / "var/lib").mkdir(parents=True)
    (root / "run/stub").write_text("nameserver 127.0.0.53\n")
    (root / "etc/resolv.conf").symlink_to("../run/stub")
    (root / "etc/unit.service").write_text("somebody's")
    os.chmod(root / "etc/unit.service", 0o600)
    os.utime(root / "etc/unit.service", ns=(1, 123_456_789_123))
    return root


def recorder(root: Path, programs: Programs | None = None, tree: Tree | None = None) -> Recorder:
    after = {DROP_IN: RELOAD}
    return Recorder(tree or Tree(str(root)), programs or Said(root.parent / "said"), after)


def make(root: Path, steps: list[Step], programs: Programs | None = None) -> Recorder:
    mine = recorder(root, programs)
    with mine.locked():
        mine.make(steps)
    return mine


def undo(root: Path) -> list[str]:
    again = recorder(root)
    with again.locked():
        told = again.undo(EVERY)
        again.forget()
    return told


def test_all_is_made_and_all_is_undone(root: Path) -> None:
    before = snapshot(root)
    mine = recorder(root)
    with mine.locked():
        mine.make(STEPS)
        assert mine.wanting(STEPS) == []
    assert (root / "etc/resolv.conf").read_bytes() == b"nameserver 127.0.0.1\n"
    assert not (root / "etc/resolv.conf").is_symlink()
    assert oct((root / FOLDER.lstrip("/")).stat().st_mode)[-3:] == "700"
    assert undo(root) == []
    assert snapshot(root) == before
    said = Said(root.parent / "said").lines()
    assert said == ["systemctl --quiet enable splitwgd", "systemctl restart resolved"] + [
        "systemctl --quiet disable splitwgd",
        "systemctl restart resolved",
    ]


def test_twice_is_as_once_and_tells_nobody_again(root: Path) -> None:
    before = snapshot(root)
    for _ in range(2):
        mine = recorder(root)
        with mine.locked():
            mine.make(STEPS)
    assert Said(root.parent / "said").lines().count("systemctl restart resolved") == 1
    undo(root)
    assert undo(root) == []
    assert snapshot(root) == before


class Killed(Tree):
    """Is killed before or after its nth change of the disk."""

    def __init__(self, root: str, at: int) -> None:
        super().__init__(root)
        self.left = at

    def put(self, path: str, state: State) -> None:
        self._die()
        super().put(path, state)
        self._die()

    def _die(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(work: Callable[[], None]) -> bool:
    """Whether it came to its end."""
    if not (pid := os.fork()):
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return not os.WIFSIGNALED(status)


@pytest.mark.parametrize("then", ["undo", "make", "undo is killed"])
def test_a_kill_at_any_moment_can_be_undone_or_gone_on_with(root: Path, then: str) -> None:
    before = snapshot(root)
    for moment in range(1, 200):

        def first(moment: int = moment) -> None:
            mine = recorder(root, tree=Killed(str(root), moment if then != "undo is killed" else 0))
            with mine.locked():
                mine.make(STEPS)

        def take_back(moment: int = moment) -> None:
            mine = recorder(root, tree=Killed(str(root), moment))
            with mine.locked():
                mine.undo(EVERY)

        ended = in_a_child(first)
        if then == "undo is killed":
            ended = in_a_child(take_back)
        if then == "make":
            make(root, STEPS)
            assert (root / "etc/resolv.conf").read_bytes() == b"nameserver 127.0.0.1\n"
        assert undo(root) == []
        assert snapshot(root) == before, moment
        if ended:
            break
    assert 12 < moment < 199


def test_who_has_to_know_of_a_change_is_told_again_if_we_were_killed_before(root: Path) -> None:
    said = Said(root.parent / "said")

    class Dies(Said):
        def run(self, *argv: str, given: str = "") -> Ran:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    assert not in_a_child(lambda: print(make(root, STEPS[3:4], Dies(said.path))))
    assert said.lines() == []
    make(root, STEPS[3:4], said)
    assert said.lines() == ["systemctl restart resolved"]


def test_what_fails_is_rolled_back_and_a_book_of_before_stays(root: Path) -> None:
    before = snapshot(root)
    mine = recorder(root, Said(root.parent / "said", fails="enable"))
    with pytest.raises(MachineError, match="`systemctl --quiet enable splitwgd` failed: it would not"), mine.locked():
        mine.make(STEPS)
    mine.roll_back(None)
    mine.forget()
    assert snapshot(root) == before
    make(root, STEPS[:1])
    first, book = snapshot(root), recorder(root).book()
    newer: Step = Change("/etc/splitwg/wg0.conf", File(b"another", 0o600, *ME), CONFIGURATION)
    mine = recorder(root, Said(root.parent / "said", fails="enable"))
    with pytest.raises(MachineError):
        mine.make([newer, *STEPS[1:]])
    mine.roll_back(book)
    times = f"{FOLDER.lstrip('/')}/book.json"
    assert {k: v for k, v in snapshot(root).items() if k != times} == {k: v for k, v in first.items() if k != times}


def test_one_group_is_given_back_and_the_others_stay(root: Path) -> None:
    mine = make(root, STEPS)
    mine.undo((DNS,))
    assert os.readlink(root / "etc/resolv.conf") == "../run/stub"
    assert (root / "etc/unit.service").read_bytes() == b"ours"
    assert not (root / "etc/resolved.conf.d").exists()
    assert mine.is_set_up


def test_what_belongs_to_the_place_stays_with_it(root: Path) -> None:
    try:
        os.setxattr(root / "etc/unit.service", "user.label", b"theirs")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    make(root, STEPS)
    assert os.getxattr(root / "etc/unit.service", "user.label") == b"theirs"
    undo(root)
    assert os.getxattr(root / "etc/unit.service", "user.label") == b"theirs"


def test_what_somebody_wrote_since_is_kept_and_told(root: Path) -> None:
    make(root, STEPS)
    (root / "etc/resolv.conf").write_text("nameserver 10.0.0.1\n")
    (root / DROP_IN.lstrip("/")).write_text("[Resolve] # edited")
    assert undo(root) == [
        f"{ETC} was changed by somebody else and stays; what it was before is {ETC}.before-splitwg",
        f"{DROP_IN} was changed by somebody else; it is {DROP_IN}.after-splitwg now",
    ]
    assert (root / "etc/resolv.conf").read_text() == "nameserver 10.0.0.1\n"
    assert os.readlink(root / "etc/resolv.conf.before-splitwg") == "../run/stub"
    assert not (root / DROP_IN.lstrip("/")).exists()


def test_a_damaged_book_is_told_and_left_alone(root: Path) -> None:
    make(root, STEPS)
    path = root / FOLDER.lstrip("/") / "book.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(MachineError, match="book.json is damaged"):
        undo(root)
    assert path.exists() and (root / "etc/unit.service").read_bytes() == b"ours"


def test_what_cannot_be_brought_back_stays_in_the_book_and_the_rest_is_brought_back(root: Path) -> None:
    make(root, STEPS)
    (root / "etc/unit.service").unlink()
    (root / "etc/unit.service").mkdir()
    (root / "etc/unit.service.before-splitwg").mkdir()
    mine = recorder(root)
    with pytest.raises(MachineError, match="unit.service.before-splitwg cannot be written"):
        mine.undo(EVERY)
    assert [entry.path for entry in mine.book() if not isinstance(entry, Deed)] == ["/etc/unit.service"]
    assert (root / "etc/resolv.conf").is_symlink()
