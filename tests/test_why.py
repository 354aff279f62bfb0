"""The reasons that go with SERVFAIL, as dig shows them."""

from __future__ import annotations

from splitwgd import why
from splitwgd.zones import Group
from tests.worlds import server

DIRECT = Group("default", (server("192.0.2.1"),), 0xFE)
TUNNEL = Group("wg0", (server("10.1.0.1"),), 1, "wg0", "wg")
NETWORK_ERROR, NO_REACHABLE_AUTHORITY, STALE_ANSWER = 23, 22, 3  # RFC 8914 §4


def test_no_way_names_what_is_missing() -> None:
    assert why.no_way(TUNNEL).code == why.no_way(DIRECT).code == NETWORK_ERROR
    assert why.no_way(TUNNEL).text == "splitwg: the tunnel wg0 is down"
    assert "no route" in why.no_way(DIRECT).text
    assert "no server is known" in why.no_way(Group("default", (), 0xFE)).text


def test_silence_and_refusal_are_told_apart() -> None:
    assert why.silent(TUNNEL).code == why.refused(TUNNEL, 5).code == NO_REACHABLE_AUTHORITY
    assert why.silent(TUNNEL).text != why.refused(TUNNEL, 5).text
    assert why.refused(TUNNEL, 5).text.endswith("wg0 answer REFUSED")
    assert why.refused(TUNNEL, 17).text.endswith("wg0 answer rcode 17")
    assert why.STALE.code == STALE_ANSWER
