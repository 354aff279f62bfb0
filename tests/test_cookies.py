"""Cookies of servers: learned from whom returns ours, demanded from then on, forgotten over TCP (RFC 7873)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.cookies import CookieJar

SECRET, THEIRS = b"oursours", b"theirs!!"


def option(code: int, value: bytes) -> bytes:
    return struct.pack("!HH", code, len(value)) + value


def cookie(ours: bytes = SECRET, theirs: bytes = THEIRS) -> bytes:
    return option(10, ours + theirs)


def test_the_first_question_bears_our_half_alone() -> None:
    assert CookieJar(SECRET).options == option(10, SECRET)


def test_a_servers_half_is_sent_back_to_it_and_the_latest_counts() -> None:
    jar = CookieJar(SECRET)
    assert jar.accepts(cookie())
    assert jar.options == cookie()
    assert jar.accepts(cookie(theirs=b"another one"))
    assert jar.options == cookie(theirs=b"another one")


def test_who_knows_no_cookies_is_believed_without_one() -> None:
    jar = CookieJar(SECRET)
    for options in (b"", option(15, b"\0\3old"), option(3, b"")):
        assert jar.accepts(options) and not jar.held_to_it
    assert jar.options == option(10, SECRET)


@pytest.mark.parametrize("options", [b"", option(15, b"\0\3old"), cookie(ours=b"guessed!")])
def test_who_has_once_returned_ours_is_held_to_it(options: bytes) -> None:
    jar = CookieJar(SECRET)
    jar.accepts(cookie())
    assert jar.held_to_it
    assert not jar.accepts(options)
    assert jar.options == cookie()
    assert jar.accepts(cookie())


def test_a_wrong_half_of_ours_is_refused_from_the_beginning() -> None:
    jar = CookieJar(SECRET)
    assert not jar.accepts(cookie(ours=b"oursourz"))
    assert not jar.held_to_it


@pytest.mark.parametrize("length", [8, 9, 32])
def test_a_servers_half_has_8_to_32_bytes(length: int) -> None:
    jar = CookieJar(SECRET)
    assert jar.accepts(cookie(theirs=b"t" * length))
    assert jar.held_to_it and jar.options.endswith(SECRET + b"t" * length)


@pytest.mark.parametrize("length", [0, 1, 7, 33, 200])
def test_another_length_proves_that_it_saw_ours_and_is_not_sent_back(length: int) -> None:
    jar = CookieJar(SECRET)
    assert jar.accepts(cookie(theirs=b"t" * length))
    assert not jar.held_to_it and jar.options == option(10, SECRET)


def test_it_is_found_among_other_options() -> None:
    jar = CookieJar(SECRET)
    assert jar.accepts(option(15, b"\0\0") + cookie() + option(12, b"\0" * 9))
    assert jar.held_to_it


@pytest.mark.parametrize(
    "options",
    [
        option(10, b"short"),
        option(10, b""),
        cookie()[:-1],
        b"\0",
        b"\0\x0a\0",
        b"\0\x0a\0\x10",
        option(15, b"") + b"\0\1",
    ],
)
def test_what_cannot_be_read_is_not_the_servers(options: bytes) -> None:
    jar = CookieJar(SECRET)
    assert not jar.accepts(options)
    assert not jar.held_to_it


def test_over_tcp_it_may_have_forgotten_them() -> None:
    jar = CookieJar(SECRET)
    jar.accepts(cookie())
    jar.forget()
    assert (jar.held_to_it, jar.options) == (False, option(10, SECRET))
    assert jar.accepts(b"")


@given(st.binary(max_size=40))
def test_no_bytes_but_our_own_are_learned(options: bytes) -> None:
    jar = CookieJar(SECRET)
    jar.accepts(options)
    assert not jar.held_to_it
