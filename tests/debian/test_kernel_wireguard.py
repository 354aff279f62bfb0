"""The package on Debian 12 and Debian 13 with their own kernels and the WireGuard in them: `sudo ./do test-vm`.

Runs in a guest of qemu's that has such a kernel, on which that release is booted as the client of the lab. On 6.1 an
element's life cannot be renewed in place, and nobody can own a table; on 6.12 both can be had.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.debian.packages import package
from tests.debian.test_machine import INSIDE, client_machine, nspawn
from tests.lab.capture import Seen
from tests.lab.conftest import lab  # noqa: F401  # the fixture
from tests.lab.world import Lab
from tests.lab.zone import addresses

pytestmark = pytest.mark.timeout(800)  # the boot is in the first test's time
RELEASE = os.environ.get("SPLITWG_GUEST", "")  # whose kernel this is
VERSIONS = {"bookworm": "6.1.", "trixie": "6.12."}


@dataclass
class Lived:
    """What became of the machine, and what the ISP saw."""

    lab: Lab
    found: dict[str, Any]
    seen: Seen


@pytest.fixture(scope="module")
def machine(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:  # noqa: F811
    """It has lived."""
    if not RELEASE:
        pytest.skip("needs a kernel with WireGuard: run sudo ./do test-vm")
    unit = INSIDE.replace("inside.py", "inside_kernel.py")
    folder = tmp_path_factory.mktemp("debian")
    with client_machine(lab, RELEASE, folder, unit, first=package("first")) as root, lab.capture() as seen:
        done = boot(lab, root)
        report = root / "out/report-1.json"
        progress = "".join(path.read_text() for path in (root / "out").glob("progress-*"))
        assert report.exists(), done.stdout + done.stderr + progress + (root / "out/errors").read_text()
        found = json.loads(report.read_text())
    yield Lived(lab, found, seen)


def boot(lab: Lab, root: Path) -> subprocess.CompletedProcess[str]:  # noqa: F811
    """From the first unit to the power-off."""
    argv = nspawn(lab, root)
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=700, check=False)


def test_the_tunnel_is_the_kernels(machine: Lived) -> None:
    assert machine.found["kernel"].startswith(VERSIONS[RELEASE]), machine.found["kernel"]
    assert machine.found["install"][0] == 0 and machine.found["setup"][0] == 0, machine.found
    assert " wireguard " in machine.found["link"] and machine.found["in userspace"] == ""
    status, said = machine.found["status"]
    assert status == 0 and said.startswith("splitwg is on: "), said


def test_the_articles_four_tests_hold(machine: Lived) -> None:
    own, vpn = machine.lab.client_v4, machine.lab.vpn_v4
    found = machine.found
    assert found["tunneled, plain"] == found["up: tunneled, plain"] == [vpn, own]
    assert found["down: tunneled, plain"] == ["", own]
    assert (found["later: before"], found["later: noticed"], found["later: after"]) == (own, True, vpn)
    assert found["lie"] == addresses("blocked.example")[0]
    assert "Traceback" not in found["journal"]


def test_an_element_is_renewed_with_its_life_and_its_names(machine: Lived) -> None:
    made, later, renewed, _ = machine.found["element"]
    assert (made["names"], renewed["names"]) == ("shared-a.example", "shared-a.example shared-b.example")
    assert later["left"] < made["left"] and later["left"] < renewed["left"]


def test_the_endpoints_address_may_be_tunneled(machine: Lived) -> None:
    found = machine.found
    assert found["endpoint"] and found["endpoint: up"][0] == 0
    assert found["endpoint: tunneled, plain"] == [machine.lab.vpn_v4, machine.lab.client_v4]
    assert int(found["handshake"]) > 0


def test_purge_leaves_nothing(machine: Lived) -> None:
    print(json.dumps(machine.found, indent=1))
    assert machine.found["purge"][0] == 0 and machine.found["purged"] == []


def test_nothing_of_what_is_listed_left_in_clear(machine: Lived) -> None:
    for name in ("tunneled.example", "blocked.example", "shared-b.example"):
        assert machine.seen.questions(name) == []
        assert machine.seen.from_client_to(*addresses(name)) == []
    assert machine.seen.tunnel and machine.seen.questions("plain.example"), "the ISP's eyes are open"
