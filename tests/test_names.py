"""Names: what a person may write, what is refused and why, and the way to the wire and back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.names import ROOT, Name, NameProblem, Pattern, Scope, parse_name, parse_pattern, tails, to_text

EXAMPLE = b"\x07example\x03com\0"

plain_labels = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63)
plain_names = st.lists(plain_labels, min_size=1, max_size=8).map(".".join).filter(lambda text: len(text) <= 253)
wire_names = (
    st.lists(st.binary(min_size=1, max_size=63), max_size=8)
    .map(lambda labels: b"".join(bytes((len(label),)) + label for label in labels) + ROOT)
    .filter(lambda name: len(name) <= 255)
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.com", EXAMPLE),
        ("Example.COM.", EXAMPLE),
        ("com", b"\x03com\0"),
        ("_dmarc.example.com", b"\x06_dmarc" + EXAMPLE),
        ("bücher.example", b"\x0dxn--bcher-kva\x07example\0"),
        ("BÜCHER.Example.", b"\x0dxn--bcher-kva\x07example\0"),
        ("xn--bcher-kva.example", b"\x0dxn--bcher-kva\x07example\0"),
        ("straße.de", b"\x0dxn--strae-oqa\x02de\0"),
        ("a" * 63, b"\x3f" + b"a" * 63 + b"\0"),
        ("1.2.3.4", b"\x011\x012\x013\x014\0"),
    ],
)
def test_a_name_is_read_into_its_lower_case_wire_form(text: str, name: Name) -> None:
    assert parse_name(text) == name


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "an empty name"),
        (".", "an empty name"),
        ("exa\nmple.com", "a line break"),
        ("exa\rmple.com", "a line break"),
        ("exa\0mple.com", "a zero byte"),
        ("example.com/path", "a slash"),
        ("https://example.com", "a slash"),
        ("example.com:443", "a colon"),
        ("exam ple.com", "a space"),
        ("example\t.com", "a tab"),
        ("www.*.com", "a star"),
        ("me@example.com", "an @"),
        ('exam"ple.com', "a quotation mark"),
        ("exam\\046ple.com", "a backslash"),
        ("example..com", "an empty label"),
        (".example.com", "an empty label"),
        ("example.com..", "an empty label"),
        ("a" * 64 + ".com", "has 64 bytes"),
        ("ü" * 63 + ".com", "is no internationalised label"),
        (".".join(["a" * 63] * 4), "longer than 255 bytes"),
        ("exam;ple.com", "is no label"),
        ("exam\x1bple.com", "is no label"),
        ("-ü.com", "is no internationalised label"),
        ("例。com", "is no label"),
    ],
)
def test_what_is_no_name_is_refused_with_a_reason_and_a_remedy(text: str, what: str) -> None:
    with pytest.raises(NameProblem) as caught:
        parse_name(text)
    assert what in caught.value.what
    assert caught.value.remedy
    assert str(caught.value) == f"{caught.value.what}; {caught.value.remedy}"


def test_a_name_may_have_255_bytes_and_not_256() -> None:
    longest = ".".join(["a" * 63] * 3 + ["a" * 61])
    assert len(parse_name(longest)) == 255
    with pytest.raises(NameProblem):
        parse_name(longest + "a")


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("example.com", Pattern(EXAMPLE)),
        ("=example.com", Pattern(EXAMPLE, Scope.ONLY_ITSELF)),
        ("*.example.com", Pattern(EXAMPLE, Scope.ONLY_BELOW)),
        ("!example.com", Pattern(EXAMPLE, exception=True)),
        ("!=example.com", Pattern(EXAMPLE, Scope.ONLY_ITSELF, True)),
        ("!*.example.com", Pattern(EXAMPLE, Scope.ONLY_BELOW, True)),
        ("\t *.Example.COM. ", Pattern(EXAMPLE, Scope.ONLY_BELOW)),
    ],
)
def test_a_pattern_says_how_far_it_reaches(text: str, pattern: Pattern) -> None:
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize("text", ["", "!", "=", "*.", "*", "!!a", "==a", "=*.a", "*.*.a", "*a", "! a", ".a", "a=b"])
def test_a_pattern_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(NameProblem):
        parse_pattern(text)


@pytest.mark.parametrize("text", ["example.com", "=example.com", "*.example.com", "!=example.com", "!*.a", "!a"])
def test_a_pattern_prints_as_it_is_written(text: str) -> None:
    assert str(parse_pattern(text)) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (ROOT, "."),
        (b"\x07git.hub\x03com\0", "git\\046hub.com"),
        (b'\x03a"b\0', "a\\034b"),
        (b"\x03a\nb\0", "a\\010b"),
        (b"\x02\\\xff\0", "\\092\\255"),
        (b"\x03WwW\0", "WwW"),
    ],
)
def test_what_the_net_calls_a_name_is_escaped(name: Name, text: str) -> None:
    assert to_text(name) == text


@given(plain_names)
def test_text_to_wire_and_back_is_the_same_text(text: str) -> None:
    assert to_text(parse_name(text)) == text


@given(wire_names)
def test_no_two_names_share_a_text(name: Name) -> None:
    text = to_text(name)
    assert re.fullmatch(r"[A-Za-z0-9_.\\-]+", text)
    labels = text.split(".") if text != "." else []
    unescaped = [re.sub(rb"\\(\d{3})", lambda m: bytes((int(m[1]),)), label.encode()) for label in labels]
    assert b"".join(bytes((len(label),)) + label for label in unescaped) + ROOT == name


@given(wire_names)
def test_tails_are_the_name_and_its_parents_down_to_the_root(name: Name) -> None:
    found = list(tails(name))
    assert found[0] == name
    assert found[-1] == ROOT
    assert [b[:1] + b[1 : 1 + b[0]] + a for b, a in zip(found, found[1:], strict=False)] == found[:-1]


@given(st.text(max_size=80) | st.text("a.*=!ü-\\\n:", max_size=300))
def test_whatever_is_written_is_a_pattern_or_a_problem(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except NameProblem:
        return
    assert len(pattern.name) <= 255
    assert parse_pattern(str(pattern)) == pattern
