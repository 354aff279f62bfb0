"""Messages in whatever pieces they come, and TLS between two ends in memory. With sockets: test_channels."""

from __future__ import annotations

import itertools
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.dot import Framed, Tls
from tests.tls import NAME, certified, trusting

MESSAGE = b"\xab\xcd\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1"
messages = st.binary(min_size=12, max_size=300)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def counting() -> Framed:
    return Framed(itertools.count(1).__next__)


def test_a_question_goes_with_its_length_and_an_id_of_ours() -> None:
    talk = counting()
    assert [talk.ask(MESSAGE), talk.ask(MESSAGE)] == [1, 2]
    assert talk.outgoing() == framed(b"\0\1" + MESSAGE[2:]) + framed(b"\0\2" + MESSAGE[2:])
    assert talk.outgoing() == b""


def test_a_question_given_up_before_it_was_sent_is_not_sent() -> None:
    talk = counting()
    talk.ask(MESSAGE)
    talk.forget(talk.ask(MESSAGE))
    assert talk.outgoing() == framed(b"\0\1" + MESSAGE[2:])


def test_an_id_is_free_again_when_it_is_answered_or_forgotten() -> None:
    talk = Framed(itertools.cycle([7, 8]).__next__)
    assert talk.ask(MESSAGE) == 7
    assert talk.receive(framed(b"\0\7" + MESSAGE[2:])) == [(7, b"\0\7" + MESSAGE[2:])]
    assert talk.ask(MESSAGE) == 8
    assert talk.ask(MESSAGE) == 7
    talk.forget(8)
    assert talk.ask(MESSAGE) == 8


@given(st.lists(messages, max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_messages_are_the_same_in_whatever_pieces_they_come(sent: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(framed(message) for message in sent)
    places = [0, *sorted(cuts), len(stream)]
    talk = counting()
    found = [one for start, end in itertools.pairwise(places) for one in talk.receive(stream[start:end])]
    assert found == [(int.from_bytes(message[:2], "big"), message) for message in sent]
    assert not talk.over


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_no_bytes_do_harm(pieces: list[bytes]) -> None:
    talk = counting()
    for piece in pieces:
        if not talk.over:
            talk.receive(piece)
    assert len(talk._in) <= 2 + 65_535


@pytest.mark.parametrize("length", range(12))
def test_what_is_too_short_for_a_header_is_the_end(length: int) -> None:
    talk = counting()
    assert talk.receive(framed(MESSAGE) + framed(bytes(length)) + framed(MESSAGE)) == [(0xABCD, MESSAGE)]
    assert talk.over


class Far:
    """The server's end."""

    def __init__(self, certificate: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = certificate.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def shake(self, near: Tls) -> None:
        while not near.ready:
            self.incoming.write(near.outgoing())
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            near.receive(self.outgoing.read())
        self.incoming.write(near.outgoing())


def shaken() -> tuple[Tls, Far]:
    near, far = Tls(trusting(), NAME, "dot", None), Far(certified(("dot",)))
    far.shake(near)
    far.tls.do_handshake()
    return near, far


def test_what_goes_in_comes_out_in_both_directions() -> None:
    near, far = shaken()
    assert far.tls.version() == "TLSv1.3"
    assert far.tls.selected_alpn_protocol() == "dot"
    data = bytes(range(256)) * 1000
    near.send(data)
    far.incoming.write(near.outgoing())
    assert b"".join(iter(lambda: far.tls.read(100_000) if far.incoming.pending else b"", b"")) == data
    far.tls.write(data[:16_000])
    sealed = far.outgoing.read()
    assert near.receive(sealed[:9000]) == b""
    assert near.receive(sealed[9000:]) == data[:16_000]
    assert not near.ended


def test_the_first_word_names_the_server() -> None:
    assert NAME.encode() in Tls(trusting(), NAME, "dot", None).outgoing()


def test_the_end_may_come_with_the_last_words() -> None:
    near, far = shaken()
    far.tls.write(b"farewell")
    with pytest.raises(ssl.SSLWantReadError):
        far.tls.unwrap()
    assert near.receive(far.outgoing.read()) == b"farewell"
    assert near.ended


def test_the_end_may_come_instead_of_a_handshake() -> None:
    near = Tls(trusting(), NAME, "dot", None)
    assert near.receive(b"\x15\3\3\0\2\1\0") == b""  # the alert close_notify
    assert near.ended
    assert not near.ready


def test_we_say_when_we_leave() -> None:
    near, far = shaken()
    near.bye()
    far.incoming.write(near.outgoing())
    assert far.tls.read(10) == b""  # raises SSLWantReadError where more may come


def test_before_the_handshake_there_is_nothing_to_say() -> None:
    near = Tls(trusting(), NAME, "dot", None)
    near.outgoing()
    near.bye()
    assert near.outgoing() == b""


def test_what_was_tampered_with_is_the_end() -> None:
    near, far = shaken()
    far.tls.write(b"an answer")
    sealed = bytearray(far.outgoing.read())
    sealed[-1] ^= 1
    with pytest.raises(OSError, match="failed at TLS: "):
        near.receive(bytes(sealed))


@given(st.binary(min_size=1, max_size=200))
def test_no_first_bytes_do_more_than_end_it(data: bytes) -> None:
    near = Tls(trusting(), NAME, "dot", None)
    try:
        assert near.receive(data) == b""
    except OSError as error:
        assert error.strerror
    assert not near.ready
