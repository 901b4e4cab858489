"""Maintenance mode: no automatic change. Safety does not pause: fencing, lease and deadline stay as they are."""

from __future__ import annotations

from hamgr.core.reasons import Code, because
from hamgr.core.scene import Scene, Verdict


def paused(scene: Scene) -> Verdict | None:
    """While paused, only what an operator asks for by a request goes on."""
    if not scene.policy.pause:
        return None
    request = scene.view.request
    if request is not None and (scene.holds_key or request.candidate == scene.me):
        return None
    return Verdict(because(Code.PAUSED))
