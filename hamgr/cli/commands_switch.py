"""`switchover` and `failover`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import click

from hamgr.cli.connect import Site, connect
from hamgr.cli.context import Globals
from hamgr.cli.errors import Refused
from hamgr.cli.follow import ask_members, change_leader, put_request, refuse_unless_ok, request_body
from hamgr.cli.members import member_rows, member_table
from hamgr.cli.output import render
from hamgr.cli.rest import ask_all
from hamgr.cli.targets import leader_of
from hamgr.cli.timeline import record_text
from hamgr.core.cluster import ClusterView, Member, Request
from hamgr.core.precheck import bytes_at_risk, successors, why_not
from hamgr.core.units import WallTime


@click.command()
@click.argument("cluster_name", required=False)
@click.option("--leader", "--primary", "leader", help="The present leader; refused when another one leads.")
@click.option("--candidate", help="The member to lead; without it the one with the most WAL.")
@click.option("--scheduled", help="When, in ISO 8601 (2026-11-23T03:00+01:00), or `now`.")
@click.option("--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def switchover(
    globals_: Globals,
    cluster_name: str | None,
    leader: str | None,
    candidate: str | None,
    scheduled: str | None,
    force: bool,
) -> None:
    """Hand the lead over to a replica, planned: nothing is lost, writes pause for a moment."""
    site = connect(globals_, cluster_name)
    view = site.read_view()
    _show(site, view)
    present = view.leader.name if view.leader else ""
    if not present:
        raise Refused("nobody leads", "use `hamgr failover --candidate MEMBER`")
    if not force:
        leader = leader or click.prompt("Primary", default=present)
        candidate = candidate if candidate is not None else _ask_candidate(site, view)
        scheduled = scheduled or click.prompt("When should the switchover take place (ISO 8601)", default="now")
    at = _instant(scheduled)
    request = Request(leader or present, candidate or "", None if at is None else WallTime(at.timestamp()))
    refusal = why_not(view, request, site.policy_of(view))
    if refusal and at is None:
        raise Refused(f"switchover is not possible: {refusal}")
    if not force:
        when = "" if at is None else f" at {at.isoformat()}"
        click.confirm(f"Hand over in cluster {site.scope}, demoting leader {request.leader}{when}?", abort=True)
    asked = [member for member in (leader_of(view),) if member is not None]
    if at is None:
        _carry_out(site, view, request, asked)
    else:
        _schedule(site, view, request, at, asked)


@click.command()
@click.argument("cluster_name", required=False)
@click.option("--candidate", help="The member to lead.")
@click.option("--allow-data-loss", is_flag=True, help="Even if it lacks commits that were acknowledged.")
@click.option("--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def failover(
    globals_: Globals, cluster_name: str | None, candidate: str | None, allow_data_loss: bool, force: bool
) -> None:
    """Make a replica the leader, mainly where none leads and none may by itself."""
    site = connect(globals_, cluster_name)
    view = site.read_view()
    _show(site, view)
    if not candidate and not force:
        candidate = _ask_candidate(site, view)
    if not candidate:
        raise Refused("failover needs a candidate", "name it by --candidate")
    request = Request("", candidate, None, allow_data_loss)
    policy = site.policy_of(view)
    refusal = why_not(view, request, policy)
    if refusal:
        would_do = not why_not(view, replace(request, allow_data_loss=True), policy)
        raise Refused(f"failover is not possible: {refusal}", "--allow-data-loss does it all the same" * would_do)
    lossy = _told_risk(view, candidate) if allow_data_loss else ""
    if not force:
        demoting = f", demoting leader {view.leader.name}" if view.leader else ""
        click.confirm(f"Fail over cluster {site.scope} to {candidate}{demoting}{lossy}?", abort=True)
    _carry_out(site, view, request, sorted(view.members, key=lambda member: (member.name != candidate, member.name)))


def _show(site: Site, view: ClusterView) -> None:
    click.echo(render(member_table(view, member_rows(view, ask_all(site.rest, view.members)), site.scope), "pretty"))


def _told_risk(view: ClusterView, candidate: str) -> str:
    """What may be lost has been named, whether or not a person is asked; the words for the question."""
    member = view.member(candidate)
    risk = "how much it lacks is not known" if member is None else bytes_at_risk(view, member)
    click.echo(f"Commits may be LOST: {risk}")
    return ". Commits may be LOST"


def _ask_candidate(site: Site, view: ClusterView) -> str:
    names = [member.name for member in successors(view, site.policy_of(view))]
    return str(click.prompt(f"Candidate [{', '.join(names) or 'none is fit'}]", default="", show_default=False))


def _instant(scheduled: str | None) -> datetime | None:
    """None means now; a time without a zone is this host's. Raises Refused for what is no time or is past."""
    if scheduled is None or scheduled == "now":
        return None
    try:
        at = datetime.fromisoformat(scheduled)
    except ValueError as problem:
        raise Refused(f"{scheduled!r} is not a time", "write it as 2026-11-23T03:00+01:00") from problem
    try:
        if at.tzinfo is None:
            at = at.astimezone()
        # As it will be written: in UTC it may be a day later, and there is no year 10000.
        datetime.fromtimestamp(at.timestamp(), UTC)
    except (ValueError, OverflowError) as problem:
        raise Refused(f"{scheduled!r} is no time in UTC") from problem
    if at <= datetime.now(at.tzinfo):
        raise Refused(f"{at.isoformat()} is in the past")
    return at


def _carry_out(site: Site, view: ClusterView, request: Request, asked: list[Member]) -> None:
    after, record = site.run(lambda store: change_leader(store, site, view, request, asked))
    click.echo("")
    if record is None:
        click.echo("No record of it has been written yet; see `hamgr failovers`")
    else:
        click.echo(record_text(record))
    winner = after.leader.name if after.leader else ""
    if request.candidate and winner != request.candidate:
        raise Refused(f"{winner} took the lead, not {request.candidate}")
    if winner == request.leader:
        raise Refused(f"{winner} leads again")


def _schedule(site: Site, view: ClusterView, request: Request, at: datetime, asked: list[Member]) -> None:
    reply = site.run(lambda _: ask_members(site, asked, "/switchover", request_body(request, at.isoformat())))
    if reply is not None:
        refuse_unless_ok(reply)
        click.echo(reply.text or f"Switchover scheduled at {at.isoformat()}")
        return
    site.run(lambda store: put_request(store, request, view))
    click.echo(f"Switchover scheduled at {at.isoformat()}, written to etcd")
