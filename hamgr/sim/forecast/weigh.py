"""From what single faults cost to what a year costs: each counts as often as it is expected in a year."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hamgr.core.policy import Policy
from hamgr.sim.forecast.causes import BY_KEY, YEAR_S
from hamgr.sim.forecast.environment import Environment
from hamgr.sim.forecast.renewals import Renewals, renewals
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
    needless_per_year: float
    election: Distribution | None
    failover: Distribution | None
    down_s_per_year: float
    lost_bytes_mean: float
    """Acknowledged bytes lost, per change of leader."""
    lost_bytes_worst: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """`renewals`: what round trips alone do, which is on top of the causes' needless failovers."""

    causes: tuple[CauseFigures, ...]
    total: CauseFigures
    renewals: Renewals
    lost_bytes_per_year: float
    violations: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def needless_per_year(self) -> float:
        return self.total.needless_per_year + self.renewals.lost_per_year

    @property
    def down_share(self) -> float:
        """Share of a year without a primary that takes writes."""
        return self.total.down_s_per_year / YEAR_S

    def as_json(self) -> Mapping[str, Any]:
        return {
            "per_year": {
                "failovers": short(self.total.failovers_per_year + self.renewals.lost_per_year),
                "needless_failovers": short(self.needless_per_year),
                "needless_by_round_trips": short(self.renewals.lost_per_year),
                "seconds_without_primary": short(self.total.down_s_per_year),
                "acknowledged_bytes_lost": short(self.lost_bytes_per_year),
            },
            "causes": [asdict(each) for each in (*self.causes, self.total)],
            "violations": list(self.violations),
        }


def weigh(results: Sequence[WorldResult], policy: Policy, environment: Environment) -> Forecast:
    """What the outcomes of a plan add up to. Faults come at random moments, one at a time (Poisson)."""
    outcomes = [outcome for result in results for outcome in result.outcomes]
    by_cause: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_cause.setdefault(outcome.strike.cause, []).append(outcome)
    causes = tuple(_figures(key, each.title, by_cause[key]) for key, each in BY_KEY.items() if key in by_cause)
    return Forecast(
        causes=causes,
        total=_figures(ALL, "all", outcomes),
        renewals=renewals(policy, environment),
        lost_bytes_per_year=sum(each.strike.per_year * each.lost_bytes for each in outcomes),
        violations=tuple(f"world {each.number}: {each.violation}" for each in results if each.violation),
        problems=tuple(f"world {each.number}: {each.problem}" for each in results if each.problem),
    )


def _figures(key: str, title: str, outcomes: Sequence[Outcome]) -> CauseFigures:
    changed = [each for each in outcomes if each.changed]
    changes_per_year = sum(each.strike.per_year for each in changed)
    lost = sum(each.strike.per_year * each.lost_bytes for each in changed)
    return CauseFigures(
        key=key,
        title=title,
        faults=len(outcomes),
        per_year=short(sum(each.strike.per_year for each in outcomes)),
        failovers_per_year=short(changes_per_year),
        needless_per_year=short(sum(each.strike.per_year for each in outcomes if each.needless)),
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
    """To six places: what is beyond is noise of the draw."""
    return round(value, 6)
