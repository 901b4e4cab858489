"""Ask for a change of leader and follow it to its end, live: REST first, the request key where REST is silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from hamgr.cli.connect import Site, require_done
from hamgr.cli.errors import Refused, Unavailable
from hamgr.cli.progress import has_new_leader, is_withdrawn, phases
from hamgr.cli.rest import Reply, Unreachable, call
from hamgr.cli.timeline import Record
from hamgr.core.cluster import ClusterView, Member, Request
from hamgr.dcs.etcd import EtcdStore

CHANGE_TIMEOUT_S = 60.0
"""A hand-over is bounded by the agents far below this; promotion after much replay may take longer than that."""

POLL_S = 0.02
RECORD_TIMEOUT_S = 5.0


@dataclass(slots=True)
class Log:
    """Prints each phase once, with the milliseconds since it was asked for."""

    began: float = field(default_factory=time.monotonic)
    shown: set[str] = field(default_factory=set)

    def say(self, code: str, text: str) -> None:
        if code not in self.shown:
            self.shown.add(code)
            click.echo(f"{(time.monotonic() - self.began) * 1000:>7.0f} ms  {text}")


async def ask_members(site: Site, members: Sequence[Member], path: str, body: Mapping[str, Any]) -> Reply | None:
    """The answer of the first member that gives one; None when none could be reached.

    A member that may have got the call without answering ends the round: two members must not both act on it.
    """
    for member in members:
        try:
            return await asyncio.to_thread(call, site.rest, member, "POST", path, timeout_s=CHANGE_TIMEOUT_S, body=body)
        except Unreachable as silence:
            click.echo(str(silence), err=True)
            if silence.was_sent:
                return None
    return None


async def change_leader(
    store: EtcdStore, site: Site, before: ClusterView, request: Request, asked: Sequence[Member]
) -> Record | None:
    """Carry a request out and print its phases. The record, or None where none was written in time.

    `before` was read before anything was asked. Raises Refused with the reason when the leader stays who it was,
    Unavailable when the end was not seen in CHANGE_TIMEOUT_S.
    """
    log = Log()
    path = "/switchover" if request.is_switchover else "/failover"
    answer = asyncio.create_task(ask_members(site, asked, path, request_body(request)))
    try:
        after = await _until_taken(store, before, request, answer, log)
        await _until_writable(site, after, answer, log)
    finally:
        answer.cancel()
    return await _record_of(store, after)


def request_body(request: Request, scheduled_at: str = "") -> dict[str, Any]:
    """The body of POST /switchover and /failover; `scheduled_at` in ISO 8601 with its zone."""
    fields = {
        "leader": request.leader,
        "candidate": request.candidate,
        "scheduled_at": scheduled_at,
        "allow_data_loss": request.allow_data_loss,
    }
    return {key: value for key, value in fields.items() if value}


def refuse_unless_ok(reply: Reply) -> None:
    """Raises Refused with what the member said."""
    if not reply.is_ok:
        hint = "set restapi.authentication or ctl.authentication to the members' values" if reply.code == 401 else ""
        raise Refused(f"{reply.text or 'refused'} (status code {reply.code})", hint)


async def _until_taken(
    store: EtcdStore, before: ClusterView, request: Request, answer: asyncio.Task[Reply | None], log: Log
) -> ClusterView:
    asked_revision = before.revision
    by_key = False
    while time.monotonic() - log.began < CHANGE_TIMEOUT_S:
        view = await store.read()
        for phase in phases(before, view):
            log.say(phase.code, phase.text)
        if has_new_leader(before, view):
            return view
        if by_key and is_withdrawn(before, view, asked_revision):
            raise Refused(f"the request was withdrawn, the leader is who it was{_note(view)}")
        if answer.done() and not by_key:
            reply = answer.result()
            if reply is not None:
                refuse_unless_ok(reply)
            elif view.request is None or view.request == before.request:
                asked_revision = await put_request(store, request, view)
                by_key = True
                log.say("by key", "written to etcd, no member could be asked")
            else:
                by_key, asked_revision = True, view.revision - 1
        await asyncio.sleep(POLL_S)
    raise Unavailable(
        f"no change of leader was seen within {CHANGE_TIMEOUT_S:.0f} s", "look with `hamgr list`; it may still happen"
    )


async def put_request(store: EtcdStore, request: Request, view: ClusterView) -> int:
    """Write the request key over what `view` shows; its revision. Raises Refused where somebody was quicker."""
    outcome = await store.put_request(request, view.request.mod_revision if view.request else 0)
    require_done(outcome, "the request")
    return outcome.revision


def _note(view: ClusterView) -> str:
    member = view.member(view.leader.name) if view.leader else None
    return f": {member.note}" if member is not None and member.note else ""


async def _until_writable(site: Site, view: ClusterView, answer: asyncio.Task[Reply | None], log: Log) -> None:
    """Wait until the new leader itself says that it accepts writes."""
    assert view.leader is not None
    leader = view.member(view.leader.name)
    if leader is None or not leader.api_url:
        log.say("writable", f"whether {view.leader.name} is writable is not known: it announces no REST address")
        return
    while time.monotonic() - log.began < CHANGE_TIMEOUT_S:
        try:
            reply = await asyncio.to_thread(call, site.rest, leader, "GET", "/primary", timeout_s=1.0)
            if reply.is_ok:
                log.say("writable", f"{leader.name} is writable")
                return
        except Unreachable as silence:
            log.say("silent", str(silence))
        await asyncio.sleep(POLL_S)
    raise Unavailable(f"{leader.name} has the lead and did not become writable in {CHANGE_TIMEOUT_S:.0f} s")


async def _record_of(store: EtcdStore, view: ClusterView) -> Record | None:
    deadline = time.monotonic() + RECORD_TIMEOUT_S
    while time.monotonic() < deadline:
        for record in await store.list_records(3):
            if record.get("term") == view.term:
                return record
        await asyncio.sleep(POLL_S * 5)
    return None
