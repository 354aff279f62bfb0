"""The programs that manage a machine: what they said, that they are missing, and that their failure is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitwgd.changes import DNS, UNITS, Deed
from splitwgd.errors import MachineError
from splitwgd.programs import Programs, Ran


def test_what_a_program_said_and_how_it_ended() -> None:
    run = Programs().run
    assert run("sh", "-c", "cat; echo err >&2; exit 3", given="in\n") == Ran(3, "in\nerr")
    assert run("no-such-program") == Ran(127, "there is no no-such-program")
    assert Programs().has("sh") and not Programs().has("no-such-program")


def test_what_has_to_succeed_and_does_not_is_told_with_its_words() -> None:
    Programs().must("true")
    with pytest.raises(MachineError, match="^`sh -c echo why; false` failed: why$"):
        Programs().must("sh", "-c", "echo why; false")
    with pytest.raises(MachineError, match="^`false` failed: status 1$"):
        Programs().must("false")


def test_deeds_go_through_the_systems_own_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tmp_path / "said"
    for name in ("systemctl", "systemd-sysusers", "userdel", "groupdel", "resolvconf"):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nread -r line; echo "{name} $* <$line>" >>{said}\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    deeds = [Deed("user", "splitwg", UNITS), Deed("enable", "splitwgd.service", UNITS)]
    deeds.append(Deed("resolvconf", "lo.splitwg 127.0.0.1 -m 0", DNS))
    for deed in deeds:
        Programs().do(deed)
    for deed in deeds:
        Programs().undo(deed)
    assert said.read_text().splitlines() == [
        "systemd-sysusers splitwg.conf <>",
        "systemctl --quiet enable splitwgd.service <>",
        "resolvconf -a lo.splitwg -m 0 <nameserver 127.0.0.1>",
        "userdel splitwg <>",
        "groupdel splitwg <>",
        "systemctl --quiet disable splitwgd.service <>",
        "resolvconf -d lo.splitwg <>",
    ]


def test_a_record_that_resolvconf_has_taken_is_taken_whatever_others_hooks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resolvconf").write_text("#!/bin/sh\necho a hook failed; exit 1\n")
    (tmp_path / "resolvconf").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("splitwgd.programs._RECORDS", str(tmp_path))
    deed = Deed("resolvconf", "lo.splitwg 127.0.0.1", DNS)
    with pytest.raises(MachineError, match="resolvconf does not take our record lo.splitwg: a hook failed"):
        Programs().do(deed)
    (tmp_path / "interface").mkdir()
    (tmp_path / "interface/lo.splitwg").touch()
    Programs().do(deed)
