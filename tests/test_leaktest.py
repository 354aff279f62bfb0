"""The command leaktest: its names, and what it makes of what was seen. In earnest: tests/lab/test_probes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from splitwgd import cli, leaktest
from splitwgd.errors import MachineError
from splitwgd.taps import Tap
from tests.test_doctor import TOML
from tests.test_sightings import NAME, tcp, v4
from tests.worlds import WG, ip

SITE, CONTROL = ip("203.0.113.10"), ip("192.0.2.1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "wg0.conf").write_text(WG)
    listed = 'domains = ["!a.example", "*.b.example", "=c.example", "d.example", "e.example"]'
    (tmp_path / "domains.toml").write_text(TOML.replace("domains = []", listed))
    return tmp_path / "domains.toml"


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["--config", str(path), "leaktest", *arguments])


def judged(*packets: tuple[str, str], lost: int = 0) -> dict[str, Any]:
    tap = Tap.__new__(Tap)
    tap.packets, tap.lost = [(link, v4(to, 6, tcp(443))) for link, to in packets], lost
    return leaktest._judge(tap, {NAME: {SITE, ip("192.0.2.2")}}, {ip("192.0.2.2")}, [CONTROL], 1)


def test_nothing_seen_counts_only_when_the_control_was() -> None:
    assert judged(("eth0", "192.0.2.1"), ("eth0", "198.51.100.1"))["status"] == leaktest.NOTHING
    assert judged()["status"] == leaktest.UNTESTED
    assert judged(("eth0", "192.0.2.1"), lost=1)["status"] == leaktest.UNTESTED


def test_what_was_seen_is_seen_whatever_else_and_this_machine_itself_is_nobody() -> None:
    found = judged(("eth0", "203.0.113.10"), ("eth0", "203.0.113.10"), lost=1)
    assert found["status"] == leaktest.IN_CLEAR
    assert found["seen"] == [{"link": "eth0", "to": "203.0.113.10", "port": 443, "name": "", "count": 2}]
    assert judged(("eth0", "192.0.2.1"), ("eth0", "192.0.2.2"))["status"] == leaktest.NOTHING


def test_the_first_names_of_the_configuration_are_tried_or_those_that_are_given(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[list[bytes]] = []

    def test(config: object, names: list[bytes]) -> dict[str, Any]:
        tried.append(names)
        return judged(("eth0", "192.0.2.1"))

    monkeypatch.setattr(leaktest, "_test", test)
    done = run(path)
    assert done.exit_code == 0 and "✓ nothing of it was seen in clear (1 packets" in done.output
    run(path, "Example.ORG")
    assert tried == [
        [b"\x03www\x01b\x07example\0", b"\x01c\x07example\0", b"\x01d\x07example\0"],
        [b"\x07example\x03org\0"],
    ]
    assert run(path, "a..b").exit_code == 2


def test_the_status_says_seen_or_untested_and_json_says_it_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaktest, "_test", lambda *_: judged(("eth0", "203.0.113.10"), ("eth0", "203.0.113.10")))
    done = run(path)
    assert done.exit_code == 1 and "✗ seen in clear: to 203.0.113.10 port 443, on eth0 (2 times)" in done.output
    assert json.loads(run(path, "--json").output)["seen"][0]["count"] == 2
    monkeypatch.setattr(leaktest, "_test", lambda *_: judged())
    assert run(path).exit_code == 3 and "there is no uplink" in run(path).output

    def refuse(*_: object) -> None:
        raise MachineError("no right to listen on the links; run as root")

    monkeypatch.setattr(leaktest, "_test", refuse)
    done = run(path)
    assert (done.exit_code, done.stderr) == (3, "splitwg: no right to listen on the links; run as root\n")


def test_without_a_listed_domain_one_has_to_be_named(path: Path) -> None:
    path.write_text(TOML)
    done = run(path)
    assert done.exit_code == 1 and "name one: splitwg leaktest NAME" in done.stderr
