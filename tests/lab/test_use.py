"""The daemon as a user meets it, in the lab: names, links, reloads, the client, and what is left at the end."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .cables import add_wireguard
from .machine import CONFIG, DOMAINS, WIREGUARD, Machine, program
from .scenarios import NOBODY
from .world import Lab


def state_of_the_kernel(lab: Lab) -> str:
    """All that a removal has to leave as it was."""
    commands = ("nft list ruleset; ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all",)
    sysctls = "grep -r . /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv6/conf/*/addr_gen_mode"
    links = "ip -o link | cut -d' ' -f2; ip -o address"
    return lab.client.run("sh", "-c", "; ".join((*commands, links, sysctls))).stdout


@contextmanager
def sysctl(lab: Lab, name: str, value: int) -> Iterator[None]:
    before = lab.client.read(f"/proc/sys/{name}").strip()
    lab.client.run("sh", "-c", f"echo {value} >/proc/sys/{name}")
    try:
        yield
    finally:
        lab.client.run("sh", "-c", f"echo {before} >/proc/sys/{name}")


def test_names_go_where_they_belong(machine: Machine) -> None:
    machine.start()
    lab = machine.lab
    since = time.monotonic()
    assert machine.dig("tunneled.example") == ["203.0.113.10"]
    assert machine.dig("blocked.example") == ["203.0.113.40"], "the truth, by the tunnel"
    assert machine.dig("plain.example") == ["203.0.113.20"]
    assert machine.dig("www.tunneled.example")[-1] == "203.0.113.11"
    assert {asked.name for asked in lab.asked_public(since)} == {"plain.example"}
    assert "plain.example" not in {asked.name for asked in lab.asked_vpn(since)}
    callers = {address: lab.caller(address) for address in ("203.0.113.10", "203.0.113.11", "2001:db8:1::20")}
    assert callers == {"203.0.113.10": lab.vpn_v4, "203.0.113.11": lab.vpn_v4, "2001:db8:1::20": lab.client_v6}


def test_an_exception_and_a_forwarded_zone(machine: Machine) -> None:
    text = CONFIG.replace('"blocked.example"', '"!sub.tunneled.example"')
    machine.configure(text.replace("[tunneled]", '[dns.forward]\n"later.example" = ["192.0.2.53"]\n\n[tunneled]'))
    machine.start()
    since = time.monotonic()
    assert machine.dig("sub.tunneled.example") == ["203.0.113.12"]
    assert machine.dig("later.example") == ["203.0.113.30"]
    asked = {(asked.name, asked.server) for asked in machine.lab.asked_public(since)}
    assert asked == {("sub.tunneled.example", "203.0.113.53"), ("later.example", "192.0.2.53")}
    assert machine.lab.caller("203.0.113.12") == machine.lab.client_v4


@pytest.mark.parametrize("server", ["192.0.2.53", "2001:db8:1::53"])
@pytest.mark.parametrize("words", [["+notcp"], ["+tcp"]])
def test_a_question_to_a_foreign_server_is_answered_here(machine: Machine, server: str, words: list[str]) -> None:
    machine.start()
    since = time.monotonic()
    assert machine.dig(*words, "blocked.example", server=server) == ["203.0.113.40"]
    assert machine.lab.asked_public(since) == []


def test_a_question_on_a_socket_from_before_the_daemon_is_answered_here(machine: Machine) -> None:
    """NAT is decided by a flow's first packet, and this one's was before the redirect: conntrack has to forget it."""
    code = (
        "import socket, sys, time\n"
        "s = socket.socket(2, 2); s.connect(('192.0.2.53', 53)); s.settimeout(2)\n"
        "ask = lambda name: s.send(b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + b''.join(\n"
        "    bytes([len(label)]) + label for label in name.split(b'.')) + b'\\0\\0\\1\\0\\1')\n"
        "ask(b'plain.example'); s.recv(512); print('asked', flush=True); sys.stdin.readline()\n"
        "try: ask(b'tunneled.example'); print(len(s.recv(512)))\n"
        "except OSError as error: print(error)\n"
    )
    # Somebody's firewall, without which there would be no conntrack yet.
    machine.lab.client.run("nft", "table ip wall { chain c { type filter hook output priority 0; ct state new; }; }")
    early = machine.lab.client.start("python3", "-c", code, stdin=-1, stdout=-1)
    assert early.stdout is not None and early.stdout.readline() == "asked\n"
    machine.start()
    with machine.lab.capture() as seen:
        said, _ = early.communicate("\n", timeout=10)
    machine.lab.client.run("nft", "delete table ip wall")
    assert seen.questions("tunneled.example") == []
    assert said.strip().isdigit(), f"no answer of ours, either: {said}"


def test_a_big_answer_is_cut_on_udp_and_whole_on_tcp(machine: Machine) -> None:
    machine.start()
    name = "big.tunneled.example"
    assert len(machine.dig("+tcp", name)) == 60
    cut = machine.lab.client.run("dig", "+ignore", "+notcp", "+noedns", "@127.0.0.53", name).stdout
    assert " tc" in cut.partition("flags:")[2].partition(";")[0] and "ANSWER: 0" in cut
    assert machine.status()["addresses"] == {"wg_domains4": 60}


def test_the_second_server_answers_when_the_first_is_silent(machine: Machine) -> None:
    machine.start()
    with machine.lab.dns_silent("203.0.113.53"):
        assert machine.dig("plain.example") == ["203.0.113.20"]


def test_a_silent_tunnel_gives_servfail_and_never_asks_the_default(machine: Machine) -> None:
    machine.start()
    since = time.monotonic()
    with machine.lab.vpn_silent():
        assert machine.rcode("tunneled.example") == "SERVFAIL"
    assert machine.lab.asked_public(since) == []
    # A failure is believed for a while (RFC 9520), but not for longer than it takes to find out.
    machine.wait_for(lambda: machine.rcode("tunneled.example") == "NOERROR", "an answer", 6)


def test_down_refuses_at_once_and_up_brings_it_back(machine: Machine) -> None:
    machine.start()
    machine.dig("tunneled.example")
    machine.splitwg("down")
    assert machine.status()["state"] == "closed"
    assert machine.lab.client.run("curl", "-m", "5", "http://203.0.113.10", check=False).returncode == 7, "refused"
    assert machine.rcode("sub.tunneled.example") == "SERVFAIL"
    assert machine.lab.caller("203.0.113.20") == machine.lab.client_v4
    machine.splitwg("up")
    assert machine.lab.caller("203.0.113.10") == machine.lab.vpn_v4
    assert machine.status()["state"] == "on"


@pytest.mark.skipif(not shutil.which("wireguard-go"), reason="needs wireguard-go, to take it away")
def test_a_tunnel_that_cannot_be_opened_refuses_at_once_until_it_can(machine: Machine, tmp_path: Path) -> None:
    machine.configure(CONFIG + 'networks = ["203.0.113.10", "2001:db8:1::10"]\n')
    client = machine.lab.client
    (tmp_path / "sh").symlink_to("/bin/sh")
    machine.start(env={"PATH": str(tmp_path)})
    if machine.status()["state"] == "on":
        pytest.skip("needs a kernel without WireGuard")
    for flag, url in (("-4", "http://203.0.113.10/"), ("-6", "http://[2001:db8:1::10]/")):
        refused = client.run("curl", flag, "-sS", "-m", "5", url, check=False)
        assert refused.returncode == 7, refused.stderr  # could not connect: not 28, a time-out
    assert machine.rcode("tunneled.example") == "SERVFAIL"
    (tmp_path / "wireguard-go").symlink_to(shutil.which("wireguard-go") or "")
    client.run("ip", "address", "add", "192.0.2.99/32", "dev", "lo")  # an event, or half a minute goes by
    machine.wait_for(lambda: machine.status()["state"] == "on", "the tunnel to be open", 5)
    client.run("ip", "address", "del", "192.0.2.99/32", "dev", "lo")
    assert machine.lab.caller("203.0.113.10") == machine.lab.vpn_v4


def test_the_status_tells_what_is_wanted_held_and_when_the_last_handshake_was(machine: Machine) -> None:
    machine.start()
    machine.dig("tunneled.example")
    status = machine.status()
    assert status["wanted"] and set(status["wanted"]) == set(status["held"]) and not status["differs"]
    (peer,) = status["tunnels"][0]["peers"]
    assert peer["endpoint"] == f"{machine.lab.vpn_v4}:51820" and peer["handshake_age"] < 60 and peer["received"] > 0
    assert "last handshake" in machine.splitwg("status").stdout


def test_an_endpoint_by_name_is_resolved_in_the_end_and_closed_meanwhile(machine: Machine) -> None:
    lab = machine.lab
    lab.client.write(WIREGUARD, lab.wg_conf_with("vpn.example:51820"), 0o600)
    machine.configure(CONFIG.replace('"blocked.example"', '"vpn.example"') + 'networks = ["203.0.113.10"]\n')
    with lab.dns_silent("203.0.113.53"), lab.dns_silent("203.0.113.54"):
        machine.start()
        assert machine.rcode("tunneled.example") == "SERVFAIL"
        machine.wait_for_log("cannot be resolved yet")
        refused = lab.client.run("curl", "-sS", "--max-time", "4", "http://203.0.113.10/", check=False)
        assert refused.returncode == 7, refused.stderr  # refused; 28 is a time-out
    machine.wait_for(lambda: machine.dig("tunneled.example") == ["203.0.113.10"], "the endpoint's name")
    assert lab.caller("203.0.113.10") == lab.vpn_v4
    machine.wait_for(lambda: not machine.dig("vpn.example"), "what is known of the endpoint to hold for answers")
    assert "an address of this machine, of its gateways or of a server that it needs" in machine.log()


def test_a_link_that_exists_is_adopted_and_left_standing(machine: Machine) -> None:
    lab = machine.lab
    add_wireguard(lab.client, "wg0")
    bare = "\n".join(line for line in lab.wg_conf.splitlines() if not line.startswith(("Address", "Table", "Post")))
    lab.client.write("/run/bare.conf", bare, 0o600)
    lab.client.run("wg", "setconf", "wg0", "/run/bare.conf")
    lab.client.run("ip", "address", "add", "10.1.0.2/24", "dev", "wg0")
    lab.client.run("ip", "-6", "address", "add", "fd00:10:1::2/64", "dev", "wg0")
    lab.client.run("ip", "link", "set", "wg0", "up")
    try:
        before = state_of_the_kernel(lab)
        machine.start()
        machine.dig("tunneled.example")
        assert lab.caller("203.0.113.10") == lab.vpn_v4
        assert lab.client.run("wg", "show", "wg0", "fwmark").stdout.strip() == "0xfe"
        machine.end()
        machine.splitwg("teardown")
        assert state_of_the_kernel(lab) == before
        assert lab.client.run("wg", "show", "wg0", "fwmark").stdout.strip() == "off"
    finally:
        lab.client.run("ip", "link", "del", "wg0")


def test_teardown_leaves_nothing_and_is_safe_twice(machine: Machine) -> None:
    before = state_of_the_kernel(machine.lab)
    machine.start()
    machine.dig("tunneled.example")
    assert state_of_the_kernel(machine.lab) != before
    for _ in range(2):
        assert "nothing of splitwg is left" in machine.splitwg("teardown").stdout
        assert state_of_the_kernel(machine.lab) == before
    assert "stopped" in machine.log()


def test_the_client_works_without_a_daemon(machine: Machine) -> None:
    machine.start()
    machine.end()
    status = machine.status()
    assert status["state"] == "closed" and any("blackhole" in line for line in status["held"])
    machine.splitwg("teardown")
    assert machine.status()["state"] == "off"
    assert "does not run" in machine.splitwg("add", "later.example").stdout
    assert "later.example" in machine.splitwg("list").stdout.split()


def test_add_tunnels_at_once_and_remove_ends_it(machine: Machine) -> None:
    lab = machine.lab
    machine.start()
    assert machine.dig("later.example") == ["203.0.113.30"]
    assert lab.caller("203.0.113.30") == lab.client_v4
    machine.splitwg("add", "later.example")
    assert lab.caller("203.0.113.30") == lab.vpn_v4, "by the address that the client still remembers"
    assert machine.dig("later.example") == ["203.0.113.30"]
    assert "# with all below" in lab.client.read(DOMAINS), "comments are kept"
    machine.splitwg("remove", "later.example")
    assert lab.caller("203.0.113.30") == lab.client_v4
    assert "later.example" not in lab.client.read(DOMAINS)


def test_an_address_stays_while_another_name_holds_it(machine: Machine) -> None:
    machine.configure(CONFIG.replace('"blocked.example"', '"shared-a.example", "shared-b.example"'))
    machine.start()
    machine.dig("shared-a.example")
    machine.dig("shared-b.example")
    machine.splitwg("remove", "shared-a.example")
    assert machine.lab.caller("203.0.113.60") == machine.lab.vpn_v4
    machine.splitwg("remove", "shared-b.example")
    assert machine.lab.caller("203.0.113.60") == machine.lab.client_v4


def test_who_shares_an_address_with_a_tunneled_name_is_told(machine: Machine) -> None:
    machine.configure(CONFIG.replace('"blocked.example"', '"shared-a.example"'))
    machine.start()
    machine.dig("shared-b.example")
    assert "203.0.113.60 is not tunneled: shared-b.example" in machine.splitwg("why", "203.0.113.60").stdout
    machine.dig("shared-a.example")
    for asked in ("shared-a.example", "shared-b.example", "203.0.113.60"):
        said = machine.splitwg("why", asked).stdout
        assert "203.0.113.60 is tunneled through wg0: shared-a.example led to it" in said
        assert "are shared-b.example: not listed" in said
    can_ask = ("test", "-w", "/run/splitwg/control.sock")
    as_whom = {"root": can_ask, "a user": (*NOBODY, *can_ask)}
    answers = {who: machine.lab.client.run(*words, check=False).returncode == 0 for who, words in as_whom.items()}
    assert answers == {"root": True, "a user": False}, "what was looked up is nobody's business"
    machine.splitwg("remove", "shared-a.example")
    assert machine.lab.caller("203.0.113.60") == machine.lab.client_v4


@pytest.mark.parametrize(
    "edit",
    [
        "sed -i s/blocked.example/later.example/ {file}",
        "sed s/blocked.example/later.example/ {file} >/run/new && mv /run/new {file}",
        "cp {file} /run/target && rm {file} && ln -s /run/target {file} && sleep 0.5 "
        "&& sed -i --follow-symlinks s/blocked.example/later.example/ {file}",
        "head -c 100 {file} >/run/half; sed s/blocked.example/later.example/ {file} >/run/new; "
        "cat /run/half >{file}; sleep 0.4; cat /run/new >{file}",
    ],
    ids=["in place", "rename", "symlink", "half-written"],
)
def test_an_edit_is_seen_however_it_is_written(machine: Machine, edit: str) -> None:
    machine.start()
    machine.dig("later.example")
    machine.lab.client.run("sh", "-c", edit.format(file=DOMAINS))
    machine.wait_for(lambda: machine.lab.caller("203.0.113.30") == machine.lab.vpn_v4, "the reload")
    machine.lab.client.run("rm", DOMAINS)


def test_a_broken_file_changes_nothing_and_is_told_once(machine: Machine) -> None:
    machine.start()
    machine.dig("tunneled.example")
    machine.configure(CONFIG.replace("blocked.example", "blocked..example").replace("default", "defualt"))
    machine.wait_for_log("the old one goes on")
    log = machine.log()
    assert "dns.defualt: unknown key" in log and "an empty label" in log and "dns.default: is missing" in log
    assert machine.lab.caller("203.0.113.10") == machine.lab.vpn_v4
    assert machine.dig("sub.tunneled.example") == ["203.0.113.12"]
    machine.configure(CONFIG.replace("blocked.example", "later.example"))
    machine.wait_for_log("reloaded: ")


def test_port_53_taken_says_by_whom_and_touches_nothing(machine: Machine) -> None:
    before = state_of_the_kernel(machine.lab)
    code = "import socket,time; s=socket.socket(2,2); s.bind(('127.0.0.53',53)); print(1,flush=True); time.sleep(60)"
    thief = machine.lab.client.start("python3", "-c", code, stdout=-1)
    assert thief.stdout is not None and thief.stdout.readline()
    machine.start(ready=False)
    assert machine.process is not None and machine.process.wait(timeout=20) == 1
    assert f"taken by python3 (pid {thief.pid}" in machine.log()
    assert state_of_the_kernel(machine.lab) == before
    thief.kill()


def test_a_reload_may_open_another_door_and_fails_whole_where_it_cannot(machine: Machine) -> None:
    machine.start()
    more = CONFIG.replace("[dns]", '[dns]\nlisten = ["127.0.0.53", "127.0.0.1", "::1", "127.0.0.99"]')
    code = "import socket,time; s=socket.socket(2,2); s.bind(('127.0.0.99',53)); print(1,flush=True); time.sleep(60)"
    thief = machine.lab.client.start("python3", "-c", code, stdout=-1)
    assert thief.stdout is not None and thief.stdout.readline()
    machine.configure(more.replace("blocked.example", "later.example"))
    machine.wait_for_log("the old one goes on")
    assert machine.dig("blocked.example") == ["203.0.113.40"], "tunneled as before"
    assert not machine.status()["differs"]
    thief.kill()
    thief.wait()
    machine.configure(more)
    machine.wait_for_log("reloaded: ")
    assert machine.dig("tunneled.example", server="127.0.0.99") == ["203.0.113.10"]


def test_strict_reverse_path_filtering_is_no_obstacle(machine: Machine) -> None:
    with (
        sysctl(machine.lab, "net/ipv4/conf/all/rp_filter", 1),
        sysctl(machine.lab, "net/ipv4/conf/default/rp_filter", 1),
    ):
        machine.start()
        machine.dig("tunneled.example")
        assert machine.lab.caller("203.0.113.10") == machine.lab.vpn_v4


def test_a_machine_without_ipv6(machine: Machine) -> None:
    with sysctl(machine.lab, "net/ipv6/conf/all/disable_ipv6", 1):
        machine.start()
        machine.dig("tunneled.example")
        assert machine.lab.caller("203.0.113.10") == machine.lab.vpn_v4
        assert not machine.status()["differs"]
        machine.clean()
    restore_ipv6(machine.lab)


def restore_ipv6(lab: Lab) -> None:
    """Switching IPv6 off took the addresses and routes away."""
    lab.client.run("ip", "-6", "address", "replace", "2001:db8:c::2/64", "dev", "eth0", "nodad")
    lab.client.run("ip", "-6", "route", "replace", "default", "via", "2001:db8:c::1")


def test_without_a_v6_default_route_only_the_tunneled_v6_works(machine: Machine) -> None:
    lab = machine.lab
    lab.client.run("ip", "-6", "route", "del", "default")
    try:
        machine.start()
        machine.dig("tunneled.example", "AAAA")
        assert lab.caller("2001:db8:1::10") == lab.vpn_v6
        before = json.loads(lab.client.run("ip", "-j", "-s", "link", "show", "wg0").stdout)[0]["stats64"]["tx"]
        assert lab.client.run("curl", "-m", "3", "http://[2001:db8:1::20]", check=False).returncode == 7, "refused"
        after = json.loads(lab.client.run("ip", "-j", "-s", "link", "show", "wg0").stdout)[0]["stats64"]["tx"]
        assert after["packets"] == before["packets"], "nothing plain slips into the tunnel"
    finally:
        restore_ipv6(lab)


def test_a_container_is_tunneled_too(machine: Machine) -> None:
    """A namespace behind the client, which routes and masquerades for it, as a container engine does."""
    lab = machine.lab
    machine.start()
    machine.dig("tunneled.example")
    with container(lab), lab.capture() as seen:
        inside = ("ip", "netns", "exec", "box", "curl", "-s", "-m", "5")
        assert lab.client.run(*inside, "http://203.0.113.10").stdout.strip() == lab.vpn_v4
        assert lab.client.run(*inside, "http://203.0.113.20").stdout.strip() == lab.client_v4
    assert seen.from_client_to("203.0.113.20")
    assert seen.from_client_to("203.0.113.10") == []


@contextmanager
def container(lab: Lab) -> Iterator[None]:
    script = """
    ip netns add box && ip link add box0 type veth peer name eth0 netns box
    ip address add 172.16.0.1/24 dev box0 && ip link set box0 up
    ip -n box address add 172.16.0.2/24 dev eth0 && ip -n box link set eth0 up
    ip -n box route add default via 172.16.0.1
    nft add table ip engine
    nft 'add chain ip engine nat { type nat hook postrouting priority srcnat; }'
    nft 'add rule ip engine nat ip saddr 172.16.0.0/24 oifname "eth0" masquerade'
    """
    with sysctl(lab, "net/ipv4/ip_forward", 1):
        lab.client.run("sh", "-ec", script)
        try:
            yield
        finally:
            lab.client.run("sh", "-c", "nft delete table ip engine; ip link del box0; ip netns del box")


def test_an_application_bound_to_the_uplink_gets_nothing_out(machine: Machine) -> None:
    lab = machine.lab
    machine.start()
    machine.dig("tunneled.example", "A")
    machine.dig("tunneled.example", "AAAA")
    with lab.capture() as seen:
        for address in ("203.0.113.10", "[2001:db8:1::10]"):
            lab.client.run("curl", "-m", "2", "--interface", "eth0", f"http://{address}", check=False)
    assert seen.from_client_to("203.0.113.10", "2001:db8:1::10") == []
    assert seen.sought("203.0.113.10", "2001:db8:1::10") == []


def test_systemd_is_told(machine: Machine) -> None:
    listen = (
        "import socket,os; s=socket.socket(1,2); s.bind('/run/notify'); os.chmod('/run/notify',0o777)\n"
        "print(1,flush=True)\n"
        "while 1: open('/run/told','a').write(s.recv(4096).decode()+'\\n')"
    )
    told = machine.lab.client.start("python3", "-c", listen, stdout=-1)
    assert told.stdout is not None and told.stdout.readline()
    machine.start(env={"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "400000"})
    machine.splitwg("add", "later.example")
    machine.wait_for(lambda: machine.lab.client.read("/run/told").count("WATCHDOG=1") > 2, "three keep-alives")
    machine.end()
    machine.wait_for(lambda: "STOPPING=1" in machine.lab.client.read("/run/told"), "the end")
    text = machine.lab.client.read("/run/told")
    for words in ("READY=1", "STATUS=on: 2 domains", "RELOADING=1", "MONOTONIC_USEC=", "STATUS=on: 3 domains"):
        assert words in text
    assert text.index("RELOADING=1") < text.rindex("READY=1")
    told.kill()


def test_malformed_packets_stop_nothing(machine: Machine) -> None:
    machine.start()
    code = (
        "import os,socket\n"
        "s=socket.socket(2,2)\n"
        "for n in range(3000): s.sendto(os.urandom(n % 600), ('127.0.0.1', 53))\n"
        "t=socket.create_connection(('127.0.0.1',53)); t.sendall(os.urandom(5000)); t.close()"
    )
    machine.lab.client.run("python3", "-c", code)
    assert machine.dig("tunneled.example") == ["203.0.113.10"]
    assert "Traceback" not in machine.log()


def test_who_watches_sees_lookups_and_where_they_go(machine: Machine) -> None:
    machine.start()
    watching = machine.lab.client.start(*program("splitwg"), "watch", stdout=subprocess.PIPE)
    for number in range(8):
        machine.dig(f"n{number}.fresh.tunneled.example")
        machine.dig("plain.example")
        time.sleep(0.3)
    watching.terminate()
    lines = watching.communicate(timeout=20)[0].splitlines()
    asked = [line.split()[1:4] for line in lines]
    assert ["A", "n7.fresh.tunneled.example", "wg0"] in asked or ["A", "n6.fresh.tunneled.example", "wg0"] in asked
    assert asked.count(["A", "plain.example", "default"]) > 1, "also what comes from the cache"
    assert any("wg_domains4: +" in line for line in lines)
