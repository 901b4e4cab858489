"""What was known of another life of the server, or meant for another role, does not decide in this one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.leader import LEADER, NOW, TERM, leading, member, renewed, seen
from hamgr.core import actions, facts
from hamgr.core.cluster import LeaderKey, Request, SyncState, Tags
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.policy import Policy
from hamgr.core.reasons import Code
from hamgr.core.result import Outcome, Result
from hamgr.core.server import ControlFile, DataDir, Illness, Phase, ServerView, Vital
from hamgr.core.server_outcomes import Promoted
from hamgr.core.state import Crash, Failure, HandOver, Lease, Order, State
from hamgr.core.units import Instant, Lsn, Term, Timeline, WallTime, after

CONTROL = ControlFile("s", "in production", Timeline(1), Lsn(900), Lsn(900))
DOWN = ServerView(Phase.STOPPED, data_dir=DataDir.VALID, probed_at=NOW, control=CONTROL, system_identifier="s")
HUNG = Illness(Vital.CONNECTION, "no answer within 2 s", after(NOW, -5.0), is_hung=True)


def wished(state: State) -> set[type]:
    return {type(action) for action in decide(state, NOW).actions}


def promoted(state: State) -> State:
    value = Promoted(Timeline(2), Lsn(10), NOW, NOW)
    return observe(state, facts.ActionEnded(actions.Promote(TERM), Outcome(Result.DONE, value=value), NOW))


# -- a promotion begins another life ---------------------------------------------------------------------------


def test_starts_that_failed_before_the_promotion_do_not_spare_a_crashed_server_its_start() -> None:
    failed = Failure("StartPrimary", "timeout", "not up in time", 2, Instant(1.0))
    crash = Crash(NOW, examined_at=NOW, end_lsn=Lsn(1000), declined=True)
    led = leading(seen(), renewed(0.1), failures=(failed,))
    crashed = {"server": DOWN, "crash": crash, "verified_term": Term(0)}
    assert actions.ReleaseLeader in wished(led._replace(**crashed))
    assert actions.StartPrimary in wished(promoted(led)._replace(**crashed))


def test_what_was_known_of_the_history_and_the_mode_ends_with_the_promotion() -> None:
    after_it = promoted(leading(seen(), renewed(0.1), must_clone=True, diverged=True, sync_given_up=True))
    assert (after_it.must_clone, after_it.diverged, after_it.sync_given_up) == (False, False, False)


def test_the_mode_turned_off_is_put_into_force_by_each_leader_anew() -> None:
    view = seen()._replace(sync=SyncState("a", ("b",), 1, mod_revision=9))
    led = promoted(leading(view, renewed(0.1), sync_given_up=True, policy=Policy(ttl_s=5.0, synchronous_mode="off")))
    assert [action for action in decide(led, NOW).actions if isinstance(action, actions.SetSync)]


# -- orders ----------------------------------------------------------------------------------------------------


def test_a_member_that_has_led_since_is_not_made_anew() -> None:
    follower = leading(seen()._replace(leader=None), Lease(7, after(NOW, 4.0)), orders=(Order(1, "reinitialize", NOW),))
    assert observe(follower, facts.ClusterSeen(seen()._replace(revision=21, leader=None))).orders
    assert not observe(follower, facts.ClusterSeen(seen()._replace(revision=22, leader=LEADER))).orders


def test_a_copy_that_cannot_be_mended_takes_part_while_nobody_leads() -> None:
    """It may be the only one that is left."""
    follower = leading(seen()._replace(leader=None), Lease(7, after(NOW, 4.0)), server=DOWN, must_clone=True)
    follower = follower._replace(verified_term=Term(0))
    assert actions.StartStandby in wished(follower)


# -- maintenance mode ------------------------------------------------------------------------------------------

PAUSED = Policy(ttl_s=5.0, pause=True)


def test_a_hand_over_that_came_to_nothing_ends_with_a_primary_also_in_maintenance_mode() -> None:
    handed = HandOver(9, "b", NOW, NOW, Timeline(1), Lsn(1000), was_clean=True, aborted=True)
    state = leading(seen(), renewed(0.1), server=DOWN, policy=PAUSED, hand_over=handed)
    assert actions.StartPrimary in wished(state)


def test_such_a_start_that_fails_is_tried_again() -> None:
    handed = HandOver(9, "b", NOW, NOW, Timeline(1), Lsn(1000), was_clean=True, aborted=True)
    crash = Crash(NOW, examined_at=NOW, declined=True)
    state = leading(seen(), renewed(0.1), server=DOWN, policy=PAUSED, hand_over=handed, crash=crash)
    assert actions.StartPrimary in wished(state)


def test_an_offer_that_is_taken_back_unremembered_counts_as_a_hand_over_that_came_to_nothing() -> None:
    state = leading(seen(), renewed(0.1), server=DOWN, policy=PAUSED)
    assert decide(state, NOW).reason.code is Code.PAUSED, "an operator may have stopped the server"
    taken_back = observe(state, facts.ActionEnded(actions.WithdrawOffer(9), Outcome(Result.DONE), NOW))
    assert actions.StartPrimary in wished(taken_back)


def test_a_switchover_that_is_scheduled_lifts_nothing_before_its_time() -> None:
    tomorrow = Request("a", "b", WallTime(2000.0), mod_revision=9)
    crash = Crash(NOW, examined_at=NOW, end_lsn=Lsn(1000))
    down = {"server": DOWN, "crash": crash, "policy": PAUSED, "wall_ahead_s": 0.0}
    state = leading(seen()._replace(request=tomorrow), renewed(0.1), **down)
    assert decide(state, NOW).reason.code is Code.PAUSED
    due = replace(tomorrow, scheduled_at=WallTime(50.0))
    assert decide(state._replace(cluster=seen()._replace(request=due)), NOW).reason.code is not Code.PAUSED


def test_a_members_tags_are_those_of_the_file_that_was_read_again() -> None:
    state = leading(seen(), renewed(0.1))
    reread = observe(state, facts.SettingsReread(NOW, tags=Tags(nofailover=True)))
    assert not reread.me.tags.may_lead
    assert not observe(reread, facts.SettingsReread(NOW)).me.tags.may_lead


def test_who_handed_over_in_maintenance_mode_follows_its_successor() -> None:
    handed = HandOver(9, "b", NOW, NOW, Timeline(1), Lsn(1000), was_clean=True)
    lease = Lease(7, after(NOW, 4.0))
    members = (member("a"), member("b")._replace(role="primary", timeline=Timeline(2)), member("c"))
    key = LeaderKey("b", 8, 30)
    led_by_b = seen()._replace(leader=key, term=Term(2), term_revision=30, members=members)
    state = leading(led_by_b, lease, server=DOWN, policy=PAUSED, hand_over=handed, verified_term=Term(0))
    assert actions.StartStandby in wished(state)
    assert decide(state._replace(hand_over=None), NOW).reason.code is Code.PAUSED


def test_a_server_that_an_operator_stopped_stays_down_in_maintenance_mode() -> None:
    state = leading(seen(), renewed(0.1), server=DOWN, policy=PAUSED, crash=Crash(NOW, examined_at=NOW))
    assert decide(state, NOW).reason.code is Code.PAUSED


# -- a server that lets nobody in ------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.RUNNING])
def test_a_server_that_hangs_is_put_down_whoever_saw_it_well_before(phase: Phase) -> None:
    """Its start was given up for lost, or this agent is a fresh one: nothing has been verified."""
    state = leading(seen(), renewed(0.1), verified_term=Term(0))
    hangs = replace(state.server, phase=phase, answered=False, in_recovery=None)
    assert actions.PutDown not in wished(state._replace(server=hangs))
    assert actions.PutDown in wished(state._replace(server=hangs, illnesses=(HUNG,)))


def test_who_ends_in_order_makes_a_checkpoint_while_clients_write_but_waits_for_no_ill_servers() -> None:
    state = leading(seen(), renewed(0.1), stopping_since=NOW)
    assert actions.Checkpoint in wished(state)
    assert actions.HandOverStop not in wished(state)
    failed = facts.ActionEnded(actions.Checkpoint(actions.BEFORE_STOP), Outcome(Result.FAILED, "timeout"), NOW)
    assert actions.HandOverStop in wished(observe(state, failed))
    assert actions.HandOverStop in wished(state._replace(illnesses=(HUNG,)))


def test_a_start_that_failed_is_looked_at_before_an_orderly_end_gives_the_key_up() -> None:
    """The server was only seen to start; it may have let clients in at the end."""
    state = leading(seen(), renewed(0.1), server=DOWN, stopping_since=NOW, verified_term=Term(0))
    failed = facts.ActionEnded(actions.StartPrimary(TERM), Outcome(Result.FAILED, "broken"), NOW)
    decision = decide(observe(state, failed), NOW)
    assert [type(action) for action in decision.actions if action.lane is actions.Lane.SERVER] == [actions.ExamineCrash]
    assert actions.ReleaseLeader not in {type(action) for action in decision.actions}
