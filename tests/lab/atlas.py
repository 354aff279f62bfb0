"""The zone that splitwgd and unbound are compared over: every kind of name and of record set, and some odd ones.

`ZONE` is the text for an authority of the root; `NAMES` are the names in it and some that are not.
"""

from __future__ import annotations

from .wire import encode_name

APEX = "diff.example"
_HEAD = """$ORIGIN .
$TTL 3600
@ IN SOA ns.diff.example. root.diff.example. 1 3600 600 86400 900
@ IN NS ns.diff.example.
$ORIGIN diff.example.
ns A 203.0.113.71
"""
_TYPES = r"""
types A 192.0.2.1
types AAAA 2001:db8:1::1
types MX 10 host0
types MX 20 HOST1
types TXT "one" "two" "th\"ree"
types HINFO "a" "b"
types RP root text0
types AFSDB 1 host0
types SRV 1 2 443 host0
types NAPTR 100 10 "u" "E2U+sip" "!^.*$!sip:a@b!" .
types LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m
types PTR host0
types CAA 0 issue "ca.example"
types SSHFP 1 1 0123456789abcdef0123456789abcdef01234567
types TLSA 3 1 1 0123456789abcdef
types URI 10 1 "https://host0.diff.example/"
types EUI48 00-00-5e-00-53-2a
types HTTPS 1 . alpn="h2,h3" ipv4hint="192.0.2.1" ipv6hint="2001:db8:1::1"
types SVCB 1 host0 port="8443"
types TYPE10 \# 3 010203
types TYPE1000 \# 4 01020304
types TYPE65280 \# 0
types TYPE65279 \# 5 0102030405
_25._tcp.types TLSA 3 1 1 00
_sip._udp.types SRV 0 0 5060 host0
httpsalias HTTPS 0 types
"""
_ALIASES = """
dangling CNAME nowhere
nodata CNAME text0
ring0 CNAME ring1
ring1 CNAME ring2
ring2 CNAME ring0
itself CNAME itself
away CNAME www.signed.example.
dname DNAME tree
x.tree A 192.0.2.2
y.tree TXT "y"
*.wild A 192.0.2.3
*.wild TXT "wild"
below.not.wild A 192.0.2.4
*.wildalias CNAME host1
a.b.c.ent A 192.0.2.5
deleg NS ns.deleg
ns.deleg A 203.0.113.75
"""
_ODD_LABELS = (
    (r"sp\032ace", b"sp ace"),
    (r"dot\.ted", b"dot.ted"),
    (r"nul\000octet", b"nul\0octet"),
    (r"high\255\200", b"high\xff\xc8"),
    (r"quo\"te", b'quo"te'),
    (r"line\010feed", b"line\nfeed"),
    ("under_score", b"under_score"),
    ("UPPER", b"UPPER"),
    ("-dash-", b"-dash-"),
    ("a" * 63, b"a" * 63),
    ("192", b"192"),
    (r"\@at", b"@at"),
)
_LONGEST = ".".join(["b" * 63] * 3 + ["c" * (254 - 3 * 64 - 1 - len(APEX) - 1)])
_TEXTS = (10, 300, 440, 480, 500, 600, 1000, 1150, 1180, 1210, 1300, 2000, 4000, 8000)
_SETS = (1, 5, 20, 28, 29, 30, 60, 73, 74, 75, 80, 200)


def _text(size: int) -> str:
    return " ".join(f'"{"t" * min(250, size - place)}"' for place in range(0, size, 250))


def _zone() -> str:
    lines = [f"host{n} A 192.0.2.{n + 10}\nhost{n} AAAA 2001:db8:1::{n:x}" for n in range(50)]
    lines += [f"chain{n} CNAME chain{n + 1}" for n in range(6)] + ["chain6 CNAME host0"]
    lines += [f"text{place} TXT {_text(size)}" for place, size in enumerate(_TEXTS)]
    for count in _SETS:
        lines += [f"many{count} A 192.0.2.{n + 1}" for n in range(count)]
        lines += [f"six{count} AAAA 2001:db8:1::{n:x}" for n in range(count)]
    lines += [f'{written} A 192.0.2.6\n{written} TXT "odd"' for written, _ in _ODD_LABELS]
    lines += [f"{_LONGEST} A 192.0.2.7"]
    return "\n".join((_HEAD, _TYPES, _ALIASES, *lines, ""))


ZONE = _zone()
_NAMED = """
types _25._tcp.types _sip._udp.types httpsalias dangling nodata ring0 itself away dname x.dname y.dname none.dname
x.tree tree q.wild a.b.wild wild *.wild x.not.wild not.wild q.wildalias b.wildalias a.b.c.ent b.c.ent c.ent ent x.ent
deleg x.deleg ns.deleg nowhere x.host0 a.b.c.d.e.nowhere ns
"""
_PLAIN = [
    *(f"host{n}" for n in range(50)),
    *(f"chain{n}" for n in range(7)),
    *(f"text{n}" for n in range(len(_TEXTS))),
    *(f"{kind}{count}" for kind in ("many", "six") for count in _SETS),
    *_NAMED.split(),
    _LONGEST,
]
NAMES: tuple[bytes, ...] = (
    encode_name(APEX),
    encode_name("example"),
    b"\0",
    encode_name("no-such-tld"),
    encode_name("www.signed.example"),
    *(encode_name(f"{name}.{APEX}") for name in _PLAIN),
    *(bytes([len(label)]) + label + encode_name(APEX) for _, label in _ODD_LABELS),
)
