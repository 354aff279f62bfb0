"""How log lines look in the journal and at a terminal, by a process of its own: logging is set up only once."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import logging
from splitwgd.journal import log_to_stderr
log_to_stderr(logging.INFO)
log = logging.getLogger("splitwgd.dns")
log.debug("not told")
log.info("first\\nsecond")
log.error("broken")
logging.getLogger("somebody").info("not ours")
"""


def lines(**environment: str) -> list[str]:
    base = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**base, **environment}, capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_for_the_journal_each_line_bears_its_level_and_no_time() -> None:
    assert lines(JOURNAL_STREAM="8:1") == ["<6>first", "<6>second", "<3>broken"]


def test_for_a_person_there_are_time_and_level() -> None:
    told = lines()
    assert [line[9:].split(" ", 1)[0] for line in told if line[:2].isdigit()] == ["INFO", "ERROR"]
    assert told[-1].endswith("broken")
