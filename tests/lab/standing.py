"""The daemon as the tests of the protocol meet it: started once for a module, with an upstream that plays a script.

The script is in the names: the first label of what is asked for says what is answered (see `play`).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from tests.fuzz.packets import (
    AAAA,
    AD,
    DNAME,
    HERE,
    HINFO,
    HTTPS,
    MX,
    NAPTR,
    NS,
    PTR,
    QR,
    RA,
    RD,
    SOA,
    SRV,
    SVCB,
    TC,
    TXT,
    A,
    header,
    name,
    record,
)
from tests.fuzz.packets import CNAME as ALIAS
from tests.fuzz.reader import Message, read

from .asking import ask, ask_stream
from .authority import (
    AUTHORITY,
    SCRIPTED,
    SCRIPTED_VPN,
    Late,
    Scripted,
    authority,
    scripted,
    scripted_behind_the_tunnel,
)
from .machine import Machine
from .world import Lab

CONFIG = f"""\
[dns]
tunneled = ["{SCRIPTED_VPN}"]
default = ["{AUTHORITY}"]
[dns.forward]
"scripted.example" = ["{SCRIPTED}"]
[tunneled]
domains = ["tunneled.example"]
"""
ADDRESS = b"\xcb\0\x71\x14"
# What the scripted upstream was last asked, and how often, by the name in lower case.
told: dict[str, bytes] = {}
asks: Counter[str] = Counter()


def labels(owner: bytes) -> list[bytes]:
    """Those of a name, without the root."""
    found = []
    while owner[0]:
        found.append(owner[1 : 1 + owner[0]])
        owner = owner[1 + owner[0] :]
    return found


def play(packet: bytes, stream: bool) -> list[bytes]:
    """The scripted upstream's answer, by the first label of the name:

    size-N: TXT of so many octets. type-N: one record whose RDATA is `rdata_of` its type. cut-N: N's addresses, and
    over UDP a wrong one with TC. ad: an address, validated. slow-N-X: an address after N ms. silent: nothing.
    """
    message = read(packet)
    owner, rtype, _ = message.questions[0]
    words = b".".join(labels(owner)).decode("latin-1").lower()
    told[words] = packet
    asks[words] += 1
    what, _, number = words.partition(".")[0].partition("-")
    flags, records = QR | RD | RA, [record(HERE, A, ADDRESS)] if rtype == A else []
    if what == "size":
        size = int(number)
        texts = b"".join(bytes([min(255, left)]) + b"t" * min(255, left) for left in range(size, 0, -255))
        records = [record(HERE, TXT, texts)]
    elif what == "type":
        records = [record(HERE, rtype, rdata_of(rtype))]
    elif what == "cut":
        records = [record(HERE, AAAA, address) for address in cut_addresses(int(number))]
        if not stream:
            flags, records = flags | TC, [record(HERE, AAAA, bad_address(int(number)))]
    elif what == "ad":
        flags |= AD
    elif what == "silent":
        return []
    asked = packet[12 : 16 + len(owner)]
    reply = header(flags, 1, len(records), ident=message.id) + asked + b"".join(records)
    if len(reply) > (65_535 if stream else 1232):
        reply = header(flags | TC, ident=message.id) + asked
    if what == "slow":
        late = Late(reply)
        late.after = int(number.partition("-")[0]) / 1000
        return [late]
    return [reply]


def rdata_of(rtype: int) -> bytes:
    """RDATA that is right for the types whose form everybody knows, and any octets for the others."""
    well_known = {
        A: ADDRESS,
        NS: b"\2ns" + HERE,
        ALIAS: name("plain.scripted.example"),
        SOA: HERE + b"\4root" + HERE + bytes(20),
        PTR: b"\4host" + HERE,
        HINFO: b"\3cpu\2os",
        MX: b"\0\x0a\4mail" + HERE,
        TXT: b"\5hello",
        AAAA: ip_address("2001:db8:1::20").packed,
        SRV: struct.pack("!3H", 1, 2, 53) + name("host.example"),
        NAPTR: struct.pack("!2H", 1, 2) + b"\1u\3abc\0" + name("host.example"),
        DNAME: name("tree.example"),
        SVCB: b"\0\1" + name("svc.example"),
        HTTPS: b"\0\1\0\0\1\0\3\2h2",
    }
    return well_known.get(rtype, bytes((rtype * 7 + place) & 0xFF for place in range(rtype % 61)))


def cut_addresses(number: int) -> list[bytes]:
    """What the whole answer for cut-N holds."""
    return [ip_address(f"2001:db8:1:{number:x}::{n}").packed for n in (1, 2)]


def bad_address(number: int) -> bytes:
    """What the truncated one holds, and nobody may believe."""
    return ip_address(f"2001:db8:1:{number:x}::bad").packed


@dataclass
class Standing:
    """The daemon and its upstreams; called with a packet it gives the answer."""

    machine: Machine
    upstream: Scripted
    behind: Scripted

    def __call__(self, packet: bytes, stream: bool = False) -> Message:
        """The answer, readable by a strict reader and belonging to the question."""
        reply = (ask_stream if stream else ask)(self.machine.lab.client, packet)
        assert reply is not None, "silence"
        message = read(reply)
        assert reply[:2] == packet[:2] and message.flags & QR
        return message

    def memory(self) -> int:
        """The daemon's resident octets."""
        return self._number("VmRSS") * 1024

    def descriptors(self) -> int:
        """How many files and sockets it holds."""
        return len(self.machine.lab.client.run("ls", f"/proc/{self.pid}/fd").stdout.split())

    @property
    def pid(self) -> int:
        """Of the daemon."""
        assert self.machine.process is not None
        return self.machine.process.pid

    def _number(self, what: str) -> int:
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(what + ":"))


def exceptions(log: str) -> str:
    """What of the daemon's log tells of one that nobody expected."""
    return "\n".join(line for line in log.splitlines() if "Traceback" in line or "xception" in line or line[:1] == " ")


@contextmanager
def standing(lab: Lab) -> Iterator[Standing]:
    """The daemon for the length of the block; in the end its log must be free of exceptions."""
    machine = Machine(lab)
    try:
        authority(lab.internet)
        with scripted(lab.internet, SCRIPTED, play) as upstream, scripted_behind_the_tunnel(lab.vpn, play) as behind:
            machine.configure(CONFIG)
            machine.start()
            yield Standing(machine, upstream, behind)
            assert exceptions(machine.log()) == ""
    finally:
        machine.clean()
