"""`explain`: what holds a failover back, on which member, and what would free it; and what happened at a past time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from hamgr.cli.config import member_data_dir
from hamgr.cli.connect import connect
from hamgr.cli.context import Globals
from hamgr.cli.members import Status, role_of
from hamgr.cli.moment import parse_moment, parse_span
from hamgr.cli.output import Column, Table, format_option, render, render_value
from hamgr.cli.recording import paths_beside, paths_of, read_recording
from hamgr.cli.rest import ask_all
from hamgr.cli.story import AFTER_S, events_table, story_around, story_as_values, story_text
from hamgr.core.cluster import ClusterView, Member
from hamgr.core.remedies import remedy

HELD_BACK = 1
SILENT = "silent"
GONE = "gone"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one member says. `frees` is empty where nothing holds it back; `rule` and `reason` where it is silent."""

    member: str
    role: str
    rule: str
    reason: str
    waits_for: str
    frees: str


@click.command()
@click.argument("cluster_name", required=False)
@click.option("--at", "moment", metavar="TIME", help="Tell what this member saw and did then, from its recording.")
@click.option("--for", "span", metavar="SPAN", help="With --at: so long after TIME, 30s if not given.")
@click.option(
    "--file", type=click.Path(dir_okay=False, path_type=Path), help="With --at: this recording, not this member's."
)
@format_option
@click.pass_context
def explain(
    ctx: click.Context, cluster_name: str | None, moment: str | None, span: str | None, file: Path | None, fmt: str
) -> None:
    """Say what holds a failover back, member by member, and what would free it. Status 0: nothing does.

    With --at TIME: what this host's member saw, which rule fired, what was done and how long each stage took. TIME is
    ISO 8601, HH:MM[:SS] of today, or -5m. From 10 s before it.
    """
    globals_: Globals = ctx.obj
    if moment is not None:
        _explain_past(globals_, moment, span, file, fmt)
        return
    if span is not None or file is not None:
        raise click.UsageError("--for and --file go with --at TIME")
    site = connect(globals_, cluster_name)
    view = site.read_or_recall()
    holdings = explained(view, ask_all(site.rest, view.members))
    is_well = view.leader is not None and not any(holding.frees for holding in holdings)
    if fmt in ("json", "yaml"):
        click.echo(render_value(_as_values(site.scope, view, holdings, is_well=is_well), fmt))
    elif fmt == "pretty" and is_well:
        click.echo(f"{site.scope}: {headline(view)}, nothing is held back")
    else:
        click.echo(render(_table(site.scope, view, holdings), fmt))
    if not is_well:
        ctx.exit(HELD_BACK)


def _explain_past(globals_: Globals, moment: str, span: str | None, file: Path | None, fmt: str) -> None:
    now = datetime.now(UTC)
    try:
        at = parse_moment(moment, now)
        after_s = AFTER_S if span is None else parse_span(span)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    paths = paths_of(file) if file is not None else paths_beside(member_data_dir(globals_))
    story = story_around(read_recording(paths), at, now, after_s)
    if fmt == "pretty":
        click.echo(story_text(story))
    elif fmt == "tsv":
        click.echo(render(events_table(story), fmt))
    else:
        click.echo(render_value(story_as_values(story), fmt))


def explained(view: ClusterView, statuses: Mapping[str, Status]) -> tuple[Holding, ...]:
    """What each member waits for: those that are up, then those that may campaign and are not."""
    up = [_holding(view, member, statuses.get(member.name)) for member in view.members]
    gone = [_gone(name) for name in sorted(view.roster) if view.member(name) is None]
    return (*up, *gone)


def _holding(view: ClusterView, member: Member, status: Status | None) -> Holding:
    role = role_of(view, member.name)
    if status is None:
        words = f"REST does not answer; announced in etcd: {member.note or member.state}"
        frees = remedy(member.note) or "let this host reach its REST address, or look at the agent's log"
        return Holding(member.name, role, "", SILENT, words, frees)
    reason, note = str(status.get("reason") or ""), str(status.get("note") or "")
    return Holding(member.name, role, str(status.get("rule") or ""), reason, note, remedy(reason))


def _gone(name: str) -> Holding:
    words = "its lease is gone: host or agent is down, or cannot reach etcd"
    return Holding(
        name, GONE, "", GONE, words, "bring host and agent back; a leader takes it out of the roster in time"
    )


def headline(view: ClusterView) -> str:
    """Who leads, in a few words."""
    return f"{view.leader.name} leads in term {view.term}" if view.leader else f"nobody leads since term {view.term}"


def _footer(view: ClusterView) -> tuple[str, ...]:
    lines = [f" {headline(view)}"]
    if view.sync is not None and view.sync.leader:
        names = ", ".join(view.sync.members) or "none"
        others = f", having compared {view.sync.quorum} others of them" if view.sync.quorum else ""
        lines.append(f" Without loss may lead: {view.sync.leader}; or of {names}{others}")
    if view.request is not None:
        candidate = view.request.candidate or "any"
        lines.append(f" A request is open: candidate {candidate}; `hamgr flush switchover` takes it back")
    lines += [f" Key not understood: {problem}" for problem in view.problems]
    return tuple(lines)


def _table(scope: str, view: ClusterView, holdings: tuple[Holding, ...]) -> Table:
    columns = (Column("Member"), Column("Role"), Column("Rule"), Column("Waits for"), Column("What frees it"))
    rows = [
        {
            "Member": holding.member,
            "Role": holding.role.replace("_", " ").title(),
            "Rule": holding.rule,
            "Waits for": holding.waits_for,
            "What frees it": holding.frees,
        }
        for holding in holdings
    ]
    return Table(columns, rows, title=f"Cluster: {scope}", footer=_footer(view))


def _as_values(scope: str, view: ClusterView, holdings: tuple[Holding, ...], *, is_well: bool) -> dict[str, Any]:
    sync = view.sync
    electorate = None if sync is None else {"leader": sync.leader, "members": list(sync.members), "quorum": sync.quorum}
    return {
        "scope": scope,
        "term": int(view.term),
        "leader": view.leader.name if view.leader else None,
        "is_well": is_well,
        "electorate": electorate,
        "members": [asdict(holding) for holding in holdings],
    }
