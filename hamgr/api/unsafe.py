"""POST, PUT, PATCH and DELETE: what an operator orders, checked and handed to the agent."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote

from hamgr.api.orders import (
    claim_of,
    failover_of,
    parse_object,
    reinitialize_options,
    restart_options,
    switchover_of,
    why_not_restart,
)
from hamgr.api.port import AgentPort, Answer
from hamgr.core.units import WallTime

ACCEPTED = "Accepted"
MEMBER_HEADER = "X-Hamgr-Member"
"""Names the member that promises: who asks must not take one member's promise for another's."""

Handler = Callable[[AgentPort, bytes], Awaitable[Answer]]


async def _switchover(port: AgentPort, raw: bytes) -> Answer:
    request = switchover_of(parse_object(raw, may_be_empty=False), WallTime(time.time()))
    is_paused = port.snapshot().state.policy.pause
    if is_paused and request.scheduled_at is not None:
        return Answer(400, "Can't schedule switchover in the paused state")
    if is_paused and not request.candidate:
        return Answer(400, "Switchover is possible only to a specific candidate in a paused state")
    return await port.switchover(request)


async def _failover(port: AgentPort, raw: bytes) -> Answer:
    return await port.switchover(failover_of(parse_object(raw, may_be_empty=False), WallTime(time.time())))


async def _failsafe(port: AgentPort, raw: bytes) -> Answer:
    state = port.snapshot().state
    if not state.policy.failsafe_mode:
        return Answer(502, "failsafe_mode is off")
    promise = port.promise(claim_of(parse_object(raw, may_be_empty=False)))
    mark = {MEMBER_HEADER: member_mark(port.scope, state.me.name)}
    if promise.until is None:
        return Answer(500, promise.why, headers=mark)
    received = state.server.written_lsn if state.server.is_primary else state.server.received_lsn
    return Answer(200, ACCEPTED, headers={**mark, "lsn": str(int(received))})


def member_mark(scope: str, name: str) -> str:
    """Who answers, in a form that a header can hold."""
    return quote(f"{scope}/{name}")


async def _cancel_switchover(port: AgentPort, raw: bytes) -> Answer:
    return await port.cancel_switchover()


async def _restart(port: AgentPort, raw: bytes) -> Answer:
    options = restart_options(parse_object(raw, may_be_empty=True))
    if reason := why_not_restart(options, port.snapshot().state.server):
        return Answer(503, f"restart conditions are not satisfied: {reason}")
    return await port.order("restart", options)


async def _reinitialize(port: AgentPort, raw: bytes) -> Answer:
    return await port.order("reinitialize", reinitialize_options(parse_object(raw, may_be_empty=True)))


async def _reload(port: AgentPort, raw: bytes) -> Answer:
    return await port.reload()


async def _patch_config(port: AgentPort, raw: bytes) -> Answer:
    return await port.patch_config(parse_object(raw, may_be_empty=False))


async def _put_config(port: AgentPort, raw: bytes) -> Answer:
    return await port.put_config(parse_object(raw, may_be_empty=False))


HANDLERS: Mapping[str, Mapping[str, Handler]] = {
    "/switchover": {"POST": _switchover, "DELETE": _cancel_switchover},
    "/failover": {"POST": _failover},
    "/failsafe": {"POST": _failsafe},
    "/restart": {"POST": _restart},
    "/reinitialize": {"POST": _reinitialize},
    "/reload": {"POST": _reload},
    "/config": {"PATCH": _patch_config, "PUT": _put_config},
}
"""Path -> method -> what is done. Every one of them is behind access control."""

ASKED_BY_MEMBERS = frozenset({"/failsafe"})
"""What members ask of each other while etcd is gone."""

WAITS_AS_TOLD = frozenset({"/restart"})
"""Answered when the order has ended, or after the time that it names."""
