"""Reads an upstream's reply, bounded: what may be kept, for how long, and which addresses it leads to.

Only the chain that starts at the question counts: CNAMEs from it, and the addresses at their owners (in the
hints of HTTPS and SVCB records, too). Nothing from the other sections becomes an address (RFC 5452 §6).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from splitwgd.errors import MessageError
from splitwgd.message import (
    AA,
    AAAA,
    ANSWERS,
    CNAME,
    DNAME,
    HEADER,
    HTTPS,
    IN,
    NOERROR,
    OPT,
    QR,
    RECORD,
    RRSIG,
    SOA,
    SVCB,
    TC,
    A,
    Query,
    expanded,
    skip_name,
)
from splitwgd.names import ROOT, Name
from splitwgd.reply import TTL, Reply
from splitwgd.svcb import Address, hints

CHAIN_LIMIT = 10  # CNAMEs that are followed: as dnsmasq, and unbound restarts 11 times
TTL_LIMIT = 86_400  # seconds; a longer TTL is given to clients as this one, so that set elements outlive it
NEGATIVE_LIMIT = 10_800  # seconds; RFC 2308 §5 found one to three hours to work well
# Records of one reply that are looked at: more would hold up everybody for more than 10 ms. Of more addresses than that
# the first ones will do. (`_of_addresses` takes a tenth of the time, and any number.)
RECORDS_LIMIT = 1000
_POINTER_TO_QUESTION = b"\xc0\x0c"
# What may stand beside the chain: a DNAME is at a parent of its name, and signatures go with it.
_BESIDE = frozenset({DNAME, RRSIG, 47, 50})  # NSEC and NSEC3 prove a wildcard
_KEPT_FLAGS = 0xFFFF & ~(AA | TC | 0x0040)  # an answer out of a cache is no authority's; Z is nobody's


def is_reply_to(data: bytes, ident: int, question: bytes, any_case: bool = True) -> bool:
    """Whether these bytes claim to answer this question: id, QR, and the question itself (RFC 5452 §9.1)."""
    if len(data) < 12:
        return False
    its, flags, questions = _unpack_start(data)
    if its != ident or flags & 0xF800 != QR or questions != 1:
        return False
    asked = data[12 : 12 + len(question)]
    # The case may differ in the name and nowhere else.
    return asked == question or any_case and asked[-4:] == question[-4:] and asked.lower() == question.lower()


def read_reply(data: bytes, query: Query, low: int = 0, high: int = TTL_LIMIT) -> Reply:
    """What a reply (that `is_reply_to` let pass) says; its TTLs are brought between low and high seconds.

    Raises MessageError when it cannot be read.
    """
    try:
        return (
            _of_address(data, query, low, high)
            or _of_addresses(data, query, low, high)
            or _Reader(data, query, low, high).read()
        )
    except (struct.error, IndexError) as error:
        raise MessageError("a reply that ends too early") from error


def _of_address(data: bytes, query: Query, low: int, high: int) -> Reply | None:
    """The reply, if it has the shape of most: an address of the very name, and an OPT record without options."""
    flags, counts = _unpack_counts(data)
    shape = _SHAPES.get(query.qtype)
    if counts != _ONE_AND_OPT or shape is None or flags & _NO_ANSWER:
        return None
    start = 12 + len(query.question)
    _, size, begin, width, unpack = shape
    if len(data) != start + size + 11:
        return None
    owner_type_class, ttl, length, address, root_and_opt, extended, options = unpack(data, start)
    if owner_type_class != begin or length != width or root_and_opt != _OPT_AT_ROOT or extended >> 24 or options:
        return None
    if not low <= ttl <= high:
        return None
    return Reply(
        flags & _KEPT_FLAGS, 1, 0, data[start : start + size], size,
        NOERROR, False, _FIRST_PLACE, ttl, (query.name,), (address,), (), False, b"", ttl,
    )  # fmt: skip


def _of_addresses(data: bytes, query: Query, low: int, high: int) -> Reply | None:
    """The same of any number of addresses, with or without an OPT record."""
    _, flags, _, answers, authorities, additionals = HEADER.unpack_from(data)
    shape = _SHAPES.get(query.qtype)
    if shape is None or flags & _NO_ANSWER or not answers or authorities or additionals > 1:
        return None
    record, size, begin, width, _ = shape
    start = 12 + len(query.question)
    end = start + answers * size
    if end > len(data):
        return None
    records, options = data[start:end], b""
    begins, ttls, widths, addresses = zip(*record.iter_unpack(records), strict=True)
    least, longest = min(ttls), max(ttls)
    if begins.count(begin) != answers or widths.count(width) != answers or least < low or longest > high:
        return None
    if additionals:
        root, rtype, _, extended, of_options = _unpack_at_root(data, end)
        if root or rtype != OPT or extended >> 24 or len(data) != end + 11 + of_options:
            return None
        options = data[end + 11 :]
    return Reply(
        flags & _KEPT_FLAGS, answers, 0, records, end - start, NOERROR, False,
        tuple(range(6, end - start, size)), least, (query.name,), addresses, (), False, options, longest,
    )  # fmt: skip


_WIDTHS = {A: 4, AAAA: 16}


def _shape(rtype: int) -> tuple[struct.Struct, int, bytes, int, Callable[..., tuple[Any, ...]]]:
    """Such a record, its size, how it begins (a pointer to the question, type and class), the length of its address,
    and how it is unpacked together with an OPT record behind it."""
    width = _WIDTHS[rtype]
    record = struct.Struct(f"!6sIH{width}s")
    begin = _POINTER_TO_QUESTION + struct.pack("!HH", rtype, IN)
    return record, record.size, begin, width, struct.Struct(f"{record.format}3s2xIH").unpack_from


_SHAPES = {rtype: _shape(rtype) for rtype in _WIDTHS}
_ONE_AND_OPT = struct.pack("!4H", 1, 1, 0, 1)  # records in the sections
_OPT_AT_ROOT = struct.pack("!BH", 0, OPT)
_FIRST_PLACE = (6,)
_unpack_at_root = struct.Struct("!BHHIH").unpack_from  # one whose owner is the root
_unpack_start = struct.Struct("!HHH").unpack_from
_unpack_counts = struct.Struct("!2xH8s").unpack_from  # and the flags
_NO_ANSWER = TC | 0xF  # flags of what is cut, or has another rcode than NOERROR


class _Reader:
    """Goes once through the records of one reply."""

    __slots__ = (
        "addresses", "aliases", "data", "elsewhere", "found", "high", "low", "names", "negative", "options", "query",
        "start", "targets", "ttls",
    )  # fmt: skip

    def __init__(self, data: bytes, query: Query, low: int, high: int) -> None:
        self.data = data
        self.query = query
        self.low = low
        self.high = high
        self.start = 12 + len(query.question)
        self.ttls: list[tuple[int, int, int]] = []  # where, what it says, what we say
        self.addresses: list[tuple[Name, Address]] = []
        self.targets: list[tuple[Name, Name]] = []
        self.aliases: dict[Name, Name] | None = None
        self.elsewhere: set[Name] = set()  # owners other than the question's name
        self.names: dict[int, bytes] = {}  # that were expanded, by position
        self.negative = 0
        self.found: set[Name] = set()  # owners of records of the type that was asked for
        self.options = b""

    def read(self) -> Reply:
        data, query = self.data, self.query
        _, flags, _, answers, authorities, additionals = HEADER.unpack_from(data)
        if answers + authorities > RECORDS_LIMIT:
            if query.qtype not in _WIDTHS:
                raise MessageError("more records than anybody needs")
            answers, authorities, additionals = min(answers, RECORDS_LIMIT), 0, 0
        position = self._answers(self.start, answers)
        lives = [says for _, _, says in self.ttls]
        answers_end = position - self.start
        end, foreign = self._authorities(position, authorities)
        rcode = flags & 0xF
        if additionals:
            rcode |= self._opt(end, additionals) << 4
        chain: tuple[Name, ...] = (query.name,)
        if self.aliases is not None:
            chain = self._chain(self.aliases)
        addresses = tuple([address for owner, address in self.addresses if owner in chain])
        stray = foreign or any(owner not in chain for owner in self.elsewhere)
        truncated = flags & TC != 0
        ttl = 0
        if not truncated and rcode in ANSWERS:
            # An alias that leads nowhere is a negative answer too, and ends with the shorter life of the two.
            found = rcode == NOERROR and any(owner in chain for owner in self.found)
            ttl = min(lives) if found else min([self.negative, *lives])
        targets = tuple([target for owner, target in self.targets if owner in chain and target not in chain])
        kept = flags & _KEPT_FLAGS & ~0xF | rcode & 0xF
        places = tuple([place - self.start for place, _, _ in self.ttls])
        longest = max(lives, default=0)
        return Reply(
            kept, answers, authorities, self._records(end), answers_end,
            rcode, truncated, places, ttl, chain, addresses, targets, stray, self.options, longest,
        )  # fmt: skip

    def _answers(self, position: int, count: int) -> int:
        data, size, query = self.data, len(self.data), self.query
        name, high, low = query.name, self.high, self.low
        known = {_POINTER_TO_QUESTION: name}  # owners, by the pointers that are all there is of them
        for _ in range(count):
            pointer = data[position : position + 2]
            owner, fixed = known.get(pointer), position + 2
            if owner is None:
                owner = self._name(position)
                if pointer[0] >= 0xC0:
                    known[pointer] = owner
                else:
                    fixed = skip_name(data, position)
            rtype, rclass, ttl, length = RECORD.unpack_from(data, fixed)
            rdata = fixed + 10
            position = rdata + length
            if position > size:
                raise MessageError("a record longer than its message")
            if rtype == OPT:
                raise MessageError("an OPT record among the answers")
            says = ttl if low <= ttl <= high else _bounded(ttl, low, high)
            self.ttls.append((fixed + 4, ttl, says))
            if owner is not name and rtype not in _BESIDE:
                self.elsewhere.add(owner)
            if rtype == query.qtype:
                self.found.add(owner)
            if rtype in _WIDTHS and length != _WIDTHS[rtype]:
                raise MessageError("an address of a wrong length")  # who knows what a client makes of it
            if rclass != IN:
                self.elsewhere.add(b"")  # at no name of the chain
                continue
            if rtype in _WIDTHS:
                self.addresses.append((owner, data[rdata:position]))
            elif rtype == CNAME:
                if skip_name(data, rdata) != position:
                    raise MessageError("an alias that does not end with its record")
                self._alias(owner, rdata)
            elif rtype in (HTTPS, SVCB):
                self._service(owner, rdata, position)
        return position

    def _alias(self, owner: Name, rdata: int) -> None:
        target = self._name(rdata)
        if self.aliases is None:
            self.aliases = {}
        if self.aliases.setdefault(owner, target) != target:
            raise MessageError("two aliases for one name")  # RFC 2181 §10.1

    def _service(self, owner: Name, rdata: int, end: int) -> None:
        target = self._name(rdata + 2)
        if target != ROOT:
            self.targets.append((owner, target))
        self.addresses += [(owner, address) for address in hints(self.data[skip_name(self.data, rdata + 2) : end])]

    def _authorities(self, position: int, count: int) -> tuple[int, bool]:
        """(where they end, whether addresses are among them)."""
        data, size, foreign = self.data, len(self.data), False
        for _ in range(count):
            self._name(position)  # which must be one
            fixed = skip_name(data, position)
            rtype, _, ttl, length = RECORD.unpack_from(data, fixed)
            position = fixed + 10 + length
            if position > size:
                raise MessageError("a record longer than its message")
            if rtype == OPT:
                raise MessageError("an OPT record among the authorities")
            foreign = foreign or rtype in (A, AAAA)
            high = min(self.high, NEGATIVE_LIMIT) if rtype == SOA else self.high
            self.ttls.append((fixed + 4, ttl, _bounded(ttl, self.low, high)))
            if rtype == SOA and length >= 20:
                # RFC 2308 §5
                minimum = int.from_bytes(data[position - 4 : position], "big")
                self.negative = min(self.ttls[-1][2], max(minimum, self.low))
        return position, foreign

    def _opt(self, position: int, count: int) -> int:
        """The upper bits of the rcode, out of the OPT record. The rest of the section is not passed on: an
        address in it is nobody's answer, and who wants it can ask."""
        data = self.data
        for _ in range(count):
            fixed = skip_name(data, position)
            rtype, _, ttl, length = RECORD.unpack_from(data, fixed)
            position = fixed + 10 + length
            if position > len(data):
                raise MessageError("a record longer than its message")
            if rtype == OPT:
                self.options = data[fixed + 10 : position]
                return int(ttl) >> 24
        return 0

    def _records(self, end: int) -> bytes:
        records = self.data[self.start : end]
        if any(ttl != says for _, ttl, says in self.ttls):
            changed = bytearray(records)
            for place, _, says in self.ttls:
                TTL.pack_into(changed, place - self.start, says)
            return bytes(changed)
        return records

    def _chain(self, aliases: dict[Name, Name]) -> tuple[Name, ...]:
        """The name and all that its aliases lead to."""
        chain = [self.query.name]
        while (target := aliases.get(chain[-1])) is not None:
            if target in chain or len(chain) > CHAIN_LIMIT:
                raise MessageError("a chain of aliases without an end")
            chain.append(target)
        return tuple(chain)

    def _name(self, position: int) -> Name:
        """The lower-case name that begins here."""
        data = self.data
        if data[position : position + 2] == _POINTER_TO_QUESTION:
            return self.query.name
        name = expanded(data, position, self.names).lower()
        # One object for one name, so that the usual comparison is quick.
        return self.query.name if name == self.query.name else name


def _bounded(ttl: int, low: int, high: int) -> int:
    """The TTL that we give for this one; of two bounds that contradict each other the lower one holds."""
    return max(min(ttl, high) if ttl <= 0x7FFFFFFF else 0, low)  # RFC 2181 §8
