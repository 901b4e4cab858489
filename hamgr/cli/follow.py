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
from hamgr.cli.rest import Reply, Unreachable, call_in_background
from hamgr.cli.timeline import Record
from hamgr.core.cluster import ClusterView, Member, Request
from hamgr.core.precheck import UNDER_WAY, place_for
from hamgr.dcs.errors import StoreUnavailable
from hamgr.dcs.etcd import EtcdStore

CHANGE_TIMEOUT_S = 60.0
"""A hand-over is bounded by the agents far below this; promotion after much replay may take longer than that."""

WATCH_IDLE_S = 2.0
POLL_S = 0.02


@dataclass(slots=True)
class Log:
    """Prints each phase once, with the milliseconds since it was asked for."""

    began: float = field(default_factory=time.monotonic)
    shown: set[str] = field(default_factory=set)

    @property
    def left_s(self) -> float:
        return self.began + CHANGE_TIMEOUT_S - time.monotonic()

    def say(self, code: str, text: str) -> None:
        if code not in self.shown:
            self.shown.add(code)
            click.echo(f"{(time.monotonic() - self.began) * 1000:>7.0f} ms  {text}")


@dataclass(frozen=True, slots=True)
class Answered:
    """How asking by REST ended; None: no member could be asked."""

    reply: Reply | None


Events = asyncio.Queue[ClusterView | Answered]


async def ask_members(site: Site, members: Sequence[Member], path: str, body: Mapping[str, Any]) -> Reply | None:
    """The answer of the first member that gives one; None when none did.

    A member that may have got the call without answering ends the round: two members must not both act on it.
    """
    for member in members:
        answer = call_in_background(site.rest, member, "POST", path, timeout_s=CHANGE_TIMEOUT_S, body=body)
        try:
            return await asyncio.wrap_future(answer)
        except Unreachable as silence:
            click.echo(str(silence), err=True)
            if silence.was_sent:
                return None
    return None


async def change_leader(
    store: EtcdStore, site: Site, before: ClusterView, request: Request, asked: Sequence[Member]
) -> tuple[ClusterView, Record | None]:
    """Carry a request out and print its phases. The view with the new leader, and the record, None if there is none.

    `before` was read before anything was asked. Raises Refused with the reason when the leader stays who it was,
    Unavailable when the end was not seen in CHANGE_TIMEOUT_S.
    """
    log = Log()
    events: Events = asyncio.Queue()
    tasks = [
        asyncio.create_task(_feed_views(store, events)),
        asyncio.create_task(_feed_answer(site, request, asked, events)),
    ]
    try:
        after = await _until_taken(store, before, request, events, log)
        return after, await _record_of(store, after, log)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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


async def put_request(store: EtcdStore, request: Request, view: ClusterView) -> int:
    """Write the request key; its revision. Raises Refused where one stands that it must not replace."""
    place = place_for(view, request)
    if place is None:
        raise Refused(UNDER_WAY, "`hamgr flush switchover` takes back one that waits")
    outcome = await store.put_request(*place)
    require_done(outcome, "the request")
    return outcome.revision


async def _feed_views(store: EtcdStore, events: Events) -> None:
    """Every change of the keys as a view; does not end by itself."""
    while True:
        try:
            view = await store.read()
            events.put_nowait(view)
            async for change in store.watch(view.revision, WATCH_IDLE_S):
                if isinstance(change, ClusterView):
                    events.put_nowait(change)
        except StoreUnavailable as silence:
            click.echo(str(silence), err=True)
            await asyncio.sleep(WATCH_IDLE_S)


async def _feed_answer(site: Site, request: Request, asked: Sequence[Member], events: Events) -> None:
    path = "/switchover" if request.is_switchover else "/failover"
    events.put_nowait(Answered(await ask_members(site, asked, path, request_body(request))))


async def _until_taken(
    store: EtcdStore, before: ClusterView, request: Request, events: Events, log: Log
) -> ClusterView:
    view, written_at = before, 0
    while log.left_s > 0:
        try:
            event = await asyncio.wait_for(events.get(), log.left_s)
        except TimeoutError:
            break
        if isinstance(event, Answered):
            written_at = await _act_on(event, store, request, before, view, log)
            continue
        view = event
        for phase in phases(before, view):
            log.say(phase.code, phase.text)
        if has_new_leader(before, view):
            return view
        if written_at and is_withdrawn(before, view, written_at):
            raise Refused(f"the request was withdrawn, the leader is who it was{_note(view)}")
    raise Unavailable(
        f"no change of leader was seen within {CHANGE_TIMEOUT_S:.0f} s", "look with `hamgr list`; it may still happen"
    )


async def _act_on(
    event: Answered, store: EtcdStore, request: Request, before: ClusterView, view: ClusterView, log: Log
) -> int:
    """Revision at which the request stands in etcd without an agent that answers for it; 0 where one does."""
    if event.reply is not None:
        refuse_unless_ok(event.reply)
        return 0
    if view.request is not None and view.request != before.request:
        return view.request.mod_revision
    written_at = await put_request(store, request, view)
    log.say("by key", "no member could be asked: request written to etcd")
    return written_at


def _note(view: ClusterView) -> str:
    member = view.member(view.leader.name) if view.leader else None
    return f": {member.note}" if member is not None and member.note else ""


def is_of_a_writable_leader(record: Record) -> bool:
    """A leader whose server ended before it accepted a write leaves a record, too, without an end of that stage."""
    stages = {stage.get("name"): stage.get("end_s") for stage in record.get("stages", ())}
    return stages.get("writable") is not None


async def _record_of(store: EtcdStore, view: ClusterView, log: Log) -> Record:
    """The record of the change, which the new leader writes once it has seen that it accepts writes.

    Not asked of its health check: that is for those who route clients, and dates the stage `routed`.
    """
    leader = view.leader.name if view.leader else ""
    while log.left_s > 0:
        for record in await store.list_records(3):
            if record.get("term") == view.term and is_of_a_writable_leader(record):
                log.say("writable", f"{leader} is writable")
                return record
        await asyncio.sleep(POLL_S)
    raise Unavailable(f"{leader} has the lead and did not become writable in {CHANGE_TIMEOUT_S:.0f} s")
