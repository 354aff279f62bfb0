"""Names and questions that are answered on this machine and never leave it.

Reserved names and private reverse zones, unless the configuration forwards or tunnels them; the names by which
programs ask whether this network wants its resolver to be used, and those of other resolvers; the hosts file. `zones`
leads them here. Nothing here is on the fast path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

import dnslib

from splitwgd.bypasses import NAMES as RESOLVERS
from splitwgd.config import Config
from splitwgd.message import AA, AAAA, ANY, NOERROR, NXDOMAIN, QR, SOA, A, Body, Query
from splitwgd.names import Name, Pattern, Scope, parse_name, tails
from splitwgd.objects import Ip

NS, PTR, HINFO, DS = 2, 12, 13, 43
BUILT_LIMIT = 1024  # replies that are kept as built; browsers ask for the same few again and again
_FIXED = 10_800  # seconds; RFC 6303 §3 gives both lives of its SOA as this
# What an edited hosts file or a reload may change is to be felt within seconds; it costs nobody anything to ask
# again. Not 0, with which each use of an address would be a question more.
_BRIEF = 10


@dataclass(frozen=True, slots=True)
class _Zone:
    """What is answered where there is no record: the rcode at the zone's own name and, unless None, below it.

    served: SOA and NS stand at its name. ours: no zone of that name is somebody's, so that the answer is authoritative.
    """

    itself: int
    below: int | None
    served: bool = False
    ours: bool = True


# RFC 6761 §6.3: addresses get the loopback's, all other types a negative answer; so no SOA at its name either.
_LOCALHOST_ZONE = _Zone(NOERROR, NOERROR)
_ABSENT = _Zone(NXDOMAIN, NXDOMAIN)
_SERVED = _Zone(NOERROR, NXDOMAIN, served=True)  # RFC 6303 §3
# RFC 9462 §4 and §6.4: locally served, and NODATA for any type of any name below.
_EMPTY = _Zone(NOERROR, NOERROR, served=True)
_DENIED = _Zone(NXDOMAIN, NXDOMAIN, ours=False)
_RELAY = _Zone(NOERROR, None, ours=False)
_NO_ZONE = _Zone(NOERROR, None, ours=False)

_LOCALHOST = parse_name("localhost")
_LOOPBACK: tuple[Ip, ...] = (ip_address("127.0.0.1"), ip_address("::1"))
_HOME = parse_name("home.arpa")
_RESERVED = {
    "localhost": _LOCALHOST_ZONE,
    "invalid": _ABSENT,  # RFC 6761 §6.4
    "test": _ABSENT,  # RFC 6761 §6.2, unless it is configured
    "local": _ABSENT,  # RFC 6762 §22.1
    "onion": _ABSENT,  # RFC 7686 §2
    "alt": _ABSENT,  # RFC 9476 §2
    "home.arpa": _SERVED,  # RFC 8375 §4
    "resolver.arpa": _EMPTY,
    # ipv4only.arpa is not here: a forwarder is not to treat it as special, the DNS64 may be upstream (RFC 8880 §7.1).
}
_REVERSE = (
    "10.in-addr.arpa",  # RFC 6303 §4.1
    *(f"{number}.172.in-addr.arpa" for number in range(16, 32)),
    "168.192.in-addr.arpa",
    "0.in-addr.arpa",  # RFC 6303 §4.2
    "127.in-addr.arpa",
    "254.169.in-addr.arpa",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    "0." * 32 + "ip6.arpa",  # RFC 6303 §4.3
    "1." + "0." * 31 + "ip6.arpa",
    "d.f.ip6.arpa",  # RFC 6303 §4.4
    *(f"{nibble}.e.f.ip6.arpa" for nibble in "89ab"),  # RFC 6303 §4.5
    "8.b.d.0.1.0.0.2.ip6.arpa",  # RFC 6303 §4.6
    *(f"{number}.100.in-addr.arpa" for number in range(64, 128)),  # RFC 7793
)
_ALWAYS = {parse_name(name): zone for name, zone in (_RESERVED | dict.fromkeys(_REVERSE, _SERVED)).items()}
_CANARY_NAME = parse_name("use-application-dns.net")
_RELAY_NAMES = (parse_name("mask.icloud.com"), parse_name("mask-h2.icloud.com"))


def local_patterns(config: Config) -> Iterator[Pattern]:
    """Every name that is answered here, but for those of the hosts file, which may be tunneled (`Local.hosts`).

    What the configuration itself says of the same name is to win.
    """
    for name, zone in _zones(config).items():
        yield Pattern(name, Scope.ONLY_ITSELF if zone.below is None else Scope.WITH_BELOW)
    for _, addresses in config.hosts:
        for address in _pointing(addresses):
            yield Pattern(_reverse_name(address), Scope.ONLY_ITSELF)


def goes_out(query: Query) -> bool:
    """Whether this question is for the default servers although its name is local.

    Who validates needs the parent's word that home.arpa is unsigned (RFC 8375 §4): DS is asked, nothing else is.
    """
    return query.qtype == DS and query.name == _HOME


class Local:
    """The replies to questions for the names of `local_patterns`."""

    def __init__(self, config: Config) -> None:
        self._zones = _zones(config)
        self.hosts = dict(config.hosts)
        # Loopback first: a blocklist may give 127.0.0.1 to all of its names.
        self._pointers = dict.fromkeys(map(_reverse_name, _LOOPBACK), _LOCALHOST)
        for name, addresses in config.hosts:
            for address in _pointing(addresses):
                self._pointers.setdefault(_reverse_name(address), name)  # the first line wins, as in the C library
        self._above = self._parents()
        self._built = lru_cache(BUILT_LIMIT)(self._build)

    def addresses(self, name: Name) -> tuple[Ip, ...]:
        """What the hosts file says of a name."""
        return self.hosts.get(name, ())

    def body(self, query: Query) -> Body:
        """The reply to a question for a local name; for any other name it is `no_data`'s."""
        return self._built(query.name, query.qtype)

    def _parents(self) -> set[Name]:
        """The names in local zones below which there are names: NXDOMAIN would deny those too (RFC 8020 §2)."""
        above: set[Name] = set()
        for name in (*self.hosts, *self._pointers):
            path: list[Name] = []
            for tail in tails(name):
                if tail in above or tail in self._zones:
                    above.update(path[1:], (tail,))
                    break
                path.append(tail)
        return above

    def _zone_of(self, name: Name) -> tuple[Name, _Zone]:
        for tail in tails(name):
            zone = self._zones.get(tail)
            if zone is not None:
                return tail, zone
        return name, _NO_ZONE

    def _build(self, name: Name, qtype: int) -> Body:
        apex, zone = self._zone_of(name)
        known = name in self.hosts or name in self._pointers
        life = _FIXED if zone.ours and not known else _BRIEF
        flags = QR | AA if zone.ours or known else QR
        records = self._records(name, zone, life)
        if zone.served and name == apex:
            records += [_soa(apex, _FIXED), dnslib.RR(_label(apex), NS, ttl=_FIXED, rdata=dnslib.NS(_label(apex)))]
        answers = [record for record in records if qtype in (record.rtype, ANY)]
        if answers:
            return _body(name, apex, flags, answers)
        if not records and name not in self._above:
            flags |= zone.itself if name == apex else zone.below or NOERROR
        return _body(name, apex, flags, [], [_soa(apex, life)])

    def _records(self, name: Name, zone: _Zone, life: int) -> list[dnslib.RR]:
        """What there is at a name, but for the SOA and NS of a zone."""
        owner = _label(name)
        records = []
        for address in _LOOPBACK if zone is _LOCALHOST_ZONE else self.addresses(name):
            rtype, rdata = (A, dnslib.A) if address.version == 4 else (AAAA, dnslib.AAAA)
            records.append(dnslib.RR(owner, rtype, ttl=life, rdata=rdata(tuple(address.packed))))
        if name in self._pointers:
            records.append(dnslib.RR(owner, PTR, ttl=life, rdata=dnslib.PTR(_label(self._pointers[name]))))
        return records


def no_data(query: Query) -> Body:
    """That the name exists and has no record of this type, for some seconds (RFC 2308 §2.2)."""
    return _body(query.name, query.name, QR, [], [_soa(query.name, _BRIEF)])


def minimal_any(query: Query) -> Body:
    """The one record that answers ANY (RFC 8482 §4.2), with a life that keeps its sender from asking again soon."""
    hinfo = dnslib.RR(_label(query.name), HINFO, ttl=3600, rdata=dnslib.RD(b"\7RFC8482\0"))
    return _body(query.name, query.name, QR, [hinfo])


def _zones(config: Config) -> dict[Name, _Zone]:
    denied = ((_CANARY_NAME,) if config.canary else ()) + (RESOLVERS if config.refuse_doh else ())
    relay = () if config.icloud_relay else _RELAY_NAMES
    return _ALWAYS | dict.fromkeys(denied, _DENIED) | dict.fromkeys(relay, _RELAY)


def _pointing(addresses: tuple[Ip, ...]) -> Iterator[Ip]:
    """The addresses that lead back to a name; 0.0.0.0 and :: are how a hosts file blocks one."""
    return (address for address in addresses if not address.is_unspecified)


def _reverse_name(address: Ip) -> Name:
    """The name under which its PTR record stands (RFC 1035 §3.5, RFC 3596 §2.5)."""
    if address.version == 4:
        octets = (b"%d" % octet for octet in reversed(address.packed))
        return b"".join(b"%c%b" % (len(octet), octet) for octet in octets) + b"\7in-addr\4arpa\0"
    return b"".join(b"\1%c" % nibble for nibble in address.packed.hex()[::-1].encode()) + b"\3ip6\4arpa\0"


def _label(name: Name) -> dnslib.DNSLabel:
    """A name for dnslib, label by label: as text its dots and bytes above 127 would be taken for something else."""
    return dnslib.DNSLabel([tail[1 : 1 + tail[0]] for tail in tails(name) if tail[0]])


def _soa(apex: Name, life: int) -> dnslib.RR:
    """The SOA record of RFC 6303 §3; both lives are `life`, as it asks."""
    times = (1, 3600, 1200, 604_800, life)
    rdata = dnslib.SOA(_label(apex), dnslib.DNSLabel("nobody.invalid"), times)
    return dnslib.RR(_label(apex), SOA, ttl=life, rdata=rdata)


def _body(
    name: Name, apex: Name, flags: int, answers: list[dnslib.RR], authorities: list[dnslib.RR] | None = None
) -> Body:
    """These records as they stand behind a question for `name`.

    The question is not packed here: its bytes go back as they came. Records point into it instead.
    """
    buffer = dnslib.DNSBuffer()
    question = 12 + len(name) + 4
    buffer.append(bytes(question))
    buffer.names[_label(apex).label] = 12 + len(name) - len(apex)
    buffer.names[_label(name).label] = 12
    for record in (*answers, *(authorities or ())):
        record.pack(buffer)
    return Body(flags, len(answers), len(authorities or ()), bytes(buffer.data[question:]), 0)
