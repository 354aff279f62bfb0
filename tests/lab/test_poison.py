"""What a tunneled name's owner puts into its answers: rows 28 to 33 and 50 of the table of attacks.

The counts are the table's; a record is given to the client only when its address is in a set.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_address
from signal import SIGKILL

import pytest

from splitwgd.ruleset import SET_SIZE

from .crowd import Heard, ask
from .hostile import Hostile, hostile
from .machine import WIREGUARD, Machine
from .replies import NOERROR, NXDOMAIN, SERVFAIL, Reply, address, nothing, record, svcb
from .siege import (
    DEFAULT,
    EVERYWHERE,
    EVIL,
    GOOD,
    TUNNELED,
    begin,
    clients_questions,
    configuration,
    learned,
    packets_into_the_tunnel,
)
from .world import Lab

ENDPOINT = ("198.51.100.130", "2001:db8:b::2")
SPECIAL_V4 = (
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.254", "100.64.0.1", "100.127.255.254", "127.0.0.1"),
    *("127.255.255.254", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.254", "192.0.0.1"),
    *("192.0.0.170", "192.168.0.1", "192.168.255.254", "198.18.0.1", "198.19.255.254", "224.0.0.1", "224.0.0.251"),
    *("239.255.255.250", "240.0.0.1", "255.255.255.255"),
    # Ours: the uplink's address, its gateway, the tunnel's address and server, the servers, the endpoint.
    *("198.51.100.2", "198.51.100.1", "10.1.0.2", "10.1.0.1", DEFAULT, TUNNELED, ENDPOINT[0]),
)
SPECIAL_V6 = (
    *("::", "::1", "::10.0.0.1", "100::1", "2001:2::1", "2001:10::1", "64:ff9b:1::1", "fc00::1", "fdff::1"),
    *("fe80::1", "febf::1", "fec0::1", "ff02::1", "2002:a00:1::1", "ff0e::1"),
    *("2001:db8:c::2", "2001:db8:c::1", "fd00:10:1::2", "fd00:10:1::1", "2002:7f00:1::1"),
)
PRIVATE = ("10.20.0.1", "172.16.5.5", "192.168.7.7", "100.64.3.3", "fd12:3456::1")
INWARD = (*PRIVATE, "127.0.0.1", "127.8.8.8", "169.254.169.254", "0.0.0.0", "::1", "::", "fe80::1", "::ffff:10.0.0.1")


@pytest.fixture
def upstream(lab: Lab) -> Iterator[Hostile]:
    with hostile(lab.internet, *EVERYWHERE) as server:
        yield server


def kind_of(text: str) -> str:
    return "AAAA" if ":" in text else "A"


def outside(heard: list[Heard]) -> list[tuple[str, tuple[str, ...]]]:
    """The answers that gave an address which was in no set."""
    return [(one.name, one.outside) for one in heard if one.outside]


# -- row 28


@pytest.mark.parametrize("endpoint", ENDPOINT)
def test_28_the_endpoints_own_address_is_neither_learned_nor_given_and_nothing_loops(
    machine: Machine, upstream: Hostile, endpoint: str
) -> None:
    good = "2001:db8:1::10" if ":" in endpoint else GOOD
    name = f"end.tunneled.example/{kind_of(endpoint)}"
    upstream.say(name, address(endpoint, good))
    lab = machine.lab
    host = f"[{endpoint}]" if ":" in endpoint else endpoint
    lab.client.write(WIREGUARD, lab.wg_conf_with(f"{host}:51820"), 0o600)
    begin(machine)
    # wireguard-go 0.0.20231211 sends its first packet over v6 astray, and tries again after 5 s.
    machine.wait_for(lambda: machine.status()["tunnels"][0]["handshake_age"] is not None, "a handshake")
    (heard,) = ask(lab.client, [name], check=True)
    assert heard.addresses == [good]
    assert learned(machine) == {good}
    before = packets_into_the_tunnel(machine)
    lab.client.run("curl", "-g", "-m", "1", f"http://{host}/", check=False)
    time.sleep(1)
    assert packets_into_the_tunnel(machine) - before < 10


def test_28_the_endpoint_in_the_set_by_anothers_hand_loops_nothing(machine: Machine, upstream: Hostile) -> None:
    upstream.say("*.tunneled.example", address(GOOD))
    begin(machine)
    machine.end(SIGKILL)  # until then the table has an owner
    mine = 'timeout 600s comment "a.tunneled.example"'
    machine.lab.client.run("nft", f"add element inet wg_routing wg_domains4 {{ {ENDPOINT[0]} {mine} }}")
    begin(machine)
    before = packets_into_the_tunnel(machine)
    assert machine.dig("a.tunneled.example") == [GOOD]
    time.sleep(1)
    assert packets_into_the_tunnel(machine) - before < 10


# -- row 29


def special_answers() -> dict[str, tuple[str, Reply]]:
    """160 names: "name/KIND" -> (the address that must not be learned, the reply that has it)."""
    found = {}
    for number, text in enumerate(SPECIAL_V4):
        mapped, nat64 = str(ip_address(f"::ffff:{text}")), str(ip_address(f"64:ff9b::{text}"))
        hint = Reply([record("HTTPS", svcb(1, ".", v4=[text]))])
        found[f"v4-{number}-a.tunneled.example/A"] = (text, address(text))
        found[f"v4-{number}-hint.tunneled.example/HTTPS"] = (text, hint)
        found[f"v4-{number}-mapped.tunneled.example/AAAA"] = (mapped, address(mapped))
        found[f"v4-{number}-nat64.tunneled.example/AAAA"] = (nat64, address(nat64))
    for number, text in enumerate(SPECIAL_V6):
        hint = Reply([record("HTTPS", svcb(1, ".", v6=[text]))])
        found[f"v6-{number}-aaaa.tunneled.example/AAAA"] = (text, address(text))
        found[f"v6-{number}-hint.tunneled.example/HTTPS"] = (text, hint)
    return found


def test_29_of_160_special_addresses_none_is_learned_or_given(machine: Machine, upstream: Hostile) -> None:
    answers = special_answers()
    assert len(answers) == 160
    upstream.say_all({name: [reply] for name, (_, reply) in answers.items()})
    begin(machine)
    heard = ask(machine.lab.client, list(answers), every=0.002, check=True)
    assert len(upstream.asked()) >= 160
    given = [(one.name, one.addresses) for one in heard if one.addresses]
    assert given == []
    assert [one.name for one in heard if one.rcode != NOERROR] == []
    assert [one.name for one in heard if one.message.rr and "-hint" not in one.name] == [], "NODATA"
    assert learned(machine) == set()


def test_29_what_is_good_beside_them_is_given(machine: Machine, upstream: Hostile) -> None:
    mixed = {f"m{number}.tunneled.example": [address(text, GOOD)] for number, text in enumerate(SPECIAL_V4)}
    upstream.say_all(mixed)
    hints = record("HTTPS", svcb(1, ".", v4=["10.0.0.1", GOOD], v6=["fe80::1", "2001:db8:1::10"]))
    upstream.say("hint.tunneled.example/HTTPS", Reply([hints]))
    begin(machine)
    heard = ask(machine.lab.client, list(mixed), check=True)
    assert [(one.name, one.addresses) for one in heard if one.addresses != [GOOD]] == []
    (hinted,) = ask(machine.lab.client, ["hint.tunneled.example/HTTPS"], check=True)
    assert hinted.addresses in ([GOOD, "2001:db8:1::10"], []), "mended, or stripped of its hints"
    assert learned(machine) <= {GOOD, "2001:db8:1::10"}


def test_29_a_zone_may_be_allowed_to_lead_to_private_addresses(machine: Machine, upstream: Hostile) -> None:
    names = {f"p{number}.corp.tunneled.example/{kind_of(text)}": text for number, text in enumerate(PRIVATE)}
    others = {name.replace("corp", "home"): text for name, text in names.items()}
    upstream.say_all({name: [address(text)] for name, text in {**names, **others}.items()})
    begin(machine, configuration(dns='private = ["corp.tunneled.example"]'))
    heard = ask(machine.lab.client, list(names), check=True)
    assert [one.addresses for one in heard] == [[text] for text in PRIVATE]
    assert outside(heard) == []
    assert learned(machine) == set(PRIVATE)
    assert [one.addresses for one in ask(machine.lab.client, list(others))] == [[]] * len(others)
    assert learned(machine) == set(PRIVATE)


def test_29_addresses_within_the_tunneled_networks_are_given(machine: Machine, upstream: Hostile) -> None:
    upstream.say("in.tunneled.example", address("10.9.1.1"))
    upstream.say("out.tunneled.example", address("10.8.1.1"))
    begin(machine, configuration(networks='"10.9.0.0/16"'))
    inside, beyond = ask(machine.lab.client, ["in.tunneled.example", "out.tunneled.example"], check=True)
    assert (inside.addresses, inside.outside) == (["10.9.1.1"], ())
    assert (beyond.rcode, beyond.addresses) == (NOERROR, [])


def test_29_a_plain_name_does_not_lead_inward(machine: Machine, upstream: Hostile) -> None:
    """DNS rebinding: what remains is given; a zone that is allowed to, or has servers of its own, may."""

    def names(zone: str) -> dict[str, str]:
        return {f"r{number}.{zone}/{kind_of(text)}": text for number, text in enumerate(INWARD)}

    zones = ("rebind.example", "home.example", "corp.example")
    for zone in zones:
        upstream.say_all({name: [address(text)] for name, text in names(zone).items()})
    upstream.say("both.example", address("192.168.1.1", "203.0.113.20"))
    begin(machine, configuration(dns='private = ["home.example"]', forward=f'"corp.example" = ["{DEFAULT}"]'))
    heard = ask(machine.lab.client, list(names("rebind.example")))
    assert [(one.name, one.addresses) for one in heard if one.addresses] == []
    assert [one.name for one in heard if one.rcode != NOERROR] == []
    assert ask(machine.lab.client, ["both.example"])[0].addresses == ["203.0.113.20"]
    for zone in zones[1:]:
        allowed = [name for name, text in names(zone).items() if text in PRIVATE]
        assert [one.addresses for one in ask(machine.lab.client, allowed)] == [[text] for text in PRIVATE]
    assert learned(machine) == set()


# -- row 30


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_30_of_thousands_of_addresses_64_are_learned_and_no_other_is_given(
    machine: Machine, upstream: Hostile, kind: str
) -> None:
    count = 4000 if kind == "A" else 2300  # as many as a message holds
    network = int(ip_address("11.22.0.0" if kind == "A" else "2001:db8:1:a::"))
    maker = ip_address("0.0.0.0").__class__ if kind == "A" else ip_address("::").__class__
    many = [str(maker(network + number)) for number in range(count)]
    upstream.say("many.tunneled.example", address(*many))
    begin(machine)
    for over in ("tcp", "udp"):
        (heard,) = ask(machine.lab.client, ["many.tunneled.example/" + kind], over=over, check=True)
        assert heard.rcode in (NOERROR, SERVFAIL)
        assert heard.outside == ()
        assert len(heard.addresses) <= 64
    assert len(learned(machine)) <= 64
    assert machine.dig("many.tunneled.example", kind, "+tcp"), "they are enough to go there"


def test_30_a_name_with_ever_new_addresses_does_not_fill_the_set(machine: Machine, upstream: Hostile) -> None:
    turns = [
        [Reply([record("A", f"11.23.{turn}.{last}", ttl=0) for last in range(40)], big=True)] for turn in range(60)
    ]
    upstream.say_in_turn({"flux.tunneled.example": turns})
    begin(machine)
    heard = ask(machine.lab.client, ["flux.tunneled.example"] * 60, most=1, check=True)
    assert outside(heard) == []
    assert len(upstream.asked()) > 50
    assert len(learned(machine)) <= 1024, "of 2,400 that the name has had"


# -- row 31

EACH = 32  # addresses of a name: they fit into a datagram


def fill(machine: Machine, upstream: Hostile, ttl: int) -> list[str]:
    """Fills the v6 set to its last place; returns the addresses."""
    names: dict[str, list[str]] = {}
    for number in range(SET_SIZE // EACH):
        name = f"f{number}.fill.tunneled.example"
        names[name] = [f"2001:db8:1:{number + 4096:x}::{place + 1:x}" for place in range(EACH)]
    upstream.say_all({name: [address(*texts, ttl=ttl)] for name, texts in names.items()})
    upstream.say_all({f"n{n}.more.tunneled.example": [address(f"2001:db8:1::f:{n:x}")] for n in range(1000)})
    heard = ask(machine.lab.client, [f"{name}/AAAA" for name in names], every=0.001, patience=8.0)
    assert [one.name for one in heard if one.wire[6:8] != EACH.to_bytes(2, "big")] == []
    return [text for texts in names.values() for text in texts]


MORE = [f"n{number}.more.tunneled.example/AAAA" for number in range(1000)]


@pytest.mark.timeout(180)
def test_31_a_full_set_gives_up_what_is_promised_to_nobody(machine: Machine, upstream: Hostile) -> None:
    begin(machine)
    fill(machine, upstream, ttl=1)
    time.sleep(2)
    heard = ask(machine.lab.client, MORE, every=0.002)
    assert [one.name for one in heard if len(one.addresses) != 1] == []
    # Those that had to go are no stale answers either: not given, or in the set again.
    upstream.be(rcode=SERVFAIL)
    stale = ask(machine.lab.client, [f"f{number}.fill.tunneled.example/AAAA" for number in range(60)], patience=8.0)
    given = {text for one in [*heard, *stale] for text in one.addresses}
    looks = "\n".join(f"get element inet wg_routing wg_domains6 {{ {text} }}" for text in given)
    machine.lab.client.run("nft", "-f", "-", input=looks)  # fails if one is absent


@pytest.mark.timeout(180)
def test_31_a_set_full_of_promises_takes_no_more_and_nothing_more_is_given(machine: Machine, upstream: Hostile) -> None:
    begin(machine)
    promised = fill(machine, upstream, ttl=3600)
    heard = ask(machine.lab.client, MORE, every=0.002, patience=8.0)
    assert [(one.name, one.addresses) for one in heard if one.addresses] == []
    assert {one.rcode for one in heard} == {SERVFAIL}
    assert [one.name for one in heard if not one.errors] == [], "with an extended error"
    assert set(promised) - learned(machine) == set()


# -- row 32


def foreign(owner: str) -> dict[str, Reply]:
    """Ways to slip an address in that nobody asked for; the name itself has a good one."""
    good, stray = record("A", GOOD), "stray.tunneled.example"
    parent = "tunneled.example" if owner.endswith("tunneled.example") else "plain.example"
    return {
        "answer": Reply([good, record("A", EVIL, stray)]),
        "answer before": Reply([record("A", EVIL, stray), good]),
        "answer of the parent": Reply([good, record("A", EVIL, parent)]),
        "answer below": Reply([good, record("A", EVIL, f"www.{owner}")]),
        "an alias of another": Reply([good, record("CNAME", "evil.example", stray), record("A", EVIL, "evil.example")]),
        "authority": Reply([good], [record("A", EVIL, stray), record("NS", stray, parent)]),
        "glue": Reply([good], [record("NS", f"ns.{parent}", parent)], [record("A", EVIL, f"ns.{parent}")]),
        "additional": Reply([good], (), [record("A", EVIL, stray), record("A", EVIL, parent)]),
        "its own additional": Reply([good], (), [record("A", EVIL)]),
        "another class": Reply([good, record("A", EVIL, rclass=3)]),
    }


@pytest.mark.parametrize("zone", ["poison.tunneled.example", "poison.plain.example"])
def test_32_of_100_foreign_records_none_is_learned_kept_or_given(
    machine: Machine, upstream: Hostile, zone: str
) -> None:
    names = {}
    for number in range(10):
        for place, (_, reply) in enumerate(foreign(f"x.{zone}").items()):
            names[f"n{number}-{place}.{zone}"] = reply
    assert len(names) == 100
    upstream.say_all({name: [reply] for name, reply in names.items()})
    strays = ["stray.tunneled.example", "evil.example", "ns.tunneled.example", "ns.plain.example", "www.x." + zone]
    upstream.say_all({name: [address("203.0.113.20")] for name in strays})
    begin(machine)
    heard = ask(machine.lab.client, list(names), every=0.002, check=True)
    assert [(one.name, one.addresses) for one in heard if one.addresses != [GOOD]] == []
    if "tunneled" in zone:
        everything = {one.name: [*one.message.auth, *one.message.ar] for one in heard}
        assert [name for name, records in everything.items() if EVIL in map(str, (r.rdata for r in records))] == []
        assert outside(heard) == []
    assert learned(machine) == ({GOOD} if "tunneled" in zone else set())
    after = ask(machine.lab.client, strays)
    assert [(one.name, one.addresses) for one in after if one.addresses != ["203.0.113.20"]] == [], "asked, not kept"


# -- row 33


def chain(length: int, last: str) -> list[bytes]:
    """Aliases from the question on, each to the next; the last one leads to `last`."""
    owners = ["@", *(f"c{number}.chain.tunneled.example" for number in range(1, length))]
    targets = [*owners[1:], last]
    return [record("CNAME", target, owner) for owner, target in zip(owners, targets, strict=True)]


def loops(length: int) -> dict[str, Reply]:
    """ "name" -> a reply whose aliases run in a circle of this length, or never end."""
    name, zone = f"l{length}.loop.tunneled.example", f"d{length}.loop.tunneled.example"
    inner = chain(length, f"c{length - 1}.chain.tunneled.example" if length > 1 else name)
    # A DNAME to below itself: each name that is made from it is longer (RFC 6672 §3.1).
    endless = [record("DNAME", f"x.{zone}", zone)]
    owner = f"a.{zone}"
    for _ in range(length):
        longer = owner.removesuffix(zone) + f"x.{zone}"
        endless.append(record("CNAME", longer, owner))
        owner = longer
    return {
        name: Reply([*inner, record("A", EVIL, "elsewhere.tunneled.example")]),
        name.replace("l", "b", 1): Reply(chain(length, name.replace("l", "b", 1))),
        f"a.{zone}": Reply(endless),
    }


def chains() -> dict[str, Reply]:
    """ "name" -> a reply with 1 to 50 aliases that do end, at a good address."""
    replies = {}
    for length in range(1, 51):
        last = f"c{length}.chain.tunneled.example"
        replies[f"n{length}.long.tunneled.example"] = Reply([*chain(length, last), record("A", GOOD, last)])
    return replies


def test_33_aliases_in_circles_of_1_to_50_end_at_once_and_chains_of_10_are_followed(
    machine: Machine, upstream: Hostile
) -> None:
    circles = {name: reply for length in range(1, 51) for name, reply in loops(length).items()}
    long = chains()
    assert (len(circles), len(long)) == (150, 50)
    upstream.say_all({name: [reply] for name, reply in {**circles, **long}.items()})
    begin(machine)
    heard = ask(machine.lab.client, [*circles, *long], every=0.005, check=True)
    assert [one.name for one in heard if one.rcode is None] == [], "hung"
    assert [(one.name, one.addresses) for one in heard[:150] if one.addresses] == []
    # A DNAME that never ends has no circle in the part that was sent: SERVFAIL is one answer to it, NODATA another.
    assert [(one.name, one.rcode) for one in heard[:150] if one.rcode != SERVFAIL and one.name[:2] != "a."] == []
    assert all(len(upstream.asked(name)) <= 12 for name in circles), "hops, or tries"
    for length, one in enumerate(heard[150:], 1):
        if length <= 10:
            assert (one.rcode, one.addresses, one.outside) == (NOERROR, [GOOD], ()), length
        elif length > 12:
            assert (one.rcode, one.addresses) == (SERVFAIL, []), length
    assert learned(machine) == {GOOD}


# -- row 50

LOCALHOST = ("localhost", "foo.localhost", "a.b.localhost", "LOCALHOST")
NOWHERE = (
    *("invalid", "x.invalid", "onion", "facebookcorewwwi.onion", "use-application-dns.net"),
    *("1.0.0.10.in-addr.arpa", "5.5.16.172.in-addr.arpa", "5.31.172.in-addr.arpa", "1.1.168.192.in-addr.arpa"),
    *("1.254.169.in-addr.arpa", "1.0.in-addr.arpa", "5.0.0.127.in-addr.arpa", "1.2.0.192.in-addr.arpa"),
    *("2.100.51.198.in-addr.arpa", "1.113.0.203.in-addr.arpa", "1.0.d.f.ip6.arpa", "1.8.e.f.ip6.arpa"),
    *("1.b.e.f.ip6.arpa", "1.8.b.d.0.1.0.0.2.ip6.arpa"),
)
# The top of a zone that is served here (RFC 6303) exists, and has nothing of these types.
NODATA = (
    *("resolver.arpa", "_dns.resolver.arpa", "mask.icloud.com", "mask-h2.icloud.com"),
    *("10.in-addr.arpa", "16.172.in-addr.arpa", "168.192.in-addr.arpa", "d.f.ip6.arpa", "255.255.255.255.in-addr.arpa"),
)
FOUR = ("A", "AAAA", "TXT", "HTTPS")


def test_50_names_that_never_leave_are_answered_here(machine: Machine, upstream: Hostile) -> None:
    upstream.say("*", address(EVIL))
    begin(machine)
    client = machine.lab.client
    for wanted, names in ((NOERROR, LOCALHOST), (NXDOMAIN, NOWHERE), (NOERROR, NODATA)):
        heard = ask(client, [f"{name}/{kind}" for name in names for kind in FOUR])
        assert [(one.name, one.rcode) for one in heard if one.rcode != wanted] == []
        if names != LOCALHOST:
            assert [one.name for one in heard if one.message.rr] == []
    reverse = ["1.0.0.127.in-addr.arpa/PTR", "1" + ".0" * 31 + ".ip6.arpa/PTR"]
    for one in ask(client, reverse):
        assert [str(record.rdata) for record in one.message.rr] == ["localhost."]
    for name in LOCALHOST:
        v4, v6, text = ask(client, [f"{name}/A", f"{name}/AAAA", f"{name}/TXT"])
        assert (v4.addresses, v6.addresses, text.message.rr) == (["127.0.0.1"], ["::1"], [])
    assert clients_questions(upstream) == []
    assert learned(machine) == set()
    assert machine.dig("plain.example") == [EVIL], "the upstream was there all the time"


def test_50_a_no_from_here_has_the_soa_that_bounds_it(machine: Machine, upstream: Hostile) -> None:
    begin(machine)
    for one in ask(machine.lab.client, [f"{name}/A" for name in ("x.invalid", "x.onion", "resolver.arpa")]):
        assert [record.rtype for record in one.message.auth] == [6], one.name
    assert clients_questions(upstream) == []


def test_50_a_zone_with_servers_of_its_own_does_leave(machine: Machine, upstream: Hostile) -> None:
    upstream.say("*.168.192.in-addr.arpa", Reply([record("PTR", "printer.example")]))
    begin(machine, configuration(forward=f'"168.192.in-addr.arpa" = ["{DEFAULT}"]'))
    assert machine.dig("-x", "192.168.1.1") == ["printer.example."]
    assert machine.rcode("1.0.0.10.in-addr.arpa", "PTR") == "NXDOMAIN"
    assert clients_questions(upstream) == ["1.1.168.192.in-addr.arpa"]


def test_50_the_canaries_can_be_switched_off(machine: Machine, upstream: Hostile) -> None:
    upstream.say("*", address("203.0.113.20"))
    begin(machine, configuration(dns="canary = false\nicloud_relay = true"))
    names = ["use-application-dns.net", "mask.icloud.com", "mask-h2.icloud.com"]
    assert [one.addresses for one in ask(machine.lab.client, names)] == [["203.0.113.20"]] * 3
    assert sorted(clients_questions(upstream)) == sorted(names)


def test_50_etc_hosts_is_asked_first_also_after_it_has_changed(machine: Machine, upstream: Hostile) -> None:
    lab = machine.lab
    upstream.say("*", address(EVIL))
    before = lab.client.read("/etc/hosts")
    entry = "192.168.1.7 printer.example printer\nfd00::7 printer.example\n192.168.1.8 nas.tunneled.example # a note\n"
    try:
        lab.client.write("/etc/hosts", before + entry)
        begin(machine)
        names = ["printer.example/A", "PRINTER/A", "printer.example/AAAA", "nas.tunneled.example/A"]
        heard = ask(lab.client, names)
        assert [one.addresses for one in heard] == [["192.168.1.7"], ["192.168.1.7"], ["fd00::7"], ["192.168.1.8"]]
        heard = ask(lab.client, [f"{name}/{kind}" for name in ("printer", "nas.tunneled.example") for kind in FOUR])
        assert {one.rcode for one in heard} == {NOERROR}
        assert machine.dig("-x", "192.168.1.7") == ["printer.example."]
        assert clients_questions(upstream) == []
        lab.client.write("/etc/hosts", before + "192.168.1.9 printer.example\n192.168.1.10 new.example\n")
        machine.wait_for(lambda: machine.dig("printer.example") == ["192.168.1.9"], "the new /etc/hosts")
        assert machine.dig("new.example") == ["192.168.1.10"]
        assert clients_questions(upstream) == []
        lab.client.run("sh", "-c", "printf '127.0.0.1 localhost\\n' >/etc/hosts.new; mv /etc/hosts.new /etc/hosts")
        machine.wait_for(lambda: machine.dig("printer.example") == [EVIL], "the entry's end")
    finally:
        lab.client.write("/etc/hosts", before)


def test_a_no_of_the_upstream_is_passed_on(machine: Machine, upstream: Hostile) -> None:
    """The control: the hostile server's script reaches the client as it is."""
    upstream.say("no.tunneled.example/TXT", nothing())
    begin(machine)
    assert (machine.rcode("no.tunneled.example", "A"), machine.rcode("nobody.example")) == ("NOERROR", "NXDOMAIN")
