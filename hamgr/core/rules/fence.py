"""Never a writable server without the key. DESIGN.md 5.4."""

from __future__ import annotations

from hamgr.core.actions import ExamineCrash, Fence, StopServer
from hamgr.core.policy import KILL_BUDGET_S, STOP_BEFORE_KILL_S
from hamgr.core.reasons import Code, because
from hamgr.core.scene import Scene, Verdict
from hamgr.core.units import Instant, after

ALONE_S = 1.0
"""A link that comes back within this long costs nothing."""


def may_write(scene: Scene) -> bool:
    """The server might acknowledge a write: it runs out of recovery, or nobody can say that it does not.

    A server that is starting up by our hand as a standby is known to be in recovery (the probe reads
    standby.signal), so a slow start is not taken for an old primary.
    """
    server = scene.server
    return server.is_alive and server.in_recovery is not True


def primary_without_right(scene: Scene) -> Verdict | None:
    """A server that may write, and no right to it: kill the whole tree."""
    if not may_write(scene) or scene.may_be_primary or scene.is_foreign:
        return None
    if scene.state.cluster is not None and not scene.state.cluster.system_identifier and scene.leader is None:
        return None
    reason = because(Code.OTHER_LEADS, leader=scene.other_leader) if scene.other_leader else because(Code.NOT_ENTITLED)
    actions = () if scene.state.running(Fence) else (Fence(),)
    return Verdict(reason, actions, may_renew=False)


def remains(scene: Scene) -> Verdict | None:
    """The postmaster of a primary died: its backends may live on and acknowledge, key or no key. They are killed
    before anything else is done, above all before the key is given up.
    """
    crash = scene.state.crash
    was_primary = scene.server.written_lsn > 0 or scene.server.was_primary
    if crash is None or crash.examined_at is not None or not scene.is_server_down or not was_primary:
        return None
    return Verdict(because(Code.EXAMINING_CRASH), (ExamineCrash(scene.server.written_lsn),))


def stop_at(scene: Scene) -> Instant | None:
    """When the server has to be stopped if the lease is not renewed until then; None while it may not write.

    Every decision wakes then: the tick alone is longer than what is left after that instant.
    """
    deadline = scene.deadline
    if deadline is None or not may_write(scene):
        return None
    return after(deadline, -(KILL_BUDGET_S + STOP_BEFORE_KILL_S))


def deadline_near(scene: Scene) -> Verdict | None:
    """The lease could not be renewed: stop in order while there is time, so that replicas get the last WAL."""
    deadline, due = scene.deadline, stop_at(scene)
    if deadline is None or due is None or scene.now < due or not scene.may_be_primary:
        return None
    reason = because(Code.DEADLINE_NEAR, left_s=f"{deadline - scene.now:.1f}")
    answers = scene.server.answered
    return Verdict(reason, (StopServer(STOP_BEFORE_KILL_S),), wake_at=deadline, may_renew=answers)


def alone(scene: Scene) -> Verdict | None:
    """This host is cut off from everybody by its own doing (no link, no route): it knows that the lease cannot be
    renewed and that others will lead, so it does not acknowledge until the deadline what would be lost.
    """
    since = scene.state.alone_since
    if since is None or not scene.leads or scene.state.store_failed_at is None:
        return None
    stop_due = after(since, ALONE_S)
    if scene.now < stop_due:
        return Verdict(because(Code.ALONE), wake_at=stop_due)
    actions = (StopServer(scene.policy.primary_stop_timeout_s),) if scene.server.is_alive else ()
    return Verdict(because(Code.ALONE), actions)
