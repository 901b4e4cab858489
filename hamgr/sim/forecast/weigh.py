"""From what single faults cost to what a year costs: each counts as often as it is expected in a year."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from hamgr.core.policy import Policy
from hamgr.sim.forecast.causes import BY_KEY, ROUND_TRIPS, YEAR_S
from hamgr.sim.forecast.environment import Environment
from hamgr.sim.forecast.renewals import renewals
from hamgr.sim.forecast.strike import Outcome, WorldResult
from hamgr.sim.ranks import at_weighted_share

SHARES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
ALL = "all"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Seconds. `worst`: of what was simulated."""

    p50: float
    p95: float
    p99: float
    worst: float


@dataclass(frozen=True, slots=True)
class CauseFigures:
    """One cause, or all of them. Distributions are of the changes of leader that it led to; None: it led to none.
    `failover`: from the fault to the first server that takes writes.
    """

    key: str
    title: str
    faults: int
    """Simulated."""
    per_year: float
    failovers_per_year: float
    """Changes of leader, of which `needless_per_year` for nothing."""
    needless_per_year: float
    interruptions_per_year: float
    """Times without a server that takes writes after which the same one led again."""
    election: Distribution | None
    failover: Distribution | None
    down_s_per_year: float
    lost_bytes_mean: float
    """Acknowledged bytes lost, per change of leader."""
    lost_bytes_worst: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """By cause, slow round trips among them, and all together."""

    causes: tuple[CauseFigures, ...]
    total: CauseFigures
    lost_bytes_per_year: float
    violations: tuple[str, ...]
    problems: tuple[str, ...]

    def cause(self, key: str) -> CauseFigures | None:
        return next((each for each in self.causes if each.key == key), None)

    @property
    def needless_by_round_trips(self) -> float:
        """Per year, by nothing but slow round trips."""
        figures = self.cause(ROUND_TRIPS)
        return figures.needless_per_year if figures is not None else 0.0

    @property
    def down_share(self) -> float:
        """Share of a year without a primary that takes writes."""
        return min(1.0, self.total.down_s_per_year / YEAR_S)

    def as_json(self) -> Mapping[str, Any]:
        return {
            "per_year": {
                "failovers": self.total.failovers_per_year,
                "needless_failovers": self.total.needless_per_year,
                "needless_by_round_trips": self.needless_by_round_trips,
                "interruptions": self.total.interruptions_per_year,
                "seconds_without_primary": self.total.down_s_per_year,
                "acknowledged_bytes_lost": short(self.lost_bytes_per_year),
            },
            "causes": [asdict(each) for each in (*self.causes, self.total)],
            "violations": list(self.violations),
            "problems": list(self.problems),
        }


def weigh(results: Sequence[WorldResult], policy: Policy, environment: Environment) -> Forecast:
    """What the outcomes of a plan add up to. Faults come at random moments, one at a time (Poisson)."""
    lost_per_year = renewals(policy, environment).lost_per_year
    seen = (_as_often(outcome, lost_per_year) for result in results for outcome in result.outcomes)
    outcomes = [outcome for outcome in seen if outcome.strike.per_year > 0]
    by_cause: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_cause.setdefault(outcome.strike.cause, []).append(outcome)
    causes = tuple(_figures(key, each.title, by_cause[key]) for key, each in BY_KEY.items() if key in by_cause)
    return Forecast(
        causes=causes,
        total=_figures(ALL, "all", outcomes),
        lost_bytes_per_year=sum(each.strike.per_year * each.lost_bytes for each in outcomes),
        violations=tuple(f"world {each.number}: {each.violation}" for each in results if each.violation),
        problems=tuple(f"world {each.number}: {each.problem}" for each in results if each.problem),
    )


def _as_often(outcome: Outcome, lost_per_year: float) -> Outcome:
    """A plan has slow round trips once a year; how often they cost the lead is computed."""
    strike = outcome.strike
    if strike.cause != ROUND_TRIPS:
        return outcome
    return replace(outcome, strike=replace(strike, per_year=strike.per_year * lost_per_year))


def _figures(key: str, title: str, outcomes: Sequence[Outcome]) -> CauseFigures:
    changed = [each for each in outcomes if each.changes]
    changes_per_year = sum(each.strike.per_year * each.changes for each in changed)
    lost = sum(each.strike.per_year * each.lost_bytes for each in changed)
    return CauseFigures(
        key=key,
        title=title,
        faults=len(outcomes),
        per_year=short(sum(each.strike.per_year for each in outcomes)),
        failovers_per_year=short(changes_per_year),
        needless_per_year=short(sum(each.strike.per_year * each.needless for each in outcomes)),
        interruptions_per_year=short(sum(each.strike.per_year for each in outcomes if each.interrupts)),
        election=_distribution([(each.election_s, each.strike.per_year) for each in changed]),
        failover=_distribution([(each.gap_s, each.strike.per_year) for each in changed]),
        down_s_per_year=short(sum(each.strike.per_year * each.down_s for each in outcomes)),
        lost_bytes_mean=short(lost / changes_per_year) if changes_per_year else 0.0,
        lost_bytes_worst=max((each.lost_bytes for each in outcomes), default=0),
    )


def _distribution(values: Sequence[tuple[float | None, float]]) -> Distribution | None:
    known = sorted((value, weight) for value, weight in values if value is not None)
    if not known:
        return None
    ends = {name: short(at_weighted_share(known, share)) for name, share in SHARES}
    return Distribution(**ends, worst=short(known[-1][0]))


def short(value: float) -> float:
    """To six digits: what is beyond is noise of the draw."""
    return float(f"{value:.6g}")
