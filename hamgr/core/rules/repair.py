"""A replica on its way back to streaming: clone, start, rewind, follow. DESIGN.md 5.9."""

from __future__ import annotations

from hamgr.core import births
from hamgr.core.actions import CheckHistory, Clone, Exit, Follow, Rewind, StartStandby, StopServer, Upstream
from hamgr.core.reasons import Code, Reason, because
from hamgr.core.result import UNANSWERED
from hamgr.core.scene import Scene, Verdict, upstream_of
from hamgr.core.server import DataDir, Phase
from hamgr.core.units import Instant, after

ELECTION_TAKES_S = 5.0

STORE_MAY_ANSWER_S = 1.0

MISSED_ASKINGS = 3
"""A leader that has not asked for so many rounds is not one that leads without etcd."""

SUSPECT_AFTER_S = 1.0
"""A replica that has not streamed for this long has its history compared with the leader's."""


def unusable_data(scene: Scene) -> Verdict | None:
    """A data directory that needs a person: stay up, say why, touch nothing, and leave the lead to others."""
    if scene.server.data_dir is not DataDir.UNUSABLE or scene.state.stopping_since is not None:
        return None
    return Verdict(because(Code.UNUSABLE_DATA, problem=scene.server.problem), may_renew=not scene.leads)


def foreign_data(scene: Scene) -> Verdict | None:
    """A data directory of another cluster: never started, never touched."""
    if not scene.is_foreign:
        return None
    local, cluster = scene.server.system_identifier, scene.view.system_identifier
    if scene.state.stopping_since is not None:
        return Verdict(because(Code.STOPPED), (Exit(0),), may_renew=False)
    return Verdict(because(Code.FOREIGN_DATA, local=local, cluster=cluster), may_renew=not scene.leads)


def after_restore(scene: Scene) -> Verdict | None:
    """etcd was restored from a backup, and whom it shows leading may have done so long ago: until its key has run out,
    or somebody has become leader since, nobody is elected, and no WAL is given up for what it lacks.
    """
    reset = scene.state.reset
    if reset is None or not scene.view.system_identifier or scene.now >= reset.until:
        return None
    why = "etcd was restored from a backup, and whom it shows leading is waited for"
    return Verdict(because(Code.WAIT_LEADER, why=why), wake_at=reset.until)


def clone(scene: Scene) -> Verdict | None:
    """No data yet (or what there is cannot be mended): copy it from the leader."""
    has_none = scene.server.data_dir in (DataDir.EMPTY, DataDir.UNFINISHED)
    may_not_rewind = scene.state.diverged and not scene.policy.use_pg_rewind
    if not has_none and not scene.state.must_clone and not may_not_rewind and not births.has_forked(scene):
        return None
    source = _clone_source(scene)
    if source is None and (scene.server.is_alive or (not has_none and not scene.other_leader)):
        # Unfit for the leader that it had, and perhaps the only one left: the election's limits judge that.
        return None
    if source is None:
        return Verdict(because(Code.WAIT_LEADER, why="there is no primary to copy the data from"))
    if scene.server.is_alive:
        return _when_ready(scene, because(Code.DIVERGED, leader=source.name), StopServer(_stop_budget(scene)))
    # Unfinished may be a rewind that was cut short: what it left is a cluster, and no more to be started.
    keep_aside = scene.server.data_dir is not DataDir.EMPTY
    return _when_ready(scene, because(Code.CLONING, source=source.name), Clone(source, keep_aside))


def start(scene: Scene) -> Verdict | None:
    """The server is down and somebody else leads, or nobody: it starts as a standby, or is rewound first."""
    if not scene.is_server_down or scene.leads:
        return None
    leader = scene.upstream
    if scene.state.diverged and scene.other_leader:
        if not _is_primary_ready(scene):
            return Verdict(because(Code.WAIT_LEADER, why=f"{leader.name} is not a primary yet"))
        return _when_ready(scene, because(Code.REWINDING, leader=leader.name), Rewind(leader))
    needs_check = _may_have_diverged(scene)
    if needs_check and leader.name and not _can_be_asked(scene):
        if scene.server.was_primary:
            return Verdict(because(Code.WAIT_LEADER, why=f"{leader.name} is not a primary yet"))
        # It serves reads meanwhile, and is compared before it streams.
        return _when_ready(scene, because(Code.STARTING_STANDBY, leader="nobody yet"), StartStandby(Upstream()))
    if needs_check and not leader.name and (wait_until := _election_ends_by(scene)) is not None:
        return Verdict(because(Code.WAIT_LEADER, why="an election is on"), wake_at=wait_until)
    action = StartStandby(leader, check_history=needs_check and bool(leader.host))
    return _when_ready(scene, because(Code.STARTING_STANDBY, leader=leader.name or "nobody yet"), action)


def _can_be_asked(scene: Scene) -> bool:
    """The leader runs as a primary; and a replica that it did not answer, or let in, makes its next try by itself."""
    failure = scene.state.failure(StartStandby.__name__)
    was_silent = failure is not None and failure.code == UNANSWERED
    return _is_primary_ready(scene) and (not was_silent or scene.server.was_primary)


def start_without_store(scene: Scene) -> Verdict | None:
    """etcd does not answer and this member's server is down: it starts as a standby, for it to serve reads. It streams
    from whomever it followed only while a leader asks for its promise, and only as a replica: else whoever is at that
    address may have another timeline of the same number by now.
    """
    state = scene.state
    is_lost = state.cluster is None or not state.lease.lease_id
    if state.store_failed_at is None or not is_lost or scene.may_be_primary or state.stopping_since is not None:
        return None
    if not scene.is_server_down or scene.server.data_dir is not DataDir.VALID or state.crash is not None:
        return None
    wait_until = after(state.store_failed_at, STORE_MAY_ANSWER_S)
    if scene.now < wait_until:
        return Verdict(because(Code.STORE_DOWN, error=state.store_error), wake_at=wait_until)
    if scene.server.was_primary or scene.now >= _asked_lately(scene):
        return _when_ready(scene, because(Code.STARTING_STANDBY, leader="nobody yet"), StartStandby(Upstream()))
    return _when_ready(scene, because(Code.STARTING_STANDBY, leader="whom it followed before"), StartStandby(None))


def leave_without_store(scene: Scene) -> Verdict | None:
    """Nobody says whom to follow, and the stream has ended: whom it followed may be back with the data of another
    primary, under the same timeline, before this member hears of that one.
    """
    if not _is_left_alone(scene) or not scene.server.upstream:
        return None
    return _when_ready(scene, because(Code.LEFT_ALONE), Follow(Upstream()))


def _is_left_alone(scene: Scene) -> bool:
    """etcd does not answer, no leader asks for a promise, and the server is a replica that does not stream."""
    state, server = scene.state, scene.server
    if state.store_failed_at is None or not server.is_replica or server.streaming or scene.policy.pause:
        return False
    return scene.now >= max(after(state.store_failed_at, STORE_MAY_ANSWER_S), _asked_lately(scene))


def _asked_lately(scene: Scene) -> Instant:
    """Until when a leader without etcd, which asks for promises as often as it would renew, counts as one that asks."""
    promised_until, policy = scene.state.promised_until, scene.policy
    if promised_until is None:
        return Instant(0.0)
    return after(promised_until, MISSED_ASKINGS * policy.renew_interval_s - policy.ttl_s)


def _election_ends_by(scene: Scene) -> Instant | None:
    """While others elect, a former primary waits: to start now and to be rewound then would take longer."""
    vacancy = scene.state.vacancy
    if vacancy is None or not any(m.state == "running" and m.name != scene.me for m in scene.view.members):
        return None
    ends_by = after(vacancy.since, ELECTION_TAKES_S)
    return ends_by if scene.now < ends_by else None


def follow(scene: Scene) -> Verdict | None:
    """A running replica streams from the leader; one that does not is pointed there, or examined."""
    server = scene.server
    leader = scene.upstream
    if not server.is_replica or not leader.host or scene.leads:
        return None
    if scene.state.diverged:
        return _when_ready(scene, because(Code.DIVERGED, leader=leader.name), StopServer(_stop_budget(scene)))
    is_proven = births.is_of_leaders_history(scene)
    if is_proven and server.upstream == leader.address:
        return _streaming(scene, leader)
    if server.upstream or scene.state.failure(Follow.__name__) is not None:
        # What it still receives is not part of what was proven, or will be compared. A receiver that was told to end
        # when that failed may be there yet.
        return _when_ready(scene, because(Code.LEAVING, leader=leader.name), Follow(Upstream()))
    if not is_proven:
        return _compare(scene, leader)
    if _is_left_alone(scene):
        return Verdict(because(Code.LEFT_ALONE))
    return _when_ready(scene, because(Code.REDIRECTING, leader=leader.name), Follow(leader))


def _compare(scene: Scene, leader: Upstream) -> Verdict:
    """It may hold what only a former primary has written: a timeline of the same number as the leader's may be another
    one, and the server itself would not notice.
    """
    if not _is_primary_ready(scene):
        return Verdict(because(Code.WAIT_LEADER, why=f"{leader.name} is not a primary yet"))
    return Verdict(because(Code.NOT_STREAMING, leader=leader.name), (CheckHistory(leader),))


def _streaming(scene: Scene, leader: Upstream) -> Verdict:
    """It is pointed at the leader, and streams, or is examined after a while."""
    if scene.server.streaming:
        return Verdict(because(Code.FOLLOWING, leader=leader.name))
    reason = because(Code.NOT_STREAMING, leader=leader.name)
    since = scene.state.not_streaming_since
    if since is None or not _is_primary_ready(scene):
        return Verdict(reason)
    suspect_at = max(after(since, SUSPECT_AFTER_S), scene.retry_at(CheckHistory))
    if scene.now < suspect_at:
        return Verdict(reason, wake_at=suspect_at)
    return Verdict(reason, (CheckHistory(leader),))


def _may_have_diverged(scene: Scene) -> bool:
    """WAL that nobody else has may be on this disk: it was a primary that did not hand over, or may have streamed from
    one.
    """
    control, handed = scene.server.control, scene.state.hand_over
    if control is None:
        return False
    if handed is not None and handed.offered_at is not None and control.was_shut_down_cleanly:
        return False
    return scene.server.was_primary or (bool(scene.upstream.name) and not births.is_of_leaders_history(scene))


def _is_primary_ready(scene: Scene) -> bool:
    member = scene.leader_member
    return member is not None and member.role == "primary" and member.state == "running"


def _clone_source(scene: Scene) -> Upstream | None:
    """A running replica tagged `clonefrom`, else the leader's primary; None while there is neither.

    Whoever may be elected is copied from the leader alone: a replica may lag, and its copy would vote as if it held
    every acknowledged commit.
    """
    if not _is_primary_ready(scene):
        return None
    donors = (m for m in scene.view.members if m.tags.clonefrom and m.state == "running" and m.name != scene.me)
    donor = scene.leader_member if scene.is_of_electorate else next(donors, scene.leader_member)
    return upstream_of(donor) if donor else None


def _stop_budget(scene: Scene) -> float:
    return scene.policy.primary_stop_timeout_s


def _when_ready(scene: Scene, reason: Reason, action: Clone | Follow | Rewind | StartStandby | StopServer) -> Verdict:
    """The action, unless it failed a moment ago: then the reason of that, and the time of the next try."""
    retry_at = scene.retry_at(type(action))
    if scene.now >= retry_at:
        return Verdict(reason, (action,))
    failure = scene.state.failure(type(action).__name__)
    text = failure.text if failure else ""
    waiting = because(Code.BACKING_OFF, left_s=f"{retry_at - scene.now:.1f}", text=text)
    return Verdict(waiting, wake_at=retry_at)


def settle(scene: Scene) -> Verdict | None:
    """Nothing to mend: the server starts, or runs without a leader to follow."""
    if scene.server.phase is Phase.STARTING:
        return Verdict(because(Code.SERVER_STARTING))
    why = "nobody leads" if not scene.other_leader else f"{scene.other_leader} has not announced its address"
    return Verdict(because(Code.WAIT_LEADER, why=why))
