"""A forecast as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from hamgr.core.policy import Policy
from hamgr.sim.forecast.environment import Environment
from hamgr.sim.forecast.sweep import Point, Sweep
from hamgr.sim.forecast.weigh import CauseFigures, Distribution, Forecast

NOTHING = "-"
RARE = 1e-6
ENDS = "p50  p95  p99  worst"


def print_forecast(console: Console, forecast: Forecast, policy: Policy, environment: Environment) -> None:
    """By cause, then the year."""
    console.print(_table(forecast))
    total = forecast.total
    nines = f"{100 * (1 - forecast.down_share):.4f} %"
    console.print(
        f" Per year: {number(total.failovers_per_year)} changes of leader, of which "
        f"{number(total.needless_per_year)} needless ({number(forecast.needless_by_round_trips)} by slow round trips "
        f"alone); {number(total.interruptions_per_year)} interruptions after which the same server led again; "
        f"{seconds(total.down_s_per_year)} s without a primary that takes writes ({nines} available); "
        f"{number(forecast.lost_bytes_per_year)} acknowledged bytes lost"
    )
    console.print(
        f" {total.faults} faults on {environment.members} members, ttl {policy.ttl_s:g} s, "
        f"synchronous_mode {policy.synchronous_mode}; violations: {len(forecast.violations)}"
    )


def _table(forecast: Forecast) -> Table:
    table = Table(title="Changes of leader by cause (s)", box=box.ASCII2, title_justify="left", title_style="bold")
    table.add_column("cause", no_wrap=True)
    heads = ("per year", "failovers", "needless", "interrupted", f"election {ENDS}", f"failover {ENDS}")
    for head in (*heads, "down s/year", "bytes lost: mean", "worst"):
        table.add_column(head, justify="right", no_wrap=True)
    for figures in forecast.causes:
        table.add_row(figures.title, *_words(figures))
    table.add_section()
    table.add_row("all", *_words(forecast.total))
    return table


def _words(figures: CauseFigures) -> Iterator[str]:
    yield number(figures.per_year)
    yield number(figures.failovers_per_year)
    yield number(figures.needless_per_year)
    yield number(figures.interruptions_per_year)
    yield _distribution(figures.election)
    yield _distribution(figures.failover)
    yield seconds(figures.down_s_per_year)
    yield f"{figures.lost_bytes_mean:.0f}"
    yield str(figures.lost_bytes_worst)


def _distribution(found: Distribution | None) -> str:
    if found is None:
        return NOTHING
    return "  ".join(seconds(end) for end in (found.p50, found.p95, found.p99, found.worst))


def print_sweep(console: Console, sweep: Sweep, points: Sequence[Point]) -> None:
    """A line per value."""
    title = f"What {sweep.key} gains and costs, by what depends on the lease"
    table = Table(title=title, box=box.ASCII2, title_justify="left", title_style="bold")
    for head in (sweep.key, f"host lost: gap {ENDS}", "needless/year", "mostly by", "interrupted/year", "down s/year"):
        table.add_column(head, justify="right", no_wrap=True)
    for point in points:
        by_cause = point.needless_by_cause
        mostly = max(by_cause, key=lambda key: by_cause[key], default=NOTHING)
        table.add_row(
            f"{point.value:g}",
            _distribution(point.gap),
            number(point.needless_per_year),
            mostly,
            number(point.interruptions_per_year),
            seconds(point.down_s_per_year),
        )
    console.print(table)
    for note in sweep.notes:
        console.print(f" {note}")


def number(value: float) -> str:
    """With as many digits as mean something."""
    if value == 0:
        return "0"
    if value < RARE:
        return f"< {RARE:.0e}"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def seconds(value: float) -> str:
    """Milliseconds where they matter."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
