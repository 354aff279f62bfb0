"""The well-known resolvers over HTTPS, by name and by address: what programs ask when they do not ask us.

Port 443 to a stranger cannot be told from a web site, so only those can be refused that are known. Each operator
publishes its own names and addresses, on the page that stands beside them; nothing here is from anybody's collection.
An address is here if it answers over HTTPS or if programs that know it as a plain server try HTTPS there by themselves.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network

from splitwgd.names import Name, parse_name
from splitwgd.objects import Ip, Network, collapsed


@dataclass(frozen=True)
class Operator:
    """Who runs a resolver. page: where the operator says so. names: with all below, where users have names of their
    own. networks: of its resolver and of nothing else."""

    page: str
    names: tuple[Name, ...]
    networks: tuple[Network, ...]


def _operator(page: str, names: str, networks: str) -> Operator:
    return Operator(page, tuple(map(parse_name, names.split())), tuple(map(ip_network, networks.split())))


OPERATORS = (
    _operator(
        "https://developers.google.com/speed/public-dns/docs/doh",
        "dns.google dns.google.com 8888.google",
        """8.8.8.8 8.8.4.4 2001:4860:4860::8888 2001:4860:4860::8844
        2001:4860:4860::64 2001:4860:4860::6464""",
    ),
    _operator(
        "https://developers.cloudflare.com/1.1.1.1/setup/",
        "cloudflare-dns.com cloudflare-gateway.com one.one.one.one",
        """1.1.1.1 1.0.0.1 1.1.1.2 1.0.0.2 1.1.1.3 1.0.0.3
        2606:4700:4700::1111 2606:4700:4700::1001 2606:4700:4700::1112 2606:4700:4700::1002
        2606:4700:4700::1113 2606:4700:4700::1003 2606:4700:4700::64 2606:4700:4700::6400
        104.16.248.249 104.16.249.249 2606:4700::6810:f8f9 2606:4700::6810:f9f9
        162.159.61.3 172.64.41.3 162.159.61.4 172.64.41.4""",
    ),
    _operator(
        "https://quad9.net/service/service-addresses-and-features/",
        "dns.quad9.net dns9.quad9.net dns10.quad9.net dns11.quad9.net dns12.quad9.net",
        """9.9.9.9 149.112.112.112 149.112.112.9 9.9.9.10 149.112.112.10 9.9.9.11 149.112.112.11 9.9.9.12 149.112.112.12
        2620:fe::fe 2620:fe::9 2620:fe::fe:9 2620:fe::10 2620:fe::fe:10 2620:fe::11 2620:fe::fe:11
        2620:fe::12 2620:fe::fe:12""",
    ),
    _operator(
        "https://adguard-dns.io/en/public-dns.html",
        """dns.adguard-dns.com unfiltered.adguard-dns.com family.adguard-dns.com d.adguard-dns.com
        dns.adguard.com dns-unfiltered.adguard.com dns-family.adguard.com""",
        """94.140.14.14 94.140.15.15 94.140.14.15 94.140.15.16 94.140.14.140 94.140.14.141
        2a10:50c0::ad1:ff 2a10:50c0::ad2:ff 2a10:50c0::bad1:ff 2a10:50c0::bad2:ff 2a10:50c0::1:ff 2a10:50c0::2:ff""",
    ),
    _operator(
        "https://support.opendns.com/hc/en-us/articles/360038086532",
        "doh.opendns.com doh.familyshield.opendns.com dns.opendns.com doh.umbrella.com dns.umbrella.com",
        """208.67.222.222 208.67.220.220 208.67.222.123 208.67.220.123 146.112.41.2 146.112.41.3
        2620:119:35::35 2620:119:53::53 2620:119:35::123 2620:119:53::123 2620:119:fc::2 2620:119:fc::3""",
    ),
    _operator(
        "https://help.nextdns.io/",
        "dns.nextdns.io dns1.nextdns.io dns2.nextdns.io",
        "45.90.28.0/24 45.90.30.0/24 2a07:a8c0::/48 2a07:a8c1::/48",  # each user has addresses of their own in these
    ),
    _operator(
        "https://mullvad.net/en/help/dns-over-https-and-dns-over-tls",
        "dns.mullvad.net doh.mullvad.net",
        """194.242.2.2 194.242.2.3 194.242.2.4 194.242.2.5 194.242.2.6 194.242.2.9
        2a07:e340::2 2a07:e340::3 2a07:e340::4 2a07:e340::5 2a07:e340::6 2a07:e340::9""",
    ),
    _operator(
        "https://controld.com/free-dns",
        "dns.controld.com freedns.controld.com",
        """76.76.2.0 76.76.2.1 76.76.2.2 76.76.2.3 76.76.2.4 76.76.2.5 76.76.2.11 76.76.2.22
        76.76.10.0 76.76.10.1 76.76.10.2 76.76.10.3 76.76.10.4 76.76.10.5
        2606:1a40:: 2606:1a40::1 2606:1a40::2 2606:1a40::3 2606:1a40::4 2606:1a40::5 2606:1a40::11 2606:1a40::22
        2606:1a40:1:: 2606:1a40:1::1 2606:1a40:1::2 2606:1a40:1::3 2606:1a40:1::4 2606:1a40:1::5""",
    ),
    _operator(
        "https://cleanbrowsing.org/filters/",
        "doh.cleanbrowsing.org",
        """185.228.168.9 185.228.169.9 185.228.168.10 185.228.169.11 185.228.168.168 185.228.169.168
        2a0d:2a00:1:: 2a0d:2a00:2:: 2a0d:2a00:1::1 2a0d:2a00:2::1 2a0d:2a00:1::2 2a0d:2a00:2::2""",
    ),
    _operator(
        "https://dns.sb/doh/",
        "doh.dns.sb doh.sb",
        "185.222.222.222 45.11.45.11 2a09:: 2a11::",
    ),
    _operator(
        "https://www.joindns4.eu/for-public",
        """protective.joindns4.eu child.joindns4.eu noads.joindns4.eu child-noads.joindns4.eu
        unfiltered.joindns4.eu""",
        """86.54.11.1 86.54.11.201 86.54.11.11 86.54.11.211 86.54.11.12 86.54.11.212 86.54.11.13 86.54.11.213
        86.54.11.100 86.54.11.200 2a13:1001::86:54:11:1 2a13:1001::86:54:11:201 2a13:1001::86:54:11:11
        2a13:1001::86:54:11:211 2a13:1001::86:54:11:12 2a13:1001::86:54:11:212 2a13:1001::86:54:11:13
        2a13:1001::86:54:11:213 2a13:1001::86:54:11:100 2a13:1001::86:54:11:200""",
    ),
    _operator(
        "https://www.nic.cz/odvr/",
        "odvr.nic.cz",
        "193.17.47.1 185.43.135.1 2001:148f:ffff::1 2001:148f:fffe::1",
    ),
    _operator(
        "https://www.alidns.com/",
        "dns.alidns.com",
        "223.5.5.5 223.6.6.6 2400:3200::1 2400:3200:baba::1",
    ),
    _operator(
        "https://docs.dnspod.cn/public-dns/",
        "doh.pub dns.pub",
        "119.29.29.29 1.12.12.12 120.53.53.53",
    ),
    _operator(
        "https://dns.yandex.com/",
        "common.dot.dns.yandex.net safe.dot.dns.yandex.net family.dot.dns.yandex.net",
        """77.88.8.8 77.88.8.1 77.88.8.88 77.88.8.2 77.88.8.7 77.88.8.3
        2a02:6b8::feed:0ff 2a02:6b8:0:1::feed:0ff 2a02:6b8::feed:bad 2a02:6b8:0:1::feed:bad
        2a02:6b8::feed:a11 2a02:6b8:0:1::feed:a11""",
    ),
)

# Each of them with all below.
NAMES = tuple(name for operator in OPERATORS for name in operator.names)


@lru_cache(8)  # a plan is made at each repair
def known_resolvers(family: int, spared: frozenset[Ip] = frozenset()) -> tuple[Network, ...]:
    """Where they are asked, in order and without overlaps; `spared` is left out."""
    networks = [network for operator in OPERATORS for network in operator.networks if network.version == family]
    for address in spared:
        alone = ip_network(address)
        networks = [part for network in networks for part in _without(network, alone)]
    return tuple(sorted(collapsed(networks), key=lambda network: int(network.network_address)))


def _without(network: Network, alone: Network) -> Collection[Network]:
    if alone.version != network.version or not alone.subnet_of(network):  # type: ignore[arg-type]  # of one family
        return [network]
    return list(network.address_exclude(alone))  # type: ignore[arg-type]
