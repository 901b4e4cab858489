"""Actions on the local server, as hamgr/agent/server_calls.py carries them out, with durations instead of programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hamgr.core import actions
from hamgr.core.lanes import Upstream
from hamgr.core.result import UNANSWERED, Outcome, Result
from hamgr.core.server import DataDir, Phase
from hamgr.core.server_outcomes import Promoted, WalEnd
from hamgr.core.slotnames import slot_name
from hamgr.core.units import Instant, Lsn, Term, Timeline
from hamgr.sim.agent import Agent
from hamgr.sim.guard import kill_tree
from hamgr.sim.mutants import Mutant
from hamgr.sim.postgres import Disk
from hamgr.sim.steps import Steps
from hamgr.sim.wal import contains

DONE = Outcome(Result.DONE)
NOT_ENTITLED = Outcome(Result.REFUSED, "not_entitled", "this member does not hold the leader key")
NO_PEER = Outcome(Result.FAILED, "timeout", "the other server does not answer")
NO_SERVER = Outcome(Result.FAILED, "timeout", "the server does not answer")
NO_GUARD = Outcome(Result.FAILED, "timeout", "the guard does not answer")
DISK = Outcome(Result.FAILED, "os", "no space left on device")
PROMOTE_TIMEOUT_S = 30.0
GUARD_TIMEOUT_S = 5.0


def address(name: str) -> str:
    """Where the server of that member is found."""
    return f"{name}.host:5432" if name else ""


def _draw(agent: Agent, span: tuple[float, float]) -> float:
    return agent.ground.draw(span)


def initdb(agent: Agent, _action: actions.InitDb) -> Steps:
    yield _draw(agent, agent.ground.pace.clone)
    if agent.server.disk is not Disk.WELL:
        return DISK
    agent.shared.systems += 1
    agent.server.initialise(f"system-{agent.shared.systems}")
    return DONE


def _start(agent: Agent, *, as_standby: bool, upstream: str) -> float:
    """The postmaster is on its way; how long it takes."""
    pace, server = agent.ground.pace, agent.server
    takes_s = _draw(agent, pace.start) + (0.0 if server.was_clean else _draw(agent, pace.recovery))
    server.begin_start(as_standby=as_standby, upstream=upstream, takes_s=takes_s)
    return takes_s


def _arm(agent: Agent, term: Term) -> Steps:
    """From here on the guard kills the server at the deadline of that term."""
    deadline = agent.deadline_in(term)
    if deadline is None:
        return NOT_ENTITLED
    agent.page.arm(deadline, term, agent.lease_id)
    if not agent.guard.is_awake:
        yield GUARD_TIMEOUT_S
        return NO_GUARD
    return DONE


def start_primary(agent: Agent, action: actions.StartPrimary) -> Steps:
    """Armed before the server exists."""
    server = agent.server
    outcome = yield from _arm(agent, action.term)
    if outcome is not DONE:
        return outcome
    if server.disk is not Disk.WELL or server.orphans:
        yield _draw(agent, agent.ground.pace.start)
        return DISK
    server.term = action.term
    yield _start(agent, as_standby=False, upstream=server.upstream)
    return DONE if server.phase is Phase.RUNNING else NO_SERVER


def start_standby(agent: Agent, action: actions.StartStandby) -> Steps:
    server = agent.server
    if action.check_history and action.upstream is not None:
        outcome = yield from _check(agent, action.upstream)
        if outcome is not DONE:
            return replace(outcome, code=UNANSWERED) if outcome is NO_PEER else outcome
    if server.is_alive:
        return Outcome(Result.REFUSED, "runs", "the server runs already")
    if server.disk is not Disk.WELL or server.orphans:
        yield _draw(agent, agent.ground.pace.start)
        return DISK
    agent.page.disarm()
    upstream = server.upstream if action.upstream is None else address(action.upstream.name)
    yield _start(agent, as_standby=True, upstream=upstream)
    return DONE if server.phase is Phase.RUNNING else NO_SERVER


def check_history(agent: Agent, action: actions.CheckHistory) -> Steps:
    return _check(agent, action.upstream)


def _check(agent: Agent, upstream: Upstream) -> Steps:
    yield _draw(agent, agent.ground.pace.sql)
    other = agent.shared.replication.reachable(upstream.name, agent.name)
    if other is None:
        return NO_PEER
    # Unlike PostgreSQL it compares the WAL itself, so that two timelines of one number are told apart.
    is_ancestor = agent.server.is_ancestor_of(other) and contains(other.head, agent.server.head)
    return DONE if is_ancestor else Outcome(Result.REFUSED, "diverged", "the histories differ")


def stop(agent: Agent, action: actions.StopServer | actions.HandOverStop) -> Steps:
    return _stopped(agent, action.budget_s)


def _stopped(agent: Agent, budget_s: float) -> Steps:
    """Fast, then, where that does not come to its end in half of the budget, SIGKILL of the tree."""
    ground, server, began_at = agent.ground, agent.server, agent.clock_now()
    patience_s = budget_s / 2
    replication = agent.shared.replication
    takes_s = _draw(agent, ground.pace.stop)
    is_held_up = not server.in_recovery and replication.is_held_up(server)
    if server.phase is Phase.RUNNING and not is_held_up and takes_s <= patience_s and not server.is_frozen:
        server.begin_stop(takes_s)
        yield takes_s
    elif server.is_alive:
        yield patience_s
    if server.is_alive or server.orphans:
        kill_tree(ground, server)
    agent.page.disarm()
    return Outcome(Result.DONE, value=_end_of_wal(agent, began_at, was_clean=server.was_clean))


def _end_of_wal(agent: Agent, began_at: Instant | None, *, was_clean: bool) -> WalEnd:
    """Where the WAL on this disk ends; None where that cannot be read."""
    server = agent.server
    lsn = None if server.disk is Disk.HUNG else Lsn(server.lsn)
    return WalEnd(Timeline(server.timeline), lsn, was_clean, began_at)


def _killed(agent: Agent) -> Steps:
    yield _draw(agent, agent.ground.pace.kill)
    kill_tree(agent.ground, agent.server)
    agent.page.disarm()
    return DONE


def fence(agent: Agent, _action: actions.Fence) -> Steps:
    return _killed(agent)


def examine_crash(agent: Agent, _action: actions.ExamineCrash) -> Steps:
    yield from _killed(agent)
    return Outcome(Result.DONE, value=_end_of_wal(agent, None, was_clean=False))


def put_down(agent: Agent, action: actions.PutDown) -> Steps:
    yield from _killed(agent)
    end = _end_of_wal(agent, None, was_clean=False)
    if not action.reads_wal:
        end = WalEnd(end.timeline, None, was_clean=False)
    return Outcome(Result.DONE, value=end)


def promote(agent: Agent, action: actions.Promote) -> Steps:
    """Armed, with the synchronous rule in force before the first commit; then writable on a timeline of its own."""
    server = agent.server
    outcome = yield from _arm(agent, action.term)
    if outcome is not DONE:
        return outcome
    yield _draw(agent, agent.ground.pace.sql)
    if agent.deadline_in(action.term) is None:
        return NOT_ENTITLED
    if server.is_frozen or server.phase is not Phase.RUNNING:
        yield PROMOTE_TIMEOUT_S / 10
        return NO_SERVER
    if server.in_recovery:
        _post_sentry(agent)
        server.term = action.term
        server.set_sync(action.sync, 0.0)
        takes_s = _draw(agent, agent.ground.pace.promote)
        server.begin_promotion(takes_s)
        agent.shared.replication.stop_receiver(server)
        yield takes_s + _draw(agent, agent.ground.pace.sql)
    if server.in_recovery or server.phase is not Phase.RUNNING or server.is_frozen:
        return NO_SERVER
    now = agent.clock_now()
    return Outcome(Result.DONE, value=Promoted(Timeline(server.timeline), Lsn(server.lsn), now, now))


def follow(agent: Agent, action: actions.Follow) -> Steps:
    yield _draw(agent, agent.ground.pace.sql)
    if agent.server.phase is not Phase.RUNNING or not agent.server.in_recovery or agent.server.is_frozen:
        return NO_SERVER
    agent.shared.replication.follow(agent.server, address(action.upstream.name))
    return DONE


def rewind(agent: Agent, action: actions.Rewind) -> Steps:
    replication = agent.shared.replication
    yield _draw(agent, agent.ground.pace.rewind)
    source = replication.reachable(action.source.name, agent.name)
    if source is None or source.in_recovery:
        return NO_PEER
    agent.server.copy_from(source)
    return DONE


def clone(agent: Agent, action: actions.Clone) -> Steps:
    replication, server = agent.shared.replication, agent.server
    if replication.reachable(action.source.name, agent.name) is None:
        yield _draw(agent, agent.ground.pace.sql)
        return NO_PEER
    if action.keep_aside:
        agent.shared.kept_aside.append(agent.name)
    server.data_dir = DataDir.UNFINISHED
    yield _draw(agent, agent.ground.pace.clone)
    source = replication.reachable(action.source.name, agent.name)
    if source is None or server.disk is not Disk.WELL:
        return NO_PEER
    server.copy_from(source)
    return DONE


def restart(agent: Agent, action: actions.RestartServer) -> Steps:
    yield _draw(agent, agent.ground.pace.checkpoint)
    yield from _stopped(agent, action.stop_budget_s)
    if action.as_primary_in is not None:
        return (yield from start_primary(agent, actions.StartPrimary(action.as_primary_in)))
    return (yield from start_standby(agent, actions.StartStandby(action.upstream)))


def reinitialize(agent: Agent, action: actions.Reinitialize) -> Steps:
    yield from _stopped(agent, agent.state.policy.primary_stop_timeout_s)
    agent.server.data_dir = DataDir.EMPTY
    outcome = yield from clone(agent, actions.Clone(action.source))
    if outcome is not DONE:
        return outcome
    return (yield from start_standby(agent, actions.StartStandby(action.source)))


def checkpoint(agent: Agent, _action: actions.Checkpoint) -> Steps:
    yield _draw(agent, agent.ground.pace.checkpoint)
    return NO_SERVER if agent.server.is_frozen else DONE


def ensure_slots(agent: Agent, action: actions.EnsureSlots) -> Steps:
    yield _draw(agent, agent.ground.pace.sql)
    slots = agent.server.slots
    agent.server.slots = {slot_name(name): slots.get(slot_name(name), Lsn(0)) for name in action.members}
    agent.server.failover_slots |= {name: Lsn(agent.server.lsn) for name in action.logical}
    return Outcome(Result.REFUSED, "slots_lost") if action.lost else DONE


def await_standbys(agent: Agent, action: actions.AwaitStandbys) -> Steps:
    yield _draw(agent, agent.ground.pace.sql)
    agent.server.awaited_slots = action.slots
    return DONE


def drop_former_slots(agent: Agent, action: actions.DropFormerSlots) -> Steps:
    yield _draw(agent, agent.ground.pace.sql)
    for name in action.slots:
        agent.server.failover_slots.pop(name, None)
    return DONE


def set_sync(agent: Agent, action: actions.SetSync) -> Steps:
    """Written and reloaded; a session is shown it at once, each walsender goes by it a moment later."""
    pace, server = agent.ground.pace, agent.server
    yield _draw(agent, pace.sql)
    if server.phase is not Phase.RUNNING or server.is_frozen:
        return NO_SERVER
    server.set_sync(action.rule, _draw(agent, pace.sql) if pace.sql[0] != pace.sql[1] else 0.0)
    return DONE


def note_birth(agent: Agent, action: actions.NoteBirth) -> Steps:
    yield _draw(agent, agent.ground.pace.sql)
    if not agent.server.is_alive or agent.server.disk is not Disk.WELL:
        return DISK
    if agent.server.birth.timeline != action.birth.timeline:
        is_alike = agent.ground.mutant is Mutant.BIRTHS_ALIKE
        agent.server.birth = replace(action.birth, term=Term(1)) if is_alike else action.birth
    return Outcome(Result.DONE, value=agent.server.birth)


def ensure_sentry(agent: Agent, _action: actions.EnsureSentry) -> Steps:
    yield _draw(agent, agent.ground.pace.sql)
    server = agent.server
    if server.phase is not Phase.RUNNING or server.is_frozen:
        return NO_SERVER
    _post_sentry(agent)
    return DONE


def _post_sentry(agent: Agent) -> None:
    server = agent.server
    if not (server.in_recovery and agent.ground.mutant is Mutant.SENTRY_TOO_LATE):
        server.has_sentry = True


def apply_config(agent: Agent, _action: actions.ApplyConfig) -> Steps:
    yield _draw(agent, agent.ground.pace.sql)
    return DONE


SERVER_CALLS: dict[type, Callable[[Agent, Any], Steps]] = {
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
    actions.RestartServer: restart,
    actions.Reinitialize: reinitialize,
    actions.Checkpoint: checkpoint,
    actions.EnsureSlots: ensure_slots,
    actions.AwaitStandbys: await_standbys,
    actions.DropFormerSlots: drop_former_slots,
    actions.SetSync: set_sync,
    actions.EnsureSentry: ensure_sentry,
    actions.NoteBirth: note_birth,
    actions.ApplyConfig: apply_config,
}
