"""Clients find the leader: poolers and load balancers are told who it is, and what was held is let go. DESIGN.md 5.5.

By level: whoever leads and was seen to accept writes has released the pools, whoever had them held.
"""

from __future__ import annotations

from collections.abc import Iterator

from hamgr.core.cluster import Member
from hamgr.core.lanes import Upstream
from hamgr.core.route_actions import PointPools, PushRoute, ReleasePools
from hamgr.core.routes import Routes
from hamgr.core.scene import Scene, upstream_of

NO_ROUTES = Routes()


def _is_seen_to_write(scene: Scene) -> bool:
    return scene.leads and scene.server.is_primary and scene.state.verified_term == scene.view.term


def push_route(scene: Scene, _note: str) -> Iterator[PushRoute]:
    """The load balancers know of each verification of this leader."""
    state = scene.state
    if not state.me.routes.balancers or not _is_seen_to_write(scene) or state.pushed_at == state.verified_at:
        return
    known = {member.name for member in scene.view.members} | set(scene.view.roster)
    yield PushRoute(scene.view.term, state.verified_at, tuple(sorted(known - {scene.me})))


def point_pools(scene: Scene, _note: str) -> Iterator[PointPools]:
    """Pools whose target file is on this host lead to whoever holds the leader key and says that it accepts writes."""
    if not scene.state.me.routes.targets:
        return
    target = _target(scene)
    if target is not None and target != scene.state.pointed_at:
        yield PointPools(target)


def _target(scene: Scene) -> Upstream | None:
    """None while nobody is known to accept writes: the pools stay where they are."""
    if _is_seen_to_write(scene):
        return upstream_of(Member(scene.me, scene.state.me.conn_url))
    member = scene.leader_member
    if member is None or member.role != "primary":
        return None
    found = upstream_of(member)
    return found if found.host else None


def release_pools(scene: Scene, _note: str) -> Iterator[ReleasePools]:
    """No pool waits while there is a primary to be sent to, whoever had it held. While something is done with the
    server, a promotion or the stop that the pools are held for, `decide` starts nothing of this.
    """
    state = scene.state
    if state.me.routes.pools and scene.leads and scene.server.is_primary and state.released_at != state.verified_at:
        yield ReleasePools(scene.view.term, state.verified_at)


def keep_routes(scene: Scene, note: str) -> Iterator[PushRoute | PointPools | ReleasePools]:
    """All of this; most members have nothing of it."""
    if scene.state.me.routes != NO_ROUTES:
        yield from push_route(scene, note)
        yield from point_pools(scene, note)
        yield from release_pools(scene, note)
