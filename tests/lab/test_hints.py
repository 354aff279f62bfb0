"""HTTPS and SVCB records of tunneled names (RFC 9460), and a tunnel that carries no IPv6."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .crowd import ask
from .hostile import Hostile, hostile
from .machine import WIREGUARD, Machine
from .replies import NOERROR, Reply, address, record, svcb
from .siege import DEFAULT, EVERYWHERE, GOOD, TUNNELED, begin, configuration, learned
from .world import Lab

V6 = "2001:db8:1::10"


@pytest.fixture
def upstream(lab: Lab) -> Iterator[Hostile]:
    with hostile(lab.internet, *EVERYWHERE) as server:
        yield server


def service(kind: str, priority: int, target: str, **hints: list[str]) -> Reply:
    return Reply([record(kind, svcb(priority, target, **hints))])


def servers_of(upstream: Hostile, name: str) -> set[str]:
    """Where a name was asked for."""
    return {asked.server for asked in upstream.asked(name)}


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB"])
def test_24_of_200_answers_with_hints_none_leads_outside(machine: Machine, upstream: Hostile, kind: str) -> None:
    replies = {}
    for number in range(200):
        v4, v6 = [f"203.0.113.{100 + number % 100}", GOOD], [f"2001:db8:1:f::{number:x}"]
        replies[f"n{number}.tunneled.example/{kind}"] = [service(kind, 1, ".", v4=v4, v6=v6)]
    upstream.say_all(replies)
    begin(machine)
    heard = ask(machine.lab.client, list(replies), every=0.003, check=True)
    assert [(one.name, one.outside) for one in heard if one.outside] == []
    assert all(len(one.addresses) == 3 for one in heard), "the hints are kept"
    assert len(learned(machine)) == 301


def test_the_target_of_a_tunneled_name_is_tunneled_too(machine: Machine, upstream: Hostile) -> None:
    """By HTTPS and SVCB records, of both modes; a plain name's target stays plain."""
    ways = {f"{kind.lower()}{mode}": (kind, mode) for kind in ("HTTPS", "SVCB") for mode in (0, 1)}
    for number, (way, (kind, mode)) in enumerate(ways.items()):
        upstream.say(f"{way}.tunneled.example/{kind}", service(kind, mode, f"{way}.cdn.example"))
        upstream.say(f"{way}.plain.example/{kind}", service(kind, mode, f"other-{way}.cdn.example"))
        v4, v6 = f"203.0.113.{11 + number}", f"2001:db8:1::{11 + number}"
        upstream.say_all({f"{way}.cdn.example/A": [address(v4)], f"{way}.cdn.example/AAAA": [address(v6)]})
    begin(machine)
    lab = machine.lab
    with lab.capture() as seen:
        for number, (way, (kind, _)) in enumerate(ways.items()):
            v4, v6 = f"203.0.113.{11 + number}", f"2001:db8:1::{11 + number}"
            both = ask(lab.client, [f"{way}.tunneled.example/{kind}", f"{way}.plain.example/{kind}"])
            assert [one.rcode for one in both] == [NOERROR, NOERROR]
            asked = [f"{way}.cdn.example/A", f"{way}.cdn.example/AAAA", f"other-{way}.cdn.example/TXT"]
            heard = ask(lab.client, asked, check=True)
            assert [(one.addresses, one.outside) for one in heard] == [([v4], ()), ([v6], ()), ([], ())]
            assert (lab.caller(v4), lab.caller(v6)) == (lab.vpn_v4, lab.vpn_v6)
    for way in ways:
        assert servers_of(upstream, f"{way}.cdn.example") == {TUNNELED}
        assert servers_of(upstream, f"other-{way}.cdn.example") == {DEFAULT}, "the control"
        assert seen.questions(f"{way}.cdn.example") == []
    assert seen.from_client_to("203.0.113.8/29", "2001:db8:1::/120") == []


def test_the_target_of_a_target_is_followed(machine: Machine, upstream: Hostile) -> None:
    """www -> pool by HTTPS, pool -> edge by CNAME, edge -> last by HTTPS."""
    upstream.say("www.tunneled.example/HTTPS", service("HTTPS", 0, "pool.cdn.example"))
    last = record("HTTPS", svcb(1, "last.cdn.example"), "edge.cdn.example")
    upstream.say("pool.cdn.example/HTTPS", Reply([record("CNAME", "edge.cdn.example"), last]))
    upstream.say("last.cdn.example/A", address(GOOD))
    begin(machine)
    client = machine.lab.client
    for question in ("www.tunneled.example/HTTPS", "pool.cdn.example/HTTPS", "last.cdn.example/A"):
        (heard,) = ask(client, [question], check=True)
        assert (heard.rcode, heard.outside) == (NOERROR, ())
    assert servers_of(upstream, "last.cdn.example") == {TUNNELED}
    assert learned(machine) == {GOOD}


# -- a tunnel without IPv6

WITHOUT_V6 = {
    "no address": (", fd00:10:1::2/64", ""),
    "not in AllowedIPs": ("0.0.0.0/0, ::/0", "0.0.0.0/0"),
}


@pytest.fixture(params=list(WITHOUT_V6))
def v4_only(machine: Machine, request: pytest.FixtureRequest) -> Machine:
    before, after = WITHOUT_V6[request.param]
    text = machine.lab.wg_conf.replace(before, after)
    assert text != machine.lab.wg_conf
    machine.lab.client.write(WIREGUARD, text, 0o600)
    return machine


def test_without_v6_in_the_tunnel_a_tunneled_name_has_no_v6(v4_only: Machine, upstream: Hostile) -> None:
    upstream.say_all({"a.tunneled.example/A": [address(GOOD)], "a.tunneled.example/AAAA": [address(V6)]})
    upstream.say("a.tunneled.example/HTTPS", service("HTTPS", 1, ".", v4=[GOOD], v6=[V6]))
    upstream.say("six.tunneled.example/HTTPS", service("HTTPS", 1, ".", v6=[V6]))
    alias = Reply([record("CNAME", "edge.cdn.example"), record("AAAA", V6, "edge.cdn.example")])
    upstream.say("alias.tunneled.example/AAAA", alias)
    upstream.say("plain.example/AAAA", address("2001:db8:1::20"))
    begin(v4_only)
    client = v4_only.lab.client
    asked = ["a.tunneled.example", "alias.tunneled.example"]
    for one in ask(client, [f"{name}/AAAA" for name in asked]):
        assert (one.rcode, one.addresses) == (NOERROR, []), one.name
        assert [record.rtype for record in one.message.auth] == [6], "NODATA with a SOA"
    v4, https, six = ask(
        client, ["a.tunneled.example/A", "a.tunneled.example/HTTPS", "six.tunneled.example/HTTPS"], check=True
    )
    assert (v4.addresses, v4.outside) == ([GOOD], ())
    assert (https.addresses, https.outside) == ([GOOD], ())
    assert (six.rcode, six.addresses, len(six.message.rr)) == (NOERROR, [], 1), "the record without its hint"
    assert ask(client, ["plain.example/AAAA"])[0].addresses == ["2001:db8:1::20"]
    assert learned(v4_only) == {GOOD}
    assert v4_only.lab.caller(GOOD) == v4_only.lab.vpn_v4


def test_without_v6_in_the_tunnel_its_v6_members_are_refused_at_once(v4_only: Machine, upstream: Hostile) -> None:
    lab = v4_only.lab
    begin(v4_only, configuration(networks='"2001:db8:1:77::/64"'))
    with lab.capture() as seen:
        for more in ([], ["--interface", "eth0"]):
            said = lab.client.run("curl", "-g", "-m", "5", *more, "http://[2001:db8:1:77::1]/", check=False)
            assert said.returncode == 7, "refused, and not timed out"
        assert lab.caller("2001:db8:1::20") == lab.client_v6
    assert seen.from_client_to("2001:db8:1:77::/64") == []
