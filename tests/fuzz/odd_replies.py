"""Odd replies: what an upstream that is broken, or an enemy in its place, may say to one question."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from random import Random

from .odd_queries import END, LABEL, NAME, TSIG_DATA, chained_pointers
from .packets import (
    AA,
    AAAA,
    AD,
    CNAME,
    DNAME,
    HERE,
    HTTPS,
    IN,
    MX,
    NS,
    NSEC,
    OPT,
    QR,
    RA,
    RD,
    RRSIG,
    SOA,
    SRV,
    SVCB,
    TC,
    TSIG,
    TXT,
    A,
    Z,
    header,
    name,
    opt,
    option,
    pointer,
    question,
    record,
)

OK = QR | RD | RA
ADDRESS = record(HERE, A, b"\xcb\0\x71\x14")
ADDRESS6 = ip_address("2001:db8:1::20").packed
SOA_DATA = name("ns.example") + name("root.example") + struct.pack("!5I", 1, 3600, 600, 86400, 60)
ZONE = pointer(12 + 7)  # fuzz.example, in the question's name
SIGNATURE = struct.pack("!HBBIIIH", A, 13, 3, 60, 1 << 31, 0, 7) + name("example") + bytes(64)


def reply(
    *answers: bytes,
    rtype: int = A,
    authorities: tuple[bytes, ...] = (),
    additionals: tuple[bytes, ...] = (),
    flags: int = OK,
) -> bytes:
    """A reply whose counts are true."""
    parts = (answers, authorities, additionals)
    head = header(flags, 1, *(len(part) for part in parts))
    return head + question(NAME, rtype) + b"".join(data for part in parts for data in part)


def raw(rest: bytes, counts: tuple[int, int, int], rtype: int = A, flags: int = OK) -> bytes:
    """A reply whose counts may lie."""
    return header(flags, 1, *counts) + question(NAME, rtype) + rest


def alias(number: int) -> bytes:
    """The name of an alias."""
    return name(f"alias{number}.example")


def _usual() -> dict[str, bytes]:
    soa = record(ZONE, SOA, SOA_DATA)
    chain = [record(HERE, CNAME, alias(0)), *(record(alias(n), CNAME, alias(n + 1)) for n in range(3))]
    hints = struct.pack("!HH", 4, 8) + b"\xcb\0\x71\x14\xcb\0\x71\x15" + struct.pack("!HH", 6, 16) + ADDRESS6
    found = {
        "address": reply(ADDRESS),
        "address-opt": reply(ADDRESS, additionals=(opt(),)),
        "address-error-and-cookie": reply(
            ADDRESS, additionals=(opt(options=option(15, b"\0\3stale") + option(10, bytes(16))),)
        ),
        "address6": reply(record(HERE, AAAA, ADDRESS6), rtype=AAAA),
        "chain": reply(*chain, record(alias(3), A, b"\xcb\0\x71\x14")),
        "dname": reply(
            record(ZONE, DNAME, name("other.example")),
            record(HERE, CNAME, name("q00000.other.example")),
            record(name("q00000.other.example"), A, b"\xcb\0\x71\x14"),
        ),
        "nothing-there": reply(authorities=(soa,)),
        "no-such-name": reply(authorities=(soa,), flags=OK | 3),
        "signed": reply(ADDRESS, record(HERE, RRSIG, SIGNATURE), additionals=(opt(flags=0x8000),), flags=OK | AD),
        "denied": reply(authorities=(soa, record(ZONE, NSEC, name("a.example") + b"\0\1\x40")), flags=OK | AA),
        "referral": reply(
            authorities=(record(ZONE, NS, name("ns.example")),), additionals=(record(name("ns.example"), A, bytes(4)),)
        ),
        "mx": reply(record(HERE, MX, b"\0\x0a\4mail" + ZONE), rtype=MX),
        "srv": reply(record(HERE, SRV, struct.pack("!3H", 0, 0, 443) + NAME), rtype=SRV),
        "txt": reply(*(record(HERE, TXT, b"\xff" + b"x" * 255) for _ in range(10)), rtype=TXT),
        "https": reply(record(HERE, HTTPS, b"\0\1\0" + hints), rtype=HTTPS),
        "svcb-alias": reply(record(HERE, SVCB, b"\0\0" + name("pool.example")), rtype=SVCB),
        "unknown-type": reply(record(HERE, 65280, bytes(range(256))), rtype=65280),
        "upper-case": reply(ADDRESS).replace(NAME, NAME.upper()),
    }
    for rcode in range(16):
        found[f"rcode-{rcode}"] = reply(flags=OK | rcode)
    return found


def _headers() -> dict[str, bytes]:
    plain = question(NAME)
    return {
        "header-only": header(OK, 0),
        "header-servfail": header(OK | 2, 0),
        "header-formerr": header(OK | 1, 0),
        "no-reply": header(RD, 1, 1) + plain + ADDRESS,
        "another-id": header(OK, 1, 1, ident=8) + plain + ADDRESS,
        "another-opcode": reply(ADDRESS, flags=OK | 4 << 11),
        "another-type": reply(ADDRESS, rtype=AAAA),
        "another-class": header(OK, 1, 1) + question(NAME, A, 3) + ADDRESS,
        "another-name": header(OK, 1, 1) + question(name("other.example")) + ADDRESS,
        "two-questions": header(OK, 2, 1) + plain * 2 + ADDRESS,
        "no-question": header(OK, 0, 1) + record(NAME, A, b"\1\2\3\4"),
        "every-flag": reply(ADDRESS, flags=0x87FF & ~0xF),
        "z": reply(ADDRESS, flags=OK | Z),
        "truncated-with-address": reply(ADDRESS, flags=OK | TC),
        "truncated-in-a-record": raw(ADDRESS[:-2], (1, 0, 0), flags=OK | TC),
        "truncated-and-empty": reply(flags=OK | TC),
        "trailing": reply(ADDRESS) + bytes(40),
        "trailing-record": reply(ADDRESS) + ADDRESS,
        "compressed-question": header(OK, 1, 1) + question(pointer(12)) + ADDRESS,
    }


def _aliases() -> dict[str, bytes]:
    found = {}
    for length in (1, 2, 3, 10, 50):
        ring = [record(alias(n), CNAME, alias((n + 1) % length)) for n in range(length)]
        found[f"ring-{length}"] = reply(record(HERE, CNAME, alias(0)), *ring)
    for length in (9, 10, 11, 12, 50, 300, 1400):
        chain = [record(HERE, CNAME, alias(0)), *(record(alias(n), CNAME, alias(n + 1)) for n in range(length - 1))]
        found[f"chain-{length}"] = reply(*chain, record(alias(length - 1), A, b"\xcb\0\x71\x14"))
        found[f"chain-{length}-backwards"] = reply(*reversed(chain), record(alias(length - 1), A, b"\xcb\0\x71\x14"))
    found["alias-to-itself"] = reply(record(HERE, CNAME, HERE))
    found["alias-and-address"] = reply(record(HERE, CNAME, alias(0)), ADDRESS)
    found["two-aliases"] = reply(*(record(HERE, CNAME, alias(n)) for n in range(2)))
    found["thousand-aliases"] = reply(*(record(HERE, CNAME, alias(n)) for n in range(1000)))
    found["alias-to-root"] = reply(record(HERE, CNAME, b"\0"))
    found["alias-too-short"] = raw(record(HERE, CNAME, b"\5other", length=6), (1, 0, 0))
    found["alias-beyond-its-rdata"] = raw(record(HERE, CNAME, alias(0), length=4), (1, 0, 0))
    found["alias-longer-than-its-name"] = reply(record(HERE, CNAME, alias(0) + b"more"))
    found["stray-address"] = reply(record(name("bank.example"), A, b"\xcb\0\x71\x63"), ADDRESS)
    found["dname-to-itself"] = reply(record(ZONE, DNAME, ZONE), record(HERE, CNAME, HERE))
    return found


def _pointers() -> dict[str, bytes]:
    owners = {
        "to-itself": pointer(END),
        "to-its-beginning": b"\1a" + pointer(END),
        "to-its-own-label": b"\3a\0a" + pointer(END + 2),
        "forward": pointer(END + 2),
        "beyond": pointer(0x3FFF),
        "to-header": pointer(0),
        "to-counts": pointer(6),
        "to-question-type": pointer(END - 4),
        "half": b"\xc0",
        "label-64": b"\x40" + b"a" * 64 + b"\0",
        "label-kind-10": b"\x80a\0",
        "name-255": LABEL * 3 + b"\x3d" + b"a" * 61 + b"\0",
        "name-256": LABEL * 3 + b"\x3e" + b"a" * 62 + b"\0",
        "name-too-long-by-pointer": LABEL * 3 + b"\x3d" + b"a" * 61 + pointer(12),
        "without-end": LABEL * 3,
    }
    found = {}
    for what, owner in owners.items():
        for place, counts in (("answer", (1, 0, 0)), ("authority", (0, 1, 0)), ("additional", (0, 0, 1))):
            found[f"{place}-owner-{what}"] = raw(record(owner, A, b"\xcb\0\x71\x14"), counts)
        found[f"alias-{what}"] = raw(record(HERE, CNAME, owner), (1, 0, 0))
        found[f"target-{what}"] = raw(record(HERE, HTTPS, b"\0\1" + owner), (1, 0, 0), HTTPS)
        found[f"txt-owner-{what}"] = raw(record(owner, TXT, b"\1x"), (1, 0, 0), TXT)
        found[f"mx-{what}"] = raw(record(HERE, MX, b"\0\1" + owner), (1, 0, 0), MX)
    ring = record(pointer(END + 16), A, b"\1\2\3\4") + record(pointer(END), A, b"\1\2\3\4")
    found["two-owners-in-a-ring"] = raw(ring, (2, 0, 0))
    return found


def _bombs() -> dict[str, bytes]:
    found = {}
    for size in (7, 12, 60):
        ends = size * 20
        chain = chained_pointers(size * 1000 - ends * 12, ends)
        for place, counts in (("answers", (ends + 1, 0, 0)), ("authorities", (0, ends + 1, 0))):
            found[f"chained-pointers-{size}k-{place}"] = raw(chain, counts)
    deep = b"\1a" * 127 + b"\0"
    first = record(deep, A, b"\1\2\3\4")
    for rtype in (A, 10):
        rdata = b"\1\2\3\4" if rtype == A else b""
        count = (65_000 - len(first)) // (12 + len(rdata))
        rest = record(pointer(END), rtype, rdata) * count
        found[f"deep-owners-{rtype}"] = raw(first + rest, (1 + count, 0, 0))
    # Each owner is one label and a pointer to the owner before it, 100 deep, again and again: never the same name.
    ladder: list[bytes] = []
    for number in range(900):
        below = END + 18 * (number - 1) if number % 100 else 12
        ladder.append(record(b"\1" + bytes([97 + number % 26]) + pointer(below), A, b"\1\2\3\4"))
    found["owners-upon-owners"] = reply(*ladder)
    unlike = [record(LABEL * 2 + name(f"n{number}"), A, b"\1\2\3\4") for number in range(440)]
    found["owners-all-unlike"] = reply(*unlike)
    found["aliases-all-unlike"] = reply(*(record(alias(n), CNAME, alias(n + 5000)) for n in range(1300)))
    found["addresses-1000"] = reply(*(record(HERE, A, struct.pack("!I", 0xCB007100 + n)) for n in range(1000)))
    found["addresses-4000"] = reply(*(record(HERE, A, struct.pack("!I", 0xCB000000 + n)) for n in range(4000)))
    many6 = (record(HERE, AAAA, ADDRESS6[:12] + struct.pack("!I", n)) for n in range(2300))
    found["addresses6-2300"] = reply(*many6, rtype=AAAA)
    hints = struct.pack("!HH", 4, 60_000) + b"\xcb\0\x71\x14" * 15_000
    found["hints-15000"] = reply(record(HERE, HTTPS, b"\0\1\0" + hints), rtype=HTTPS)
    empty = b"".join(struct.pack("!HH", 7, 0) for _ in range(15_000))
    found["parameters-15000"] = reply(record(HERE, HTTPS, b"\0\1\0" + empty), rtype=HTTPS)
    found["services-3000"] = reply(*(record(HERE, HTTPS, b"\0\1\0") for _ in range(3000)), rtype=HTTPS)
    found["empty-records-5000"] = reply(*[record(b"\0", 10, b"")] * 5000)
    found["authorities-5000"] = reply(authorities=(record(b"\0", 10, b""),) * 5000)
    found["additionals-5000"] = reply(additionals=(record(b"\0", 10, b""),) * 5000)
    found["txt-64k"] = reply(record(HERE, TXT, b"\xff" + b"x" * 255 + b"\0" * 64_000), rtype=TXT)
    return found


def _counts_and_lengths() -> dict[str, bytes]:
    found = {"all-65535": raw(ADDRESS, (0xFFFF, 0xFFFF, 0xFFFF))}
    for section, one in (("answers", (1, 0, 0)), ("authorities", (0, 1, 0)), ("additionals", (0, 0, 1))):
        all_ = (one[0] * 0xFFFF, one[1] * 0xFFFF, one[2] * 0xFFFF)
        found[f"{section}-1-of-none"] = raw(b"", one)
        found[f"{section}-65535-of-none"] = raw(b"", all_)
        found[f"{section}-65535-of-one"] = raw(ADDRESS, all_)
    found["counted-too-few"] = raw(ADDRESS * 3, (1, 0, 0))
    for length in (0, 3, 5, 16, 400, 0xFFFF):
        found[f"rdlength-{length}"] = raw(record(HERE, A, b"\1\2\3\4", length=length), (1, 0, 0))
    sizes = {A: (0, 1, 3, 5, 8, 16), AAAA: (0, 4, 15, 17, 32), SOA: (0, 1, 19, 21), CNAME: (0,), MX: (0, 1, 2)}
    sizes |= {HTTPS: (0, 1, 2), SVCB: (0, 2), TXT: (0,), NS: (0,), SRV: (0, 5, 6), DNAME: (0,), RRSIG: (0, 17)}
    for rtype, lengths in sizes.items():
        for length in lengths:
            found[f"type-{rtype}-of-{length}"] = reply(record(HERE, rtype, bytes(length)), rtype=rtype)
            found[f"authority-{rtype}-of-{length}"] = reply(authorities=(record(ZONE, rtype, bytes(length)),))
    for number in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        found[f"ttl-{number}"] = reply(record(HERE, A, b"\xcb\0\x71\x14", ttl=number))
    for number in (0, 3, 254, 255, 65535):
        found[f"record-class-{number}"] = reply(record(HERE, A, b"\xcb\0\x71\x14", rclass=number))
    for number in (0, OPT, TSIG, 255, 65535):
        found[f"record-type-{number}"] = reply(record(HERE, number, b"\1\2\3\4"))
    return found


def _edns() -> dict[str, bytes]:
    signature = record(NAME, TSIG, TSIG_DATA, ttl=0, rclass=255)
    return {
        "opt-twice": reply(ADDRESS, additionals=(opt(), opt())),
        "opt-among-answers": reply(opt(), ADDRESS),
        "opt-among-authorities": reply(ADDRESS, authorities=(opt(),)),
        "opt-tsig": reply(ADDRESS, additionals=(opt(), signature)),
        "tsig-opt": reply(ADDRESS, additionals=(signature, opt())),
        "opt-before-address": reply(ADDRESS, additionals=(opt(), ADDRESS)),
        "opt-owner": reply(ADDRESS, additionals=(opt(owner=NAME),)),
        "opt-version-1": reply(ADDRESS, additionals=(opt(version=1),)),
        "opt-badvers": reply(additionals=(opt(extended_rcode=1),)),
        "opt-badcookie": reply(additionals=(opt(extended_rcode=1),), flags=OK | 7),
        "opt-rcode-4095": reply(ADDRESS, additionals=(opt(extended_rcode=255),), flags=OK | 15),
        "opt-option-too-long": reply(ADDRESS, additionals=(opt(options=option(15, b"\0\3", 400)),)),
        "opt-half-an-option": reply(ADDRESS, additionals=(opt(options=b"\0\x0f\0"),)),
        "opt-error-not-utf-8": reply(additionals=(opt(options=option(15, b"\0\3\xff\xfe\0\n\x1b[31m")),)),
        "opt-cookies": reply(ADDRESS, additionals=(opt(options=option(10, bytes(16)) * 50),)),
        "opt-length": raw(ADDRESS + opt(length=0xFFFF), (1, 0, 1)),
        "opt-64k": reply(ADDRESS, additionals=(opt(options=option(12, bytes(65_000))),)),
    }


def _services() -> dict[str, bytes]:
    def key(number: int, value: bytes, length: int | None = None) -> bytes:
        return option(number, value, length)

    bodies = {
        "length-beyond": b"\0\1\0" + key(4, b"\xcb\0\x71\x14", 400),
        "length-65535": b"\0\1\0" + key(6, ADDRESS6, 0xFFFF),
        "half-a-key": b"\0\1\0\0\4\0",
        "half-a-hint": b"\0\1\0" + key(4, b"\xcb\0\x71"),
        "hint-and-a-half": b"\0\1\0" + key(4, b"\xcb\0\x71\x14\xcb\0"),
        "hint-of-none": b"\0\1\0" + key(4, b""),
        "hint-twice": b"\0\1\0" + key(4, b"\xcb\0\x71\x14") + key(4, b"\xcb\0\x71\x15"),
        "hints-out-of-order": b"\0\1\0" + key(6, ADDRESS6) + key(4, b"\xcb\0\x71\x14"),
        "alias-with-hints": b"\0\0\0" + key(4, b"\xcb\0\x71\x14"),
        "alias-to-itself": b"\0\0" + HERE,
        "compressed-target": b"\0\1" + pointer(19) + key(4, b"\xcb\0\x71\x14"),
        "no-target": b"\0\1",
        "target-beyond": b"\0\1\x3fabc",
        "mandatory-nothing": b"\0\1\0" + key(0, b""),
        "mandatory-unknown": b"\0\1\0" + key(0, struct.pack("!H", 65000)),
        "unknown-keys": b"\0\1\0" + b"".join(key(n, b"x" * (n % 7)) for n in range(65000, 65200)),
        "loopback-hint": b"\0\1\0" + key(4, b"\x7f\0\0\1"),
    }
    return {f"https-{what}": reply(record(HERE, HTTPS, body), rtype=HTTPS) for what, body in bodies.items()}


def _no_dns() -> dict[str, bytes]:
    random = Random(35)
    found = {f"random-{size}": random.randbytes(size) for size in (12, 40, 300, 4000)}
    found |= {f"random-after-question-{n}": raw(random.randbytes(60 * n), (n, n, n)) for n in range(1, 8)}
    found |= {"zeros": bytes(100), "ones": b"\xff" * 100, "empty": b"", "an-octet": b"\0", "header-cut": bytes(11)}
    found["http"] = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    found["question-only-cut"] = header(OK, 1, 1) + NAME[:9]
    return found


def made() -> dict[str, bytes]:
    """All of them, by what is odd."""
    parts = (_usual(), _headers(), _aliases(), _pointers(), _bombs(), _counts_and_lengths(), _edns(), _services())
    return {what: data for part in (*parts, _no_dns()) for what, data in part.items()}


def asked_type(data: bytes) -> int:
    """The type that a reply of this corpus was asked for: A where its question is not NAME's."""
    if data[12 : 12 + len(NAME)].lower() == NAME and len(data) >= END and data[END - 2 : END] == struct.pack("!H", IN):
        return int.from_bytes(data[END - 4 : END - 2], "big")
    return A
