"""The protocol, byte by byte, at the daemon in the lab: rows 38 and 43 to 49 of docs/conformance.md."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from tests.fuzz.packets import (
    AAAA,
    AD,
    ANY,
    AXFR,
    CD,
    CH,
    HERE,
    IN,
    IXFR,
    OPT,
    QR,
    RA,
    RD,
    RRSIG,
    SOA,
    TC,
    TXT,
    A,
    Z,
    header,
    name,
    opt,
    option,
    pointer,
    query,
    question,
    record,
)
from tests.fuzz.reader import Message, read

from .asking import DAEMON, ask, ask_all, ask_stream, dial
from .authority import SIGNED
from .standing import Standing, cut_addresses, rdata_of, standing, told
from .world import Lab

APEX = name("signed.example")
HOST = name("host0.diff.example")


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Standing]:
    with standing(lab) as built:
        yield built


# -- row 38: what RFC 8906 asks a server, and how it must answer


@dataclass(frozen=True)
class Probe:
    """One of RFC 8906: what is sent, and what the answer must be."""

    packet: bytes
    rcode: int = 0
    records: int = 1
    opt: bool = True
    stream: bool = False
    size: int = 1232
    cut: bool = False


COOKIE = option(10, b"\1\2\3\4\5\6\7\x08")
SEVERAL = option(3, b"") + COOKIE + option(8, struct.pack("!HBB", 1, 0, 0)) + option(9, b"")
PROBES = {
    "8.1.1 a zone that it answers for": Probe(query(APEX, SOA), opt=False),
    "8.1.2 an unknown type": Probe(query(APEX, 1000), records=0, opt=False),
    "8.1.3.1 CD": Probe(query(APEX, SOA, flags=RD | CD), opt=False),
    "8.1.3.2 AD": Probe(query(APEX, SOA, flags=RD | AD), opt=False),
    "8.1.3.3 the reserved bit": Probe(query(APEX, SOA, flags=RD | Z), opt=False),
    "8.1.3.4 recursion desired": Probe(query(APEX, SOA, flags=RD), opt=False),
    "8.1.4 an unknown opcode": Probe(header(15 << 11 | RD, 0), rcode=4, records=0, opt=False),
    "8.1.5 TCP": Probe(query(APEX, SOA), opt=False, stream=True),
    "8.2.1 EDNS": Probe(query(APEX, SOA, edns=opt(4096))),
    "8.2.2 an EDNS version": Probe(query(APEX, SOA, edns=opt(4096, version=1)), rcode=16, records=0),
    "8.2.3 an unknown option": Probe(query(APEX, SOA, edns=opt(4096, options=option(100, b"")))),
    "8.2.4 unknown EDNS flags": Probe(query(APEX, SOA, edns=opt(4096, flags=0x40))),
    "8.2.5 version and flags": Probe(query(APEX, SOA, edns=opt(4096, 0x40, 1)), rcode=16, records=0),
    "8.2.6 version and option": Probe(query(APEX, SOA, edns=opt(4096, 0, 1, option(100, b""))), rcode=16, records=0),
    "8.2.7 cut": Probe(query(name("text7.diff.example"), TXT, edns=opt(512, 0x8000)), records=0, size=512, cut=True),
    "8.2.8 DO": Probe(query(APEX, SOA, edns=opt(4096, 0x8000))),
    "8.2.9 version and DO": Probe(query(APEX, SOA, edns=opt(4096, 0x8000, 1)), rcode=16, records=0),
    "8.2.10 several options": Probe(query(APEX, SOA, edns=opt(4096, options=SEVERAL))),
}


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_row_38_rfc_8906(daemon: Standing, probe: Probe) -> None:
    asked = probe.packet
    reply = daemon(asked, probe.stream)
    assert reply.rcode == probe.rcode
    assert len([found for found in reply.answers if found.rtype != RRSIG]) == probe.records
    assert reply.flags & 0x7800 == (asked[2] & 0x78) << 8, "the opcode is echoed"
    assert not reply.flags & (Z | AD), "what nobody knows, and what nobody validated"
    assert bool(reply.flags & TC) is probe.cut
    assert len(reply.data) <= probe.size
    if asked[4:6] == b"\0\1":
        assert reply.data[12 : 12 + len(APEX)] == asked[12 : 12 + len(APEX)]
    assert (reply.opt is not None) is probe.opt
    if reply.opt:
        assert reply.opt.ttl >> 16 & 0xFF == 0, "our version"
        assert reply.opt.ttl & 0x7FFF == 0, "no flag but DO"
        assert reply.opt.ttl & 0x8000 == asked[asked.rindex(b"\0\x29") + 6] << 8 & 0x8000, "DO is echoed"
        assert reply.opt.rclass >= 512
        assert 100 not in dict(reply.options), "an unknown option is not echoed"


# -- row 43: what is no question


_ASKED = question(HOST)
_RECORD = record(HERE, A, b"\1\2\3\4")
FORMERR = {
    "no question": header(RD, 0),
    "no question, an OPT record": header(RD, 0, 0, 0, 1) + opt(),
    "no question, a cookie": header(RD, 0, 0, 0, 1) + opt(options=COOKIE),
    "two questions": header(RD, 2) + _ASKED * 2,
    "two types": header(RD, 2) + _ASKED + question(HOST, AAAA),
    "65,535 questions": header(RD, 0xFFFF) + _ASKED,
    "a question that is not there": header(RD),
    "a name without an end": header(RD) + HOST[:-1],
    "a class that is cut": header(RD) + _ASKED[:-1],
    "a label of 64 octets": header(RD) + question(b"\x40" + b"a" * 64 + b"\0"),
    "a label of an unknown kind": header(RD) + question(b"\x80a\0"),
    "a name that points to itself": header(RD) + question(pointer(12)),
    "a name of 256 octets": header(RD) + question((b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0"),
    "an answer": header(RD, 1, 1) + _ASKED + _RECORD,
    "an answer that is not there": header(RD, 1, 1) + _ASKED,
    "65,535 additional records": header(RD, 1, 0, 0, 0xFFFF) + _ASKED + opt(),
    "an octet too many": header(RD) + _ASKED + b"\0",
    "500 octets too many": header(RD) + _ASKED + bytes(500),
    "two OPT records": header(RD, 1, 0, 0, 2) + _ASKED + opt() * 2,
    "an option longer than its record": header(RD, 1, 0, 0, 1) + _ASKED + opt(options=option(10, b"8 octets", 99)),
}


@pytest.mark.parametrize("stream", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("what", FORMERR)
def test_row_43_formerr(daemon: Standing, what: str, stream: bool) -> None:
    reply = daemon(FORMERR[what], stream)
    assert (reply.rcode, reply.answers, reply.flags & RD) == (1, (), RD)


def test_row_43_there_are_20_shapes() -> None:
    assert (len(PROBES), len(FORMERR)) == (18, 20)


# -- row 44


def test_row_44_a_reply_is_not_answered(daemon: Standing) -> None:
    client = daemon.machine.lab.client
    kinds = (QR, QR | RD | RA, QR | 2, QR | 0x7800, QR | 4 << 11, 0xFFFF, QR | TC)
    with dial(client, socket.SOCK_DGRAM, patience=1.0) as sock:
        for number in range(1000):
            sock.send(query(HOST, flags=kinds[number % len(kinds)], ident=number, edns=opt() if number % 3 else b""))
            if number % 100 == 99:
                time.sleep(0.01)  # the socket's buffer is not what is tested
        with pytest.raises(TimeoutError):
            sock.recv(512)
        sock.send(query(HOST, ident=4242))
        assert read(sock.recv(512)).id == 4242, "the first answer on this socket is to the first question"


# -- rows 45 and 46: what does not fit


@pytest.mark.parametrize("size", [None, 0, 512, 513, 700, 1000, 1220, 1232, 1400, 2048, 4096])
def test_row_45_an_answer_fits_its_client_or_is_whole_over_tcp(daemon: Standing, size: int | None) -> None:
    """100 answers of 20 to 5,000 octets, asked twice: the second time they come from the cache."""
    client = daemon.machine.lab.client
    lengths = [20 + 50 * number for number in range(100)]
    edns = b"" if size is None else opt(size)
    packets = [query(name(f"size-{length}.scripted.example"), TXT, edns=edns) for length in lengths]
    room = min(max(size or 512, 512), 1232)
    for _ in range(2):
        whole = 0
        for length, packet, reply in zip(lengths, packets, ask_all(client, packets), strict=True):
            assert reply is not None and len(reply) <= room
            message = read(reply)
            if message.flags & TC:
                assert message.answers == ()
                assert len(packet) + 10 + length + -(-length // 255) + 2 > room, "it would have fitted"
                over_tcp = ask_stream(client, packet)
                assert over_tcp is not None
                message = read(over_tcp)
                assert not message.flags & TC
            else:
                whole += 1
            (only,) = message.answers
            assert only.rdata.count(b"t") == length
        assert whole >= 9


def test_row_46_truncated_is_fetched_by_tcp_and_never_harvested(daemon: Standing) -> None:
    """500 names whose answer over UDP is cut and holds an address that is not theirs."""
    machine = daemon.machine
    names = [name(f"cut-{number}.tunneled.example") for number in range(500)]
    replies = ask_all(machine.lab.client, [query(owner, AAAA, edns=opt()) for owner in names], at_once=20)
    for number, reply in enumerate(replies):
        assert reply is not None
        message = read(reply)
        assert (message.rcode, message.flags & TC) == (0, 0)
        assert [found.rdata for found in message.answers] == cut_addresses(number)
    listed = machine.lab.client.run("nft", "-j", "list", "set", "inet", "wg_routing", "wg_domains6").stdout
    held = {ip_address(text).packed for text in re.findall(r'"val": "([0-9a-f:]+)"', listed)}
    assert held == {address for number in range(500) for address in cut_addresses(number)}


# -- row 47: what nobody knows is passed on


def test_row_47_200_types_octet_for_octet(daemon: Standing) -> None:
    refused = {OPT, 39, RRSIG, *range(128, 256)}
    types = [rtype for rtype in (*range(1, 128), *range(256, 300), *range(65_200, 65_280)) if rtype not in refused][
        :200
    ]
    assert len(types) == 200
    packets = [query(name(f"type-{rtype}.scripted.example"), rtype, edns=opt()) for rtype in types]
    for _ in range(2):  # from the cache, too
        for rtype, reply in zip(types, ask_all(daemon.machine.lab.client, packets), strict=True):
            assert reply is not None
            message = read(reply)
            assert [(found.rtype, found.rclass, found.rdata) for found in message.answers] == [
                (rtype, IN, rdata_of(rtype))
            ]


def test_row_47_the_case_of_a_name_is_kept(daemon: Standing) -> None:
    owner = b"\x05pLaIn\x08ScRiPtEd\x07eXaMpLe\0"
    for _ in range(2):
        assert daemon(query(owner)).questions[0][0] == owner


def test_row_47_what_an_option_says_stays_with_whom_it_was_said_to(daemon: Standing) -> None:
    """EDNS is hop by hop (RFC 6891 §6.1.1): who the client is, the upstream does not learn by it."""
    owner = "plain2.scripted.example"
    private = option(65001, b"whatever") + option(8, b"\0\1\x18\0\xcb\0\x71") + option(10, b"my cooki")
    assert daemon(query(name(owner), edns=opt(4096, options=private))).rcode == 0
    upstream = read(told[owner])
    assert {65001, 8}.isdisjoint(dict(upstream.options))
    assert b"my cooki" not in told[owner]
    assert upstream.opt is not None and upstream.opt.rclass == 1232


# -- row 48: DNSSEC passes through


@pytest.mark.parametrize("cd", [0, CD])
@pytest.mark.parametrize("do", [False, True])
def test_row_48_do_and_cd_go_up_and_ad_comes_down_to_who_knows_it(daemon: Standing, do: bool, cd: int) -> None:
    owner = f"ad-{do:d}{cd:d}.scripted.example"
    reply = daemon(query(name(owner), flags=RD | cd, edns=opt(1232, 0x8000 * do)))
    upstream = read(told[owner])
    assert upstream.opt is not None and bool(upstream.opt.ttl & 0x8000) is do
    assert upstream.flags & CD == cd
    assert (reply.flags & CD, reply.flags & AD) == (cd, AD * do)
    assert daemon(query(name(owner), flags=RD | AD | cd, edns=opt(1232, 0x8000 * do))).flags & AD


# Without wildcards: unbound 1.17 as an authority writes the wrong owner before their NSEC.
_VALIDATED = """
signed.example: A AAAA MX TXT CAA NS SOA DNSKEY LOC
host.signed.example: A AAAA HTTPS MX
www.signed.example: A AAAA CNAME MX
alias.signed.example: A AAAA
HOST.Signed.EXAMPLE: A
ns.signed.example: A AAAA TXT
mail.signed.example: A AAAA TXT
upper.signed.example: A AAAA
unknown.signed.example: TYPE65280 TXT
under_score.signed.example: TXT A
_443._tcp.host.signed.example: TLSA
_sip._udp.signed.example: SRV A
_no._tcp.signed.example: SRV
big.signed.example: TXT A AAAA
a.b.c.deep.signed.example: A
b.c.deep.signed.example: A
c.deep.signed.example: A
deep.signed.example: TXT
y.big.signed.example: TXT
nothing.signed.example: A AAAA
zzz.signed.example: A
aaa.signed.example: MX
x.host.signed.example: A
a.b.c.d.nothing.signed.example: A
"""


def test_row_48_delv_validates_through_us(daemon: Standing) -> None:
    if shutil.which("delv") is None:
        pytest.skip("delv (bind9-dnsutils) is not installed")
    pairs = [(line.partition(":")[0], rtype) for line in _VALIDATED.split("\n") for rtype in line.split()[1:]]
    assert len(set(pairs)) == 50
    client = daemon.machine.lab.client
    found = re.search(r"DNSKEY\s+(257 3 13) ([\w+/=]+)", SIGNED.read_text())
    assert found is not None
    client.write("/run/anchor", f'trust-anchors {{ signed.example static-key {found[1]} "{found[2]}"; }};\n')
    words = ("delv", "@" + DAEMON, "-a", "/run/anchor", "+root=signed.example")
    for owner, rtype in pairs:
        said = client.run(*words, owner, rtype, check=False)
        assert "fully validated" in said.stdout, (owner, rtype, said.stdout, said.stderr)
    unsigned = client.run(*words, "host0.diff.example", check=False)
    assert "fully validated" not in unsigned.stdout, "delv finds fault where there is one"


# -- row 49: what is not given


NOT_GIVEN: dict[str, tuple[bytes, bool, int]] = {
    "ANY": (query(name("types.diff.example"), ANY, edns=opt()), False, 0),
    "ANY over TCP": (query(name("types.diff.example"), ANY), True, 0),
    "ANY with DO": (query(name("host.signed.example"), ANY, edns=opt(4096, 0x8000)), False, 0),
    "ANY of a tunneled name": (query(name("any.tunneled.example"), ANY), False, 0),
    "AXFR": (query(APEX, AXFR), True, 5),
    "AXFR over UDP": (query(APEX, AXFR), False, 5),
    "IXFR": (query(APEX, IXFR), True, 5),
    "version.bind": (query(name("version.bind"), TXT, CH), False, 5),
    "id.server": (query(name("id.server"), TXT, CH), False, 5),
    "hostname.bind": (query(name("hostname.bind"), TXT, CH, edns=opt()), False, 5),
}


@pytest.mark.parametrize(("packet", "stream", "rcode"), NOT_GIVEN.values(), ids=NOT_GIVEN)
def test_row_49_what_is_not_given(daemon: Standing, packet: bytes, stream: bool, rcode: int) -> None:
    reply = daemon(packet, stream)
    assert reply.rcode == rcode
    assert len({found.rtype for found in reply.answers if found.rtype != RRSIG}) <= (rcode == 0), "RFC 8482"
    assert len(reply.data) < 300 and not reply.flags & TC
    assert not [found for found in reply.answers if found.rtype in (A, AAAA)], "an address would have to enter the sets"


# -- RFC 8914: an error says why


def errors(reply: Message) -> list[int]:
    return [int.from_bytes(value[:2], "big") for code, value in reply.options if code == 15]


def test_a_silent_upstream_is_named_as_the_reason(daemon: Standing) -> None:
    reply = daemon(query(name("silent.scripted.example"), edns=opt()))
    assert reply.rcode == 2 and set(errors(reply)) & {22, 23}, "no reachable authority, or a network error"
    assert not read(ask(daemon.machine.lab.client, query(name("silent.scripted.example"))) or b"").options


def test_a_tunnel_that_is_down_is_named_as_the_reason(daemon: Standing) -> None:
    daemon.machine.splitwg("down")
    try:
        reply = daemon(query(name("down.tunneled.example"), edns=opt()))
        assert reply.rcode == 2 and errors(reply)
    finally:
        daemon.machine.splitwg("up")
