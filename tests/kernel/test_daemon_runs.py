"""The whole program in a namespace: port 53, reload by file, signal and socket, stop and teardown."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from dnslib import QTYPE, RR, DNSRecord
from dnslib import A as ARecord

from splitwgd.control import NoDaemon, ask
from splitwgd.errors import SplitwgError
from splitwgd.kernel import Kernel
from splitwgd.owner import Owner
from splitwgd.plan import Plan
from tests.kernel.spaces import Wire, sh
from tests.kernel.test_guard import LEARNED, remember
from tests.kernel.test_netlink import FOREIGN, world
from tests.kernel.test_reconciler import elements
from tests.lab.hosts import ROOT
from tests.worlds import WG, wait_until

pytestmark = pytest.mark.skipif(
    not (shutil.which("wireguard-go") and os.path.exists("/dev/net/tun")), reason="needs wireguard-go and /dev/net/tun"
)
TOML = """
[dns]
tunneled = ["192.0.2.53"]
default = ["198.51.100.53"]
[tunneled]
domains = [%s]
[wireguard]
config = "wg0.conf"
"""


class Program:
    """splitwgd in this namespace, as a child."""

    def __init__(self, house: Path, *options: str) -> None:
        code = "import sys; from splitwgd.daemon import main; sys.argv[0] = 'splitwgd'; main()"
        argv = [sys.executable, "-c", code, "--config", str(house / "domains.toml"), *options]
        self.log = house / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def said(self, words: str) -> bool:
        return words in self.log.read_text()

    def ready(self) -> Program:
        wait_until(lambda: self.said("ready: ") or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    (tmp_path / "wg0.conf").write_text(WG)
    write(tmp_path, '"example.com"')
    return tmp_path


def write(house: Path, domains: str) -> None:
    (house / ".new").write_text(TOML % domains)
    os.replace(house / ".new", house / "domains.toml")


@pytest.fixture
def start(house: Path, space: object) -> Iterator[Callable[[], Program]]:
    made: list[Program] = []

    def run() -> Program:
        made.append(Program(house))
        return made[-1]

    yield run
    for program in made:
        program.process.kill()
        program.process.wait()


@pytest.fixture
def servers(space: object) -> Iterator[None]:
    """A default server on a veth, and one that stands for the tunneled one behind it; each answers by its own net."""
    sh("ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up")
    sh("ip addr add 198.51.100.2/24 dev eth0; ip addr add 198.51.100.53/32 dev lo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("198.51.100.53", 53))

        def serve() -> None:
            while True:
                data, client = sock.recvfrom(4096)
                if not data:
                    return
                record = DNSRecord.parse(data)
                reply = record.reply()
                reply.add_answer(RR(str(record.q.qname), QTYPE.A, ttl=300, rdata=ARecord("203.0.113.1")))
                sock.sendto(bytes(reply.pack()), client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        sock.sendto(b"", ("198.51.100.53", 53))
        thread.join()


def lookup(name: str, to: str = "127.0.0.53") -> DNSRecord:
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((to, 53))
        sock.send(bytes(DNSRecord.question(name).pack()))
        return DNSRecord.parse(sock.recv(4096))


def test_it_answers_at_every_door_and_says_how_it_is(start: Callable[[], Program], servers: None) -> None:
    start().ready()
    for door in ("127.0.0.53", "127.0.0.1", "::1"):
        assert [str(record.rdata) for record in lookup("www.example.net", door).rr] == ["203.0.113.1"]
    status = ask({"do": "status"})
    assert (status["trouble"], status["differs"]) == ("", [])
    assert status["questions"]["asked"] == 3 and status["questions"]["from_cache"] == 2


def test_a_second_one_is_told_who_was_first_and_changes_nothing(start: Callable[[], Program], house: Path) -> None:
    first = start().ready()
    before = sh("nft list ruleset; ip rule; ip route show table all")
    second = start()
    assert second.process.wait(10) == 1
    words = second.log.read_text()
    assert "cannot listen on 127.0.0.53 port 53 (UDP): taken by " in words
    assert f"(pid {first.process.pid}" in words and "splitwgd runs already" in words and "Traceback" not in words
    assert sh("nft list ruleset; ip rule; ip route show table all") == before


def test_an_added_name_has_its_known_addresses_in_the_set_and_a_removed_one_not(
    start: Callable[[], Program], servers: None, house: Path
) -> None:
    program = start().ready()
    lookup("www.example.net")
    assert elements() == {}
    write(house, '"example.com", "example.net"')
    wait_until(lambda: program.said("reloaded: "))
    assert {address: element.name for address, element in elements().items()} == {"203.0.113.1": "www.example.net"}
    write(house, '"example.com"')
    wait_until(lambda: elements() == {})
    wait_until(lambda: program.log.read_text().count("reloaded: ") == 2)


@pytest.mark.parametrize("way", ["file", "signal", "socket"])
def test_a_mistake_is_told_once_and_the_old_configuration_goes_on(
    start: Callable[[], Program], servers: None, house: Path, way: str
) -> None:
    program = start().ready()
    before = sh("nft list ruleset")
    write(house, '"two words"')
    if way == "signal":
        program.process.send_signal(signal.SIGHUP)
    if way == "socket":
        with pytest.raises(SplitwgError, match="a space cannot be in a name"):
            ask({"do": "reload"})
    wait_until(lambda: program.said("the configuration has not been changed"))
    assert sh("nft list ruleset") == before
    assert lookup("www.example.net").rr
    write(house, '"example.com", "example.org"')
    wait_until(lambda: program.said("reloaded: "))


def test_down_refuses_up_opens_and_both_answer_when_it_is_so(start: Callable[[], Program]) -> None:
    start().ready()
    assert ask({"do": "down"}) == {"trouble": ""}
    assert "wg0" not in sh("ip -br link")
    assert ask({"do": "status"})["state"] == "closed"
    assert ask({"do": "up"}) == {"trouble": ""}
    assert "dev wg0" in sh("ip route show table 100")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_after_it_ends_it_is_closed_and_the_next_one_takes_over(
    start: Callable[[], Program], number: signal.Signals
) -> None:
    remember("203.0.113.7")
    program = start().ready()
    differs = "-e '^table' -e '^.flags' -e '^$' -e expires"  # its owner's name, its flags, and lives
    table = f"nft list table inet wg_routing | grep -v {differs} | sed 's/packets [0-9]* bytes [0-9]*//'"
    look = f"{table}; ip rule; ip route show table 100"
    kept = sh(f"{look}; pidof wireguard-go")
    assert program.end(number) == (-9 if number == signal.SIGKILL else 0)
    assert sh(f"{look}; pidof wireguard-go") == kept and "203.0.113.7" in elements()
    with pytest.raises(NoDaemon):
        ask({"do": "status"})
    start().ready()
    if "owner" in sh("nft list table inet wg_routing"):
        sh("nft flush ruleset inet; nft delete table inet wg_routing", check=False)
    assert sh(f"{look}; pidof wireguard-go") == kept and "203.0.113.7" in elements()
    status = ask({"do": "status"})
    assert (status["differs"], status["repairs"]) == ([], 0)


def test_what_no_tunneled_name_holds_any_more_is_let_go_at_the_start(start: Callable[[], Program], house: Path) -> None:
    assert start().ready().end() == 0
    for comment in ("a.example.com", "b.example.net", "a.example.com b.example.net", "unknown +"):
        number = len(elements()) + 1
        sh(f"nft add element inet wg_routing wg_domains4 '{{ 203.0.113.{number} timeout 600s comment \"{comment}\" }}'")
    start().ready()
    assert {element.name for element in elements().values()} == {
        "a.example.com",
        "a.example.com b.example.net",
        "unknown +",
    }


@pytest.mark.parametrize("running", [True, False])
def test_teardown_leaves_the_world_as_it_was(start: Callable[[], Program], house: Path, running: bool) -> None:
    sh(FOREIGN)
    before = world()
    program = start().ready()
    if not running:
        assert program.end(signal.SIGKILL) == -9
    argv = [sys.executable, "-c", "from splitwgd.cli import main; main(prog_name='splitwg')"]
    argv += ["--config", str(house / "domains.toml"), "teardown"]
    for _ in range(2):
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "nothing of splitwg is left in the kernel\n"
    if running:
        assert program.process.wait(10) == 3
    wait_until(lambda: world() == before)
    with closing(Owner("wg_routing")) as owner, closing(Kernel(owner)) as kernel:
        assert kernel.observe(None).plan == Plan.empty()


# -- over a reboot


def reboot(house: Path) -> None:
    """The kernel holds nothing of ours any more; the disk does."""
    sh("nft delete table inet wg_routing; ip route flush table 100; ip -6 route flush table 100")
    sh("ip rule del priority 100; ip -6 rule del priority 100; ip link del wg0", check=False)
    assert (house / "state/learned.json").exists()


def test_what_was_learned_outlives_a_reboot_and_the_guard_closes_it_first(
    start: Callable[[], Program], servers: None, house: Path
) -> None:
    write(house, '"example.com", "example.net"')
    assert start().ready().end(signal.SIGKILL) == -9
    sh("nft add element inet wg_routing wg_domains4 '{ 203.0.113.9 timeout 1000s comment \"a.example.com\" }'")
    program = start().ready()
    assert program.end() == 0
    reboot(house)
    assert Program(house, "--guard").process.wait(20) == 0
    assert {address: element.name for address, element in elements().items()} == {"203.0.113.9": "a.example.com"}
    assert 900 < elements()["203.0.113.9"].seconds <= 1001
    assert "wg0" not in sh("ip -br link")
    start().ready()
    assert ask({"do": "status"})["addresses"] == {"wg_domains4": 1}
    assert ask({"do": "status"})["differs"] == []


def test_from_the_guard_over_the_start_to_a_crash_and_another_start_nothing_opens(
    start: Callable[[], Program], house: Path, wire: Callable[[str, str], Wire]
) -> None:
    uplink = wire("eth0", "tun")
    sh("ip addr add 198.51.100.2/24 dev eth0; ip route add default dev eth0; ip -6 route add default dev eth0")
    remember(*LEARNED)
    with sending(b"-before-", *LEARNED):
        wait_until(lambda: len(uplink.carried(b"-before-")) > 10)
    assert Program(house, "--guard").process.wait(20) == 0
    with sending(b"-secret-", *LEARNED, "203.0.113.8"):
        start().ready().end(signal.SIGKILL)
        start().ready()
        assert Program(house, "--guard").process.wait(20) == 0
    assert ask({"do": "status"})["differs"] == []
    assert len(uplink.carried(b"-secret-")) > 100, "the plain address, as a control"
    plain = ip_address("203.0.113.8").packed
    assert [packet for packet in uplink.carried(b"-secret-") if plain not in packet] == []


@contextmanager
def sending(payload: bytes, *addresses: str) -> Iterator[None]:
    """A packet to each of them every two milliseconds, each a flow of its own."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.002):
            for address in addresses:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                with socket.socket(family, socket.SOCK_DGRAM) as sock, suppress(OSError):
                    sock.sendto(payload, (address, 9))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_with_a_broken_configuration_the_guard_touches_nothing(house: Path, space: object) -> None:
    before = world()
    write(house, '"two words"')
    guard = Program(house, "--guard")
    assert guard.process.wait(20) == 2
    assert guard.said("a space cannot be in a name") and guard.said("nothing is closed with this configuration")
    assert world() == before


def test_status_without_a_daemon_tells_what_the_kernel_holds(start: Callable[[], Program], house: Path) -> None:
    argv = [sys.executable, "-c", "from splitwgd.cli import main; main(prog_name='splitwg')"]
    argv += ["--config", str(house / "domains.toml"), "status"]

    def status(*options: str) -> str:
        done = subprocess.run([*argv, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
        return f"{done.returncode} {done.stdout}"

    assert status().startswith("3 splitwg is off: splitwgd does not run, ")
    assert "the kernel holds nothing of splitwg" in status()
    assert start().ready().end() == 0
    assert status().startswith("1 splitwg is closed: splitwgd does not run ")
    assert "nft table inet wg_routing" in "\n".join(json.loads(status("--json")[2:])["held"])
    sh("nft flush chain inet wg_routing output")
    assert status().startswith("2 splitwg is leaking: splitwgd does not run, and only a part ")
    sh("nft delete table inet wg_routing")
    assert status().startswith("2 splitwg is leaking: ")


def test_a_signal_alone_opens_nothing_whatever_on_stop_says(start: Callable[[], Program], house: Path) -> None:
    (house / "domains.toml").write_text(TOML % '"example.com"' + '[routing]\non_stop = "open"\n')
    assert start().ready().end() == 0
    with closing(Owner("wg_routing")) as owner, closing(Kernel(owner)) as kernel:
        assert "nft table inet wg_routing" in str(kernel.observe(None).plan)
