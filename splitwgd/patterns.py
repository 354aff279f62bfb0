"""A table of domain patterns: a million names in some 25 MB, any of them found in constant time.

A set or a dict of a million names takes five times that, most of it for the objects. Here the names of a bucket
stand in one text, one behind another, and `in` searches it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from hashlib import blake2b

from splitwgd.names import Name, Pattern, Scope

# The patterns of a name are told by a number in base 3, with a digit for each scope: 0 for no pattern, 1 for a
# pattern, 2 for an exception.
_WEIGHTS = {Scope.WITH_BELOW: 1, Scope.ONLY_ITSELF: 3, Scope.ONLY_BELOW: 9}
_PLAIN = 1  # example.com

# A bucket is a row of entries: the key of a name, and a tag, the number of its patterns as a capital letter. A key
# is MARK and the name's wire form. MARK and the tags are neither length bytes (63 at most) nor bytes of a listed
# label (lower-case letters, digits, hyphen, underscore), so where a key is found an entry begins; and a wire name
# says itself where it ends. What is found is hence the very name that was looked for, whatever bytes a client puts
# into the labels of its question.
MARK = "@"
# The tag of a plain name, which most are, is left out: the next entry's MARK or the bucket's end follows the key.
_TAGS = ["", "", *map(chr, range(ord("A"), ord("Z")))]
_NUMBERS = {tag: number for number, tag in enumerate(_TAGS) if number} | {MARK: _PLAIN}
_CUT = "~"  # as foreign to entries as MARK is to names

FILL = 16  # names in a bucket, on average, from which on there are more buckets
_STRIDE = 64  # buckets that are shared out without a rest: half a millisecond
_ROW = 1024  # buckets that are moved without a rest: a quarter of a millisecond
CONTRADICTIONS_AT_MOST = 20  # that are remembered; the rest are counted

_PREFIXES = [chr(length) for length in range(64)]
_PREFIXES[0] = "\0" + _CUT + MARK


def key_of(name: Name) -> str:
    """The key under which a table holds a lower-case wire name."""
    return MARK + name.decode("latin-1")


def keys_of(texts: list[str]) -> list[str]:
    """The keys of names that consist of letters, digits, hyphens, underscores and dots, with no dot at the end.

    Raises ValueError when one of them is no name after all: a label is empty or over 63 bytes, or it is too long
    itself. They are made all at once, which takes a tenth of the time of `parse_name` for each.
    """
    try:
        # Two dots between names make an empty label, whose prefix ends one name and begins the next.
        labels = [f"{_PREFIXES[len(label)]}{label}" for label in "..".join(texts).lower().split(".")]
    except IndexError:
        raise ValueError("a label is too long") from None
    keys = f"{MARK}{''.join(labels)}\0".split(_CUT)
    if len(keys) != len(texts) or len(max(keys, key=len)) > len(MARK) + 255:
        raise ValueError("a label is empty, or a name is too long")
    return keys


def opposite(pattern: Pattern) -> Pattern:
    """The exception to this, or what this is the exception to."""
    return replace(pattern, exception=not pattern.exception)


def number_of(pattern: Pattern) -> int:
    """The number of a name of which there is this pattern alone."""
    return _WEIGHTS[pattern.scope] * (1 + pattern.exception)


def together(number: int, other: int) -> int:
    """The number of all the patterns that these two stand for, none of which is the opposite of another."""
    return sum(weight * max(number // weight % 3, other // weight % 3) for weight in _WEIGHTS.values())


def verdict(number: int, itself: bool) -> bool | None:
    """What the patterns of a name say of itself, or else of the names below it.

    True: tunneled; False: an exception; None: nothing.
    """
    return (_ITSELF if itself else _BELOW)[number]


def _digit(number: int, scope: Scope) -> int:
    return number // _WEIGHTS[scope] % 3


def _verdicts(exact: Scope) -> list[bool | None]:
    """`=example.com` and `*.example.com` say more than `example.com`, and win over it."""
    digits = [_digit(number, exact) or _digit(number, Scope.WITH_BELOW) for number in range(27)]
    return [(None, True, False)[digit] for digit in digits]


_ITSELF = _verdicts(Scope.ONLY_ITSELF)
_BELOW = _verdicts(Scope.ONLY_BELOW)


class PatternTable:
    """Patterns by name. It grows while a configuration is read; who holds a Config only reads it.

    Two are equal when the same was added in the same order. source: what it was made of. buckets: for who looks up
    in a loop: what there is of a key is in `buckets[hash(key) & mask]`.
    contradictions: the first patterns that were left out because their opposite was there; `contradicting` in all.
    """

    def __init__(self, rest: Callable[[], None] = lambda: None, source: Hashable = None) -> None:
        """rest: is called between the steps of what takes long, for other threads."""
        self.source = source
        self.buckets = [""]
        self.mask = 0
        self.contradictions: list[Pattern] = []
        self.contradicting = 0
        self._rest = rest
        self._count = 0
        self._digest = blake2b(digest_size=16)

    def add_keys(self, keys: list[str], scope: Scope = Scope.WITH_BELOW, exception: bool = False) -> None:
        """Patterns of this scope for one or more keys."""
        self.expect(self._count + len(keys))
        tag = _TAGS[_WEIGHTS[scope] * (1 + exception)]
        # hash() is keyed anew in each process (PEP 456): nobody can write a list that fills one bucket.
        buckets, mask, known = self.buckets, self.mask, 0
        for key in keys:
            place = hash(key) & mask
            bucket = buckets[place]
            if key in bucket:
                known += 1
                self._add_to(place, key, scope, exception)
            else:
                buckets[place] = f"{bucket}{key}{tag}"
        self._count += len(keys) - known
        self._digest.update(f"{tag.join(keys)}{tag}".encode())

    def _add_to(self, place: int, key: str, scope: Scope, exception: bool) -> None:
        """One more pattern of a name that the bucket has."""
        bucket = self.buckets[place]
        end = bucket.index(key) + len(key)
        number = _NUMBERS[bucket[end : end + 1]]
        digit, added = _digit(number, scope), 1 + exception
        if not digit:
            both = _TAGS[number + _WEIGHTS[scope] * added]
            self.buckets[place] = bucket[:end] + both + bucket[end + len(_TAGS[number]) :]
            self._count += 1
        elif digit != added:
            self.contradicting += 1
            if len(self.contradictions) < CONTRADICTIONS_AT_MOST:
                self.contradictions.append(_pattern(key, scope, added))

    def expect(self, count: int) -> None:
        """Makes the buckets as many as so many names need, if they are fewer."""
        wanted = len(self.buckets)
        while count > wanted * FILL:
            wanted *= 2
        if wanted == len(self.buckets):
            return
        old, new, mask = self.buckets, [""] * wanted, wanted - 1
        for place, bucket in enumerate(old):
            if place % _STRIDE == _STRIDE - 1:
                self._rest()
            old[place] = ""  # lest the names be there twice
            for key, number in _entries(bucket):
                new[hash(key) & mask] += key + _TAGS[number]
        self.buckets, self.mask = new, mask

    def pack(self) -> None:
        """Moves the buckets together, when all is added: growing leaves gaps, a quarter of the memory."""
        buckets, rows = self.buckets, []
        for start in range(0, len(buckets), _ROW):
            rows.append(_CUT.join(buckets[start : start + _ROW]))
            buckets[start : start + _ROW] = [""] * (rows[-1].count(_CUT) + 1)
            self._rest()
        for number, row in enumerate(rows):
            buckets[number * _ROW : (number + 1) * _ROW] = row.split(_CUT)
            rows[number] = ""
            self._rest()

    def clear(self) -> None:
        """Gives the memory back step by step; at once, a million names take 10 ms. No table afterwards."""
        while self.buckets:
            del self.buckets[-_ROW:]
            self._rest()

    def at(self, name: Name) -> list[Pattern]:
        """The patterns of this very name."""
        key = key_of(name)
        return list(_patterns(key, self.number(key)))

    def number(self, key: str) -> int:
        """The number of the patterns of this very name, for `verdict`; 0 where there is none."""
        bucket = self.buckets[hash(key) & self.mask]
        start = bucket.find(key)
        end = start + len(key)
        return _NUMBERS[bucket[end : end + 1]] if start >= 0 else 0

    def __iter__(self) -> Iterator[Pattern]:
        """Each pattern once, in no order."""
        for bucket in self.buckets:
            for key, number in _entries(bucket):
                yield from _patterns(key, number)

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PatternTable):
            return NotImplemented
        return self._digest.digest() == other._digest.digest()

    def __hash__(self) -> int:
        return hash(self._digest.digest())

    def __repr__(self) -> str:
        return f"<{self._count} patterns>"


def _entries(bucket: str) -> Iterator[tuple[str, int]]:
    """The keys of a bucket and the numbers of their tags."""
    for entry in bucket.split(MARK)[1:]:
        if entry[-1] == "\0":
            yield MARK + entry, _PLAIN
        else:
            yield MARK + entry[:-1], _NUMBERS[entry[-1]]


def _patterns(key: str, number: int) -> Iterator[Pattern]:
    return (_pattern(key, scope, digit) for scope in Scope if (digit := _digit(number, scope)))


def _pattern(key: str, scope: Scope, digit: int) -> Pattern:
    return Pattern(key[len(MARK) :].encode("latin-1"), scope, exception=digit == 2)
