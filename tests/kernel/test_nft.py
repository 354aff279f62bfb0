"""The hand on nf_tables: whole transactions or nothing, and errors in nft's own words."""

from __future__ import annotations

import ctypes
import os

import pytest

from splitwgd.errors import KernelError, MachineError
from splitwgd.learned import COMMENT_LIMIT
from splitwgd.nft import Nft
from splitwgd.objects import Element, Table
from splitwgd.transaction import delete_text, insert_text, read_table, table_text
from tests.kernel.spaces import sh
from tests.worlds import ip

SET = "wg_domains4"


@pytest.fixture
def small(nft: Nft) -> Nft:
    """Our table with a set of learned addresses that holds three."""
    nft.run(f"add table inet wg_routing; add set inet wg_routing {SET} {{ type ipv4_addr; flags timeout; size 3; }}")
    return nft


def element(address: str, name: str = "example.com", seconds: float = 600) -> Element:
    return Element(SET, ip(address), name, seconds)


def elements(nft: Nft) -> dict[str, Element]:
    return {str(found.address): found for found in read_table(nft.list_table("wg_routing"))[1]}


def test_a_table_that_is_not_there_lists_as_nothing(nft: Nft) -> None:
    assert nft.list_table("wg_routing") == {}
    assert read_table({}) == (None, [])


def test_an_address_is_read_back_with_its_name_and_life(small: Nft) -> None:
    small.run(insert_text([element("203.0.113.1", "a.example b.example", 600)]))
    found = elements(small)["203.0.113.1"]
    assert (found.set, found.name) == (SET, "a.example b.example")
    assert 590 <= found.seconds <= 600


def test_a_second_insert_renews_life_and_name(small: Nft) -> None:
    small.run(insert_text([element("203.0.113.1", "old.example", 60)]))
    small.run(insert_text([element("203.0.113.1", "new.example", 600)]))
    found = elements(small)["203.0.113.1"]
    assert found.name == "new.example"
    assert found.seconds > 590


def test_an_insert_with_the_same_life_renews_it_too(small: Nft) -> None:
    small.run(f"add element inet wg_routing {SET} {{ 203.0.113.1 timeout 600s expires 10s }}")
    small.run(insert_text([element("203.0.113.1", seconds=600)]))
    assert elements(small)["203.0.113.1"].seconds > 590


def test_what_is_in_a_full_set_can_be_renewed(small: Nft) -> None:
    members = [element(f"203.0.113.{number}", "old.example", 60) for number in (1, 2, 3)]
    small.run(insert_text(members))
    small.run(insert_text([element("203.0.113.2", "new.example", 600)]))
    found = elements(small)
    assert len(found) == 3
    assert found["203.0.113.2"].name == "new.example" and found["203.0.113.2"].seconds > 590


def test_a_full_set_refuses_another_address_and_stays_as_it_was(small: Nft) -> None:
    small.run(insert_text([element(f"203.0.113.{number}") for number in (1, 2, 3)]))
    before = set(elements(small))
    with pytest.raises(KernelError):
        small.run(insert_text([element("203.0.113.1", "new.example"), element("203.0.113.4")]))
    found = elements(small)
    assert set(found) == before
    assert found["203.0.113.1"].name == "example.com"


def test_a_delete_takes_out_these_and_no_others(small: Nft) -> None:
    small.run(insert_text([element(f"203.0.113.{number}") for number in (1, 2, 3)]))
    small.run(delete_text([(SET, ip("203.0.113.1")), (SET, ip("203.0.113.3"))]))
    assert set(elements(small)) == {"203.0.113.2"}


def test_a_delete_of_what_is_absent_takes_out_nothing(small: Nft) -> None:
    small.run(insert_text([element("203.0.113.1")]))
    with pytest.raises(KernelError, match="No such file or directory"):
        small.run(delete_text([(SET, ip("203.0.113.1")), (SET, ip("203.0.113.3"))]))
    assert set(elements(small)) == {"203.0.113.1"}


def test_one_bad_line_undoes_the_whole_transaction(small: Nft) -> None:
    text = insert_text([element("203.0.113.1")]) + "\nadd element inet wg_routing no_such_set { 203.0.113.1 }"
    with pytest.raises(KernelError, match="nf_tables: .*No such file or directory"):
        small.run(text)
    assert elements(small) == {}


@pytest.mark.parametrize("text", ["add nonsense", "add rule inet wg_routing nowhere accept", "add table inet"])
def test_a_refusal_is_one_line_of_nfts_own(nft: Nft, text: str) -> None:
    with pytest.raises(KernelError) as error:
        nft.run(text)
    assert str(error.value).startswith("nf_tables: Error: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.example b.example +", "\\034\\010 +", "x" * 100])
def test_every_name_that_the_ledger_writes_fits_a_comment(small: Nft, name: str) -> None:
    small.run(insert_text([element("203.0.113.1", name)]))
    assert elements(small)["203.0.113.1"].name == name


def test_a_comment_as_long_as_the_ledger_makes_it_is_kept_whole(small: Nft) -> None:
    name = "x" * (COMMENT_LIMIT - 2) + " +"
    small.run(insert_text([element("203.0.113.1", name)]))
    assert elements(small)["203.0.113.1"].name == name


def test_without_the_right_to_it_the_error_says_run_as_root() -> None:
    """In a child, which gives its capabilities away for good."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(None).prctl(47, 4, 0, 0, 0)  # PR_CAP_AMBIENT, CLEAR_ALL
            os.setresuid(65534, 65534, 65534)
            try:
                Nft().run("add table inet wg_routing")
                os.write(writing, b"no error")
            except MachineError as error:
                os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        assert "run as root or with CAP_NET_ADMIN" in said.read()


def test_a_table_of_the_same_name_in_another_family_is_not_ours(nft: Nft) -> None:
    sh("nft add table ip wg_routing")
    assert nft.list_table("wg_routing") == {}
    nft.run(table_text(Table("wg_routing", (), ()), None))
    assert "table ip wg_routing" in sh("nft list tables")
