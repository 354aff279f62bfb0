"""Where a name or an address goes, why, and who shares it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from splitwgd.admission import Admission
from splitwgd.answers import read_reply
from splitwgd.cache import Cache
from splitwgd.errors import SplitwgError
from splitwgd.learned import Ledger
from splitwgd.local import local_patterns
from splitwgd.names import parse_name
from splitwgd.objects import Element
from splitwgd.provenance import Provenance
from splitwgd.vetting import RememberedLead, Vetting
from splitwgd.zones import Zones
from tests.samples import answer, ask
from tests.worlds import make_config

NOW = 1000.0
DOMAINS = '"example.com", "!plain.example.com"'


class Book:
    """What a daemon knows."""

    def __init__(self) -> None:
        config = make_config(domains=DOMAINS, dns='forward = { "corp.example" = ["203.0.113.99"] }')
        admission = Admission(networks=(ip_network("198.51.100.0/24"),))
        self.vetting = Vetting(Zones(config, local_patterns(config)), admission, print)
        self.ledger = Ledger(3600, 3600)
        self.cache = Cache(100)

    def learned(self, name: str, *addresses: str, kept: bool = True) -> None:
        """A tunneled name was answered."""
        places = self.vetting.places(self.vetting.find(parse_name(name)), [ip_address(a).packed for a in addresses])
        self.ledger.record(self.ledger.grant(parse_name(name), places, 60, NOW), NOW)
        if kept:
            self.answered(name, *addresses)

    def answered(self, name: str, *addresses: str, alias: str = "") -> None:
        """An answer is in the cache."""
        query = ask(name, "AAAA" if ":" in addresses[0] else "A")
        records = [f"{alias or name}. 60 IN {'AAAA' if ':' in each else 'A'} {each}" for each in addresses]
        chain = [f"{name}. 60 IN CNAME {alias}."] if alias else []
        reply = read_reply(answer(query, "\n".join([*chain, *records])), query)
        self.cache.put(query, reply, self.vetting.policy(reply), NOW)

    def of(self, text: object, later: float = 0.0) -> dict[str, Any]:
        return Provenance(self.vetting, self.ledger, self.cache, NOW + later).of(text)


def test_a_plain_name_that_shares_an_address_with_a_tunneled_one_is_known_for_both() -> None:
    book = Book()
    book.learned("www.example.com", "192.0.2.1", "192.0.2.2")
    book.answered("shop.example.net", "192.0.2.2")
    book.answered("far.example.net", "192.0.2.9")
    shared = {"tunnel": "wg0", "network": "", "names": ["www.example.com"], "more": False, "seconds": 3660}
    there = shared | {"address": "192.0.2.2", "plain": ["shop.example.net"]}
    assert book.of("192.0.2.2") == {"name": "", "addresses": [there]}
    plain = {"name": "shop.example.net", "tunnel": "", "asked_at": "default", "entry": "", "led_by": ""}
    assert book.of("shop.example.net") == plain | {"addresses": [there]}
    alone = shared | {"address": "192.0.2.1", "plain": []}
    tunneled = {"name": "www.example.com", "tunnel": "wg0", "asked_at": "wg0", "entry": "example.com", "led_by": ""}
    assert book.of("WWW.Example.com.") == tunneled | {"addresses": [alone, there]}


def test_an_address_that_nobody_tunnels_is_told_with_the_names_that_led_there() -> None:
    book = Book()
    book.answered("far.example.net", "192.0.2.9")
    (found,) = book.of("192.0.2.9")["addresses"]
    assert (found["tunnel"], found["names"], found["plain"], found["seconds"]) == ("", [], ["far.example.net"], 0)
    (unheard,) = book.of("2001:db8::1")["addresses"]
    assert (unheard["address"], unheard["tunnel"], unheard["plain"]) == ("2001:db8::1", "", [])


def test_what_is_learned_is_known_without_the_cache_until_it_ends() -> None:
    book = Book()
    book.learned("www.example.com", "2001:db8::1", kept=False)
    assert [each["address"] for each in book.of("www.example.com")["addresses"]] == ["2001:db8::1"]
    assert book.of("2001:db8::1")["addresses"][0]["tunnel"] == "wg0"
    assert book.of("2001:db8::1", later=4000)["addresses"][0]["tunnel"] == ""


def test_the_addresses_of_an_alias_are_its_own_too_and_not_a_plain_ones() -> None:
    book = Book()
    book.learned("www.example.com", "192.0.2.1", kept=False)
    book.answered("www.example.com", "192.0.2.1", alias="edge.example.net")
    (found,) = book.of("edge.example.net")["addresses"]
    assert (found["names"], found["plain"]) == (["www.example.com"], [])


@pytest.mark.parametrize(
    ("name", "tunnel", "asked_at", "entry"),
    [
        ("example.com", "wg0", "wg0", "example.com"),
        ("a.b.example.com", "wg0", "wg0", "example.com"),
        ("plain.example.com", "", "default", "plain.example.com"),
        ("x.plain.example.com", "", "default", "plain.example.com"),
        ("example.org", "", "default", ""),
        ("host.corp.example", "", "forward corp.example", "corp.example"),
        ("localhost", "", "local", "localhost"),
    ],
)
def test_the_entry_that_decides_is_named(name: str, tunnel: str, asked_at: str, entry: str) -> None:
    decided = {"name": name, "tunnel": tunnel, "asked_at": asked_at, "entry": entry}
    assert Book().of(name) == decided | {"led_by": "", "addresses": []}


def test_who_led_to_a_name_is_told_while_that_alone_makes_it_tunneled() -> None:
    book = Book()
    targets, origin = map(parse_name, ("edge.example.net", "in.example.com")), parse_name("www.example.com")
    book.vetting.recall(RememberedLead(target, origin, NOW + 60) for target in targets)
    found = book.of("edge.example.net")
    assert (found["tunnel"], found["led_by"], found["entry"]) == ("wg0", "www.example.com", "")
    assert (book.of("in.example.com")["led_by"], book.of("in.example.com")["entry"]) == ("", "example.com")


def test_a_listed_network_tunnels_whatever_leads_there() -> None:
    (found,) = Book().of("198.51.100.7")["addresses"]
    assert (found["tunnel"], found["network"], found["names"]) == ("wg0", "198.51.100.0/24", [])


def test_an_element_whose_names_are_not_known_any_more_says_so() -> None:
    book = Book()
    book.ledger.restore([Element("wg_domains4", ip_address("192.0.2.1").packed, "a.example.com +", 60)], NOW)
    book.ledger.restore([Element("wg_domains4", ip_address("192.0.2.2").packed, "", 60)], NOW)
    found = [book.of(f"192.0.2.{number}")["addresses"][0] for number in (1, 2)]
    assert [(each["names"], each["more"]) for each in found] == [(["a.example.com"], True), ([], True)]


@pytest.mark.parametrize("text", ["", "a..b", "https://x/", None, 5.5, ["a"]])
def test_what_is_neither_is_refused_in_words(text: object) -> None:
    with pytest.raises(SplitwgError, match="is neither a name nor an address"):
        Book().of(text)
