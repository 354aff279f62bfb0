"""Configurations, questions and replies that many tests begin with; nothing here touches a disk or a socket."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from io import BytesIO

from dnslib import EDNS0, QTYPE, RR, DNSHeader, DNSQuestion, DNSRecord

from splitwgd.config import Config, load_config
from splitwgd.errors import ConfigError
from splitwgd.message import IN, QR, RA, RD, A, Query, read_query

PATH = "/etc/splitwg/domains.toml"
WG_PATH = "/etc/wireguard/wg0.conf"

PRIVATE_KEY = b64encode(bytes(range(32))).decode()
PUBLIC_KEY = b64encode(bytes(range(32, 64))).decode()
OTHER_KEY = b64encode(bytes(range(64, 96))).decode()

ARTICLE_TOML = """\
[dns]
# DNS server on VPN endpoint (only reachable through tunnel)
tunneled = ["10.1.0.1"]

# DNS servers for non-tunneled domains (regular internet)
default = ["9.9.9.9", "149.112.112.112"]

[tunneled]
domains = [
    "github.com",
    "icanhazip.com",
    # Add your domains here
]
"""
ARTICLE_WG = f"""\
[Interface]
Address = 10.1.0.2/24
PrivateKey = {PRIVATE_KEY}
MTU = 1420
Table = off

# IPv4 policy routing
PostUp = ip rule del fwmark 0x1 table 100 priority 100 2>/dev/null || true
PostUp = ip rule add fwmark 0x1 table 100 priority 100
PostUp = ip route del default dev %i table 100 2>/dev/null || true
PostUp = ip route del blackhole default table 100 2>/dev/null || true
PostUp = ip route add default dev %i table 100 metric 100
PostUp = ip route add blackhole default table 100 metric 200

# IPv6 policy routing
PostUp = ip -6 rule del fwmark 0x1 table 100 priority 100 2>/dev/null || true
PostUp = ip -6 rule add fwmark 0x1 table 100 priority 100
PostUp = ip -6 route del default dev %i table 100 2>/dev/null || true
PostUp = ip -6 route del blackhole default table 100 2>/dev/null || true
PostUp = ip -6 route add default dev %i table 100 metric 100
PostUp = ip -6 route add blackhole default table 100 metric 200

# Cleanup (keep rules and blackhole for fail-closed)
PostDown = ip route del default dev %i table 100 2>/dev/null || true
PostDown = ip -6 route del default dev %i table 100 2>/dev/null || true

[Peer]
PublicKey = {PUBLIC_KEY}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 192.0.2.1:51820
PersistentKeepalive = 25
"""
WG = f"""\
[Interface]
Address = 10.1.0.2/24, fd00:1::2/64
PrivateKey = {PRIVATE_KEY}
[Peer]
PublicKey = {PUBLIC_KEY}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = vpn.example.com:51820
"""
DESIGN_TOML = """\
[dns]
tunneled = ["10.1.0.1"]                       # asked inside the tunnel
default  = ["9.9.9.9", "149.112.112.112"]     # asked outside
[dns.forward]
"ts.net" = ["100.100.100.100"]                # a zone with servers of its own (Tailscale's MagicDNS)
[tunneled]
domains  = ["github.com", "=example.org", "*.example.net", "!status.github.com"]
networks = ["198.51.100.0/24"]                # by address
lists    = ["lists/*.txt"]                    # one name a line; relative to this file
[wireguard]
config   = "/etc/wireguard/wg0.conf"
"""
# The least that is a configuration, as TOML key -> TOML value; tests add to it or put others in their place.
LEAST = {
    "dns.tunneled": '["10.1.0.1"]',
    "dns.default": '["9.9.9.9"]',
    "tunneled.domains": '["github.com"]',
}

File = str | bytes | Exception


class Memory:
    """Files in memory (`config.Files`); an exception in place of a content is what reading it raises."""

    def __init__(self, files: Mapping[str, File]) -> None:
        self.files = dict(files)

    def read(self, path: str) -> bytes:
        content = self.files.get(path, FileNotFoundError(2, "No such file or directory"))
        if isinstance(content, Exception):
            raise content
        return content.encode() if isinstance(content, str) else content

    def glob(self, pattern: str) -> list[str]:
        return sorted(path for path in self.files if fnmatch(path, pattern))

    def stamp(self, path: str) -> tuple[int, ...]:
        content = self.files.get(path)
        return (len(content), hash(content)) if isinstance(content, str | bytes) else ()

    def pieces(self, path: str) -> Iterator[bytes]:
        file = BytesIO(self.read(path))
        while piece := file.read(32) + file.readline():  # small, so that what spans pieces is met
            yield piece

    def rest(self) -> None:
        pass


def toml(changes: Mapping[str, str]) -> str:
    """LEAST with these keys changed or added; an empty value takes a key away."""
    return "\n".join(f"{key} = {value}" for key, value in {**LEAST, **changes}.items() if value)


def load(text: File, wg: File = WG, files: Mapping[str, File] | None = None) -> Config:
    """The configuration that this text makes, beside this wg-quick file and these others."""
    return load_config(PATH, Memory({PATH: text, WG_PATH: wg, **(files or {})}))


def config_with(changes: Mapping[str, str], wg: str = WG) -> Config:
    return load(toml(changes), wg)


def problems_of(text: File, wg: File = WG, files: Mapping[str, File] | None = None) -> list[str]:
    """Every problem that loading this meets, as it is told."""
    try:
        load(text, wg, files)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


# -- DNS, built by dnslib as a witness from outside


def question(name: str = "github.com", qtype: str = "A", ident: int = 7, edns: int | None = 1232, do: int = 0) -> bytes:
    """A question as a client sends it; edns is the size that it says it can take, None for no OPT."""
    record = DNSRecord(DNSHeader(id=ident, rd=1), q=DNSQuestion(name, getattr(QTYPE, qtype)))
    if edns is not None:
        record.add_ar(EDNS0(udp_len=edns, flags="do" if do else ""))
    return bytes(record.pack())


def ask(name: str = "github.com", qtype: str = "A") -> Query:
    return read_query(question(name, qtype))


def answer(query: Query, zone: str = "", authority: str = "", rcode: int = 0, opt: bool = False) -> bytes:
    """A reply with these records, in zone-file text, to what `query` asks."""
    record = DNSRecord.parse(struct.pack("!6H", query.id, query.flags, 1, 0, 0, 0) + query.question).reply(aa=0)
    record.header.rcode = rcode
    record.add_answer(*RR.fromZone(zone))
    record.add_auth(*RR.fromZone(authority))
    if opt:
        record.add_ar(EDNS0(udp_len=1232))
    return bytes(record.pack())


def extended_error(reply: DNSRecord) -> tuple[int, str] | None:
    """The code and the text of a reply's extended error (RFC 8914 §2)."""
    for opt in reply.ar:
        for option in opt.rdata if opt.rtype == QTYPE.OPT else ():
            if option.code == 15:
                return int.from_bytes(option.data[:2], "big"), option.data[2:].decode()
    return None


def raw_record(
    owner: bytes, rtype: int = A, ttl: int = 60, rdata: bytes = b"\1\2\3\4", length: int | None = None
) -> bytes:
    """A record byte by byte; `length` is what its RDLENGTH says where that is a lie."""
    return owner + struct.pack("!HHIH", rtype, IN, ttl, len(rdata) if length is None else length) + rdata


def raw_reply(
    query: Query, *records: bytes, counts: tuple[int, int, int] | None = None, flags: int = QR | RD | RA
) -> bytes:
    """A reply byte by byte; `counts` (answers, authorities, additionals) where they are not all answers."""
    return (
        struct.pack("!6H", query.id, flags, 1, *(counts or (len(records), 0, 0))) + query.question + b"".join(records)
    )
