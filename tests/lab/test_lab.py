"""The lab itself, without the daemon: it tells the truth about what it shows, and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .cables import add_wireguard
from .hosts import ROOT, NotEnclosed, inhabitants, require_enclosure
from .world import FOREIGN_DNS, PUBLIC_DNS, VPN_DNS, Lab
from .world import lab as standing_lab
from .zone import BIG, LIE, NOERROR, NXDOMAIN, addresses, resolve

PLAIN_V4, PLAIN_V6 = addresses("plain.example")
BLOCKED_V4, BLOCKED_V6 = addresses("blocked.example")


def dig(lab: Lab, server: str, name: str, *options: str) -> str:
    """What dig says in short."""
    argv = ("dig", "+short", "+tries=1", "+time=2", f"@{server}", name, *options)
    return lab.client.run(*argv, check=False).stdout.strip()


@contextmanager
def hand_made_tunnel(lab: Lab) -> Iterator[None]:
    """A tunnel as a person would make it, which takes the VPN's DNS and the blocked name."""
    only_wg = "\n".join(
        line for line in lab.wg_conf.splitlines() if not re.match("Address|Table|PostUp|PostDown", line)
    )
    add_wireguard(lab.client, "hand")
    try:
        lab.client.run("wg", "setconf", "hand", "/dev/stdin", input=only_wg)
        batch = ["addr add 10.1.0.2/24 dev hand", "addr add fd00:10:1::2/64 dev hand nodad"]
        batch += ["link set hand mtu 1420 up"]
        batch += [f"route add {address} dev hand" for address in (BLOCKED_V4, BLOCKED_V6)]
        lab.client.run("ip", "-batch", "-", input="\n".join(batch) + "\n")
        yield
    finally:
        lab.client.run("ip", "link", "del", "hand")


def recorder_of(lab: Lab) -> int:
    """The process of the capture that runs."""
    return next(pid for pid in inhabitants(lab.isp.netns) if "record" in Path(f"/proc/{pid}/cmdline").read_text())


def processes() -> set[int]:
    """Every living process of the enclosure."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/net"):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def test_the_web_sees_the_client_as_itself_and_the_capture_sees_just_that(lab: Lab) -> None:
    with lab.capture() as seen:
        assert lab.caller(PLAIN_V4) == lab.client_v4
        assert lab.caller(PLAIN_V6) == lab.client_v6
    for address in (PLAIN_V4, PLAIN_V6):
        assert [p.flags for p in seen.from_client_to(address)].count("S") == 1
    anywhere = seen.from_client_to("203.0.113.0/24", "192.0.2.0/24", "2001:db8:1::/48")
    assert {p.dst for p in anywhere} == {PLAIN_V4, PLAIN_V6}
    assert {p.proto for p in anywhere} == {"tcp"}
    assert seen.tunnel == 0


def test_questions_in_clear_are_seen_and_written_down(lab: Lab) -> None:
    since = time.monotonic()
    with lab.capture() as seen:
        assert dig(lab, PUBLIC_DNS[0], "Plain.Example") == PLAIN_V4
        assert dig(lab, PUBLIC_DNS[2], "plain.example", "AAAA", "+tcp") == PLAIN_V6
        assert dig(lab, FOREIGN_DNS, "txt.plain.example", "TXT") == '"the lab says hello"'
    assert [(p.proto, p.dst) for p in seen.questions("plain.example")] == [
        ("udp", PUBLIC_DNS[0]),
        ("tcp", PUBLIC_DNS[2]),
        ("udp", FOREIGN_DNS),
    ]
    assert len(seen.questions("txt.plain.example")) == 1
    assert not seen.questions("ain.example")
    assert [(a.server, a.client, a.kind, a.transport) for a in lab.asked_public(since)] == [
        (PUBLIC_DNS[0], lab.client_v4, "A", "udp"),
        (PUBLIC_DNS[2], lab.client_v6, "AAAA", "tcp"),
        (FOREIGN_DNS, lab.client_v4, "TXT", "udp"),
    ]


def test_whom_the_client_looks_for_on_the_cable_is_seen(lab: Lab) -> None:
    with lab.capture() as seen:
        assert lab.caller("198.51.100.77", timeout=1) == ""
        assert lab.caller("2001:db8:c::77", timeout=1) == ""
    assert {p.sought for p in seen.sought("198.51.100.77", "2001:db8:c::77")} == {
        "198.51.100.77",
        "2001:db8:c::77",
    }


def test_the_public_dns_lies_and_the_tunnel_brings_the_truth_unseen(lab: Lab) -> None:
    assert dig(lab, PUBLIC_DNS[1], "blocked.example") == LIE
    since = time.monotonic()
    with hand_made_tunnel(lab), lab.capture() as seen:
        for server in VPN_DNS:
            assert dig(lab, server, "blocked.example") == BLOCKED_V4
        assert lab.caller(BLOCKED_V4) == lab.vpn_v4
        assert lab.caller(BLOCKED_V6) == lab.vpn_v6
        with lab.vpn_silent():
            assert lab.caller(BLOCKED_V4, timeout=1) == ""
        assert lab.caller(PLAIN_V4) == lab.client_v4
    assert seen.tunnel > 20
    assert not seen.from_client_to(BLOCKED_V4, BLOCKED_V6, "10.1.0.0/24", "fd00::/8")
    assert not seen.questions("blocked.example")
    assert [(a.server, a.client) for a in lab.asked_vpn(since)] == [
        ("10.1.0.1", "10.1.0.2"),
        ("fd00:10:1::1", "fd00:10:1::2"),
    ]
    assert lab.asked_public(since) == []


def test_a_big_answer_is_cut_on_udp_and_whole_on_tcp(lab: Lab) -> None:
    cut = lab.client.run("dig", "+ignore", f"@{PUBLIC_DNS[0]}", "big.tunneled.example").stdout
    assert " tc " in cut
    assert BIG[0] not in cut
    assert sorted(dig(lab, PUBLIC_DNS[0], "big.tunneled.example", "+tcp").split()) == sorted(BIG)


def test_a_dns_server_can_refuse_fail_and_keep_silent(lab: Lab) -> None:
    def tally(name: str, server: str = PUBLIC_DNS[0]) -> dict[str, int]:
        counts = lab.lookups(server=server, pattern=name, count=1, patience=0.5).wait()
        return {key: value for key, value in counts.items() if key not in ("max", "median")}

    assert tally("servfail.example") == {"asked": 1, "servfail": 1}
    assert tally("silent.example") == {"asked": 1, "lost": 1}
    assert tally("nobody.example") == {"asked": 1, "nxdomain": 1}
    with lab.dns_silent(PUBLIC_DNS[0]):
        assert tally("plain.example") == {"asked": 1, "lost": 1}
        assert tally("plain.example", PUBLIC_DNS[1]) == {"asked": 1, "answered": 1}
    assert tally("plain.example") == {"asked": 1, "answered": 1}


def test_the_zone() -> None:
    www = resolve("WWW.tunneled.example.", "A", honest=True)
    assert www and [(r.name, r.data) for r in www.records] == [
        ("www.tunneled.example", "edge.cdn.example"),
        ("edge.cdn.example", "pop.cdn.example"),
        ("pop.cdn.example", "203.0.113.11"),
    ]
    fresh = resolve("n171.fresh.tunneled.example", "AAAA", honest=False)
    assert fresh and fresh.records[0].data == "2001:db8:1:f::ab"
    long = resolve("long.tunneled.example", "A", honest=True)
    assert long and long.records[0].ttl == 604800
    for name, kind, rcode in (("plain.example", "TYPE65", NOERROR), ("no.example", "A", NXDOMAIN)):
        nothing = resolve(name, kind, honest=True)
        assert nothing and (nothing.rcode, nothing.records) == (rcode, ())
        assert [r.ttl for r in nothing.authority] == [60]


@pytest.mark.parametrize(("transport", "kind"), [("udp", "A"), ("tcp", "AAAA")])
def test_connecting_at_once(lab: Lab, transport: str, kind: str) -> None:
    options = {"server": PUBLIC_DNS[0], "transport": transport, "kind": kind}
    expected = lab.client_v4 if kind == "A" else lab.client_v6
    assert lab.connect_at_once(50, **options).wait() == {expected: 50}


def test_the_stream_counts_each_flow_by_what_became_of_it(lab: Lab) -> None:
    with lab.capture() as seen:
        both = lab.stream(PLAIN_V4, PLAIN_V6, seconds=1).wait()
    assert both["tcp"] == {"tried": 500, "connected": 500}
    assert both["udp"] == {"tried": 500, lab.client_v4: 250, lab.client_v6: 250}
    assert sum(p.flags == "S" for p in seen.from_client_to(PLAIN_V4, PLAIN_V6)) == 500
    assert sum(p.proto == "udp" for p in seen.from_client_to(PLAIN_V4, PLAIN_V6)) == 500

    running = lab.stream("198.51.100.1")  # nobody listens at the isp
    time.sleep(0.2)
    closed = running.stop()
    assert closed["tcp"] == {"tried": closed["tcp"]["tried"], "ECONNREFUSED": closed["tcp"]["tried"]}
    assert "ECONNREFUSED" in closed["udp"]


def test_a_download_tells_whether_it_was_broken(lab: Lab) -> None:
    whole = lab.download(PLAIN_V4, seconds=1).wait()
    assert (whole["caller"], whole["lines"], whole["completed"]) == (lab.client_v4, 20, True)
    assert (whole["stalls"], whole["error"]) == (0, "")
    running = lab.download(PLAIN_V6, seconds=60)
    time.sleep(0.5)
    broken = running.stop()
    assert broken["caller"] == lab.client_v6
    assert not broken["completed"]


def test_the_dns_stands_two_thousand_questions_a_second(lab: Lab) -> None:
    counts = lab.lookups(server=PUBLIC_DNS[0], every=0.5, count=2000).wait()
    assert counts["answered"] == 2000


def test_a_host_keeps_its_files_to_itself(lab: Lab) -> None:
    for path in ("/etc/splitwg/x", "/etc/wireguard/x", "/var/lib/splitwg/x", "/run/splitwg/x", "/etc/x"):
        lab.client.write(path, "mine\n", mode=0o600)
        assert lab.client.read(path) == "mine\n"
        assert not Path(path).exists()
        assert lab.vpn.run("test", "-e", path, check=False).returncode == 1
    assert lab.client.run("ls", "/sys/class/net").stdout.split() == ["eth0", "lo"]
    assert lab.client.run("getent", "hosts", "plain.example").stdout.split()[0] == PLAIN_V6


def test_the_lab_refuses_to_start_outside_of_the_enclosure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPLITWG_OUTER_NETNS", raising=False)
    with pytest.raises(NotEnclosed, match="not set"):
        require_enclosure()
    monkeypatch.setenv("SPLITWG_OUTER_NETNS", os.readlink("/proc/self/ns/net"))
    with pytest.raises(NotEnclosed, match="machine's own"), standing_lab():
        pass


def test_two_labs_do_not_meet_and_leave_nothing(lab: Lab) -> None:
    before = processes()
    with standing_lab() as other:
        assert other.wg_conf != lab.wg_conf
        assert other.caller(PLAIN_V4) == other.client_v4
        assert dig(other, PUBLIC_DNS[0], "only-here.example") == ""
        assert "only-here.example" in {a.name for a in other.asked_public()}
        assert "only-here.example" not in {a.name for a in lab.asked_public()}
        assert lab.caller(PLAIN_V4) == lab.client_v4
        other.client.run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")  # as a daemon would
        assert processes() > before
        networks = [host.netns for host in (other.client, other.isp, other.vpn, other.internet)]
    assert [inhabitants(netns) for netns in networks] == [[], [], [], []]
    assert processes() == before


def test_a_capture_outlives_a_cut_cable_but_never_ends_blind(lab: Lab) -> None:
    with standing_lab() as own:
        with own.capture() as seen:
            own.isp.run("ip", "link", "set", "client", "down")
            own.isp.run("ip", "link", "set", "client", "up")
            assert own.caller(PLAIN_V4) == own.client_v4
        assert seen.from_client_to(PLAIN_V4)
        with pytest.raises(RuntimeError, match="blind"), own.capture(patience=1):
            own.isp.run("ip", "link", "set", "client", "down")
        own.isp.run("ip", "link", "set", "client", "up")
        with pytest.raises(RuntimeError, match="blind"), own.capture(patience=0.5):
            os.kill(recorder_of(own), signal.SIGSTOP)


def test_a_killed_enclosure_takes_its_lab_along(lab: Lab) -> None:
    before = processes()
    script = "import time; from tests.lab.world import lab\nwith lab(): print('up', flush=True); time.sleep(60)"
    unshare = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    outer = f"SPLITWG_OUTER_NETNS={os.readlink('/proc/self/ns/net')}"
    enclosure = subprocess.Popen(
        [*unshare, "env", outer, sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with enclosure:
        assert enclosure.stdout
        assert enclosure.stdout.readline() == "up\n"
        assert len(processes() - before) > 6
        enclosure.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while processes() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes() == before
