"""The pulse of a client: on a steady beat a lookup, flows to tunneled and plain sites, and two long downloads.

Judges nothing by itself: it remembers when what was sent, and what became of it. Runs as a thread of the test with
sockets on the client.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from . import wire
from .asking import DAEMON, inside
from .load import family_of
from .scenarios import PLAIN, TUNNELED
from .world import Lab

EVERY = 0.02  # seconds between two beats
PATIENCE = 1.0  # seconds for an answer
ECHO = 9
FAMILIES = ("v4", "v6")
KINDS = ("lookup", "fresh", *(f"{site} {family}" for site in ("tunneled", "plain") for family in FAMILIES))
_IN_A_ROW, _RECENT = 4, 0.3  # so many successes, the last of them so many seconds ago, are a good sign


@dataclass
class Probe:
    """One question or one packet to a site; kind: one of KINDS. ok: None while it is under way."""

    kind: str
    sent: float
    query: bytes = b""
    ok: bool | None = None


@dataclass
class Flow:
    """One long download."""

    what: str
    last: float = 0.0
    ended: bool = False
    broken: bool = False  # known when all is over

    @property
    def flows(self) -> bool:
        return not self.ended and self.last > time.monotonic() - PATIENCE


class Pulse:
    """The beat; `begin` and `end` once each, and what was counted afterwards."""

    _numbers = count()

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.without: frozenset[str] = frozenset()
        self.probes: list[Probe] = []
        self.flows = (Flow("tunneled"), Flow("plain"))
        self._good: dict[str, list[float]] = {kind: [] for kind in KINDS}  # when the latest successes were sent
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[socket.socket, Probe] = {}
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        """Starts it."""
        self._thread.start()

    def end(self, patience: float) -> None:
        """Ends it, as soon as it is known what became of all; raises what went wrong in it.

        patience: in seconds, with a download that was held up for a while and may go on by and by.
        """
        until = time.monotonic() + patience
        while any(not flow.ended and not flow.flows for flow in self.flows) and time.monotonic() < until:
            time.sleep(0.05)
        for flow in self.flows:
            flow.broken = not flow.flows
        self._ending.set()
        self._thread.join(PATIENCE + 5)
        if self._failure is not None:
            raise self._failure

    def lacking(self) -> list[str]:
        """The kinds that do not work right now."""
        recent = time.monotonic() - _RECENT
        wanted = [kind for kind in KINDS if kind not in self.without]
        return [kind for kind in wanted if len(self._good[kind]) < _IN_A_ROW or self._good[kind][-1] < recent]

    def failed(self, *kinds: str) -> Iterator[Probe]:
        """The probes of these kinds (of all, if none is named) that failed."""
        wanted = frozenset(kinds or KINDS) - self.without
        return (probe for probe in self.probes if probe.kind in wanted and not probe.ok)

    # -- in the thread

    def _run(self) -> None:
        try:
            with inside(self.lab.client):
                self._beat_on()
        except BaseException as error:  # told by end()
            self._failure = error
        finally:
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()

    def _beat_on(self) -> None:
        for flow, address in zip(self.flows, (TUNNELED[0], PLAIN[0]), strict=True):
            self._download(flow, address)
        due = time.monotonic()
        while not self._ending.is_set():
            self._hear(max(0.0, due - time.monotonic()))
            self._give_up(time.monotonic() - PATIENCE)
            if time.monotonic() >= due:
                self._beat()
                due = max(due + EVERY, time.monotonic() - 10 * EVERY)
        until = time.monotonic() + PATIENCE
        while self._waiting and time.monotonic() < until:
            self._hear(0.02)
        self._give_up(time.monotonic())

    def _beat(self) -> None:
        number = next(self._numbers)
        turn = number % 2 if "tunneled v6" not in self.without else 0
        query = wire.query(number & 0xFFFF, f"n{number}.fresh.tunneled.example", ("A", "AAAA")[turn])
        self._send(Probe("lookup", time.monotonic(), query), DAEMON, 53)
        self._send(Probe(f"tunneled {FAMILIES[turn]}", time.monotonic()), TUNNELED[turn], ECHO)
        self._send(Probe(f"plain {FAMILIES[number % 2]}", time.monotonic()), PLAIN[number % 2], ECHO)

    def _send(self, probe: Probe, address: str, port: int) -> None:
        self.probes.append(probe)
        sock = socket.socket(family_of(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect((address, port))
            sock.send(probe.query or b"?")
        except OSError:
            sock.close()
            self._done(probe, False)
            return
        self._waiting[sock] = probe
        self._selector.register(sock, selectors.EVENT_READ, probe)

    def _hear(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if isinstance(key.data, Flow):
                self._read_on(sock, key.data)
                continue
            self._forget(sock)
            try:
                said = sock.recv(65_535)
            except OSError:
                said = b""
            sock.close()
            self._judge(key.data, said)

    def _judge(self, probe: Probe, said: bytes) -> None:
        if probe.kind == "lookup":
            try:
                addresses = wire.read_reply(said, probe.query).addresses
            except ValueError:
                addresses = ()
            self._done(probe, bool(addresses))
            for address in addresses:  # at once: nothing may come between the answer and the first packet
                self._send(Probe("fresh", time.monotonic()), address, ECHO)
            return
        by_tunnel = said.decode().strip() in (self.lab.vpn_v4, self.lab.vpn_v6)
        self._done(probe, bool(said) and by_tunnel == (not probe.kind.startswith("plain")))

    def _done(self, probe: Probe, ok: bool) -> None:
        probe.ok = ok
        good = self._good[probe.kind]
        if ok:
            self._good[probe.kind] = [*good[1 - _IN_A_ROW :], probe.sent]
        else:
            # One that was sent long ago and has been given up just now says nothing of what came after it.
            self._good[probe.kind] = [sent for sent in good if sent > probe.sent]

    def _give_up(self, before: float) -> None:
        for sock, probe in list(self._waiting.items()):
            if probe.sent > before:
                return
            self._forget(sock)
            sock.close()
            self._done(probe, False)

    def _forget(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        del self._waiting[sock]

    # -- downloads

    def _download(self, flow: Flow, address: str) -> None:
        try:
            sock = socket.create_connection((address, 80), timeout=PATIENCE)
        except OSError:
            flow.ended = True
            return
        sock.sendall(b"GET /slow?seconds=3600 HTTP/1.1\r\nHost: lab\r\n\r\n")
        sock.setblocking(False)
        flow.last = time.monotonic()
        self._selector.register(sock, selectors.EVENT_READ, flow)

    def _read_on(self, sock: socket.socket, flow: Flow) -> None:
        try:
            got = sock.recv(65_535)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if got:
            flow.last = time.monotonic()
            return
        flow.ended = True
        self._selector.unregister(sock)
        sock.close()
