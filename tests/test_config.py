"""The configuration: what is accepted, and every problem at once with its path, its value and its remedy."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitwgd.config import _KEYS, Config
from splitwgd.names import ROOT, Scope, parse_name
from splitwgd.resolvers import SOURCES
from splitwgd.servers import Server
from splitwgd.wgconf import WgConfig
from tests.samples import (
    ARTICLE_TOML,
    ARTICLE_WG,
    DESIGN_TOML,
    PATH,
    PRIVATE_KEY,
    WG,
    WG_PATH,
    File,
    config_with,
    load,
    problems_of,
    toml,
)

LISTS = {
    "/etc/splitwg/lists/a.txt": "# video\nexample.edu\n\n*.example.tv  # all below\n",
    "/etc/splitwg/lists/b.txt": "!x.edu",
}


def problems_with(changes: dict[str, str], files: dict[str, File] | None = None) -> list[str]:
    """The problems of LEAST with these changes, without the path that each begins with."""
    told = problems_of(toml(changes), files=files)
    return [problem.removeprefix(f"{PATH}: ") for problem in told]


# -- what is accepted


def test_the_articles_files_work_unchanged() -> None:
    config = load(ARTICLE_TOML, ARTICLE_WG)
    (tunnel,) = config.tunnels
    assert (tunnel.name, tunnel.link, tunnel.sets, tunnel.mark, tunnel.table) == ("wg0", "wg0", "wg", 0x1, 100)
    assert [str(pattern) for pattern in tunnel.patterns] == ["github.com", "icanhazip.com"]
    assert tunnel.servers == (Server(ip_address("10.1.0.1")),)
    assert [str(server) for server in config.default] == ["9.9.9.9", "149.112.112.112"]
    assert sum("not run: PostUp" in note for note in config.notes) == 12


def test_the_designs_example_is_read() -> None:
    config = load(DESIGN_TOML, files=LISTS)
    (tunnel,) = config.tunnels
    patterns = "github.com =example.org *.example.net !status.github.com example.edu *.example.tv !x.edu"
    assert " ".join(str(pattern) for pattern in (*tunnel.patterns, *tunnel.listed)) == patterns
    assert tunnel.networks == (ip_network("198.51.100.0/24"),)
    assert config.forward == ((parse_name("ts.net"), (Server(ip_address("100.100.100.100")),)),)
    assert config.files == (PATH, "/etc/splitwg/lists/*.txt", *LISTS, "/etc/hosts", WG_PATH)  # for the watcher


def test_what_is_not_said_has_its_default() -> None:
    config = load(toml({}))
    assert [str(address) for address in config.listen] == ["127.0.0.53", "127.0.0.1", "::1"]
    assert (config.cache_size, config.redirect, config.bypass, config.forward) == (10_000, True, (), ())
    assert (config.auto, config.cache_bytes, config.min_ttl, config.max_ttl) == (False, 64 << 20, 0, 86_400)
    assert (config.stale, config.private, config.hosts) == (86_400, (), ())
    assert (config.canary, config.icloud_relay, config.mix_case) == (True, False, False)
    assert (config.refuse_tls, config.refuse_doh) == (True, True)
    routing = config.routing
    assert (routing.fwmark, routing.fwmask, routing.direct) == (0x1, 0xFF, 0xFE)
    assert (routing.table, routing.priority, routing.min_lifetime, routing.on_stop) == (100, 100, 3600, "open")
    assert config.notes == ()


def test_every_key_is_followed() -> None:
    config = config_with(
        {
            "dns.listen": '["127.0.0.1", "::1", "192.0.2.9"]',
            "dns.cache_size": "0",
            "dns.cache_memory": "3",
            "dns.min_ttl": "60",
            "dns.max_ttl": "60",
            "dns.stale": "259200",
            "dns.private": '["Corp.example.", "10.in-addr.arpa"]',
            "dns.canary": "false",
            "dns.icloud_relay": "true",
            "dns.mix_case": "true",
            "dns.refuse_tls": "false",
            "dns.refuse_doh": "false",
            "dns.redirect": "false",
            "dns.bypass": '["192.0.2.77", "2001:db8::77"]',
            "routing.fwmark": "0x1000",
            "routing.fwmask": "0xf000",
            "routing.table": "51820",
            "routing.priority": "32765",
            "routing.min_lifetime": "60",
            "routing.on_stop": '"closed"',
        }
    )
    assert [str(address) for address in config.listen] == ["127.0.0.1", "::1", "192.0.2.9"]
    assert (config.cache_size, config.redirect) == (0, False)
    assert (config.cache_bytes, config.min_ttl, config.max_ttl, config.stale) == (3 << 20, 60, 60, 259_200)
    assert config.private == (parse_name("corp.example"), parse_name("10.in-addr.arpa"))
    assert (config.canary, config.icloud_relay, config.mix_case) == (False, True, True)
    assert (config.refuse_tls, config.refuse_doh) == (False, False)
    assert [str(address) for address in config.bypass] == ["192.0.2.77", "2001:db8::77"]
    routing = config.routing
    assert (routing.fwmark, routing.fwmask, routing.direct) == (0x1000, 0xF000, 0xE000)
    assert (routing.table, routing.priority, routing.min_lifetime, routing.on_stop) == (51820, 32765, 60, "closed")
    assert (config.tunnels[0].mark, config.tunnels[0].table) == (0x1000, 51820)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("9.9.9.9", "9.9.9.9"),
        ("9.9.9.9:53", "9.9.9.9"),
        ("9.9.9.9:5353", "9.9.9.9:5353"),
        ("2620:FE::fe", "2620:fe::fe"),
        ("[2620:fe::fe]", "2620:fe::fe"),
        ("[2620:fe::fe]:5353", "[2620:fe::fe]:5353"),
        ("127.0.0.1:5353", "127.0.0.1:5353"),  # another server of this machine
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("tls://9.9.9.9:853#DNS.quad9.net", "tls://9.9.9.9#dns.quad9.net"),
        ("https://127.0.0.1/dns-query#localhost", "https://127.0.0.1#localhost"),
    ],
)
def test_servers_outside_are_written_in_these_ways(text: str, server: str) -> None:
    config = config_with({"dns.default": f'["{text}"]', "dns.forward": f'{{ "a.b" = ["{text}"] }}'})
    assert [str(server) for server in config.default] == [server]
    assert [str(server) for server in config.forward[0][1]] == [server]


@pytest.mark.parametrize("text", ["10.1.0.1:5353", "tls://10.1.0.1#dns.example", "https://[fd00::1]/q#dns.example"])
def test_servers_behind_the_tunnel_are_written_in_the_same_ways(text: str) -> None:
    assert [str(server) for server in config_with({"dns.tunneled": f'["{text}"]'}).tunnels[0].servers] == [text]


def test_a_server_that_is_named_twice_is_asked_once() -> None:
    config = config_with({"dns.default": '["9.9.9.9", "tls://9.9.9.9#a.b", "9.9.9.9:53", "tls://9.9.9.9:853#A.B."]'})
    assert [str(server) for server in config.default] == ["9.9.9.9", "tls://9.9.9.9#a.b"]


# -- what this machine knows


AUTO = toml({"dns.default": '"auto"'})


def test_auto_takes_the_servers_that_the_network_gave_and_follows_their_files() -> None:
    text = "nameserver 127.0.0.1\nnameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver fe80::1%2\n"
    config = load(AUTO, files={"/etc/resolv.conf": text})
    assert (config.auto, [str(server) for server in config.default]) == (True, ["192.0.2.1", "fe80::1%2"])
    assert config.files == (PATH, *SOURCES, "/etc/hosts", WG_PATH)
    assert config.notes == ()


def test_without_a_network_auto_has_no_server_and_says_so() -> None:
    config = load(AUTO, files={"/etc/resolv.conf": "nameserver 127.0.0.53\n"})
    assert (config.auto, config.default) == (True, ())
    assert config.notes == (f"{PATH}: dns.default: the network has named no server; only tunneled names resolve",)
    assert config.files == (PATH, *SOURCES, "/etc/hosts", WG_PATH)


def test_auto_never_takes_an_address_that_splitwgd_listens_on() -> None:
    listen = {"dns.default": '"auto"', "dns.listen": '["127.0.0.1", "::1", "192.0.2.9"]'}
    config = load(toml(listen), files={"/etc/resolv.conf": "nameserver 192.0.2.9\nnameserver 192.0.2.1\n"})
    assert [str(server) for server in config.default] == ["192.0.2.1"]


@pytest.mark.parametrize("zone", [".", "*"])
def test_all_names_may_lead_to_private_addresses(zone: str) -> None:
    assert config_with({"dns.private": f'["{zone}"]'}).private == (ROOT,)


def test_the_hosts_file_is_read_if_there_is_one() -> None:
    config = load(toml({}), files={"/etc/hosts": b"192.0.2.5 nas # M\xfcller's\n127.0.0.1 localhost\n"})
    assert config.hosts == ((parse_name("nas"), (ip_address("192.0.2.5"),)),)


@pytest.mark.parametrize("path", ["/etc/hosts", *SOURCES])
def test_a_file_of_the_systems_that_cannot_be_read_is_passed_over(path: str) -> None:
    forbidden = PermissionError(13, "Permission denied")
    config = load(AUTO, files={path.replace("*", "eth0"): forbidden})
    assert (config.default, config.hosts) == ((), ())


def test_the_example_shows_every_key_with_its_default() -> None:
    example = (Path(__file__).parent.parent / "etc/domains.toml").read_text()
    shown = [line.removeprefix("# ") for line in example.splitlines() if not line.startswith("##")]
    assert load("\n".join(shown)) == load(example)
    assert set(tomllib.loads("\n".join(shown))["dns"]) == set(_KEYS["dns"])


@pytest.mark.parametrize("text", ["example.com", "EXAMPLE.com.", "eXample.COM"])
def test_a_name_is_the_same_in_any_case_and_with_a_trailing_dot(text: str) -> None:
    (pattern,) = config_with({"tunneled.domains": f'["{text}", "example.com"]'}).tunnels[0].patterns
    assert (pattern.name, pattern.scope) == (parse_name("example.com"), Scope.WITH_BELOW)


def test_an_international_name_goes_by_its_ascii_form() -> None:
    patterns = config_with({"tunneled.domains": '["Bücher.example", "*.例え.jp"]'}).tunnels[0].patterns
    assert [str(pattern) for pattern in patterns] == ["xn--bcher-kva.example", "*.xn--r8jz45g.jp"]


def test_the_link_is_named_after_the_file() -> None:
    config = load(toml({"wireguard.config": '"keys/mullvad-se.conf"'}), files={"/etc/splitwg/keys/mullvad-se.conf": WG})
    assert (config.tunnels[0].link, config.files[-1]) == ("mullvad-se", "/etc/splitwg/keys/mullvad-se.conf")


def test_a_glob_without_a_match_is_a_note_and_no_problem() -> None:
    config = config_with({"tunneled.lists": '["lists/*.txt"]'})
    assert config.notes == (f"{PATH}: tunneled.lists: 'lists/*.txt' matches no file",)


def test_notes_do_not_make_a_configuration_another() -> None:
    config = config_with({})
    assert replace(config, notes=("a note",)) == config


# -- files that cannot be read


UNREADABLE: list[tuple[File, str]] = [
    (FileNotFoundError(2, "No such file or directory"), "there is no such file; write one"),
    (PermissionError(13, "Permission denied"), "cannot be read (Permission denied); check its owner and mode"),
    (IsADirectoryError(21, "Is a directory"), "cannot be read (Is a directory)"),
    (b"[dns]\n# \xff\n", "is not UTF-8 (byte 8); save it as UTF-8"),
    ("[dns\n", "is not TOML: Expected ']' at the end of a table declaration (at line 1, column 5); mend that line"),
    ("a = 1\na = 2\n", "is not TOML: Cannot overwrite a value (at line 2, column 6)"),
]


@pytest.mark.parametrize(("content", "told"), UNREADABLE, ids=[told for _, told in UNREADABLE])
def test_a_file_that_cannot_be_read_says_why(content: File, told: str) -> None:
    (problem,) = problems_of(content)
    assert problem.startswith(f"{PATH}: {told}")


def test_a_number_of_5000_digits_is_a_problem_and_no_traceback() -> None:
    assert problems_of("a = " + "1" * 5000)


def test_brackets_2000_deep_are_a_problem_and_no_traceback() -> None:
    assert problems_of("a = " + "[" * 2000)


@pytest.mark.parametrize(
    ("wg", "told"),
    [
        (FileNotFoundError(2, "No such file or directory"), "cannot be read (No such file or directory); put the file"),
        (PermissionError(13, "Permission denied"), "cannot be read (Permission denied)"),
        (b"\xff", "is not UTF-8 (byte 0); save it as UTF-8"),
    ],
    ids=["absent", "forbidden", "latin-1"],
)
def test_a_wg_quick_file_that_cannot_be_read_says_why(wg: File, told: str) -> None:
    (problem,) = problems_of(toml({}), wg)
    assert problem.startswith(f"{PATH}: wireguard.config: {WG_PATH} {told}")


def test_the_problems_of_the_wg_quick_file_are_told_with_its_path() -> None:
    assert problems_of(toml({}), WG.replace("Address", "Adress"))[0].startswith(f"{WG_PATH}:2: unknown key 'Adress'")


def test_a_private_key_that_is_none_is_not_repeated() -> None:
    (problem,) = problems_of(toml({}), WG.replace(PRIVATE_KEY, PRIVATE_KEY[:-3]))
    assert problem.startswith(f"{WG_PATH}:3: PrivateKey is no WireGuard key; paste the 44 characters")
    assert PRIVATE_KEY[:10] not in problem


# -- one wrong value, one problem


WRONG_VALUES = [
    ("dns.tunneled", "", 'dns.tunneled: is missing; write ["10.1.0.1"]'),
    ("dns.tunneled", "[]", 'dns.tunneled: is empty; write ["10.1.0.1"]'),
    ("dns.tunneled", '"10.1.0.1"', "dns.tunneled: = '10.1.0.1' is no list; write a list, as in"),
    ("dns.default", "", 'dns.default: is missing; write ["9.9.9.9"], or "auto" for what the network gives'),
    ("dns.default", "[]", 'dns.default: is empty; write ["9.9.9.9"], or "auto"'),
    ("dns.default", '"Auto"', "dns.default: = 'Auto' is no list; write a list, as in"),
    ("dns.default", "true", "dns.default: = True is no list; write a list, as in"),
    ("dns.default", '["auto"]', "dns.default: = ['auto']; write default = \"auto\", without brackets"),
    ("dns.default", '["9.9.9.9", "auto"]', "dns.default[1]: = 'auto': is no IP address"),
    ("dns.tunneled", '"auto"', "dns.tunneled: = 'auto' is no list"),
    ("dns.forward", '{ "ts.net" = "auto" }', "dns.forward.'ts.net': = 'auto' is no list"),
    (
        "dns.default",
        '["tls://dns.quad9.net"]',
        "dns.default[0]: = 'tls://dns.quad9.net': is no IP address; write the address, and a name only behind #: tls://9",
    ),
    ("dns.default", '["tls://9.9.9.9"]', "dns.default[0]: = 'tls://9.9.9.9': does not say which name the certifi"),
    ("dns.default", '["tls://127.0.0.1:53#a.b"]', "dns.default: tls://127.0.0.1:53#a.b is splitwgd itself"),
    ("dns.tunneled", '["fe80::1%wg0"]', "dns.tunneled: fe80::1%wg0 is on a link of this machine; name a server behind"),
    ("dns.cache_memory", "0", "dns.cache_memory: = 0; write a number from 1 to 65536"),
    ("dns.min_ttl", "3601", "dns.min_ttl: = 3601; write a number from 0 to 3600"),
    ("dns.min_ttl", "-1", "dns.min_ttl: = -1; write a number from 0 to 3600"),
    ("dns.max_ttl", "0", "dns.max_ttl: = 0; write a number from 1 to 86400"),
    ("dns.max_ttl", "86401", "dns.max_ttl: = 86401; write a number from 1 to 86400"),
    ("dns.stale", "259201", "dns.stale: = 259201; write a number from 0 to 259200"),
    ("dns.stale", "false", "dns.stale: = False; write a number"),
    ("dns.private", '"corp.example"', "dns.private: = 'corp.example' is no list; write a list, as in [\"a zone"),
    ("dns.private", '["*.corp.example"]', "dns.private[0]: = '*.corp.example': a star"),
    ("dns.private", '["192.168.0.0/16"]', "dns.private[0]: = '192.168.0.0/16': a slash"),
    ("dns.private", '[""]', "dns.private[0]: = '': an empty name"),
    ("dns.canary", "1", "dns.canary: = 1; write true or false"),
    ("dns.icloud_relay", '"no"', "dns.icloud_relay: = 'no'; write true or false"),
    ("dns.mix_case", "0", "dns.mix_case: = 0; write true or false"),
    ("dns.refuse_tls", "[]", "dns.refuse_tls: = []; write true or false"),
    ("dns.refuse_doh", "0", "dns.refuse_doh: = 0; write true or false"),
    ("dns.default", "[9.9]", "dns.default[0]: = 9.9 is no text; write a server's address such as 9.9.9.9, in quot"),
    ("dns.default", '["9.9.9.9", "dns.quad9.net"]', "dns.default[1]: = 'dns.quad9.net': is no IP address; write"),
    ("dns.default", '["9.9.9.9:0"]', "dns.default[0]: = '9.9.9.9:0': has no valid port"),
    ("dns.default", '["9.9.9.9:65536"]', "dns.default[0]: = '9.9.9.9:65536': has no valid port"),
    ("dns.default", '["9.9.9.9:dns"]', "dns.default[0]: = '9.9.9.9:dns': has no valid port"),
    ("dns.default", '["[2620:fe::fe]5"]', "dns.default[0]: = '[2620:fe::fe]5': has no valid port"),
    ("dns.default", '["127.0.0.53"]', "dns.default: 127.0.0.53 is splitwgd itself; name a server that it can ask"),
    ("dns.tunneled", '["::1"]', "dns.tunneled: ::1 is splitwgd itself"),
    ("dns.forward", "5", "dns.forward: = 5; write a table of zones and their servers"),
    ("dns.forward", '{ "a..b" = ["1.1.1.1"] }', "dns.forward.'a..b': = 'a..b': an empty label"),
    ("dns.forward", '{ "ts.net" = "1.1.1.1" }', "dns.forward.'ts.net': = '1.1.1.1' is no list"),
    ("dns.forward", '{ "ts.net" = ["x"] }', "dns.forward.'ts.net'[0]: = 'x': is no IP address"),
    ("dns.forward", '{ "ts.net" = ["127.0.0.1"] }', "dns.forward.'ts.net': 127.0.0.1 is splitwgd itself"),
    ("dns.listen", '["localhost", "127.0.0.1", "::1"]', "dns.listen[0]: = 'localhost': is no IP address; write an"),
    ("dns.listen", '["::1"]', "dns.listen: lacks 127.0.0.1; add it, or set dns.redirect = false"),
    ("dns.listen", '["127.0.0.1"]', "dns.listen: lacks ::1; add it, or set dns.redirect = false"),
    ("dns.cache_size", "-1", "dns.cache_size: = -1; write a number from 0 to 10000000"),
    ("dns.cache_size", "true", "dns.cache_size: = True; write a number"),
    ("dns.cache_size", "1.5", "dns.cache_size: = 1.5; write a number"),
    ("dns.redirect", '"yes"', "dns.redirect: = 'yes'; write true or false"),
    ("dns.redirect", "0", "dns.redirect: = 0; write true or false"),
    ("dns.bypass", '["router"]', "dns.bypass[0]: = 'router': is no IP address; write a server's address"),
    ("dns.fallback", '["1.1.1.1"]', "dns.fallback: unknown key; the keys of [dns] are tunneled, default, forward, lis"),
    ("tunnelled.domains", "[]", "tunnelled: unknown key; the keys here are dns, tunneled, wireguard, routing"),
    ("tunneled.domain", "[]", "tunneled.domain: unknown key; the keys of [tunneled] are domains, networks, lists"),
    ("wireguard.file", '"wg0.conf"', "wireguard.file: unknown key; the keys of [wireguard] are config"),
    ("routing.mark", "1", "routing.mark: unknown key; the keys of [routing] are fwmark, fwmask"),
    ("wireguard", '"wg0.conf"', "wireguard: = 'wg0.conf' is no table; write [wireguard] and the keys below it"),
    ("tunneled.domains", '"github.com"', "tunneled.domains: = 'github.com' is no list; write a list, as in"),
    (
        "tunneled.domains",
        "[5]",
        "tunneled.domains[0]: = 5 is no text; write a domain such as example.com, in quotation",
    ),
    ("tunneled.domains", '["a\\nb"]', "tunneled.domains[0]: = 'a\\nb': a line break cannot be in a name; write the"),
    ("tunneled.domains", '["a.b/c"]', "tunneled.domains[0]: = 'a.b/c': a slash cannot be in a name"),
    ("tunneled.domains", '["ok.a", "a..b"]', "tunneled.domains[1]: = 'a..b': an empty label"),
    (
        "tunneled.domains",
        f'["{"a" * 64}.com"]',
        f"tunneled.domains[0]: = '{'a' * 64}.com': the label {'a' * 20!r}… has 64 bytes",
    ),
    (
        "tunneled.domains",
        f'["{"a." * 128}com"]',
        f"tunneled.domains[0]: = '{'a.' * 128}com': the name is longer than 255",
    ),
    ("tunneled.domains", '["a.com", "!a.com"]', "tunneled: a.com and !a.com contradict each other; remove one of"),
    ("tunneled.domains", '["!*.a.com", "*.A.com."]', "tunneled: !*.a.com and *.a.com contradict each other"),
    (
        "tunneled.networks",
        '["198.51.100.1/24"]',
        "tunneled.networks[0]: = '198.51.100.1/24': 198.51.100.1/24 has host bits",
    ),
    (
        "tunneled.networks",
        '["fe80::/64"]',
        "tunneled.networks[0]: = 'fe80::/64': never leaves this machine or its link",
    ),
    ("tunneled.networks", '["127.0.0.0/8"]', "tunneled.networks[0]: = '127.0.0.0/8': never leaves this machine"),
    ("tunneled.networks", '["224.0.0.0/4"]', "tunneled.networks[0]: = '224.0.0.0/4': never leaves this machine"),
    ("tunneled.networks", "[1]", "tunneled.networks[0]: = 1 is no text; write a network such as 198.51.100.0/24"),
    (
        "tunneled.lists",
        '["lists/a.txt"]',
        "tunneled.lists: 'lists/a.txt': /etc/splitwg/lists/a.txt cannot be read (No su",
    ),
    ("tunneled.lists", "[true]", "tunneled.lists[0]: = True is no text; write a path, in quotation marks"),
    ("wireguard.config", "1", "wireguard.config: = 1; write the path of a wg-quick file"),
    ("routing.fwmark", "0", "routing.fwmark: = 0; write a number from 1 to 4294967295"),
    ("routing.fwmark", '"0x1"', "routing.fwmark: = '0x1'; write a number"),
    ("routing.fwmark", "0x100", "routing.fwmark: 0x100 has bits outside fwmask 0xff; widen the mask"),
    ("routing.fwmask", "0x1", "routing.fwmask: 0x1 leaves no bit for splitwgd's own packets; widen the mask"),
    ("routing.fwmask", "0x100000000", "routing.fwmask: = 4294967296; write a number from 1 to 4294967295"),
    ("routing.table", "0", "routing.table: = 0; write a number from 1"),
    ("routing.table", "253", "routing.table: 253 belongs to the kernel; take a number below 253"),
    ("routing.table", "254", "routing.table: 254 belongs to the kernel"),
    ("routing.table", "255", "routing.table: 255 belongs to the kernel"),
    ("routing.priority", "0", "routing.priority: = 0; write a number from 1 to 32765"),
    ("routing.priority", "32766", "routing.priority: = 32766; write a number from 1 to 32765"),
    ("routing.min_lifetime", "59", "routing.min_lifetime: = 59; write a number from 60 to 2592000"),
    ("routing.on_stop", '"ajar"', 'routing.on_stop: = \'ajar\'; write "closed" or "open"'),
    ("routing.on_stop", "false", 'routing.on_stop: = False; write "closed" or "open"'),
]


@pytest.mark.parametrize(("key", "value", "told"), WRONG_VALUES, ids=[told[:60] for *_, told in WRONG_VALUES])
def test_a_wrong_value_is_told_with_its_path_and_its_remedy(key: str, value: str, told: str) -> None:
    (problem,) = problems_with({key: value})
    assert problem.startswith(told)
    assert "; " in problem


@pytest.mark.parametrize("section", ["dns", "tunneled", "routing"])
def test_a_section_that_is_no_table_is_told(section: str) -> None:
    rest = "\n".join(f"{key} = {value}" for key, value in {"dns.tunneled": "[]"}.items() if section != "dns")
    assert f"{PATH}: {section}: = 5 is no table; write [{section}] and the keys below it" in problems_of(
        f"{section} = 5\n{rest}"
    )


def test_a_life_can_not_be_longer_at_least_than_at_most() -> None:
    (problem,) = problems_with({"dns.min_ttl": "300", "dns.max_ttl": "299"})
    assert problem == "dns.min_ttl: 300 is more than max_ttl 299; lower it, or raise max_ttl"


@pytest.mark.parametrize("name", ["ts.net", "=ts.net", "*.ts.net", "TS.net."])
def test_a_name_cannot_be_tunneled_and_a_zone_of_its_own(name: str) -> None:
    (problem,) = problems_with({"tunneled.domains": f'["{name}"]', "dns.forward": '{ "ts.net" = ["100.100.100.100"] }'})
    assert "is a zone of dns.forward too; remove it from one of the two" in problem


def test_an_exception_may_be_a_zone_of_its_own() -> None:
    forward = '{ "ts.net" = ["100.100.100.100"] }'
    assert problems_with({"tunneled.domains": '["net", "!ts.net"]', "dns.forward": forward}) == []


NO_LINKS = ["", "a" * 16, "ä" * 8, "wg 0", "wg:0", 'wg"0', "wg*", "wg%d", "..", "lo", "all", "default"]


@pytest.mark.parametrize("link", NO_LINKS)
def test_a_file_whose_name_no_link_can_bear_is_told(link: str) -> None:
    path = f"/etc/wireguard/{link}.conf"
    (problem,) = problems_with({"wireguard.config": f"'{path}'"}, {path: WG})
    assert problem == f"wireguard.config: {link!r} cannot name a link; rename the file, as in wg0.conf"


# -- lists


def test_bad_lines_of_a_list_are_told_with_their_numbers() -> None:
    files: dict[str, File] = {
        "/etc/splitwg/l": "good.com\n# note\nbad name\n\n||ads.example^\n0.0.0.0 tracker.example\n"
    }
    told = problems_of(toml({"tunneled.lists": '["l"]'}), files=files)
    assert (
        told[0]
        == "/etc/splitwg/l:3: 'bad name': a space cannot be in a name; write the bare domain, such as example.com"
    )
    assert [problem.split(": ")[0] for problem in told] == [f"/etc/splitwg/l:{number}" for number in (3, 5, 6)]


def test_a_list_of_nothing_but_bad_lines_is_told_within_bounds() -> None:
    told = problems_of(toml({"tunneled.lists": '["l"]'}), files={"/etc/splitwg/l": "a..b\n" * 5000})
    assert len(told) == 21
    assert told[-1] == "/etc/splitwg/l: 4980 more lines like these; mend them too"


@pytest.mark.parametrize("entry", ["a b", "a;", "a.", "a", "ü"])
def test_a_list_that_is_one_endless_line_is_told_within_bounds(entry: str) -> None:
    (problem,) = problems_of(toml({"tunneled.lists": '["l"]'}), files={"/etc/splitwg/l": entry * 10_000})
    assert len(problem) < 1000


def test_a_list_that_is_no_text_is_told() -> None:
    (problem,) = problems_with({"tunneled.lists": '["l"]'}, {"/etc/splitwg/l": b"\x89PNG"})
    assert problem.startswith("tunneled.lists: 'l': /etc/splitwg/l is not UTF-8 (byte 0)") or "UTF-8" in problem


def test_a_list_may_contradict_the_file_that_names_it() -> None:
    (problem,) = problems_with({"tunneled.lists": '["*.l"]'}, {"/etc/splitwg/a.l": "!github.com"})
    assert problem.startswith("tunneled: github.com and !github.com contradict each other")


# -- all at once


def test_everything_is_told_at_once_from_every_file() -> None:
    changes = {
        "dns.default": '["x"]',
        "dns.bypass": '["x"]',
        "dns.cache_size": '"x"',
        "tunneled.domains": '["a..b", "a b"]',
        "tunneled.lists": '["l"]',
        "routing.table": "255",
        "router.x": "1",
    }
    told = problems_of(toml(changes), WG.replace("Address", "Adress"), {"/etc/splitwg/l": "x/y"})
    expected = ["router", "dns.default[0]", "tunneled.domains[0]", "tunneled.domains[1]", "routing.table", WG_PATH]
    expected += ["/etc/splitwg/l:1"]
    assert [key for key in expected if not [problem for problem in told if key in problem]] == []


@pytest.mark.parametrize("key", ["dns.cache_size", "dns.bypass"])
def test_no_problem_hides_behind_an_unusable_wg_quick_file(key: str) -> None:
    told = problems_of(toml({key: '"x"'}), FileNotFoundError(2, "No such file or directory"))
    assert [problem for problem in told if key in problem]


# -- what can be read and cannot work


CANNOT_WORK = [
    ("dns.forward", '{ "ts.net" = [] }', "dns.forward.'ts.net': has no server; name one"),
    ("dns.forward", '{ "a.b" = ["1.1.1.1"], "A.b." = ["2.2.2.2"] }', "dns.forward.'A.b.': is this zone for the second"),
    ("dns.default", '["[2620:fe::fe"]', "dns.default[0]: = '[2620:fe::fe': has no valid port"),
    ("dns.default", '["9.9.9.9:²"]', "dns.default[0]: = '9.9.9.9:²': has no valid port"),
    ("dns.default", '["0.0.0.0"]', "dns.default[0]: = '0.0.0.0': is another name for this machine"),
    ("dns.default", '["::"]', "dns.default[0]: = '::': is another name for this machine"),
    ("dns.default", '["::ffff:127.0.0.1"]', "dns.default[0]: = '::ffff:127.0.0.1': is another name for"),
    (
        "dns.default",
        '["fe80::1"]',
        "dns.default[0]: = 'fe80::1': is link-local and does not say on which link; write fe",
    ),
    ("dns.bypass", '["fe80::1%eth0"]', "dns.bypass[0]: = 'fe80::1%eth0': has a scope"),
    ("dns.bypass", '["2001:db8::1% } accept\\n"]', "dns.bypass[0]: = '2001:db8::1% } accept\\n': has a scope"),
    ("tunneled.networks", '["2001:db8::%x/64"]', "tunneled.networks[0]: = '2001:db8::%x/64': never leaves this"),
    ("dns.listen", "[]", "dns.listen: is empty; name an address, or leave the key out"),
]


@pytest.mark.parametrize(("key", "value", "told"), CANNOT_WORK, ids=[told for *_, told in CANNOT_WORK])
def test_what_cannot_work_is_refused(key: str, value: str, told: str) -> None:
    (problem,) = problems_with({key: value})
    assert problem.startswith(told)


@pytest.mark.parametrize(
    ("key", "value"), [("wireguard.config", '"x\\u0000.conf"'), ("tunneled.lists", '["x\\u0000.conf"]')]
)
def test_a_path_with_a_zero_byte_is_a_problem_and_no_traceback(key: str, value: str) -> None:
    assert problems_with({key: value}, {"/etc/splitwg/x\0.conf": ValueError("embedded null byte")})  # as open() has it


# -- properties


values = st.sampled_from(
    [
        "0",
        "-1",
        "1.5",
        "true",
        '""',
        '"x"',
        '"auto"',
        '["auto"]',
        '["tls://9.9.9.9#a"]',
        '"::1"',
        '"a.b"',
        "[]",
        "[[]]",
        "[1]",
        '["x"]',
        "{}",
        "{ a = 1 }",
    ]
)
keys = st.sampled_from([key for key, *_ in WRONG_VALUES if "." in key])


@given(st.dictionaries(keys, values, max_size=6))
def test_any_value_anywhere_is_accepted_or_told(changes: dict[str, str]) -> None:
    for problem in problems_of(toml(changes)):
        assert "\n" not in problem
        where, _, remedy = problem.partition("; ")
        assert where.startswith("/etc/")
        assert remedy


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_file_is_accepted_or_told(content: File) -> None:
    assert problems_of(content)
    assert problems_of(toml({}), content)


def test_a_configuration_is_a_value() -> None:
    first, second = config_with({}), config_with({})
    assert isinstance(first, Config)
    assert isinstance(first.tunnels[0].wireguard, WgConfig)
    assert first == second
    assert hash(first) == hash(second)
    assert PRIVATE_KEY not in repr(first)
