"""A report of drills as one page of HTML: conditions, a table, a picture per drill. Nothing of it is fetched.

Built as a tree by the standard library, which escapes every text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from hamgr.drill.archive import Report, replace_file
from hamgr.drill.conditions import Conditions
from hamgr.drill.course import Change, Course, edges_of, stages_of
from hamgr.drill.picture import ms_fine, picture_of
from hamgr.drill.run import Outcome
from hamgr.drill.summary import COLUMNS, ms, risks_in_words, summarised, verdict_in_words
from hamgr.drill.text import shown

_STYLE = Path(__file__).with_name("page.css")


def write_page(path: Path, report: Report) -> None:
    """The file at `path` is the report's page. Raises OSError."""
    replace_file(path, page_of(report))


def page_of(report: Report) -> str:
    """The page's text."""
    page = Element("html", {"lang": "en"})
    head = SubElement(page, "head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"})
    _add(head, "title", "hamgr: failover drills")
    SubElement(head, "style").text = _STYLE.read_text(encoding="utf-8")
    body = SubElement(page, "body")
    _add(body, "h1", "Failover drills")
    _write_conditions(body, report.conditions)
    _write_summary(body, report.outcomes)
    for number, outcome in enumerate(report.outcomes, start=1):
        _write_outcome(body, number, outcome)
    return "<!DOCTYPE html>\n" + tostring(page, encoding="unicode", method="html") + "\n"


def _write_conditions(body: Element, conditions: Conditions) -> None:
    rows: list[tuple[str, object]] = [
        ("hamgr", conditions.hamgr),
        ("PostgreSQL, etcd", f"{conditions.postgresql}, {conditions.etcd}"),
        ("place", f"{conditions.place}; {conditions.members} members, etcd of {conditions.store_members}"),
        ("ttl", f"{conditions.ttl_s:g} s"),
        ("synchronous mode", conditions.synchronous_mode),
        ("begun", conditions.began_at),
        ("machine", conditions.machine),
    ]
    if conditions.seed is not None:
        rows.append(("seed", conditions.seed))
    listed = _definitions(body, rows)
    _add(listed, "dt", "command")
    _add(SubElement(listed, "dd"), "code", conditions.command)


def _write_summary(body: Element, outcomes: Sequence[Outcome]) -> None:
    rows = summarised(outcomes)
    good = sum(outcome.is_good for outcome in outcomes)
    _add(body, "p", f"{good} of {len(outcomes)} drills good", "good" if good == len(outcomes) else "bad")
    table = _table(body, COLUMNS, figures=range(1, len(COLUMNS) - 1))
    first = {outcome.fault: number for number, outcome in reversed([*enumerate(outcomes, start=1)])}
    for row in rows:
        cells = _row(table, row.cells(), figures=range(1, len(COLUMNS) - 1))
        cells[-1].set("class", "good" if row.is_good else "bad")
        cells[0].text = None
        _add(cells[0], "a", row.fault).set("href", f"#drill-{first[row.fault]}")
    words = "gap: longest time without an acknowledged write. quiet: the same before the fault. lost: acknowledged "
    _add(body, "p", words + "writes that the last primary does not have. rejoin: after the fault's end.", "soft")


def _write_outcome(body: Element, number: int, outcome: Outcome) -> None:
    section = SubElement(body, "section", {"id": f"drill-{number}"})
    top = SubElement(section, "div", {"class": "together"})
    _add(top, "h2", f"{number}. {outcome.fault}")
    if outcome.title:
        _add(top, "p", outcome.title, "soft")
    _add(top, "p", verdict_in_words(outcome), "good" if outcome.is_good else "bad")
    if outcome.error:
        _add(top, "p", f"not finished: {outcome.error}")
    if outcome.course is not None:
        _write_picture(top, outcome.course)
    if outcome.verdict is not None:
        _write_verdict(section, outcome)
    changes = outcome.course.changes if outcome.course is not None else ()
    if outcome.verdict is not None and outcome.verdict.leader_changes and not changes:
        _add(section, "p", "hamgr shows no record of a change of leader.", "bad")
    for change in changes:
        _write_record(section, change)


def _write_picture(section: Element, course: Course) -> None:
    figure = SubElement(section, "figure")
    hosts = sorted({row.host for row in course.whole.rows})
    SubElement(figure, "div", {"class": "wide"}).append(picture_of(course, hosts))
    words = [
        "Acknowledged writes over time, coloured by the host that acknowledged; above the whole drill, below closer. "
        "Grey: the write gap.",
        *(f"Red: two primaries, {span.what}, {ms(span.end_s - span.begin_s)}." for span in course.two_primaries),
        *(_placed(change) for change in course.changes),
    ]
    _add(figure, "figcaption", " ".join(words))


def _placed(change: Change) -> str:
    """How the record's clock and the client's were brought together."""
    if change.zero_s is None:
        return f"The stages of term {change.record.get('term')} cannot be placed on the client's clock."
    when = "after" if change.zero_s >= 0 else "before"
    return (
        f"Stages of term {change.record.get('term')}: measured on the new leader's clock, and placed so that writable "
        "ends with its first acknowledged write; the instant from which they count is then "
        f"{ms(abs(change.zero_s))} {when} the fault."
    )


def _write_verdict(section: Element, outcome: Outcome) -> None:
    verdict = outcome.verdict
    if verdict is None:
        return
    undone_s = outcome.undone_s if outcome.course is None else outcome.course.undone_s
    back = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in verdict.rejoin_s.items() if seconds)
    _definitions(
        section,
        [
            ("write gap", f"{ms(verdict.write_gap_s)} (before the fault {ms(verdict.quiet_gap_s)})"),
            ("acknowledged", f"{verdict.acknowledged} writes"),
            ("lost", f"{verdict.lost} of the application, {verdict.lost_pinned} of the pinned writers"),
            ("two primaries", ms(verdict.two_primaries_s)),
            ("at risk by records", risks_in_words(verdict)),
            ("led by", " then ".join(verdict.leaderships)),
            ("undone", "nothing was to be undone" if undone_s is None else f"{undone_s:.2f} s after the fault"),
            ("back in place", back or "nobody was out of place after the fault's end"),
        ],
    )


def _write_record(section: Element, change: Change) -> None:
    record = change.record
    former = shown(record.get("former")) or "nobody"
    _add(
        section, "h3", f"Record of term {record.get('term')}: {record.get('cause')}, {former} to {record.get('leader')}"
    )
    risk = record.get("at_risk_bytes")
    more = ", and what the former leader wrote last, of which nobody knows" if record.get("may_be_more") else ""
    over = record.get("over_budget")
    named = [str(name) for name in over] if isinstance(over, list | tuple) else []
    ballots = record.get("ballots")
    votes = ballots.items() if isinstance(ballots, Mapping) else ()
    _definitions(
        section,
        [
            ("timeline, LSN", f"{record.get('timeline')} from {record.get('lsn')}"),
            ("bytes at risk", ("not known" if risk is None else f"{risk} B") + more),
            ("ballots", ", ".join(f"{name} {vote}" for name, vote in votes) or "none"),
            ("over budget", ", ".join(named) or "no stage"),
        ],
    )
    table = _table(section, ("stage", "took", "until", "budget", "by", "clock"), figures=range(1, 4))
    budget = record.get("budget_s")
    for stage in stages_of(record):
        bound = budget.get(stage["name"]) if isinstance(budget, Mapping) else None
        cells = _row(table, _stage_cells(stage, bound), figures=range(1, 4))
        if stage["name"] in named:
            cells[1].set("class", "figure bad")


def _stage_cells(stage: Mapping[str, Any], budget_s: object) -> tuple[object, ...]:
    edges = edges_of(stage)
    bound = ms(budget_s) if isinstance(budget_s, int | float) else ""
    if edges is None:
        return stage["name"], "unknown", "", bound, "", ""
    return stage["name"], ms_fine(edges[1] - edges[0]), ms(edges[1]), bound, stage.get("by"), stage.get("clock")


def _definitions(parent: Element, rows: Sequence[tuple[str, object]]) -> Element:
    listed = SubElement(parent, "dl")
    for name, value in rows:
        _add(listed, "dt", name)
        _add(listed, "dd", value)
    return listed


def _table(parent: Element, titles: Sequence[str], figures: range) -> Element:
    """An empty table body below its titles; it scrolls by itself where the page is narrow."""
    table = SubElement(SubElement(parent, "div", {"class": "wide"}), "table")
    _row(SubElement(table, "thead"), titles, figures, "th")
    return SubElement(table, "tbody")


def _row(parent: Element, cells: Sequence[object], figures: range, tag: str = "td") -> list[Element]:
    row = SubElement(parent, "tr")
    return [_add(row, tag, cell, "figure" if column in figures else "") for column, cell in enumerate(cells)]


def _add(parent: Element, tag: str, text: object, kind: str = "") -> Element:
    element = SubElement(parent, tag, {"class": kind} if kind else {})
    element.text = shown(text)
    return element
