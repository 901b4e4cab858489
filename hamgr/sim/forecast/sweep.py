"""The same environment with other timings: what a shorter ttl gains, and what it costs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hamgr.core.policy import Policy
from hamgr.settings import DynamicSettings, Problem, SettingsError, parse_dynamic
from hamgr.sim.forecast.environment import Environment, environment_problems
from hamgr.sim.forecast.plan import plan_worlds
from hamgr.sim.forecast.strike import Task, WorldResult
from hamgr.sim.forecast.weigh import Distribution, Forecast, short, weigh

MOST_POINTS = 15
MOST_STEPS = 100
"""Each value costs a simulation of its own."""
KEYS = ("ttl", "loop_wait", "retry_timeout", "election_window")
PLANNED = ("handover_timeout", "primary_stop_timeout")
"""Of planned switchovers only, which no sweep has."""
_RANGE = re.compile(r"(\w+)=(\d+(?:\.\d+)?)\.\.(\d+(?:\.\d+)?)(?:/(\d+(?:\.\d+)?))?")
LONGEST_S = 86400.0
"""No key takes more, and there is no number for 400 digits."""
HOST_LOST = "host_lost"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Values of one key of the dynamic configuration, and the policy with each; `notes`: what else had to change."""

    key: str
    points: tuple[tuple[float, Policy], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """What one value gives. `gap`: without a primary after its host is lost. Per year: of what the lease decides."""

    value: float
    gap: Distribution | None
    needless_per_year: float
    needless_by_cause: Mapping[str, float]
    interruptions_per_year: float
    down_s_per_year: float
    lost_bytes_per_year: float
    violations: tuple[str, ...]

    def as_json(self) -> Mapping[str, Any]:
        return asdict(self)


def parse_sweep(text: str, seed: DynamicSettings, environment: Environment) -> Sweep:
    """KEY=FROM..TO or KEY=FROM..TO/STEP. Values that the configuration's rules refuse, or take as another one that is
    there, are left out and noted.

    Raises SettingsError where the text is wrong or no value remains.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is not None and found[1] in PLANNED:
        text = (
            f"{found[1]} matters to planned switchovers, and a sweep shows what depends on the lease: {', '.join(KEYS)}"
        )
        raise SettingsError((Problem("--sweep", text),))
    if found is None or found[1] not in KEYS:
        raise SettingsError(
            (Problem("--sweep", f"is not KEY=FROM..TO, for example ttl=2..30; KEY: {', '.join(KEYS)}"),)
        )
    key, low, high = found[1], float(found[2]), float(found[3])
    step = float(found[4]) if found[4] else None
    if refusal := _why_no_range(low, high, step):
        raise SettingsError((Problem("--sweep", refusal),))
    base = seed.model_dump()
    points: list[tuple[float, Policy]] = []
    notes: list[str] = []
    values = {*_values(low, high, step, whole=key == "ttl")}
    present = float(base[key])
    if low <= present <= high:
        values.add(present)
    for value in sorted(values):
        settings, problems = parse_dynamic({**base, key: value})
        errors = [each for each in problems if each.is_error]
        errors += environment_problems(environment, settings.policy())
        if errors:
            notes.append(f"{key} {value:g}: left out, {errors[0].path}: {errors[0].text}")
            continue
        adjusted = [f"{key} {value:g}: {each.path}: {each.text}" for each in problems if "is taken as" in each.text]
        same = next((other for other, policy in points if policy == settings.policy()), None)
        if same is None:
            points.append((value, settings.policy()))
        else:
            adjusted.append(f"{key} {value:g}: left out, the same as {same:g}")
        notes += adjusted
    if not points:
        raise SettingsError(tuple(Problem("--sweep", note) for note in notes))
    return Sweep(key, tuple(points), tuple(notes))


def _why_no_range(low: float, high: float, step: float | None) -> str:
    if not low < high:
        return f"{low:g}..{high:g} is no range: the first is the smaller"
    if high > LONGEST_S:
        return f"ends after {LONGEST_S:g} s: no key takes more"
    if step is not None and step * MOST_STEPS < high - low:
        return f"{low:g}..{high:g} in steps of {step:g} s are more than {MOST_STEPS} values: make the step longer"
    return ""


def _values(low: float, high: float, step: float | None, *, whole: bool) -> Iterator[float]:
    """With a step every one; else not too many, close together where they are small."""
    if step is not None:
        count = int((high - low) / step + 1e-9) + 1
        yield from (low + number * step for number in range(count))
        return
    last = float("-inf")
    for number in range(MOST_POINTS):
        part = number / (MOST_POINTS - 1)
        value = low + part * (high - low)
        if low > 0:
            # Between even steps and even ratios: what is short matters more, what is long is looked at as well.
            value = float(value + low * (high / low) ** part) / 2
        value = float(round(value)) if whole else round(value, 3)
        if value > last:
            yield value
            last = value


def sweep_tasks(sweep: Sweep, environment: Environment, runs: int) -> list[Task]:
    """The same faults for every value."""
    worlds = plan_worlds(environment, runs, only_by_lease=True)
    return [Task(policy, environment, world) for _, policy in sweep.points for world in worlds]


def points_of(sweep: Sweep, environment: Environment, results: Sequence[WorldResult]) -> tuple[Point, ...]:
    """Results come in the order of `sweep_tasks`."""
    each = len(results) // len(sweep.points)
    points = []
    for number, (value, policy) in enumerate(sweep.points):
        points.append(_point(value, weigh(results[number * each : (number + 1) * each], policy, environment)))
    return tuple(points)


def _point(value: float, forecast: Forecast) -> Point:
    lost = forecast.cause(HOST_LOST)
    needless = {cause.title: cause.needless_per_year for cause in forecast.causes if cause.needless_per_year}
    return Point(
        value=value,
        gap=lost.failover if lost is not None else None,
        needless_per_year=forecast.total.needless_per_year,
        needless_by_cause=needless,
        interruptions_per_year=forecast.total.interruptions_per_year,
        down_s_per_year=forecast.total.down_s_per_year,
        lost_bytes_per_year=short(forecast.lost_bytes_per_year),
        violations=(*forecast.violations, *forecast.problems),
    )
