"""Each test of this directory has an empty network namespace and an empty /run, or is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from splitwgd.kernel import Kernel
from splitwgd.netlink import Netlink
from splitwgd.nft import Nft
from splitwgd.owner import Owner
from splitwgd.uapi import Uapi
from tests.kernel.spaces import Space, Wire, end_inhabitants, own_mounts, private_run
from tests.lab.hosts import NotEnclosed, require_enclosure
from tests.worlds import wait_until


@pytest.fixture(scope="session")
def enclosed() -> None:
    try:
        require_enclosure()
    except NotEnclosed as error:
        pytest.skip(f"needs root: run sudo ./do test ({error})")
    own_mounts()


@pytest.fixture(autouse=True)
def space(enclosed: None) -> Iterator[Space]:
    """The namespace in which the test runs."""
    fresh = Space()
    with private_run():
        with fresh.inside():
            yield fresh
        fresh.close()


@pytest.fixture
def another(space: Space) -> Iterator[Callable[[], Space]]:
    """Makes further namespaces."""
    made: list[Space] = []

    def make() -> Space:
        made.append(Space())
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def wire(space: Space) -> Iterator[Callable[[str, str], Wire]]:
    """Makes wires."""
    made: list[Wire] = []

    def make(name: str, kind: str) -> Wire:
        made.append(Wire(name, kind))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def nft(space: Space) -> Nft:
    return Nft()


@pytest.fixture
def unowned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 6.9, as far as this process sees: everybody changes everybody's tables."""
    monkeypatch.setattr(Owner, "can_own", False)


@pytest.fixture
def netlink(space: Space) -> Iterator[Netlink]:
    hand = Netlink()
    yield hand
    hand.close()


@pytest.fixture
def uapi(space: Space) -> Iterator[Uapi]:
    hand = Uapi()
    yield hand
    end_all(space, hand)


@pytest.fixture
def kernel(space: Space) -> Iterator[Kernel]:
    with closing(Owner("wg_routing")) as owner, closing(Kernel(owner)) as hand:
        yield hand
        end_all(space, hand._uapi)


def end_all(space: Space, uapi: Uapi) -> None:
    """Ends the WireGuard processes and collects them."""
    end_inhabitants(space.name)

    def none_left() -> bool:
        uapi.reap()
        return not uapi._children

    wait_until(none_left)
