"""A failover record as a bar timeline in milliseconds, and records as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hamgr.cli.output import Column, Table, human_bytes

BAR_WIDTH = 40
FULL, HALF = "#", "|"
Record = Mapping[str, Any]
"""As `hamgr.core.pipeline.record_as_json` writes it; any field may be missing."""


def record_text(record: Record) -> str:
    """One record for people: who took over from whom and why, then a bar for each stage."""
    stages = [stage for stage in record.get("stages") or [] if isinstance(stage, Mapping)]
    total_s = max((stage.get("end_s") or 0.0 for stage in stages), default=0.0)
    over = set(record.get("over_budget") or [])
    budget = record.get("budget_s") or {}
    lines = [headline(record), *_facts(record), ""]
    lines += [_stage_line(stage, total_s, budget.get(stage.get("name")), over) for stage in stages]
    return "\n".join(lines)


def headline(record: Record) -> str:
    """`term 7: p2 from p1, switchover, writable 93 ms after the fault`."""
    former = f" from {record['former']}" if record.get("former") else ""
    took = writable_s(record)
    after = ", never writable" if took is None else f", writable {took * 1000:.0f} ms after the fault"
    return f"term {record.get('term')}: {record.get('leader')}{former}, {record.get('cause')}{after}"


def writable_s(record: Record) -> float | None:
    """Seconds from the fault to the new leader being writable; None when nobody measured it."""
    for stage in record.get("stages") or []:
        if stage.get("name") == "writable":
            end_s: float | None = stage.get("end_s")
            return end_s
    return None


def records_table(records: Sequence[Record]) -> Table:
    """Records as rows, newest first as they come."""
    columns = (
        Column("term", "Term", right=True),
        Column("at", "At (UTC)", show=_when),
        Column("cause", "Cause"),
        Column("former", "From"),
        Column("leader", "To"),
        Column("timeline", "TL", right=True),
        Column("lsn", "LSN", right=True),
        Column("at_risk_bytes", "At risk", right=True, show=human_bytes),
        Column("writable_s", "Writable ms", right=True, show=_milliseconds),
        Column("over_budget", "Over budget", show=", ".join),
    )
    return Table(columns, [{**record, "writable_s": writable_s(record)} for record in records])


def _facts(record: Record) -> list[str]:
    risk = record.get("at_risk_bytes")
    lines = [
        f"  at        {_when(record.get('at'))}",
        f"  timeline  {record.get('timeline')} from {record.get('lsn')}",
        f"  at risk   {'not known' if risk is None else human_bytes(risk)}{_more(record)}",
    ]
    ballots = record.get("ballots") or {}
    if ballots:
        lines.append("  ballots   " + ", ".join(f"{name} {vote}" for name, vote in sorted(ballots.items())))
    return [*lines, *(f"  note      {note}" for note in record.get("notes") or [])]


def _more(record: Record) -> str:
    return ", and what the former leader wrote last, of which nobody knows" if record.get("may_be_more") else ""


def _stage_line(stage: Mapping[str, Any], total_s: float, budget_s: float | None, over: set[str]) -> str:
    name, start, end = str(stage.get("name")), stage.get("start_s"), stage.get("end_s")
    if start is None or end is None:
        return f"  {name:<9} {'unknown':>10}"
    first = round(start / total_s * BAR_WIDTH) if total_s else 0
    length = round((end - start) / total_s * BAR_WIDTH) if total_s else 0
    bar = " " * min(first, BAR_WIDTH - 1) + (FULL * length or HALF)
    bound = "" if budget_s is None else f" of {budget_s * 1000:.0f}"
    late = "  OVER BUDGET" if name in over else ""
    by = f"  {stage['by']}" if stage.get("by") else ""
    return (
        f"  {name:<9} {(end - start) * 1000:>7.1f} ms {bar:<{BAR_WIDTH}}{by}{bound and f' ({bound.strip()} ms)'}{late}"
    )


def _when(at: Any) -> str:
    if not isinstance(at, int | float):
        return "not known"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"
