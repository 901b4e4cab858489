"""Maintenance mode: no automatic change. Safety does not pause: fencing, lease and deadline stay as they are."""

from __future__ import annotations

from hamgr.core.reasons import Code, because
from hamgr.core.scene import Scene, Verdict


def _is_waited_for(scene: Scene) -> bool:
    """A failover that was asked for cannot be decided without this member's ballot."""
    is_open = scene.is_change_due and scene.state.vacancy is not None
    return scene.is_of_electorate and is_open and scene.server.is_replica


def paused(scene: Scene) -> Verdict | None:
    """While paused, only what an operator asks for by a request goes on."""
    if not scene.policy.pause:
        return None
    request = scene.view.request
    if request is not None and scene.is_change_due and (scene.holds_key or request.candidate == scene.me):
        return None
    if scene.is_server_down and scene.state.hand_over is not None and (scene.leads or scene.other_leader):
        # Stopped by a hand-over: it ends with a primary here where it came to nothing, else with a standby.
        return None
    if scene.is_server_down and scene.leads and scene.state.stopped_for_lease:
        # Not stopped by the operator: the lease could not be renewed, and the lead is its own all the same.
        return None
    if _is_waited_for(scene):
        return None
    return Verdict(because(Code.PAUSED))
