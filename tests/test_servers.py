"""How the configuration writes a DNS server."""

from __future__ import annotations

import pytest

from splitwgd.servers import Server, parse_server
from tests.worlds import ip


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("9.9.9.9", Server(ip("9.9.9.9"))),
        ("9.9.9.9:5353", Server(ip("9.9.9.9"), 5353)),
        ("[2620:fe::fe]:5353", Server(ip("2620:fe::fe"), 5353)),
        ("2620:fe::fe", Server(ip("2620:fe::fe"))),
    ],
)
def test_a_server_is_written_as_it_prints(text: str, server: Server) -> None:
    assert parse_server(text) == server
    assert str(server) == text
