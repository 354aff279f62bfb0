"""Learned addresses are written while others change the ruleset all the time: row 60 of the table of attacks.

In a process of its own, which a library that calls exit() (libnftables does, on a bad reply) may take along.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from splitwgd.elements import Elements
from splitwgd.errors import SplitwgError
from splitwgd.gate import Gate
from splitwgd.learned import Ledger
from splitwgd.names import parse_name
from splitwgd.nft import Nft
from splitwgd.owner import Owner
from splitwgd.plan import OWNED
from splitwgd.ruleset import TABLE, make_table
from splitwgd.transaction import read_table, table_text
from splitwgd.turn import Turn
from tests.lab.hosts import ROOT
from tests.worlds import make_config

SECONDS = float(os.environ.get("SPLITWG_CHURN_SECONDS", "10"))  # the table wants an hour
BEAT, GRANTS, EACH = 0.01, 5, 4  # 2,000 addresses a second
NAMES = 12_500
SET = "wg_domains4"
PLAIN = make_table(make_config())
TABLES = {False: PLAIN, True: replace(PLAIN, flags=OWNED)}  # by whether it can have an owner
FIRST = int(IPv4Address("11.0.0.0"))

# Somebody's firewall, taken up and down all the time.
CHURN = """
rule() { for i in $(seq 40); do echo "add rule inet foreign c ip daddr 192.0.2.$i counter"; done; }
( echo "add table inet foreign; add chain inet foreign c { type filter hook output priority 0; };"
  echo "add set inet foreign s { type ipv4_addr; flags timeout; };"; rule
  echo "add element inet foreign s { 192.0.2.1 timeout 1s }" ) >"$1/up.nft"
while sleep 0.01; do
    nft -f "$1/up.nft" && nft delete table inet foreign && echo >>"$1/rounds"
done
"""


@contextlib.contextmanager
def foreign_churn(where: Path) -> Iterator[None]:
    churning = subprocess.Popen(["sh", "-c", CHURN, "sh", str(where)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        churning.kill()
        churning.wait()


def rounds(where: Path) -> int:
    return (where / "rounds").stat().st_size


def in_a_child(what: str, seconds: float, patience: float) -> dict[str, int]:
    """What that process counted; it must end in good time and say nothing but that."""
    argv = [sys.executable, "-m", "tests.kernel.test_churn", what, str(seconds)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=patience, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def addresses(number: int) -> list[bytes]:
    return [(FIRST + number * EACH + place).to_bytes(4, "big") for place in range(EACH)]


async def write(owner: Owner, seconds: float) -> Counter[str]:
    """Grants at a steady rate, by the gate through which every answer goes; each is renewed when its turn comes."""
    loop = asyncio.get_running_loop()
    gate = Gate(Turn(loop), Ledger(3600, 0), Elements(owner))
    counts: Counter[str] = Counter()
    start, number = loop.time(), 0
    while (now := loop.time()) < start + seconds:
        for _ in range(GRANTS):
            name = parse_name(f"n{number % NAMES}.example")
            places = [(SET, address) for address in addresses(number % NAMES)]
            gate.hold(gate.ledger.grant(name, places, 300, now), lambda given: counts.update([f"granted {given}"]))
            number += 1
        await asyncio.sleep(max(0.0, start + number / GRANTS * BEAT - loop.time()))
    await asyncio.sleep(0.1)
    counts["asked"] = number
    return counts


def rewrite(owner: Owner, stop: threading.Event, counts: Counter[str]) -> None:
    """What the reconciler does on a thread of its own: writes all rules anew, through the same socket."""
    while not stop.wait(0.2):
        try:
            owner.run(table_text(TABLES[owner.can_own], None))
            counts["rewritten"] += 1
        except SplitwgError:
            counts["rewriting refused"] += 1


def writing(seconds: float) -> Counter[str]:
    """Both at the same time."""
    counts = Counter[str]()
    owner = Owner(TABLE)
    if owner.can_own:
        owner.take()
    owner.run(table_text(TABLES[owner.can_own], None))
    stop = threading.Event()
    thread = threading.Thread(target=rewrite, args=(owner, stop, counts))
    thread.start()
    counts += asyncio.run(write(owner, seconds))
    stop.set()
    thread.join()
    return counts


@pytest.mark.timeout(SECONDS + 60)
def test_60_two_thousand_addresses_a_second_while_the_ruleset_churns(tmp_path: Path) -> None:
    with foreign_churn(tmp_path):
        counts = in_a_child("writing", SECONDS, SECONDS + 30)
    assert counts["asked"] >= 0.9 * SECONDS * GRANTS / BEAT, "at the rate that was meant"
    assert counts == {"asked": counts["asked"], "granted True": counts["asked"], "rewritten": counts["rewritten"]}
    assert counts["rewritten"] >= SECONDS and rounds(tmp_path) >= SECONDS
    held = {element.address for element in read_table(Nft().list_table(TABLE))[1]}
    given = [address for number in range(min(counts["asked"], NAMES)) for address in addresses(number)]
    assert [address for address in given if address not in held] == []


if __name__ == "__main__":
    print(json.dumps({"writing": writing}[sys.argv[1]](float(sys.argv[2]))))
