"""Everything of splitwg out of a real kernel, without a daemon; with one: test_daemon_runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitwgd.guard import guard
from splitwgd.removal import config_if_any, remove_from_kernel
from tests.kernel.spaces import Space
from tests.kernel.test_netlink import world
from tests.kernel.test_reconciler import CONFIGS


def test_the_world_is_as_it_was_and_a_second_time_is_none_the_worse(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    before = world()
    guard(CONFIGS[0])
    assert world() != before
    for _ in range(2):
        remove_from_kernel(str(tmp_path / "no such file"))
        assert world() == before


def test_a_configuration_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "domains.toml").write_text("[dns")
    assert config_if_any(str(tmp_path / "domains.toml")) is None
