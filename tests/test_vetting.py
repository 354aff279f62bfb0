"""What an answer may say: by whose policy, which addresses of it, and which names it makes tunneled."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from dnslib import DNSRecord

import splitwgd.vetting
from splitwgd.admission import Admission
from splitwgd.answers import read_reply
from splitwgd.config import Config
from splitwgd.local import local_patterns
from splitwgd.message import NOERROR, fit_reply
from splitwgd.names import Name, parse_name
from splitwgd.reply import Reply
from splitwgd.vetting import OF_AN_ANSWER, RememberedLead, Vetting
from splitwgd.zones import Zones
from tests.samples import answer, ask
from tests.worlds import WG, make_config

V4_ONLY = WG.replace(", fd00:10:1::2/64", "").replace(", ::/0", "")
WWW, CDN, OTHER = map(parse_name, ("www.example.com", "cdn.example.net", "other.example.net"))
NOW = 1000.0


def config_with(wg: str) -> Config:
    domains, forward = '"example.com", "!plain.example.com"', 'forward = { "corp.example" = ["203.0.113.99"] }'
    return make_config(domains=domains, dns=forward, wg=wg)


def zones(config: Config) -> Zones:
    return Zones(config, local_patterns(config))


def packed(*texts: str) -> list[bytes]:
    return [ip_address(text).packed for text in texts]


class Desk:
    """Vetting, with what it said for the log."""

    def __init__(self, admission: Admission | None = None, wg: str = WG) -> None:
        self.said: list[str] = []
        self.zones = zones(config_with(wg))
        self.vetting = Vetting(self.zones, admission or Admission(), self.said.append)
        self.tunnel = self.zones.find(WWW)
        self.default = self.zones.default
        assert self.tunnel.tunnel == "wg" and self.default.tunnel is None

    def vet(self, name: str, *zone: str, qtype: str = "A", authority: str = "") -> tuple[Reply, list[str], str]:
        """(the reply that may be given, its answers' data, the set's prefix of its policy) for these records."""
        query = ask(name, qtype)
        whole = read_reply(answer(query, "\n".join(zone), authority), query)
        reply, policy = self.vetting.vet(query, whole, self.vetting.find(query.name))
        record = DNSRecord.parse(fit_reply(query, reply, stream=True))
        return reply, [str(each.rdata) for each in record.rr], policy.tunnel or ""


def reply_of(name: str, *zone: str, qtype: str = "A") -> Reply:
    query = ask(name, qtype)
    return read_reply(answer(query, "\n".join(zone)), query)


def https(name: str, target: str, ttl: int = 300) -> Reply:
    return reply_of(name, f"{name}. {ttl} IN HTTPS 1 {target}.", qtype="HTTPS")


# -- under whose policy, and whose the addresses are


@pytest.mark.parametrize(
    ("name", "chain", "policy", "holder"),
    [
        ("www.example.com", [], "wg", "www.example.com"),
        ("www.example.com", ["cdn.example.net"], "wg", "www.example.com"),
        ("cdn.example.net", ["www.example.com"], "wg", "www.example.com"),
        ("cdn.example.net", ["a.example.net", "b.example.com", "www.example.com"], "wg", "b.example.com"),
        ("cdn.example.net", ["other.example.net"], None, "cdn.example.net"),
        ("plain.example.com", [], None, "plain.example.com"),
        ("www.example.com", ["plain.example.com"], "wg", "www.example.com"),
        ("a.corp.example", ["www.example.com"], "wg", "www.example.com"),
    ],
)
def test_a_tunneled_name_in_the_chain_makes_the_answer_its_own(
    name: str, chain: list[str], policy: str | None, holder: str
) -> None:
    links = [name, *chain]
    zone = [f"{a}. 60 IN CNAME {b}." for a, b in zip(links, links[1:], strict=False)]
    reply = reply_of(name, *zone, f"{links[-1]}. 60 IN A 192.0.2.1")
    vetting = Desk().vetting
    assert vetting.policy(reply).tunnel == policy
    assert vetting.holder(reply) == parse_name(holder)


def test_addresses_of_a_tunneled_name_belong_into_its_sets_and_each_once() -> None:
    desk = Desk()
    four, six = packed("192.0.2.1", "2001:db8::1")
    places = [("wg_domains4", four), ("wg_domains6", six)]
    assert desk.vetting.places(desk.tunnel, [four, six, four]) == places
    assert desk.vetting.places(desk.default, [four, six]) == []
    other = replace(desk.tunnel, tunnel="second")
    assert desk.vetting.places(other, [four]) == [("second_domains4", four)]


def test_what_is_tunneled_by_itself_belongs_into_no_set() -> None:
    desk = Desk(Admission(networks=(ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))))
    addresses = packed("10.1.2.3", "192.0.2.1", "2001:db8:1::1", "2001:db8::1")
    places = [("wg_domains4", addresses[1]), ("wg_domains6", addresses[3])]
    assert desk.vetting.places(desk.tunnel, addresses) == places


def test_what_may_not_be_a_tunneled_names_is_admitted_into_no_set() -> None:
    desk = Desk(Admission(taken=frozenset(packed("203.0.113.53"))))
    addresses = packed("192.168.1.1", "127.0.0.1", "203.0.113.53", "192.0.2.1", "::1", "fd00::1")
    assert desk.vetting.admitted(addresses, WWW) == packed("192.0.2.1")


def test_a_zone_that_may_be_private_has_its_private_addresses_admitted() -> None:
    desk = Desk(Admission(private=frozenset({parse_name("lan.example.com")})))
    private = packed("192.168.1.1")
    assert desk.vetting.admitted(private, parse_name("nas.lan.example.com")) == private
    assert desk.vetting.admitted(private, WWW) == []


def test_a_name_may_hold_what_is_in_its_tunnels_sets() -> None:
    """By itself, or by what led to it."""
    desk = Desk()
    desk.vetting.follow(https("www.example.com", "cdn.example.net"), desk.tunnel, NOW)
    for name in (WWW, CDN):
        assert desk.vetting.may_hold(name, "wg_domains4") and desk.vetting.may_hold(name, "wg_domains6")
        assert not desk.vetting.may_hold(name, "second_domains4")
        assert not desk.vetting.may_hold(name, "wg2_domains4"), "which is another tunnel's"
    assert not desk.vetting.may_hold(OTHER, "wg_domains4")
    assert not desk.vetting.may_hold(OTHER, "None_domains4")


# -- what may be said of tunneled names


def test_an_answer_with_nothing_to_object_to_is_passed_on_as_it_came() -> None:
    query = ask("www.example.com")
    zone = ["www.example.com. 60 IN CNAME cdn.example.net.", "cdn.example.net. 60 IN A 192.0.2.1"]
    whole, desk = reply_of("www.example.com", *zone), Desk()
    reply, policy = desk.vetting.vet(query, whole, desk.tunnel)
    assert reply is whole
    assert policy is desk.tunnel
    assert (desk.said, desk.vetting.left_out) == ([], 0)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "0.0.0.0", "192.168.1.1", "169.254.169.254", "224.0.0.1", "203.0.113.53", "100.64.0.1"],
)
def test_what_a_tunneled_name_may_not_lead_to_is_taken_out_of_its_answer(address: str) -> None:
    desk = Desk(Admission(taken=frozenset(packed("203.0.113.53"))))
    records = [f"www.example.com. 60 IN A {each}" for each in (address, "192.0.2.1")]
    reply, data, policy = desk.vet("www.example.com", *records)
    assert (data, reply.addresses, policy) == (["192.0.2.1"], tuple(packed("192.0.2.1")), "wg")
    (said,) = desk.said
    assert said.startswith("www.example.com: left out of the tunnel and of the answer: ")


@pytest.mark.parametrize(("qtype", "address"), [("A", "127.0.0.1"), ("AAAA", "::1"), ("AAAA", "::ffff:c000:201")])
def test_when_nothing_is_left_the_answer_is_that_there_is_nothing(qtype: str, address: str) -> None:
    desk = Desk()
    reply, data, policy = desk.vet("www.example.com", f"www.example.com. 60 IN {qtype} {address}", qtype=qtype)
    assert (data, reply.addresses, reply.rcode, policy) == ([], (), NOERROR, "wg")
    record = DNSRecord.parse(fit_reply(ask("www.example.com", qtype), reply, stream=True))
    assert [str(each.rname) for each in record.auth] == ["www.example.com."], "with the SOA of RFC 2308 §2.2"
    assert 0 < reply.ttl <= 60


def test_an_empty_answer_of_the_servers_stays_their_own() -> None:
    soa = "example.com. 900 IN SOA ns.example.com. me.example.com. 1 2 3 4 300"
    reply, data, _ = Desk().vet("www.example.com", authority=soa)
    assert (data, reply.ttl) == ([], 300)


def test_the_alias_of_what_is_emptied_leads_nowhere() -> None:
    """Otherwise the client might ask for the alias, of somebody else."""
    zone = ["www.example.com. 60 IN CNAME cdn.example.net.", "cdn.example.net. 60 IN A 127.0.0.1"]
    reply, data, _ = Desk().vet("www.example.com", *zone)
    assert (data, reply.chain) == ([], (WWW,))


@pytest.mark.parametrize("name", ["www.example.com", "cdn.example.net", "a.corp.example"])
def test_records_that_are_not_the_chains_are_given_to_nobody(name: str) -> None:
    stray = "stray.example.net. 60 IN A 203.0.113.66"
    reply, data, _ = Desk().vet(name, f"{name}. 60 IN A 192.0.2.1", stray, authority=stray)
    assert (data, reply.stray, reply.addresses) == (["192.0.2.1"], False, tuple(packed("192.0.2.1")))
    assert reply.authorities == 0


@pytest.mark.parametrize(("name", "count"), [("www.example.com", OF_AN_ANSWER), ("cdn.example.net", 100)])
def test_a_tunneled_name_may_have_so_many_addresses_and_a_plain_one_any(name: str, count: int) -> None:
    reply, data, _ = Desk().vet(name, *(f"{name}. 60 IN A 192.0.2.{number}" for number in range(100)))
    assert len(reply.addresses) == len(data) == count


def test_a_plain_answer_with_strays_keeps_all_of_its_addresses() -> None:
    zone = [f"cdn.example.net. 60 IN A 192.0.2.{number}" for number in range(100)]
    reply, data, _ = Desk().vet("cdn.example.net", *zone, "stray.example. 60 IN A 203.0.113.66")
    assert len(reply.addresses) == len(data) == 100


def test_what_is_tunneled_by_address_is_given_whatever_it_is() -> None:
    networks = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    desk = Desk(Admission(networks=networks), wg=V4_ONLY)
    assert desk.vet("www.example.com", "www.example.com. 60 IN A 10.1.2.3")[1] == ["10.1.2.3"]
    assert desk.vet("www.example.com", "www.example.com. 60 IN AAAA fd00::1", qtype="AAAA")[1] == ["fd00::1"]
    assert desk.said == []


# -- families that the tunnel does not carry


def test_an_address_that_the_tunnel_cannot_carry_is_not_given() -> None:
    desk = Desk(wg=V4_ONLY)
    reply, data, _ = desk.vet("www.example.com", "www.example.com. 60 IN AAAA 2001:db8::1", qtype="AAAA")
    assert (data, reply.addresses) == ([], ())
    assert desk.vet("www.example.com", "www.example.com. 60 IN A 192.0.2.1")[1] == ["192.0.2.1"]
    assert desk.said == [], "it is nobody's fault"


def test_nor_is_its_hint() -> None:
    record = "www.example.com. 60 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1"
    reply, data, _ = Desk(wg=V4_ONLY).vet("www.example.com", record, qtype="HTTPS")
    assert (data, reply.addresses) == (["1 . alpn=h2 ipv4hint=192.0.2.1"], tuple(packed("192.0.2.1")))
    assert Desk().vet("www.example.com", record, qtype="HTTPS")[1] == [record.partition("HTTPS ")[2]]


def test_an_alias_into_the_tunnel_is_bound_by_what_that_carries() -> None:
    zone = ["cdn.example.net. 60 IN CNAME www.example.com.", "www.example.com. 60 IN AAAA 2001:db8::1"]
    reply, data, policy = Desk(wg=V4_ONLY).vet("cdn.example.net", *zone, qtype="AAAA")
    assert (data, reply.addresses, policy) == ([], (), "wg")


def test_a_plain_name_has_what_it_has() -> None:
    record = "cdn.example.net. 60 IN AAAA 2001:db8::1"
    assert Desk(wg=V4_ONLY).vet("cdn.example.net", record, qtype="AAAA")[1] == ["2001:db8::1"]


# -- rebinding


@pytest.mark.parametrize("address", ["192.168.1.1", "127.0.0.1", "0.0.0.0", "10.1.0.1"])
def test_a_plain_name_does_not_lead_into_the_private_network(address: str) -> None:
    desk = Desk()
    reply, data, policy = desk.vet("cdn.example.net", f"cdn.example.net. 60 IN A {address}")
    assert (data, reply.addresses, policy) == ([], (), "")
    (said,) = desk.said
    assert "cdn" not in said, "which names are asked for is nobody's business"


def test_of_a_plain_name_the_public_addresses_stay() -> None:
    zone = ["cdn.example.net. 60 IN A 192.168.1.1", "cdn.example.net. 60 IN A 192.0.2.1"]
    assert Desk().vet("cdn.example.net", *zone)[1] == ["192.0.2.1"]


def test_a_plain_hint_leads_there_neither() -> None:
    record = "cdn.example.net. 60 IN HTTPS 1 . alpn=h2 ipv4hint=192.168.1.1"
    assert Desk().vet("cdn.example.net", record, qtype="HTTPS")[1] == ["1 . alpn=h2"]


def test_a_plain_name_of_a_zone_that_may_be_private_leads_where_it_wants_to() -> None:
    desk = Desk(Admission(private=frozenset({parse_name("example.net")})))
    assert desk.vet("cdn.example.net", "cdn.example.net. 60 IN A 192.168.1.1")[1] == ["192.168.1.1"]
    assert desk.vet("example.org", "example.org. 60 IN A 192.168.1.1")[1] == []


def test_the_zone_of_a_rebinding_is_that_of_the_question_and_no_alias_buys_a_way_in() -> None:
    desk = Desk(Admission(private=frozenset({parse_name("example.net")})))
    zone = ["evil.example.org. 60 IN CNAME nas.example.net.", "nas.example.net. 60 IN A 192.168.1.1"]
    assert desk.vet("evil.example.org", *zone)[1] == []


def test_a_zone_with_servers_of_its_own_leads_where_they_say() -> None:
    assert Desk().vet("a.corp.example", "a.corp.example. 60 IN A 192.168.1.1")[1] == ["192.168.1.1"]


# -- what is told


def test_what_was_left_out_is_told_once() -> None:
    desk = Desk()
    for _ in range(3):
        desk.vet("www.example.com", "www.example.com. 60 IN A 127.0.0.1")
    assert len(desk.said) == 1
    desk.vet("www.example.com", "www.example.com. 60 IN A 127.0.0.2")
    desk.vet("b.example.com", "b.example.com. 60 IN A 127.0.0.1")
    assert len(desk.said) == 3


def test_what_was_left_out_is_counted() -> None:
    desk = Desk()
    desk.vet("www.example.com", "www.example.com. 60 IN A 127.0.0.1", "www.example.com. 60 IN A 127.0.0.2")
    assert desk.vetting.left_out == 2


def test_who_makes_up_names_without_end_is_not_told_of_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitwgd.vetting, "_TOLD_LIMIT", 5)
    desk = Desk()
    for number in range(9):
        desk.vet(f"n{number}.example.com", f"n{number}.example.com. 60 IN A 127.0.0.1")
    assert len(desk.said) == 5
    assert desk.vetting.left_out >= 9


# -- where HTTPS and SVCB records lead


def test_where_a_tunneled_record_leads_is_tunneled_from_then_on() -> None:
    desk = Desk()
    vetting = desk.vetting
    assert vetting.find(CDN) is desk.default
    assert vetting.follow(https("www.example.com", "cdn.example.net"), desk.tunnel, NOW) == [CDN]
    assert vetting.find(CDN) == desk.tunnel
    assert vetting.find(OTHER) is desk.default
    assert vetting.follow(https("www.example.com", "cdn.example.net"), desk.tunnel, NOW) == [], "it is known"


def test_who_led_there_answers_for_the_addresses() -> None:
    """They leave their sets when that name is no longer tunneled, and are admitted by its rules."""
    desk = Desk()
    desk.vetting.follow(https("www.example.com", "cdn.example.net"), desk.tunnel, NOW)
    reply = reply_of("cdn.example.net", "cdn.example.net. 60 IN A 192.0.2.1")
    assert (desk.vetting.holder(reply), desk.vetting.policy(reply)) == (WWW, desk.tunnel)
    assert desk.vet("cdn.example.net", "cdn.example.net. 60 IN A 192.0.2.1")[2] == "wg"
    assert desk.vet("x.example.net", "x.example.net. 60 IN CNAME cdn.example.net.")[2] == "wg", "by an alias too"


def test_a_lead_leads_on() -> None:
    desk = Desk()
    desk.vetting.follow(https("www.example.com", "cdn.example.net"), desk.tunnel, NOW)
    assert desk.vetting.follow(https("cdn.example.net", "other.example.net"), desk.tunnel, NOW) == [OTHER]
    assert desk.vetting.holder(reply_of("other.example.net", "other.example.net. 60 IN A 192.0.2.1")) == WWW


@pytest.mark.parametrize("target", ["b.example.com", "www.example.com", ""])
def test_what_is_tunneled_anyhow_needs_no_lead(target: str) -> None:
    desk = Desk()
    assert desk.vetting.follow(https("www.example.com", target), desk.tunnel, NOW) == []
    assert desk.vetting.leads == {}


def test_leads_are_followed_in_an_alias_mode_too() -> None:
    reply = reply_of("www.example.com", "www.example.com. 60 IN HTTPS 0 cdn.example.net.", qtype="HTTPS")
    desk = Desk()
    assert desk.vetting.follow(reply, desk.tunnel, NOW) == [CDN]


def test_leads_are_bounded_and_those_that_are_over_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitwgd.vetting, "_LEADS_LIMIT", 3)
    desk = Desk()

    def follow(number: int, now: float, ttl: int = 300) -> list[Name] | None:
        return desk.vetting.follow(https("www.example.com", f"t{number}.example.net", ttl), desk.tunnel, now)

    for number, ttl in enumerate((300, 86_400, 300)):
        assert follow(number, NOW, ttl) == [parse_name(f"t{number}.example.net")]
    assert follow(3, NOW + 3899) is None, "somebody may remember each of them"
    assert desk.vetting.find(parse_name("t3.example.net")) is desk.default
    assert follow(0, NOW + 3899) == [], "who leads there again makes it last longer"
    assert follow(3, NOW + 3900) == [parse_name("t3.example.net")]
    places = [desk.vetting.find(parse_name(f"t{number}.example.net")).tunnel for number in range(4)]
    assert places == ["wg", "wg", None, "wg"]


@pytest.mark.parametrize("target", ["localhost", "1.0.0.127.in-addr.arpa", "x.onion", "use-application-dns.net"])
def test_a_name_that_is_answered_here_cannot_be_led_away(target: str) -> None:
    """Who owns a tunneled name could else have this machine's `localhost` answered by the tunnel's servers."""
    desk = Desk()
    assert desk.vetting.find(parse_name(target)).local
    desk.vetting.follow(https("www.example.com", target), desk.tunnel, NOW)
    assert desk.vetting.find(parse_name(target)).local


# -- after a restart


def test_leads_outlive_a_restart_where_their_origins_are_still_tunneled() -> None:
    before = Desk()
    before.vetting.follow(https("www.example.com", "cdn.example.net"), before.tunnel, NOW)
    before.vetting.follow(https("b.example.com", "other.example.net"), before.tunnel, NOW)
    kept = before.vetting.remember(NOW + 3899)
    assert kept == [
        RememberedLead(CDN, WWW, NOW + 3900),
        RememberedLead(OTHER, parse_name("b.example.com"), NOW + 3900),
    ]
    assert before.vetting.remember(NOW + 3900) == [], "their records have been forgotten everywhere"
    another = zones(make_config(domains='"=www.example.com"'))
    after = Vetting(another, Admission(), print)
    after.recall(kept)
    assert (after.find(CDN), after.find(OTHER)) == (another.find(WWW), another.default)
    assert after.holder(reply_of("cdn.example.net", "cdn.example.net. 60 IN A 192.0.2.1")) == WWW
    assert after.remember(NOW) == kept[:1]


@pytest.mark.parametrize("target", ["localhost", "b.example.com", "a.corp.example"])
def test_a_restart_leads_away_no_name_that_has_a_place_of_its_own(target: str) -> None:
    desk, name = Desk(), parse_name(target)
    before = desk.vetting.find(name)
    desk.vetting.recall([RememberedLead(name, WWW, NOW)])
    assert desk.vetting.find(name) == before and desk.vetting.leads == {}


def test_leads_from_before_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitwgd.vetting, "_LEADS_LIMIT", 3)
    desk = Desk()
    desk.vetting.recall(RememberedLead(parse_name(f"t{number}.example.net"), WWW, NOW) for number in range(9))
    assert len(desk.vetting.leads) == 3


# -- another configuration


def test_a_successor_knows_what_was_led_to_and_told() -> None:
    desk = Desk()
    desk.vet("www.example.com", "www.example.com. 60 IN A 127.0.0.1")
    desk.vetting.follow(https("www.example.com", "cdn.example.net"), desk.tunnel, NOW)
    another = zones(make_config(domains='"=www.example.com"', wg=V4_ONLY))
    successor = desk.vetting.successor(another, Admission(taken=frozenset(packed("192.0.2.1"))))
    assert successor.find(CDN) == another.find(WWW) != desk.tunnel, "by the new configuration"
    assert successor.left_out == desk.vetting.left_out > 0
    desk.vetting = successor
    desk.vet("www.example.com", "www.example.com. 60 IN A 127.0.0.1")
    assert len(desk.said) == 1
    assert desk.vet("www.example.com", "www.example.com. 60 IN A 192.0.2.1")[1] == [], "by the new admission"


def test_a_successor_forgets_where_names_led_that_are_tunneled_no_longer() -> None:
    desk = Desk()
    desk.vetting.follow(https("www.example.com", "cdn.example.net"), desk.tunnel, NOW)
    desk.vetting.follow(https("b.example.com", "other.example.net"), desk.tunnel, NOW)
    another = zones(make_config(domains='"=b.example.com"'))
    successor = desk.vetting.successor(another, Admission())
    assert successor.find(CDN) is another.default
    assert successor.find(OTHER).tunnel == "wg"
    assert desk.vetting.find(CDN).tunnel == "wg", "the old one goes on as it was, until the swap"


def test_a_name_that_became_tunneled_by_itself_answers_for_itself() -> None:
    desk = Desk()
    desk.vetting.follow(https("www.example.com", "cdn.example.net"), desk.tunnel, NOW)
    successor = desk.vetting.successor(zones(make_config(domains='"example.com", "example.net"')), Admission())
    assert successor.holder(reply_of("cdn.example.net", "cdn.example.net. 60 IN A 192.0.2.1")) == CDN
