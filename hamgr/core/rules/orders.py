"""What an operator ordered this member to do: restart, reinitialize."""

from __future__ import annotations

from hamgr.core import births
from hamgr.core.actions import Lane, Reinitialize, RestartServer, Upstream
from hamgr.core.reasons import Code, because
from hamgr.core.scene import Scene, Verdict, upstream_of
from hamgr.core.state import Order


def restart(scene: Scene) -> Verdict | None:
    """Restart the running server in the role that it has."""
    order = _first(scene, "restart")
    if order is None or not (scene.server.is_primary or scene.server.is_replica):
        return None
    leads = scene.leads and scene.server.is_primary
    follows = not leads and births.is_of_leaders_history(scene)
    action = RestartServer(
        order_id=order.order_id,
        stop_budget_s=scene.policy.primary_stop_timeout_s,
        as_primary_in=scene.view.term if leads else None,
        upstream=scene.upstream if follows else Upstream(),
    )
    return Verdict(because(Code.ORDER, kind="restart"), (action,))


def reinitialize(scene: Scene) -> Verdict | None:
    """Throw the replica's data away and copy it anew, from a running primary only. Until there is one the order
    waits, and this member takes part in electing it.
    """
    order = _first(scene, "reinitialize")
    if order is None or scene.leads or scene.state.is_busy(Lane.LEADERSHIP):
        return None
    leader = scene.leader_member
    if leader is None or leader.role != "primary" or leader.state != "running":
        return None
    return Verdict(because(Code.ORDER, kind="reinitialize"), (Reinitialize(order.order_id, upstream_of(leader)),))


def _first(scene: Scene, kind: str) -> Order | None:
    return next((order for order in scene.state.orders if order.kind == kind), None)
