"""How dnsmasq, smartdns and splitwgd are told to do the same work, each in the way that is best for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CACHE = 10_000  # answers that are kept
# dnsmasq is given the article's 1000, and its usual 150 questions under way: with 10,000 kept answers a miss
# costs it twice as much (it searches them for one to throw out), and with room for 10,000 questions a cached
# answer does (it looks at a socket for each of them).
DNSMASQ_CACHE = 1000
DEFAULT_DNS, TUNNELED_DNS = "203.0.113.53", "10.1.0.1"
_SETS = "4#inet#wg_routing#wg_domains4,6#inet#wg_routing#wg_domains6"

# The article's table. FLAGS is what it has, or what a hash set needs.
_TABLE = """
table inet wg_routing {
    set wg_domains4 { type ipv4_addr; flags FLAGS; timeout 60m; }
    set wg_domains6 { type ipv6_addr; flags FLAGS; timeout 60m; }
    chain output {
        type route hook output priority mangle;
        ip daddr @wg_domains4 ct state new meta mark set 0x1 ct mark set meta mark
        ip6 daddr @wg_domains6 ct state new meta mark set 0x1 ct mark set meta mark
        ct mark 0x1 meta mark set ct mark
    }
    chain postrouting { type nat hook postrouting priority srcnat; oifname "wg0" masquerade; }
    chain output_nat {
        type nat hook output priority -100;
        meta skuid != 0 udp dport 53 redirect to :53
        meta skuid != 0 tcp dport 53 redirect to :53
    }
}
"""
_DNSMASQ = f"""\
user=root
listen-address=127.0.0.1
port=53
bind-interfaces
no-resolv
no-poll
no-hosts
server={DEFAULT_DNS}
cache-size={DNSMASQ_CACHE}
"""
_SMARTDNS = f"""\
user root
bind 127.0.0.1:53
bind-tcp 127.0.0.1:53
server {DEFAULT_DNS}
server {TUNNELED_DNS} -group tunnel -exclude-default-group
cache-size {CACHE}
cache-persist no
speed-check-mode none
response-mode fastest-response
prefetch-domain no
serve-expired no
dualstack-ip-selection no
log-level fatal
log-num 0
audit-enable no
domain-set -name listed -type list -file /run/bench/listed
nameserver /domain-set:listed/tunnel
nftset /domain-set:listed/#4:inet#wg_routing#wg_domains4,#6:inet#wg_routing#wg_domains6
"""
_SPLITWGD = f"""\
[dns]
default = ["{DEFAULT_DNS}"]
tunneled = ["{TUNNELED_DNS}"]
cache_size = {CACHE}
[tunneled]
domains = ["first.bench.example"]
lists = ["/run/bench/listed"]
[wireguard]
config = "/etc/wireguard/wg0.conf"
"""


@dataclass(frozen=True)
class Peer:
    """One of those that are compared.

    argv: how it is started, in the foreground. flags: of the nft sets that are made for it, None where it makes
    its own. files: what it reads for these domains, by path. reloads: whether it sees by itself that its files
    have changed; otherwise it is restarted, as the article's generator does.
    """

    name: str
    argv: tuple[str, ...]
    flags: str | None
    files: Callable[[Sequence[str]], dict[str, str]]
    reloads: bool = False

    @property
    def table(self) -> str | None:
        """The nft table that has to be there before it starts."""
        return None if self.flags is None else _TABLE.replace("FLAGS", self.flags)


def _dnsmasq_files(domains: Sequence[str]) -> dict[str, str]:
    # The article's generator writes `nftset=/{domain}/.{domain}/`. The second one means the same again, and
    # dnsmasq goes through all of them for each answer.
    lines = (f"server=/{domain}/{TUNNELED_DNS}\nnftset=/{domain}/{_SETS}\n" for domain in domains)
    return {"/run/bench/dnsmasq.conf": _DNSMASQ + "".join(lines)}


def _smartdns_files(domains: Sequence[str]) -> dict[str, str]:
    return {"/run/bench/smartdns.conf": _SMARTDNS, "/run/bench/listed": _lines(domains)}


def _splitwgd_files(domains: Sequence[str]) -> dict[str, str]:
    return {"/etc/splitwg/domains.toml": _SPLITWGD, "/run/bench/listed": _lines(domains)}


def _lines(domains: Sequence[str]) -> str:
    return "".join(f"{domain}\n" for domain in domains)


_DNSMASQ_ARGV = ("dnsmasq", "--keep-in-foreground", "--conf-file=/run/bench/dnsmasq.conf", "--pid-file=")
_SMARTDNS_ARGV = ("smartdns", "-f", "-c", "/run/bench/smartdns.conf", "-p", "-")
_ARTICLE, _HASH = "interval,timeout", "timeout"

DNSMASQ = Peer("dnsmasq", _DNSMASQ_ARGV, _ARTICLE, _dnsmasq_files)
DNSMASQ_HASH = Peer("dnsmasq, hash set", _DNSMASQ_ARGV, _HASH, _dnsmasq_files)
SMARTDNS = Peer("smartdns", _SMARTDNS_ARGV, _HASH, _smartdns_files)
SPLITWGD = Peer("splitwgd", (sys.executable, "-m", "tests.bench.ours", "serve"), None, _splitwgd_files, reloads=True)
PEERS = (DNSMASQ, DNSMASQ_HASH, SMARTDNS, SPLITWGD)
