"""Faults at random, one after another, under the load: the same seed plays the same ones in the same order.

All but the last have no time to heal, and some last while the next one comes.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from .scenarios import DOMAINS, ROUTES, RULES, SERVERS, connect, knock_on_the_uplink, wireguard_go

if TYPE_CHECKING:
    from .leaktest import Scene

Fault = Callable[["Scene", Random], None]
PATIENCE = 2.0  # seconds after the last fault until all works again
# WireGuard sends a handshake that was lost once more after 5 s (REKEY_TIMEOUT), and nobody can hurry it: towards the
# end there is no fault that swallows packets.
QUIET_LINE = 8.0


def _killed(scene: Scene, random: Random) -> None:
    scene.subject.kill()
    scene.wait(random.uniform(0, 0.5))
    scene.subject.start()


def _stopped(scene: Scene, random: Random) -> None:
    scene.subject.stop()
    scene.wait(random.uniform(0, 0.5))
    scene.subject.start()


def _paused(scene: Scene, random: Random) -> None:
    scene.subject.pause(random.uniform(0.2, 2))


def _down(scene: Scene, random: Random) -> None:
    scene.subject.down()
    scene.wait(random.uniform(0, 1))
    scene.subject.up()


def _reloaded(scene: Scene, random: Random) -> None:
    scene.subject.configure(
        [*DOMAINS, *(f"n{random.randrange(10**6)}.example" for _ in range(random.randrange(1, 50)))]
    )


def _sleeping_wireguard(scene: Scene, random: Random) -> None:
    processes = wireguard_go(scene.lab)
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    scene.wait(random.uniform(0.2, 1))
    for process in processes:
        os.kill(process, signal.SIGCONT)


def _wireguard_killed(scene: Scene, random: Random) -> None:
    for process in wireguard_go(scene.lab):
        os.kill(process, signal.SIGKILL)


def _vpn_silent(scene: Scene, random: Random) -> None:
    with scene.lab.vpn_silent():
        scene.wait(random.uniform(0.2, 1))


def _uplink_down(scene: Scene, random: Random) -> None:
    scene.client("ip link set eth0 down")
    scene.wait(random.uniform(0, 1))
    connect(scene.lab, 2)


def _address_changed(scene: Scene, random: Random) -> None:
    scene.client("ip address flush dev eth0 scope global")
    connect(scene.lab, random.randrange(2, 100))


def _foreign_rule(scene: Scene, random: Random) -> None:
    number = random.randrange(1, 99)
    scene.client(f"ip rule add priority {number} lookup main; ip -6 rule add priority {number} lookup main")
    scene.wait(random.uniform(0, 1))
    scene.client(f"ip rule del priority {number}; ip -6 rule del priority {number}")


def _foreign_route(scene: Scene, random: Random) -> None:
    route = random.choice(
        ("10.1.0.1/32 via 198.51.100.1", "203.0.113.0/24 via 198.51.100.1", "0.0.0.0/1 via 198.51.100.1")
    )
    scene.client(f"ip route add {route}")
    scene.wait(random.uniform(0, 1))
    scene.client(f"ip route del {route}")


def _asks_strangers(scene: Scene, random: Random) -> None:
    way = random.choice(("+tcp", "+notcp"))
    dig = ("dig", "+short", "+tries=1", "+time=1", way, f"@{random.choice(SERVERS)}", scene.fresh())
    scene.lab.client.run(*dig, check=False)


def _bound_to_the_uplink(scene: Scene, random: Random) -> None:
    knock_on_the_uplink(scene, random.uniform(0.1, 0.5))


def _shell(command: str) -> Fault:
    def run(scene: Scene, random: Random) -> None:
        scene.try_on_the_client(command)  # an earlier fault may have taken it

    return run


FAULTS: dict[str, Fault] = {
    "daemon killed": _killed,
    "daemon stopped": _stopped,
    "daemon paused": _paused,
    "tunnel down and up": _down,
    "reloaded": _reloaded,
    "WireGuard asleep": _sleeping_wireguard,
    "WireGuard killed": _wireguard_killed,
    "link deleted": _shell("ip link del wg0"),
    "link down": _shell("ip link set wg0 down"),
    "rules deleted": _shell(RULES),
    "routes flushed": _shell(ROUTES),
    "a rule of somebody else": _foreign_rule,
    "a route of somebody else": _foreign_route,
    "strangers asked": _asks_strangers,
    "bound to the uplink": _bound_to_the_uplink,
    "conntrack flushed": _shell("conntrack -F"),
}
NFT_FAULTS: dict[str, Fault] = {
    "ruleset flushed": _shell("nft flush ruleset"),
    "table deleted": _shell("nft delete table inet wg_routing"),
    "sets flushed": _shell("nft flush set inet wg_routing wg_domains4; nft flush set inet wg_routing wg_domains6"),
    "chain flushed": _shell("nft flush chain inet wg_routing output"),
    "everything at once": _shell(f"nft flush ruleset; {RULES}; {ROUTES}; ip link del wg0"),
}
LINE_FAULTS: dict[str, Fault] = {
    "VPN silent": _vpn_silent,
    "uplink down": _uplink_down,
    "address changed": _address_changed,
}
# Where nobody can own the table that marks (docs/decisions/0019), it is open after these until the repair.
OLD = [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]] < [6, 9]
ALL = FAULTS | LINE_FAULTS | ({} if OLD else NFT_FAULTS)


def chaos(seed: int, seconds: float, tell: Callable[[str], None]) -> Callable[[Scene], None]:
    """A scenario of so many seconds. tell: hears of each fault as it begins."""

    def play(scene: Scene) -> None:
        random = Random(seed)
        scene.patience = PATIENCE
        with scene.load(every=10):
            began = time.monotonic()
            while (left := began + seconds - time.monotonic()) > 0:
                name, own = random.choice(sorted(ALL)), Random(random.random())
                if name in LINE_FAULTS and left < QUIET_LINE:
                    continue
                tell(f"{seconds - left:6.2f} s  {name}")
                ALL[name](scene, own)
                scene.wait(own.uniform(0, 1))
            scene.mended()
        scene.client("ip address flush dev eth0 scope global")
        connect(scene.lab, 2)

    play.__name__ = "chaos"
    play.__doc__ = f"faults at random for {seconds:.0f} s (seed {seed})"
    return play
