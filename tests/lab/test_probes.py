"""`splitwg leaktest` in the lab: silent where the machine is closed, and loud where it is not."""

from __future__ import annotations

import json
import sys
from signal import SIGKILL
from typing import Any

import pytest

from .machine import Machine

NAME = "tunneled.example"


def leaktest(machine: Machine) -> dict[str, Any]:
    done = machine.splitwg("leaktest", "--json", NAME, check=False)
    print(done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == found["status"]
    return found


@pytest.mark.parametrize("down", [False, True])
def test_of_a_machine_that_is_closed_nothing_is_seen(machine: Machine, down: bool) -> None:
    machine.start()
    assert machine.dig(NAME) == ["203.0.113.10"]
    if down:
        machine.splitwg("down")
    found = leaktest(machine)
    assert (found["status"], found["seen"]) == (0, [])
    assert "203.0.113.10" in found["names"][NAME] and found["control"] and found["packets"]
    assert bool(found["connected"]) is not down


def test_without_a_daemon_and_without_its_table_all_of_it_is_seen(machine: Machine) -> None:
    machine.start()
    machine.end(SIGKILL)
    machine.lab.client.run("nft", "delete table inet wg_routing")
    found = leaktest(machine)
    assert found["status"] == 1
    asked = {each["name"] for each in found["seen"] if each["port"] == 53}
    connected = {each["to"] for each in found["seen"] if each["port"] in (80, 443)}
    assert asked == {NAME} and "203.0.113.10" in connected
    said = machine.splitwg("leaktest", NAME, check=False)
    assert said.returncode == 1 and f"seen in clear: a question for {NAME} to " in said.stdout


def test_while_the_table_holds_a_dead_daemon_lets_nothing_out(machine: Machine) -> None:
    machine.start()
    assert machine.dig(NAME) == ["203.0.113.10"]
    machine.end(SIGKILL)
    assert leaktest(machine)["seen"] == []


@pytest.mark.parametrize("server", ["192.0.2.53", "2001:db8:1::53"])
def test_a_question_of_a_program_that_is_bound_to_the_uplink_does_not_leave(machine: Machine, server: str) -> None:
    machine.start()
    code = "import sys; from ipaddress import ip_address; from splitwgd.probes import ask\n"
    code += "ask(b'\\x08tunneled\\x07example\\0', ip_address(sys.argv[1]), sys.argv[2])"
    uplink = machine.lab.client.run("sh", "-c", "ip -o route show default").stdout.partition(" dev ")[2].split()[0]
    with machine.lab.capture() as seen:
        machine.lab.client.run(sys.executable, "-c", code, server, uplink)
    assert seen.questions(NAME) == []
