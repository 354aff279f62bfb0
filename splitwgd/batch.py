"""Changes of set elements as nf_tables' own netlink messages (include/uapi/linux/netfilter/nf_tables.h).

Elements are written here and not as nft's text because an answer waits for each: 15 us for one, where
libnftables takes 89 us to parse, evaluate and write it (docs/decisions/0009).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

from splitwgd.objects import Element

_SUBSYSTEM = 10 << 8
_NEWSETELEM, _DELSETELEM = _SUBSYSTEM | 12, _SUBSYSTEM | 14
_BATCH_BEGIN, _BATCH_END = 16, 17
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_INET = 1
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("!BBH")  # nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")
_IN_ONE_MESSAGE = 256  # elements; the length of an attribute has 16 bits
# One element: the list's attribute, key > data > address, and then timeout, user data > comment.
_KEY = {4: "=HHHHHH4s", 16: "=HHHHHH16s"}
_BARE = {width: struct.Struct(key) for width, key in _KEY.items()}
_LIFE = "HH8sHHBB"


def make_batch(
    table: str, gone: Iterable[tuple[str, bytes]], new: Sequence[Element], renewed: Sequence[Element]
) -> tuple[bytes, int]:
    """One transaction, and the sequence number of the message in it that is acknowledged.

    It fails as a whole where one of `gone` is absent or one of `new` is there. Renewed by add, delete, add: the
    only way that works on every kernel (in place only from Linux 6.12), that replaces the comment too, and in
    which no packet misses the element.
    """
    changes = [(_DELSETELEM, 0, part) for part in _parts((set_, _bare(address)) for set_, address in gone)]
    changes += [(_NEWSETELEM, _CREATE | _EXCL, part) for part in _parts((e.set, _element(e)) for e in new)]
    if renewed:
        put = [(_NEWSETELEM, _CREATE, part) for part in _parts((e.set, _element(e)) for e in renewed)]
        bare = _parts((e.set, _bare(e.address)) for e in renewed)
        changes += [*put, *((_DELSETELEM, 0, part) for part in bare), *put]
    name = _attribute(1, table.encode() + b"\0")
    texts = [_HEADER.pack(20, _BATCH_BEGIN, _REQUEST, 0, 0) + _FAMILY.pack(0, 0, 10)]
    for number, (kind, flags, (set_, members)) in enumerate(changes, 1):
        body = name + _attribute(2, set_.encode() + b"\0") + _ATTRIBUTE.pack(4 + len(members), 3 | _NESTED) + members
        flags |= _REQUEST | (_ACK if number == len(changes) else 0)
        texts.append(_HEADER.pack(20 + len(body), kind, flags, number, 0) + _FAMILY.pack(_INET, 0, 0) + body)
    texts.append(_HEADER.pack(20, _BATCH_END, _REQUEST, len(changes) + 1, 0) + _FAMILY.pack(0, 0, 10))
    return b"".join(texts), len(changes)


def _parts(members: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """(set, its members' bytes), as many as fit into a message."""
    by_set: dict[str, list[bytes]] = {}
    for set_, member in members:
        by_set.setdefault(set_, []).append(member)
    for set_, texts in by_set.items():
        for start in range(0, len(texts), _IN_ONE_MESSAGE):
            yield set_, b"".join(texts[start : start + _IN_ONE_MESSAGE])


def _element(element: Element) -> bytes:
    _, address, name, seconds = element
    comment, width = name.encode(), len(address)
    length = len(comment) + 1
    size, pack = _shape(width, length)
    life = int(seconds * 1000).to_bytes(8, "big")
    key = 1 | _NESTED, 8 + width, 1 | _NESTED, 4 + width, 1, address
    return pack(size, *key, 12, 4, life, 6 + length, 6, 0, length, comment)


@cache
def _shape(width: int, length: int) -> tuple[int, Callable[..., bytes]]:
    """The size of an element with such an address and such a comment (its zero included), and what packs it."""
    shape = struct.Struct(f"{_KEY[width]}{_LIFE}{length + -(6 + length) % 4}s")
    return shape.size, shape.pack


def _bare(address: bytes) -> bytes:
    width = len(address)
    return _BARE[width].pack(12 + width, 1 | _NESTED, 8 + width, 1 | _NESTED, 4 + width, 1, address)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)
