"""The hand on nf_tables: whole transactions or nothing, errors in nft's own words, and listings."""

from __future__ import annotations

import ctypes
import os
import sys

import pytest

from splitwgd.errors import KernelError, MachineError
from splitwgd.nft import Nft
from splitwgd.objects import Table
from splitwgd.transaction import read_table, table_text
from tests.kernel.spaces import sh
from tests.worlds import ip

LISTED = """
table inet wg_routing {
  set wg_domains4 { type ipv4_addr; flags timeout; size 3; }
  set wg_domains6 { type ipv6_addr; flags timeout; }
  set wg_networks4 { type ipv4_addr; flags interval; elements = { 198.51.100.0/24, 192.0.2.1-192.0.2.3 } }
  set wg_networks6 { type ipv6_addr; flags interval; }
  set theirs { type inet_service; elements = { 80 } }
  chain c { type filter hook output priority 0; ip daddr @wg_networks4 accept comment "a rule"; }
}
add element inet wg_routing wg_domains4 { 203.0.113.1 timeout 600s comment "a.example b.example" }
add element inet wg_routing wg_domains6 { 2001:db8::1 timeout 600s }
"""


def test_a_table_that_is_not_there_lists_as_nothing(nft: Nft) -> None:
    assert nft.list_table("wg_routing") == {}
    assert read_table({}) == (None, [])


def test_a_table_is_read_back_with_the_names_and_lives_of_its_elements(nft: Nft) -> None:
    nft.run(LISTED)
    four, six = sorted(read_table(nft.list_table("wg_routing"))[1])
    assert (four.set, four.address, four.name) == ("wg_domains4", ip("203.0.113.1").packed, "a.example b.example")
    assert (six.set, six.address, six.name) == ("wg_domains6", ip("2001:db8::1").packed, "")
    assert all(590 <= each.seconds <= 600 for each in (four, six))


def test_the_table_is_the_same_without_the_elements(nft: Nft) -> None:
    """Networks are part of it; learned addresses may be tens of thousands, and hardly anybody wants them."""
    nft.run(LISTED)
    whole, bare = nft.list_table("wg_routing"), nft.list_table("wg_routing", elements=False)
    assert read_table(bare) == (read_table(whole)[0], [])
    table, _ = read_table(bare)
    assert table is not None
    assert {str(member) for each in table.sets for member in each.members} == {
        "198.51.100.0/24",
        "192.0.2.1/32",
        "192.0.2.2/31",
    }
    assert "203.0.113.1" not in str(bare)
    assert len(read_table(nft.list_table("wg_routing"))[1]) == 2, "the next listing has them again"


def test_a_table_that_is_not_there_has_no_elements_either(nft: Nft) -> None:
    assert nft.list_table("wg_routing", elements=False) == {}
    nft.run(LISTED)
    assert len(read_table(nft.list_table("wg_routing"))[1]) == 2


def test_a_listing_without_elements_does_not_fetch_them_nor_tell_of_other_tables(nft: Nft) -> None:
    """Fetched, a hundred thousand of them keep a core busy for seconds."""
    nft.run(LISTED + "\nadd table inet other\nadd set inet other wg_domains4 { type ipv4_addr; }")
    listing = nft.list_table("wg_routing", elements=False)
    assert {obj.get("table") or obj["name"] for item in listing["nftables"] for obj in item.values()} == {"wg_routing"}
    script = "from splitwgd.nft import Nft; Nft().list_table('wg_routing', elements=False)"
    calls = sh(f'strace -f -e trace=sendto,sendmsg {sys.executable} -c "{script}" 2>&1')
    assert calls.count("NFT_MSG_GETSET,") and calls.count("NFT_MSG_GETSETELEM") == 2, "those of the two interval sets"


def test_one_bad_line_undoes_the_whole_transaction(nft: Nft) -> None:
    nft.run("add table inet wg_routing")
    text = "add set inet wg_routing s { type ipv4_addr; }\nadd element inet wg_routing no_such_set { 203.0.113.1 }"
    with pytest.raises(KernelError, match="nf_tables: .*No such file or directory"):
        nft.run(text)
    assert "set s" not in sh("nft list ruleset")


@pytest.mark.parametrize("text", ["add nonsense", "add rule inet wg_routing nowhere accept", "add table inet"])
def test_a_refusal_is_one_line_of_nfts_own(nft: Nft, text: str) -> None:
    with pytest.raises(KernelError) as error:
        nft.run(text)
    assert str(error.value).startswith("nf_tables: Error: ")
    assert "\n" not in str(error.value)


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
