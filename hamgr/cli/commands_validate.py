"""`validate`: what is wrong in a member's file, what holds in it, and the failover budget that follows from it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hamgr.cli.config import find_file
from hamgr.cli.context import Globals
from hamgr.cli.errors import BadConfig
from hamgr.cli.output import Column, Table, format_option, render, render_value
from hamgr.core.budget import Budget, Scenario, failover_budget
from hamgr.core.pipeline import STAGES
from hamgr.settings import Loaded, Problem, SettingsError, effective, load


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--effective", "with_values", is_flag=True, help="Show the value of every key and where it came from.")
@format_option
@click.pass_context
def validate(ctx: click.Context, file: Path | None, with_values: bool, fmt: str) -> None:
    """Check a member's configuration FILE (default: as for every command). Exit status 1 if it has errors."""
    globals_ = ctx.ensure_object(Globals)
    path = file or find_file(globals_, os.environ)
    if path is None:
        raise BadConfig("there is no configuration file", "hamgr validate FILE")
    loaded, problems = _loaded(path)
    if fmt == "pretty":
        click.echo(_text(path, loaded, problems, with_values=with_values))
    elif fmt == "tsv":
        click.echo(render(_values_table(loaded) if with_values and loaded else _problems_table(problems), fmt))
    else:
        click.echo(render_value(_value(path, loaded, problems, with_values=with_values), fmt))
    if loaded is None:
        ctx.exit(1)


def _loaded(path: Path) -> tuple[Loaded | None, tuple[Problem, ...]]:
    """The settings, None where they have errors; and all problems, warnings too."""
    try:
        loaded = load(path)
    except SettingsError as wrong:
        return None, wrong.problems
    return loaded, loaded.warnings


def _value(path: Path, loaded: Loaded | None, problems: tuple[Problem, ...], *, with_values: bool) -> dict[str, Any]:
    value: dict[str, Any] = {
        "file": str(path),
        "valid": loaded is not None,
        "problems": [asdict(problem) for problem in problems],
    }
    if loaded is not None:
        if with_values:
            value["effective"] = [
                {"path": each.path, "value": each.value_shown, "origin": each.origin} for each in effective(loaded)
            ]
        value["budget"] = _budget_value(failover_budget(loaded.seed.policy()))
    return value


def _text(path: Path, loaded: Loaded | None, problems: tuple[Problem, ...], *, with_values: bool) -> str:
    parts = [str(problem) for problem in problems]
    if loaded is None:
        count = sum(problem.is_error for problem in problems)
        return "\n".join([*parts, f"{path}: {count} error{'s' if count != 1 else ''}"])
    parts.append(f"{path}: valid")
    if with_values:
        parts += ["", render(_values_table(loaded), "pretty")]
    budget = failover_budget(loaded.seed.policy())
    return "\n".join([*parts, "", render(_budget_table(budget), "pretty")])


def _problems_table(problems: tuple[Problem, ...]) -> Table:
    columns = (Column("kind"), Column("path"), Column("text"), Column("hint"))
    rows = [{**asdict(problem), "kind": "error" if problem.is_error else "warning"} for problem in problems]
    return Table(columns, rows)


def _values_table(loaded: Loaded) -> Table:
    columns = (Column("path", "Key"), Column("value", "Value"), Column("origin", "From"))
    rows = [{"path": each.path, "value": each.value_shown, "origin": each.origin} for each in effective(loaded)]
    return Table(columns, rows)


def _budget_value(budget: Budget) -> dict[str, Any]:
    return {
        "renew_interval_s": budget.renew_interval_s,
        "stop_begins_s": budget.stop_begins_s,
        "fenced_s": budget.fenced_s,
        "scenarios": [
            {
                "name": scenario.name,
                "cause": scenario.cause,
                "title": scenario.title,
                "writable_s": scenario.writable_s,
                "routed_s": scenario.routed_s,
                "typical_s": scenario.typical_s,
                "gap_s": dict(zip(("best", "typical", "worst"), scenario.gap, strict=True)),
                "stages": [asdict(stage) for stage in scenario.stages],
                "remark": scenario.remark,
            }
            for scenario in budget.scenarios
        ],
    }


def _budget_table(budget: Budget) -> Table:
    stages = (Column(name, name.title(), right=True, show=_milliseconds) for name in STAGES)
    totals = (
        Column("best", "Write gap: best", right=True, show=_milliseconds),
        Column("typical", "Typical", right=True, show=_milliseconds),
        Column("worst", "Worst", right=True, show=_milliseconds),
    )
    remarks = [f" {scenario.title}: {scenario.remark}" for scenario in budget.scenarios if scenario.remark]
    return Table(
        (Column("title", "Fault"), *stages, *totals),
        [_scenario_row(scenario) for scenario in budget.scenarios],
        "Failover budget (ms)",
        (
            f" The lease is renewed every {_milliseconds(budget.renew_interval_s)} ms; without renewal an orderly stop"
            f" begins after {_milliseconds(budget.stop_begins_s)} ms and the server is dead after"
            f" {_milliseconds(budget.fenced_s)} ms.",
            *remarks,
        ),
    )


def _scenario_row(scenario: Scenario) -> dict[str, Any]:
    bounds = {stage.name: stage.bound_s for stage in scenario.stages}
    best, typical, worst = scenario.gap
    return {"title": scenario.title, **bounds, "best": best, "typical": typical, "worst": worst}


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"
