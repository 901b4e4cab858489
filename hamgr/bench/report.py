"""The report: all results as one Markdown page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hamgr.bench.faults import FAULTS, Fault
from hamgr.bench.figures import (
    CHANGES,
    FAULT_FIGURES,
    GAP,
    IDLE_FIGURES,
    LOST,
    SETTLED,
    TWO_PRIMARIES,
    Figure,
    Spread,
    ratio,
    rest_figures,
)
from hamgr.bench.report_text import CLOSING, FAULT_NOTES, HEAD, HOW_TO_READ
from hamgr.bench.rest import LOADS
from hamgr.bench.results import Results, Run, Session
from hamgr.bench.unit import IDLE, REST
from hamgr.bench.variants import VARIANTS

REFERENCE = next(iter(VARIANTS))
"""What the others are compared with."""


@dataclass(frozen=True, slots=True)
class Table:
    """Markdown's. Every row has as many cells as the head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> list[str]:
        rule = ["---", *("--:" for _ in self.head[1:])]
        return [f"| {' | '.join(cells)} |" for cells in (self.head, rule, *self.rows)]


def report(results: Results) -> str:
    """The whole page."""
    runs = results.runs
    sections = [
        HEAD.format(results=results.path.name),
        *_sessions(results.sessions),
        HOW_TO_READ,
        "## At a glance\n",
        *_glance(runs),
        "\n## Where hamgr is not the best\n",
        *_not_the_best(runs),
        *(line for fault in FAULTS.values() for line in _fault_section(fault, runs)),
        *_idle_section(runs),
        *_rest_section(runs),
        *_failed_section(runs),
        CLOSING,
    ]
    return "\n".join(sections).rstrip() + "\n"


def _sessions(sessions: Sequence[Session]) -> list[str]:
    lines = []
    for session in sessions:
        sizes = ", ".join(f"{label} {value}" for label, value in session.environment.items())
        lines.append(f"- `{session.command}`, begun {session.at}: {sizes}")
    return [*lines, ""]


def _of(runs: Sequence[Run], variant: str, task: str) -> list[Run]:
    return [run for run in runs if run.variant == variant and run.task == task]


def _measured(runs: Sequence[Run], task: str) -> list[str]:
    """Variants that ran the task, in the order of the tables."""
    return [name for name in VARIANTS if _of(runs, name, task)]


def _glance(runs: Sequence[Run]) -> list[str]:
    """A row per fault, a column per variant: the gap, and what is worse than a gap."""
    variants = [name for name in VARIANTS if any(run.variant == name and run.task in FAULTS for run in runs)]
    rows = [
        [fault.title, *(_glance_cell(_of(runs, variant, fault.name), runs, fault.name) for variant in variants)]
        for fault in FAULTS.values()
        if _measured(runs, fault.name)
    ]
    return Table(["fault", *(VARIANTS[name].title for name in variants)], rows).lines()


def _glance_cell(own: Sequence[Run], runs: Sequence[Run], task: str) -> str:
    gap = GAP.spread(own)
    if gap is None:
        return "failed" if own else ""
    worse = [
        f"{words} {figure.show(spread.middle)}"
        for figure, words in ((TWO_PRIMARIES, "two primaries"), (LOST, "lost"))
        if (spread := figure.spread(own)) is not None and spread.high > 0
    ]
    return "; ".join([_marked(GAP, gap, GAP.spread(_of(runs, REFERENCE, task))), *worse])


def _marked(figure: Figure, spread: Spread, reference: Spread | None) -> str:
    """The median, bold where it is better than the reference's."""
    text = figure.show(spread.middle)
    return f"**{text}**" if reference is not None and figure.is_better(spread, reference) else text


def _not_the_best(runs: Sequence[Run]) -> list[str]:
    found = [
        line
        for task, title, figures in _compared()
        for variant in _measured(runs, task)
        if VARIANTS[variant].product != VARIANTS[REFERENCE].product
        for figure in figures
        if (line := _better_line(figure, title, variant, _of(runs, variant, task), _of(runs, REFERENCE, task)))
    ]
    return found or ["In none of these figures."]


def _compared() -> list[tuple[str, str, Sequence[Figure]]]:
    """Task, title, figures of everything in which one manager may be better than another."""
    loads = [(REST, f"health requests, {load.title}", rest_figures(load.name)) for load in LOADS]
    faults = [(fault.name, fault.title, FAULT_FIGURES) for fault in FAULTS.values()]
    return [*faults, (IDLE, "idle", IDLE_FIGURES), *loads]


def _better_line(figure: Figure, title: str, variant: str, own: Sequence[Run], reference: Sequence[Run]) -> str:
    one, other = figure.spread(own), figure.spread(reference)
    if one is None or other is None or not figure.is_better(one, other):
        return ""
    doubt = " (the ranges overlap)" if one.overlaps(other) else ""
    return (
        f"- {title}, {figure.name}: {VARIANTS[variant].title} {figure.show(one.middle)}, "
        f"{VARIANTS[REFERENCE].title} {figure.show(other.middle)}{doubt}"
    )


def _fault_section(fault: Fault, runs: Sequence[Run]) -> list[str]:
    variants = _measured(runs, fault.name)
    if not variants:
        return []
    head = [
        "manager",
        "runs",
        "write gap, median",
        "least – most",
        "times hamgr's",
        "two primaries, median (most)",
        "acknowledged writes lost, median (most)",
        "leader changes, median (most)",
        "all back in place, median (most)",
        "notes",
    ]
    reference = _of(runs, REFERENCE, fault.name)
    rows = [_fault_row(variant, _of(runs, variant, fault.name), reference) for variant in variants]
    note = FAULT_NOTES.get(fault.name)
    return [
        f"\n## {fault.title[0].upper()}{fault.title[1:]}\n",
        *([note, ""] if note else []),
        *Table(head, rows).lines(),
    ]


def _fault_row(variant: str, own: Sequence[Run], reference: Sequence[Run]) -> list[str]:
    gap, base = GAP.spread(own), GAP.spread(reference)
    gaps = ["—", "—", "—"]
    if gap is not None:
        times = "—" if base is None else ratio(gap, base)
        gaps = [_marked(GAP, gap, base), f"{GAP.show(gap.low)} – {GAP.show(gap.high)}", times]
    others = [_with_most(figure, own, reference) for figure in (TWO_PRIMARIES, LOST)]
    plain = [_with_most(figure, own, ()) for figure in (CHANGES, SETTLED)]
    return [VARIANTS[variant].title, str(len(own)), *gaps, *others, *plain, _notes(own)]


def _with_most(figure: Figure, own: Sequence[Run], reference: Sequence[Run]) -> str:
    spread = figure.spread(own)
    if spread is None:
        return "—"
    text = _marked(figure, spread, figure.spread(reference))
    return text if spread.high == spread.middle else f"{text} ({figure.show(spread.high)})"


def _notes(own: Sequence[Run]) -> str:
    """What numbers do not say."""
    results = [run.result for run in own if run.result is not None]
    counted = (
        (sum(not result["came_back"] for result in results), "writes only after the fault's end"),
        (sum(bool(result["timelines_twice"]) for result in results), "one timeline written by two servers"),
        (sum(result["settled_s"] is None for result in results), "not all back in place in time"),
        (sum(run.result is None for run in own), "failed"),
    )
    return "; ".join(f"{words}: {number} of {len(own)}" for number, words in counted if number)


def _idle_section(runs: Sequence[Run]) -> list[str]:
    variants = _measured(runs, IDLE)
    if not variants:
        return []
    rows = _cost_rows(IDLE_FIGURES, runs, variants, IDLE)
    head = ["median (least – most)", *(VARIANTS[name].title for name in variants)]
    title = "\n## An idle cluster, per host (etcd, monitor and WAL: of the whole)\n"
    return [title, FAULT_NOTES[IDLE], "", *Table(head, rows).lines()]


def _rest_section(runs: Sequence[Run]) -> list[str]:
    variants = _measured(runs, REST)
    if not variants:
        return []
    lines = ["\n## Health requests: GET /primary at the primary of an idle cluster\n", FAULT_NOTES[REST]]
    for load in LOADS:
        rows = _cost_rows(rest_figures(load.name), runs, variants, REST)
        lines += ["", *Table([load.title, *(VARIANTS[name].title for name in variants)], rows).lines()]
    return lines


def _cost_rows(figures: Sequence[Figure], runs: Sequence[Run], variants: Sequence[str], task: str) -> list[list[str]]:
    return [
        [
            figure.name,
            *(_cost_cell(figure, _of(runs, variant, task), _of(runs, REFERENCE, task)) for variant in variants),
        ]
        for figure in figures
    ]


def _cost_cell(figure: Figure, own: Sequence[Run], reference: Sequence[Run]) -> str:
    spread = figure.spread(own)
    if spread is None:
        return "—"
    return (
        f"{_marked(figure, spread, figure.spread(reference))} ({figure.show(spread.low)} – {figure.show(spread.high)})"
    )


def _failed_section(runs: Sequence[Run]) -> list[str]:
    failed = [run for run in runs if run.result is None]
    if not failed:
        return []
    lines = ["\n## Runs that failed\n"]
    for run in failed:
        error = run.error.replace("|", "\\|")
        lines.append(f"- {VARIANTS[run.variant].title}, {run.task}, round {run.round}: {error}")
    return lines
