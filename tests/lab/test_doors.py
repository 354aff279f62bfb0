"""Who may ask, and how much at a time: rows 56 and 58 of docs/conformance.md."""

from __future__ import annotations

import re
import shutil
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.fuzz.packets import name, opt, query

from .asking import DAEMON, ask, dial, inside
from .standing import Standing, standing, told
from .world import Lab

HOST = name("host0.diff.example")


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Standing]:
    with standing(lab) as built:
        yield built


# -- row 56: load


def perf(daemon: Standing, rate: int, seconds: int) -> dict[str, str]:
    """What dnsperf says of so many questions a second from eight clients, half of them for names of their own."""
    lines = [f"host{n % 50}.diff.example A\nsize-{rate + n}.scripted.example TXT" for n in range(1000)]
    daemon.machine.lab.client.write("/run/perf", "\n".join(lines) + "\n")
    words = ("-s", DAEMON, "-d", "/run/perf", "-c", "8", "-Q", str(rate), "-l", str(seconds), "-t", "5")
    said = daemon.machine.lab.client.run("dnsperf", *words, timeout=60).stdout
    return dict(re.findall(r"^ +([A-Z][\w /()]+?): +(.+)$", said, re.M))


def test_row_56_nothing_is_lost_at_2000_a_second_and_five_times_that_is_survived(daemon: Standing) -> None:
    if shutil.which("dnsperf") is None:
        pytest.skip("dnsperf is not installed")
    told = perf(daemon, 2000, 5)
    sent, lost = int(told["Queries sent"]), int(told["Queries lost"].split()[0])
    assert sent > 9000 and lost < sent / 1000, told
    perf(daemon, 10_000, 3)
    assert ask(daemon.machine.lab.client, query(HOST), patience=2.0), "it recovers within 2 s"


# -- row 58: nobody else's server


def test_row_58_no_socket_on_the_lan(daemon: Standing) -> None:
    said = daemon.machine.lab.client.run("ss", "-Hlntu", "sport = :53").stdout
    held = {ip_address(line.split()[4].rpartition(":")[0].strip("[]").partition("%")[0]) for line in said.splitlines()}
    assert held and all(address.is_loopback for address in held)


def test_row_58_the_lan_is_not_answered(daemon: Standing) -> None:
    lab = daemon.machine.lab
    for address in (lab.client_v4, lab.client_v6):
        with pytest.raises(OSError):
            dial(lab.isp, socket.SOCK_STREAM, address, patience=2).close()
        heard = None
        try:
            heard = ask(lab.isp, query(HOST), address, patience=1.0)
        except OSError:  # an ICMP error
            pass
        assert heard is None


def checksum(data: bytes) -> int:
    words: tuple[int, ...] = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(source: str, target: str, port: int, payload: bytes) -> bytes:
    """A packet in full, whoever it claims to come from."""
    src, dst = ip_address(source).packed, ip_address(target).packed
    udp = struct.pack("!4H", 5353, port, 8 + len(payload), 0) + payload
    if len(src) == 16:
        udp = udp[:6] + struct.pack("!H", checksum(src + dst + struct.pack("!II", len(udp), 17) + udp)) + payload
        return struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + src + dst + udp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + src + dst
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def test_row_58_a_forged_local_source_is_not_answered(daemon: Standing) -> None:
    """1,000 questions on the cable that claim to come from this very host; the control shows that they arrive."""
    lab = daemon.machine.lab
    mac = bytes.fromhex(lab.client.read("/sys/class/net/eth0/address").strip().replace(":", ""))
    own = bytes.fromhex(lab.isp.read("/sys/class/net/client/address").strip().replace(":", ""))
    forged = [
        (source, target)
        for source in (lab.client_v4, "127.0.0.1", "127.0.0.53", "198.51.100.1")
        for target in (lab.client_v4, "127.0.0.53", "127.0.0.1")
    ]
    forged += [(source, target) for source in (lab.client_v6, "::1") for target in (lab.client_v6, "::1")]
    with inside(lab.isp), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as cable:
        cable.bind(("client", 0))

        def send(source: str, target: str, port: int, payload: bytes) -> None:
            kind = b"\x86\xdd" if ":" in target else b"\x08\0"
            cable.send(mac + own + kind + datagram(source, target, port, payload))

        for number in range(1000):
            source, target = forged[number % len(forged)]
            send(source, target, 53, query(name(f"forged{number}.scripted.example"), edns=opt()))
        for target, near in ((lab.client_v4, "198.51.100.1"), (lab.client_v6, "2001:db8:c::1")):
            with inside(lab.client):
                control = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
            with control:
                control.bind((target, 9953))
                control.settimeout(2)
                send(near, target, 9953, b"arrived")
                assert control.recv(100) == b"arrived"
    assert daemon(query(name("not-forged.scripted.example"))).rcode == 0
    assert [asked for asked in told if asked.startswith("forged")] == []
    assert "not-forged.scripted.example" in told
