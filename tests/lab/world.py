"""The lab as a whole: starts its hosts and servers, and is the handle by which tests move them.

Refuses to start outside the enclosure; takes everything down again, however its block ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from .cables import wire_up
from .capture import Seen, capture
from .hosts import Host, require_enclosure
from .load import Traffic

ASKED = "/run/asked.jsonl"
PUBLIC_DNS = ("203.0.113.53", "203.0.113.54", "2001:db8:1::53")
FOREIGN_DNS = "192.0.2.53"
VPN_DNS = ("10.1.0.1", "fd00:10:1::1")

# As in the article, both families.
_WG_CONF = """[Interface]
Address = 10.1.0.2/24, fd00:10:1::2/64
PrivateKey = {private}
Table = off

# policy routing
PostUp = ip rule add fwmark 0x1 table 100 priority 100
PostUp = ip route add default dev %i table 100 metric 100
PostUp = ip route add blackhole default table 100 metric 200
PostUp = ip -6 rule add fwmark 0x1 table 100 priority 100
PostUp = ip -6 route add default dev %i table 100 metric 100
PostUp = ip -6 route add blackhole default table 100 metric 200
PostDown = ip route del default dev %i table 100 2>/dev/null || true
PostDown = ip -6 route del default dev %i table 100 2>/dev/null || true

[Peer]
PublicKey = {vpn_public}
PresharedKey = {shared}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = {endpoint}
PersistentKeepalive = 25
"""


@dataclass(frozen=True)
class Asked:
    """One question that reached a DNS server; `server` is its address which was asked."""

    time: float
    server: str
    client: str
    name: str
    kind: str
    transport: str


@dataclass(frozen=True)
class Lab:
    """The lab that stands: its hosts, the facts about them, and what a test may do to them."""

    client: Host
    isp: Host
    vpn: Host
    internet: Host
    keys: dict[str, str] = field(repr=False)

    client_v4 = "198.51.100.2"
    client_v6 = "2001:db8:c::2"
    vpn_v4 = "198.51.100.130"
    vpn_v6 = "2001:db8:b::2"
    public_dns = PUBLIC_DNS
    foreign_dns = FOREIGN_DNS
    vpn_dns = VPN_DNS

    @property
    def wg_conf(self) -> str:
        """A wg-quick file for the client."""
        return self.wg_conf_with(endpoint=f"{self.vpn_v4}:51820")

    def wg_conf_with(self, endpoint: str) -> str:
        """The same with another endpoint, such as vpn.example:51820."""
        return _WG_CONF.format(endpoint=endpoint, **self.keys)

    def caller(self, address: str, timeout: int = 3) -> str:
        """As whom the web server at an address sees the client; empty when it cannot be reached."""
        target = f"http://[{address}]/" if ":" in address else f"http://{address}/"
        return self.client.run("curl", "-sg", "-m", str(timeout), target, check=False).stdout.strip()

    def capture(
        self, patience: float = 30, cable: tuple[str, str] = ("eth0", "client")
    ) -> AbstractContextManager[Seen]:
        """Watch what leaves the client in clear. cable: its names at the client and at the ISP."""
        return capture(self.client, self.isp, (self.vpn_v4, self.vpn_v6), patience, cable)

    def asked_public(self, since: float = 0.0) -> list[Asked]:
        """The questions at the public and foreign DNS, from a moment of time.monotonic() on."""
        return _asked(self.internet, since)

    def asked_vpn(self, since: float = 0.0) -> list[Asked]:
        """The questions at the DNS of the VPN."""
        return _asked(self.vpn, since)

    def vpn_silent(self) -> AbstractContextManager[None]:
        """Let the tunnel go dead: its packets vanish at the VPN, no error comes back."""
        return _silence(self.vpn, "udp dport 51820 drop", "udp sport 51820 drop")

    def dns_silent(self, address: str) -> AbstractContextManager[None]:
        """Let one DNS server go dead."""
        host = self.vpn if address in self.vpn_dns else self.internet
        family = "ip6" if ":" in address else "ip"
        return _silence(host, f"{family} daddr {address} meta l4proto {{ tcp, udp }} th dport 53 drop", "")

    def stream(self, *addresses: str, seconds: float = 3600, every: float = 2, before: Sequence[str] = ()) -> Traffic:
        """New TCP and UDP flows to the addresses in turn, every few milliseconds. before: the command that runs it."""
        return self._traffic("stream", before, address=addresses, seconds=seconds, every=every)

    def lookups(self, **options: Any) -> Traffic:
        """Lookups on a steady beat; options as of `traffic`: pattern first count every seconds server
        transport kind patience."""
        return self._traffic("lookups", **options)

    def connect_at_once(self, count: int, **options: Any) -> Traffic:
        """Ask and connect to the answer at once; options: pattern first server transport kind patience."""
        return self._traffic("connect-at-once", count=count, **options)

    def download(self, address: str, seconds: float) -> Traffic:
        """A long steady download."""
        return self._traffic("download", address=[address], seconds=seconds)

    def _traffic(self, what: str, before: Sequence[str] = (), /, **options: Any) -> Traffic:
        argv = [*before, sys.executable, "-m", "tests.lab.traffic", what]
        for option, value in options.items():
            for each in value if isinstance(value, list | tuple) else [value]:
                argv.append(f"--{option}={each}")
        return Traffic(self.client.start(*argv, stdout=subprocess.PIPE))


def _asked(host: Host, since: float) -> list[Asked]:
    asked = [Asked(**json.loads(line)) for line in host.read(ASKED).splitlines()]
    return [question for question in asked if question.time >= since]


@contextmanager
def _silence(host: Host, inward: str, outward: str) -> Iterator[None]:
    table = f"inet silence_{uuid4().hex[:8]}"
    chains = (
        f"chain inward {{ type filter hook input priority -300; {inward}; }}",
        f"chain outward {{ type filter hook output priority -300; {outward}; }}",
    )
    host.run("nft", "\n".join((f"table {table} {{", *chains, "}")))
    try:
        yield
    finally:
        host.run("nft", f"delete table {table}")


def _keys(host: Host) -> dict[str, str]:
    script = "for i in 1 2; do k=$(wg genkey); echo $k; echo $k | wg pubkey; done; wg genpsk"
    names = ("private", "public", "vpn_private", "vpn_public", "shared")
    return dict(zip(names, host.run("sh", "-c", script).stdout.split(), strict=True))


def _serve(lab: Lab) -> None:
    """Start the servers, all at the same time, and wait until they are ready."""
    module = (sys.executable, "-m", "tests.lab.servers")
    public = [f"--listen={address}" for address in (*PUBLIC_DNS, FOREIGN_DNS)]
    honest = ["--honest", *(f"--listen={address}" for address in VPN_DNS)]
    servers = [
        lab.internet.start(*module, "web", stdout=subprocess.PIPE),
        lab.internet.start(*module, "dns", f"--log={ASKED}", *public, stdout=subprocess.PIPE),
        lab.vpn.start(*module, "dns", f"--log={ASKED}", *honest, stdout=subprocess.PIPE),
    ]
    for server in servers:
        assert server.stdout
        if server.stdout.readline() != "ready\n":
            raise RuntimeError(f"a server does not start: {server.args!r}")


@contextmanager
def lab() -> Iterator[Lab]:
    """A whole lab for the length of the block."""
    require_enclosure()
    with ExitStack() as stack:
        client, isp, vpn, internet = (
            stack.enter_context(closing(Host(name, nameserver=PUBLIC_DNS[0])))
            for name in ("client", "isp", "vpn", "internet")
        )
        built = Lab(client, isp, vpn, internet, _keys(vpn))
        wire_up(client, isp, vpn, internet, built.keys)
        _serve(built)
        yield built
