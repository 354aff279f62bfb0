"""The manual pages leave nothing out, and shells are told how to complete a command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from splitwgd.cli import main
from splitwgd.config import _KEYS

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "man").iterdir())


def page(name: str) -> str:
    return (ROOT / "man" / name).read_text().replace("\\-", "-")


def test_every_command_has_its_place_with_each_of_its_options() -> None:
    text = page("splitwg.1")
    for name, command in main.commands.items():
        if command.hidden:
            continue
        entry = re.search(rf'^\.(B|BI|BR) "?{name}\b.*$', text, re.MULTILINE)
        assert entry, name
        for option in (o for param in command.params if isinstance(param, click.Option) for o in param.opts):
            assert option in entry[0], f"{name} {option}"
        for below in getattr(command, "commands", ()):
            assert f"{name} {below}" in text


def test_every_option_of_the_daemon_has_its_place() -> None:
    argv = [sys.executable, "-c", "from splitwgd.daemon import main; main()", "--help"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"--[a-z]+", told)) - {"--help"}
    assert len(options) > 3 and [option for option in options if option not in page("splitwgd.8")] == []


def test_every_key_has_its_place() -> None:
    text = page("domains.toml.5")
    assert [key for section, keys in _KEYS.items() if section for key in keys if f"\\fB{key}\\fR" not in text] == []


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_groff_has_nothing_against_a_page(path: Path) -> None:
    done = subprocess.run(["groff", "-man", "-ww", "-z", path], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_asks_the_client_what_may_follow(shell: str) -> None:
    text = (ROOT / "completions" / f"splitwg.{shell}").read_text()
    assert f"_SPLITWG_COMPLETE={shell}_complete" in text
    asked = {"_SPLITWG_COMPLETE": f"{shell}_complete", "COMP_WORDS": "splitwg st", "COMP_CWORD": "st"}
    asked["COMP_CWORD"] = "st" if shell == "fish" else "1"
    argv = [sys.executable, "-c", "from splitwgd.cli import main; main(prog_name='splitwg')"]
    done = subprocess.run(argv, env=os.environ | asked, capture_output=True, text=True, check=True)
    assert "status" in done.stdout and "revert" not in done.stdout
