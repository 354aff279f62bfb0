"""Which DNS servers the network gave this machine (`dns.default = "auto"`).

Whoever configures the network writes them down somewhere, in the form of resolv.conf(5). The places are looked
through in an order that prefers what was written for programs like this one: /etc/resolv.conf comes last, since
it mostly points at a forwarder on this machine, and soon at this one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import ip_address

from splitwgd.objects import Ip
from splitwgd.servers import Server, parse_host
from splitwgd.settings import Files, read_if_any

_WHOLE = (
    "/run/systemd/resolve/resolv.conf",  # the servers themselves; stub-resolv.conf beside it names the stub
    "/run/NetworkManager/no-stub-resolv.conf",  # the servers themselves, also where NetworkManager runs a dnsmasq
    "/run/NetworkManager/resolv.conf",  # from before NetworkManager 1.14
)
_RECORDS = (  # one file a link
    "/run/resolvconf/keys/*",  # openresolv from 3.14 on
    "/run/resolvconf/interfaces/*",  # openresolv before that
    "/run/resolvconf/interface/*",  # Debian's resolvconf
)
# resolvconf(8) of openresolv: a private record's servers are for its own domains only; of exclusive records the
# latest counts, and it alone. The marks are called after the records, "tun0" and "9999999 tun0", the latest first.
_PRIVATE = "/run/resolvconf/private/*"
_EXCLUSIVE = "/run/resolvconf/exclusive/*"
# The second is what the first said when `splitwg dns take` took its place. Who rewrites the first knows better.
_LAST = ("/etc/resolv.conf", "/etc/splitwg/resolv.conf")

# All that the choice depends on, for the watcher.
SOURCES = (*_WHOLE, *_RECORDS, _PRIVATE, _EXCLUSIVE, *_LAST)
# systemd-resolved's stubs: they would ask their own servers, or us (systemd-resolved.service(8)).
STUBS = frozenset({ip_address("127.0.0.53"), ip_address("127.0.0.54")})
AT_MOST = 8  # servers; glibc takes 3 (MAXNS, resolv.h)


def network_servers(files: Files, ours: Collection[Ip]) -> tuple[Server, ...]:
    """The servers of the first place that names any; `ours`, where we listen ourselves, are none."""
    for texts in _places(files):
        servers = dict.fromkeys(server for text in texts for server in parse_resolv_conf(text))
        found = [server for server in servers if server.address not in ours and server.address not in STUBS]
        if found:
            return tuple(found[:AT_MOST])
    return ()


def parse_resolv_conf(text: str) -> Iterator[Server]:
    """The servers of a resolv.conf(5), in their order; what cannot be asked is passed over."""
    for line in text.split("\n"):
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address, scope = parse_host(words[1].partition("#")[0].partition(";")[0])
        except ValueError:
            continue
        yield Server(address, scope=scope)


def _places(files: Files) -> Iterator[list[str]]:
    """The texts of one place after the other."""
    for path in _WHOLE:
        yield [read_if_any(files, path)]
    for pattern in _RECORDS:
        yield [read_if_any(files, path) for path in _public(files, files.glob(pattern))]
    for path in _LAST:
        yield [read_if_any(files, path)]


def _public(files: Files, records: list[str]) -> list[str]:
    for marked in files.glob(_EXCLUSIVE):
        alone = [path for path in records if _base(path) == _base(marked).partition(" ")[2]]
        if alone:
            return alone
    private = {_base(path) for path in files.glob(_PRIVATE)}
    return [path for path in records if _base(path) not in private]


def _base(path: str) -> str:
    return path.rpartition("/")[2]
