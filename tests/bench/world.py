"""Two hosts: the client, with the server under test and those who ask it, and the far side, whom it asks.

    client                                                  far
    dnsperf -> 127.0.0.1:53                eth0 203.0.113.2  --  203.0.113.53 eth0
               the server under test       wg0  10.1.0.2     --  10.1.0.1     wg0     authority on both

The server has one core for itself; dnsperf and the authority share another one. A client lives for one
measurement, so that nobody finds what somebody else has left in the kernel.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..lab.hosts import Host, require_enclosure
from .machine import SAID, Machine
from .peers import DEFAULT_DNS, TUNNELED_DNS, Peer

_WIRES = """
link add eth0 type veth peer name eth0 netns {client}
link add wg0 type veth peer name wg0 netns {client}
link set eth0 up
link set wg0 up
addr add {default}/24 dev eth0
addr add {tunneled}/24 dev wg0
"""
_CLIENT = """
link set eth0 up
link set wg0 up
addr add 203.0.113.2/24 dev eth0
addr add 10.1.0.2/24 dev wg0
route add default via {default}
"""
# What the article's wg-quick file does; splitwgd sees to its own.
_POLICY = """
rule add fwmark 0x1 table 100 priority 100
route add default dev wg0 table 100 metric 100
route add blackhole default table 100 metric 200
"""
_WG_CONF = """\
[Interface]
Address = 10.1.0.2/24
PrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=
[Peer]
PublicKey = AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 203.0.113.53:51820
"""


@dataclass(frozen=True)
class World:
    """The far side, and the way to get a client."""

    far: Host
    core: int

    @contextmanager
    def machine(self, peer: Peer) -> Iterator[Machine]:
        """A fresh client for this server, which has nothing to read yet; nothing of it is left behind."""
        addresses = {"default": DEFAULT_DNS, "tunneled": TUNNELED_DNS}
        with closing(Host("client", nameserver="127.0.0.1")) as host:
            self.far.run("ip", "-batch", "-", input=_WIRES.format(client=host.pid, **addresses))
            host.run("ip", "-batch", "-", input=_CLIENT.format(**addresses))
            host.run("mkdir", "/run/bench", SAID)
            host.write("/etc/wireguard/wg0.conf", _WG_CONF, 0o600)
            if peer.table is not None:
                host.run("ip", "-batch", "-", input=_POLICY)
                host.run("nft", "-f", "-", input=peer.table)
            machine = Machine(peer, host, self.core)
            try:
                yield machine
            finally:
                machine.stop()
                # The kernel takes its time for a namespace and what is in it, and the names are needed again.
                self.far.run("ip", "-batch", "-", input="link del eth0\nlink del wg0\n")


def compiled(folder: str) -> str:
    """The authority as a program in this folder."""
    program = f"{folder}/authority"
    source = Path(__file__).with_name("authority.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, str(source)], check=True)
    return program


@contextmanager
def world() -> Iterator[World]:
    """The far side with its authority, for the length of the block. This process moves to the load's core."""
    require_enclosure()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError("one core for the server and one for the load are needed, and this machine has one")
    os.sched_setaffinity(0, {cores[1]})
    with closing(Host("far", nameserver="127.0.0.1")) as far:
        with tempfile.TemporaryDirectory() as folder:
            authority = far.start(compiled(folder), "0.0.0.0", "53", stdout=subprocess.PIPE)
            assert authority.stdout
            if authority.stdout.readline() != "ready\n":
                raise RuntimeError("the authority does not start")
        yield World(far, cores[0])
