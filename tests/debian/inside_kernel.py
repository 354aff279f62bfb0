"""Runs in a booted Debian on its own release's kernel, whose WireGuard is in it: from `apt install` to `apt purge`.

As `inside`, in one boot, and without what does not depend on the kernel. Writes what it found; judges nothing.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, "/srv/splitwg")
from tests.debian.inside import APT, OUT, PACKAGES, callers, everything, left, ran, set_up, settled, the_articles_tests
from tests.system.inside import DOMAINS, sh, until
from tests.system.inside_stream import caller

SHARED = "203.0.113.60"  # of both names


def install(found: dict[str, Any]) -> None:
    found["kernel"] = sh("uname -r")
    found["install"] = ran(*APT, "install", f"{PACKAGES}/first.deb")


def device(found: dict[str, Any]) -> None:
    """Whose WireGuard it is, when there has been traffic."""
    found["link"] = sh("ip -d -o link show wg0; sysctl net.ipv4.conf.all.send_redirects")
    found["in userspace"] = sh("pidof wireguard-go")
    found["status"] = ran("splitwg", "status")


def renewal(found: dict[str, Any]) -> None:
    """One address of two names: the second one's answer renews the element that the first one's made."""
    found["listed"] = ran("splitwg", "add", "shared-a.example", "shared-b.example")
    elements = []
    for name in ("shared-a.example", "shared-b.example"):
        caller(name)
        elements.append(element())
        time.sleep(3)
        elements.append(element())
    found["element"] = elements  # made, later, renewed, later


def element() -> dict[str, Any]:
    """What nft says of the shared address: seconds that are left, and its names."""
    listing = sh("nft list set inet wg_routing wg_domains4")
    match = re.search(rf'{SHARED} timeout \S+ expires (\S+?)(?:ms)?(?: comment "([^"]*)")?\s*[,}}]', listing)
    if match is None:
        return {"listing": listing}
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    spans = re.findall(r"(\d+)(ms|[dhms])", match[1])
    return {"left": sum(int(count) * units.get(unit, 0) for count, unit in spans), "names": match[2]}


def endpoint(found: dict[str, Any]) -> None:
    """The VPN's own address is tunneled, too: WireGuard's outer packets must not follow."""
    address = sh("wg show wg0 endpoints").split()[-1].rpartition(":")[0]
    text = re.sub(r"(?m)^networks = .*\n", "", DOMAINS.read_text())
    DOMAINS.write_text(text.replace("[tunneled]", f'[tunneled]\nnetworks = ["{address}"]', 1))
    found["endpoint"] = until(lambda: address in sh("nft list set inet wg_routing wg_networks4"))
    found["endpoint: down"], found["endpoint: up"] = ran("splitwg", "down"), ran("splitwg", "up")
    found["endpoint: tunneled, plain"] = callers("tunneled.example", "plain.example")
    found["handshake"] = sh("wg show wg0 latest-handshakes").split()[-1]


def purge(found: dict[str, Any]) -> None:
    found["journal"] = sh("journalctl -u splitwgd -u splitwgd-guard -o short-monotonic --no-hostname --no-pager")
    found["purge"] = ran(*APT, "purge", "splitwg")
    found["purged"] = settled(json.loads((OUT / "before.json").read_text())) + left()


def main() -> None:
    """All of it."""
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    found: dict[str, Any] = {}
    until(lambda: caller("plain.example"), 60)
    (OUT / "before.json").write_text(json.dumps(everything()))
    for part in (install, set_up, the_articles_tests, device, renewal, endpoint, purge):
        started = time.monotonic()
        part(found)
        found[f"seconds of {part.__name__}"] = round(time.monotonic() - started, 1)
        Path(OUT / "progress-1.json").write_text(json.dumps(found, indent=1))
    (OUT / "report-1.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
