"""The section [routing]; its problems as a person meets them stand in test_config."""

from __future__ import annotations

from typing import Any

import pytest

from splitwgd.routing import Routing, read_routing
from splitwgd.settings import Settings
from tests.samples import Memory


def read(**values: Any) -> tuple[Routing, list[str]]:
    settings = Settings("f.toml", {"routing": values}, Memory({}))
    return read_routing(settings), [problem.where for problem in settings.problems]


@pytest.mark.parametrize(
    "values",
    [
        {"fwmark": 0x8000_0000, "fwmask": 0xC000_0000},
        {"fwmark": 0x1, "fwmask": 0x101},  # with a gap
        {"table": 252},
        {"table": 256},
        {"table": 0xFFFF_FFFF},
        {"priority": 1, "min_lifetime": 30 * 86_400},
    ],
)
def test_these_can_be(values: dict[str, Any]) -> None:
    routing, problems = read(**values)
    assert (routing, problems) == (Routing(**values), [])


@pytest.mark.parametrize(("mark", "mask"), [(0x1, 0xFF), (0x8000_0000, 0xC000_0000), (0x100, 0x101)])
def test_what_goes_outside_bears_another_mark_under_the_same_mask(mark: int, mask: int) -> None:
    direct = Routing(fwmark=mark, fwmask=mask).direct
    assert direct and direct != mark and direct & ~mask == 0


def test_every_value_that_cannot_be_is_told_at_once() -> None:
    routing, problems = read(fwmark=0x300, table=253, priority=0, min_lifetime=1, on_stop="shut")
    assert problems == [f"f.toml: routing.{key}" for key in ("fwmark", "table", "on_stop", "priority", "min_lifetime")]
    assert (routing.priority, routing.min_lifetime) == (Routing.priority, Routing.min_lifetime)
