"""The article's four tests, told as a story while they happen: `python -m tests.lab.demo`, in the enclosure.

The real daemon, in the client of the lab. Exit status: 0 all held, 1 something did not, 2 it cannot be shown
here, 130 interrupted. Whatever way it ends, nothing is left of it.
"""

from __future__ import annotations

import argparse
import difflib
import os
import subprocess
import sys
import time

from .hosts import Host, NotEnclosed, inhabitants
from .machine import DOMAINS
from .story import BURST, Bell, Stage, Story, until
from .world import lab
from .zone import addresses

CONFIG = """\
[dns]
tunneled = ["10.1.0.1"]                      # asked through the tunnel
default  = ["203.0.113.53", "203.0.113.54"]  # asked for all other names
[tunneled]
domains = ["tunneled.example", "blocked.example"]
"""
TRUTH_V4, TRUTH_V6 = addresses("blocked.example")
(LIE,) = addresses("blocked.example", honest=False)


def the_world(stage: Stage) -> None:
    """Who is who."""
    story, world = stage.story, stage.lab
    story.line("splitwg: chosen domains through WireGuard, and nothing of them any other way", "bold")
    story.say("Shown in a small internet inside this machine; your network is not touched.")
    story.line()
    for who, what in (
        ("you", f"{world.client_v4} and {world.client_v6}"),
        ("your ISP", "carries each packet of yours, and sees all that is in clear"),
        ("the VPN", f"a server elsewhere: {world.vpn_v4} and {world.vpn_v6}"),
        ("the sites", "tell each visitor the address they see"),
        ("public DNS", f"{world.public_dns[0]} and others: all lie about blocked.example"),
        ("the VPN's DNS", f"{world.vpn_dns[0]}, reached only through the tunnel: honest"),
    ):
        story.line(f"   {who:14} {what}")


def the_start(stage: Stage, with_daemon: bool) -> None:
    """The file and the daemon; or, to see that the checks can fail, the same client without it."""
    story = stage.story
    story.chapter("0  The start", "One file says what is tunneled, and one daemon does it.")
    story.say(stage.run(f"cat {DOMAINS}")[0])
    if not with_daemon:
        stage.lab.client.write("/etc/resolv.conf", f"nameserver {stage.lab.public_dns[0]}\n")
        story.check("splitwgd is left out, as you wished", "the daemon is ready", False)
        return
    story.command("", "splitwgd &")
    ready = stage.start_daemon()
    story.check("ready: " + stage.log().partition("ready: ")[2], "the daemon is ready", ready)
    if not ready:
        raise RuntimeError("the daemon did not get ready")


def a_tunneled_site(stage: Stage) -> None:
    """Test 1 of the article, both families, and the lie of the public DNS."""
    world = stage.lab
    stage.story.chapter("1  A site in the file", "It has to see the VPN; your ISP must not learn that you were there.")
    with stage.watched(hidden=("tunneled.example", "blocked.example")):
        stage.ask("curl -4 tunneled.example", world.vpn_v4, "the VPN's address")
        stage.ask("curl -6 tunneled.example", world.vpn_v6, "the VPN's address")
        stage.ask("curl -4 www.tunneled.example", world.vpn_v4, "the VPN's, though at a CDN")
        stage.ask(f"dig +short @{world.public_dns[0]} blocked.example", LIE, "the lie that others get", world.isp)
        stage.ask("dig +short blocked.example", TRUTH_V4, "the truth")
        stage.ask("curl -4 blocked.example", world.vpn_v4, "the VPN's address")


def a_plain_site(stage: Stage) -> None:
    """Test 2 of the article; it shows also that the ISP's eyes are open."""
    stage.story.chapter("2  A site not in the file", "It sees you as ever, and so does your ISP.")
    with stage.watched(plain=("plain.example",)):
        stage.ask("curl -4 plain.example", stage.lab.client_v4, "your own address")
        stage.ask("curl -6 plain.example", stage.lab.client_v6, "your own address")


def a_foreign_dns(stage: Stage) -> None:
    """Programs that bring a DNS server of their own."""
    story, world = stage.story, stage.lab
    four, six = world.foreign_dns, world.public_dns[2]
    started = time.monotonic()
    story.chapter(
        "3  A program that asks a DNS server of its own", "It is answered by splitwgd in that server's place."
    )
    with stage.watched(hidden=("tunneled.example", "blocked.example")):
        stage.ask(f"dig +short @{four} tunneled.example", addresses("tunneled.example")[0], "right")
        stage.ask(f"dig +short @{six} blocked.example", TRUTH_V4, "the truth")
        stage.ask(f"dig +short +tcp @{four} blocked.example AAAA", TRUTH_V6, "the truth")
        stage.ask(f"dig +short @{four} blocked.example", LIE, "the lie that others get", world.isp)
    asked = [question for question in world.asked_public(started) if question.server in (four, six)]
    yours = sum(question.client in (world.client_v4, world.client_v6) for question in asked)
    answer = f"asked there: {yours} by you, {len(asked) - yours} by ISP"
    story.check(answer, "they never heard from you", yours == 0 and len(asked) > 0)


def the_tunnel_down(stage: Stage) -> None:
    """Test 3 of the article, and that only the tunneled sites notice."""
    world = stage.lab
    stage.story.chapter("4  The tunnel goes down", "Its sites are refused, not let out in clear; all others go on.")
    with stage.watched(hidden=("tunneled.example",), plain=("plain.example",)):
        stage.ask("splitwg down", "down: what is tunneled is closed", "down")
        stage.refused("curl -4 tunneled.example")
        stage.refused("curl -6 tunneled.example")
        a_burst(stage)
        stage.ask("curl -4 plain.example", world.client_v4, "your own address, as ever")
    with stage.watched(hidden=("tunneled.example",)):
        stage.ask("splitwg up", "up: the link is back", "up again")
        stage.ask("curl -4 tunneled.example", world.vpn_v4, "the VPN's address again")


def a_burst(stage: Stage) -> None:
    """What impatient programs do: many new connections and packets, and lookups of names not known yet."""
    stage.story.say("and many at once: connections, packets, and lookups of new names below it")
    lookups = stage.lab.lookups(pattern="n{}.fresh.tunneled.example", count=BURST, every=5, patience=2)
    flows = stage.lab.stream(*addresses("tunneled.example"), seconds=0.5).wait()
    names = lookups.wait()
    tcp, udp = flows["tcp"], flows["udp"]
    echoes = sum(count for what, count in udp.items() if "." in what or ":" in what)
    for what, tried, through in (
        ("connections", tcp["tried"], tcp.get("connected", 0)),
        ("packets", udp["tried"], echoes),
        ("lookups", names["asked"], names.get("answered", 0)),
    ):
        stage.story.check(f"{tried} {what}, {through} succeeded", "none", tried >= BURST and through == 0)


def a_domain_added(stage: Stage) -> None:
    """Test 4 of the article: by the client, and by an editor."""
    story, world = stage.story, stage.lab
    story.chapter("5  A domain is added", "From then on it is tunneled, without a restart or a wait.")
    with stage.watched(plain=("later.example",)):
        stage.ask("curl -4 later.example", world.client_v4, "your own address, before")
        stage.ask("curl -6 later.example", world.client_v6, "your own address, before")
    with stage.watched(hidden=("later.example",)):
        stage.ask(
            "splitwg add later.example", "later.example added\nlater.example is tunneled now: 2 addresses", "added"
        )
        stage.ask("curl -4 later.example", world.vpn_v4, "the VPN's address")
        stage.ask("curl -6 later.example", world.vpn_v6, "the VPN's address")
    story.say("or with an editor; let it be the site of chapter 2")
    reloads = stage.log().count("reloaded: ")
    answer, _ = stage.run(f"""sed -i 's/"later.example"/&, "plain.example"/' {DOMAINS}""")
    edited = time.monotonic()
    noticed = stage.machine.process is not None and until(lambda: stage.log().count("reloaded: ") > reloads)
    took = f"in force after {time.monotonic() - edited:.2f} s" if noticed else "not noticed"
    story.check(f"{answer}\n{took}".strip(), "noticed by itself", noticed)
    with stage.watched(hidden=("plain.example",)):
        stage.ask("curl -4 plain.example", world.vpn_v4, "the VPN's address")
        stage.ask("curl -6 plain.example", world.vpn_v6, "the VPN's address")


def the_end(stage: Stage, before: list[str]) -> None:
    """Stopped is not open, and removed is removed."""
    story = stage.story
    story.chapter("6  The end", "Stopping does not open what was closed; teardown leaves nothing behind.")
    status, _ = stage.run("splitwg status | head -n 7")
    story.check(status, "on", status.startswith("splitwg is on"))
    story.say("now the daemon is stopped, as by systemctl stop; what of its site's address?")
    ended = stage.machine.process is not None and stage.machine.end() == 0
    story.check("stopped; ".join(("", *stage.log().split("stopped; ")[1:])), "stopped in order", ended)
    with stage.watched(hidden=("tunneled.example",)):
        answer, _ = stage.run(f"curl {addresses('tunneled.example')[0]}")
        story.check(answer, "still not in clear", answer != stage.lab.client_v4)
    stage.ask("splitwg teardown", "nothing of splitwg is left in the kernel", "removed")
    story.say("rules, routes, links, settings and processes, compared with before the start")
    until(lambda: stage.state() == before)  # what was told to end needs a moment
    changes = [line for line in difflib.ndiff(before, stage.state()) if line[0] in "+-"]
    answer = "\n".join((*changes, f"{len(changes)} of {len(before)} lines differ"))
    story.check(answer, "everything is gone", not changes)


def a_shell(stage: Stage) -> None:
    """For --keep: the client, and a daemon in it, for whoever sits at the terminal."""
    story = stage.story
    if not sys.stdin.isatty():
        story.line("--keep: stdin is no terminal, so there is no shell")
        return
    stage.lab.client.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
    stage.machine.configure(CONFIG)
    runs = stage.machine.process is not None or stage.start_daemon()
    story.line()
    story.line(f"You are in the client now, and splitwgd {'runs' if runs else 'does NOT run'}. Try:", "bold")
    story.say("curl tunneled.example\ncurl plain.example\nsplitwg status\nsplitwg down\nnft list ruleset")
    story.say(f"nano {DOMAINS}\nexit (ends it all)")
    stage.shell()


def tell(stage: Stage, with_daemon: bool) -> None:
    """The whole story."""
    the_world(stage)
    before = stage.state()
    the_start(stage, with_daemon)
    for chapter in (a_tunneled_site, a_plain_site, a_foreign_dns, the_tunnel_down, a_domain_added):
        chapter(stage)
    the_end(stage, before)


def show(story: Story, bell: Bell, keep: bool, with_daemon: bool) -> int:
    """Builds the lab, tells the story in it and takes it down; the exit status."""
    hosts: list[Host] = []
    status = 1
    try:
        with lab() as world, bell.heard():
            hosts += world.client, world.isp, world.vpn, world.internet
            stage = Stage(world, story, CONFIG)
            try:
                tell(stage, with_daemon)
            except Exception as error:
                story.broke_off(error)
            status = story.end(stage.log())
            if keep:
                a_shell(stage)
    except (KeyboardInterrupt, subprocess.SubprocessError, RuntimeError):
        if not bell.rung:
            raise
        status = 128 + bell.rung
    left = [pid for host in hosts for pid in inhabitants(host.netns)]
    gone = f"processes {left} are left" if left else "everything is gone"
    if left or bell.rung:
        story.line(f"interrupted; {gone}" if bell.rung else gone)
    return status or bool(left)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests.lab.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="at the end a shell in the client, with splitwgd running")
    parser.add_argument("--without-daemon", action="store_true", help="leave splitwgd out, to see that checks can fail")
    options = parser.parse_args()
    try:
        return show(Story(sys.stdout), Bell(), options.keep, not options.without_daemon)
    except NotEnclosed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
