"""What is done to the local server, in the order that makes it safe."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from hamgr.agent.clock import now
from hamgr.agent.server_calls import (
    apply_config,
    clone,
    ensure_slots,
    examine_crash,
    fence,
    promote,
    put_down,
    reinitialize,
    restart,
    set_sync,
    start_primary,
    start_standby,
    stop,
)
from hamgr.core import actions
from hamgr.core.actions import Upstream
from hamgr.core.facts import ActionProgressed
from hamgr.core.quorum import SyncRule
from hamgr.core.result import Result
from hamgr.core.server_outcomes import Promoted, WalEnd
from hamgr.core.units import Instant, Lsn, Term, Timeline, after
from hamgr.postgres.config import LogicalSlot, LogicalSlots
from hamgr.postgres.errors import Diverged, ServerBroken, ServerRefused, ServerUnavailable
from hamgr.postgres.process import Ending
from hamgr.postgres.promote import Promotion
from tests.agent.workbench import LEASE, SERVER, TERM, Bench, dispossessed, leading, replica, view


@dataclass(frozen=True)
class Position:
    """Where WAL ends, as the server tells it."""

    timeline: Timeline
    lsn: Lsn


B = Upstream("b", "10.0.0.12", 5432)
RULE = SyncRule(("b",), 1)
PUT_DOWN = actions.PutDown(Lsn(0x4000), "server_hung", Instant(1.0), reads_wal=True)
PROMOTION = Promotion(Timeline(5), Lsn(0x5000), 7.0)


def spawns(bench: Bench) -> None:
    """The server comes up, and says which process it is."""

    def start(*, timeout_s: float, spawned: object) -> None:
        assert timeout_s == bench.state.policy.primary_start_timeout_s
        assert callable(spawned)
        spawned(SERVER)

    bench.server.answers["start_primary"] = start


# -- entitled or not -------------------------------------------------------------------------------------------


def without_right(bench: Bench, how: str) -> None:
    state = bench.state
    bench.state = {
        "another leads": dispossessed(),
        "nobody leads": state._replace(cluster=view("")),
        "key on another lease": state._replace(cluster=view(lease_id=8)),
        "deadline has come": state._replace(lease=replace(state.lease, deadline=after(now(), -1.0))),
        "no deadline": state._replace(lease=replace(state.lease, deadline=None)),
        "other term": state._replace(lease=replace(state.lease, term=Term(TERM + 1))),
    }[how]


NO_RIGHT = ["another leads", "nobody leads", "key on another lease", "deadline has come", "no deadline", "other term"]


@pytest.mark.parametrize("how", NO_RIGHT)
async def test_nothing_is_promoted_without_the_key_in_that_term(bench: Bench, how: str) -> None:
    without_right(bench, how)
    outcome = await promote(bench.world, actions.Promote(TERM))
    assert (outcome.result, outcome.code) == (Result.REFUSED, "not_entitled")
    assert bench.log == []


@pytest.mark.parametrize("how", NO_RIGHT)
async def test_nothing_is_started_as_primary_without_the_key_in_that_term(bench: Bench, how: str) -> None:
    without_right(bench, how)
    outcome = await start_primary(bench.world, actions.StartPrimary(TERM))
    assert (outcome.result, outcome.code) == (Result.REFUSED, "not_entitled")
    assert bench.log == []


async def test_the_key_is_looked_at_again_once_the_guard_is_armed(bench: Bench) -> None:
    bench.link.on_arm = lambda: setattr(bench, "state", dispossessed())
    outcome = await promote(bench.world, actions.Promote(TERM))
    assert (outcome.result, outcome.code) == (Result.REFUSED, "not_entitled")
    assert bench.log == ["arm"]


# -- promotion and start as primary ----------------------------------------------------------------------------


async def test_a_replica_is_promoted_under_an_armed_guard(bench: Bench) -> None:
    bench.server.answers["promote"] = lambda _timeout_s, *, old_timeline, sync: (
        PROMOTION if (old_timeline, sync) == (bench.state.server.timeline, RULE) else None
    )
    outcome = await promote(bench.world, actions.Promote(TERM, RULE))
    assert bench.log == ["arm", "ensure_sentry", "promote"]
    assert bench.link.armed_with == [(bench.state.lease.deadline, SERVER, TERM, LEASE)]
    value = outcome.value
    assert isinstance(value, Promoted)
    assert (value.timeline, value.lsn, value.promoted_at) == (Timeline(5), Lsn(0x5000), Instant(7.0))
    assert value.writable_at <= now()


@pytest.mark.parametrize("how", ["refused", "not in time"])
async def test_a_replica_that_gets_no_sentry_is_promoted_all_the_same(
    bench: Bench, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    refused = ServerRefused("no sentry: no room") if how == "refused" else TimeoutError()
    bench.server.answers.update(promote=PROMOTION, ensure_sentry=refused)
    assert (await promote(bench.world, actions.Promote(TERM, RULE))).result is Result.DONE
    assert bench.log == ["arm", "ensure_sentry", "promote"]
    assert "without a sentry" in caplog.text


async def test_the_key_is_looked_at_again_once_there_is_a_sentry(bench: Bench) -> None:
    bench.server.answers["ensure_sentry"] = lambda _page: setattr(bench, "state", dispossessed())
    outcome = await promote(bench.world, actions.Promote(TERM))
    assert (outcome.result, outcome.code) == (Result.REFUSED, "not_entitled")
    assert bench.log == ["arm", "ensure_sentry"]


async def test_a_server_that_is_a_primary_already_is_verified_only_and_keeps_its_rule(bench: Bench) -> None:
    bench.state = leading(server=replica(in_recovery=False))
    bench.server.answers["verify"] = PROMOTION
    assert (await promote(bench.world, actions.Promote(TERM, RULE))).result is Result.DONE
    assert bench.log == ["arm", "verify"]


@pytest.mark.parametrize("rule", [RULE, None], ids=["a rule", "what is configured"])
async def test_the_rule_that_is_set_is_the_one_decided_on(bench: Bench, rule: SyncRule | None) -> None:
    rules: list[object] = []
    bench.server.answers["set_sync"] = rules.append
    assert (await set_sync(bench.world, actions.SetSync(rule))).result is Result.DONE
    assert rules == [rule]


async def test_the_guard_is_armed_before_a_primary_exists_and_learns_its_process_at_once(bench: Bench) -> None:
    spawns(bench)
    assert (await start_primary(bench.world, actions.StartPrimary(TERM))).result is Result.DONE
    assert bench.log == ["arm", "start_primary", f"name {SERVER.pid}"]
    assert bench.link.armed_with == [(bench.state.lease.deadline, None, TERM, LEASE)]


async def test_the_first_server_of_a_cluster_gets_its_roles(bench: Bench) -> None:
    spawns(bench)
    bench.state = leading(cluster=view(system_identifier=""))
    await start_primary(bench.world, actions.StartPrimary(TERM))
    assert bench.log[-1] == "create_roles"


async def test_a_guard_that_does_not_answer_stops_promotion_and_start(bench: Bench) -> None:
    def silent() -> None:
        raise ServerUnavailable("the guard does not answer")

    bench.link.on_arm = silent
    with pytest.raises(ServerUnavailable):
        await promote(bench.world, actions.Promote(TERM))
    with pytest.raises(ServerUnavailable):
        await start_primary(bench.world, actions.StartPrimary(TERM))
    assert bench.log == ["arm", "arm"]


# -- standbys --------------------------------------------------------------------------------------------------


async def test_a_standby_starts_with_no_deadline_on_it(bench: Bench) -> None:
    await start_standby(bench.world, actions.StartStandby(B))
    assert bench.log == ["adopt", "disarm", "start_standby"]


async def test_a_server_that_runs_already_keeps_its_deadline(bench: Bench) -> None:
    bench.server.answers["adopt"] = SERVER
    outcome = await start_standby(bench.world, actions.StartStandby(B))
    assert (outcome.result, bench.log) == (Result.REFUSED, ["adopt"])


async def test_without_an_upstream_to_compare_with_a_standby_is_started_unchecked(bench: Bench) -> None:
    await start_standby(bench.world, actions.StartStandby(None, check_history=True))
    assert bench.log == ["adopt", "disarm", "start_standby"]


async def test_a_diverged_standby_is_not_started(bench: Bench) -> None:
    bench.server.answers["check_history"] = Diverged("elsewhere")
    with pytest.raises(Diverged):
        await start_standby(bench.world, actions.StartStandby(B, check_history=True))
    assert bench.log == ["check_history"]


@pytest.mark.parametrize("keep_aside", [False, True])
async def test_a_clone_keeps_aside_what_is_to_be_kept_and_tells_its_progress(bench: Bench, keep_aside: bool) -> None:
    bench.server.answers["clone"] = lambda _source, progress: progress("base backup: 40 %")
    await clone(bench.world, actions.Clone(B, keep_aside))
    assert bench.log == (["check_source", "keep_aside"] if keep_aside else []) + ["clone"]
    assert bench.facts == [ActionProgressed("base backup: 40 %")]


# -- ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", list(Ending))
async def test_a_stop_disarms_the_guard_when_the_server_has_ended_and_says_where_its_wal_ends(
    bench: Bench, ending: Ending
) -> None:
    bench.server.answers = {"stop": ending, "stopped_position": Position(Timeline(4), Lsn(0x4000))}
    before = now()
    value = (await stop(bench.world, actions.StopServer(1.0))).value
    assert bench.log == ["stop", "disarm", "stopped_position"]
    assert isinstance(value, WalEnd)
    assert (value.timeline, value.lsn, value.was_clean) == (Timeline(4), Lsn(0x4000), ending is Ending.CLEAN)
    assert value.stop_began_at is not None
    assert before <= value.stop_began_at <= now()


async def test_a_stop_that_is_not_complete_leaves_the_guard_armed(bench: Bench) -> None:
    bench.server.answers["stop"] = ServerUnavailable("the guard does not answer")
    with pytest.raises(ServerUnavailable):
        await stop(bench.world, actions.StopServer(1.0))
    assert bench.log == ["stop"]


async def test_wal_that_cannot_be_read_ends_nowhere(bench: Bench) -> None:
    bench.server.answers = {"stop": Ending.CLEAN, "stopped_position": ServerBroken("no space left")}
    value = (await stop(bench.world, actions.StopServer(1.0))).value
    assert (value.lsn, value.timeline) == (None, bench.state.server.timeline)
    value = (await examine_crash(bench.world, actions.ExamineCrash(Lsn(0)))).value
    assert value.lsn is None


async def test_a_fence_disarms_only_after_the_kill(bench: Bench) -> None:
    bench.server.answers["kill_tree"] = 3
    assert "3 processes" in (await fence(bench.world, actions.Fence())).text
    assert bench.log == ["kill_tree", "disarm"]


@pytest.mark.parametrize("call", [fence, examine_crash, put_down])
async def test_a_kill_that_failed_leaves_the_guard_armed(bench: Bench, call: object) -> None:
    bench.server.answers["kill_tree"] = ServerUnavailable("the guard does not answer")
    assert callable(call)
    with pytest.raises(ServerUnavailable):
        await call(bench.world, PUT_DOWN)
    assert bench.log == ["kill_tree"]


async def test_a_crash_is_examined_from_where_writing_was_last_seen_and_when_nothing_is_left(bench: Bench) -> None:
    bench.server.answers["stopped_position"] = lambda start: Position(Timeline(4), Lsn(start + 8))
    value = (await examine_crash(bench.world, actions.ExamineCrash(Lsn(0x4000)))).value
    assert bench.log == ["kill_tree", "disarm", "stopped_position"]
    assert (value.lsn, value.was_clean) == (Lsn(0x4008), False)


async def test_a_sick_primary_is_killed_before_its_wal_is_read(bench: Bench) -> None:
    bench.server.answers |= {"kill_tree": 5, "stopped_position": lambda start: Position(Timeline(4), Lsn(start + 8))}
    before = now()
    value = (await put_down(bench.world, PUT_DOWN)).value
    assert bench.log == ["kill_tree", "disarm", "stopped_position"]
    assert (value.timeline, value.lsn, value.was_clean) == (Timeline(4), Lsn(0x4008), False)
    assert before <= value.stop_began_at <= now()


async def test_a_hung_disk_is_not_read(bench: Bench) -> None:
    value = (await put_down(bench.world, replace(PUT_DOWN, cause="disk_failed", reads_wal=False))).value
    assert bench.log == ["kill_tree", "disarm"]
    assert (value.timeline, value.lsn) == (bench.state.server.timeline, None)


# -- orders ----------------------------------------------------------------------------------------------------


STOPPED = {"stop": Ending.CLEAN, "stopped_position": Position(Timeline(4), Lsn(0x4000))}


async def test_a_replica_is_restarted_as_a_replica(bench: Bench) -> None:
    bench.server.answers = dict(STOPPED)
    await restart(bench.world, actions.RestartServer(1, 1.0, None, B))
    assert bench.log == ["checkpoint", "stop", "disarm", "stopped_position", "adopt", "disarm", "start_standby"]


async def test_a_primary_is_restarted_as_a_primary_under_an_armed_guard(bench: Bench) -> None:
    bench.server.answers = dict(STOPPED)
    spawns(bench)
    await restart(bench.world, actions.RestartServer(1, 1.0, TERM, B))
    assert bench.log[-3:] == ["arm", "start_primary", f"name {SERVER.pid}"]


async def test_a_primary_that_lost_the_key_while_it_was_restarted_stays_down(bench: Bench) -> None:
    bench.server.answers = dict(STOPPED)
    bench.server.answers["stop"] = lambda _budget_s: setattr(bench, "state", dispossessed()) or Ending.CLEAN
    outcome = await restart(bench.world, actions.RestartServer(1, 1.0, TERM, B))
    assert (outcome.result, outcome.code) == (Result.REFUSED, "not_entitled")
    assert "start_primary" not in bench.log


async def test_a_member_is_made_anew_only_after_its_server_stopped(bench: Bench) -> None:
    bench.server.answers = dict(STOPPED)
    await reinitialize(bench.world, actions.Reinitialize(1, B))
    assert bench.log == [
        *("check_source", "stop", "disarm", "stopped_position"),
        *("remove_cluster", "clone"),
        *("adopt", "disarm", "start_standby"),
    ]


async def test_nothing_is_thrown_away_for_a_copy_of_a_source_that_does_not_answer(bench: Bench) -> None:
    """Its key outlives its host, and this may be the last copy."""
    bench.server.answers = dict(STOPPED)
    bench.server.answers["check_source"] = ServerUnavailable("no route to host")
    with pytest.raises(ServerUnavailable):
        await reinitialize(bench.world, actions.Reinitialize(1, B))
    with pytest.raises(ServerUnavailable):
        await clone(bench.world, actions.Clone(B, keep_aside=True))
    assert bench.log == ["check_source"] * 2


async def test_the_configuration_applied_is_the_one_wanted_now(bench: Bench) -> None:
    given: list[object] = []
    wanted = replace(bench.world.wanted(), parameters={"work_mem": "8MB"}, pg_hba=("local all all peer",))
    bench.world.wanted = lambda: wanted
    bench.server.answers["apply_config"] = lambda *values, **named: given.extend([*values, named])
    await apply_config(bench.world, actions.ApplyConfig(1))
    assert given == [
        {"work_mem": "8MB"},
        ("local all all peer",),
        {"member_slots_ttl_s": 1800.0, "logical": wanted.logical},
    ]


@pytest.mark.parametrize(("major", "is_told"), [(15, True), (17, False)])
async def test_declared_slots_without_effect_are_told(bench: Bench, major: int, is_told: bool) -> None:
    wanted = replace(bench.world.wanted(), logical=LogicalSlots({"cdc": LogicalSlot("app", "pgoutput")}, True))
    bench.world.wanted = lambda: wanted
    bench.server.answers["apply_config"] = lambda *_, **__: True
    bench.state = bench.state._replace(server=replace(bench.state.server, major_version=major))
    outcome = await apply_config(bench.world, actions.ApplyConfig(1))
    assert ("no effect on PostgreSQL 15" in outcome.text) is is_told


async def test_declared_slots_are_made_after_the_members_and_lost_ones_are_told(bench: Bench) -> None:
    calls: list[object] = []
    bench.server.answers["ensure_slots"] = calls.append
    bench.server.answers["create_logical_slots"] = calls.append
    assert (await ensure_slots(bench.world, actions.EnsureSlots(("b",), ("cdc",)))).result is Result.DONE
    assert calls == [("b",), ("cdc",)]
    told = await ensure_slots(bench.world, actions.EnsureSlots(("b",), (), ("cdc",)))
    assert (told.result, told.code) == (Result.REFUSED, "slots_lost")
    assert "cdc" in told.text
