"""What a tap hears of a real machine: what leaves by any link but those that are left out, and only that."""

from __future__ import annotations

import sys

from .world import Lab

CODE = """
import socket, sys, time
from splitwgd.taps import Tap
with Tap(but=sys.argv[1].split(",")) as tap:
    for to in ("203.0.113.20", "127.0.0.1"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"heard", (to, 9))
    time.sleep(0.3)
heard = {data[16:20] for _, data in tap.packets if data[9] == 17 and data.endswith(b"heard")}
print(len(heard), tap.lost)
"""


def test_what_leaves_is_heard_and_what_is_left_out_is_not(lab: Lab) -> None:
    links = [line.split(": ")[1].split("@")[0] for line in lab.client.run("ip", "-o", "link").stdout.splitlines()]
    heard = [lab.client.run(sys.executable, "-c", CODE, but).stdout for but in ("lo", "", ",".join(links))]
    assert heard == ["1 0\n", "2 0\n", "0 0\n"]
