"""The rules of the house, as tests: floors, sole users of libraries, docstrings, sizes, a test file each."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "splitwgd"

# From the cellar to the roof; a module imports from its own floor and from below, never from above.
FLOORS = (
    ("words", {"errors", "names", "objects"}),
    (
        "decisions",
        {
            "wgconf",
            "settings",
            "servers",
            "resolvers",
            "hosts",
            "routing",
            "patterns",
            "lists",
            "config",
            "message",
            "svcb",
            "reply",
            "answers",
            "dot",
            "doh",
            "batch",
            "cookies",
            "exchange",
            "health",
            "zones",
            "local",
            "cache",
            "learned",
            "admission",
            "trimmed",
            "vetting",
            "state",
            "why",
            "provenance",
            "bypasses",
            "downlinks",
            "rules",
            "questions",
            "ruleset",
            "transaction",
            "plan",
            "diff",
            *("changes", "takeover", "installing", "findings", "sightings", "importing"),
        },
    ),
    (
        "hands",
        {
            "nft",
            "netlink",
            "sysctls",
            "events",
            "wireguard",
            "uapi",
            "owner",
            "elements",
            "way",
            "turn",
            "ports",
            "channels",
            "desk",
            "flight",
            "upstream",
            "connection",
            "bulk",
            "shelf",
            "listener",
            "holder",
            "watcher",
            "notify",
            "journal",
            "garbage",
            "store",
            "control",
            *("files", "programs", "machine", "foreign", "taps", "probes", "tracing"),
        },
    ),
    (
        "rooms",
        {
            *("kernel", "worker", "peers", "reconciler", "gate", "waiting", "forwarder", "endpoints"),
            *("memory", "whereabouts", "guard", "status", "pulse", "witness"),
            *("recorder", "removal", "setting_up", "examination"),
        },
    ),
    ("client", {"outcome", "overview", "listing", "watch", "setup", "doctor", "leaktest", "unit"}),
    ("roof", {"daemon", "cli"}),
)
# Whoever wants one of these asks the module that has it.
SOLE_USERS = {
    "nftables": {"nft"},
    "pyroute2": {"netlink", "wireguard", "foreign", "tracing"},
    "watchdog": {"watcher"},
    "sdnotify": {"notify"},
    "tomlkit": {"store"},
    "click": {"cli", "outcome", "overview", "listing", "watch", "setup", "doctor", "leaktest", "unit"},
    "rich": {"overview"},
    "idna": {"names"},
    "ctypes": {"bulk", "events"},
    "dnslib": {"local"},
    "h2": {"doh"},
    "ssl": {"dot", "channels"},
    "subprocess": {"uapi", "programs"},
}
# Decisions take bytes, values, `now` and ids as arguments; they fetch nothing.
OUTSIDE = {"asyncio", "socket", "time", "random", "secrets", "os", "logging", "threading", "subprocess", "pathlib"}
LINES = 350
FUNCTION_LINES = 60

MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def imports(module: str) -> set[str]:
    """Every module that is imported, in full ("os.path", "splitwgd.names")."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def floor(module: str) -> int:
    return next(number for number, (_, modules) in enumerate(FLOORS) if module in modules)


def test_every_module_has_a_floor() -> None:
    assert {module for _, modules in FLOORS for module in modules} == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    ours = {name.removeprefix("splitwgd.") for name in imports(module) if name.startswith("splitwgd.")}
    assert [other for other in sorted(ours) if floor(other) > floor(module)] == []


def test_imports_have_no_circle() -> None:
    below = {m: {n.removeprefix("splitwgd.") for n in imports(m) if n.startswith("splitwgd.")} for m in MODULES}
    while free := {module for module, others in below.items() if not others & set(below)}:
        below = {module: others for module, others in below.items() if module not in free}
    assert not below


@pytest.mark.parametrize("library", SOLE_USERS)
def test_a_library_has_one_hand(library: str) -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == library for name in imports(module))}
    assert users == SOLE_USERS[library]


@pytest.mark.parametrize("module", sorted(FLOORS[0][1] | FLOORS[1][1]))
def test_words_and_decisions_touch_nothing_outside(module: str) -> None:
    allowed = {"os.path"} if module == "config" else set()  # joins paths, opens none
    assert set() == {name for name in imports(module) - allowed if name.split(".")[0] in OUTSIDE}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is_and_what_is_public_says_its_contract(module: str) -> None:
    parsed = tree(module)
    assert ast.get_docstring(parsed)
    for node in parsed.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_one_job(module: str) -> None:
    lines = (PACKAGE / f"{module}.py").read_text().splitlines()
    assert len(lines) <= LINES
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_its_test_file(module: str) -> None:
    assert any((ROOT / "tests" / folder / f"test_{module}.py").exists() for folder in ("", "kernel", "lab"))


def test_the_example_configuration_is_in_order(tmp_path: Path) -> None:
    from splitwgd.config import load_config
    from splitwgd.store import Disk

    (tmp_path / "wg0.conf").write_text((ROOT / "etc" / "wg0.conf.example").read_text())
    example = (ROOT / "etc" / "domains.toml").read_text()
    path = tmp_path / "domains.toml"
    path.write_text(example.replace("/etc/wireguard/wg0.conf", str(tmp_path / "wg0.conf")))
    config = load_config(str(path), Disk())
    assert config.tunnels[0].patterns
    # What stands behind "# " as a setting is a default: it must be what is in force without it.
    shown = "\n".join(line.removeprefix("# ") for line in path.read_text().splitlines() if not line.startswith("##"))
    path.write_text(shown)
    with_defaults = load_config(str(path), Disk())
    assert with_defaults.routing == config.routing
    assert (with_defaults.listen, with_defaults.redirect) == (config.listen, config.redirect)
    assert with_defaults.cache_size == config.cache_size


def test_the_documents_name_every_module() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    assert [module for module in MODULES if f"`{module}`" not in text] == []


def test_versions_agree() -> None:
    from splitwgd import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "splitwgd.__version__"
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
