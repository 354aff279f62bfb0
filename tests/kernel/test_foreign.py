"""Rules, routes and marks of others on a real kernel; ours are not among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitwgd.findings import ForeignRule
from splitwgd.foreign import foreign_routes, foreign_rules, marks_of_wireguards
from splitwgd.guard import guard
from tests.kernel.spaces import Space, sh
from tests.worlds import make_config


def test_rules_are_read_as_broad_or_narrow(space: Space) -> None:
    usual = foreign_rules()
    assert usual is not None and {rule.table for rule in usual} == {253, 254}
    sh("ip rule add fwmark 0x80000/0xff0000 lookup 52 prio 5210")
    sh("ip rule add from 192.0.2.1 lookup 7 prio 90")
    sh("ip -6 rule add not fwmark 0xca6c lookup 51820 prio 91")
    found = set(foreign_rules() or ()) - set(usual)
    assert found == {
        ForeignRule(5210, 0x80000, 0xFF0000, 52, False),
        ForeignRule(90, 0, 0, 7, True),
        ForeignRule(91, 0, 0, 51820, False),
    }


def test_ours_are_not_among_the_others(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    usual = foreign_rules()
    guard(make_config())
    assert foreign_rules() == usual and foreign_routes(100) == ()
    sh("ip link set lo up; ip route add 198.51.100.0/24 dev lo table 100; ip route add 203.0.113.0/24 dev lo")
    assert foreign_routes(100) == ("the route to 198.51.100.0/24",)


def test_other_wireguards_tell_their_marks(space: Space) -> None:
    assert marks_of_wireguards(()) == {}
    if "type wireguard" not in sh("ip link add wg7 type wireguard && ip -d link show wg7 || true", check=False):
        pytest.skip("this kernel has no WireGuard")
    sh("wg set wg7 fwmark 0xca6c")
    assert marks_of_wireguards(()) == {"wg7": 0xCA6C} and marks_of_wireguards(("wg7",)) == {}
