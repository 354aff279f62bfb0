"""Feeds packets to the decoders of splitwgd and checks what comes out.

An exception other than the declared ones goes through to the caller; whatever is wrong with an outcome is an
AssertionError. The outcome itself is told as a word, for statistics, and with the CPU seconds of the decoder alone.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from splitwgd.answers import TTL_LIMIT, is_reply_to, read_reply
from splitwgd.cookies import CookieJar
from splitwgd.errors import MessageError
from splitwgd.message import SERVFAIL, BadQuery, Query, error_reply, fit_reply, read_query
from splitwgd.reply import Reply
from splitwgd.trimmed import trimmed

from .odd_queries import NAME
from .odd_replies import asked_type
from .packets import AAAA, QR, TC, A, opt, query
from .reader import Message, Unreadable, read, read_name

Outcome = tuple[str, float]
_IDENT = 7


def feed_query(data: bytes) -> Outcome:
    """What comes of these bytes at port 53: silence, an error's number, or a question."""
    since = time.thread_time()
    try:
        asked = read_query(data)
    except BadQuery as bad:
        took = time.thread_time() - since
        if bad.reply is None:
            assert len(data) < 12 or data[2] & 0x80, "silence only for what is no question"
            return "silence", took
        return f"rcode {_well_formed(bad.reply, data).rcode}", took
    took = time.thread_time() - since
    name, end = read_name(data, 12)
    assert (asked.question, asked.name, asked.id) == (data[12 : end + 4], name.lower(), int.from_bytes(data[:2], "big"))
    assert asked.question[:-4] == name, "no pointers"
    assert asked.udp_size >= 512
    assert _well_formed(error_reply(asked, SERVFAIL), data).questions == ((name, asked.qtype, 1),)
    try:
        assert asked.edns is (read(data).opt is not None)
    except Unreadable:  # in what follows the question, which nobody passes on
        pass
    return "question", took


def _well_formed(reply: bytes, data: bytes) -> Message:
    """A reply that a strict client can read, and that belongs to this question."""
    message = read(reply)
    assert data[:2] == reply[:2] and message.flags & QR and message.flags & 0x7800 == (data[2] & 0x78) << 8
    assert len(reply) <= 512, "an error is short"
    return message


def questions_for(rtype: int) -> list[tuple[Query, bool]]:
    """The question that the replies answer, as clients of several kinds ask it; whether they do so by TCP."""
    kinds = ((b"", False), (opt(512), False), (opt(1232, flags=0x8000), False), (opt(4096), False), (opt(), True))
    return [(read_query(query(NAME, rtype, edns=kind, ident=_IDENT)), stream) for kind, stream in kinds]


def feed_reply(data: bytes) -> Outcome:
    """What comes of these bytes from an upstream that was asked for NAME: ignored, unreadable, or a reply."""
    rtype = asked_type(data)
    asked = read_query(query(NAME, rtype, ident=_IDENT)) if rtype not in NOT_ASKED else None
    since = time.thread_time()
    if asked is None or not is_reply_to(data, _IDENT, asked.question):
        return "ignored", time.thread_time() - since
    assert len(data) >= 12 and data[2] & 0x80 and data[4:6] == b"\0\1"
    try:
        reply = read_reply(data, asked)
    except MessageError:
        return "unreadable", time.thread_time() - since
    took = time.thread_time() - since
    assert 0 <= reply.ttl <= TTL_LIMIT
    assert not (reply.truncated and reply.ttl), "what is truncated is not kept"
    assert reply.chain[0] == asked.name
    assert len(reply.addresses) * 4 <= len(data)
    CookieJar(b"8 octets").accepts(reply.options)
    _check_trimmed(reply, asked)
    for client, stream in questions_for(rtype):
        given = fit_reply(client, reply, stream)
        message = read(given)
        assert message.id == client.id and message.flags & QR
        assert given[12 : 12 + len(client.question)] == client.question
        assert (message.opt is not None) is client.edns
        assert stream or len(given) <= min(client.udp_size, 1232)
        # Some clients take the first octets of an address that is too long, and it is in no set.
        lengths = {A: 4, AAAA: 16}
        assert all(len(record.rdata) == lengths.get(record.rtype, len(record.rdata)) for record in message.answers)
        if not message.flags & TC:
            assert all(record.ttl <= TTL_LIMIT for record in (*message.answers, *message.authorities))
    return "reply", took


def _check_trimmed(reply: Reply, asked: Query) -> None:
    """As the reply is given when not every address may be."""
    most = len(reply.addresses) // 2
    try:
        left = trimmed(reply, asked, lambda address: True, most)
    except MessageError:
        return
    assert len(left.addresses) <= most and left.ttl <= reply.ttl
    read(fit_reply(asked, left, True))


# Questions that `read_query` does not let pass are never asked.
def _refused(rtype: int) -> bool:
    try:
        read_query(query(NAME, rtype))
    except BadQuery:
        return True
    return False


NOT_ASKED = frozenset(rtype for rtype in range(65_536) if _refused(rtype))


def adopted_query(data: bytes) -> bytes:
    """A mutant of a question that is one by its header, so that it is read beyond that."""
    return (
        data[:2] + bytes([data[2] & 0x07, data[3] if len(data) > 3 else 0]) + b"\0\1" + data[6:] if data[2:] else data
    )


def adopted_reply(data: bytes) -> bytes:
    """A mutant of a reply with id, QR and question as they must be, so that it is read beyond them."""
    end = 12 + len(NAME) + 4
    rtype = asked_type(data)
    head = struct.pack("!HBB", _IDENT, data[2] & 0x07 | 0x80, data[3]) if len(data) > 3 else b"\0\7\x80\0"
    return head + b"\0\1" + data[6:12].ljust(6, b"\0") + NAME + struct.pack("!HH", rtype, 1) + data[end:]


class TooMuchWork(AssertionError):
    """A message took more steps than one may."""


def steps(work: Callable[[bytes], Any], data: bytes, most: int) -> int:
    """How many lines of Python are run for this message. Raises TooMuchWork beyond `most`."""
    count = 0

    def line(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count > most:
                raise TooMuchWork(f"more than {most} steps for {len(data)} octets")
        return line

    before = sys.gettrace()
    sys.settrace(line)
    try:
        work(data)
    finally:
        sys.settrace(before)
    return count
