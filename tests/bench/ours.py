"""The whole splitwgd with one thing replaced: its wg0 is a veth, which passes for a WireGuard link.

splitwgd adopts the link, as one that somebody else made, and asks nothing more of it. All else is the real
thing: reconciler, nft table, marks, rules and routes, listener, forwarder. The table has no owner, so that the bench
can fill its sets like those of the others. Nothing is imported here that splitwgd does not need, since its start and
its memory are measured.

`serve [OPTION...]` runs splitwgd; SIGUSR1 begins a profile of its loop, SIGUSR2 writes it. `--profile` is for a
person, see `profiling`.
"""

from __future__ import annotations

import os
import signal
import sys

from splitwgd import daemon
from splitwgd.kernel import Kernel
from splitwgd.objects import Device, PeerState
from splitwgd.owner import Owner

PROFILE = "/run/said/profile"


class _Pretended:
    """WireGuard's side of the veth: it has a key, and the mark for its outer packets that it was given."""

    def __init__(self) -> None:
        self.fwmark = 0

    def read(self, link: str) -> tuple[Device, list[PeerState]]:
        return Device(link, b"\1" * 32, 51820, self.fwmark, frozenset()), []

    def mark(self, link: str, mark: int) -> None:
        self.fwmark = mark


def serve() -> None:
    """Runs splitwgd until it ends."""
    pretended = _Pretended()
    setattr(Kernel, "_wire", lambda kernel, link: pretended)  # noqa: B010  mypy refuses a plain assignment
    signal.signal(signal.SIGUSR1, _profile)
    setattr(Owner, "can_own", False)  # noqa: B010
    daemon.main()


def _profile(number: int, frame: object) -> None:
    """Python runs this on the main thread, which is the loop's."""
    import cProfile
    import pstats

    profile = cProfile.Profile()

    def write(number: int, frame: object) -> None:
        profile.disable()
        with open(f"{PROFILE}.part", "w") as file:
            statistics = pstats.Stats(profile, stream=file)
            statistics.sort_stats("tottime").print_stats(40)
            statistics.sort_stats("cumulative").print_stats(60)
        os.replace(f"{PROFILE}.part", PROFILE)

    signal.signal(signal.SIGUSR2, write)
    profile.enable()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        del sys.argv[1]
        serve()
    else:
        from .profiling import main

        main()
