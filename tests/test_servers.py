"""How the configuration writes a DNS server."""

from __future__ import annotations

import string
from ipaddress import IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from splitwgd.servers import Server, Transport, parse_server
from splitwgd.settings import ValueProblem
from tests.worlds import ip

TLS, HTTPS = Transport.TLS, Transport.HTTPS
QUAD9 = "dns.quad9.net"

AS_PRINTED = [
    ("9.9.9.9", Server(ip("9.9.9.9"))),
    ("9.9.9.9:5353", Server(ip("9.9.9.9"), 5353)),
    ("[2620:fe::fe]:5353", Server(ip("2620:fe::fe"), 5353)),
    ("2620:fe::fe", Server(ip("2620:fe::fe"))),
    ("169.254.169.253", Server(ip("169.254.169.253"))),  # link-local, yet IPv4 has no scopes (RFC 3927)
    ("fe80::1%eth0", Server(ip("fe80::1"), scope="eth0")),
    ("fe80::1%2", Server(ip("fe80::1"), scope="2")),  # as systemd-resolved writes it
    ("[fe80::1%br-lan.7]:5353", Server(ip("fe80::1"), 5353, scope="br-lan.7")),
    ("tls://9.9.9.9#dns.quad9.net", Server(ip("9.9.9.9"), 853, TLS, QUAD9)),
    ("tls://9.9.9.9:53#dns.quad9.net", Server(ip("9.9.9.9"), 53, TLS, QUAD9)),
    ("tls://[2620:fe::fe]#dns.quad9.net", Server(ip("2620:fe::fe"), 853, TLS, QUAD9)),
    ("tls://[2620:fe::fe]:8853#dns.quad9.net", Server(ip("2620:fe::fe"), 8853, TLS, QUAD9)),
    ("tls://[fe80::1%eth0]#router.example", Server(ip("fe80::1"), 853, TLS, "router.example", scope="eth0")),
    ("tls://1.1.1.1#1.1.1.1", Server(ip("1.1.1.1"), 853, TLS, "1.1.1.1")),  # a certificate made out to an address
    ("tls://1.1.1.1#2606:4700:4700::1111", Server(ip("1.1.1.1"), 853, TLS, "2606:4700:4700::1111")),
    ("https://9.9.9.9#dns.quad9.net", Server(ip("9.9.9.9"), 443, HTTPS, QUAD9, "/dns-query")),
    ("https://9.9.9.9/#dns.quad9.net", Server(ip("9.9.9.9"), 443, HTTPS, QUAD9, "/")),
    (
        "https://45.90.28.0/abc/a%20b#dns.nextdns.io",
        Server(ip("45.90.28.0"), 443, HTTPS, "dns.nextdns.io", "/abc/a%20b"),
    ),
    ("https://[2620:fe::fe]:8443/q#dns.quad9.net", Server(ip("2620:fe::fe"), 8443, HTTPS, QUAD9, "/q")),
]


@pytest.mark.parametrize(("text", "server"), AS_PRINTED, ids=[text for text, _ in AS_PRINTED])
def test_a_server_is_written_as_it_prints(text: str, server: Server) -> None:
    assert parse_server(text) == server
    assert str(server) == text


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("TLS://9.9.9.9:853#DNS.Quad9.NET.", "tls://9.9.9.9#dns.quad9.net"),
        ("Https://[2620:FE::fe]:443/dns-query#dns.quad9.net", "https://[2620:fe::fe]#dns.quad9.net"),
        ("tls://192.0.2.1#dns.bücher.example", "tls://192.0.2.1#dns.xn--bcher-kva.example"),
        ("tls://192.0.2.1#2606:4700::00AA", "tls://192.0.2.1#2606:4700::aa"),
    ],
)
def test_other_spellings_are_the_same_server(text: str, printed: str) -> None:
    assert str(parse_server(text)) == printed


NO_SERVERS = [
    ("", "is no IP address; write the address, and a name only behind #: tls://9.9.9.9#dns.quad9.net"),
    ("dns.quad9.net", "is no IP address; write the address, and a name only behind #"),
    ("tls://dns.quad9.net", "is no IP address; write the address, and a name only behind #"),
    ("https://dns.quad9.net/dns-query", "is no IP address; write the address, and a name only behind #"),
    ("tls://", "is no IP address"),
    ("tls://#dns.quad9.net", "is no IP address"),
    ("https:///dns-query#dns.quad9.net", "is no IP address"),
    ("//9.9.9.9", "is no IP address"),
    ("9.9.9.09", "is no IP address"),
    ("9.9.9.9/dns-query", "is no IP address"),
    ("9.9.9.9#dns.quad9.net", "has a # but is asked in clear; write tls://9.9.9.9#dns.quad9.net; a port stands behind"),
    ("9.9.9.9#5353", "has a # but is asked in clear"),  # as dnsmasq has it
    ("udp://9.9.9.9", "begins with udp://; write tls:// or https://, or the address alone"),
    ("http://9.9.9.9/dns-query#a.b", "begins with http://"),
    ("quic://9.9.9.9#a.b", "begins with quic://"),
    ("x" * 1000 + "://9.9.9.9", f"begins with {'x' * 20}://"),
    ("tls://9.9.9.9", "does not say which name the certificate bears; add it behind a #, as in tls://9.9.9.9#dns"),
    ("tls://9.9.9.9#", "does not say which name"),
    ("https://9.9.9.9/dns-query", "does not say which name"),
    ("tls://9.9.9.9#fe80::1%eth0", "does not say which name"),
    ("tls://9.9.9.9##dns.quad9.net", "has no name behind the #: '#dns' is no label of a domain name"),
    ("tls://9.9.9.9#*.quad9.net", "has no name behind the #: a star"),
    ("tls://9.9.9.9#a..b", "has no name behind the #: an empty label"),
    ("tls://9.9.9.9#dns.quad9.net:853", "has no name behind the #: a colon"),
    ("tls://9.9.9.9#dns.quad9.net/dns-query", "has no name behind the #: a slash"),
    ("https://9.9.9.9#dns.quad9.net/dns-query", "has no name behind the #: a slash"),
    ("tls://9.9.9.9#9.9.9", "has neither a name nor an address behind the #"),
    ("tls://9.9.9.9#[2620:fe::fe]", "has no name behind the #"),
    ("tls://9.9.9.9/#dns.quad9.net", "has a path, and DNS over TLS knows none; remove it, or write https://"),
    ("https://9.9.9.9/dns-query?dns=AAA#a.b", "has a query string; remove what stands behind the ?"),
    ("https://9.9.9.9/dns-query{?dns}#a.b", "has a query string"),
    ("https://9.9.9.9/a%2#a.b", "has a path that no URL can have; write it percent-encoded"),
    ("https://9.9.9.9/ä#a.b", "has a path that no URL can have"),
    ("https://9.9.9.9/{dns}#a.b", "has a path that no URL can have"),
    ("tls://me:secret@9.9.9.9#a.b", "has a user in it; remove what stands before the @"),
    ("https://me@9.9.9.9/dns-query#a.b", "has a user in it"),
    ("tls://2620:fe::fe#a.b", "has an IPv6 address without brackets; write tls://[2620:fe::fe]#dns.quad9.net"),
    ("https://2620:fe::fe:443/q#a.b", "has an IPv6 address without brackets"),
    ("[9.9.9.9]:53", "has brackets, which are for IPv6 addresses; remove them"),
    ("tls://[dns.quad9.net]#a.b", "has brackets, which are for IPv6 addresses"),
    ("[2620:fe::fe]853", "has no valid port; write a number from 1 to 65535 behind the colon, or no colon"),
    ("[2620:fe::fe", "has no valid port"),
    ("9.9.9.9:", "has no valid port"),
    ("tls://9.9.9.9:0#a.b", "has no valid port"),
    ("tls://9.9.9.9:65536#a.b", "has no valid port"),
    ("tls://9.9.9.9:+53#a.b", "has no valid port"),
    ("https://9.9.9.9:٤٤٣#a.b", "has no valid port"),
    (" 9.9.9.9", "has a space or something invisible in it; remove it"),
    ("9.9.9.9 149.112.112.112", "has a space"),
    ("tls://9.9.9.9 #a.b", "has a space"),
    ("9.9.9.9\n", "has a space or something invisible"),
    ("tls://9.9.9.9#a.b\u200b", "has a space or something invisible"),
    ("0.0.0.0", "is another name for this machine"),
    ("tls://[::]#a.b", "is another name for this machine"),
    ("::ffff:9.9.9.9", "is another name for this machine or for an IPv4 address; write the address itself"),
    ("224.0.0.251", "is a group of hosts (multicast); write one server's address"),
    ("ff02::fb%eth0", "is a group of hosts (multicast)"),
    ("fe80::1", "is link-local and does not say on which link; write fe80::1%eth0 or so"),
    ("tls://[fe80::1]#a.b", "is link-local and does not say on which link"),
    ("2620:fe::fe%eth0", "has a scope and is not link-local; remove the % and what follows"),
    ("9.9.9.9%eth0", "has a scope and is not link-local"),
    ("fe80::1%", "has no link's name behind the %; write fe80::1%eth0 or so"),
    ("fe80::1%sixteen-letters!", "has no link's name behind the %"),
    ("fe80::1%eth0%eth1", "has no link's name behind the %"),
    ("fe80::1%0", "has no link's name behind the %"),
    ("fe80::1%2147483648", "has no link's name behind the %"),  # the kernel counts links in an int
]


@pytest.mark.parametrize(("text", "told"), NO_SERVERS, ids=[text[:40] for text, _ in NO_SERVERS])
def test_what_is_no_server_is_told_with_the_remedy(text: str, told: str) -> None:
    with pytest.raises(ValueProblem) as caught:
        parse_server(text)
    assert str(caught.value).startswith(told)
    assert caught.value.remedy


# -- properties

links = st.from_regex(r"[A-Za-z0-9_=+.-]{1,15}", fullmatch=True).filter(lambda link: not link.isdigit())
links |= st.integers(1, 2**31 - 1).map(str)
addresses = st.ip_addresses().filter(
    lambda a: not (a.is_unspecified or a.is_multicast or a.is_link_local or getattr(a, "ipv4_mapped", None))
)
link_local = st.integers(0, 2**64 - 1).map(lambda tail: IPv6Address(0xFE80 << 112 | tail))
wheres = st.tuples(addresses, st.just("")) | st.tuples(link_local, links)
ports = st.integers(1, 65535)
labels = st.text(string.ascii_lowercase + "-_", min_size=1, max_size=20)
names = st.lists(labels, min_size=1, max_size=4).map(".".join) | st.ip_addresses().map(str)
paths = st.text(string.ascii_letters + string.digits + "/-._~!$&'()*+,;=:@", max_size=20).map("/{}".format)


@given(
    st.builds(lambda where, port: Server(where[0], port, scope=where[1]), wheres, ports)
    | st.builds(lambda where, port, name: Server(where[0], port, TLS, name, "", where[1]), wheres, ports, names)
    | st.builds(
        lambda where, port, name, path: Server(where[0], port, HTTPS, name, path, where[1]), wheres, ports, names, paths
    )
)
def test_every_server_is_read_as_it_was_written(server: Server) -> None:
    assert parse_server(str(server)) == server


pieces = st.sampled_from(
    ["tls://", "https://", "9.9.9.9", "[", "]", "2620:fe::fe", "fe80::1%eth0", ":", "853", "#"]
    + ["@", "/", "?", "%", "a.b", ".", "²", "ß", "\u3002"]
)


@given(st.text(max_size=40) | st.lists(pieces, max_size=8).map("".join))
@example("tls://9.9.9.9#xn--")
@example("tls://9.9.9.9#" + "a." * 200)
def test_any_text_is_a_server_or_a_problem(text: str) -> None:
    try:
        server = parse_server(text)
    except ValueProblem as problem:
        assert "\n" not in str(problem)
        assert len(str(problem)) < 300
    else:
        assert parse_server(str(server)) == server
