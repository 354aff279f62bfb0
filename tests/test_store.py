"""Edits of the file that a person wrote: the list changes, and nothing else does."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitwgd.errors import ConfigError
from splitwgd.names import Pattern, parse_pattern
from splitwgd.store import PIECE, Disk, add_domains, keep, remove_domain, set_aside, state_path

SHAPES = {
    "lines": '# top\n[tunneled]\ndomains = [\n    "a.example",  # why a\n    # before b\n    "b.example",\n]\n# tail\n',
    "lines, no last comma": '[tunneled]\ndomains = [\n  "a.example",\n  "b.example" # why b\n]\nlists = []\n',
    "a last comment": '[tunneled]\ndomains = [\n\t"a.example",\n\t"b.example",\n\t# the end\n]\n',
    "one line": '[tunneled]\ndomains = ["a.example", "b.example"]  # both\n',
    "one line, a comma": '[tunneled]\ndomains = ["a.example", "b.example",]\n',
    "other sections": '[dns]\n# dns\n\n[tunneled]\ndomains = ["a.example", "b.example"]\n\n[routing]\ntable = 7\n',
    "literal strings": "[tunneled]\ndomains = [\n  'a.example',\n  'b.example',\n]\n",
    "dotted": 'tunneled.domains = ["a.example", "b.example"]\n[dns]\ndefault = []\n',
    "the article's": '[tunneled]\ndomains = [\n    "a.example",\n    "b.example",\n    # Add your domains here\n]\n',
    "written otherwise": '[tunneled]\ndomains = [\n    "A.Example.",\n    "b.example",\n]\n',
}


def listed(path: Path) -> list[str]:
    return [entry.lower().rstrip(".") for entry in tomllib.loads(path.read_text())["tunneled"]["domains"]]


def others(path: Path) -> list[str]:
    """The lines without a domain in them."""
    return [line for line in path.read_text().splitlines() if ".example" not in line.lower()]


def add_domain(path: str, pattern: Pattern) -> bool:
    return add_domains(path, [(pattern, "")])[0]


@pytest.fixture(params=SHAPES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "domains.toml"
    file.write_text(SHAPES[request.param])
    return file


def test_an_added_domain_is_listed_last_and_every_line_is_kept(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert add_domain(str(path), parse_pattern("*.c.example"))
    assert listed(path) == ["a.example", "b.example", "*.c.example"]
    assert others(path) == [line for line in lines if ".example" not in line.lower()]
    comments = [line.partition("#")[2] for line in lines]
    assert [comment for comment in comments if comment not in path.read_text()] == []


@pytest.mark.parametrize("text", ["a.example", "A.EXAMPLE", "a.example."])
def test_what_is_listed_already_changes_no_byte(path: Path, text: str) -> None:
    before = path.read_bytes(), path.stat().st_ino
    assert not add_domain(str(path), parse_pattern(text))
    assert (path.read_bytes(), path.stat().st_ino) == before


@pytest.mark.parametrize(("gone", "left"), [("a.example", "b.example"), ("b.example", "a.example")])
def test_a_removed_domain_is_gone_and_the_other_lines_are_kept(path: Path, gone: str, left: str) -> None:
    before = others(path)
    assert remove_domain(str(path), parse_pattern(gone))
    assert listed(path) == [left]
    assert others(path) == before


@pytest.mark.parametrize("text", ["=a.example", "*.a.example", "!a.example", "c.example"])
def test_what_is_not_listed_is_not_removed(path: Path, text: str) -> None:
    before = path.read_bytes()
    assert not remove_domain(str(path), parse_pattern(text))
    assert path.read_bytes() == before


def test_many_edits_end_where_they_began(path: Path) -> None:
    names = [f"n{number}.example" for number in range(20)]
    for name in names:
        assert add_domain(str(path), parse_pattern(name))
    assert listed(path) == ["a.example", "b.example", *names]
    for name in (*names[::2], *names[1::2]):
        assert remove_domain(str(path), parse_pattern(name))
    assert listed(path) == ["a.example", "b.example"]


def test_a_domain_that_is_listed_twice_is_removed_twice(tmp_path: Path) -> None:
    file = tmp_path / "domains.toml"
    file.write_text('[tunneled]\ndomains = ["a.example", "b.example", "A.example"]\n')
    assert remove_domain(str(file), parse_pattern("a.example"))
    assert listed(file) == ["b.example"]


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "[tunneled]\n", "[tunneled]\ndomains = []\n", "[dns]\nredirect = true\n"]
)
def test_a_file_without_domains_gets_its_first(tmp_path: Path, text: str) -> None:
    file = tmp_path / "domains.toml"
    file.write_text(text)
    assert not remove_domain(str(file), parse_pattern("a.example"))
    assert file.read_text() == text
    assert add_domain(str(file), parse_pattern("a.example"))
    assert listed(file) == ["a.example"]
    assert text.strip().split("\n")[0] in file.read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tunneled\n", "is not TOML"),
        ("tunneled = 5\n", "tunneled.domains: is no list"),
        ('[tunneled]\ndomains = "a.example"\n', "tunneled.domains: is no list"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_what_cannot_be_edited_is_told_and_left_alone(tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "domains.toml"
    if text is not None:
        file.write_text(text)
    for edit in (add_domain, remove_domain):
        with pytest.raises(ConfigError) as error:
            edit(str(file), parse_pattern("a.example"))
        assert words in str(error.value) and str(error.value).startswith(str(file))
    assert [entry.name for entry in tmp_path.iterdir()] == ([] if text is None else ["domains.toml"])
    assert text is None or file.read_text() == text


def test_bytes_that_are_no_utf8_are_told(tmp_path: Path) -> None:
    file = tmp_path / "domains.toml"
    file.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError):
        add_domain(str(file), parse_pattern("a.example"))
    assert file.read_bytes() == b"# caf\xe9\n"


def test_owner_and_mode_are_kept_and_no_half_file_is_ever_seen(tmp_path: Path) -> None:
    file = tmp_path / "domains.toml"
    file.write_text(SHAPES["lines"])
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 65534, 65534)
    before = file.stat()
    add_domain(str(file), parse_pattern("c.example"))
    after = file.stat()
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (0o640, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino  # a new file was renamed over it
    assert list(tmp_path.iterdir()) == [file]


def test_through_a_symlink_the_target_is_edited_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real/domains.toml", tmp_path / "domains.toml"
    target.write_text(SHAPES["lines"])
    link.symlink_to("real/domains.toml")
    add_domain(str(link), parse_pattern("c.example"))
    assert link.is_symlink() and listed(target)[-1] == "c.example"


def test_when_the_write_fails_the_old_file_stays_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "domains.toml"
    file.write_text(SHAPES["lines"])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        add_domain(str(file), parse_pattern("c.example"))
    assert file.read_text() == SHAPES["lines"]
    assert list(tmp_path.iterdir()) == [file]


def test_windows_line_ends_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "domains.toml"
    file.write_bytes(SHAPES["lines"].replace("\n", "\r\n").encode())
    remove_domain(str(file), parse_pattern("b.example"))
    assert file.read_bytes().count(b"\r\n") == file.read_bytes().count(b"\n") > 5


def test_the_disk_reads_bytes_and_lists_sorted(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.conf"):
        (tmp_path / name).write_bytes(name.encode())
    assert Disk().read(str(tmp_path / "a.txt")) == b"a.txt"
    assert Disk().glob(str(tmp_path / "*.txt")) == [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    with pytest.raises(FileNotFoundError):
        Disk().read(str(tmp_path / "d.txt"))


# -- lists


def test_a_file_comes_in_pieces_of_whole_lines(tmp_path: Path) -> None:
    content = b"".join(b"host-%d.example\n" % number for number in range(3 * PIECE // 16)) + b"the.end"
    (tmp_path / "list").write_bytes(content)
    pieces = list(Disk().pieces(str(tmp_path / "list")))
    assert b"".join(pieces) == content
    assert len(pieces) > 2
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    assert max(map(len, pieces)) < PIECE + 30


def test_a_stamp_is_another_after_each_way_of_writing(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text("a.example\n")
    stamps = [Disk().stamp(str(file))]
    times = file.stat()
    file.write_text("b.example\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as `cp -p` and `rsync -t` do
    stamps.append(Disk().stamp(str(file)))
    file.write_text("c.example\n# more\n")
    stamps.append(Disk().stamp(str(file)))
    file.rename(tmp_path / "old")
    file.write_bytes((tmp_path / "old").read_bytes())
    stamps.append(Disk().stamp(str(file)))
    assert len(set(stamps)) == 4
    assert [stamp[0] for stamp in stamps] == [10, 10, 17, 17]
    assert Disk().stamp(str(file)) == stamps[-1]


def test_what_is_no_plain_file_has_no_stamp(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert [Disk().stamp(str(path)) for path in (tmp_path / "pipe", tmp_path, tmp_path / "none", "\0")] == [()] * 4


# -- what splitwgd keeps for itself


def test_a_kept_file_is_roots_own_and_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    keep(str(file), [b"one ", b"two"])
    before = file.stat()
    assert (file.read_bytes(), stat.S_IMODE(before.st_mode)) == (b"one two", 0o600)
    file.chmod(0o644)
    keep(str(file), iter([b"three"]))
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"three", 0o600)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run sudo ./do test")
def test_a_file_that_root_keeps_is_the_folders_owners(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65533)
    for _ in range(2):
        keep(str(tmp_path / "learned.json"), [b"one"])
        found = (tmp_path / "learned.json").stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65533, 0o600)


def test_what_cannot_be_kept_leaves_what_was_kept_before(tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    keep(str(file), [b"one"])

    def pieces() -> Iterator[bytes]:
        yield b"two"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        keep(str(file), pieces())
    assert file.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(FileNotFoundError):
        keep(str(tmp_path / "none" / "learned.json"), [b"one"])


def test_what_a_power_cut_left_half_written_is_in_nobodys_way(tmp_path: Path) -> None:
    file, half = tmp_path / "learned.json", tmp_path / "learned.json.new"
    half.write_bytes(b"half of something long")
    keep(str(file), [b"one"])
    assert file.read_bytes() == b"one" and not half.exists()


def test_nobodys_symlink_is_followed_into_another_file(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "learned.json.new").symlink_to("other")
    with pytest.raises(OSError, match="symbolic links"):
        keep(str(tmp_path / "learned.json"), [b"one"])
    assert (tmp_path / "other").read_bytes() == b"other"


def test_what_is_set_aside_makes_room_and_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    for text in (b"one", b"two"):
        file.write_bytes(text)
        aside = Path(set_aside(str(file)))
        assert aside == tmp_path / "learned.json.damaged"
        assert aside.read_bytes() == text and not file.exists()


@pytest.mark.parametrize(
    ("folders", "path"),
    [
        (None, "/var/lib/splitwg/learned.json"),
        ("", "/var/lib/splitwg/learned.json"),
        ("/a/b", "/a/b/learned.json"),
        ("/a/b:/c", "/a/b/learned.json"),
    ],
)
def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, folders: str | None, path: str) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    if folders is not None:
        monkeypatch.setenv("STATE_DIRECTORY", folders)
    assert state_path() == path
