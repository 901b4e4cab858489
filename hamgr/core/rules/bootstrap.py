"""A cluster that does not exist yet: one member makes it, the others wait. DESIGN.md 5.11 and 7."""

from __future__ import annotations

from hamgr.core.actions import FinishInitialize, InitDb, Promote, StartPrimary, TakeInitialize
from hamgr.core.policy import HOPELESS_AFTER
from hamgr.core.reasons import Code, because
from hamgr.core.rules.election import COLD_WINDOW_S
from hamgr.core.scene import Scene, Verdict
from hamgr.core.server import DataDir
from hamgr.core.units import Instant, after


def initialize(scene: Scene) -> Verdict | None:
    """No system identifier is entered: race for making the cluster, or finish making it."""
    if scene.view.system_identifier:
        return None
    if scene.other_leader:
        return Verdict(because(Code.WAIT_INITIALIZE, leader=scene.other_leader))
    if not scene.holds_key:
        return _race(scene)
    return _make(scene)


def _race(scene: Scene) -> Verdict:
    if scene.view.leader is not None or not scene.state.me.tags.may_lead:
        return Verdict(because(Code.WAIT_LEADER, why="nobody has made the cluster yet"))
    if why := _why_wait(scene):
        return Verdict(because(Code.WAIT_LEADER, why=why))
    due_at = _due_at(scene)
    if scene.now < due_at:
        why = "etcd may have lost a cluster whose primary still runs: that one goes first"
        return Verdict(because(Code.WAIT_LEADER, why=why), wake_at=due_at)
    retry_at = scene.retry_at(TakeInitialize)
    actions = (TakeInitialize(),) if scene.now >= retry_at else ()
    return Verdict(because(Code.INITIALIZING), actions, wake_at=retry_at)


def _why_wait(scene: Scene) -> str:
    """What stands against this member's making the cluster; empty: nothing. Others announce what data they have."""
    server, lost = scene.server, scene.state.reset
    if lost is not None and server.system_identifier != lost.system_identifier:
        return "etcd has lost a cluster, and this member has none of its data"
    if server.data_dir is DataDir.VALID and not _was_primary(scene):
        return "this member has a replica's data, its primary must join first"
    if lost is not None and lost.led:
        return ""
    ahead = [member.name for member in scene.view.members if member.timeline > server.timeline]
    if not ahead:
        return ""
    if server.data_dir is DataDir.VALID:
        return f"{ahead[0]} has data of a later timeline, its primary must join first"
    return f"{ahead[0]} has data and this member has none: its primary must join first, or its data be moved away"


def _due_at(scene: Scene) -> Instant:
    """A primary of a cluster that etcd has lost may still run. One that has stopped waits until its lease is over, and
    whoever promised it to wait does so.
    """
    state = scene.state
    if state.reset is not None and state.reset.led:
        return Instant(0.0)
    promised, since = state.promised_until or Instant(0.0), state.unmade_since
    if since is None or scene.server.data_dir is not DataDir.VALID or scene.server.is_alive:
        return promised
    return Instant(max(promised, after(since, max(COLD_WINDOW_S, scene.policy.ttl_s))))


def _was_primary(scene: Scene) -> bool:
    """Only a primary's data may become the cluster: a replica's could lack what the primary acknowledged."""
    server = scene.server
    if server.is_alive:
        return server.is_primary
    return server.was_primary


def heirs_at_birth(scene: Scene) -> tuple[str, ...]:
    """Other members that are up and could make the cluster."""
    return tuple(m.name for m in scene.view.members if m.name != scene.me and m.tags.may_lead)


def _make(scene: Scene) -> Verdict:
    term = scene.view.term
    server = scene.server
    reason = because(Code.INITIALIZING)
    if server.data_dir in (DataDir.EMPTY, DataDir.UNFINISHED):
        retry_at = scene.retry_at(InitDb)
        failure = scene.state.failure(InitDb.__name__)
        # Left to run out, lease and `initialize` go, and another member may have more luck.
        is_hopeless = failure is not None and failure.count >= HOPELESS_AFTER and bool(heirs_at_birth(scene))
        actions = (InitDb(),) if scene.now >= retry_at and not is_hopeless else ()
        return Verdict(reason, actions, wake_at=retry_at, may_renew=not is_hopeless)
    if scene.is_server_down:
        retry_at = scene.retry_at(StartPrimary)
        return Verdict(reason, (StartPrimary(term),) if scene.has_time else (), wake_at=retry_at)
    if not server.is_primary:
        return Verdict(because(Code.SERVER_STARTING))
    if scene.state.verified_term != term:
        return Verdict(reason, (Promote(term),))
    return Verdict(reason, (FinishInitialize(server.system_identifier),))
