"""Outcomes for people: a pipeline as bars in milliseconds, a table of verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from hamgr.drill.run import Outcome
from hamgr.drill.summary import COLUMNS, ms, risks_in_words, summarised, verdict_in_words

_BAR_WIDTH = 44


def pipeline_lines(record: Mapping[str, Any]) -> list[str]:
    """A failover record as one line per stage: name, bar on a common scale, milliseconds.

    A stage that nobody measured is said to be unknown, never drawn as zero.
    """
    stages = [stage for stage in record.get("stages") or [] if isinstance(stage, dict)]
    known = [stage for stage in stages if _is_known(stage)]
    if not known:
        return ["no stage was measured"]
    begin_s = min(0.0, *(stage["start_s"] for stage in known))
    length_s = max(max(stage["end_s"] for stage in known) - begin_s, 1e-6)
    lines = []
    for stage in stages:
        name = str(stage.get("name", "?"))
        if not _is_known(stage):
            lines.append(f"{name:<9}{'':{_BAR_WIDTH}}  unknown")
            continue
        start = round((stage["start_s"] - begin_s) / length_s * _BAR_WIDTH)
        end = round((stage["end_s"] - begin_s) / length_s * _BAR_WIDTH)
        bar = (" " * min(start, _BAR_WIDTH - 1) + "█" * max(1, end - start))[:_BAR_WIDTH]
        took_ms = (stage["end_s"] - stage["start_s"]) * 1000
        lines.append(
            f"{name:<9}{bar:<{_BAR_WIDTH}}{took_ms:8.1f} ms  until {stage['end_s'] * 1000:.1f} ms{_measured_by(stage)}"
        )
    return lines


def _is_known(stage: Mapping[str, Any]) -> bool:
    return all(isinstance(stage.get(edge), int | float) for edge in ("start_s", "end_s"))


def _measured_by(stage: Mapping[str, Any]) -> str:
    return f"  ({stage['by']})" if stage.get("by") else ""


def print_outcome(console: Console, title: str, outcome: Outcome) -> None:
    """One fault in full: pipeline, gap, losses, verdict."""
    console.print(f"\n[bold]{title}[/bold]  (ttl {outcome.ttl_s:g} s)")
    if outcome.verdict is None:
        console.print(f"  [red]not finished:[/red] {outcome.error}", highlight=False)
        return
    if outcome.record is not None:
        head = [f"{key} {outcome.record[key]}" for key in ("cause", "former", "leader") if outcome.record.get(key)]
        console.print(f"  pipeline: {', '.join(head)}", highlight=False)
        for line in pipeline_lines(outcome.record):
            console.print(f"    {line}", highlight=False)
    elif outcome.verdict.leader_changes:
        console.print("  pipeline: hamgr shows no record of it")
    verdict = outcome.verdict
    console.print(
        f"  write gap {ms(verdict.write_gap_s)} (before the fault {ms(verdict.quiet_gap_s)}), "
        f"acknowledged writes {verdict.acknowledged}, "
        f"lost {verdict.lost + verdict.lost_pinned}, two primaries {ms(verdict.two_primaries_s)}, "
        f"on record at risk {risks_in_words(verdict)}, led by {' then '.join(verdict.leaderships)}",
        highlight=False,
    )
    if outcome.predicted is not None:
        best, typical, worst = outcome.predicted
        console.print(f"  predicted {ms(best)} to {ms(worst)}, mostly {ms(typical)}", highlight=False)
    back = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in verdict.rejoin_s.items() if seconds)
    if back:
        console.print(f"  back in place after its end: {back} (undone at {outcome.undone_s:.2f} s)", highlight=False)
    console.print(f"  verdict: {verdict_words(outcome)}")


def verdict_words(outcome: Outcome) -> str:
    """The verdict in a few words, with rich's colours."""
    text = verdict_in_words(outcome)
    if not outcome.is_good:
        return f"[red]{text}[/red]"
    return text.replace("good", "[green]good[/green]", 1)


def print_line(console: Console, title: str, outcome: Outcome) -> None:
    """One round in one line."""
    verdict = outcome.verdict
    if verdict is None:
        console.print(f"{title}: [red]NOT FINISHED[/red] {outcome.error}", highlight=False, soft_wrap=True)
        return
    console.print(
        f"{title}: gap {ms(verdict.write_gap_s)}, lost {verdict.lost + verdict.lost_pinned}, "
        f"two primaries {ms(verdict.two_primaries_s)}, changes {verdict.leader_changes}, "
        f"rejoin {max(verdict.rejoin_s.values(), default=0.0):.1f} s: {verdict_words(outcome)}",
        highlight=False,
        soft_wrap=True,
    )


def print_summary(console: Console, outcomes: Sequence[Outcome]) -> None:
    """One row per fault: medians and worst cases over its runs."""
    table = Table(title="drills")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in (COLUMNS[0], COLUMNS[-1]) else "right")
    for row in summarised(outcomes):
        *cells, verdict = row.cells()
        table.add_row(*cells, f"[{'green' if row.is_good else 'red'}]{verdict}[/]")
    console.print(table)
