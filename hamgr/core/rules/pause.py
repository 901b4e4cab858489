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
    if scene.leads and scene.is_server_down and scene.state.crash is None:
        # Stopped by a hand-over that came to nothing: nobody else can lead while the key is held here.
        return None
    return Verdict(because(Code.PAUSED))
