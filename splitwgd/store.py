"""Reads the configuration's files, edits its list of domains with the comments kept, and keeps a file of our own."""

from __future__ import annotations

import glob
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Array, Table

from splitwgd.errors import ConfigError, Problem
from splitwgd.names import Pattern, parse_pattern

PIECE = 4 << 10  # bytes of a list that are worked on at once: some 200 names, a quarter of a millisecond


class Disk:
    """The real files (`settings.Files`)."""

    def __init__(self, rest: float = 0.0) -> None:
        """rest: seconds that are given to other threads between the steps of long work."""
        self._rest = rest
        self.handed: dict[str, bytes] = {}  # by root, of files that are root's alone, since the start

    def read(self, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except PermissionError:
            # Root's alone, and we are not root: systemd has given us a copy (LoadCredential=), as it was at the start.
            if (copy := self.handed.get(path) or _credential(path)).strip():
                return copy
            raise

    def glob(self, pattern: str) -> list[str]:
        return sorted(glob.glob(pattern))

    def stamp(self, path: str) -> tuple[int, ...]:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return ()
        if not stat.S_ISREG(found.st_mode):
            return ()
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev

    def pieces(self, path: str) -> Iterator[bytes]:
        with open(path, "rb") as file:
            while piece := file.read(PIECE) + file.readline():
                yield piece

    def rest(self) -> None:
        if self._rest:
            time.sleep(self._rest)


def _credential(path: str) -> bytes:
    """What the unit has loaded of a file, under its path with - for /; nothing where it has not."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    try:
        return Path(folder, path.strip("/").replace("/", "-")).read_bytes() if folder else b""
    except OSError:
        return b""


def add_domains(path: str, patterns: Sequence[tuple[Pattern, str]]) -> list[bool]:
    """Writes the patterns into tunneled.domains, each with its comment; False for one that stood there already."""
    document, domains = _open(path)
    known = {pattern for entry in domains if (pattern := _pattern(entry)) is not None}
    done = []
    for pattern, comment in patterns:
        done.append(pattern not in known)
        known.add(pattern)
        if done[-1] and _by_lines(domains):
            domains.add_line(str(pattern), indent=_indent(domains), comment=comment or None)
        elif done[-1]:
            domains.append(str(pattern))
    if any(done):
        _write(path, tomlkit.dumps(document))
    return done


def remove_domain(path: str, pattern: Pattern) -> bool:
    """Takes the pattern out of tunneled.domains; False when it was not there."""
    document, domains = _open(path)
    places = [place for place, entry in enumerate(domains) if _pattern(entry) == pattern]
    for place in reversed(places):
        del domains[place]
    if places:
        _write(path, tomlkit.dumps(document))
    return bool(places)


def with_values(path: str, data: bytes, values: Mapping[str, Any]) -> str:
    """The text of a configuration with these values ("section.key"), and all else of it as it stands."""
    document = _parsed(path, data)
    for key, value in values.items():
        section, _, name = key.partition(".")
        table = document.setdefault(section, tomlkit.table())
        if table.get(name) != value:
            table[name] = value
    return tomlkit.dumps(document)


def _open(path: str) -> tuple[tomlkit.TOMLDocument, Array]:
    try:
        document = _parsed(path, Path(path).read_bytes())
    except OSError as error:
        raise ConfigError([Problem(path, f"cannot be read ({error.strerror})", "check owner and mode")]) from error
    section = document.setdefault("tunneled", tomlkit.table())
    if isinstance(section, Table):
        domains = section.setdefault("domains", tomlkit.array())
        if isinstance(domains, Array):
            return document, domains
    raise ConfigError([Problem(f"{path}: tunneled.domains", "is no list", 'write domains = ["example.com"]')])


def _parsed(path: str, data: bytes) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(data.decode())  # with its line ends as they are
    except ValueError as error:
        raise ConfigError([Problem(path, f"is not TOML: {error}", "mend that line")]) from error


def _pattern(entry: object) -> Pattern | None:
    try:
        return parse_pattern(str(entry))
    except ValueError:
        return None


def _by_lines(domains: Array) -> bool:
    return "\n" in domains.as_string()


def _indent(domains: Array) -> str:
    """The white space before the first entry that has a line of its own."""
    for line in domains.as_string().splitlines()[1:]:
        if line.strip().startswith(('"', "'")):
            return line[: len(line) - len(line.lstrip())]
    return "    "


def _write(path: str, text: str) -> None:
    """Replaces the file (the target, if it is a symlink) whole: a reader sees the old one or the new one."""
    target = os.path.realpath(path)
    mode = os.stat(target)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=f".{os.path.basename(target)}.")
    _replace(target, handle, temporary, mode, [text.encode()])


def _replace(target: str, handle: int, temporary: str, mode: os.stat_result, pieces: Iterable[bytes]) -> None:
    """Fills the temporary file and puts it in the target's place; on an error nothing of it is left."""
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fchmod(file.fileno(), mode.st_mode & 0o7777)
            if (mode.st_uid, mode.st_gid) != (os.geteuid(), os.getegid()):  # not to be asked for in vain: it is a right
                os.fchown(file.fileno(), mode.st_uid, mode.st_gid)
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


# -- what splitwgd keeps for itself


def state_path() -> str:
    """The file in $STATE_DIRECTORY, by default /var/lib/splitwg, that outlives a reboot."""
    folders = os.environ.get("STATE_DIRECTORY", "")  # systemd separates several by colons
    return os.path.join(folders.partition(":")[0] or "/var/lib/splitwg", "learned.json")


def keep(path: str, pieces: Iterable[bytes]) -> None:
    """Replaces a file of ours whole; nobody but its owner reads it. Raises OSError, and then the old one stays."""
    # One name and not ever new ones: what a kill or a power cut leaves half written is overwritten the next time.
    temporary = f"{path}.new"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if os.geteuid() == 0:  # the unit's daemon, which is not root, has to read what one that was run by hand wrote
        folder = os.stat(os.path.dirname(path))
        os.fchown(handle, folder.st_uid, folder.st_gid)
    _replace(path, handle, temporary, os.fstat(handle), pieces)


def set_aside(path: str) -> str:
    """Gives a file another name, which it returns, so that a new one can take its place. Raises OSError."""
    aside = f"{path}.damaged"
    os.replace(path, aside)
    return aside
