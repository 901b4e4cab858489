"""`calibrate`: the shortest ttl that this environment allows, from what is measured here. It changes nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from hamgr.cli.connect import Site, connect
from hamgr.cli.errors import Refused
from hamgr.cli.measuring import Measured, measure
from hamgr.cli.output import Column, Table, format_option, render, render_value
from hamgr.core.budget import failover_budget
from hamgr.core.policy import Policy
from hamgr.core.stalls import Tail, TooFewStalls, needless_per_year, quantile, room_s, shortest_ttl_s, tail_of
from hamgr.dcs.remembered import SUFFIX

SHORTEST_S = 10.0
RECORDS = 50
PROMOTION, FIRST_WRITE = "promotion, past changes of leader", "first write after a promotion"
RESTART = "restart of a server that led on"
PROBE_ROOM = 5.0
"""A vital check's patience should be so many times the longest flush that was seen."""
OUTLOOKS_TTL_S = (2.0, 3.0, 5.0, 10.0, 20.0, 30.0)
UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?", str(value))
        if found is None:
            self.fail(f"{value!r} is no duration: 90, 90s, 5m or 1h", param, ctx)
        seconds = float(found[1]) * UNITS_S[found[2] or "s"]
        if seconds < SHORTEST_S:
            self.fail(f"{value}: at least {SHORTEST_S:g} s, shorter says nothing of what is rare", param, ctx)
        return seconds


def _finite(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of failovers")
    return value


@click.command()
@click.argument("cluster_name", required=False)
@click.option("--for", "for_s", type=_Duration(), default="60s", show_default=True, help="How long to measure.")
@click.option(
    "--needless",
    "per_year",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    default=1.0,
    show_default=True,
    help="Needless failovers a year that you accept.",
)
@format_option
@click.pass_context
def calibrate(ctx: click.Context, cluster_name: str | None, for_s: float, per_year: float, fmt: str) -> None:
    """Measure this host's environment, best under its usual load, and propose the shortest ttl for it.

    It renews a lease of its own as an agent does, and writes and flushes a small file beside the data directory and the
    WAL. Nothing is changed, nothing is left behind. Ctrl-C ends it early and reports on what was measured so far.
    """
    site = connect(ctx.obj, cluster_name)
    view = site.read_view()
    policy = site.policy_of(view)
    directories = _directories(site)
    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        task = bar.add_task("measuring", total=for_s)
        measured = measure(site, directories, for_s, lambda done_s: bar.update(task, completed=done_s))
    try:
        tail = tail_of(measured.all_stalls_s, measured.span_s)
    except TooFewStalls as problem:
        raise Refused(str(problem), "measure for longer") from problem
    past = past_durations(site.records(RECORDS))
    value = findings(policy, per_year, measured, tail, past)
    if fmt == "pretty":
        click.echo("\n".join([render(_table(value), fmt), "", render(_outlooks(value), fmt), "", *reasoning(value)]))
    elif fmt == "tsv":
        click.echo(render(_table(value), fmt))
    else:
        click.echo(render_value(value, fmt))


def _directories(site: Site) -> dict[str, Path]:
    """Beside the data directory, and where the WAL is if that is elsewhere: what lies within is the server's."""
    memory = site.config.memory
    if memory is None or not memory.parent.is_dir():
        return {}
    wal = memory.parent / memory.name.removesuffix(SUFFIX) / "pg_wal"
    found = {"data": memory.parent}
    if wal.is_symlink():
        found["WAL"] = wal.resolve().parent
    return found


def past_durations(records: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Seconds, from the changes of leader on record; what nobody saw is left out. Where the former leader won again,
    what began with its election was a restart.
    """
    found: dict[str, list[float]] = {PROMOTION: [], FIRST_WRITE: [], RESTART: []}
    for record in records:
        took = {str(stage.get("name")): _length(stage) for stage in record.get("stages") or []}
        promotion, first_write = took.get("promote"), took.get("writable")
        if not record.get("former"):
            continue
        if record["former"] == record.get("leader"):
            if promotion is not None and first_write is not None:
                found[RESTART].append(promotion + first_write)
            continue
        for name, length in ((PROMOTION, promotion), (FIRST_WRITE, first_write)):
            if length is not None:
                found[name].append(length)
    return found


def _length(stage: Mapping[str, Any]) -> float | None:
    start, end = stage.get("start_s"), stage.get("end_s")
    if isinstance(start, int | float) and isinstance(end, int | float) and end >= start:
        return end - start
    return None


def findings(
    policy: Policy, wanted: float, measured: Measured, tail: Tail, past: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """All that is said, as plain values: seconds, and times a year."""
    proposed = shortest_ttl_s(tail, wanted, policy.loop_wait_s)
    flushes: dict[str, Sequence[float]] = {f"flush, {name} disk": seen for name, seen in measured.flushes_s.items()}
    series = {
        "renewal, due until confirmed": measured.all_stalls_s,
        "this host wakes up late": measured.late_s,
        **flushes,
    }
    series |= past
    longest_flush_s = max((max(seen) for seen in measured.flushes_s.values() if seen), default=None)
    return {
        "measured_for_s": round(measured.span_s, 1),
        "unanswered_renewals": measured.unanswered,
        "series": [_series(name, seen) for name, seen in series.items() if seen],
        "tail": asdict(tail),
        "longest_is_unfinished": measured.is_longest_unfinished,
        "past_restarts": len(past[RESTART]),
        "wanted_per_year": wanted,
        "present": _outlook(policy, tail),
        "outlooks": [_outlook(replace(policy, ttl_s=ttl_s), tail) for ttl_s in OUTLOOKS_TTL_S],
        "proposed": None if proposed is None else _outlook(replace(policy, ttl_s=float(proposed)), tail),
        "longest_flush_s": longest_flush_s,
        "probe_commit_timeout_s": policy.probe_commit_timeout_s,
        "probe_disk_timeout_s": policy.probe_disk_timeout_s,
        "notes": list(measured.notes),
    }


def _series(name: str, seen: Sequence[float]) -> dict[str, Any]:
    points = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    found = {f"{key}_s": quantile(seen, share) for key, share in points.items()}
    return {"name": name, "count": len(seen), **found, "worst_s": max(seen)}


def _outlook(policy: Policy, tail: Tail) -> dict[str, Any]:
    lost = failover_budget(policy).scenario("host_lost")
    assert lost is not None
    return {
        "ttl_s": policy.ttl_s,
        "room_s": room_s(policy.ttl_s, policy.loop_wait_s),
        "needless_per_year": needless_per_year(tail, policy.ttl_s, policy.loop_wait_s),
        "gap_s": dict(zip(("best", "typical", "worst"), lost.gap, strict=True)),
    }


def _table(value: Mapping[str, Any]) -> Table:
    columns = (
        Column("name", "Measured"),
        Column("count", "Times", right=True),
        *(
            Column(f"{key}_s", title, right=True, show=_ms)
            for key, title in (("p50", "p50 (ms)"), ("p99", "p99"), ("p999", "p99.9"), ("worst", "Worst"))
        ),
    )
    return Table(columns, value["series"], f"Measured for {value['measured_for_s']:g} s")


def _outlooks(value: Mapping[str, Any]) -> Table:
    columns = (
        Column("ttl_s", "ttl (s)", right=True),
        Column("room_s", "Room for stalls (s)", right=True, show=lambda room: f"{room:.2f}"),
        Column("needless_per_year", "Needless failovers a year", right=True, show=lambda rate: f"{rate:.2g}"),
        Column("gap_s", "Host lost: gap (s)", right=True, show=lambda gap: f"{gap['best']:.1f}-{gap['worst']:.1f}"),
    )
    return Table(columns, value["outlooks"], "What each ttl would give")


def reasoning(value: Mapping[str, Any]) -> list[str]:
    """Why that ttl, in sentences."""
    tail, now, proposed = value["tail"], value["present"], value["proposed"]
    at_least = "at least " if value["longest_is_unfinished"] else ""
    lines = [
        "A renewal that takes longer than what a lease has room for costs a leader its lease."
        f" {tail['excesses']} of the stalls took more than {_ms(tail['threshold_s'])} ms,"
        f" the longest {at_least}{_ms(tail['longest_s'])} ms.",
        "How often much longer ones come is extrapolated from these (generalised Pareto, shape"
        f" {tail['shape']:.2f}, at its pessimistic end): {value['measured_for_s']:g} s stand for a year. Measure for"
        " longer, and under your heaviest load, to trust it more.",
        f"Present ttl {now['ttl_s']:g} s has room for {now['room_s']:.2f} s: {_rate(now['needless_per_year'])};"
        f" {_gap(now)}.",
    ]
    if value["unanswered_renewals"]:
        lines.append(f"{value['unanswered_renewals']} renewals were not answered at all: look at etcd first.")
    lines += [f"Note: {note}." for note in value["notes"]] + _on_probes(value)
    if not value["past_restarts"]:
        lines.append("No record of a server that was started again and led on: how long a restart takes is not known.")
    if proposed is None:
        return [*lines, "Proposal: none. No ttl is long enough for such stalls; find their cause."]
    longer = " or more (measure again: the longest stall had not ended)" if at_least else ""
    return [
        *lines,
        f"Proposal: ttl {proposed['ttl_s']:g} s{longer}, the shortest with at most {value['wanted_per_year']:g}"
        f" needless failovers a year: room for {proposed['room_s']:.2f} s, {_rate(proposed['needless_per_year'])};"
        f" {_gap(proposed)}."
        " Nothing was changed: `hamgr edit-config -s ttl=N` does it.",
    ]


def _on_probes(value: Mapping[str, Any]) -> list[str]:
    longest_s = value["longest_flush_s"]
    if longest_s is None:
        return ["The disks were not measured: run it on a member's host, as the server's user."]
    short = [
        key for key in ("probe_commit_timeout", "probe_disk_timeout") if value[f"{key}_s"] < PROBE_ROOM * longest_s
    ]
    if not short:
        return [f"The longest flush took {_ms(longest_s)} ms: the probe timeouts have room for it."]
    return [f"The longest flush took {_ms(longest_s)} ms: less than {PROBE_ROOM:g} times below {' and '.join(short)}."]


def _rate(per_year: float) -> str:
    if per_year < 0.01:
        return "less than one needless failover in a hundred years"
    return f"{per_year:.2g} needless failovers a year"


def _gap(outlook: Mapping[str, Any]) -> str:
    gap = outlook["gap_s"]
    return f"a lost host costs {gap['best']:.1f} to {gap['worst']:.1f} s, mostly {gap['typical']:.1f} s"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
