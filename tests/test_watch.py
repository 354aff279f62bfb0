"""What somebody who watches sees, on a terminal and in a pipe."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

FOUND = [
    {
        "lookups": [
            {"name": "a.example", "type": 1, "group": "wg0", "rcode": 0, "records": 2, "ms": 12.3},
            {"name": "b.example", "type": 28, "group": "default", "rcode": 0, "records": 0, "ms": 1.0},
            {"name": "c.example", "type": 4711, "group": "wg0", "rcode": 2, "records": 0, "ms": 3.0},
        ],
        "missed": 7,
        "addresses": {"wg_domains4": count},
        "traffic": {"wg0": [received, 0]},
    }
    for count, received in ((3, 1000), (5, 6120))
]
PROGRAM = """
import itertools, json, sys
from splitwgd import cli, watch
from splitwgd.control import NoDaemon
found = iter(json.loads(sys.argv[1]))
def ask(request):
    assert request == {"do": "watch"}
    try:
        return next(found)
    except StopIteration:
        if sys.argv[2] == "ends":
            raise NoDaemon("splitwgd ended")
        return json.loads(sys.argv[1])[-1]
watch.ask, watch._EVERY = ask, 0.05
cli.main(["watch"])
"""


def test_in_a_pipe_it_is_a_line_each_until_the_daemon_ends() -> None:
    argv = [sys.executable, "-c", PROGRAM, json.dumps(FOUND), "ends"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, "splitwg: splitwgd ended\n")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][1:] == ["A", "a.example", "wg0", "2", "records,", "12", "ms"]
    assert lines[1][1:] == ["AAAA", "b.example", "default", "no", "such", "record,", "1", "ms"]
    assert lines[2][1:] == ["TYPE4711", "c.example", "wg0", "SERVFAIL,", "3", "ms"]
    assert lines[3] == ["and", "7", "more"]
    assert ["wg_domains4:", "+2", "addresses,", "5", "in", "all"] in lines
    assert "\x1b" not in done.stdout


def test_on_a_terminal_it_has_the_traffic_below_and_q_quits() -> None:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-c", PROGRAM, json.dumps(FOUND), "goes on"]
    with subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"}
    ) as watching:
        os.close(theirs)
        said = b""
        while b"100.0 KiB/s in" not in said:
            said += os.read(ours, 4096)
        os.write(ours, b"xq")
        assert watching.wait(20) == 0
    os.close(ours)
    assert b"q quits" in said and b"a.example" in said
