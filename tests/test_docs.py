"""The documentation: its examples are read by the daemon's own reader, its links lead somewhere, no key is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from splitwgd.cli import main
from splitwgd.config import _KEYS, load_config
from tests.worlds import WG, Files

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)\)")
ids = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_examples_say_what_they_are_and_configurations_are_in_order(page: Path) -> None:
    for kind, text in FENCE.findall(page.read_text()):
        assert kind in ("sh", "text", "toml"), f"write ```sh (a test runs it), ```text or ```toml: {text[:60]!r}"
        if kind == "toml":
            load_config("/domains.toml", Files({"/domains.toml": text, "/etc/wireguard/wg0.conf": WG}))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_no_command_is_named_that_there_is_not(page: Path) -> None:
    text = page.read_text()
    code = [*re.findall(r"```sh\n(.*?)```", text, re.DOTALL), *re.findall(r"`(?:sudo )?(splitwg [^`\n]+)`", text)]
    lines = [line for piece in code for line in piece.splitlines()] + re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    named = {match[1] for line in lines if (match := re.match(r"(?:sudo )?splitwg ([a-z][a-z-]*)", line))}
    assert named - set(main.commands) == set()


def test_configuration_has_every_key() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    missing = [key for section, keys in _KEYS.items() if section for key in keys if f"`{key}`" not in page]
    assert missing == []
