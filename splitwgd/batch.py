"""Changes of set elements and of tables as nf_tables' own netlink messages (include/uapi/linux/netfilter/nf_tables.h).

Elements are written here and not as nft's text because an answer waits for each: 15 us for one, where
libnftables takes 89 us to parse, evaluate and write it (docs/decisions/0009).
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache

from splitwgd.objects import Element

_SUBSYSTEM = 10 << 8
_NEWTABLE, _GETTABLE, _DELTABLE = _SUBSYSTEM | 0, _SUBSYSTEM | 1, _SUBSYSTEM | 2
_NEWSETELEM, _DELSETELEM = _SUBSYSTEM | 12, _SUBSYSTEM | 14
_BATCH_BEGIN, _BATCH_END = 16, 17
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_INET = 1
_NESTED = 0x8000
_LIST = 3 | _NESTED  # of elements
_FLAGS = {1: "dormant", 2: "owner", 4: "persist"}  # enum nft_table_flags
_OWNED = 2 | 4
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("!BBH")  # nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")
_IN_ONE_MESSAGE = 256  # elements; the length of an attribute has 16 bits
# One element: the list's attribute, key > data > address, and then timeout, user data > comment.
_BARE = {4: struct.Struct("=HHHHHH4s"), 16: struct.Struct("=HHHHHH16s")}
_TIMEOUT, _COMMENT = struct.Struct("=HH8s"), struct.Struct("=HHBB")


def make_batch(
    table: str, gone: Iterable[tuple[str, bytes]], new: Sequence[Element], renewed: Sequence[Element]
) -> tuple[bytes, int]:
    """One transaction, and the sequence number of the message in it that is acknowledged.

    It fails as a whole where one of `gone` is absent or one of `new` is there. Renewed by add, delete, add: the
    only way that works on every kernel (in place only from Linux 6.12), that replaces the comment too, and in
    which no packet misses the element.
    """
    changes = [(_DELSETELEM, 0, part) for part in _parts(_bare(gone))]
    changes += [(_NEWSETELEM, _CREATE | _EXCL, part) for part in _parts(_whole(new))]
    if renewed:
        put = [(_NEWSETELEM, _CREATE, part) for part in _parts(_whole(renewed))]
        bare = _parts(_bare(element[:2] for element in renewed))
        changes += [*put, *((_DELSETELEM, 0, part) for part in bare), *put]
    name = _name(table)
    return _framed(
        [
            (kind, flags, name + _attribute(2, set_.encode() + b"\0") + _ATTRIBUTE.pack(4 + len(each), _LIST) + each)
            for kind, flags, (set_, each) in changes
        ]
    )


def make_batch_of_tables(*steps: tuple[str, bool]) -> tuple[bytes, int]:
    """The same of whole tables: each step is a name, and whether that table shall be the sender's own from then on
    or not be there at all.

    Made, or taken over where its owner has ended: with both flags, since what is owned without `persist` goes with
    its owner. Refused for a table that is there without `persist`, which no table gets later (nf_tables_updtable).
    """
    owned = _attribute(2, struct.pack("!I", _OWNED))
    return _framed(
        [
            (_NEWTABLE if there else _DELTABLE, _CREATE if there else 0, _name(name) + (owned if there else b""))
            for name, there in steps
        ]
    )


def _framed(changes: Sequence[tuple[int, int, bytes]]) -> tuple[bytes, int]:
    texts = [_HEADER.pack(20, _BATCH_BEGIN, _REQUEST, 0, 0) + _FAMILY.pack(0, 0, 10)]
    for number, (kind, flags, body) in enumerate(changes, 1):
        flags |= _REQUEST | (_ACK if number == len(changes) else 0)
        texts.append(_HEADER.pack(20 + len(body), kind, flags, number, 0) + _FAMILY.pack(_INET, 0, 0) + body)
    texts.append(_HEADER.pack(20, _BATCH_END, _REQUEST, len(changes) + 1, 0) + _FAMILY.pack(0, 0, 10))
    return b"".join(texts), len(changes)


def ask_table(name: str) -> bytes:
    """Which flags a table has; for `read_flags`."""
    body = _name(name)
    return _HEADER.pack(20 + len(body), _GETTABLE, _REQUEST, 0, 0) + _FAMILY.pack(_INET, 0, 0) + body


def read_flags(reply: bytes) -> frozenset[str]:
    """The flags in the kernel's reply, by nft's names; none where it has no such table."""
    _, kind, *_ = _HEADER.unpack_from(reply)
    position, bits = 20, 0
    while kind == _NEWTABLE and position + 4 <= len(reply):
        length, attribute = _ATTRIBUTE.unpack_from(reply, position)
        if attribute == 2:
            (bits,) = struct.unpack_from("!I", reply, position + 4)
        position += max((length + 3) & ~3, 4)
    return frozenset(word for bit, word in _FLAGS.items() if bits & bit)


_BySet = dict[str, list[bytes]]  # the members of each set


def _parts(members: _BySet) -> Iterator[tuple[str, bytes]]:
    """(set, its members' bytes), as many as fit into a message."""
    for set_, texts in members.items():
        for start in range(0, len(texts), _IN_ONE_MESSAGE):
            yield set_, b"".join(texts[start : start + _IN_ONE_MESSAGE])


def _whole(elements: Iterable[Element]) -> _BySet:
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for set_, address, name, seconds in elements:
        comment = name.encode()
        head, before_comment, padding = _shape(len(address), len(comment))
        found[set_].append(b"".join((head, address, _life(seconds), before_comment, comment, padding)))
    return found


@cache
def _shape(width: int, length: int) -> tuple[bytes, bytes, bytes]:
    """What is before, between and behind an address and a comment of so many bytes, but for the life."""
    whole = length + 1  # with its zero
    padding = bytes(1 + -(_COMMENT.size + whole) % 4)
    size = _BARE[width].size + _TIMEOUT.size + _COMMENT.size + length + len(padding)
    head = _BARE[width].pack(size, 1 | _NESTED, 8 + width, 1 | _NESTED, 4 + width, 1, b"")[:-width]
    return head, _COMMENT.pack(_COMMENT.size + whole, 6, 0, whole), padding


@lru_cache(1024)  # most answers have the TTL of another one
def _life(seconds: float) -> bytes:
    return _TIMEOUT.pack(12, 4, int(seconds * 1000).to_bytes(8, "big"))


def _bare(places: Iterable[tuple[str, bytes]]) -> _BySet:
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for set_, address in places:
        width = len(address)
        member = _BARE[width].pack(12 + width, 1 | _NESTED, 8 + width, 1 | _NESTED, 4 + width, 1, address)
        found[set_].append(member)
    return found


def _name(table: str) -> bytes:
    return _attribute(1, table.encode() + b"\0")


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)
