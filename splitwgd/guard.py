"""Closes the machine before it has a network: what of the plan closes, and the addresses that were learned.

Once at boot (`splitwgd --guard`), and then gone. The daemon finds all of it and takes it over (docs/decisions/0017).
"""

from __future__ import annotations

import logging
import time
from contextlib import closing

from splitwgd.admission import Admission
from splitwgd.config import Config
from splitwgd.diff import Diff, compare, is_closing
from splitwgd.kernel import Kernel
from splitwgd.learned import SLACK, SPARE, Ledger
from splitwgd.local import local_patterns
from splitwgd.memory import read
from splitwgd.objects import Table
from splitwgd.owner import Owner
from splitwgd.plan import Plan, make_plan
from splitwgd.ruleset import TABLE
from splitwgd.state import wanted
from splitwgd.store import state_path
from splitwgd.vetting import Vetting
from splitwgd.zones import Zones

log = logging.getLogger("splitwgd")


def guard(config: Config) -> None:
    """Closes, and opens or removes nothing, so that it may run at any time and any number of times.

    Raises KernelError or MachineError; what has been made so far only closes.
    """
    with closing(Owner(TABLE)) as owner, closing(Kernel(owner)) as kernel:
        count = _close(kernel, config)
    log.info("closed until splitwgd starts; %d addresses are known from before", count)


def _close(kernel: Kernel, config: Config) -> int:
    """Returns how many addresses are in the sets."""
    ledger, now = Ledger(config.routing.min_lifetime, SLACK, SPARE), time.monotonic()
    # Of a link that is there the daemon's own plan holds: what it put is then as wanted, and is left alone.
    links = {name for _, name, _ in kernel.surroundings().links}
    facts = kernel.facts(config, frozenset(tunnel.link for tunnel in config.tunnels) - links)
    plan = Plan.of(obj for obj in make_plan(config, facts).objects.values() if is_closing(obj))
    observed = kernel.observe(config, elements=True)
    ledger.restore(observed.elements, now)
    missing = compare(plan, observed.plan).grow
    if any(isinstance(obj, Table) and "owner" in obj.flags for obj in observed.plan.objects.values()):
        # A daemon runs, which has read the file as well, and its table is nobody else's to change.
        kernel.grow(Diff(tuple(put for put in missing if not isinstance(put.wanted, Table)), ()), [])
        return len(ledger)
    kernel.grow(Diff(missing, ()), list(observed.elements))
    state = read(state_path(), time.time(), now, ledger.longest(config.max_ttl))
    vetting = Vetting(Zones(config, local_patterns(config)), Admission(frozenset(config.private)), log.warning)
    vetting.recall(state.leads)
    remembered = wanted(state.addresses, vetting, ledger, now)
    kernel.insert([each.element(now) for each in remembered])
    return len(ledger) + len(remembered)
