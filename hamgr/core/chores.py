"""What is kept up beside the one thing that is being decided: announcements, slots, records, configuration.

Chores never touch the server's role, and none of them is needed for safety.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hamgr.core import logical
from hamgr.core.actions import (
    AFTER_PROMOTION,
    Action,
    ApplyConfig,
    Checkpoint,
    EnsureSentry,
    EnsureSlots,
    GrantLease,
    PutHistory,
    PutMember,
    PutRecord,
    PutRoster,
    PutStatus,
    PutSync,
    SetSync,
)
from hamgr.core.births import keep_birth
from hamgr.core.budget import budget_by_stage
from hamgr.core.cluster import HistoryLine, Member, Status, SyncState
from hamgr.core.pipeline import record_of
from hamgr.core.portrait import server_role, server_state
from hamgr.core.quorum import next_step
from hamgr.core.route_chores import keep_routes
from hamgr.core.rules.lease import new_lease, settle_move, twin
from hamgr.core.rules.switchover import prepares_for
from hamgr.core.scene import Scene
from hamgr.core.server import DataDir, Phase
from hamgr.core.slotnames import slot_name
from hamgr.core.synchronous import first_rule, rule_of, wanted_rule
from hamgr.core.units import Instant, Lsn, Term, Timeline, WallTime, after

ROSTER_PATIENCE_S = 10.0
"""For so long at least a member may be away and still be counted on."""

IDLE_STATUS_S = 10.0
IDLE_BYTES = 8192
"""A position that moved by less is written every IDLE_STATUS_S only; a busy server moves by more within a loop_wait."""

SLOTS_CHECK_S = 30.0
SENTRY_CHECK_S = 5.0
HISTORY_LINES = 100

Chore = Callable[[Scene, str], Iterator[Action | Instant]]
"""Yields actions, and instants at which one will be due. `decide` holds back what failed a moment ago."""


def keep_lease(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """Whoever leads by its peers needs a lease again once etcd is back, for the key to hang on. Whoever has one that is
    not of the ttl that holds now needs another.
    """
    if scene.leads_by_peers and not scene.state.lease.lease_id:
        yield GrantLease(scene.policy.ttl_s)
    for action in (new_lease(scene), settle_move(scene)):
        if action is not None:
            yield action


def announce(scene: Scene, note: str) -> Iterator[Action | Instant]:
    """Our member key says what we are; it is written when that changes, not when only the position does."""
    if not scene.state.lease.lease_id or scene.state.cluster is None or twin(scene) is not None:
        return
    present = scene.view.member(scene.me)
    lease_id = scene.state.lease.lease_id
    if present is not None and present == _member(
        scene, note, present.xlog_location, lease_id=lease_id, mod_revision=present.mod_revision
    ):
        return
    server = scene.server
    is_primary = server.is_primary and scene.leads
    yield PutMember(_member(scene, note, server.written_lsn if is_primary else server.received_lsn))


def _member(scene: Scene, note: str, xlog_location: Lsn, *, lease_id: int = 0, mod_revision: int = 0) -> Member:
    me, server = scene.state.me, scene.server
    return Member(
        name=me.name,
        conn_url=me.conn_url,
        api_url=me.api_url,
        state=server_state(scene.state),
        role=server_role(server),
        version=me.version,
        server_version=server.server_version,
        timeline=Timeline(0) if scene.is_foreign else server.timeline,
        timeline_term=Term(0) if scene.is_foreign else server.timeline_term,
        xlog_location=xlog_location,
        replication_state="streaming" if server.is_replica and server.streaming else "",
        tags=me.tags,
        pending_restart=server.pending_restart,
        ready_for=scene.state.prepared_for,
        note=note,
        ill=",".join(sorted(illness.vital.value for illness in scene.state.illnesses)),
        lease_id=lease_id,
        mod_revision=mod_revision,
    )


def keep_status(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """The leader's position, at most once per loop_wait and only when it moved: seldom where it hardly did, since the
    commits that show whether a server is well move it, too.
    """
    server = scene.server
    if not server.is_primary:
        return
    status = Status(
        server.written_lsn,
        server.timeline,
        _positions(scene),
        lost_slots=logical.lost(scene),
        timeline_term=server.timeline_term,
    )
    present = scene.view.status
    if present == status:
        return
    pause_s = scene.policy.loop_wait_s
    if _hardly_moved(present, status):
        pause_s = max(pause_s, IDLE_STATUS_S)
    yield _once_in(pause_s, scene.state.status_written_at, PutStatus(status), scene.now)


def _hardly_moved(old: Status, new: Status) -> bool:
    if _apart_from_positions(old) != _apart_from_positions(new):
        return False
    moves = [new.optime - old.optime, *(lsn - old.slots[name] for name, lsn in new.slots.items())]
    return all(abs(move) < IDLE_BYTES for move in moves)


def _apart_from_positions(status: Status) -> tuple[object, ...]:
    return status.timeline, status.timeline_term, status.slots.keys(), status.lost_slots


def _once_in(pause_s: float, last_at: Instant | None, action: Action, now: Instant) -> Action | Instant:
    """The action, or the instant at which `pause_s` seconds will have passed since it was carried out last."""
    due = Instant(0.0) if last_at is None else after(last_at, pause_s)
    return action if now >= due else due


def _positions(scene: Scene) -> dict[str, Lsn]:
    """By slot: what the standby has flushed where it streams, else what the slot holds or its consumer confirmed."""
    flushed = {slot_name(sender.application_name): sender.flush_lsn for sender in scene.server.walsenders}
    return {**scene.server.failover_slots, **scene.server.slots, **{name: lsn for name, lsn in flushed.items() if lsn}}


def keep_roster(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """The leader enters whoever is up, at once, and takes out whoever has been gone for long: only who is entered may
    campaign, and each of them has to promise not to when etcd is gone.
    """
    if scene.state.verified_term != scene.view.term or _lasts_by_peers(scene):
        return
    roster = dict(scene.view.roster)
    present = {member.name: member.api_url for member in scene.view.members if member.api_url}
    # Itself also where its own key is not there: once it is lost it could not be elected again.
    own = {scene.me: scene.state.me.api_url} if scene.state.me.api_url else {}
    wanted = {**roster, **present, **own}
    for name, since in scene.state.absent_since:
        gone_at = after(since, max(ROSTER_PATIENCE_S, 2 * scene.policy.ttl_s))
        if name == scene.me:
            continue
        if scene.now >= gone_at:
            wanted.pop(name, None)
        else:
            yield gone_at
    if scene.me in wanted and wanted != roster:
        yield PutRoster(wanted, scene.view.roster_revision)


def _lasts_by_peers(scene: Scene) -> bool:
    """Its peers' promises last longer than its lease. Whoever was entered meanwhile would have promised nothing."""
    lease = scene.state.lease
    if lease.peer_deadline is None:
        return False
    return lease.deadline is None or lease.deadline < lease.peer_deadline


def keep_sync(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """Synchronous rule and electorate move towards what suits the standbys that stream, one safe step at a time. None
    is taken from a remembered electorate: an earlier agent of this member may have changed it in etcd since.
    """
    view, server = scene.view, scene.server
    if not server.is_primary or scene.state.verified_term != view.term or scene.state.is_recalled:
        return
    present = view.sync if view.sync is not None else SyncState()
    if scene.policy.synchronous_mode == "off":
        # Not by a configuration of which a part cannot be read: that part may say that the mode is on.
        if not scene.state.policy_is_broken:
            yield from _end_sync(scene, present)
        return
    in_force = scene.state.sync
    rule = rule_of(server.sync_names)
    if rule is None:
        yield SetSync(first_rule(scene))
        return
    has_caught_up = in_force is not None and in_force.names == server.sync_names and in_force.has_caught_up
    step = next_step(rule, present, wanted_rule(scene), leader=scene.me, has_caught_up=has_caught_up)
    if isinstance(step, SyncState):
        yield PutSync(step, present.mod_revision)
    elif step is not None and _is_sync_unsettled(scene):
        # Written afresh: what was sent before is void. Else the electorate might not be the one that the rule suits.
        yield PutSync(present, present.mod_revision)
    elif step is not None:
        yield SetSync(step)


def _is_sync_unsettled(scene: Scene) -> bool:
    """An electorate was sent, and nobody knows whether it is in force."""
    sent = scene.state.failure(PutSync.__name__)
    return sent is not None and sent.code != "compare"


def _end_sync(scene: Scene, present: SyncState) -> Iterator[Action | Instant]:
    """The mode was turned off: commits wait for whom the configuration names, then the electorate is forgotten."""
    if present.leader and not scene.state.sync_given_up:
        yield SetSync(None)
    elif present.leader:
        yield PutSync(SyncState(), present.mod_revision)


def keep_sentry(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """The last line of the deadline, for when neither guard nor agent is left. Looked after now and then, since one may
    hang without having gone. A promotion waits for it, so it is begun on every replica that may be promoted soon; where
    that does not come to pass it ends by itself.
    """
    if not (scene.leads and scene.server.is_primary) and not _may_soon_be_promoted(scene):
        return
    pause_s = SENTRY_CHECK_S if scene.server.has_sentry else 1.0
    yield _once_in(pause_s, scene.state.sentry_checked_at, EnsureSentry(), scene.now)


def _may_soon_be_promoted(scene: Scene) -> bool:
    view, server = scene.state.cluster, scene.server
    if view is None or server.phase is not Phase.RUNNING or server.in_recovery is not True:
        return False
    request = view.request
    is_asked = request is not None and request.candidate in ("", scene.me) and request.scheduled_at is None
    return view.leader is None or (is_asked and bool(scene.other_leader))


def keep_slots(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """A physical slot on the primary for every other member, and the declared logical ones."""
    if not scene.server.is_primary or not scene.policy.use_slots:
        return
    others = tuple(sorted(member.name for member in scene.view.members if member.name != scene.me))
    is_missing = any(slot_name(name) not in scene.server.slots for name in others)
    made, lost = logical.missing(scene), tuple(logical.lost(scene))
    # What cannot be made (a database that is not there) is told now and then, not each second.
    is_missing |= bool(made) and scene.state.failure(EnsureSlots.__name__) is None
    pause_s = 1.0 if is_missing else SLOTS_CHECK_S
    yield _once_in(pause_s, scene.state.slots_ensured_at, EnsureSlots(others, made, lost), scene.now)


def keep_config(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """The dynamic configuration, put in force whenever another revision of it was read."""
    if scene.state.policy_revision < 0 or scene.server.data_dir is not DataDir.VALID:
        return
    if scene.server.phase is Phase.RUNNING and scene.state.applied_revision != scene.state.policy_revision:
        yield ApplyConfig(scene.state.policy_revision)


def keep_record(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """The record of the change that made us leader: once it is writable, and again when there is more to tell.

    Where the server ended before that, what was at risk is written down all the same: the next leader's record tells
    only of what that one lacks of this one's WAL.
    """
    passage, crash = scene.state.passage, scene.state.crash
    if passage is None:
        return
    ended_at = crash.at if crash is not None and passage.term == scene.view.term else None
    known_at = passage.writable_at if passage.writable_at is not None else ended_at
    if known_at is None:
        return
    has_more = passage.routed_at is not None and not passage.recorded_routed
    if not passage.recorded or has_more or len(passage.notes) != passage.recorded_notes:
        ahead_s = scene.state.wall_ahead_s
        at = WallTime(0.0) if ahead_s is None else WallTime(known_at + ahead_s)
        yield PutRecord(record_of(passage, scene.me, at, budget_by_stage(scene.policy, passage.cause)))


def keep_history(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """One line for the timeline that ended with our promotion, as Patroni writes it."""
    passage = scene.state.passage
    if passage is None or passage.writable_at is None or passage.timeline <= 1:
        return
    ended = passage.timeline - 1
    if passage.in_history or any(line.timeline == ended for line in scene.view.history):
        return
    line = HistoryLine(type(passage.timeline)(ended), Lsn(passage.lsn), passage.cause, "", scene.me)
    lines = (*scene.view.history, line)[-HISTORY_LINES:]
    yield PutHistory(lines, scene.view.history_revision)


def checkpoint_promoted(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """Once, after a promotion: the former leader's rewind waits for it."""
    passage = scene.state.passage
    if passage is not None and passage.writable_at is not None and not passage.checkpointed:
        yield Checkpoint(AFTER_PROMOTION)


def prepare(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """A replica that may be handed the lead checkpoints while the leader still serves."""
    revision = prepares_for(scene)
    if revision:
        yield Checkpoint(revision)


CHORES: tuple[Chore, ...] = (
    keep_lease,
    announce,
    keep_birth,
    keep_sentry,
    keep_config,
    prepare,
    logical.drop_former,
    keep_routes,
)
"""Of every member."""

LEADERS_CHORES: tuple[Chore, ...] = (
    *CHORES,
    keep_status,
    keep_roster,
    keep_sync,
    keep_slots,
    logical.await_standbys,
    keep_record,
    keep_history,
    checkpoint_promoted,
)
"""Of whoever holds the leader key."""
