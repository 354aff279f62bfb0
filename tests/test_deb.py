"""What goes into the Debian package, as far as it can be told without building it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deb.build import COMPLETIONS, DEB, ROOT, is_compiled, licence, licences, packed


def fixed() -> dict[str, str]:
    """The libraries of deb/python.txt, with their versions."""
    found = re.findall(r"^([\w.-]+)==(\S+)((?: \\\n)?\s+--hash=sha256:[0-9a-f]{64})+$", text(), re.MULTILINE)
    return {name: version for name, version, _ in found}


def text() -> str:
    return (DEB / "python.txt").read_text()


def test_what_the_project_needs_is_fixed_by_its_bytes() -> None:
    needed = [
        Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ]
    assert [str(each) for each in needed if not each.specifier.contains(fixed().get(each.name, "0"))] == []
    assert len(fixed()) == len(re.findall("^[a-z]", text(), re.MULTILINE))


def test_a_licence_that_every_debian_has_is_named_and_others_are_told(tmp_path: Path) -> None:
    for name, words, told in (
        ("apache", "Apache License\nVersion 2.0\nTERMS AND CONDITIONS FOR USE", "common-licenses/Apache-2.0"),
        ("gpl", "GNU GENERAL PUBLIC LICENSE\nTERMS AND CONDITIONS FOR COPYING", "common-licenses/GPL-2"),
        ("mit", "Copyright (c) 2014 Somebody\nPermission is hereby granted", "2014 Somebody\nPermission"),
    ):
        (tmp_path / name).write_text(words)
        assert told in licence(tmp_path / name)


def test_a_library_without_a_licence_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "thing-1.0.dist-info").mkdir()
    with pytest.raises(Exception, match="thing comes without a licence"):
        licences(tmp_path)


def test_machine_code_is_known_whatever_its_name(tmp_path: Path) -> None:
    for name, data, expected in (("a.so", b"x", True), ("b", b"\x7fELF\2", True), ("c.py", b"import os", False)):
        (tmp_path / name).write_bytes(data)
        assert is_compiled(tmp_path / name) == expected
    assert not is_compiled(tmp_path)


def test_what_is_packed_says_neither_when_nor_where() -> None:
    assert packed(b"words")[3:8] == b"\0\0\0\0\0"  # no name, no time (RFC 1952 §2.3)


def test_each_completion_has_a_place() -> None:
    assert {path.name for path in ROOT.glob("completions/*")} <= set(COMPLETIONS)


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_a_maintainer_script_ends_with_the_first_error(script: str) -> None:
    assert "\nset -e\n" in (DEB / script).read_text()
