"""Connections whose way has changed: they end at once, by a reset, and a new one takes the new way (decision 21)."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .machine import CONFIG, Machine
from .test_use import container

PLAIN, LATER = ("203.0.113.20", "2001:db8:1::20"), ("203.0.113.30", "2001:db8:1::30")
TUNNELED = ("203.0.113.10", "2001:db8:1::10")

# Downloads from [address, count]. Says "ready" when all are under way; after a line on stdin, per address: when each
# one ended (by the clock of this machine) and by what, and how many still bring something.
FLOWS = """
import errno, json, selectors, socket, sys, time
flows, ended, fresh = selectors.DefaultSelector(), {}, {}
for address, count in json.loads(sys.argv[1]):
    ended[address] = []
    for _ in range(count):
        sock = socket.create_connection((address, 80), 3)
        sock.sendall(b"GET /slow?seconds=30 HTTP/1.1\\r\\nHost: lab\\r\\n\\r\\n")
        assert sock.recv(4096)
        flows.register(sock, selectors.EVENT_READ, address)
flows.register(sys.stdin, selectors.EVENT_READ, None)
print("ready", flush=True)
last, end = {}, None
while end is None or time.monotonic() < end:
    for key, _ in flows.select(0.1):
        if key.data is None:
            end = time.monotonic() + 0.5
            flows.unregister(sys.stdin)
            continue
        how = "ended"
        try:
            if key.fileobj.recv(4096):
                last[key.fileobj] = time.monotonic()
                continue
        except OSError as error:
            how = errno.errorcode[error.errno]
        flows.unregister(key.fileobj)
        last.pop(key.fileobj, None)
        ended[key.data].append([time.monotonic(), how])
alive = {address: 0 for address in ended}
for key in list(flows.get_map().values()):
    alive[key.data] += last.get(key.fileobj, 0) > end - 0.5
print(json.dumps([ended, alive]))
"""


# Answers on port 8080, UDP and TCP.
SERVER = """
import socket, sys
udp, tcp = (socket.socket(10, kind) for kind in (2, 1))
tcp.setsockopt(1, 2, 1); udp.bind(("::", 8080)); tcp.bind(("::", 8080)); tcp.listen(); print("ready", flush=True)
data, client = udp.recvfrom(100); udp.sendto(data, client)
sock, _ = tcp.accept(); sock.sendall(sock.recv(100))
"""
CALLER = """
import socket, sys
for kind in (2, 1):
    sock = socket.socket(10 if ":" in sys.argv[1] else 2, kind)
    sock.settimeout(3); sock.bind((sys.argv[1], 0)); sock.connect((sys.argv[2], 8080))
    sock.send(b"hello"); print(sock.recv(100).decode())
"""


class Flows:
    """Downloads by a program on the client, or in a box behind it."""

    def __init__(self, machine: Machine, counts: list[tuple[str, int]], *before: str) -> None:
        argv = (*before, "python3", "-Ic", FLOWS, json.dumps(counts))
        self.process = machine.lab.client.start(*argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"

    def stop(self) -> tuple[dict[str, list[tuple[float, str]]], dict[str, int]]:
        """By address: when and by what they ended, and how many are alive."""
        said, _ = self.process.communicate("\n", timeout=20)
        ended, alive = json.loads(said)
        return ended, alive


@contextmanager
def cut(machine: Machine, counts: list[tuple[str, int]], addresses: tuple[str, ...], *before: str) -> Iterator[Flows]:
    """What is done here resets all flows to these addresses within a second, and no others."""
    flows = Flows(machine, counts, *before)
    since = time.monotonic()
    yield flows
    until = time.monotonic() + 1
    time.sleep(1)
    ended, alive = flows.stop()
    for address, count in counts:
        if address in addresses:
            assert [how for _, how in ended[address]] == ["ECONNRESET"] * count, (address, ended[address], alive)
            assert all(since < when < until for when, _ in ended[address])
        else:
            assert (ended[address], alive[address]) == ([], count)


def learn(machine: Machine, name: str) -> None:
    for kind in ("A", "AAAA"):
        assert machine.dig(name, kind)


def test_of_a_hundred_connections_those_to_an_added_name_are_reset_and_the_others_go_on(machine: Machine) -> None:
    lab = machine.lab
    machine.start()
    for name in ("later.example", "plain.example", "tunneled.example"):
        learn(machine, name)
    counts = [(PLAIN[0], 70), (TUNNELED[0], 10), (TUNNELED[1], 10), (LATER[0], 5), (LATER[1], 5)]
    with cut(machine, counts, LATER):
        machine.splitwg("add", "later.example")
        with lab.capture() as seen:
            assert (lab.caller(LATER[0]), lab.caller(LATER[1])) == (lab.vpn_v4, lab.vpn_v6)
            time.sleep(0.5)
    assert seen.from_client_to(PLAIN[0]), "the control"
    assert seen.from_client_to(*LATER) == []
    assert machine.status()["bypasses"]["found_open"] == 10, "each connection once"


def test_connections_to_a_removed_name_are_reset_and_the_others_go_on(machine: Machine) -> None:
    lab = machine.lab
    machine.configure(CONFIG.replace('"blocked.example"', '"later.example"'))
    machine.start()
    for name in ("later.example", "plain.example", "tunneled.example"):
        learn(machine, name)
    counts = [(PLAIN[0], 5), (TUNNELED[0], 5), (TUNNELED[1], 5), (LATER[0], 5), (LATER[1], 5)]
    with cut(machine, counts, LATER), lab.capture() as seen:
        machine.splitwg("remove", "later.example")
        assert (lab.caller(LATER[0]), lab.caller(LATER[1])) == (lab.client_v4, lab.client_v6)
    assert seen.from_client_to(*TUNNELED) == []
    assert machine.status()["bypasses"]["found_open"] == 0, "they were tunneled from their first packet on"


@pytest.mark.parametrize("deed", ["add", "remove"])
def test_those_of_a_container_are_reset_too(machine: Machine, deed: str) -> None:
    lab = machine.lab
    after = lab.vpn_v4
    if deed == "remove":
        machine.configure(CONFIG.replace('"blocked.example"', '"later.example"'))
        after = lab.client_v4
    machine.start()
    for name in ("later.example", "plain.example"):
        learn(machine, name)
    inside = ("ip", "netns", "exec", "box")
    with container(lab), cut(machine, [(PLAIN[0], 3), (LATER[0], 3)], LATER[:1], *inside):
        machine.splitwg(deed, "later.example")
        with lab.capture() as seen:
            assert lab.client.run(*inside, "curl", "-s", "-m", "3", f"http://{LATER[0]}").stdout.strip() == after
            time.sleep(0.5)
    assert bool(seen.from_client_to(LATER[0])) == (deed == "remove")
    assert machine.status()["bypasses"]["found_open"] == (3 if deed == "add" else 0)


@pytest.mark.parametrize("known", [False, True], ids=["nobody tracks it", "a firewall tracks it"])
def test_connections_from_before_the_daemon_are_reset_when_their_address_is_learned(
    machine: Machine, known: bool
) -> None:
    """Where nobody tracked it, its first packet that is seen may be the other side's, as if that had begun it."""
    lab = machine.lab
    wall = "nft 'table ip wall { chain c { type filter hook output priority 0; ct state new; }; }'"
    lab.client.run("sh", "-c", wall if known else "true")
    counts = [(PLAIN[0], 5), (TUNNELED[0], 5), (TUNNELED[1], 5)]
    try:
        with cut(machine, counts, TUNNELED):
            machine.start()
            time.sleep(0.5)
            learn(machine, "tunneled.example")
            with lab.capture() as seen:
                assert (lab.caller(TUNNELED[0]), lab.caller(TUNNELED[1])) == (lab.vpn_v4, lab.vpn_v6)
                time.sleep(0.5)
    finally:
        lab.client.run("sh", "-c", "nft delete table ip wall 2>/dev/null || true")
    assert machine.status()["bypasses"]["found_open"] == 10
    assert seen.from_client_to(*TUNNELED) == []


@pytest.mark.parametrize("place", [0, 1])
def test_a_tunneled_site_that_calls_us_is_answered_where_it_called_from(machine: Machine, place: int) -> None:
    """As sites do that tell a machine of theirs about news (web hooks)."""
    lab = machine.lab
    machine.start()
    learn(machine, "tunneled.example")
    server = lab.client.start("python3", "-Ic", SERVER, stdout=subprocess.PIPE)
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    here = (lab.client_v4, lab.client_v6)[place]
    assert lab.internet.run("python3", "-Ic", CALLER, TUNNELED[place], here).stdout.split() == ["hello", "hello"]
    assert server.wait(timeout=5) == 0
