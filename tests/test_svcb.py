"""The parameters of HTTPS and SVCB records."""

from __future__ import annotations

import struct
from contextlib import nullcontext

import pytest

from splitwgd.errors import MessageError
from splitwgd.svcb import IPV4_HINT, IPV6_HINT, addresses_in, hints, parameters
from tests.worlds import ip


def parameter(key: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("!HH", key, len(value) if length is None else length) + value


def packed(*texts: str) -> bytes:
    return b"".join(ip(text).packed for text in texts)


def test_hints_of_both_families_are_found_among_other_parameters() -> None:
    data = parameter(1, b"\2h2") + parameter(IPV4_HINT, packed("192.0.2.1", "192.0.2.2")) + parameter(5, b"ech")
    data += parameter(IPV6_HINT, packed("2001:db8::1"))
    assert hints(data) == [ip(text).packed for text in ("192.0.2.1", "192.0.2.2", "2001:db8::1")]


def test_a_hint_that_is_cut_is_no_address() -> None:
    assert addresses_in(IPV4_HINT, packed("192.0.2.1") + b"\xc0\0") == [packed("192.0.2.1")]
    assert addresses_in(IPV6_HINT, packed("192.0.2.1")) == []
    assert addresses_in(3, packed("192.0.2.1")) == []


def test_parameters_come_in_their_order() -> None:
    assert parameters(parameter(0, b"\0\4") + parameter(3, b"\x01\xbb")) == [(0, b"\0\4"), (3, b"\x01\xbb")]
    assert parameters(b"") == []


@pytest.mark.parametrize(("count", "readable"), [(256, True), (257, False)])
def test_there_are_no_thousands_of_parameters(count: int, readable: bool) -> None:
    with nullcontext() if readable else pytest.raises(MessageError):
        parameters(b"".join(parameter(key, b"") for key in range(count)))


@pytest.mark.parametrize("data", [parameter(4, b"\1\2\3\4", length=5), parameter(65535, b"", length=65535)])
def test_a_parameter_longer_than_its_record_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        parameters(data)
