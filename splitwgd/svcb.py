"""The parameters of HTTPS and SVCB records, and the addresses among them (RFC 9460)."""

from __future__ import annotations

import struct

from splitwgd.errors import MessageError

Address = bytes  # in network order: 4 of them or 16
MANDATORY, IPV4_HINT, IPV6_HINT = 0, 4, 6  # SvcParamKeys (RFC 9460 §14.3.2)

_LIMIT = 256  # parameters of a record; some ten keys are registered, and thousands would hold up everybody

WIDTHS = {IPV4_HINT: 4, IPV6_HINT: 16}


def parameters(data: bytes) -> list[tuple[int, bytes]]:
    """The SvcParams of an HTTPS or SVCB record, key by key (RFC 9460 §2.2)."""
    found: list[tuple[int, bytes]] = []
    position = 0
    while position < len(data):
        key, length = struct.unpack_from("!HH", data, position)
        position += 4 + length
        if position > len(data):
            raise MessageError("a service parameter longer than its record")
        if len(found) >= _LIMIT:
            raise MessageError("more service parameters than anybody needs")
        found.append((key, data[position - length : position]))
    return found


def hints(data: bytes) -> list[Address]:
    """The addresses that a browser may dial at once (RFC 9460 §7.3)."""
    return [address for key, value in parameters(data) for address in addresses_in(key, value)]


def addresses_in(key: int, value: bytes) -> list[Address]:
    """The addresses of one parameter."""
    width = WIDTHS.get(key, 0)
    return [value[start : start + width] for start in range(0, len(value) - width + 1, width)] if width else []
