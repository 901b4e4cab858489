"""Actions on the one pool and the one load balancer of the world, as hamgr/agent/route_calls.py carries them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hamgr.core import actions
from hamgr.core.result import Outcome, Result
from hamgr.core.route_outcomes import RouteNotes
from hamgr.core.scene import Scene
from hamgr.sim.agent import Agent
from hamgr.sim.steps import Steps

PAUSE_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 1.0
DONE = Outcome(Result.DONE)


def _failed(text: str) -> Outcome:
    return Outcome(Result.FAILED, "pools", text, RouteNotes((text,)))


def hold_pools(agent: Agent, _action: actions.HoldPools) -> Steps:
    """What was paused although another leads meanwhile, or with a transaction that does not end, is resumed at once."""
    front = agent.shared.front
    yield agent.ground.draw(agent.ground.pace.sql)
    if not front.answers:
        yield CONNECT_TIMEOUT_S
        return _failed("the pool was not held: it does not answer")
    front.is_held = True
    if front.is_busy:
        yield PAUSE_TIMEOUT_S
        front.is_held = False
        return _failed("the pool was not held: a transaction did not end in time")
    scene = Scene(agent.state, agent.clock_now())
    if not (scene.leads and scene.is_settled):
        front.is_held = False
        return _failed("the pool was not held: this member does not lead any more")
    return DONE


def release_pools(agent: Agent, _action: actions.ReleasePools) -> Steps:
    yield agent.ground.draw(agent.ground.pace.sql)
    if not agent.shared.front.answers:
        yield CONNECT_TIMEOUT_S
        return _failed("the pool was not released: it does not answer")
    agent.shared.front.is_held = False
    return DONE


def push_route(agent: Agent, _action: actions.PushRoute) -> Steps:
    yield agent.ground.draw(agent.ground.pace.sql)
    agent.shared.front.routed_to = agent.name
    return Outcome(Result.DONE, value=RouteNotes(confirmed=1))


def point_pools(agent: Agent, action: actions.PointPools) -> Steps:
    yield agent.ground.draw(agent.ground.pace.sql)
    agent.shared.front.targets[agent.name] = action.target.name
    return DONE


ROUTE_CALLS: dict[type, Callable[[Agent, Any], Steps]] = {
    actions.HoldPools: hold_pools,
    actions.ReleasePools: release_pools,
    actions.PushRoute: push_route,
    actions.PointPools: point_pools,
}
