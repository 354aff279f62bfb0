"""The lab as a fixture: one for all tests of the session; skipped where it must not stand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .hosts import NotEnclosed, require_enclosure
from .machine import Machine
from .world import Lab
from .world import lab as standing_lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The four hosts, up and connected."""
    try:
        require_enclosure()
    except NotEnclosed as error:
        pytest.skip(str(error))
    with standing_lab() as built:
        yield built


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    """The client with splitwgd's files in place and the daemon not started; clean afterwards."""
    built = Machine(lab)
    try:
        yield built
    finally:
        built.clean()
