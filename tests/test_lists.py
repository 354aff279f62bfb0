"""Lists: every line is what `parse_pattern` says it is, whichever way it is read; and no file is read in vain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.config import load_config
from splitwgd.lists import LISTED_AT_MOST, read_lists
from splitwgd.names import NameProblem, parse_pattern
from splitwgd.patterns import CONTRADICTIONS_AT_MOST, PatternTable
from splitwgd.settings import Settings
from tests.samples import PATH, WG, WG_PATH, File, Memory, problems_of, toml


def read(files: Mapping[str, File] | Memory, before: PatternTable | None = None) -> tuple[PatternTable, list[str]]:
    """The table of all these files, and the problems."""
    memory = files if isinstance(files, Memory) else Memory(files)
    settings = Settings("f.toml", {}, memory)
    table = read_lists(settings, [(path, "e") for path in memory.files], before)
    return table, [str(problem) for problem in settings.problems]


def in_order(text: File) -> list[str]:
    """The patterns of one list; a table this small has one bucket, and keeps their order."""
    table, told = read({"l": text})
    assert told == []
    return [str(pattern) for pattern in table]


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("", []),
        ("\n\n  \n# nothing\n", []),
        ("a.example", ["a.example"]),
        ("a.example\nb.example\n", ["a.example", "b.example"]),
        ("A.Example\r\nb.example.\r\n", ["a.example", "b.example"]),
        ("\ufeffa.example\n", ["a.example"]),
        ("\ufeff# a list\na.example\n", ["a.example"]),
        ("\ta.example  # why\n#b.example\n =c.example\n", ["a.example", "=c.example"]),
        ("!a.example\n*.b.example\n!*.c.example\n!=d.example\ne.example\n", []),
        (
            "bücher.example\nxn--bcher-kva.example\n*.bücher.example\n",
            ["xn--bcher-kva.example", "*.xn--bcher-kva.example"],
        ),
        ("!bücher.example\n", ["!xn--bcher-kva.example"]),
        ("_dmarc.a-b.example\n1.2.3\n", ["_dmarc.a-b.example", "1.2.3"]),
        (f"{'a.' * 126}a\n", ["a." * 126 + "a"]),
        (f"{'a' * 63}.example\n", [f"{'a' * 63}.example"]),
    ],
)
def test_a_line_is_a_pattern(text: str, patterns: list[str]) -> None:
    assert in_order(text) == (patterns or [line for line in text.split() if "example" in line])


lines = st.text("aB9-_.=*!# \t\r/ü\x0b", max_size=12) | st.sampled_from(
    ["a.b", "a" * 63, "a" * 64, "a." * 126 + "b", "a." * 127, "a." * 127 + "b"]
)


@given(st.lists(lines, max_size=8), st.integers(0, 8))
def test_a_line_is_read_as_it_would_be_by_itself(entries: list[str], plain: int) -> None:
    """With plain lines around it and without them."""
    entries = [*["p.example"] * plain, *entries]
    expected, bad = set(), []
    for number, line in enumerate("\n".join(entries).split("\n"), 1):
        entry = line.partition("#")[0].strip()
        try:
            expected |= {parse_pattern(entry)} if entry else set()
        except NameProblem as problem:
            bad.append(f"l:{number}: {entry[:60]!r}: {problem.what}; {problem.remedy}")
    table, told = read({"l": "\n".join(entries)})
    assert told == bad
    if not table.contradicting:
        assert set(table) == expected


def test_bad_lines_are_counted_through_all_pieces_of_the_file() -> None:
    text = "good.example\n" * 50 + "a b\n" + "*.good.example # why\n" * 50 + "c d\n" * (LISTED_AT_MOST + 5)
    table, told = read({"l": text})
    assert [problem.split(": ")[0] for problem in told[:3]] == ["l:51", "l:102", "l:103"]
    assert told[LISTED_AT_MOST:] == ["l: 6 more lines like these; mend them too"]
    assert len(table) == 2


@pytest.mark.parametrize("start", [b"", b"a.example\n" * 100])
def test_a_byte_that_is_no_text_is_told_with_its_place_in_the_file(start: bytes) -> None:
    _, told = read({"l": start + b"caf\xe9.example\n"})
    assert told == [f"f.toml: tunneled.lists: 'e': l is not UTF-8 (byte {len(start) + 3}); save it as UTF-8"]


class Breaking(Memory):
    """A disk that fails in the middle of a file."""

    def pieces(self, path: str) -> Iterator[bytes]:
        yield b"a.example\n"
        raise OSError(5, "Input/output error")


def test_a_file_that_breaks_off_is_told() -> None:
    _, told = read(Breaking({"l": "a.example\n"}))
    assert told == ["f.toml: tunneled.lists: 'e': l cannot be read (Input/output error); correct the path or remove it"]


# -- again


class Counting(Memory):
    """Files, and how often one was read or there was a rest."""

    def __init__(self, files: Mapping[str, File]) -> None:
        super().__init__(files)
        self.reads: list[str] = []
        self.rests = 0
        self.written = 0

    def stamp(self, path: str) -> tuple[int, ...]:
        stamp = super().stamp(path)
        return (*stamp, self.written) if stamp else ()

    def pieces(self, path: str) -> Iterator[bytes]:
        self.reads.append(path)
        return super().pieces(path)

    def rest(self) -> None:
        self.rests += 1


def test_files_that_are_as_they_were_are_not_read_again() -> None:
    files = Counting({"l": "a.example\n", "m": "b.example\n"})
    first, _ = read(files)
    again, _ = read(files, first)
    assert again is first
    assert files.reads == ["l", "m"]


@pytest.mark.parametrize("change", [{"m": "c.example\n"}, {"n": "c.example\n"}, {"l": PermissionError(13, "denied")}])
def test_one_file_that_is_another_makes_another_table(change: dict[str, File]) -> None:
    files = Counting({"l": "a.example\n", "m": "b.example\n"})
    first, _ = read(files)
    files.files.update(change)
    again, _ = read(files, first)
    assert again != first
    assert sorted(map(str, first)) == ["a.example", "b.example"]


def test_a_file_that_was_written_anew_with_the_same_in_it_keeps_the_table() -> None:
    files = Counting({"l": "a.example\n"})
    first, _ = read(files)
    files.written = 1
    assert read(files, first)[0] is first
    assert read(files, first)[0] is first
    assert files.reads == ["l", "l"]
    assert list(map(str, first)) == ["a.example"]


def test_a_file_without_a_stamp_is_read_each_time() -> None:
    """A pipe, for example."""
    files = Counting({"l": "a.example\n"})
    files.stamp = lambda path: ()  # type: ignore[method-assign]
    first, _ = read(files)
    read(files, first)
    assert files.reads == ["l", "l"]


def test_a_long_list_is_read_in_steps_with_a_rest_after_each() -> None:
    files = Counting({"l": "".join(f"{number}.example\n" for number in range(2000))})
    table, _ = read(files)
    assert len(table) == 2000
    assert files.rests > 100


# -- in a configuration


def told_of(listed: str, **changes: str) -> list[str]:
    text = toml({"tunneled.lists": '["l"]', **{key.replace("_", "."): value for key, value in changes.items()}})
    return [problem.partition(": ")[2] for problem in problems_of(text, files={"/etc/splitwg/l": listed})]


def test_lists_that_contradict_themselves_are_told_within_bounds() -> None:
    assert told_of("a.b\nc.d\n!a.b") == ["tunneled: a.b and !a.b contradict each other; remove one of them"]
    names = [f"{number}.example" for number in range(CONTRADICTIONS_AT_MOST + 5)]
    told = told_of("\n".join([*names, *(f"!{name}" for name in names)]))
    assert len(told) == CONTRADICTIONS_AT_MOST + 1
    assert told[-1] == "tunneled: 5 more entries of lists contradict others; remove them"


@pytest.mark.parametrize("entry", ["ts.net", "=ts.net", "*.ts.net"])
def test_what_a_list_has_cannot_be_a_zone_of_its_own(entry: str) -> None:
    (told,) = told_of(f"a.b\n{entry}", dns_forward='{ "ts.net" = ["100.100.100.100"] }')
    assert told == f"tunneled: {entry} is a zone of dns.forward too; remove it from one of the two"
    assert told_of(f"!{entry}", dns_forward='{ "ts.net" = ["100.100.100.100"] }') == []


def test_another_domain_in_the_configuration_costs_no_list_its_reading() -> None:
    files = Counting({PATH: toml({"tunneled.lists": '["l"]'}), WG_PATH: WG, "/etc/splitwg/l": "a.b\n"})
    first = load_config(PATH, files)
    files.files[PATH] = toml({"tunneled.lists": '["l"]', "tunneled.domains": '["c.d"]'})
    again = load_config(PATH, files, first)
    assert again != first
    assert again.tunnels[0].listed is first.tunnels[0].listed
    assert files.reads == ["/etc/splitwg/l"]
