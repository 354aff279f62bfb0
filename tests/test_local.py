"""Local names: what is answered here and how, with dnslib and `ipaddress` as witnesses from outside."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from dnslib import QTYPE, RCODE, DNSRecord
from hypothesis import example, given
from hypothesis import strategies as st

from splitwgd.config import Config
from splitwgd.local import Local, goes_out, local_patterns, minimal_any, no_data
from splitwgd.message import ANY, IN, RD, RECORD, SOA, A, Body, fit_reply, question_for, read_query, skip_name
from splitwgd.names import ROOT, Name, Scope, parse_name, tails
from splitwgd.objects import Ip, Network
from splitwgd.zones import Zones
from tests.samples import config_with, question

LOOPBACK6 = "1." + "0." * 31 + "ip6.arpa"


def with_hosts(*lines: tuple[str, str]) -> Config:
    """A configuration whose hosts file says these names and addresses, in this order."""
    hosts = tuple((parse_name(name), tuple(map(ip_address, text.split()))) for name, text in lines)
    return replace(config_with({}), hosts=hosts)


CONFIG = with_hosts(
    ("nas.lan", "192.168.1.5 2001:db8::5"),
    ("alias.lan", "192.168.1.5"),
    ("four.lan", "10.1.2.3 10.1.2.4"),
    ("ads.example.com", "0.0.0.0 ::"),
    ("www.example.com", "9.8.7.6"),
    ("printer.floor.local", "10.1.2.5"),
)
LOCAL = Local(CONFIG)


def reply_to(name: str, qtype: str = "A", local: Local = LOCAL) -> DNSRecord:
    query = read_query(question(name, qtype))
    return DNSRecord.parse(fit_reply(query, local.body(query), stream=False))


def said(reply: DNSRecord) -> tuple[str, list[str], list[str]]:
    """(rcode, answers, authorities), records as "owner ttl type data"."""
    answers, authorities = (
        [f"{record.rname} {record.ttl} {QTYPE[record.rtype]} {record.rdata}" for record in records]
        for records in (reply.rr, reply.auth)
    )
    return RCODE[reply.header.rcode], answers, authorities


def soa(apex: str, life: int = 10800) -> list[str]:
    return [f"{apex}. {life} SOA {apex}. nobody.invalid. 1 3600 1200 604800 {life}"]


def covered(name: Name, config: Config = CONFIG) -> bool:
    """Whether a question for this name is led here."""
    exact = {p.name for p in local_patterns(config) if p.scope is Scope.ONLY_ITSELF}
    wide = {p.name for p in local_patterns(config) if p.scope is Scope.WITH_BELOW}
    return name in exact or not wide.isdisjoint(tails(name))


# -- reserved names

NODATA, ABSENT = "NOERROR", "NXDOMAIN"


@pytest.mark.parametrize("qtype", ["A", "AAAA", "PTR", "NS", "SOA", "TXT", "SVCB", "HTTPS", "DS", "ANY"])
@pytest.mark.parametrize(
    ("name", "apex", "rcode"),
    [
        *((top, top, ABSENT) for top in ("invalid", "test", "onion", "alt")),
        *((f"a.b.{top}", top, ABSENT) for top in ("invalid", "test", "local", "onion", "alt")),
        ("www.home.arpa", "home.arpa", ABSENT),
        ("6.1.168.192.in-addr.arpa", "168.192.in-addr.arpa", ABSENT),
        ("2.0.0.127.in-addr.arpa", "127.in-addr.arpa", ABSENT),
        ("0.0.127.in-addr.arpa", "127.in-addr.arpa", NODATA),  # 1.0.0.127 is below it
        (f"0.{LOOPBACK6}", LOOPBACK6, ABSENT),
        ("_dns.resolver.arpa", "resolver.arpa", NODATA),
        ("any.name.resolver.arpa", "resolver.arpa", NODATA),
    ],
)
def test_where_nothing_is_the_soa_says_so(name: str, qtype: str, apex: str, rcode: str) -> None:
    reply = reply_to(name, qtype)
    assert said(reply) == (rcode, [], soa(apex))
    assert (reply.header.aa, reply.header.ra, reply.header.rd, reply.header.ad) == (1, 1, 1, 0)


@pytest.mark.parametrize("name", ["localhost", "sub.localhost", "a.b.localhost"])
def test_localhost_is_this_machine(name: str) -> None:
    v4, v6 = f"{name}. 10800 A 127.0.0.1", f"{name}. 10800 AAAA ::1"
    assert said(reply_to(name, "A")) == ("NOERROR", [v4], [])
    assert said(reply_to(name, "AAAA")) == ("NOERROR", [v6], [])
    assert said(reply_to(name, "ANY")) == ("NOERROR", [v4, v6], [])
    for qtype in ("MX", "HTTPS", "NS", "SOA", "PTR"):
        assert said(reply_to(name, qtype)) == ("NOERROR", [], soa("localhost"))


@pytest.mark.parametrize("apex", ["home.arpa", "resolver.arpa", "10.in-addr.arpa", "d.f.ip6.arpa"])
def test_a_zone_that_is_served_has_soa_and_ns_and_nothing_else(apex: str) -> None:
    ns = f"{apex}. 10800 NS {apex}."
    assert said(reply_to(apex, "SOA")) == ("NOERROR", soa(apex), [])
    assert said(reply_to(apex, "NS")) == ("NOERROR", [ns], [])
    assert said(reply_to(apex, "ANY")) == ("NOERROR", [*soa(apex), ns], [])
    assert said(reply_to(apex, "A")) == ("NOERROR", [], soa(apex))


def test_the_loopback_addresses_lead_to_localhost_whatever_the_hosts_file_says() -> None:
    local = Local(with_hosts(("ads.example.com", "127.0.0.1 ::1"), ("laptop", "127.0.1.1")))
    four, host = "1.0.0.127.in-addr.arpa", "1.1.0.127.in-addr.arpa"
    assert said(reply_to(four, "PTR", local)) == ("NOERROR", [f"{four}. 10 PTR localhost."], [])
    assert said(reply_to(LOOPBACK6, "PTR", local)) == ("NOERROR", [f"{LOOPBACK6}. 10 PTR localhost."], [])
    assert said(reply_to(host, "PTR", local)) == ("NOERROR", [f"{host}. 10 PTR laptop."], [])
    assert said(reply_to(LOOPBACK6, "NS", local)) == ("NOERROR", [f"{LOOPBACK6}. 10800 NS {LOOPBACK6}."], [])


PRIVATE: list[Network] = [
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16"),
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "255.255.255.255/32", "100.64.0.0/10"),
        *("::/128", "::1/128", "fd00::/8", "fe80::/10", "2001:db8::/32"),
    )
]


@pytest.mark.parametrize("network", PRIVATE, ids=str)
def test_a_private_network_ends_where_it_ends(network: Network) -> None:
    local, config = Local(config_with({})), config_with({})
    for address in (network[0], network[-1]):
        assert covered(parse_name(address.reverse_pointer), config)
        rcode, answers, authorities = said(reply_to(address.reverse_pointer, "PTR", local))
        if network.num_addresses == 1:
            assert rcode == "NOERROR"  # the address is a zone's own name
        else:
            assert (rcode, answers, len(authorities)) == ("NXDOMAIN", [], 1)
    for step, end in ((-1, network[0]), (1, network[-1])):
        if not 0 <= int(end) + step < 2**network.max_prefixlen:
            continue
        beyond: Ip = end + step
        if not any(beyond in other for other in PRIVATE):
            assert not covered(parse_name(beyond.reverse_pointer), config)


@pytest.mark.parametrize(
    "name",
    [
        *("com", "lan", "example", "internal", "arpa", "in-addr.arpa", "notlocalhost", "localhost.example"),
        "ipv4only.arpa",  # RFC 8880 §7.1: a forwarder passes it on
        "170.0.0.192.in-addr.arpa",
        "www.mask.icloud.com",
        "icloud.com",
        *("google", "nextdns.io", "www.quad9.net", "dns.google.example"),
        "sub.nas.lan",
    ],
)
def test_other_names_are_not_answered_here(name: str) -> None:
    assert not covered(parse_name(name))


def test_of_home_arpa_the_proof_that_it_is_unsigned_is_asked_for() -> None:
    asked = [
        (name, qtype)
        for name in ("home.arpa", "HOME.arpa", "www.home.arpa", "10.in-addr.arpa", "resolver.arpa")
        for qtype in ("DS", "NS", "SOA", "A")
        if goes_out(read_query(question(name, qtype)))
    ]
    assert asked == [("home.arpa", "DS"), ("HOME.arpa", "DS")]


# -- what can be switched off


@pytest.mark.parametrize("qtype", ["A", "AAAA", "HTTPS", "ANY"])
@pytest.mark.parametrize("name", ["use-application-dns.net", "www.use-application-dns.net"])
def test_the_canary(name: str, qtype: str) -> None:
    reply = reply_to(name, qtype)
    assert said(reply) == ("NXDOMAIN", [], soa("use-application-dns.net", 10))
    assert not reply.header.aa  # the zone is somebody's
    assert covered(parse_name(name))
    assert not covered(parse_name(name), replace(CONFIG, canary=False))


@pytest.mark.parametrize("qtype", ["A", "AAAA", "HTTPS", "SOA", "ANY"])
@pytest.mark.parametrize("name", ["mask.icloud.com", "mask-h2.icloud.com"])
def test_the_relay(name: str, qtype: str) -> None:
    reply = reply_to(name, qtype)
    assert said(reply) == ("NOERROR", [], soa(name, 10))
    assert not reply.header.aa
    assert covered(parse_name(name))
    assert not covered(parse_name(name), replace(CONFIG, icloud_relay=True))


@pytest.mark.parametrize("qtype", ["A", "AAAA", "HTTPS", "ANY"])
@pytest.mark.parametrize(("name", "apex"), [("dns.google", "dns.google"), ("a1.dns.nextdns.io", "dns.nextdns.io")])
def test_a_well_known_resolver_over_https_does_not_exist(name: str, apex: str, qtype: str) -> None:
    reply = reply_to(name, qtype)
    assert said(reply) == ("NXDOMAIN", [], soa(apex, 10))
    assert not reply.header.aa
    assert covered(parse_name(name))
    assert not covered(parse_name(name), replace(CONFIG, refuse_doh=False))


def test_a_resolver_that_is_tunneled_or_forwarded_by_its_very_name_is_not_answered_here() -> None:
    config = config_with(
        {"tunneled.domains": '["dns.google", "quad9.net"]', "dns.forward": '{ "dns.nextdns.io" = ["192.0.2.5"] }'}
    )
    zones = Zones(config, local_patterns(config))
    found = {
        name: zones.find(parse_name(name)).name
        for name in ("dns.google", "dns64.dns.google", "dns.quad9.net", "www.quad9.net", "doh.dns.sb", "dns.sb")
    }
    assert found == {
        "dns.google": "wg0",
        "dns64.dns.google": "wg0",
        "dns.quad9.net": "local",
        "www.quad9.net": "wg0",
        "doh.dns.sb": "local",
        "dns.sb": "default",
    }
    assert zones.find(parse_name("a1.dns.nextdns.io")).servers == config.forward[0][1]


# -- the hosts file


@pytest.mark.parametrize(
    ("name", "qtype", "answers"),
    [
        ("nas.lan", "A", ["A 192.168.1.5"]),
        ("NAS.lan", "AAAA", ["AAAA 2001:db8::5"]),
        ("nas.lan", "ANY", ["A 192.168.1.5", "AAAA 2001:db8::5"]),
        ("four.lan", "A", ["A 10.1.2.3", "A 10.1.2.4"]),
        ("ads.example.com", "A", ["A 0.0.0.0"]),
        ("ads.example.com", "AAAA", ["AAAA ::"]),
        ("printer.floor.local", "A", ["A 10.1.2.5"]),
        ("5.1.168.192.in-addr.arpa", "PTR", ["PTR nas.lan."]),  # the first of two
        ("3.2.1.10.in-addr.arpa", "PTR", ["PTR four.lan."]),
        ("6.7.8.9.in-addr.arpa", "PTR", ["PTR www.example.com."]),
        (ip_address("2001:db8::5").reverse_pointer, "PTR", ["PTR nas.lan."]),
    ],
)
def test_the_hosts_file_answers(name: str, qtype: str, answers: list[str]) -> None:
    reply = reply_to(name, qtype)
    assert said(reply) == ("NOERROR", [f"{name}. 10 {answer}" for answer in answers], [])
    assert reply.header.aa
    # The forwarder looks for names of the hosts file by itself, whatever group they belong to.
    assert covered(parse_name(name)) == (qtype == "PTR" or name.endswith(".local"))


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "authority"),
    [
        ("four.lan", "AAAA", NODATA, soa("four.lan", 10)),
        ("nas.lan", "HTTPS", NODATA, soa("nas.lan", 10)),
        ("6.7.8.9.in-addr.arpa", "A", NODATA, soa("6.7.8.9.in-addr.arpa", 10)),
        ("5.1.168.192.in-addr.arpa", "A", NODATA, soa("168.192.in-addr.arpa", 10)),
        ("printer.floor.local", "AAAA", NODATA, soa("local", 10)),
        # NXDOMAIN would deny what stands below (RFC 8020)
        ("floor.local", "A", NODATA, soa("local")),
        ("local", "A", NODATA, soa("local")),
        ("2.1.10.in-addr.arpa", "PTR", NODATA, soa("10.in-addr.arpa")),
        ("paper.printer.floor.local", "A", ABSENT, soa("local")),
        ("other.local", "A", ABSENT, soa("local")),
        ("3.1.10.in-addr.arpa", "PTR", ABSENT, soa("10.in-addr.arpa")),
        # a name that is blocked by 0.0.0.0 is not the name of that address
        ("0.0.0.0.in-addr.arpa", "PTR", ABSENT, soa("0.in-addr.arpa")),
    ],
)
def test_what_the_hosts_file_does_not_have(name: str, qtype: str, rcode: str, authority: list[str]) -> None:
    assert said(reply_to(name, qtype)) == (rcode, [], authority)


def test_addresses_are_those_of_the_hosts_file() -> None:
    assert LOCAL.addresses(parse_name("nas.lan")) == (ip_address("192.168.1.5"), ip_address("2001:db8::5"))
    assert LOCAL.addresses(parse_name("sub.nas.lan")) == ()
    assert LOCAL.addresses(ROOT) == ()


# -- single replies


@pytest.mark.parametrize("name", ["github.com", "a.b.GitHub.com", "."])
def test_no_data_denies_this_type_for_some_seconds(name: str) -> None:
    query = read_query(question(name, "AAAA"))
    reply = DNSRecord.parse(fit_reply(query, no_data(query), stream=False))
    assert said(reply) == ("NOERROR", [], soa(name.removesuffix("."), 10))
    assert not reply.header.aa


def test_any_is_answered_by_one_record_that_says_why() -> None:
    query = read_query(question("github.com", "ANY"))
    reply = DNSRecord.parse(fit_reply(query, minimal_any(query), stream=False))
    (record,) = reply.rr
    assert (str(record.rname), QTYPE[record.rtype], record.ttl) == ("github.com.", "HINFO", 3600)
    assert record.rdata.data == b"\x07RFC8482\x00"
    assert (RCODE[reply.header.rcode], reply.auth) == ("NOERROR", [])


# -- any bytes

ZONES = [p.name for p in local_patterns(CONFIG)]
LABELS = st.lists(st.binary(min_size=1, max_size=63), max_size=12)
# What looks like a dot, a pointer, a length or the end of a name, and the bytes between which case is folded.
ODD = st.lists(st.lists(st.sampled_from(b"\0.\xc0\xff\x01AZaz@[`{\\"), min_size=1, max_size=4).map(bytes), max_size=30)


def wire(labels: list[bytes], zone: Name) -> bytes:
    """As many of these labels as fit before the zone."""
    name = zone
    for label in labels:
        longer = b"%c%b%b" % (len(label), label, name)
        name = longer if len(longer) <= 255 else name
    return name


def records_of(reply: bytes, position: int) -> list[tuple[Name, int, bytes]]:
    """(owner, type, rdata) of every record; an owner that points is followed once, into the question."""
    found = []
    while position < len(reply):
        owner = reply[position : skip_name(reply, position)]
        if owner[0] >= 0xC0:
            start = int.from_bytes(owner, "big") & 0x3FFF
            assert 12 <= start < position
            owner = reply[start : skip_name(reply, start)]
        fixed = skip_name(reply, position)
        rtype, rclass, _, length = RECORD.unpack_from(reply, fixed)
        position = fixed + RECORD.size + length
        assert rclass == IN
        found.append((owner.lower(), rtype, reply[position - length : position]))
    assert position == len(reply)
    return found


@given(
    st.one_of(LABELS, ODD),
    st.sampled_from(ZONES),
    st.one_of(st.sampled_from([A, SOA, ANY]), st.integers(min_value=0, max_value=0xFFFF)),
    st.sampled_from([Local.body, lambda _, query: no_data(query), lambda _, query: minimal_any(query)]),
)
@example([b"a" * 63] * 4, parse_name("localhost"), ANY, Local.body)
def test_whatever_is_asked_below_a_local_name_the_reply_is_whole(labels, zone, qtype, answer) -> None:  # type: ignore[no-untyped-def]
    asked = wire(labels, zone) + struct.pack("!HH", qtype, IN)
    query = replace(question_for(asked[:-4].lower(), qtype), question=asked, flags=RD, edns=False, udp_size=512)
    body: Body = answer(LOCAL, query)
    reply = fit_reply(query, body, stream=False)
    assert reply[12 : 12 + len(asked)] == asked
    assert not reply[2] & 2  # TC: every reply fits, however long its name
    records = records_of(reply, 12 + len(asked))
    assert len(records) == body.answers + body.authorities
    for owner, rtype, _ in records:
        assert owner == query.name or (rtype == SOA and owner in tails(query.name))


@given(st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True), max_size=5), st.sampled_from(ZONES))
def test_dnslib_reads_the_same(labels: list[str], zone: Name) -> None:
    name = ".".join([*labels, *(tail[1 : 1 + tail[0]].decode() for tail in tails(zone) if tail[0])])
    reply = reply_to(name, "ANY")
    assert str(reply.q.qname) == f"{name}."
    assert all(str(record.rname).lower() == f"{name}.".lower() for record in reply.rr)
    assert [QTYPE[record.rtype] for record in reply.auth] == ([] if reply.rr else ["SOA"])
    assert all(f"{name}.".lower().endswith(str(record.rname).lower()) for record in reply.auth)
