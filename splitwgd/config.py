"""Reads domains.toml into one frozen value, or into the list of everything that is wrong with it.

Decides nothing about the kernel (that is `plan`) and opens nothing: files come through `Files`.
"""

from __future__ import annotations

import os.path
import re
import tomllib
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from splitwgd.errors import ConfigError, Problem
from splitwgd.names import Name, NameProblem, Pattern, parse_name, parse_pattern
from splitwgd.objects import Ip, Network
from splitwgd.servers import Server, parse_address, parse_server
from splitwgd.settings import Files, Settings
from splitwgd.wgconf import WgConfig, parse_wgconf

DEFAULT_PATH = "/etc/splitwg/domains.toml"
LISTED_AT_MOST = 20  # problems told of one list file; the rest are counted


@dataclass(frozen=True)
class Tunnel:
    """One WireGuard tunnel and what goes through it. `sets` begins the names of its nft sets."""

    name: str
    link: str
    sets: str
    mark: int
    table: int
    servers: tuple[Server, ...]
    patterns: tuple[Pattern, ...]
    networks: tuple[Network, ...]
    wireguard: WgConfig


@dataclass(frozen=True)
class Routing:
    """Bits, tables and lives. Only bits under `fwmask` are ever written or compared; seconds throughout."""

    fwmark: int = 0x1
    fwmask: int = 0xFF
    table: int = 100
    priority: int = 100
    min_lifetime: int = 3600
    on_stop: str = "closed"

    @property
    def direct(self) -> int:
        """The mark of our own packets that go outside: default questions and WireGuard's outer packets."""
        return self.fwmask ^ self.fwmark


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
    hosts: tuple[tuple[Name, tuple[Ip, ...]], ...] = ()


def load_config(path: str, files: Files) -> Config:
    """The configuration at `path`. Raises ConfigError with every problem in it and in the files it names."""
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
    config = reader.config()
    if config is None or reader.settings.problems:
        raise ConfigError(reader.settings.problems)
    return config


_LOOPBACKS = ("127.0.0.53", "127.0.0.1", "::1")
_REDIRECTED_TO = ("127.0.0.1", "::1")  # where nft's redirect leads locally made packets
_LINK_NAME = re.compile(r"[A-Za-z0-9_=+.-]{1,15}")  # as wg-quick has it: short, and no wildcard of nft or the kernel
_NO_LINKS = ("lo", "all", "default", ".", "..")  # each means something else under /proc/sys/net
_RESERVED_TABLES = (0, 253, 254, 255)
# section -> its keys. One place says what exists, so that a misspelt key can be told from a known one.
_KEYS = {
    "": ("dns", "tunneled", "wireguard", "routing"),
    "dns": ("tunneled", "default", "forward", "listen", "cache_size", "redirect", "bypass"),
    "tunneled": ("domains", "networks", "lists"),
    "wireguard": ("config",),
    "routing": ("fwmark", "fwmask", "table", "priority", "min_lifetime", "on_stop"),
}


class _Reader:
    """Walks the document once, section by section."""

    def __init__(self, path: str, document: dict[str, Any], files: Files) -> None:
        self.path = path
        self.settings = Settings(path, document, files)
        self.used = [path]
        self.notes: list[str] = []

    def config(self) -> Config | None:
        """The configuration, or None where it lacks what it cannot be without; problems tell either way."""
        settings = self.settings
        settings.unknown_keys(_KEYS)
        redirect = settings.plain("dns.redirect", True, bool, "true or false")
        listen = self._listen(redirect)
        servers = self._servers("dns.tunneled", listen, settings.required("dns.tunneled", 'write ["10.1.0.1"] or so'))
        default = self._servers("dns.default", listen, settings.required("dns.default", 'write ["9.9.9.9"] or so'))
        forward = self._forward(listen)
        patterns = self._patterns({name for name, _ in forward})
        networks = tuple(settings.many("tunneled.networks", "a network such as 198.51.100.0/24", _network))
        bypass = tuple(settings.many("dns.bypass", "a server's address", parse_address))
        cache_size = settings.number("dns.cache_size", 10_000, 0, 10_000_000)
        routing = self._routing()
        wireguard = self._wireguard()
        if wireguard is None:
            return None
        link = _link_of(wireguard.path)
        tunnel = Tunnel(link, link, "wg", routing.fwmark, routing.table, servers, patterns, networks, wireguard)
        return Config(
            path=self.path,
            default=default,
            forward=forward,
            listen=listen,
            cache_size=cache_size,
            redirect=redirect,
            bypass=bypass,
            routing=routing,
            tunnels=(tunnel,),
            files=tuple(self.used),
            notes=tuple(self.notes) + wireguard.notes,
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

    def _servers(self, key: str, listen: tuple[Ip, ...], values: Any) -> tuple[Server, ...]:
        servers = tuple(self.settings.each(key, values, "a server's address such as 9.9.9.9", parse_server))
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

    def _patterns(self, zones: set[Name]) -> tuple[Pattern, ...]:
        patterns = self.settings.many("tunneled.domains", "a domain such as example.com", parse_pattern)
        for entry in self.settings.many("tunneled.lists", "a path", str):
            patterns.extend(self._lists(entry))
        seen: dict[tuple[Name, Any], Pattern] = {}
        for pattern in patterns:
            earlier = seen.setdefault((pattern.name, pattern.scope), pattern)
            if earlier.exception != pattern.exception:
                self.settings.problem(
                    "tunneled", f"{earlier} and {pattern} contradict each other", "remove one of them"
                )
            if pattern.name in zones and not pattern.exception:
                self.settings.problem(
                    "tunneled", f"{pattern} is a zone of dns.forward too", "remove it from one of the two"
                )
        return tuple(seen.values())

    def _lists(self, entry: str) -> list[Pattern]:
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
        patterns: list[Pattern] = []
        for path in paths:
            text = self.settings.text(path, f"tunneled.lists: {entry!r}", "correct the path or remove it")
            patterns.extend(self._list(path, text or ""))
        return patterns

    def _list(self, path: str, text: str) -> list[Pattern]:
        patterns, bad = [], 0
        for number, line in enumerate(text.split("\n"), 1):
            entry = line.partition("#")[0].strip()
            if not entry:
                continue
            try:
                patterns.append(parse_pattern(entry))
            except NameProblem as problem:
                bad += 1
                if bad <= LISTED_AT_MOST:
                    what = f"{entry[:60]!r}: {problem.what}"
                    self.settings.problems.append(Problem(f"{path}:{number}", what, problem.remedy))
        if bad > LISTED_AT_MOST:
            self.settings.problems.append(
                Problem(path, f"{bad - LISTED_AT_MOST} more lines like these", "mend them too")
            )
        return patterns

    def _routing(self) -> Routing:
        usual = Routing()
        mark = self.settings.number("routing.fwmark", usual.fwmark, 1, 0xFFFFFFFF)
        mask = self.settings.number("routing.fwmask", usual.fwmask, 1, 0xFFFFFFFF)
        if mark & ~mask:
            self.settings.problem("routing.fwmark", f"{mark:#x} has bits outside fwmask {mask:#x}", "widen the mask")
        elif mark == mask:
            self.settings.problem(
                "routing.fwmask", f"{mask:#x} leaves no bit for splitwgd's own packets", "widen the mask"
            )
        table = self.settings.number("routing.table", usual.table, 1, 0xFFFFFFFF)
        if table in _RESERVED_TABLES:
            self.settings.problem("routing.table", f"{table} belongs to the kernel", "take a number below 253")
        on_stop = self.settings.plain("routing.on_stop", usual.on_stop, str, '"closed" or "open"')
        if on_stop not in ("closed", "open"):
            self.settings.problem("routing.on_stop", f"= {on_stop!r}", 'write "closed" or "open"')
        priority = self.settings.number("routing.priority", usual.priority, 1, 32765)
        life = self.settings.number("routing.min_lifetime", usual.min_lifetime, 60, 30 * 86400)
        return Routing(mark, mask, table, priority, life, on_stop)

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


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(str(error)) from None
    if "%" in text or network.is_loopback or network.is_link_local or network.is_multicast:
        raise ValueError("never leaves this machine or its link")
    return network
