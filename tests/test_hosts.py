"""The hosts file, as people and blocklists write it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from splitwgd import hosts as hosts_module
from splitwgd.hosts import ADDRESSES_AT_MOST, parse_hosts
from splitwgd.names import NameProblem, parse_name, to_text
from tests.worlds import ip

DEBIAN = """\
127.0.0.1\tlocalhost
127.0.1.1\tbox.lan\tbox

# The following lines are desirable for IPv6 capable hosts
::1     localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
"""


def read(text: str) -> dict[str, str]:
    return {to_text(name): " ".join(map(str, addresses)) for name, addresses in parse_hosts(text)}


def test_debians_file_is_read() -> None:
    assert read(DEBIAN) == {
        "box.lan": "127.0.1.1",
        "box": "127.0.1.1",
        "ip6-localhost": "::1",
        "ip6-loopback": "::1",
        "ip6-allnodes": "ff02::1",
    }


def test_names_are_lower_case_wire_names_and_addresses_are_addresses() -> None:
    assert parse_hosts("192.0.2.1 NAS.Lan.") == ((b"\3nas\3lan\0", (ip("192.0.2.1"),)),)


LINES = [
    ("192.0.2.1 a b\tc", {"a": "192.0.2.1", "b": "192.0.2.1", "c": "192.0.2.1"}),
    ("192.0.2.1 a\r\n192.0.2.2 b\r\n", {"a": "192.0.2.1", "b": "192.0.2.2"}),
    ("  192.0.2.1   a  ", {"a": "192.0.2.1"}),
    ("192.0.2.1 a # b", {"a": "192.0.2.1"}),
    ("192.0.2.1 a#b c", {"a": "192.0.2.1"}),
    ("#192.0.2.1 a", {}),
    ("192.0.2.1", {}),
    ("192.0.2.1 # a", {}),
    ("0.0.0.0 ads.example", {"ads.example": "0.0.0.0"}),  # blocked: the file's own word
    ("0.0.0.0 0.0.0.0", {"0.0.0.0": "0.0.0.0"}),  # blocklists begin with this
    ("192.0.2.1 a\n2001:db8::1 a\n192.0.2.2 A.", {"a": "192.0.2.1 2001:db8::1 192.0.2.2"}),
    ("192.0.2.1 a\n192.0.2.1 a a\n", {"a": "192.0.2.1"}),
    ("192.0.2.1 my_host bücher.example", {"my_host": "192.0.2.1", "xn--bcher-kva.example": "192.0.2.1"}),
    ("fe80::1%eth0 router\nfe80::2 switch", {"switch": "fe80::2"}),
    ("127.0.0.1 localhost a.localhost LOCALHOST. notlocalhost", {"notlocalhost": "127.0.0.1"}),
    ("127.0.0.1 localhost.localdomain", {"localhost.localdomain": "127.0.0.1"}),
    ("192.0.2 a\n192.0.2.256 a\nexample.com a\n1 a\n192.0.2.01 a\n", {}),
    ("192.0.2.1 a..b *.c d/e good", {"good": "192.0.2.1"}),
    ("192.0.2.1 " + "a" * 64 + " " + "a." * 128 + "a good", {"good": "192.0.2.1"}),
]


@pytest.mark.parametrize(("text", "expected"), LINES, ids=[repr(text)[:50] for text, _ in LINES])
def test_a_file_says_this(text: str, expected: dict[str, str]) -> None:
    assert read(text) == expected


def test_a_name_has_no_more_addresses_than_an_answer_can_hold() -> None:
    (entry,) = parse_hosts("\n".join(f"192.0.2.{number} a" for number in range(256)))
    assert len(entry[1]) == ADDRESSES_AT_MOST


def test_a_file_without_end_is_read_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_module, "NAMES_AT_MOST", 3)
    text = "0.0.0.0 a b c d e\n::1 a\n# read in this test alone\n"
    assert read(text) == {"a": "0.0.0.0 ::1", "b": "0.0.0.0", "c": "0.0.0.0"}


def test_a_blocklist_is_read() -> None:
    found = parse_hosts(
        "127.0.0.1 localhost\n" + "".join(f"0.0.0.0 n{number}.example\n" for number in range(20_000)) * 2
    )
    assert len(found) == 20_000
    assert found[-1] == (parse_name("n19999.example"), (ip("0.0.0.0"),))
    assert len({id(addresses[0]) for _, addresses in found}) == 1  # one address on all lines is one in memory


@given(st.text("aZ0_-.", max_size=300).filter(bool))
@example("a" * 63 + "." + "a" * 63 + "." + "a" * 63 + "." + "a" * 61)
@example("a" * 63 + "." + "a" * 63 + "." + "a" * 63 + "." + "a" * 62)
@example("a" * 64)
def test_a_name_is_what_it_is_elsewhere(text: str) -> None:
    try:
        expected = [parse_name(text)]
    except NameProblem:
        expected = []
    assert [name for name, _ in parse_hosts(f"::1 {text}")] == expected


@given(st.text(max_size=100) | st.text("0.1:f%a#\n\t ", max_size=100))
def test_any_text_is_survived(text: str) -> None:
    for name, addresses in parse_hosts(text):
        assert len(name) > 2 and name == name.lower()
        assert addresses and len(set(addresses)) == len(addresses)
