"""`restart`, `reload`, `reinit`, `flush`: orders to members, carried out by each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any

import click

from hamgr.cli.config import read_config
from hamgr.cli.connect import Site, connect, require_done
from hamgr.cli.context import Globals
from hamgr.cli.errors import Refused, Unavailable
from hamgr.cli.members import member_rows, member_table
from hamgr.cli.output import render
from hamgr.cli.rest import ORDER_TIMEOUT_S, Reply, Unreachable, ask_all, call_in_background
from hamgr.cli.targets import ROLES, leader_of, pick_members, split_names
from hamgr.core.cluster import ClusterView, Member

RESTART_TIMEOUT_S = 600.0
REINIT_TIMEOUT_S = 24 * 3600.0
"""Of --wait: a big database is copied for hours; interrupting the command does not interrupt the copy."""

POLL_S = 0.5
Body = Mapping[str, Any]

names_argument = click.argument("names", nargs=-1, metavar="[CLUSTER] [MEMBERS]...")
role_option = click.option("-r", "--role", type=click.Choice(ROLES), default="any", help="Only members of this role.")
force_option = click.option("--force", is_flag=True, help="Do not ask.")


@click.command()
@names_argument
@role_option
@click.option("--any", "only_one", is_flag=True, help="One of the members only.")
@click.option("--pg-version", help="Only members whose PostgreSQL is older than this.")
@click.option("--pending", is_flag=True, help="Only members that need a restart.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), help="Seconds to wait for each restart."
)
@force_option
@click.pass_obj
def restart(
    globals_: Globals,
    names: tuple[str, ...],
    role: str,
    only_one: bool,
    pg_version: str | None,
    pending: bool,
    timeout_s: float | None,
    force: bool,
) -> None:
    """Restart members' servers one after the other, the leader last. Ends at the first that does not come up again."""
    site, members = _members(globals_, names, role, "restart", force=force)
    if only_one:
        members = members[:1]
    _confirm("restart", members, force=force)
    options = {"postgres_version": pg_version, "timeout": timeout_s, "restart_pending": pending or None}
    body = {key: value for key, value in options.items() if value is not None}
    bound_s = (timeout_s or RESTART_TIMEOUT_S) + ORDER_TIMEOUT_S
    failed: list[str] = []
    for number, member in enumerate(members, start=1):
        if _order(site, member, "restart", "/restart", body, bound_s):
            continue
        failed.append(member.name)
        left = ", ".join(each.name for each in members[number:])
        if left and not _is_up(site, member):
            # The same could happen to all of them, the leader last.
            click.echo(f"Stopped: {member.name} does not run; not restarted: {left}", err=True)
            break
    _end("restart", failed)


def _is_up(site: Site, member: Member) -> bool:
    return ask_all(site.rest, [member]).get(member.name, {}).get("state") in ("running", "streaming")


@click.command("reload")
@names_argument
@role_option
@force_option
@click.pass_obj
def reload(globals_: Globals, names: tuple[str, ...], role: str, force: bool) -> None:
    """Have members read their configuration files again."""
    site, members = _members(globals_, names, role, "reload", force=force)
    _confirm("reload", members, force=force)
    failed = [m.name for m in members if not _order(site, m, "reload", "/reload", {}, ORDER_TIMEOUT_S)]
    _end("reload", failed)


@click.command()
@names_argument
@force_option
@click.option("--from-leader", is_flag=True, help="Copy from the leader, not from another replica.")
@click.option("--wait", "is_waiting", is_flag=True, help="Wait until the replica streams again, showing its state.")
@click.pass_obj
def reinit(globals_: Globals, names: tuple[str, ...], force: bool, from_leader: bool, is_waiting: bool) -> None:
    """Copy replicas' data directories from scratch."""
    site, member_names = _site_and_names(globals_, names)
    if not member_names:
        raise Refused("name the members to copy from scratch", f"hamgr reinit {site.scope} MEMBER")
    view = site.read_view()
    members = pick_members(view, member_names)
    leader = leader_of(view)
    if leader in members:
        raise Refused(f"{leader.name if leader else ''} leads: only a replica can be copied from scratch")
    _show(site, view, force=force)
    _confirm("reinitialize", members, force=force)
    body = {"force": force, "from_leader": from_leader}
    before = ask_all(site.rest, members)
    failed = [m.name for m in members if not _order(site, m, "reinitialize", "/reinitialize", body, RESTART_TIMEOUT_S)]
    if is_waiting:
        for member in members:
            if member.name not in failed:
                _wait_until_rebuilt(site, member, before.get(member.name, {}))
    _end("reinitialize", failed)


@click.command()
@click.argument("names", nargs=-1, metavar="[CLUSTER] switchover")
@force_option
@click.pass_obj
def flush(globals_: Globals, names: tuple[str, ...], force: bool) -> None:
    """Cancel a switchover that was scheduled, or a failover that nobody has taken up."""
    if not names or names[-1] != "switchover" or len(names) > 2:
        raise click.UsageError("say what to cancel: [CLUSTER] switchover (hamgr schedules no restarts)")
    site = connect(globals_, names[0] if len(names) == 2 else None)
    view = site.read_view()
    request = view.request
    if request is None:
        raise Refused("no switchover is scheduled")
    # With nobody leading, one that was not taken up stands for good.
    if request.offer is not None or (request.scheduled_at is None and view.leader is not None):
        raise Refused("the switchover is under way already", "look with `hamgr list`")
    if not force:
        click.confirm(f"Cancel the switchover of cluster {site.scope}?", abort=True)
    require_done(site.run(lambda store: store.clear_request(request.mod_revision)), "the request")
    click.echo("Success: scheduled switchover deleted")


def _site_and_names(globals_: Globals, names: tuple[str, ...]) -> tuple[Site, tuple[str, ...]]:
    configured = read_config(globals_).scope
    scope, member_names = split_names(names, configured)
    return connect(globals_, scope), member_names


def _members(
    globals_: Globals, names: tuple[str, ...], role: str, what: str, *, force: bool
) -> tuple[Site, tuple[Member, ...]]:
    site, member_names = _site_and_names(globals_, names)
    view = site.read_view()
    members = pick_members(view, member_names, role)
    _show(site, view, force=force)
    return site, members


def _show(site: Site, view: ClusterView, *, force: bool) -> None:
    if not force:
        rows = member_rows(view, ask_all(site.rest, view.members))
        click.echo(render(member_table(view, rows, site.scope), "pretty"))


def _confirm(what: str, members: Sequence[Member], *, force: bool) -> None:
    if not force:
        click.confirm(f"Are you sure you want to {what} members {', '.join(m.name for m in members)}?", abort=True)


def _order(site: Site, member: Member, what: str, path: str, body: Body, timeout_s: float) -> bool:
    """Give the order, show the member's state while it is carried out, say how it ended; True when it is done."""
    try:
        answer = call_in_background(site.rest, member, "POST", path, timeout_s=timeout_s, body=body)
        reply = _watched(site, member, answer)
    except Unreachable as silence:
        click.echo(f"Failed: {what} of member {member.name}: {silence}", err=True)
        return False
    if reply.is_ok:
        click.echo(f"Success: {what} of member {member.name}" + (f": {reply.text}" if reply.text else ""))
    else:
        click.echo(
            f"Failed: {what} of member {member.name}, status code {reply.code}: {reply.text or 'no reason given'}",
            err=True,
        )
    return reply.is_ok


def _watched(site: Site, member: Member, answer: Future[Reply]) -> Reply:
    said = _StateLog(member.name)
    while not wait([answer], timeout=POLL_S).done:
        said.show(ask_all(site.rest, [member]).get(member.name))
    return answer.result()


def _wait_until_rebuilt(site: Site, member: Member, before: Body) -> None:
    """Return when the server runs, streams and is another process than before the order."""
    said = _StateLog(member.name)

    def is_rebuilt(body: Body) -> bool:
        return (
            body.get("state") in ("running", "streaming")
            and body.get("replication_state") == "streaming"
            and body.get("postmaster_start_time") != before.get("postmaster_start_time")
        )

    _poll(site, member, said, is_rebuilt)
    click.echo(f"Reinitialize is completed on: {member.name}")


def _poll(site: Site, member: Member, said: _StateLog, is_over: Callable[[Body], bool]) -> None:
    ends = time.monotonic() + REINIT_TIMEOUT_S
    while time.monotonic() < ends:
        body = ask_all(site.rest, [member]).get(member.name)
        said.show(body)
        if body is not None and is_over(body):
            return
        time.sleep(POLL_S)
    raise Unavailable(f"{member.name} was not rebuilt in time", "it may still be at it: look with `hamgr list`")


class _StateLog:
    """Prints a member's state and note whenever they change."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last = ""

    def show(self, body: Body | None) -> None:
        text = "REST does not answer"
        if body is not None:
            note = f": {body['note']}" if body.get("note") else ""
            text = f"{body.get('state', 'unknown')}{note}"
        if text != self._last:
            self._last = text
            click.echo(f"  {self._name}  {text}")


def _end(what: str, failed: Sequence[str]) -> None:
    if failed:
        raise Refused(f"{what} failed for {', '.join(failed)}")
