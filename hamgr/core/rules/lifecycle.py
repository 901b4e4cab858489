"""How an agent ends: replaced by a fresh one, or in order with its server. DESIGN.md 7, signals."""

from __future__ import annotations

from hamgr.core.actions import BEFORE_STOP, Checkpoint, Exit, Fence, HandOverStop, HoldPools, ReleaseLeader, StopServer
from hamgr.core.reasons import Code, because
from hamgr.core.rules.lead import heirs, held_since
from hamgr.core.rules.switchover import after_stop
from hamgr.core.scene import Scene, Verdict
from hamgr.core.server import Phase
from hamgr.core.units import Instant, after

EXIT_REPLACE = 75
LOOK_S = 5.0
"""How long an agent that is to end waits for the first look at the server, which may be running."""
JUST_RENEWED_S = 0.1


def replaced(scene: Scene) -> Verdict | None:
    """SIGUSR2: end right after a renewal, so that the fresh agent has nearly the whole ttl for its start."""
    ordered_at = scene.state.replace_ordered_at
    if ordered_at is None:
        return None
    deadline, policy = scene.state.lease.deadline, scene.policy
    wait_until = after(ordered_at, 2 * policy.renew_interval_s)
    is_fresh = deadline is None or deadline - scene.now > policy.ttl_s - policy.margin_s - JUST_RENEWED_S
    if not is_fresh and scene.now < wait_until:
        return Verdict(because(Code.REPLACED), wake_at=wait_until)
    return Verdict(because(Code.REPLACED), (Exit(EXIT_REPLACE),))


def stop_without_store(scene: Scene) -> Verdict | None:
    """SIGTERM before etcd was ever read, or without a lease: nothing to hand over."""
    if scene.state.stopping_since is None or (scene.state.cluster is not None and scene.state.lease.lease_id):
        return None
    return _stop_and_exit(scene)


def stop(scene: Scene) -> Verdict | None:
    """SIGTERM: hand over if somebody can take the lead, stop the server, give up the key, exit."""
    if scene.state.stopping_since is None:
        return None
    if not scene.holds_key:
        return _stop_and_exit(scene)
    ended = scene.state.hand_over
    if scene.is_server_down and ended is not None and ended.end_lsn is not None and not ended.aborted:
        if heirs(scene):
            return after_stop(scene, ended, cause="shutdown")
    elif scene.server.is_primary and heirs(scene):
        return _hand_over(scene)
    if scene.is_server_down:
        return Verdict(because(Code.RELEASING), (ReleaseLeader(scene.view.term, held_since(scene)),))
    return _stop_and_exit(scene)


def _hand_over(scene: Scene) -> Verdict:
    """The checkpoint comes first: meanwhile clients still write. An ill server would not get to its end."""
    state = scene.state
    if not state.is_ready_to_stop and state.illness() is None:
        return Verdict(because(Code.STOPPING), (Checkpoint(BEFORE_STOP),))
    if state.me.routes.pools and state.held_for != 0:
        return Verdict(because(Code.STOPPING), (HoldPools(0),))
    return Verdict(because(Code.STOPPING), (HandOverStop(0, "", scene.policy.primary_stop_timeout_s),))


def _stopping_since(scene: Scene) -> Instant:
    return scene.now if scene.state.stopping_since is None else scene.state.stopping_since


def _stop_and_exit(scene: Scene) -> Verdict:
    if scene.server.phase is Phase.UNKNOWN and scene.now < after(_stopping_since(scene), LOOK_S):
        return Verdict(because(Code.STARTING), may_renew=False)
    if not scene.server.is_alive:
        return Verdict(because(Code.STOPPED), (Exit(0),), may_renew=False)
    failed = scene.state.failure(StopServer.__name__)
    action = Fence() if failed else StopServer(scene.policy.primary_stop_timeout_s)
    return Verdict(because(Code.STOPPING), (action,))
