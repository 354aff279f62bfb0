"""The parts of the benchmark that only compute: dnsperf's report, medians, ratios, the table, the order."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import EDNS0, DNSRecord

from tests.bench.__main__ import keys
from tests.bench.dnsperf import parse_load, percentile
from tests.bench.loads import QUICK, Effort, Numbers
from tests.bench.names import TUNNELED, Questions, listed, questions
from tests.bench.peers import DNSMASQ, PEERS, SMARTDNS, SPLITWGD, Peer
from tests.bench.probe import question
from tests.bench.report import BEGIN, END, medians, put_into, ratio, shown, table
from tests.bench.rows import ROWS, Row
from tests.bench.world import compiled

REPORT = """\
DNS Performance Testing Tool
Version 2.10.0

[Status] Testing complete (end of file)

Statistics:

  Queries sent:         5
  Queries completed:    4 (80.00%)
  Queries lost:         1 (20.00%)

  Response codes:       NOERROR 3 (75.00%), SERVFAIL 1 (25.00%)
  Average packet size:  request 36, response 52
  Run time (s):         0.500000
  Queries per second:   8.000000

  Average Latency (s):  0.000068 (min 0.000035, max 0.000145)
"""
VERBOSE = """\
> NOERROR n0.t.bench.example A 0.000145
> NOERROR n1.t.bench.example A 0.000080
> SERVFAIL n2.t.bench.example A 0.000035
> T n3.t.bench.example A
> NOERROR n4.t.bench.example A 0.000036
"""


def test_a_report_is_read() -> None:
    load = parse_load(REPORT)
    assert (load.sent, load.completed, load.good, load.lost) == (5, 4, 3, 2)
    assert (load.seconds, load.rate) == (0.5, 8.0)
    assert load.latencies == ()


def test_latencies_are_those_of_answers_in_order() -> None:
    assert parse_load(VERBOSE + REPORT).latencies == (0.000035, 0.000036, 0.000080, 0.000145)


def test_nothing_answered_is_a_report_too() -> None:
    text = REPORT.replace("completed:    4", "completed:    0").replace("NOERROR 3 (75.00%), SERVFAIL 1 (25.00%)", "")
    assert parse_load(text).lost == 5


def test_what_is_no_report_is_an_error() -> None:
    with pytest.raises(ValueError, match="no such file"):
        parse_load("dnsperf: no such file")


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 5), (51, 6), (95, 10), (99, 10), (100, 10)])
def test_percentiles_are_values_that_were_measured(percent: int, value: int) -> None:
    assert percentile(list(range(1, 11)), percent) == value


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError):
        percentile([], 50)


def test_the_median_is_each_number_s_own() -> None:
    samples: list[Numbers] = [{"rate": 1, "cpu": 30}, {"rate": 3, "cpu": 10}, {"rate": 2, "cpu": 20}]
    assert medians(samples) == {"rate": 2, "cpu": 20}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (215_432.7, "215,433"),
        (100.4, "100"),
        (99.96, "100.0"),
        (12.34, "12.3"),
        (0.456, "0.46"),
        (0.0123, "0.012"),
        (0, "0"),
    ],
)
def test_numbers_are_shown_with_the_digits_that_count(value: float, text: str) -> None:
    assert shown(value) == text


def test_there_is_no_ratio_to_nothing() -> None:
    assert ratio(3, 0) == ratio(3, None) == ratio(None, 3) == ""
    assert ratio(3, 2) == "1.5"


def test_the_table_has_a_line_for_each_number_and_a_ratio_to_each_peer() -> None:
    row = ROWS[4]
    found: dict[tuple[Row, int, str], Numbers] = {
        (row, 10, "dnsmasq"): {"rate": 100, "cpu": 4e-5},
        (row, 10, "splitwgd"): {"rate": 300, "cpu": 2e-5},
        (row, 1000, "splitwgd"): {"rate": 200, "cpu": 3e-5},
    }
    assert table([row], found).splitlines() == [
        "|  |  | dnsmasq | splitwgd | splitwgd / dnsmasq |",
        "| --- | --- | --: | --: | --: |",
        "| **5** plain miss, 10 domains listed | queries/s | 100 | 300 | 3 |",
        "|  | CPU µs/query | 40 | 20 | 0.50 |",
        "| **5** plain miss, 1,000 domains listed | queries/s |  | 200 |  |",
        "|  | CPU µs/query |  | 30 |  |",
    ]


def test_the_document_keeps_all_but_the_last_run() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert put_into(document, "new\n") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(ValueError):
        put_into("a document without marks", "new")


def test_in_a_round_peer_comes_after_peer_and_rows_share_a_measure() -> None:
    order = keys([ROWS[4], ROWS[5]], QUICK)
    assert [(case, peer.name) for _, case, peer in order] == [
        (case, peer.name) for case in QUICK.lists for peer in (DNSMASQ, SMARTDNS, SPLITWGD)
    ]


def test_all_seven_rows_have_all_three() -> None:
    assert [row.number for row in ROWS] == [1, 2, 3, 4, 5, 6, 7]
    assert all({DNSMASQ, SMARTDNS, SPLITWGD} <= set(row.peers) for row in ROWS)
    assert Effort().runs >= 5


def test_a_list_has_its_length_and_ends_with_what_is_asked() -> None:
    domains = list(listed(1000))
    assert len(set(domains)) == 1000
    assert domains[-1] == TUNNELED


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_everybody_is_told_all_domains(peer: Peer) -> None:
    text = "".join(peer.files(("a.example", "b.example")).values())
    assert "a.example" in text
    assert "b.example" in text


def test_questions_are_a_file_that_others_can_read() -> None:
    asked = Questions(questions("x.example", 7, 2))
    assert Path(asked.path).read_text() == "n7.x.example A\nn8.x.example A\n"
    asked.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of one that runs."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no C compiler")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address: tuple[str, int] = sock.getsockname()
    program = [compiled(str(tmp_path_factory.mktemp("authority"))), address[0], str(address[1])]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield address
        process.kill()


@pytest.mark.parametrize(
    ("name", "kind", "answers"), [("n258.t.example", "A", ["11.0.1.2"]), ("n258.t.example", "AAAA", [])]
)
@pytest.mark.parametrize("edns", [False, True])
def test_the_authority_gives_each_name_its_address(
    authority: tuple[str, int], name: str, kind: str, answers: list[str], edns: bool
) -> None:
    asked = DNSRecord.question(name, kind)
    if edns:
        asked.add_ar(EDNS0(udp_len=1232))
    reply = DNSRecord.parse(asked.send(*authority, timeout=5))
    assert (reply.header.id, reply.header.rcode, reply.q) == (asked.header.id, 0, asked.q)
    assert [str(record.rdata) for record in reply.rr] == answers
    assert len(reply.ar) == edns


def test_the_authority_goes_on_after_rubbish(authority: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(authority)
        for rubbish in (b"", b"\0" * 12, b"\0" * 12 + b"\x3f" * 5, question("n1.example")[:-4], b"\xff" * 1000):
            sock.send(rubbish)
        sock.send(question("n1.example"))
        assert DNSRecord.parse(sock.recv(4096)).rr[0].rdata.data == (11, 0, 0, 1)
