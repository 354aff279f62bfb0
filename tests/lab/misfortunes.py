"""More of what happens to a machine (see scenarios): memory, boot, sleep, networks and the neighbours on them."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from .asking import inside
from .load import family_of
from .machine import DOMAINS as OURS
from .machine import WIREGUARD
from .scenarios import TUNNELED, connect, wireguard_go
from .test_use import container
from .world import PUBLIC_DNS

if TYPE_CHECKING:
    from .hosts import Host
    from .leaktest import Scene


def out_of_memory(scene: Scene) -> None:
    """no memory to be had for 2 s; if it ends, it is started again"""
    with scene.load():
        # Who is killed by the kernel for the memory of others is `killed_and_started`.
        pid = scene.subject.pid()
        _limit(pid, "--as=1048576:unlimited")
        scene.wait(2)
        _limit(pid, "--as=unlimited:unlimited")
        scene.subject.revive()
        scene.mended()


def out_of_descriptors(scene: Scene) -> None:
    """no file descriptor to be had for 2 s, and the link is deleted meanwhile"""
    with scene.load():
        pid = scene.subject.pid()
        with scene.closed():
            _limit(pid, "--nofile=3:")
            scene.wait(0.5)
            scene.try_on_the_client("ip link del wg0")
            scene.wait(1.5)
            _limit(pid, "--nofile=1024:")
            scene.subject.revive()


def _limit(pid: int, limit: str) -> None:
    """Nothing, if the process has ended."""
    with suppress(FileNotFoundError):
        # Of its own group: who lacks CAP_SYS_RESOURCE has to be like it (prlimit(2)).
        group = f"--regid={os.stat(f'/proc/{pid}').st_gid}"
        prlimit = ("prlimit", f"--pid={pid}", limit)
        subprocess.run(["setpriv", group, "--keep-groups", *prlimit], check=False)


def upgraded(scene: Scene) -> None:
    """stopped, and another build with larger sets is started on what it left"""
    with scene.load():
        scene.subject.stop()
        scene.subject.rebuild(
            "import splitwgd, splitwgd.ruleset\nsplitwgd.__version__ = '9'\nsplitwgd.ruleset.SET_SIZE *= 2\n"
        )
        scene.subject.start()


def before_the_network(scene: Scene) -> None:
    """started after a reboot, before there is a network"""
    _rebooted(scene)
    try:
        _disconnect(scene)
        scene.subject.start()
        with scene.load(first=lambda: connect(scene.lab, 2)):
            scene.wait(0.5)
    finally:
        connect(scene.lab, 2)


def endpoint_unresolvable(scene: Scene) -> None:
    """started after a reboot, while the name of the VPN cannot be resolved"""
    _rebooted(scene)
    scene.lab.client.write(WIREGUARD, scene.lab.wg_conf_with("vpn.example:51820"), 0o600)
    scene.patience = 15  # it tries again after 1, 2, 4 s ...
    with ExitStack() as silence:
        for server in PUBLIC_DNS[:2]:
            silence.enter_context(scene.lab.dns_silent(server))
        scene.subject.start()
        scene.wait(1)
        with scene.load(first=silence.close):
            scene.wait(0.5)


def _rebooted(scene: Scene) -> None:
    """It has been used, and the machine has lost its power since."""
    scene.subject.start()
    scene.learn()
    scene.subject.stop()
    scene.subject.start()
    scene.subject.reboot()


def _disconnect(scene: Scene) -> None:
    scene.client("ip link set eth0 down; ip address flush dev eth0 scope global")


def suspended(scene: Scene) -> None:
    """the machine sleeps for 2 s: everything stands still, and the uplink is down"""
    try:
        with scene.load(), scene.closed():
            asleep = [scene.subject.pid(), *wireguard_go(scene.lab)]
            for pid in asleep:
                os.kill(pid, signal.SIGSTOP)
            scene.client("ip link set eth0 down")
            scene.wait(2)
            for pid in asleep:
                os.kill(pid, signal.SIGCONT)
            connect(scene.lab, 2)
    finally:
        connect(scene.lab, 2)


_SECOND_CABLE = """
link add client2 type veth peer name eth1 netns {client}
link set client2 up
addr add 192.168.77.1/24 dev client2
addr add 2001:db8:d::1/64 dev client2 nodad
"""


def route_moved(scene: Scene) -> None:
    """the default routes move to another interface"""
    scene.lab.isp.run("ip", "-batch", "-", input=_SECOND_CABLE.format(client=scene.lab.client.pid))
    scene.client("ip link set eth1 up; ip address add 192.168.77.2/24 dev eth1")
    scene.client("ip address add 2001:db8:d::2/64 dev eth1 nodad")
    try:
        with scene.watched("eth1", "client2"), scene.load(), scene.closed():
            scene.client("ip route replace default via 192.168.77.1 dev eth1")
            scene.client("ip -6 route del default dev eth0; ip -6 route add default via 2001:db8:d::1 dev eth1")
    finally:
        scene.lab.isp.run("ip", "link", "del", "client2")
        connect(scene.lab, 2)


def hostile_routes(scene: Scene) -> None:
    """routes to everything tunneled by way of the uplink, v4 and v6, for 1 s"""
    fours = ("203.0.113.10/32", "203.0.113.0/24", "10.1.0.0/25", "0.0.0.0/1", "128.0.0.0/1")
    sixes = ("2001:db8:1::10/128", "2001:db8:1::/48", "fd00:10:1::1/128", "::/1", "8000::/1")
    routes = [f"{to} via 198.51.100.1 dev eth0" for to in fours]
    routes += [f"{to} via 2001:db8:c::1 dev eth0" for to in sixes]
    with scene.load():
        for route in routes:
            scene.client(f"ip route add {route}")
        scene.wait(1)
        for route in routes:
            scene.client(f"ip route del {route}")


def neighbours(scene: Scene) -> None:
    """packets from the LAN to the client's address in the tunnel, v4 and v6"""
    isp = scene.lab.isp
    inner = {"10.1.0.2": "198.51.100.2", "fd00:10:1::2": "2001:db8:c::2"}
    for address, by in inner.items():
        isp.run("ip", "route", "add", address, "via", by)
    try:
        with scene.load():
            for _ in range(50):
                for address in inner:
                    for kind, port in ((socket.SOCK_STREAM, 80), (socket.SOCK_STREAM, 53), (socket.SOCK_DGRAM, 9)):
                        _knock(isp, address, kind, port)
                scene.wait(0.01)
    finally:
        for address in inner:
            isp.run("ip", "route", "del", address)


def _knock(host: Host, address: str, kind: socket.SocketKind, port: int) -> None:
    with inside(host):
        sock = socket.socket(family_of(address), kind | socket.SOCK_NONBLOCK)
    with sock, suppress(OSError):  # what matters is what left
        sock.connect((address, port))
        sock.send(b"?")


def container_behind(scene: Scene) -> None:
    """a container connects to the tunneled site all the time, without a lookup of its own"""
    box = ("ip", "netns", "exec", "box")
    site = TUNNELED[0]
    with container(scene.lab), scene.load():
        scene.stream(site, before=box)
        curl = (*box, "curl", "-s", "-m", "1", f"http://{site}/")
        scene.expect(
            "it is tunneled", lambda: scene.lab.client.run(*curl, check=False).stdout.strip() == scene.lab.vpn_v4
        )
        scene.wait(0.5)


def v4_only_tunnel(scene: Scene) -> None:
    """a tunnel without IPv6"""
    text = scene.lab.client.read(WIREGUARD)
    scene.lab.client.write(WIREGUARD, text.replace(", fd00:10:1::2/64", "").replace(", ::/0", ""), 0o600)
    with scene.load(without=("tunneled v6",)):
        scene.wait(0.5)


def conntrack_full(scene: Scene) -> None:
    """conntrack's table is full for 1 s"""
    with scene.load(), scene.closed():
        fill_conntrack(scene.lab.client)
        scene.wait(1)
        empty_conntrack(scene.lab.client)


_FILLING = struct.pack("!I", 0x7F000000)  # the mark of what fills it
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400  # linux/netlink.h
_NEW, _DELETE = 1 << 8, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*


def fill_conntrack(host: Host) -> None:
    """With assured flows, which make room for nobody, until the kernel takes no more."""
    at_once = 512
    with _conntrack(host) as netfilter:
        for first in range(0, 1 << 20, at_once):
            netfilter.send(b"".join(_flow(number) for number in range(first, first + at_once)))
            for _ in range(at_once):
                (error,) = struct.unpack_from("=i", netfilter.recv(65536), 16)
                if error == -errno.ENOMEM:
                    return
                if error:
                    raise OSError(-error, os.strerror(-error))
    raise RuntimeError("conntrack's table is endless")


def empty_conntrack(host: Host) -> None:
    """Of those flows; the kernel goes by their mark."""
    with _conntrack(host) as netfilter:
        netfilter.send(_message(_DELETE, _attribute(8, _FILLING) + _attribute(21, b"\xff" * 4)))  # CTA_MARK_MASK
        netfilter.recv(65536)


def _conntrack(host: Host) -> socket.socket:
    with inside(host):
        netfilter = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
    netfilter.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    netfilter.bind((0, 0))
    return netfilter


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _message(kind: int, body: bytes, flags: int = _REQUEST | _ACK) -> bytes:
    return struct.pack("=IHHIIBBH", 20 + len(body), kind, flags, 1, 0, socket.AF_INET, 0, 0) + body


def _there(source: bytes, target: bytes) -> bytes:
    ports = (_attribute(1, b"\x11"), _attribute(2, b"\0\7"), _attribute(3, b"\0\7"))  # UDP
    return _attribute(0x8001, _attribute(1, source) + _attribute(2, target)) + _attribute(0x8002, b"".join(ports))


# CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS (answered, assured, confirmed), CTA_TIMEOUT, CTA_MARK
_ONE, _OTHER = b"one.", b"two."
_FLOW = _message(
    _NEW,
    _attribute(0x8001, _there(_ONE, _OTHER))
    + _attribute(0x8002, _there(_OTHER, _ONE))
    + _attribute(3, struct.pack("!I", 0x0E))
    + _attribute(7, struct.pack("!I", 600))
    + _attribute(8, _FILLING),
    _REQUEST | _ACK | _CREATE,
)


def _flow(number: int) -> bytes:
    """A message that makes a flow between two addresses of nobody's."""
    one = (0xC6120000 | number & 0x1FFFF).to_bytes(4, "big")  # in 198.18.0.0/15
    other = (0xC6336440 + (number >> 17)).to_bytes(4, "big")  # from 198.51.100.64 on
    return _FLOW.replace(_ONE, one).replace(_OTHER, other)


_OTHERS_MARKS = """
table inet others {
    counter kept { }
    counter lost { }
    chain early { type route hook output priority raw; meta mark set meta mark | 0x40000; }
    chain late {
        type filter hook postrouting priority 300
        oifname "wg0" meta mark & 0xff0000 == 0x40000 counter name kept
        oifname "wg0" meta mark & 0xff0000 != 0x40000 counter name lost
    }
}
"""


def marks_of_others(scene: Scene) -> None:
    """somebody else's table marks all packets with other bits, which have to survive"""
    scene.lab.client.run("nft", "-f", "-", input=_OTHERS_MARKS)
    try:
        with scene.load():
            scene.client("nft reset counter inet others lost")
            scene.wait(1)
            counters = scene.client("nft list counters table inet others")
            kept, lost = (int(each.split()[0]) for each in counters.split("packets ")[1:])
            if lost or not kept:
                scene.trouble.append(f"of {lost + kept} marks {lost} were lost")
    finally:
        scene.client("nft delete table inet others")


def full_sets(scene: Scene) -> None:
    """sets with room for 64 addresses, and more of them than that"""
    scene.subject.rebuild("import splitwgd.ruleset\nsplitwgd.ruleset.SET_SIZE = 64\n")
    text = scene.lab.client.read(OURS)
    scene.lab.client.write(OURS, text.replace("default =", "max_ttl = 1\ndefault ="))
    with scene.load():
        # Who goes on using an address asks for it again when its TTL has ended.
        asking = [scene.lab.lookups(pattern="tunneled.example", every=300, kind=kind) for kind in ("A", "AAAA")]
        scene.wait(4)
        for lookups in asking:
            told = lookups.stop()
            scene.lost += told["asked"] - told["answered"]


MISFORTUNES: tuple[Callable[[Scene], None], ...] = (
    out_of_memory,
    out_of_descriptors,
    upgraded,
    before_the_network,
    endpoint_unresolvable,
    suspended,
    route_moved,
    hostile_routes,
    neighbours,
    container_behind,
    v4_only_tunnel,
    conntrack_full,
    marks_of_others,
    full_sets,
)
UNLIKE_THE_ARTICLE: dict[Callable[[Scene], None], str] = {
    upgraded: "for it the same as a restart",
    endpoint_unresolvable: "wg-quick gives up after a while, and nobody calls it again",
    full_sets: "its sets have no bound",
}
