"""`hamgr simulate FILE`: what this configuration will give in that environment."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from hamgr.settings import DynamicSettings, Problem, SettingsError, load
from hamgr.sim.forecast.drawing import draw_sweep
from hamgr.sim.forecast.environment import Environment, environment_problems, read_environment
from hamgr.sim.forecast.plan import plan_worlds
from hamgr.sim.forecast.show import print_forecast, print_sweep
from hamgr.sim.forecast.strike import Task, WorldResult, run_world
from hamgr.sim.forecast.sweep import Sweep, parse_sweep, points_of, sweep_tasks
from hamgr.sim.forecast.weigh import weigh
from hamgr.sim.jobs import run_all
from hamgr.sim.outputs import EXIT_BAD_CONFIG, EXIT_VIOLATION, BadInput, Outputs

RUNS = 1000
SWEEP_RUNS = 120
"""Faults for each value of a sweep."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. `runs` None: the default of what is done. `seed`: one world of it, as a story."""

    file: Path | None
    environment: Path | None = None
    changes: tuple[str, ...] = ()
    runs: int | None = None
    sweep: str | None = None
    seed: int | None = None

    def replay(self, seed: int) -> str:
        """The command that tells the story of that world of it."""
        words = ["hamgr", "simulate", *([str(self.file)] if self.file is not None else [])]
        given = {"--environment": self.environment, "--runs": self.runs, "--sweep": self.sweep, "--seed": seed}
        for change in self.changes:
            words += ["--set", change]
        for option, value in given.items():
            words += [option, str(value)] if value is not None else []
        return shlex.join(words)


def run_forecast(asked: Asked, outputs: Outputs, jobs: int) -> int:
    """Exit status: 1 where a promise was seen broken, 4 where the cluster did not get well in time in this environment.
    Raises BadInput.
    """
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
    tasks = [Task(dynamic.policy(), environment, world) for world in plan_worlds(environment, asked.runs or RUNS)]
    if asked.seed is not None:
        return _replay(tasks, asked.seed)
    return _forecast(tasks, asked, outputs, jobs)


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


def _forecast(tasks: Sequence[Task], asked: Asked, outputs: Outputs, jobs: int) -> int:
    policy, environment, console = tasks[0].policy, tasks[0].environment, outputs.console()
    results = list(run_all(run_world, tasks, jobs, "worlds"))
    forecast = weigh(results, policy, environment)
    print_forecast(console, forecast, policy, environment)
    outputs.write_json(forecast.as_json())
    return _verdict(console, asked, results)


def _verdict(console: Console, asked: Asked, results: Sequence[WorldResult]) -> int:
    """What went wrong, and how it is seen again."""
    for seed, result in enumerate(results):
        if words := result.violation or result.problem:
            console.print(f"[red]world {seed}:[/red] {escape(words)}; replay: {escape(asked.replay(seed))}")
    return _status(results)


def _status(results: Iterable[WorldResult]) -> int:
    """A broken promise weighs more than a cluster that is not well in time."""
    found = list(results)
    if any(result.violation for result in found):
        return EXIT_VIOLATION
    return EXIT_BAD_CONFIG if any(result.problem for result in found) else 0


def _sweep(
    sweep: Sweep, asked: Asked, dynamic: DynamicSettings, environment: Environment, outputs: Outputs, jobs: int
) -> int:
    console = outputs.console()
    tasks = sweep_tasks(sweep, environment, asked.runs or SWEEP_RUNS)
    if asked.seed is not None:
        return _replay(tasks, asked.seed)
    results = list(run_all(run_world, tasks, jobs, f"worlds by {sweep.key}"))
    points = points_of(sweep, environment, results)
    print_sweep(console, sweep, points)
    present = float(getattr(dynamic, sweep.key))
    outputs.write_json({"key": sweep.key, "present": present, "points": [point.as_json() for point in points]})
    outputs.write_picture(draw_sweep(sweep, points, present, environment.members))
    return _verdict(console, asked, results)


def _replay(tasks: Sequence[Task], seed: int) -> int:
    """One world as a story on standard output."""
    if not 0 <= seed < len(tasks):
        raise BadInput(f"--seed is the number of a world, 0 to {len(tasks) - 1}")
    result = run_world(replace(tasks[seed], tells_story=True))
    Console(highlight=False, soft_wrap=True).print(result.story, markup=False)
    return _status([result])
