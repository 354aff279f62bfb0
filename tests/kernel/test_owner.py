"""The table's owner: nobody else changes the table while it lives; the table outlives it, and the next one takes it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from splitwgd import batch
from splitwgd.diff import compare
from splitwgd.elements import Elements
from splitwgd.errors import KernelError, MachineError
from splitwgd.guard import guard
from splitwgd.kernel import Kernel
from splitwgd.nft import Nft
from splitwgd.objects import Element, Table
from splitwgd.owner import Owner
from splitwgd.plan import OWNED, Facts, make_plan
from splitwgd.ruleset import TABLE, make_table
from splitwgd.transaction import read_table, table_text
from tests.kernel.spaces import sh
from tests.kernel.test_guard import LEARNED, remember
from tests.kernel.test_reconciler import elements
from tests.worlds import ip, make_config, wait_until

CONFIG = make_config(networks='"198.51.100.0/24"')
WANTED = replace(make_table(CONFIG), flags=OWNED)
LEARNT = Element("wg_domains4", ip("203.0.113.1").packed, "a.example", 600)
DOWN = frozenset({"wg0"})


@pytest.fixture
def owner() -> Iterator[Owner]:
    """With our table as it should be, and an address in it."""
    with closing(Owner(TABLE)) as made:
        if not made.can_own:
            pytest.skip("this kernel knows no owners that last")
        made.take()
        made.run(table_text(WANTED, None))
        Elements(made).write([LEARNT])
        yield made


def held() -> tuple[object, set[str]]:
    """The table without its flags, and the addresses in it."""
    table, _ = read_table(Nft().list_table(TABLE, elements=False))
    return table and replace(table, flags=frozenset()), set(elements())


WHOLE = (replace(WANTED, flags=frozenset()), {"203.0.113.1"})
DEEDS = [
    "flush ruleset",
    "delete table inet wg_routing",
    "flush table inet wg_routing",
    "flush set inet wg_routing wg_domains4",
    "flush chain inet wg_routing output",
    "delete chain inet wg_routing last_door",
    "delete element inet wg_routing wg_domains4 { 203.0.113.1 }",
    "add element inet wg_routing wg_domains4 { 203.0.113.2 timeout 60s }",
    "insert rule inet wg_routing output accept",
    "add chain inet wg_routing mine { type filter hook output priority -300; policy drop; }",
    "add table inet wg_routing { flags dormant; }",
]


@pytest.mark.parametrize("deed", DEEDS)
def test_what_others_do_to_the_table_changes_nothing(owner: Owner, deed: str) -> None:
    sh("nft add table inet other")
    sh(f"nft '{deed}'", check=False)
    assert held() == WHOLE
    assert ("other" in sh("nft list tables")) == (deed != "flush ruleset"), "of others' tables it does"


def test_the_owner_rewrites_it_and_keeps_its_addresses(owner: Owner) -> None:
    owner.run(table_text(replace(make_table(make_config()), flags=OWNED), WANTED))
    owner.run(table_text(WANTED, replace(make_table(make_config()), flags=OWNED)))
    assert held() == WHOLE and owner.flags() == OWNED


def test_it_outlives_its_owner_and_the_next_one_takes_it_over_as_it_is(owner: Owner) -> None:
    with closing(Owner(TABLE)) as follower:
        with pytest.raises(MachineError, match="end the process that owns the table"):
            follower.take()
        with pytest.raises(MachineError):
            Elements(follower).write((), (), [(LEARNT.set, LEARNT.address)])
        owner.close()
        assert held() == WHOLE and follower.flags() == {"persist"}
        follower.take()
        assert held() == WHOLE and follower.flags() == OWNED
        sh("nft flush ruleset; nft delete table inet wg_routing", check=False)
        assert held() == WHOLE


def test_who_takes_it_over_wakes_it(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    owner.close()
    with monkeypatch.context() as asleep:
        asleep.setattr(batch, "_OWNED", 1 | 4)  # as `nft add table inet wg_routing { flags dormant, persist; }`
        with closing(Owner(TABLE)) as foreign:
            foreign.take()
            assert foreign.flags() == {"dormant", "persist"}
    with closing(Owner(TABLE)) as follower:
        follower.take()
        assert follower.flags() == OWNED and held() == WHOLE


def test_a_process_that_it_starts_does_not_keep_the_table(owner: Owner) -> None:
    """A WireGuard process outlives the daemon; with its socket it would be the owner, and nobody could write."""
    with closing(Owner(TABLE)) as follower:
        child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        try:
            owner.close()
            wait_until(lambda: follower.flags() == {"persist"})
            follower.take()
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def test_asking_whether_the_kernel_can_leaves_nothing(owner: Owner) -> None:
    before = sh("nft list tables")
    with closing(Owner(TABLE)) as another:
        assert another.can_own
    assert sh("nft list tables") == before and held() == WHOLE


def test_a_table_that_has_gone_has_no_flags_and_its_removal_is_no_error(owner: Owner) -> None:
    owner.drop(TABLE)
    owner.drop(TABLE)
    assert owner.flags() == frozenset() and sh("nft list tables") == ""


# -- one socket for two ways of writing


def test_what_libnftables_is_refused_leaves_no_word_for_the_elements_and_the_other_way_round(owner: Owner) -> None:
    hand = Elements(owner)
    absent = [("wg_domains4", ip("203.0.113.9").packed)]
    for _ in range(3):
        with pytest.raises(KernelError, match="nf_tables: Error: .*No such file or directory"):
            owner.run("add rule inet wg_routing nowhere accept\nadd rule inet wg_routing nowhere drop")
        hand.write((), [LEARNT])
        with pytest.raises(KernelError):
            hand.write((), (), absent)
        owner.run(table_text(WANTED, WANTED))
    assert held() == WHOLE


def test_while_one_thread_is_in_a_transaction_it_is_busy_and_another_waits(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, leave = threading.Event(), threading.Event()
    run = Nft.run

    def slow(self: Nft, text: str) -> None:
        inside.set()
        leave.wait(10)
        run(self, text)

    monkeypatch.setattr(Nft, "run", slow)
    worker = threading.Thread(target=owner.run, args=(table_text(WANTED, WANTED),))
    worker.start()
    inside.wait(10)
    assert owner.busy and Elements(owner).busy
    other = threading.Thread(target=Elements(owner).write, args=((), [LEARNT]))
    other.start()
    leave.set()
    worker.join()
    other.join()
    assert held() == WHOLE
    assert not Elements(owner).busy


# -- a table of before


@pytest.mark.parametrize("asleep", [False, True])
def test_a_table_without_an_owner_is_made_anew_and_no_moment_is_without_one(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, asleep: bool
) -> None:
    """As an older splitwgd left it; dormant, it has been open already."""
    owner.drop(TABLE)
    plain = make_plan(CONFIG, Facts(down=DOWN))
    table = plain.objects["table", "inet", TABLE]
    assert isinstance(table, Table)
    owner.run(table_text(table, None, [LEARNT]))
    if asleep:
        sh("nft add table inet wg_routing '{ flags dormant; }'")
    seen: list[bool] = []

    def watched(method: str) -> None:
        does = getattr(Owner, method)

        def doing(self: Owner, *arguments: object, **options: object) -> None:
            does(self, *arguments, **options)
            tables = (read_table(Nft().list_table(name)) for name in (TABLE, f"{TABLE}_meanwhile"))
            seen.append(any(found and found.chains and len(there) == 1 for found, there in tables))

        monkeypatch.setattr(Owner, method, doing)

    for method in ("run", "take", "drop"):
        watched(method)
    with closing(Kernel(owner)) as kernel:
        wanted = make_plan(CONFIG, kernel.facts(CONFIG, DOWN))
        kernel.grow(compare(wanted, kernel.observe(CONFIG).plan), [LEARNT])
        assert not compare(wanted, kernel.observe(CONFIG).plan).grow
    assert len(seen) > 3 and all(seen)
    assert owner.flags() == OWNED and set(elements()) == {"203.0.113.1"}
    assert sh("nft list tables inet") == "table inet wg_routing\n"


@pytest.mark.usefixtures("unowned")
def test_where_the_kernel_knows_no_owners_the_table_is_everybodys(caplog: pytest.LogCaptureFixture) -> None:
    with closing(Owner(TABLE)) as owner, closing(Kernel(owner)) as kernel:
        with caplog.at_level("INFO"):
            kernel.take_over()
        assert "other programs can change our nft table" in caplog.text
        wanted = make_plan(CONFIG, kernel.facts(CONFIG, DOWN))
        kernel.grow(compare(wanted, kernel.observe(CONFIG).plan), [LEARNT])
        assert not compare(wanted, kernel.observe(CONFIG).plan) and owner.flags() == frozenset()
        sh("nft delete table inet wg_routing")


# -- beside a daemon


def test_the_guard_beside_an_owner_puts_rules_and_leaves_the_table_alone(
    owner: Owner, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    remember(*LEARNED)
    guard(make_config())
    assert held() == WHOLE
    assert "blackhole" in sh("ip route show table 100")
