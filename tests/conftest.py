"""For every test: in the enclosure, which begins with everything down, loopback is up."""

from __future__ import annotations

import resource
import subprocess

import pytest

from tests.lab.hosts import NotEnclosed, require_enclosure


@pytest.fixture(scope="session", autouse=True)
def many_files() -> None:
    """Some tests are ten thousand clients; a login shell may have a thousand files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@pytest.fixture(scope="session", autouse=True)
def loopback() -> None:
    try:
        require_enclosure()
    except NotEnclosed:
        return  # the machine's own network is none of our business
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
