"""The hand on /proc/sys/net: families, forwarding, redirects, and how strictly replies are filtered.

What is not there is an answer, too; what cannot be read (no descriptor to be had) is an OSError: to take it for a no
would have the plan do without IPv6.
"""

from __future__ import annotations

from pathlib import Path

from splitwgd.errors import MachineError

_REDIRECTS = Path("/proc/sys/net/ipv4/conf/all/send_redirects")
_STRICT, _LOOSE = 1, 2  # rp_filter, Documentation/networking/ip-sysctl.rst


def has_ipv6() -> bool:
    """Whether this machine has IPv6: in the kernel, and not switched off for all links."""
    try:
        return Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text().strip() == "0"
    except FileNotFoundError:
        return False


def forwards(link: str, version: int) -> bool:
    """Whether what comes in there goes on. IPv6 forwards for all links or for none (ip-sysctl.rst)."""
    conf = f"ipv4/conf/{link}" if version == 4 else "ipv6/conf/all"
    try:
        return Path(f"/proc/sys/net/{conf}/forwarding").read_text().strip() != "0"
    except FileNotFoundError:  # the link is gone
        return False


def is_strict(link: str) -> bool:
    """Whether replies would be filtered strictly on this link but for our doing (there need not be one yet).

    In force is the greater of the link's value and the one for all links.
    """
    own = _read(link)
    base = _read("default") if own is None or is_loosened(link) else own
    return max(base or 0, _read("all") or 0) == _STRICT


def is_strict_now(link: str) -> bool:
    """Whether replies are filtered strictly on this link, as it is."""
    return max(_read(link) or 0, _read("all") or 0) == _STRICT


def is_loosened(link: str) -> bool:
    """Whether the link is loose by our doing: more than a new one would be."""
    return _read(link) == _LOOSE != _read("default")


def loosen(link: str) -> None:
    """Replies for addresses that the main table sends elsewhere are let in. Raises MachineError."""
    _write(link, _LOOSE)


def tighten(link: str) -> None:
    """As a new link would have it. Raises MachineError."""
    if is_loosened(link):
        _write(link, _read("default") or 0)


def sends_redirects() -> bool:
    """Whether this machine tells others of better routers, on links where nothing else is said."""
    try:
        return _REDIRECTS.read_text().strip() != "0"
    except FileNotFoundError:
        return False


def send_redirects() -> None:
    """It does again. Raises MachineError."""
    _put(_REDIRECTS, 1)


def _path(link: str) -> Path:
    return Path(f"/proc/sys/net/ipv4/conf/{link}/rp_filter")


def _read(link: str) -> int | None:
    try:
        return int(_path(link).read_text())
    except FileNotFoundError:
        return None


def _write(link: str, value: int) -> None:
    _put(_path(link), value)


def _put(path: Path, value: int) -> None:
    try:
        path.write_text(f"{value}\n")
    except FileNotFoundError:
        return  # the link is gone
    except OSError as error:
        raise MachineError(f"{path} cannot be written ({error.strerror}); run as root") from error
