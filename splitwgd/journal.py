"""How log lines look: for the journal where it listens, for a person at a terminal otherwise."""

from __future__ import annotations

import logging
import os


class _Format(logging.Formatter):
    """Lines for the journal: it knows the time, and takes the level from <N> (sd-daemon(3))."""

    _LEVELS = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

    def format(self, record: logging.LogRecord) -> str:
        head = f"<{self._LEVELS.get(record.levelno, 6)}>"
        return "\n".join(f"{head}{line}" for line in super().format(record).splitlines())


def log_to_stderr(level: int) -> None:
    """Sends what is logged there, ours from this level on."""
    handler = logging.StreamHandler()
    if "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(_Format("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("splitwgd").setLevel(level)  # ours alone: pyroute2 and asyncio tell every message at DEBUG
