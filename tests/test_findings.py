"""What doctor makes of what it saw: each trouble is found, said with its remedy, and not seen where it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from splitwgd.config import Config
from splitwgd.findings import (
    GOOD,
    MEND,
    NOTE,
    UNSEEN,
    Finding,
    ForeignRule,
    Holder,
    Seen,
    examine,
    grade_of,
    marks_set,
)
from tests.worlds import ip, make_config

LOCAL = (ip("127.0.0.53"), ip("127.0.0.1"), ip("::1"))
CONFIG = make_config()
OURS, DHCP = "nameserver 127.0.0.1\n", "nameserver 192.168.1.1\n"
HEALTHY = Seen(
    resolv_conf=OURS,
    nsswitch="passwd: files\nhosts: files mdns4_minimal [NOTFOUND=return] dns\n",
    running=True,
    holders=(Holder(LOCAL[1], "UDP", "splitwgd", 7, "splitwgd.service"),),
    links={"eth0": 1500, "wg0": 1420},
    tunnel_mtu=1420,
    uplink_mtu=1500,
    now=2.0,
    newest=1.0,
)


def found(config: Config | None = CONFIG, **seen: Any) -> list[Finding]:
    """What is not in order."""
    return [finding for finding in examine(replace(HEALTHY, **seen), config) if finding.grade != GOOD]


def one(about: str, grade: str, config: Config | None = CONFIG, **seen: Any) -> str:
    """The one thing that is not in order."""
    (finding,) = found(config, **seen)
    assert (finding.about, finding.grade) == (about, grade)
    assert finding.remedy or grade == NOTE
    return f"{finding.text}; {finding.remedy}"


def test_a_healthy_machine_has_nothing_to_mend() -> None:
    findings = examine(HEALTHY, CONFIG)
    assert found() == [] and grade_of(findings) == 0
    assert {"nf_tables", "WireGuard", "splitwgd", "port 53", "/etc/resolv.conf", "MTU", "clock"} < {
        finding.about for finding in findings
    }


def test_only_what_is_to_be_mended_makes_the_status() -> None:
    assert grade_of([Finding("a", NOTE, ""), Finding("a", UNSEEN, ""), Finding("a", GOOD, "")]) == 0
    assert grade_of([Finding("a", MEND, ""), Finding("a", GOOD, "")]) == 1


# -- the kernel and the daemon


def test_what_the_kernel_lacks_and_what_cannot_be_seen_without_rights() -> None:
    assert one("nf_tables", MEND, kernel="this kernel has no nf_tables; load it (modprobe nf_tables)").endswith(
        "load it (modprobe nf_tables)"
    )
    assert "run as root" in one("nf_tables", UNSEEN, kernel="nf_tables: not permitted; run with CAP_NET_ADMIN")
    assert "wireguard-go" in one("WireGuard", MEND, wireguard="no WireGuard; apt install wireguard-go")


def test_an_unfinished_setup_and_a_daemon_in_trouble() -> None:
    assert "splitwg revert" in one("setup", MEND, unfinished=True)
    assert "no peer" in one("splitwgd", MEND, trouble="no peer answers")


def test_without_a_daemon_nothing_resolves_where_all_is_led_to_it() -> None:
    findings = found(running=False, holders=())
    assert [finding.about for finding in findings] == ["splitwgd", "/etc/resolv.conf"]
    assert "give-back" in findings[1].remedy


def test_without_a_configuration_the_rest_is_told_all_the_same() -> None:
    assert [finding.about for finding in found(None, kernel="no nf_tables; load it")] == ["nf_tables"]


# -- port 53


def test_who_is_in_the_way_on_port_53_is_named_with_its_unit() -> None:
    dnsmasq = Holder(LOCAL[1], "UDP", "dnsmasq", 9, "dnsmasq.service")
    assert "systemctl stop dnsmasq.service" in one("port 53", MEND, holders=(dnsmasq,))
    assert "end it (pid 9)" in one("port 53", MEND, holders=(replace(dnsmasq, address=ip("0.0.0.0"), unit=""),))


def test_others_on_other_addresses_and_resolveds_stub_are_in_nobodys_way() -> None:
    libvirt = Holder(ip("192.168.122.1"), "UDP", "dnsmasq", 9, "libvirtd.service")
    assert "not in the way" in one("port 53", NOTE, holders=(libvirt,))
    stub = Holder(LOCAL[0], "TCP", "systemd-resolve", 9, "systemd-resolved.service")
    stubs = (stub, replace(stub, transport="UDP"), replace(stub, address=ip("127.0.0.54")))
    said = one("port 53", NOTE, holders=stubs, resolved=True, resolved_is_ours=True)
    assert said.startswith("of 127.0.0.53, 127.0.0.54 is systemd-resolve (systemd-resolved.service)'s, and not in")
    assert one("port 53", MEND, holders=(stub,))


def test_what_cannot_be_seen_is_not_taken_for_in_order() -> None:
    assert one("port 53", UNSEEN, holders=None)
    unknown = Holder(LOCAL[1], "UDP")
    assert found(holders=(unknown,)) == []  # the daemon runs: it is his
    assert "port 53" in [f.about for f in found(holders=(unknown,), running=False) if f.grade == UNSEEN]
    assert one("rules", UNSEEN, rules=None) and one("marks", UNSEEN, ruleset=None)


# -- who is asked


def test_a_server_in_resolv_conf_is_led_to_us_by_the_redirect_or_is_a_way_past() -> None:
    assert "redirect" in one("/etc/resolv.conf", NOTE, resolv_conf=OURS + DHCP)
    assert "past splitwg" in one("/etc/resolv.conf", MEND, replace(CONFIG, redirect=False), resolv_conf=DHCP)
    exempt = replace(CONFIG, bypass=(ip("192.168.1.1"),))
    assert "past splitwg" in one("/etc/resolv.conf", MEND, exempt, resolv_conf=OURS + DHCP)
    assert "names no server" in one("/etc/resolv.conf", MEND, resolv_conf="search lan\n")


def test_nsswitch_has_to_ask_dns() -> None:
    assert one("/etc/nsswitch.conf", MEND, nsswitch="hosts: files mdns4\n")
    assert one("/etc/nsswitch.conf", MEND, nsswitch="hosts: files resolve [!UNAVAIL=return]\n")
    assert not found(nsswitch="") and not found(nsswitch="hosts: files resolve dns\n")


def test_resolved_must_not_keep_answers() -> None:
    assert "splitwg dns take" in one("systemd-resolved", MEND, resolved=True)
    assert not found(resolved=True, resolved_is_ours=True)


def test_network_manager_writes_or_does_not() -> None:
    theirs = "# Generated by NetworkManager\n" + DHCP
    findings = found(manager=True, resolv_conf=theirs)
    assert [(f.about, f.grade) for f in findings] == [("/etc/resolv.conf", NOTE), ("NetworkManager", NOTE)]
    assert not found(manager=True)


def test_tailscales_names_and_its_own_server() -> None:
    links = {**HEALTHY.links, "tailscale0": 1280}
    assert ["dns.forward" in f.remedy for f in found(links=links)] == [True, False]
    forwards = replace(CONFIG, forward=make_config(dns='forward = { "ts.net" = ["100.100.100.100"] }').forward)
    (finding,) = found(forwards, links=links)
    assert finding.remedy.startswith("bypass = ")
    assert not found(replace(forwards, redirect=False), links=links)
    forwards = replace(forwards, bypass=(ip("100.100.100.100"),))
    assert not found(forwards, links=links)
    findings = found(forwards, links=links, resolv_conf="nameserver 100.100.100.100\n")
    assert "tailscale set --accept-dns=false" in [f.remedy for f in findings if f.grade == MEND]


def test_docker_needs_a_firewall_that_lets_port_253_in() -> None:
    assert "port 253" in one("Docker", NOTE, links={**HEALTHY.links, "docker0": 1500})


# -- marks, rules, tables


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (ForeignRule(5210, 0x1, 0xFF, 52, False), "catches packets with splitwg's mark"),
        (ForeignRule(5210, 0x40001, 0xFFFFFFFF, 52, True), "catches packets with splitwg's mark"),
        (ForeignRule(100, 0x4000, 0x4000, 52, False), "has splitwg's priority"),
        (ForeignRule(99, 0, 0, 52, False), "comes before splitwg's and catches everything"),
    ],
)
def test_rules_that_are_in_the_way(rule: ForeignRule, words: str) -> None:
    assert words in one("rules", MEND, rules=(rule,))


@pytest.mark.parametrize(
    "rule",
    [
        ForeignRule(0, 0, 0, 255, False),  # the kernel's own, of local addresses
        ForeignRule(32766, 0, 0, 254, False),
        ForeignRule(5210, 0x80000, 0xFF0000, 254, False),  # Tailscale's
        ForeignRule(99, 0, 0, 52, True),  # from one address only
        ForeignRule(99, 0x100, 0x100, 52, False),
    ],
)
def test_rules_that_are_nobodys_trouble(rule: ForeignRule) -> None:
    assert found(rules=(rule,)) == []


def test_a_table_that_somebody_else_uses() -> None:
    assert "routing.table" in one("routes", MEND, routes=("default via 192.0.2.1",))


def nft(key: str, value: Any) -> dict[str, Any]:
    mangle = {"mangle": {"key": {key: {"key": "mark"}}, "value": value}}
    return {"nftables": [{"metainfo": {}}, {"rule": {"family": "ip", "table": "theirs", "expr": [{"x": 1}, mangle]}}]}


MASKED = {"|": [{"&": [{"meta": {"key": "mark"}}, 0xFF00FFFF]}, 0x40000]}


@pytest.mark.parametrize(
    ("key", "value", "bits"),
    [("meta", 1, 1), ("ct", 0x100, 0x100), ("meta", MASKED, 0x40000), ("ct", {"meta": {"key": "mark"}}, 0)],
)
def test_the_bits_that_a_ruleset_sets(key: str, value: Any, bits: int) -> None:
    assert list(marks_set(nft(key, value))) == [("ip theirs", bits)]
    assert bool(found(ruleset=nft(key, value))) == bool(bits & 0xFF)


def test_statements_that_set_no_mark_are_passed_over() -> None:
    statements = [{"mangle": {"key": {"payload": {"protocol": "ip"}}, "value": 1}}, {"mangle": None}, {"drop": None}]
    ruleset = {"nftables": [{"rule": {"family": "ip", "table": "t", "expr": statements}}, {"rule": None}]}
    assert list(marks_set(ruleset)) == []


def test_a_wireguard_link_with_our_mark() -> None:
    assert "vpn7" in one("marks", MEND, wireguards={"vpn7": 0x101})
    assert not found(wireguards={"vpn7": 0xCA6C})  # wg-quick's


# -- the rest


def test_reverse_path_mtu_and_clock() -> None:
    assert one("rp_filter", MEND, strict=True)
    assert "MTU = 1412" in one("MTU", MEND, uplink_mtu=1492)
    assert "timedatectl" in one("clock", MEND, now=1.0, newest=2.0)


@pytest.mark.parametrize(
    ("policy", "bad"),
    [
        ({"policies": {"DNSOverHTTPS": {"Enabled": True, "ProviderURL": "https://doh.example/"}}}, True),
        ({"policies": {"DNSOverHTTPS": {"Enabled": False, "Locked": True}}}, False),
        ({"DnsOverHttpsMode": "secure"}, True),
        ({"DnsOverHttpsMode": "automatic"}, False),
        ({"policies": []}, False),
        ([], False),
    ],
)
def test_browsers_that_a_policy_has_resolve_over_https(policy: Any, bad: bool) -> None:
    assert bool(found(policies={"/etc/firefox/policies/policies.json": json.dumps(policy)})) == bad


def test_a_policy_that_is_no_json_is_noted() -> None:
    assert "no JSON" in one("/p.json", NOTE, policies={"/p.json": "{"})
