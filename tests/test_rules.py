"""The words of the rules: marks of others are never touched, and each rule is known by its comment."""

from __future__ import annotations

import re

from splitwgd.objects import Table
from splitwgd.ruleset import make_table
from splitwgd.transaction import table_text
from tests.samples import config_with
from tests.tables import all_rules, each_table


@each_table
def test_no_write_of_a_mark_touches_a_foreign_bit(mask: int, table: Table) -> None:
    text = table_text(table, None)
    keeping = re.findall(r"(meta|ct) mark set \1 mark & (0x[0-9a-f]+) \| (0x[0-9a-f]+)\b", text)
    assert len(keeping) == text.count("mark set") > 0
    for _, kept, put in keeping:
        assert int(kept, 16) == ~mask & 0xFFFFFFFF
        assert int(put, 16) & ~mask == 0


@each_table
def test_no_comparison_of_a_mark_looks_at_a_foreign_bit(mask: int, table: Table) -> None:
    for rule in all_rules(table):
        if "outer packets of an adopted link" not in rule.comment:
            compared = re.sub(r"(meta|ct) mark set \1 mark & 0x\w+ \| 0x\w+", "", rule.text)
            assert compared.count(" mark") + compared.startswith("mark") == compared.count(f" mark & {mask:#x} ")


@each_table
def test_a_rule_is_known_by_a_comment_that_the_kernel_takes(mask: int, table: Table) -> None:
    digests: dict[str, str] = {}
    for rule in all_rules(table):
        assert re.fullmatch(r"[^\"\n]+ \[[0-9a-f]{8}\]", rule.comment)
        assert len(rule.comment.encode()) < 128
        assert digests.setdefault(rule.comment, rule.text) == rule.text


def test_another_mark_makes_other_comments() -> None:
    other = make_table(config_with({"routing.fwmark": "0x2"}))
    ours = {rule.comment for rule in all_rules(make_table(config_with({}))) if "0x1" in rule.text}
    assert ours.isdisjoint(rule.comment for rule in all_rules(other))
