"""Other ways to ask, on the wire: they are refused at once, nothing of them is seen, and all else goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from splitwgd.servers import Transport

from .machine import Machine
from .secure import secure_door, url
from .test_use import container

# Each try is [address, port, kind]; each outcome is [whether an error came, after how many seconds].
PROBE = """
import json, socket, sys, time
found = []
for to, port, kind in json.loads(sys.stdin.read()):
    begun, error = time.monotonic(), None
    with socket.socket(10 if ":" in to else 2, kind) as sock:
        sock.settimeout(3)
        try:
            sock.connect((to, port))
            sock.send(bytes(12))
            sock.recv(100)
        except TimeoutError:
            pass
        except OSError as caught:
            error = str(caught)
    found.append([error, time.monotonic() - begun])
print(json.dumps(found))
"""
KINDS = (2, 1)  # SOCK_DGRAM, SOCK_STREAM
RESOLVERS = ("8.8.8.8", "2001:4860:4860::8888", "45.90.28.33", "2a07:a8c0::1:2345")
STRANGERS = ("203.0.113.53", "2001:db8:1::53", "203.0.113.20", "2001:db8:1::20")
ASKED = [(to, port, kind) for kind in KINDS for port, hosts in ((853, STRANGERS), (443, RESOLVERS)) for to in hosts]
USERS = {"root": (), "a user": ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")}


def probe(machine: Machine, tries: Any, *before: str) -> list[tuple[str | None, float]]:
    """What comes of each try, made by a program on the client."""
    done = machine.lab.client.run(*before, "python3", "-I", "-c", PROBE, input=json.dumps(tries), timeout=60)
    return [(error, seconds) for error, seconds in json.loads(done.stdout)]


@pytest.mark.parametrize("user", USERS)
def test_other_ways_are_refused_at_once_and_nothing_of_them_leaves(machine: Machine, user: str) -> None:
    machine.start()
    with machine.lab.capture() as seen:
        outcomes = probe(machine, ASKED, *USERS[user])
    for way, (error, seconds) in zip(ASKED, outcomes, strict=True):
        assert error and seconds < 1, (way, error, seconds)
    assert seen.from_client_to(*RESOLVERS) == []
    assert [packet for packet in seen.packets if 853 in (packet.sport, packet.dport)] == []
    met = machine.status()["bypasses"]
    assert (met["refused_tls"], met["refused_https"], met["refused_plain"]) == (8, 8, 0)
    shown = machine.splitwg("status").stdout
    assert "refused: over TLS  8\n" in shown and "refused: over HTTPS  8\n" in shown


def test_web_sites_are_reached_and_resolvers_names_do_not_exist(machine: Machine) -> None:
    machine.start()
    lab = machine.lab
    with lab.capture() as seen:
        probe(machine, [(to, 443, 1) for to in STRANGERS])
        assert {machine.rcode(name) for name in ("dns.google", "a1.dns.nextdns.io", "cloudflare-dns.com")} == {
            "NXDOMAIN"
        }
    assert {packet.dst for packet in seen.packets if packet.dport == 443} == set(STRANGERS)
    for name in ("dns.google", "dns.nextdns.io", "cloudflare-dns.com"):
        assert seen.questions(name) == []
    assert machine.status()["bypasses"]["refused_https"] == 0


def test_what_is_switched_off_is_let_out(machine: Machine) -> None:
    """And the control: these are the packets that are not seen otherwise."""
    off = "redirect = false\nrefuse_tls = false\nrefuse_doh = false\n\n[tunneled]"
    machine.configure(machine.lab.client.read("/etc/splitwg/domains.toml").replace("[tunneled]", off))
    machine.start()
    with machine.lab.capture() as seen:
        probe(machine, [("203.0.113.53", 853, 1), ("2001:db8:1::53", 853, 2), ("8.8.8.8", 443, 2)])
    assert {(p.dst, p.dport) for p in seen.packets if p.from_client and p.dport in (443, 853)} == {
        ("203.0.113.53", 853),
        ("2001:db8:1::53", 853),
        ("8.8.8.8", 443),
    }


def test_questions_that_are_led_here_are_counted(machine: Machine) -> None:
    machine.start()
    for transport in ("+notcp", "+tcp"):
        for server in ("192.0.2.53", "2001:db8:1::53"):
            assert machine.dig(transport, "plain.example", server=server)
    assert machine.status()["bypasses"]["redirected"] == 4


def test_the_daemon_asks_over_tls_the_very_server_that_others_may_not_ask(machine: Machine) -> None:
    lab = machine.lab
    with secure_door(lab.internet, Transport.TLS, lab.public_dns[0]) as outside:
        lab.client.write("/run/authorities.pem", outside)
        servers = f'default = ["{url(Transport.TLS, lab.public_dns[0])}"]'
        machine.configure(f'[dns]\ntunneled = ["10.1.0.1"]\n{servers}\n[tunneled]\ndomains = ["tunneled.example"]\n')
        machine.start(env={"SSL_CERT_FILE": "/run/authorities.pem"})
        assert machine.dig("plain.example") == ["203.0.113.20"]
        ((error, seconds),) = probe(machine, [(lab.public_dns[0], 853, 1)])
        assert error and seconds < 1
        assert machine.dig("n1.fresh.plain.example")
    assert machine.status()["bypasses"]["refused_tls"] == 1


def test_a_container_asks_nobody_else(machine: Machine) -> None:
    lab = machine.lab
    machine.start()
    box = ("ip", "netns", "exec", "box")
    ways = [("203.0.113.53", 853, 1), ("8.8.8.8", 443, 1), ("8.8.8.8", 443, 2)]
    with container(lab), lab.capture() as seen:
        for error, seconds in probe(machine, ways, *box):
            assert error and seconds < 1
    assert seen.from_client_to("203.0.113.53", "8.8.8.8") == []
    met = machine.status()["bypasses"]
    assert (met["refused_tls"], met["refused_https"]) == (1, 2)
