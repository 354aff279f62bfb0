"""The commands of the list: what is written, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from splitwgd import cli
from splitwgd.errors import SplitwgError
from tests.test_cli import TOML, Daemon, daemon, path, run

__all__ = ["daemon", "path"]  # fixtures


def test_the_list_shows_what_is_tunneled_from_all_files(path: Path) -> None:
    done = run(path, "list")
    assert done.exit_code == 0
    assert done.output.split() == ["github.com", "=example.org", "*.example.net", "!www.example.net", "198.51.100.0/24"]


def test_added_is_listed_and_every_comment_is_kept(path: Path) -> None:
    done = run(path, "add", "Example.COM", "*.bücher.example", "github.com")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "example.com added",
        "*.xn--bcher-kva.example added",
        "github.com is listed already",
        "splitwgd does not run: it will be so when it starts",
    ]
    assert [line for line in TOML.splitlines() if line not in path.read_text().splitlines()] == []
    assert {"example.com", "*.xn--bcher-kva.example"} < set(run(path, "list").output.split())


def test_removed_is_gone_and_every_other_line_is_kept(path: Path) -> None:
    done = run(path, "remove", "=example.org", "*.example.net")
    assert done.exit_code == 0
    assert done.output.splitlines()[:2] == ["=example.org removed", "*.example.net is not listed in this file"]
    assert path.read_text() == TOML.replace('    "=example.org",\n', "")


def test_add_and_remove_lead_back_to_the_byte(path: Path) -> None:
    run(path, "add", "example.com")
    run(path, "remove", "example.com")
    assert path.read_text() == TOML


@pytest.mark.parametrize("verb", ["add", "remove"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://github.com/x", "a slash cannot be in a name; write the bare domain"),
        ("two words", "a space cannot be in a name"),
        ("a..b", "an empty label"),
        ("", "an empty name"),
        ("x" * 64 + ".com", "63 is the limit"),
    ],
)
def test_what_is_no_domain_is_refused_with_its_remedy_and_nothing_is_written(
    path: Path, verb: str, text: str, words: str
) -> None:
    done = run(path, verb, "example.com", text)
    assert done.exit_code == 2
    assert words in " ".join(done.output.replace("│", " ").split())
    assert path.read_text() == TOML


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_without_a_domain_the_call_is_wrong(path: Path, verb: str) -> None:
    done = run(path, verb)
    assert (done.exit_code, "DOMAIN" in done.output) == (2, True)


@pytest.mark.parametrize("verb", ["add", "remove", "list"])
def test_without_its_file_the_error_names_it(tmp_path: Path, verb: str) -> None:
    missing = tmp_path / "no.toml"
    done = run(missing, verb, *(["example.com"] if verb != "list" else []))
    assert done.exit_code == 2
    assert done.stderr.startswith(f"splitwg: {missing}: ") and "Traceback" not in done.output


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_a_file_that_may_not_be_written_is_told(path: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("splitwgd.store.tempfile.mkstemp", denied)
    done = run(path, verb, "example.com" if verb == "add" else "github.com")
    assert done.exit_code == 1
    assert done.stderr == f"splitwg: {path} cannot be written (Permission denied); run as root\n"
    assert path.read_text() == TOML


def test_a_relative_path_is_understood(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    assert run(Path("domains.toml"), "list").output.startswith("github.com\n")


# -- with a daemon


@pytest.mark.parametrize(("verb", "domain"), [("add", "example.com"), ("remove", "github.com")])
def test_the_daemon_is_told_once_of_an_edit(path: Path, daemon: Daemon, verb: str, domain: str) -> None:
    done = run(path, verb, domain)
    assert (done.exit_code, daemon.told) == (0, ["reload"] + ["why"] * (verb == "add"))
    assert "does not run" not in done.output


def test_what_the_daemon_says_against_an_edit_is_passed_on(path: Path, daemon: Daemon) -> None:
    daemon.answers["reload"] = SplitwgError("the file is wrong elsewhere; mend it")
    done = run(path, "add", "example.com")
    assert (done.exit_code, done.stderr) == (1, "splitwg: the file is wrong elsewhere; mend it\n")


def test_it_is_told_how_many_addresses_are_tunneled_now(path: Path, daemon: Daemon) -> None:
    address = {"address": "192.0.2.1", "tunnel": "wg0"}
    daemon.answers["why"] = {"addresses": [address, address, address | {"tunnel": ""}]}
    assert run(path, "add", "example.com", "!www.github.com").output.splitlines()[2:] == [
        "example.com is tunneled now: 2 addresses"
    ]
    daemon.answers["why"] = {"addresses": []}
    assert run(path, "add", "example.net").output.splitlines()[1:] == [
        "example.net is tunneled now: its addresses when it is looked up"
    ]


# -- import


def test_lists_of_others_are_added_once_with_their_comments_and_what_is_not_taken_is_told(
    path: Path, daemon: Daemon
) -> None:
    theirs = path.parent / "theirs.txt"
    theirs.write_text("# whole line\ngithub.com\nexample.com # shop\nregexp:^x$\ninclude:more\n")
    (path.parent / "more").write_text("full:www.example.com @cn\ninclude:theirs.txt\n")
    done = run(path, "import", str(theirs))
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == "2 added, 1 listed already"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{theirs}:4: not taken: 'regexp:^x$': ")
    assert '    "example.com", # shop\n' in path.read_text() and '"=www.example.com"' in path.read_text()
    assert [line for line in TOML.splitlines() if line not in path.read_text().splitlines()] == []
    assert daemon.told[0] == "reload"


def test_standard_input_is_a_list_too(path: Path, daemon: Daemon) -> None:
    done = CliRunner().invoke(cli.main, ["--config", str(path), "import", "-"], input="server=/a.example/10.1.0.1\n")
    assert done.exit_code == 0 and '"a.example"' in path.read_text()


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("regexp:x\n", 1, "no domain was found"),
        ("".join(f"n{number}.example\n" for number in range(5001)), 1, "5001 domains are too many"),
        ("\xff", 2, "is no text"),
        (None, 2, "cannot be read (No such file or directory)"),
    ],
)
def test_what_cannot_be_imported_is_told_and_nothing_is_written(
    path: Path, text: str | None, status: int, words: str
) -> None:
    theirs = path.parent / "theirs.txt"
    if text is not None:
        theirs.write_bytes(text.encode("latin-1"))
    done = run(path, "import", str(theirs))
    assert done.exit_code == status and words in done.stderr
    assert path.read_text() == TOML
