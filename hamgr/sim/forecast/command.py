"""`hamgr simulate FILE`: what this configuration will give in that environment."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hamgr.settings import DynamicSettings, Problem, SettingsError, load
from hamgr.sim.forecast.drawing import draw_sweep
from hamgr.sim.forecast.environment import Environment, environment_problems, read_environment
from hamgr.sim.forecast.plan import WorldPlan, plan_worlds
from hamgr.sim.forecast.show import print_forecast, print_sweep
from hamgr.sim.forecast.strike import Task, WorldResult, run_world
from hamgr.sim.forecast.sweep import Sweep, parse_sweep, points_of, sweep_tasks
from hamgr.sim.forecast.weigh import weigh
from hamgr.sim.jobs import run_all
from hamgr.sim.outputs import EXIT_VIOLATION, BadInput, Outputs

RUNS = 1000
SWEEP_RUNS = 120
"""Faults for each value of a sweep."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. `runs` None: the default of what is done."""

    file: Path | None
    environment: Path | None = None
    changes: tuple[str, ...] = ()
    runs: int | None = None
    sweep: str | None = None
    seed: int | None = None


def run_forecast(asked: Asked, outputs: Outputs, jobs: int) -> int:
    """Exit status: 1 where a promise was seen broken. Raises BadInput."""
    outputs.check()
    console = outputs.console()
    try:
        dynamic = _dynamic(asked.file, console)
        environment = read_environment(asked.environment, asked.changes)
        _refuse(environment_problems(environment, dynamic.policy()))
        if asked.sweep is not None:
            sweep = parse_sweep(asked.sweep, dynamic, environment)
            return _sweep(sweep, asked, dynamic, environment, outputs, jobs)
    except SettingsError as error:
        raise BadInput("\n".join(str(problem) for problem in error.problems if problem.is_error)) from None
    if asked.seed is not None:
        return _replay(asked, dynamic, environment)
    return _forecast(asked, dynamic, environment, outputs, jobs)


def _dynamic(file: Path | None, console: Console) -> DynamicSettings:
    """The dynamic configuration of the file, as an agent takes it; without a file the defaults."""
    if file is None:
        console.print("no configuration file is given: hamgr's defaults")
        return DynamicSettings()
    loaded = load(file, os.environ)
    for problem in loaded.warnings:
        if "is taken as" in problem.text:
            console.print(str(problem), markup=False)
    return loaded.seed


def _refuse(problems: Iterable[Problem]) -> None:
    wrong = tuple(problems)
    if wrong:
        raise SettingsError(wrong)


def _worlds(asked: Asked, environment: Environment) -> tuple[WorldPlan, ...]:
    return plan_worlds(environment, RUNS if asked.runs is None else asked.runs)


def _forecast(asked: Asked, dynamic: DynamicSettings, environment: Environment, outputs: Outputs, jobs: int) -> int:
    policy, console = dynamic.policy(), outputs.console()
    worlds = _worlds(asked, environment)
    if not worlds:
        raise BadInput("nothing breaks in this environment: every per_year is 0")
    results = list(run_all(run_world, [Task(policy, environment, world) for world in worlds], jobs, "worlds"))
    forecast = weigh(results, policy, environment)
    print_forecast(console, forecast, policy, environment)
    outputs.write_json(forecast.as_json())
    return _verdict(console, results)


def _verdict(console: Console, results: Iterable[WorldResult]) -> int:
    status = 0
    for result in results:
        for words in (result.violation, result.problem):
            if words:
                status = EXIT_VIOLATION
                console.print(f"[red]world {result.number}:[/red] {words}; replay it with --seed {result.number}")
    return status


def _sweep(
    sweep: Sweep, asked: Asked, dynamic: DynamicSettings, environment: Environment, outputs: Outputs, jobs: int
) -> int:
    console = outputs.console()
    tasks = sweep_tasks(sweep, environment, SWEEP_RUNS if asked.runs is None else asked.runs)
    if not tasks:
        raise BadInput("nothing that depends on the lease happens in this environment")
    results = list(run_all(run_world, tasks, jobs, f"worlds by {sweep.key}"))
    points = points_of(sweep, environment, results)
    print_sweep(console, sweep, points)
    present = float(getattr(dynamic, sweep.key))
    outputs.write_json({"key": sweep.key, "present": present, "points": [point.as_json() for point in points]})
    outputs.write_picture(draw_sweep(sweep, points, present, environment.members))
    return _verdict(console, results)


def _replay(asked: Asked, dynamic: DynamicSettings, environment: Environment) -> int:
    """One world as a story on standard output."""
    worlds = _worlds(asked, environment)
    if asked.seed is None or not 0 <= asked.seed < len(worlds):
        raise BadInput(f"--seed is the number of a world, 0 to {len(worlds) - 1}")
    result = run_world(Task(dynamic.policy(), environment, worlds[asked.seed], tells_story=True))
    Console(highlight=False, soft_wrap=True).print(result.story, markup=False)
    return EXIT_VIOLATION if result.violation or result.problem else 0
