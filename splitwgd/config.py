"""Reads domains.toml into one frozen value, or into the list of everything that is wrong with it.

Decides nothing about the kernel (that is `plan`) and opens nothing: files come through `Files`.
"""

from __future__ import annotations

import os.path
import re
import tomllib
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from splitwgd.errors import ConfigError, Problem
from splitwgd.hosts import PATH as HOSTS_PATH
from splitwgd.hosts import Hosts, parse_hosts
from splitwgd.lists import read_lists
from splitwgd.names import ROOT, Name, Pattern, parse_name, parse_pattern
from splitwgd.objects import Ip, Network
from splitwgd.patterns import PatternTable, opposite
from splitwgd.resolvers import SOURCES, network_servers
from splitwgd.routing import Routing, read_routing
from splitwgd.servers import Server, parse_address, parse_server
from splitwgd.settings import Files, Settings, read_if_any
from splitwgd.wgconf import WgConfig, parse_wgconf

DEFAULT_PATH = "/etc/splitwg/domains.toml"


@dataclass(frozen=True)
class Tunnel:
    """One WireGuard tunnel and what goes through it. `sets` begins the names of its nft sets.

    patterns: those of the configuration itself. listed: those of all lists that it names.
    """

    name: str
    link: str
    sets: str
    mark: int
    table: int
    servers: tuple[Server, ...]
    patterns: tuple[Pattern, ...]
    listed: PatternTable
    networks: tuple[Network, ...]
    wireguard: WgConfig


@dataclass(frozen=True)
class Config:
    """The whole configuration. `files` are the paths that it was made of, for the watcher.

    auto: whether `default` is what the network gave; it may be empty then. private: zones whose names may lead
    to private addresses. min_ttl, max_ttl, stale: seconds; stale is for how long an answer that has ended may
    stand in for one that cannot be had. cache_bytes: of all kept answers together. hosts: of /etc/hosts.
    """

    path: str
    default: tuple[Server, ...]
    forward: tuple[tuple[Name, tuple[Server, ...]], ...]
    listen: tuple[Ip, ...]
    cache_size: int
    redirect: bool
    bypass: tuple[Ip, ...]
    routing: Routing
    tunnels: tuple[Tunnel, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...] = field(compare=False)
    auto: bool = False
    cache_bytes: int = 64 << 20
    min_ttl: int = 0
    max_ttl: int = 86_400
    stale: int = 86_400
    private: tuple[Name, ...] = ()
    canary: bool = True
    icloud_relay: bool = False
    mix_case: bool = False
    refuse_tls: bool = True
    refuse_doh: bool = True
    hosts: Hosts = ()


def load_config(path: str, files: Files, before: Config | None = None) -> Config:
    """The configuration at `path`. Raises ConfigError with every problem in it and in the files it names.

    before: one from earlier, whose lists are not read again unless they have been written since.
    """
    try:
        text = files.read(path).decode("utf-8-sig")
        document = tomllib.loads(text)
    except FileNotFoundError:
        problem = Problem(path, "there is no such file", "write one (the README shows how) or name it with --config")
        raise ConfigError([problem]) from None
    except OSError as error:
        raise ConfigError([Problem(path, f"cannot be read ({error.strerror})", "check its owner and mode")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(path, f"is not UTF-8 (byte {error.start})", "save it as UTF-8")]) from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or what a monstrous value raises
        raise ConfigError([Problem(path, f"is not TOML: {error}", "mend that line")]) from error
    reader = _Reader(path, document, files)
    reader.known = before.tunnels[0].listed if before is not None else None
    config = reader.config()
    if config is None or reader.settings.problems:
        raise ConfigError(reader.settings.problems)
    return config


_LOOPBACKS = ("127.0.0.53", "127.0.0.1", "::1")
_REDIRECTED_TO = ("127.0.0.1", "::1")  # where nft's redirect leads locally made packets
_LINK_NAME = re.compile(r"[A-Za-z0-9_=+.-]{1,15}")  # as wg-quick has it: short, and no wildcard of nft or the kernel
_NO_LINKS = ("lo", "all", "default", ".", "..")  # each means something else under /proc/sys/net
# section -> its keys. One place says what exists, so that a misspelt key can be told from a known one.
_KEYS = {
    "": ("dns", "tunneled", "wireguard", "routing"),
    "dns": (
        *("tunneled", "default", "forward", "listen", "redirect", "bypass"),
        *("cache_size", "cache_memory", "min_ttl", "max_ttl", "stale"),
        *("private", "canary", "icloud_relay", "mix_case", "refuse_tls", "refuse_doh"),
    ),
    "tunneled": ("domains", "networks", "lists"),
    "wireguard": ("config",),
    "routing": ("fwmark", "fwmask", "table", "priority", "min_lifetime", "on_stop"),
}

# The keys that switch something, and how they stand.
_SWITCHES = {
    "canary": Config.canary,
    "icloud_relay": Config.icloud_relay,
    "mix_case": Config.mix_case,
    "refuse_tls": Config.refuse_tls,
    "refuse_doh": Config.refuse_doh,
}


class _Reader:
    """Walks the document once, section by section."""

    def __init__(self, path: str, document: dict[str, Any], files: Files) -> None:
        self.path = path
        self.settings = Settings(path, document, files)
        self.used = [path]
        self.notes: list[str] = []
        self.known: PatternTable | None = None

    def config(self) -> Config | None:
        """The configuration, or None where it lacks what it cannot be without; problems tell either way."""
        settings = self.settings
        settings.unknown_keys(_KEYS)
        redirect = settings.plain("dns.redirect", True, bool, "true or false")
        listen = self._listen(redirect)
        servers = self._tunneled(listen)
        default, auto = self._default(listen)
        forward = self._forward(listen)
        zones = dict(forward)
        patterns = self._patterns(zones)
        listed = self._listed(patterns, zones)
        networks = tuple(settings.many("tunneled.networks", "a network such as 198.51.100.0/24", _network))
        bypass = tuple(settings.many("dns.bypass", "a server's address", parse_address))
        keeping = self._keeping()
        private = tuple(settings.many("dns.private", "a zone such as corp.example", _zone))
        switches = {key: settings.plain(f"dns.{key}", usual, bool, "true or false") for key, usual in _SWITCHES.items()}
        self.used.append(HOSTS_PATH)
        hosts = parse_hosts(read_if_any(settings.files, HOSTS_PATH))
        routing = read_routing(settings)
        wireguard = self._wireguard()
        if wireguard is None:
            return None
        link = _link_of(wireguard.path)
        mark, table = routing.fwmark, routing.table
        tunnel = Tunnel(link, link, "wg", mark, table, servers, patterns, listed, networks, wireguard)
        return Config(
            path=self.path,
            default=default,
            forward=forward,
            listen=listen,
            redirect=redirect,
            bypass=bypass,
            routing=routing,
            tunnels=(tunnel,),
            files=tuple(self.used),
            notes=tuple(self.notes) + wireguard.notes,
            auto=auto,
            private=private,
            hosts=hosts,
            **keeping,
            **switches,
        )

    # -- sections

    def _listen(self, redirect: bool) -> tuple[Ip, ...]:
        listen = tuple(self.settings.many("dns.listen", "an address of this machine", parse_address))
        if not listen and self.settings.get("dns.listen") == []:
            self.settings.problem("dns.listen", "is empty", "name an address, or leave the key out")
        listen = listen or tuple(ip_address(text) for text in _LOOPBACKS)
        for text in _REDIRECTED_TO:
            if redirect and ip_address(text) not in listen:
                self.settings.problem("dns.listen", f"lacks {text}", "add it, or set dns.redirect = false")
        return listen

    def _tunneled(self, listen: tuple[Ip, ...]) -> tuple[Server, ...]:
        values = self.settings.required("dns.tunneled", 'write ["10.1.0.1"] or so')
        servers = self._servers("dns.tunneled", listen, values)
        for server in servers:
            if server.scope:
                self.settings.problem(
                    "dns.tunneled", f"{server} is on a link of this machine", "name a server behind the tunnel"
                )
        return servers

    def _default(self, listen: tuple[Ip, ...]) -> tuple[tuple[Server, ...], bool]:
        """The servers, and whether they are what the network gave."""
        value = self.settings.get("dns.default")
        if value == ["auto"]:
            self.settings.problem("dns.default", "= ['auto']", 'write default = "auto", without brackets')
        elif value != "auto":
            values = self.settings.required("dns.default", 'write ["9.9.9.9"], or "auto" for what the network gives')
            return self._servers("dns.default", listen, values), False
        self.used.extend(SOURCES)
        servers = network_servers(self.settings.files, listen)
        if not servers:
            self.notes.append(f"{self.path}: dns.default: the network has named no server; only tunneled names resolve")
        return servers, True

    def _servers(self, key: str, listen: tuple[Ip, ...], values: Any) -> tuple[Server, ...]:
        found = self.settings.each(key, values, "a server's address such as 9.9.9.9", parse_server)
        servers: tuple[Server, ...] = tuple(dict.fromkeys(found))
        for server in servers:
            if server.port == 53 and server.address in listen:
                self.settings.problem(key, f"{server} is splitwgd itself", "name a server that it can ask")
        return servers

    def _forward(self, listen: tuple[Ip, ...]) -> tuple[tuple[Name, tuple[Server, ...]], ...]:
        zones = self.settings.plain("dns.forward", {}, dict, "a table of zones and their servers")
        forward: dict[Name, tuple[Server, ...]] = {}
        for text, values in zones.items():
            key = f"dns.forward.{text!r}"
            name = self.settings.parsed(key, text, "a zone", parse_name)
            servers = self._servers(key, listen, values)
            if values == []:
                self.settings.problem(key, "has no server", "name one, or remove the zone")
            if name in forward:
                self.settings.problem(key, "is this zone for the second time", "keep one")
            if name is not None:
                forward[name] = servers
        return tuple(forward.items())

    def _keeping(self) -> dict[str, Any]:
        """How many answers are kept, and for how long."""
        number = self.settings.number
        low = number("dns.min_ttl", Config.min_ttl, 0, 3600)
        high = number("dns.max_ttl", Config.max_ttl, 1, 86_400)
        if low > high:
            self.settings.problem("dns.min_ttl", f"{low} is more than max_ttl {high}", "lower it, or raise max_ttl")
        return {
            "cache_size": number("dns.cache_size", 10_000, 0, 10_000_000),
            "cache_bytes": number("dns.cache_memory", Config.cache_bytes >> 20, 1, 1 << 16) << 20,
            "min_ttl": low,
            "max_ttl": high,
            "stale": number("dns.stale", Config.stale, 0, 259_200),  # RFC 8767 §5: at most 1 to 3 days
        }

    def _patterns(self, zones: Container[Name]) -> tuple[Pattern, ...]:
        """The domains of this file."""
        patterns: dict[Pattern, None] = {}
        for pattern in self.settings.many("tunneled.domains", "a domain such as example.com", parse_pattern):
            if opposite(pattern) in patterns:
                self._contradict(opposite(pattern), pattern)
            if pattern.name in zones:
                self._forwarded(pattern)
            patterns[pattern] = None
        return tuple(patterns)

    def _listed(self, patterns: tuple[Pattern, ...], zones: Iterable[Name]) -> PatternTable:
        """The domains of all lists, none of which may contradict another or these patterns."""
        entries = self.settings.many("tunneled.lists", "a path", str)
        paths = [(path, entry) for entry in entries for path in self._lists(entry)]
        listed = read_lists(self.settings, paths, self.known)
        for pattern in listed.contradictions:
            self._contradict(opposite(pattern), pattern)
        more = listed.contradicting - len(listed.contradictions)
        if more:
            self.settings.problem("tunneled", f"{more} more entries of lists contradict others", "remove them")
        for pattern in patterns:
            if opposite(pattern) in listed.at(pattern.name):
                self._contradict(pattern, opposite(pattern))
        for zone in zones:
            for pattern in listed.at(zone):
                self._forwarded(pattern)
        return listed

    def _contradict(self, earlier: Pattern, later: Pattern) -> None:
        self.settings.problem("tunneled", f"{earlier} and {later} contradict each other", "remove one of them")

    def _forwarded(self, pattern: Pattern) -> None:
        if not pattern.exception:
            what = f"{pattern} is a zone of dns.forward too"
            self.settings.problem("tunneled", what, "remove it from one of the two")

    def _lists(self, entry: str) -> list[str]:
        """The paths that an entry of tunneled.lists means."""
        pattern = os.path.join(os.path.dirname(self.path), entry)
        self.used.append(pattern)
        if any(mark in entry for mark in "*?["):
            # The pattern is kept too, for the directory in which another file may appear.
            paths = self.settings.matches(pattern, "tunneled.lists")
            self.used.extend(paths)
        else:
            paths = [pattern]
        if not paths:
            self.notes.append(f"{self.path}: tunneled.lists: {entry!r} matches no file")
        return paths

    def _wireguard(self) -> WgConfig | None:
        entry = self.settings.plain("wireguard.config", "/etc/wireguard/wg0.conf", str, "the path of a wg-quick file")
        path = os.path.join(os.path.dirname(self.path), entry)
        self.used.append(path)
        link = _link_of(path)
        if not _LINK_NAME.fullmatch(link) or link in _NO_LINKS:
            self.settings.problem("wireguard.config", f"{link!r} cannot name a link", "rename the file, as in wg0.conf")
        text = self.settings.text(
            path, "wireguard.config", "put the file of your provider there, or set wireguard.config"
        )
        if text is None:
            return None
        wireguard, problems = parse_wgconf(text, path)
        self.settings.problems.extend(problems)
        return wireguard


def _link_of(path: str) -> str:
    return os.path.basename(path).removesuffix(".conf")


def _zone(text: str) -> Name:
    return ROOT if text in (".", "*") else parse_name(text)


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(str(error)) from None
    if "%" in text or network.is_loopback or network.is_link_local or network.is_multicast:
        raise ValueError("never leaves this machine or its link")
    return network
