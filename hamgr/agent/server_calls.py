"""Actions on the local server. Each ends with a look at the server, so that the next decision sees what it did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from hamgr.agent.clock import now
from hamgr.agent.journal import LOGGER
from hamgr.agent.world import World
from hamgr.core import actions
from hamgr.core.facts import ActionProgressed
from hamgr.core.result import UNANSWERED, Outcome, Result
from hamgr.core.scene import Scene
from hamgr.core.server_outcomes import Promoted, WalEnd
from hamgr.core.units import Instant, Lsn, Term
from hamgr.postgres.errors import ServerBroken, ServerError, ServerUnavailable
from hamgr.postgres.process import Ending
from hamgr.postgres.versions import VERSIONS

DONE = Outcome(Result.DONE)
NOT_ENTITLED = Outcome(Result.REFUSED, "not_entitled", "this member does not hold the leader key")
PROMOTE_TIMEOUT_S = 30.0
CHECKPOINT_TIMEOUT_S = 60.0
SENTRY_WAIT_S = 0.25
"""A promotion waits for so long for its sentry; many times what it takes on a server that answers."""


def scene_of(world: World) -> Scene:
    return Scene(world.state(), now())


def _deadline_in(world: World, term: Term) -> Instant | None:
    """The lease's deadline if this member leads in that term now, else None. Checked again right before acting:
    between decision and act the lease may have been lost.
    """
    scene = scene_of(world)
    return scene.deadline if scene.leads and world.state().lease.term == term else None


async def initdb(world: World, _action: actions.InitDb) -> Outcome:
    await world.server.initdb()
    return DONE


async def clone(world: World, action: actions.Clone) -> Outcome:
    if action.keep_aside:
        await _check_source(world, action.source)
        await world.server.keep_aside()
    await world.server.clone(action.source, lambda progress: world.post(ActionProgressed(str(progress))))
    return DONE


async def rewind(world: World, action: actions.Rewind) -> Outcome:
    await world.server.rewind(action.source)
    return DONE


async def start_primary(world: World, action: actions.StartPrimary) -> Outcome:
    """Armed before the server exists: from its first instant on the guard kills it at the deadline."""
    deadline = _deadline_in(world, action.term)
    if deadline is None:
        return NOT_ENTITLED
    await world.link.arm(deadline, None, action.term, world.lease_id)
    timeout_s = world.state().policy.primary_start_timeout_s

    await world.server.start_primary(timeout_s=timeout_s, spawned=world.link.name_server)
    if not world.state().cluster or not scene_of(world).view.system_identifier:
        await world.server.create_roles()
    return DONE


async def start_standby(world: World, action: actions.StartStandby) -> Outcome:
    if action.check_history and action.upstream is not None:
        try:
            await world.server.check_history(action.upstream)
        except ServerError as error:
            if error.code in (ServerUnavailable.code, ServerBroken.code):
                return Outcome(Result.FAILED, UNANSWERED, str(error))
            raise
    if await world.server.adopt() is not None:
        # Perhaps a primary that was not seen: its deadline stands.
        return Outcome(Result.REFUSED, "runs", "the server runs already")
    world.link.disarm()
    await world.server.start_standby(action.upstream)
    return DONE


async def check_history(world: World, action: actions.CheckHistory) -> Outcome:
    await world.server.check_history(action.upstream)
    return DONE


async def stop(world: World, action: actions.StopServer | actions.HandOverStop) -> Outcome:
    return await _stopped(world, action.budget_s)


async def _stopped(world: World, budget_s: float) -> Outcome:
    """The server is stopped and the guard no longer needs to kill it."""
    began_at = now()
    _leave_balancers(world)
    ending = await world.server.stop(budget_s)
    world.link.disarm()
    end = await _end_of_wal(world, Lsn(0))
    value = replace(end, was_clean=ending is Ending.CLEAN, stop_began_at=began_at)
    return Outcome(Result.DONE, text=f"{ending.value}, WAL ends at {end.lsn}", value=value)


def _leave_balancers(world: World) -> None:
    """New connections are not sent to a primary that ends, where they would be refused and wait for another try."""
    if world.state().server.in_recovery is not True:
        world.front.leave_soon(world.me)


async def _end_of_wal(world: World, start: Lsn) -> WalEnd:
    """Where the WAL on this disk ends; its `lsn` is None where that cannot be read (a full or broken disk)."""
    try:
        position = await world.server.stopped_position(start)
    except ServerError as error:
        LOGGER.warning("where the WAL ends cannot be read: %s", error)
        return WalEnd(world.state().server.timeline, None, was_clean=False)
    return WalEnd(position.timeline, position.lsn, was_clean=False)


async def fence(world: World, _action: actions.Fence) -> Outcome:
    _leave_balancers(world)
    killed = await world.server.kill_tree()
    world.link.disarm()
    return Outcome(Result.DONE, text=f"{killed} processes killed")


async def examine_crash(world: World, action: actions.ExamineCrash) -> Outcome:
    """Nothing of the dead server is left, and it is known where its WAL ends."""
    _leave_balancers(world)
    await world.server.kill_tree()
    world.link.disarm()
    end = await _end_of_wal(world, action.from_lsn)
    return Outcome(Result.DONE, text=f"WAL ends at {end.lsn}", value=end)


async def put_down(world: World, action: actions.PutDown) -> Outcome:
    """As `examine_crash`; without a look at a disk that hangs, from which nothing would come in time."""
    began_at = now()
    _leave_balancers(world)
    killed = await world.server.kill_tree()
    world.link.disarm()
    if action.reads_wal:
        end = await _end_of_wal(world, action.from_lsn)
    else:
        end = WalEnd(world.state().server.timeline, None, was_clean=False)
    value = replace(end, stop_began_at=began_at)
    return Outcome(Result.DONE, text=f"{killed} processes killed, WAL ends at {end.lsn}", value=value)


async def promote(world: World, action: actions.Promote) -> Outcome:
    deadline = _deadline_in(world, action.term)
    if deadline is None:
        return NOT_ENTITLED
    await world.link.arm(deadline, world.state().server.identity, action.term, world.lease_id)
    if _deadline_in(world, action.term) is None:
        return NOT_ENTITLED
    server = world.state().server
    if server.in_recovery is False:
        promotion = await world.server.verify()
    else:
        await _post_sentry(world)
        if _deadline_in(world, action.term) is None:
            return NOT_ENTITLED
        promotion = await world.server.promote(PROMOTE_TIMEOUT_S, old_timeline=server.timeline, sync=action.sync)
    value = Promoted(promotion.timeline, promotion.lsn, Instant(promotion.promoted_at), now())
    return Outcome(Result.DONE, text=f"timeline {promotion.timeline}", value=value)


async def follow(world: World, action: actions.Follow) -> Outcome:
    if action.upstream.host:
        await world.server.follow(action.upstream)
    else:
        # What a receiver still took would escape the comparison that comes next.
        await world.server.stop_receiver()
    return DONE


async def checkpoint(world: World, _action: actions.Checkpoint) -> Outcome:
    await world.server.checkpoint(CHECKPOINT_TIMEOUT_S)
    return DONE


async def restart(world: World, action: actions.RestartServer) -> Outcome:
    await world.server.checkpoint(CHECKPOINT_TIMEOUT_S)
    await _stopped(world, action.stop_budget_s)
    if action.as_primary_in is not None:
        return await start_primary(world, actions.StartPrimary(action.as_primary_in))
    return await start_standby(world, actions.StartStandby(action.upstream))


async def reinitialize(world: World, action: actions.Reinitialize) -> Outcome:
    await _check_source(world, action.source)
    await _stopped(world, world.state().policy.primary_stop_timeout_s)
    await world.server.remove_cluster()
    await clone(world, actions.Clone(action.source))
    return await start_standby(world, actions.StartStandby(action.source))


async def _check_source(world: World, source: actions.Upstream) -> None:
    """Before anything is thrown away: the key of a leader outlives its host, and what is here may be the last copy."""
    view = world.state().cluster
    await world.server.check_source(source, view.system_identifier if view is not None else "")


async def _post_sentry(world: World) -> None:
    """The server has its last line before it is a primary. Where it gets none in time it is promoted all the same: the
    guard is armed, and `keep_sentry` tries again.
    """
    try:
        async with asyncio.timeout(SENTRY_WAIT_S):
            await world.server.ensure_sentry(world.link.watched)
    except (ServerError, TimeoutError) as error:
        LOGGER.warning("promoted without a sentry at first: %s", str(error) or f"none within {SENTRY_WAIT_S:g} s")


async def ensure_sentry(world: World, _action: actions.EnsureSentry) -> Outcome:
    await world.server.ensure_sentry(world.link.watched)
    world.probe_soon()
    return DONE


async def note_birth(world: World, action: actions.NoteBirth) -> Outcome:
    noted = await world.server.note_birth(action.birth)
    return Outcome(Result.DONE, text=f"timeline {noted.timeline} was begun in term {noted.term}", value=noted)


async def ensure_slots(world: World, action: actions.EnsureSlots) -> Outcome:
    await world.server.ensure_slots(action.members)
    if action.logical:
        await world.server.create_logical_slots(action.logical)
    if action.lost:
        names = ", ".join(action.lost)
        return Outcome(Result.REFUSED, "slots_lost", f"logical slots not in sync when this member took over: {names}")
    return DONE


async def await_standbys(world: World, action: actions.AwaitStandbys) -> Outcome:
    await world.server.await_standbys(action.slots)
    return Outcome(Result.DONE, text=f"logical consumers wait for {', '.join(action.slots) or 'nobody'}")


async def drop_former_slots(world: World, action: actions.DropFormerSlots) -> Outcome:
    await world.server.drop_former_slots(action.slots)
    return Outcome(Result.DONE, text=f"dropped own logical slots, the leader has them: {', '.join(action.slots)}")


async def set_sync(world: World, action: actions.SetSync) -> Outcome:
    await world.server.set_sync(action.rule)
    return DONE


async def apply_config(world: World, _action: actions.ApplyConfig) -> Outcome:
    wanted = world.wanted()
    await world.server.apply_config(
        wanted.parameters, wanted.pg_hba, member_slots_ttl_s=wanted.member_slots_ttl_s, logical=wanted.logical
    )
    running = VERSIONS.get(world.state().server.major_version)
    if wanted.logical.declared and running is not None and not running.syncs_slots:
        return Outcome(Result.DONE, text=f"declared logical slots have no effect on PostgreSQL {running.major}")
    return DONE


SERVER_CALLS: dict[type, Callable[[World, Any], Awaitable[Outcome]]] = {
    actions.InitDb: initdb,
    actions.Clone: clone,
    actions.Rewind: rewind,
    actions.StartPrimary: start_primary,
    actions.StartStandby: start_standby,
    actions.CheckHistory: check_history,
    actions.StopServer: stop,
    actions.HandOverStop: stop,
    actions.Fence: fence,
    actions.ExamineCrash: examine_crash,
    actions.PutDown: put_down,
    actions.Promote: promote,
    actions.Follow: follow,
    actions.Checkpoint: checkpoint,
    actions.RestartServer: restart,
    actions.Reinitialize: reinitialize,
    actions.EnsureSlots: ensure_slots,
    actions.AwaitStandbys: await_standbys,
    actions.DropFormerSlots: drop_former_slots,
    actions.EnsureSentry: ensure_sentry,
    actions.NoteBirth: note_birth,
    actions.SetSync: set_sync,
    actions.ApplyConfig: apply_config,
}
