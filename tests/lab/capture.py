"""The ISP's eyes: every packet on the client's cable which is not inside the tunnel.

Refuses to pass blindness for cleanness: a recording ends with a marker frame that must arrive, and
a single packet dropped by the kernel fails it.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address, ip_network
from uuid import uuid4

from . import wire
from .hosts import Host

MARKER = 0x88B5  # the ethertype set aside for local experiments
SNAP = 2048
TUNNEL_PORT = 51820
_PROTOS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_FLAGS = "FSRPAU"
_SO_RCVBUFFORCE, _SOL_PACKET, _PACKET_STATISTICS, _PACKET_OUTGOING = 33, 263, 6, 4


@dataclass(frozen=True)
class Packet:
    """One packet in clear.  `question` is what it asks of a DNS, `sought` whom it looks for on the cable."""

    time: float
    from_client: bool
    proto: str
    src: str = ""
    dst: str = ""
    sport: int = 0
    dport: int = 0
    flags: str = ""
    question: str = ""
    sought: str = ""


def _within(address: str, prefixes: tuple[str, ...]) -> bool:
    # An address belongs to no network of the other family: `in` says so without an error.
    return bool(address) and any(ip_address(address) in ip_network(prefix) for prefix in prefixes)


@dataclass
class Seen:
    """What a capture saw; filled when its block has ended."""

    packets: list[Packet] = field(default_factory=list)
    tunnel: int = 0
    dropped: int = 0

    def from_client_to(self, *prefixes: str) -> list[Packet]:
        """The packets of the client to addresses or prefixes."""
        return [p for p in self.packets if p.from_client and _within(p.dst, prefixes)]

    def from_client_as(self, *prefixes: str) -> list[Packet]:
        """The packets of the client that give addresses or prefixes as its own."""
        return [p for p in self.packets if p.from_client and _within(p.src, prefixes)]

    def questions(self, suffix: str) -> list[Packet]:
        """The packets of the client which ask a DNS for the name or anything below it."""
        suffix = suffix.lower()
        return [
            p
            for p in self.packets
            if p.from_client and p.question and (p.question == suffix or p.question.endswith("." + suffix))
        ]

    def sought(self, *prefixes: str) -> list[Packet]:
        """The ARP requests and neighbour solicitations of the client for such addresses."""
        return [p for p in self.packets if p.from_client and _within(p.sought, prefixes)]


def _question(proto: str, payload: bytes) -> str:
    # On TCP the length and the message may come in one segment or in two.
    for start in (0,) if proto == "udp" else (2, 0):
        try:
            return wire.question(payload[start:])[0].lower()
        except ValueError:
            continue
    return ""


def _transport(proto: str, data: bytes) -> dict[str, str | int]:
    if proto == "icmp6" and len(data) >= 24 and data[0] == 135:
        return {"sought": str(ip_address(data[8:24]))}
    if proto not in ("tcp", "udp") or len(data) < 8:
        return {}
    sport, dport = struct.unpack_from("!HH", data)
    found: dict[str, str | int] = {"sport": sport, "dport": dport}
    head = 8
    if proto == "tcp" and len(data) >= 20:
        head = (data[12] >> 4) * 4
        found["flags"] = "".join(letter for bit, letter in enumerate(_FLAGS) if data[13] >> bit & 1)
    if dport == 53:
        found["question"] = _question(proto, data[head:])
    return found


def read_frame(frame: bytes, when: float, from_client: bool) -> Packet:
    """A frame as a packet; what cannot be read further is kept under the number of its protocol."""
    kind = int.from_bytes(frame[12:14], "big")
    data = frame[14:]
    if kind == 0x0806 and len(data) >= 28:
        sought = str(ip_address(data[24:28])) if data[7] == 1 else ""
        return Packet(when, from_client, "arp", sought=sought)
    if kind == 0x0800 and len(data) >= 20:
        number, src, dst, head = data[9], data[12:16], data[16:20], (data[0] & 15) * 4
        later = bool(int.from_bytes(data[6:8], "big") & 0x1FFF)
    elif kind == 0x86DD and len(data) >= 40:
        number, src, dst, head, later = data[6], data[8:24], data[24:40], 40, False
        while number in (0, 43, 44, 60) and len(data) >= head + 8:
            later = number == 44 and bool(int.from_bytes(data[head + 2 : head + 4], "big") >> 3)
            size = 8 if number == 44 else (data[head + 1] + 1) * 8
            number, head = data[head], head + size
            if later:
                break
    else:
        return Packet(when, from_client, f"{kind:#06x}")
    proto = _PROTOS.get(number, str(number))
    more = {} if later else _transport(proto, data[head:])  # a later fragment has no ports
    return Packet(when, from_client, proto, str(ip_address(src)), str(ip_address(dst)), **more)  # type: ignore[arg-type]


def record(interface: str, token: bytes, tunnel: set[str]) -> None:
    """Record until the marker with the token arrives, then print every packet and the counts."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 256 << 20)
    sock.bind((interface, 3))  # ETH_P_ALL, only now: nothing of other interfaces gets into the queue
    print("ready", flush=True)
    packets: list[Packet] = []
    inside = 0
    end = float("inf")
    while time.monotonic() < end:
        try:
            frame, origin = sock.recvfrom(SNAP)
        except TimeoutError:
            break
        except OSError as error:
            if error.errno != errno.ENETDOWN:
                raise
            continue  # the cable was cut: the socket sees again when it is mended
        if frame[12:14] == MARKER.to_bytes(2, "big"):
            if token in frame:
                # The queue of another processor may still hold what was sent before.
                sock.settimeout(0.05)
                end = time.monotonic() + 1  # on a busy cable it is never quiet for so long
            continue
        packet = read_frame(frame, time.monotonic(), origin[2] != _PACKET_OUTGOING)
        far = (packet.dst, packet.dport) if packet.from_client else (packet.src, packet.sport)
        if packet.proto == "udp" and far[0] in tunnel and far[1] == TUNNEL_PORT:
            inside += 1
        else:
            packets.append(packet)
    _, dropped = struct.unpack("II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    print(json.dumps({"tunnel": inside, "dropped": dropped}))
    for packet in packets:
        print(json.dumps(asdict(packet)))


def mark(interface: str, token: bytes) -> None:
    """Send the marker.  It is a bare frame: no firewall or route of the client under test stops it."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((interface, 0))
    sock.send(b"\xff" * 6 + bytes(6) + MARKER.to_bytes(2, "big") + token.ljust(46, b"\0"))


@contextmanager
def capture(
    client: Host, isp: Host, tunnel: tuple[str, ...], patience: float, cable: tuple[str, str] = ("eth0", "client")
) -> Iterator[Seen]:
    """Watch the cable between the client and the isp for the length of the block; it has a name at either end.

    The marker and the report have the seconds of patience to arrive.
    """
    token = uuid4().hex
    me = (sys.executable, "-m", "tests.lab.capture")
    recorder = isp.start(*me, "record", cable[1], token, *tunnel, stdout=subprocess.PIPE)
    assert recorder.stdout
    if recorder.stdout.readline() != "ready\n":
        raise RuntimeError("the capture does not start")
    seen = Seen()
    try:
        yield seen
        try:
            client.run(*me, "mark", cable[0], token)
            lines = recorder.communicate(timeout=patience)[0].splitlines()
        except subprocess.SubprocessError as error:
            raise RuntimeError("the capture is blind: it has not seen the marker") from error
        if recorder.returncode:
            raise RuntimeError("the capture has ended before its time")
    finally:
        recorder.kill()
        recorder.wait()
    counts = json.loads(lines[0])
    seen.tunnel, seen.dropped = counts["tunnel"], counts["dropped"]
    seen.packets += [Packet(**json.loads(line)) for line in lines[1:]]
    if seen.dropped:
        raise RuntimeError(f"the capture has missed {seen.dropped} packets")


if __name__ == "__main__":
    if sys.argv[1] == "mark":
        mark(sys.argv[2], sys.argv[3].encode())
    else:
        record(sys.argv[2], sys.argv[3].encode(), set(sys.argv[4:]))
