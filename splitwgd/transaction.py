"""nft transactions as text, and nft's listings as values.

Written as nft's own text, because people read it, and read as nft's JSON, because that can be parsed. A rule
is known again by its comment, which ends with a digest of the text that made it (see ruleset): nft prints
rules otherwise than it reads them, and differently in each version.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network, summarize_address_range
from math import ceil
from typing import Any

from splitwgd.objects import Chain, Element, FilterRule, Network, Set, Table
from splitwgd.rules import braces
from splitwgd.ruleset import by_name


def table_text(table: Table, found: Table | None, elements: Iterable[Element] = ()) -> str:
    """One transaction that makes the table so, whatever `found` is; learned elements of kept sets stay, and rules
    that are the same go on counting packets.

    One with flags is there already (see `owner`). elements: what to put into learned sets that are new, or that
    change their shape.
    """
    name = f"{table.family} {table.name}"
    lines = [f"flush table {name}"]
    if not table.flags:  # of one that is owned the owner has seen to it, and libnftables' `add` would be refused
        lines.insert(0, f"add table {name}")  # wakes a dormant one, too
    lines += [f"delete {kind} {name} {stray}" for kind, stray in sorted(found.strays if found else ())]
    wanted_chains = {chain.name: chain for chain in table.chains}
    wanted_sets = {set_.name: set_ for set_ in table.sets}
    for chain in found.chains if found else ():
        kept = wanted_chains.get(chain.name)
        if kept is None or kept.shape != chain.shape:
            lines.append(f"delete chain {name} {chain.name}")
    found_sets = {set_.name: set_ for set_ in found.sets} if found else {}
    for set_ in found_sets.values():
        keep = wanted_sets.get(set_.name)
        if keep is None or keep.shape != set_.shape:
            lines.append(f"delete set {name} {set_.name}")
    for set_ in table.sets:
        lines += _set_lines(name, set_)
    counts = {
        (chain.name, rule.comment): rule.packets for chain in (found.chains if found else ()) for rule in chain.rules
    }
    for chain in table.chains:
        head = f"type {chain.type} hook {chain.hook} priority {chain.priority}; policy {chain.policy};"
        lines.append(f"add chain {name} {chain.name} {{ {head} }}")
        for rule in chain.rules:
            text = _counting(rule.text, counts.get((chain.name, rule.comment), 0))
            lines.append(f'add rule {name} {chain.name} {text} comment "{rule.comment}"')
    kept_sets = {n for n, s in wanted_sets.items() if n in found_sets and found_sets[n].shape == s.shape}
    new_sets = wanted_sets.keys() - kept_sets
    lines += _element_lines(name, [element for element in elements if element.set in new_sets])
    return "\n".join(lines)


def _counting(text: str, packets: int) -> str:
    return text.replace(" counter", f" counter packets {packets} bytes 0", 1) if packets else text


def _set_lines(table: str, set_: Set) -> Iterable[str]:
    flags = ", ".join(sorted(set_.flags))
    size = f" size {set_.size};" if set_.size else ""
    yield f"add set {table} {set_.name} {{ type {set_.type}; flags {flags};{size} }}"
    if "interval" in set_.flags:
        yield f"flush set {table} {set_.name}"
        if set_.members:
            yield f"add element {table} {set_.name} {braces(sorted(set_.members, key=str))}"


def _element_lines(table: str, elements: Iterable[Element]) -> list[str]:
    lines = []
    by_set: dict[str, list[Element]] = {}
    for element in elements:
        by_set.setdefault(element.set, []).append(element)
    for set_, members in by_set.items():
        head = f"{table} {set_}"
        full = ", ".join(
            f'{ip_address(e.address)} timeout {ceil(e.seconds)}s expires {ceil(e.seconds)}s comment "{e.name}"'
            for e in members
        )
        lines.append(f"add element {head} {{ {full} }}")
    return lines


# -- from nft


def read_table(listing: dict[str, Any]) -> tuple[Table | None, list[Element]]:
    """The table in `nft -j list table`'s answer, and the learned elements in it."""
    name, family, flags = None, "", frozenset[str]()
    strays: set[tuple[str, str]] = set()
    sets: list[Set] = []
    elements: list[Element] = []
    chains: dict[str, dict[str, Any]] = {}
    rules: dict[str, list[FilterRule]] = {}
    for item in listing.get("nftables", ()):
        if "table" in item:
            name, family = item["table"]["name"], item["table"]["family"]
            flags = frozenset(_listed(item["table"].get("flags", ())))
        elif "set" in item:
            found = item["set"]
            if found["type"] not in ("ipv4_addr", "ipv6_addr"):  # somebody's, and not for addresses
                strays.add(("set", found["name"]))
                continue
            learned = [_element(found["name"], elem) for elem in found.get("elem", ())]
            elements += [element for element in learned if element is not None]
            sets.append(_set(found))
        elif "chain" in item:
            chain = item["chain"]
            chains[chain["name"]] = chain
        elif "rule" in item:
            rule = item["rule"]
            rules.setdefault(rule["chain"], []).append(FilterRule("", rule.get("comment", ""), _packets(rule)))
        else:
            strays |= {(kind, body["name"]) for kind, body in item.items() if isinstance(body, dict) and "name" in body}
    if name is None:
        return None, []
    found = [_chain(chain, tuple(rules.get(chain["name"], ()))) for chain in chains.values()]
    sorted_chains = tuple(sorted(found, key=by_name))
    return Table(name, tuple(sorted(sets, key=by_name)), sorted_chains, flags, frozenset(strays), family), elements


def _packets(rule: dict[str, Any]) -> int:
    for expression in rule.get("expr", ()):
        counter = expression.get("counter") if isinstance(expression, dict) else None
        if isinstance(counter, dict):  # one with a name is somebody's object
            return int(counter["packets"])
    return 0


def _chain(found: dict[str, Any], rules: tuple[FilterRule, ...]) -> Chain:
    kind, hook, priority = found.get("type", ""), found.get("hook", ""), found.get("prio", 0)
    return Chain(found["name"], kind, hook, priority, rules, found.get("policy", ""))


def _listed(value: Any) -> Iterable[str]:
    return [value] if isinstance(value, str) else value  # nft prints a single flag bare


def _set(found: dict[str, Any]) -> Set:
    flags = frozenset(_listed(found.get("flags", ())))
    networks: set[Network] = set()
    if "interval" in flags:
        for elem in found.get("elem", ()):
            networks.update(_member(elem))
    return Set(found["name"], str(found["type"]), flags, found.get("size"), frozenset(networks))


def _member(elem: Any) -> Iterable[Network]:
    if isinstance(elem, str):
        return [ip_network(elem)]
    elem = elem.get("elem", {}).get("val", elem) if "elem" in elem else elem  # with a timeout or a comment
    if isinstance(elem, str):
        return [ip_network(elem)]
    if "prefix" in elem:
        return [ip_network(f"{elem['prefix']['addr']}/{elem['prefix']['len']}")]
    if "range" in elem:
        low, high = (ip_address(end) for end in elem["range"])
        return summarize_address_range(low, high)
    return []


def _element(set_: str, elem: Any) -> Element | None:
    body = elem.get("elem") if isinstance(elem, dict) else None
    if not isinstance(body, dict) or "expires" not in body or not isinstance(body["val"], str):
        return None
    return Element(set_, ip_address(body["val"]).packed, body.get("comment", ""), float(body["expires"]))
