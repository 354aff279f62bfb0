"""The command doctor: how it says what was found, and with which status it ends. What it sees: tests/kernel."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from splitwgd import cli, doctor
from tests.test_findings import HEALTHY
from tests.worlds import WG

TOML = """[dns]
tunneled = ["10.1.0.1"]
default = ["9.9.9.9"]
[tunneled]
domains = []
[wireguard]
config = "wg0.conf"
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "wg0.conf").write_text(WG)
    (tmp_path / "domains.toml").write_text(TOML)
    monkeypatch.setattr(doctor, "look_around", lambda *_: HEALTHY)
    return tmp_path / "domains.toml"


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["--config", str(path), "doctor", *arguments])


def test_nothing_to_mend_is_status_0(path: Path) -> None:
    done = run(path)
    assert done.exit_code == 0
    assert "✓ splitwgd: runs and answers" in done.output and "->" not in done.output


def test_what_is_to_be_mended_comes_with_its_remedy_and_status_1(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "look_around", lambda *_: replace(HEALTHY, resolved=True))
    done = run(path)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[lines.index(next(line for line in lines if line.startswith("✗"))) + 1] == "  -> splitwg dns take"
    found = json.loads(run(path, "--json").output)
    assert [f["about"] for f in found if f["grade"] == "mend"] == ["systemd-resolved"]


def test_mistakes_of_the_configuration_are_among_it_and_the_rest_is_looked_at(path: Path) -> None:
    path.write_text(TOML.replace("tunneled =", "tuneled ="))
    done = run(path)
    assert done.exit_code == 1 and "✗" in done.output and "unknown key" in done.output
    assert "✓ nf_tables" in done.output


def test_what_only_root_may_read_is_not_called_wrong(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, path: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("splitwgd.store.Disk.read", refuse)
    done = run(path)
    assert done.exit_code == 0 and "? " in done.output and "-> run as root" in done.output
