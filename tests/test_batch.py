"""Batches of set elements, byte by byte, with pyroute2 as the witness that reads them. That the kernel takes them
is shown in tests/kernel/test_elements.py."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink.nftsocket import nft_set_elem_list_msg, nft_table_msg

from splitwgd.batch import ask_table, make_batch, make_batch_of_tables, read_flags
from splitwgd.learned import COMMENT_LIMIT
from splitwgd.objects import Element

BEGIN, END, NEW, DELETE = 16, 17, 0x0A0C, 0x0A0E
REQUEST, ACK, EXCL, CREATE = 0x1, 0x4, 0x200, 0x400  # include/uapi/linux/netlink.h
FOUR, SIX = ip_address("192.0.2.1").packed, ip_address("2001:db8::1").packed


def messages(batch: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, all its bytes) of each message."""
    position = 0
    while position < len(batch):
        length, kind, flags, number, port = struct.unpack_from("=IHHII", batch, position)
        assert length % 4 == 0 and length >= 20 and port == 0
        yield kind, flags, number, batch[position : position + length]
        position += length
    assert position == len(batch)


def read(message: bytes) -> tuple[str, str, list[dict[str, Any]]]:
    """(table, set, its elements' attributes) as pyroute2 reads them."""
    found = nft_set_elem_list_msg(message)
    found.decode()
    assert (found["nfgen_family"], found["version"], found["res_id"]) == (1, 0, 0)
    elements = [
        {name.removeprefix("NFTA_SET_ELEM_"): value for name, value, *_ in element["attrs"]}
        for element in found.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS")
    ]
    return found.get_attr("NFTA_SET_ELEM_LIST_TABLE"), found.get_attr("NFTA_SET_ELEM_LIST_SET"), elements


def address(element: dict[str, Any]) -> bytes:
    ((name, value),) = element["KEY"]["attrs"]
    assert name == "NFTA_DATA_VALUE"
    return bytes(value)


def deeds(batch: bytes) -> list[tuple[str, str, list[bytes]]]:
    """What it does, in order: (verb, set, addresses)."""
    verbs = {(NEW, CREATE): "put", (NEW, CREATE | EXCL): "make", (DELETE, 0): "delete"}
    found = []
    for kind, flags, _, message in messages(batch):
        if kind not in (BEGIN, END):
            _, set_, elements = read(message)
            found.append((verbs[kind, flags & ~(REQUEST | ACK)], set_, [address(element) for element in elements]))
    return found


@pytest.mark.parametrize(("address_", "name"), [(FOUR, "a.example"), (SIX, "a.example b.example +"), (FOUR, "")])
def test_an_element_bears_its_address_its_life_and_its_comment(address_: bytes, name: str) -> None:
    batch, _ = make_batch("wg_routing", (), [Element("wg_domains4", address_, name, 3600.5)], ())
    ((_, _, _, message),) = [each for each in messages(batch) if each[0] == NEW]
    table, set_, (element,) = read(message)
    assert (table, set_) == ("wg_routing", "wg_domains4")
    assert address(element) == address_
    assert element["TIMEOUT"] == 3_600_500
    assert element["USERDATA"] == [("NFTNL_UDATA_SET_ELEM_COMMENT", name.encode())]
    assert set(element) == {"KEY", "TIMEOUT", "USERDATA"}


def test_a_comment_is_as_long_as_it_says_and_ends_with_a_zero() -> None:
    """pyroute2 does without the zero, nft does not (include/libnftnl/udata.h)."""
    batch, _ = make_batch("t", (), [Element("s", FOUR, "abc", 1)], ())
    assert batch.count(b"\0\4abc\0") == 1


@pytest.mark.parametrize("seconds", [1.0, 59.9994, 86429.99, 2_678_400.0])
def test_a_life_is_written_to_the_millisecond(seconds: float) -> None:
    batch, _ = make_batch("t", (), [Element("s", FOUR, "a", seconds)], ())
    _, _, (element,) = read(next(each[3] for each in messages(batch) if each[0] == NEW))
    assert seconds * 1000 - 1 < element["TIMEOUT"] <= seconds * 1000


def test_a_delete_names_the_address_alone() -> None:
    batch, _ = make_batch("t", [("s", SIX)], (), ())
    _, _, (element,) = read(next(each[3] for each in messages(batch) if each[0] == DELETE))
    assert (address(element), set(element)) == (SIX, {"KEY"})


def test_what_goes_makes_room_for_what_is_new_and_what_is_renewed_is_never_missing() -> None:
    new, renewed = Element("s", b"\1\1\1\1", "a", 9), Element("s", b"\2\2\2\2", "b", 9)
    batch, _ = make_batch("t", [("s", b"\3\3\3\3")], [new], [renewed])
    assert deeds(batch) == [
        ("delete", "s", [b"\3\3\3\3"]),
        ("make", "s", [new.address]),
        ("put", "s", [renewed.address]),
        ("delete", "s", [renewed.address]),
        ("put", "s", [renewed.address]),
    ]


def test_a_set_has_a_message_of_its_own() -> None:
    elements = [Element("s4", FOUR, "a", 9), Element("s6", SIX, "a", 9), Element("s4", b"\1\1\1\1", "a", 9)]
    assert deeds(make_batch("t", (), elements, ())[0]) == [
        ("make", "s4", [FOUR, b"\1\1\1\1"]),
        ("make", "s6", [SIX]),
    ]


def test_what_is_too_much_for_an_attribute_goes_into_several_messages() -> None:
    """Its length has 16 bits; these have the longest comments that there are."""
    many = [Element("s", number.to_bytes(16, "big"), "x" * COMMENT_LIMIT, 9) for number in range(1000)]
    batch, last = make_batch("t", [("s", each.address) for each in many], many, many)
    for verb in ("delete", "make", "put"):
        parts = [addresses for said, _, addresses in deeds(batch) if said == verb]
        times = {"make": 1, "delete": 2, "put": 2}[verb]
        assert [each for part in parts for each in part] == [each.address for each in many] * times
    assert last == 20


@pytest.mark.parametrize("count", [1, 256, 257, 600])
def test_the_last_change_and_no_other_is_acknowledged_by_its_number(count: int) -> None:
    elements = [Element("s", number.to_bytes(4, "big"), "a", 9) for number in range(count)]
    for gone, new, renewed in (([], elements, []), ([], [], elements), ([("s", FOUR)], elements, [])):
        batch, last = make_batch("t", gone, new, renewed)
        said = list(messages(batch))
        assert [number for _, _, number, _ in said] == list(range(len(said)))
        assert [number for _, flags, number, _ in said if flags & ACK] == [last]
        assert said[last + 1][0] == END and last + 2 == len(said)
        assert all(flags & REQUEST for _, flags, _, _ in said)


def test_a_batch_begins_and_ends_as_one_for_nf_tables() -> None:
    batch, _ = make_batch("t", [("s", FOUR)], (), ())
    (begin, *_, end) = messages(batch)
    assert (begin[0], end[0]) == (BEGIN, END)
    assert begin[3][16:] == end[3][16:] == b"\0\0" + (10).to_bytes(2, "big")  # nfgenmsg; 10 is the subsystem


@given(
    st.lists(
        st.builds(
            Element,
            st.sampled_from(["wg_domains4", "s"]),
            st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
            st.text("abc-_.\\019+ ", max_size=COMMENT_LIMIT),
            st.floats(1, 1e9),
        ),
        max_size=20,
    )
)
def test_whatever_is_put_in_is_read_out(elements: list[Element]) -> None:
    batch, _ = make_batch("wg_routing", (), elements, ())
    found = []
    for kind, _, _, message in messages(batch):
        if kind == NEW:
            _, set_, members = read(message)
            for each in members:
                ((_, comment),) = each["USERDATA"]
                found.append(Element(set_, address(each), comment.decode(), each["TIMEOUT"]))
    wanted = [Element(e.set, e.address, e.name, int(e.seconds * 1000)) for e in elements]
    assert sorted(found, key=str) == sorted(wanted, key=str)


# -- tables


def test_tables_are_dropped_and_made_in_their_order_with_both_flags_and_the_last_is_acknowledged() -> None:
    batch, last = make_batch_of_tables(("old", False), ("new", True))
    begin, drop, make, end = messages(batch)
    assert (begin[0], end[0], last) == (BEGIN, END, 2)
    assert [each[:3] for each in (drop, make)] == [(0x0A02, REQUEST, 1), (0x0A00, REQUEST | ACK | CREATE, 2)]
    assert table(drop[3]) == ("old", None) and table(make[3]) == ("new", 2 | 4)


def table(message: bytes) -> tuple[str, int | None]:
    """(name, flags) as pyroute2 reads them."""
    found = nft_table_msg(message)
    found.decode()
    assert (found["nfgen_family"], found["version"], found["res_id"]) == (1, 0, 0)
    return found.get_attr("NFTA_TABLE_NAME"), found.get_attr("NFTA_TABLE_FLAGS")


def test_one_table_is_asked_for_by_its_name() -> None:
    ((kind, flags, _, message),) = messages(ask_table("t"))
    assert (kind, flags, table(message)) == (0x0A01, REQUEST, ("t", None))


@pytest.mark.parametrize(
    ("bits", "words"), [(0, set()), (1, {"dormant"}), (2, {"owner"}), (6, {"owner", "persist"}), (12, {"persist"})]
)
def test_flags_are_read_wherever_they_stand_in_the_reply(bits: int, words: set[str]) -> None:
    name, use = struct.pack("=HH4s", 6, 1, b"t"), struct.pack("!HHI", 0, 0, 1)
    flags = struct.pack("=HH", 8, 2) + struct.pack("!I", bits)
    for attributes in (name + flags, flags + name, name + struct.pack("=HH", 8, 3) + use[4:] + flags):
        assert (
            read_flags(struct.pack("=IHHIIBBH", 20 + len(attributes), 0x0A00, 0, 0, 0, 1, 0, 0) + attributes) == words
        )


def test_an_error_is_no_table() -> None:
    error = struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -2) + struct.pack("=HHI", 8, 2, 0xFFFFFFFF)
    assert read_flags(error) == set()
