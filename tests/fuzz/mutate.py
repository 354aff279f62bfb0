"""Mutants: a packet with a few changes of the kinds that decoders stumble over."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random

_NUMBERS = (0, 1, 2, 3, 4, 12, 41, 63, 64, 127, 128, 192, 255, 256, 512, 0x3FFF, 0x7FFF, 0x8000, 0xC000, 0xC00C, 0xFFFF)
_MOST = 65_535


def _place(data: bytearray, random: Random) -> int:
    # Heads and first names are where most decisions fall.
    return random.randrange(min(len(data), 80) if random.random() < 0.6 else len(data)) if data else 0


def _bit(data: bytearray, random: Random) -> None:
    data[_place(data, random)] ^= 1 << random.randrange(8)


def _octet(data: bytearray, random: Random) -> None:
    data[_place(data, random)] = random.randrange(256)


def _number(data: bytearray, random: Random) -> None:
    place = _place(data, random)
    data[place : place + 2] = struct.pack("!H", random.choice(_NUMBERS))


def _pointer(data: bytearray, random: Random) -> None:
    place = _place(data, random)
    data[place : place + 2] = struct.pack("!H", 0xC000 | random.randrange(min(len(data) + 4, 0x4000)))


def _count(data: bytearray, random: Random) -> None:
    place = random.choice((4, 6, 8, 10))
    data[place : place + 2] = struct.pack("!H", random.choice((0, 1, 2, 3, 7, 0xFFFF)))


def _cut(data: bytearray, random: Random) -> None:
    del data[_place(data, random) :]


def _remove(data: bytearray, random: Random) -> None:
    place = _place(data, random)
    del data[place : place + random.randint(1, 12)]


def _insert(data: bytearray, random: Random) -> None:
    place = _place(data, random)
    data[place:place] = random.randbytes(random.randint(1, 12))


def _repeat(data: bytearray, random: Random) -> None:
    place = _place(data, random)
    part = data[place : place + random.choice((1, 2, 12, 16, 40))]
    data[place:place] = part * random.choice((1, 2, 5, 30))


_Change = Callable[[bytearray, Random], None]
# Those that leave the rest where it is come more often: what follows is read then.
_CHANGES: tuple[_Change, ...] = (*(_bit, _octet, _number, _pointer) * 5, _count, _cut, _remove, _insert, _repeat)


def mutant(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """The packet with one to four changes; sometimes its end is another packet's."""
    changed = bytearray(data)
    if random.random() < 0.1:
        other = random.choice(others)
        changed[random.randrange(len(data) + 1) :] = other[random.randrange(len(other) + 1) :]
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        if len(changed) >= 12:
            random.choice(_CHANGES)(changed, random)
        else:
            _insert(changed, random)
    return bytes(changed[:_MOST])
