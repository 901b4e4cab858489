"""The election lab: what is known of each protocol comes out of its implementation."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median

import pytest

from hamgr.core.policy import Policy
from hamgr.sim.ground import Ground
from hamgr.sim.lab.bully import ANSWER_S, SILENCE_S
from hamgr.sim.lab.cluster import Cluster
from hamgr.sim.lab.faults import BY_KEY as FAULTS
from hamgr.sim.lab.field import Field, Setting
from hamgr.sim.lab.network import LabNetwork
from hamgr.sim.lab.protocols import BY_KEY, PROTOCOLS, zookeeper
from hamgr.sim.lab.splitvotes import election_s
from hamgr.sim.lab.trial import Seen, run_trial
from hamgr.sim.lab.zookeeper import Ensemble, ZooKeeperNode, ZooKeeperSetting
from hamgr.sim.pace import Pace

PROMOTION_S = 0.15
TICK_S, SESSION_S = 2.0, 6.0
EXPIRY_STEP_S = 0.5
POLL_S = 2.0


def trials(protocol: str, fault: str, members: int, seeds: int) -> list[Seen]:
    return [run_trial(BY_KEY[protocol].build, FAULTS[fault], members, seed) for seed in range(seeds)]


# -- Raft ------------------------------------------------------------------------------------------------------


def test_raft_elects_within_about_one_election_timeout_when_the_first_candidate_wins() -> None:
    gaps = sorted(election_s((150, 300), seed) for seed in range(40))
    assert gaps[0] >= 0.15
    assert median(gaps) < 0.3


def test_raft_splits_votes_for_seconds_where_timeouts_are_alike() -> None:
    narrow = sorted(election_s((150, 151), seed) for seed in range(40))
    wide = sorted(election_s((150, 200), seed) for seed in range(40))
    assert median(narrow) > 10 * median(wide)
    assert narrow[-1] > 2.0


def test_raft_without_pre_vote_is_unseated_by_a_member_that_comes_back() -> None:
    assert any(seen.needless for seen in trials("raft", "cut-followers", 3, 8))


def test_raft_with_pre_vote_is_not() -> None:
    assert not any(seen.changes for seen in trials("raft-prevote", "cut-followers", 3, 8))


def test_raft_for_an_asynchronous_database_has_two_leaders_while_the_old_one_is_cut_off() -> None:
    without, checking = trials("raft", "cut-leader", 3, 4), trials("raft-prevote", "cut-leader", 3, 4)
    assert min(seen.two_s for seen in without) > 40.0
    assert max(seen.two_s for seen in checking) < 1.0


@pytest.mark.parametrize("fault", list(FAULTS))
def test_raft_as_a_whole_never_has_two_leaders_and_loses_nothing(fault: str) -> None:
    seen = trials("raft-whole", fault, 5, 3)
    assert not any(each.two_s or each.lost or each.stale_by for each in seen)


# -- Bully -----------------------------------------------------------------------------------------------------


def test_bully_elects_a_winner_that_lacks_what_another_has() -> None:
    assert any(seen.stale_by and seen.lost for seen in trials("bully", "crash", 3, 4))


def test_bully_is_quick_and_has_a_leader_on_each_side_of_a_partition() -> None:
    for seen in trials("bully", "cut-leader", 5, 3):
        assert SILENCE_S - 0.5 < seen.gap_s < SILENCE_S + 2 * ANSWER_S + PROMOTION_S + 0.3
        assert seen.two_s > 40.0


def test_calls_that_come_late_do_not_beget_more_calls_than_they_are() -> None:
    messages = []
    for members in (15, 51):
        cluster = BY_KEY["bully"].build(random.Random(1), Setting(members))
        run_trial(lambda _dice, _setting, made=cluster: made, FAULTS["loss"], members, 1)
        messages.append(cluster.network.messages)
    assert messages[1] < 51 / 15 * 2 * messages[0]


def test_a_high_id_that_flaps_takes_the_lead_again_and_again() -> None:
    for seen in trials("bully", "flapping", 5, 2):
        assert seen.changes >= 8
    assert not any(seen.needless for seen in trials("raft-prevote", "flapping", 5, 2))


# -- ZooKeeper -------------------------------------------------------------------------------------------------


def test_the_zookeeper_recipe_wakes_one_candidate_when_the_leader_is_gone() -> None:
    setting = ZooKeeperSetting()
    field = zookeeper(setting)(random.Random(1), Setting(51))
    assert isinstance(field, Field)
    field.begin()
    run(field, 20.0)
    (leader,) = field.accepting()
    node = field.nodes[leader]
    assert isinstance(node, ZooKeeperNode)
    ensemble: Ensemble = node.ensemble
    before = ensemble.notified
    field.lose(leader)
    run(field, SESSION_S + TICK_S + 1.0)
    assert len(field.accepting()) == 1
    assert field.accepting() != (leader,)
    assert ensemble.notified == before + 1


def test_the_zookeeper_recipe_needs_a_session_timeout_and_sessions_end_at_ticks() -> None:
    for seen in trials("zookeeper", "crash", 3, 6):
        assert SESSION_S - SESSION_S / 3 < seen.gap_s < SESSION_S + TICK_S + PROMOTION_S + 0.1


def test_a_leader_by_the_recipe_learns_of_its_end_only_when_it_is_back() -> None:
    to_the_letter, stepping_down = (
        trials("zookeeper", "cut-leader", 3, 3),
        trials("zookeeper-latch", "cut-leader", 3, 3),
    )
    assert min(seen.two_s for seen in to_the_letter) > 30.0
    assert not any(seen.two_s for seen in stepping_down)


def test_a_watch_goes_off_once_and_only_for_a_session_that_lives() -> None:
    ground = Ground(random.Random(1), Pace())
    ensemble = Ensemble(ground, ZooKeeperSetting(), lambda: None)
    leader, watcher, late = (ensemble.open(name) for name in "abc")
    number, _ = ensemble.join(leader), ensemble.join(watcher)
    told: list[str] = []
    for _ in range(2):
        assert ensemble.watch(watcher, number, lambda: told.append("watcher"))
    assert ensemble.watch(late, number, lambda: told.append("late"))
    for session in (late, leader):
        ensemble.end(session)
    assert told == ["watcher"]
    assert not ensemble.watch(watcher, number, lambda: told.append("again"))


def test_an_event_that_overtakes_the_answer_of_its_own_watch_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    field = zookeeper(ZooKeeperSetting())(random.Random(1), Setting(2))
    assert isinstance(field, Field)
    watch, from_etcd_s, late_s = Ensemble.watch, LabNetwork.from_etcd_s, [0.001, 0.05]

    def in_turn(network: LabNetwork, target: str) -> float | None:
        return late_s.pop(0) if late_s else from_etcd_s(network, target)

    def watched(ensemble: Ensemble, session_id: int, number: int, tell: Callable[[], None]) -> bool:
        """What is watched goes at once: the event is sent before the answer."""
        found = watch(ensemble, session_id, number, tell)
        monkeypatch.setattr(LabNetwork, "from_etcd_s", in_turn)
        session = ensemble.candidates[number]
        field.lose(ensemble.sessions[session].owner)
        ensemble.end(session)
        return found

    monkeypatch.setattr(Ensemble, "watch", watched)
    field.begin()
    run(field, 5.0)
    assert not late_s
    assert len(field.accepting()) == 1


# -- lease with polling ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "ttl_s", "loop_wait_s", "measured_s"), [("polling-tight", 20, 1, 21.8), ("polling", 30, 10, 25.8)]
)
def test_a_polling_manager_needs_ttl_and_its_polls(
    protocol: str, ttl_s: float, loop_wait_s: float, measured_s: float
) -> None:
    gaps = sorted(seen.gap_s for seen in trials(protocol, "crash", 3, 25))
    assert gaps[0] > ttl_s - loop_wait_s + POLL_S
    assert gaps[-1] < ttl_s + EXPIRY_STEP_S + POLL_S + PROMOTION_S + 0.2
    assert gaps[0] < measured_s < gaps[-1]


def test_a_polling_manager_has_two_leaders_while_the_agent_of_the_first_is_frozen() -> None:
    assert min(seen.two_s for seen in trials("polling-tight", "freeze-agent", 3, 3)) > 20.0


# -- hamgr -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [key for key in FAULTS if key not in ("freeze-host", "cut-all")])
def test_hamgr_never_has_two_leaders(fault: str) -> None:
    for seen in trials("hamgr", fault, 3, 2):
        assert not seen.violation
        assert not seen.two_s
        assert not seen.stale_by


def test_hamgr_changes_no_leader_for_a_frozen_agent_or_a_slow_member() -> None:
    for fault in ("freeze-agent", "slow-leader", "slow-follower", "cut-followers", "loss"):
        assert not any(seen.changes or seen.gap_s for seen in trials("hamgr", fault, 3, 2))


def test_a_leader_that_hears_nothing_of_etcd_does_not_keep_the_key() -> None:
    assert all(seen.gap_s < 2 * Policy().ttl_s + 1.0 for seen in trials("hamgr", "deaf", 3, 4))


def test_hamgr_in_synchronous_mode_loses_nothing() -> None:
    for fault in ("crash", "freeze-host", "cut-leader"):
        assert not any(seen.lost or seen.two_s or seen.violation for seen in trials("hamgr-quorum", fault, 3, 2))


# -- all of them -----------------------------------------------------------------------------------------------


def test_every_protocol_names_its_source_and_its_weaknesses() -> None:
    for protocol in PROTOCOLS:
        assert protocol.source
        assert protocol.weaknesses


def test_a_cluster_that_is_left_alone_keeps_its_leader() -> None:
    for protocol in PROTOCOLS:
        cluster = protocol.build(random.Random(3), Setting(3))
        cluster.begin()
        run(cluster, 40.0)
        leaders = cluster.accepting()
        assert len(leaders) == 1, protocol.key
        run(cluster, 20.0)
        assert cluster.accepting() == leaders, protocol.key


def run(cluster: Cluster, seconds: float) -> None:
    schedule = cluster.ground.schedule
    end = schedule.now + seconds
    while schedule.next_at <= end:
        schedule.step()
    schedule.now = end
