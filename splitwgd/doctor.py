"""The command doctor: looks at this machine and says what to mend."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from splitwgd.config import load_config
from splitwgd.errors import ConfigError, Problem
from splitwgd.examination import look_around
from splitwgd.files import Tree
from splitwgd.findings import GOOD, MEND, NOTE, UNSEEN, Finding, examine, grade_of
from splitwgd.outcome import plain_errors
from splitwgd.programs import Programs
from splitwgd.store import Disk

_MARKS = {GOOD: ("✓", "green"), NOTE: ("i", "cyan"), MEND: ("✗", "red"), UNSEEN: ("?", "yellow")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
@plain_errors
def doctor(path: str, as_json: bool) -> None:
    """Look for what keeps splitwg from working here, and say what to do about it.

    Changes nothing. Without root it says what it could not see. Exit status: 0 nothing to mend, 1 something.
    """
    wrong: list[Finding] = []
    try:
        config = load_config(path, Disk())
    except ConfigError as error:
        config = None
        wrong = [_finding(problem) for problem in error.problems]
    findings = [*wrong, *examine(look_around(Tree(), Programs(), config), config)]
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            _say(finding)
    sys.exit(grade_of(findings))


def _finding(problem: Problem) -> Finding:
    if "Permission denied" in problem.what:
        return Finding(problem.where, UNSEEN, problem.what, "run as root")
    return Finding(problem.where, MEND, problem.what, problem.remedy)


def _say(finding: Finding) -> None:
    mark, colour = _MARKS[finding.grade]
    click.echo(f"{click.style(mark, fg=colour)} {click.style(finding.about, bold=True)}: {finding.text}")
    if finding.remedy and finding.grade != GOOD:
        click.echo(f"  -> {finding.remedy}")
