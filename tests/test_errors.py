"""Errors: one tree, and words for the person who has to mend something."""

from __future__ import annotations

import pytest

from splitwgd.errors import (
    ConfigError,
    KernelError,
    MachineError,
    MessageError,
    Problem,
    SplitwgError,
    UpstreamError,
)

HERE = Problem("/etc/x.toml: dns.listen[0]", "= 5 is no text", "write an address, in quotation marks")
THERE = Problem("/etc/wg0.conf:3", "MTU for the second time", "keep one")


def test_a_problem_says_where_what_and_what_to_do() -> None:
    assert str(HERE) == "/etc/x.toml: dns.listen[0]: = 5 is no text; write an address, in quotation marks"


def test_a_config_error_tells_every_problem_on_a_line_of_its_own() -> None:
    error = ConfigError([HERE, THERE])
    assert error.problems == (HERE, THERE)
    assert str(error).splitlines() == [str(HERE), str(THERE)]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError([]), 2),
        (MachineError("x"), 1),
        (KernelError("x"), 1),
        (UpstreamError("x"), 1),
        (MessageError("x"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_is_ours_and_has_an_exit_status(error: SplitwgError, status: int) -> None:
    assert isinstance(error, SplitwgError)
    assert error.exit_status == status


def test_an_upstream_error_tells_whether_there_was_a_way_to_anybody() -> None:
    assert not UpstreamError("wg0: no answer in time").no_way
    error = UpstreamError("wg0: 10.1.0.1 No such device", no_way=True)
    assert error.no_way and str(error) == "wg0: 10.1.0.1 No such device"
