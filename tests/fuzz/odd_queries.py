"""Odd questions: what a client, a scanner or an enemy may send to port 53."""

from __future__ import annotations

import struct
from random import Random

from .packets import (
    AA,
    AD,
    ANY,
    AXFR,
    CD,
    CH,
    HTTPS,
    IXFR,
    OPT,
    QR,
    RA,
    RD,
    SOA,
    SVCB,
    TC,
    TSIG,
    A,
    Z,
    framed,
    header,
    name,
    opt,
    option,
    pointer,
    query,
    question,
    record,
)

NAME = name("q00000.fuzz.example")
END = 12 + len(NAME) + 4  # of a plain question
TSIG_DATA = name("hmac-sha256") + bytes(6) + struct.pack("!HH", 300, 32) + bytes(32) + struct.pack("!HHH", 7, 0, 0)
LABEL = b"\x3f" + b"a" * 63


def _with(rest: bytes, answers: int = 0, authorities: int = 0, additionals: int = 0, questions: int = 1) -> bytes:
    return header(RD, questions, answers, authorities, additionals) + question(NAME) + rest


def _usual() -> dict[str, bytes]:
    plain = query(NAME)
    found = {
        "plain": plain,
        "edns": query(NAME, edns=opt()),
        "edns-do": query(NAME, edns=opt(flags=0x8000)),
        "cookie": query(NAME, edns=opt(options=option(10, b"8 octets"))),
        "client-subnet": query(NAME, edns=opt(options=option(8, b"\0\1\x18\0\xcb\0\x71"))),
        "padding": query(NAME, edns=opt(options=option(12, bytes(300)))),
        "root": query(b"\0"),
        "any": query(NAME, ANY),
        "axfr": query(NAME, AXFR),
        "ixfr": _with(record(NAME, SOA, b"\0\0" + bytes(20)), authorities=1).replace(
            question(NAME), question(NAME, IXFR)
        ),
        "chaos": query(name("version.bind"), 16, CH),
        "tsig": _with(record(NAME, TSIG, TSIG_DATA, ttl=0, rclass=255), additionals=1),
    }
    for rtype in (0, 2, 3, 10, 12, OPT, 64, HTTPS, 128, 249, TSIG, 253, 254, 256, 32769, 65535):
        found[f"type-{rtype}"] = query(NAME, rtype)
    for rclass in (0, 2, 4, 254, 255, 65280):
        found[f"class-{rclass}"] = query(NAME, rclass=rclass)
    for opcode in range(1, 16):
        found[f"opcode-{opcode}"] = query(NAME, flags=opcode << 11 | RD)
    for bit in (AA, TC, RA, Z, AD, CD, 0xF, AA | TC | RA | Z | AD | CD):
        found[f"flags-{bit:04x}"] = query(NAME, flags=bit | RD)
    found["update"] = header(5 << 11, 1, 0, 1) + question(NAME, SOA) + record(NAME, A, b"\1\2\3\4", rclass=255)
    found["notify"] = header(4 << 11 | AA, 1, 1) + question(NAME, SOA) + record(NAME, SOA, b"\0\0" + bytes(20))
    return found


def _replies() -> dict[str, bytes]:
    return {
        "reply": query(NAME, flags=QR | RD),
        "reply-of-everything": query(NAME, flags=0xFFFF),
        "reply-empty": header(QR, 0),
        "reply-with-record": header(QR, 1, 1) + question(NAME) + record(b"\xc0\x0c", A, b"\x7f\0\0\1"),
        "reply-of-another-opcode": header(QR | 0x7800, 0),
    }


def _short() -> dict[str, bytes]:
    full = query(NAME, edns=opt(options=option(10, b"8 octets")))
    found = {f"cut-{size:02}": full[:size] for size in (0, 1, 2, 3, 4, 11, 12, 13, 18, 19, 25, 33, 34, 35, 36)}
    found |= {f"cut-opt-{size}": full[: END + size] for size in (1, 3, 5, 9, 10, 11, 14, 20)}
    found["no-question-there"] = header(RD)
    found["half-a-pointer"] = header(RD) + b"\xc0"
    return found


def _names() -> dict[str, bytes]:
    bodies = {
        "pointer-to-itself": pointer(12),
        "pointer-to-header": pointer(0),
        "pointer-to-counts": pointer(4),
        "pointer-forward": pointer(18) + question(b"") + NAME,
        "pointer-beyond": pointer(0x3FFF),
        "pointer-after-label": b"\3www" + pointer(12),
        "two-pointers-in-a-ring": pointer(14) + pointer(12),
        "label-64": b"\x40" + b"a" * 64 + b"\0",
        "label-kind-01": b"\x41\x20" + bytes(4),
        "label-kind-10": b"\x80a\0",
        "label-63": LABEL + b"\0",
        "name-255": LABEL * 3 + b"\x3d" + b"a" * 61 + b"\0",
        "name-256": LABEL * 3 + b"\x3e" + b"a" * 62 + b"\0",
        "name-257": LABEL * 4 + b"\0",
        "name-1000": LABEL * 16 + b"\0",
        "name-64k": LABEL * 1020 + b"\0",
        "labels-127": b"\1a" * 127 + b"\0",
        "labels-128": b"\1a" * 128 + b"\0",
        "name-without-end": LABEL * 3,
        "dot-in-label": b"\3a.b" + NAME,
        "zero-in-label": b"\3a\0b" + NAME,
        "any-octets": bytes([32, *range(32)]) + bytes([63, *range(193, 256)]) + NAME,
        "quote-and-line-break": b'\x0ba" ; drop }\n' + NAME,
        "upper": NAME.upper(),
        "star": b"\1*" + NAME,
        "utf-8": b"\7b\xc3\xbccher" + NAME,
    }
    return {what: header(RD) + question(body) for what, body in bodies.items()}


def _counts() -> dict[str, bytes]:
    plain = question(NAME)
    found = {
        "questions-0": header(RD, 0),
        "questions-0-with-opt": header(RD, 0, 0, 0, 1) + opt(options=option(10, b"8 octets")),
        "questions-0-with-one": header(RD, 0) + plain,
        "questions-2": header(RD, 2) + plain * 2,
        "questions-2-types": header(RD, 2) + plain + question(NAME, 28),
        "questions-2-with-one": header(RD, 2) + plain,
        "questions-65535": header(RD, 0xFFFF) + plain,
        "questions-5000": header(RD, 5000) + plain + question(pointer(12)) * 4999,
        "all-65535": header(RD, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF) + plain,
        "additionals-uncounted": _with(opt()),
        "trailing-1": _with(b"\0"),
        "trailing-512": _with(bytes(512)),
        "trailing-3000": _with(b"\xc0\x0c" * 1500),
    }
    for section in ("answers", "authorities", "additionals"):
        found[f"{section}-1-of-none"] = _with(b"", **{section: 1})
        found[f"{section}-65535-of-none"] = _with(b"", **{section: 0xFFFF})
        found[f"{section}-65535-of-one"] = _with(opt(), **{section: 0xFFFF})
        found[f"{section}-a-record"] = _with(record(b"\xc0\x0c", A, b"\1\2\3\4"), **{section: 1})
    return found


def _edns() -> dict[str, bytes]:
    records = {
        "size-0": opt(0),
        "size-511": opt(511),
        "size-65535": opt(65535),
        "version-1": opt(version=1),
        "version-255": opt(version=255),
        "version-1-do": opt(version=1, flags=0x8000),
        "flags-all": opt(flags=0xFFFF),
        "extended-rcode": opt(extended_rcode=255),
        "unknown-option": opt(options=option(65001, b"whatever")),
        "hundred-options": opt(options=b"".join(option(65001 + n, b"x") for n in range(100))),
        "empty-options": opt(options=option(10, b"") * 300),
        "option-too-long": opt(options=option(10, b"8 octets", 200)),
        "half-an-option": opt(options=b"\0\x0a\0"),
        "length-too-long": opt(options=b"abcd", length=400),
        "length-too-short": opt(options=option(10, b"8 octets"), length=4),
        "length-65535": opt(length=0xFFFF),
        "owner-not-root": opt(owner=NAME),
        "owner-a-pointer": opt(owner=pointer(12)),
        "owner-a-pointer-to-root": opt(owner=pointer(END - 5)),
    }
    found = {f"opt-{what}": query(NAME, edns=data) for what, data in records.items()}
    tsig = record(NAME, TSIG, TSIG_DATA, ttl=0, rclass=255)
    found |= {
        "opt-twice": _with(opt() * 2, additionals=2),
        "opt-hundred-times": _with(opt() * 100, additionals=100),
        "opt-among-answers": _with(opt(), answers=1),
        "opt-among-authorities": _with(opt(), authorities=1),
        "opt-as-answer-and-additional": _with(opt() * 2, answers=1, additionals=1),
        "opt-tsig": _with(opt() + tsig, additionals=2),
        "tsig-opt": _with(tsig + opt(), additionals=2),
        "opt-64k": _with(opt(options=option(65001, bytes(65000))), additionals=1),
    }
    return found


def _records() -> dict[str, bytes]:
    lies = {f"rdlength-{n}": record(b"\xc0\x0c", A, b"\1\2\3\4", length=n) for n in (0, 3, 5, 400, 0xFFFF)}
    lies |= {
        "owner-ring": record(pointer(END), A, b"\1\2\3\4"),
        "owner-forward": record(pointer(END + 16), A, b"\1\2\3\4") + NAME,
        "owner-of-64": record(b"\x40" + b"a" * 64 + b"\0", A, b"\1\2\3\4"),
        "svcb-lies": record(b"\xc0\x0c", SVCB, b"\0\1\0" + struct.pack("!HH", 4, 0xFFFF) + b"\1\2"),
    }
    found = {f"additional-{what}": _with(data, additionals=1) for what, data in lies.items()}
    found["thousand-addresses"] = _with(record(b"\xc0\x0c", A, b"\1\2\3\4") * 1000, additionals=1000)
    found["chained-pointers-4k"] = _with(chained_pointers(4000, 40), additionals=41)
    for size in (7, 12, 60):
        owners = size * 20
        found[f"chained-pointers-{size}k"] = _with(
            chained_pointers(size * 1000 - owners * 12, owners), additionals=owners + 1
        )
    deep = record(b"\1a" * 127 + b"\0", 10, b"") + record(pointer(END), 10, b"") * 5000
    found["deep-owners-60k"] = _with(deep, additionals=5001)
    return found


def chained_pointers(size: int, owners: int) -> bytes:
    """A record full of pointers of which each leads to the one before it, and records at the end of that chain."""
    count = min(size // 2, (0x3FFF - END - 11) // 2)
    pointers = pointer(12) + b"".join(pointer(END + 11 + 2 * place) for place in range(count - 1))
    last = pointer(END + 11 + 2 * (count - 1))
    return record(b"\0", 10, pointers) + record(last, 10, b"") * owners


def _no_dns() -> dict[str, bytes]:
    random = Random(53)
    return {
        "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "tls": bytes.fromhex("16030100c8010000c403035a") + random.randbytes(193),
        "zeros-12": bytes(12),
        "zeros-512": bytes(512),
        "ones-512": b"\xff" * 512,
        "random-40": random.randbytes(40),
        "random-512": random.randbytes(512),
        "random-4096": random.randbytes(4096),
        "text": b"A" * 300,
        "framed-for-tcp": framed(query(NAME)),
        "framed-twice": framed(query(NAME), query(NAME)),
    }


def made() -> dict[str, bytes]:
    """All of them, by what is odd."""
    parts = (_usual(), _replies(), _short(), _names(), _counts(), _edns(), _records(), _no_dns())
    return {what: data for part in parts for what, data in part.items()}
