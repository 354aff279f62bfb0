"""Servers over TLS and HTTPS, and those that the network gave, with the whole daemon: nothing is asked in clear."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from splitwgd.servers import Transport

from .machine import Machine
from .secure import PORT, secure_door, url
from .world import Lab

PLAIN, TUNNELED = "plain.example", "tunneled.example"
AUTHORITIES = "/run/authorities.pem"


def config(default: str, tunneled: str) -> str:
    return f"""\
[dns]
default = {default}
tunneled = ["{tunneled}"]
[tunneled]
domains = ["tunneled.example"]
"""


@pytest.fixture(params=[Transport.TLS, Transport.HTTPS], ids=["tls", "https"])
def doors(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Transport]:
    """Secure doors of a public server and of the VPN's, whose authorities the client trusts."""
    transport: Transport = request.param
    with (
        secure_door(lab.internet, transport, lab.public_dns[0]) as outside,
        secure_door(lab.vpn, transport, lab.vpn_dns[0]) as inside,
    ):
        lab.client.write(AUTHORITIES, outside + inside)
        yield transport


def test_questions_over_secure_doors_are_answered_and_nobody_on_the_way_sees_them(
    machine: Machine, doors: Transport
) -> None:
    lab, since = machine.lab, time.monotonic()
    machine.configure(config(f'["{url(doors, lab.public_dns[0])}"]', url(doors, lab.vpn_dns[0])))
    machine.start(env={"SSL_CERT_FILE": AUTHORITIES})
    with lab.capture() as seen:
        plain, tunneled = machine.dig(PLAIN), machine.dig(TUNNELED)
        assert plain and tunneled, machine.log()
        assert lab.caller(tunneled[0]) == lab.vpn_v4
        assert lab.caller(plain[0]) == lab.client_v4
    assert seen.questions("example") == []
    assert seen.from_client_to(*tunneled) == []
    port = PORT[doors]
    assert {packet.dport for packet in seen.from_client_to(lab.public_dns[0])} == {port}
    assert {question.name for question in lab.asked_vpn(since)} >= {TUNNELED}


def test_a_server_that_cannot_prove_its_name_is_told_nothing(machine: Machine, doors: Transport) -> None:
    lab = machine.lab
    default = url(doors, lab.public_dns[0], "somebody.example")
    machine.configure(config(f'["{default}"]', url(doors, lab.vpn_dns[0], "somebody.example")))
    machine.start(env={"SSL_CERT_FILE": AUTHORITIES})
    asked = len(lab.asked_public()), len(lab.asked_vpn())
    with lab.capture() as seen:
        assert (machine.rcode(PLAIN), machine.rcode(TUNNELED)) == ("SERVFAIL", "SERVFAIL")
    assert seen.questions("example") == []
    assert (len(lab.asked_public()), len(lab.asked_vpn())) == asked


def test_the_servers_that_the_network_gave_are_asked_and_followed(machine: Machine) -> None:
    lab, resolved, since = machine.lab, "/run/systemd/resolve/resolv.conf", time.monotonic()
    first, second = lab.public_dns[:2]
    lab.client.write(resolved, f"nameserver {first}\n")
    machine.configure(config('"auto"', lab.vpn_dns[0]))
    machine.start()
    assert machine.dig("n1.fresh.plain.example")
    lab.client.write(resolved, f"nameserver {second}\n")
    with lab.dns_silent(first):
        machine.wait_for(lambda: second in str(machine.status()), "the other server")
        assert machine.dig("n2.fresh.plain.example")
    tunneled = [question for question in lab.asked_public(since) if "tunneled" in question.name]
    assert tunneled == []
    lab.client.run("rm", "-r", "/run/systemd")
