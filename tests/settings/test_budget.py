"""The failover budget follows from the policy."""

from __future__ import annotations

import pytest

from hamgr.core.budget import budget_by_stage, failover_budget
from hamgr.core.pipeline import STAGES
from hamgr.core.policy import Policy

CAUSES = ("leader_lost", "server_crashed", "server_hung", "disk_failed", "switchover", "shutdown")
SCENARIOS = (
    *("agent_lost", "agent_frozen", "store_lost", "host_lost", "isolated", "control_lost", "server_crashed"),
    *("server_hung", "disk_hung", "disk_failed", "switchover", "shutdown"),
)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("ttl_s", [2.0, 5.0, 30.0])
def test_every_scenario_bounds_every_stage_in_the_pipelines_order(name, ttl_s):
    scenario = failover_budget(Policy(ttl_s=ttl_s)).scenario(name)
    assert tuple(stage.name for stage in scenario.stages) == STAGES
    assert all(stage.bound_s >= stage.typical_s >= stage.best_s >= 0 and stage.why for stage in scenario.stages)
    best, typical, worst = scenario.gap
    assert worst >= typical >= best >= 0
    assert worst <= scenario.writable_s


@pytest.mark.parametrize("cause", CAUSES)
def test_record_of_every_cause_has_bounds(cause):
    assert set(budget_by_stage(Policy(), cause)) == set(STAGES)


def test_writes_of_an_old_primary_that_still_serves_are_no_gap():
    """It is silent from its stop until its lease has run out, whatever the ttl."""
    for name in ("isolated", "control_lost"):
        short, long = (failover_budget(Policy(ttl_s=ttl)).scenario(name) for ttl in (5.0, 30.0))
        assert long.gap[2] - short.gap[2] == pytest.approx(Policy(ttl_s=30.0).margin_s - Policy(ttl_s=5.0).margin_s)
        assert long.writable_s - short.writable_s >= 20.0


def test_a_frozen_agent_costs_nothing_where_the_ttl_leaves_time_for_another():
    for ttl_s, is_noticed in ((2.0, True), (5.0, False), (30.0, False)):
        worst = failover_budget(Policy(ttl_s=ttl_s)).scenario("agent_frozen").gap[2]
        assert (worst > 1.0) == is_noticed


def test_without_failsafe_mode_nothing_is_promised_for_the_loss_of_etcd():
    assert failover_budget(Policy(failsafe_mode=False)).scenario("store_lost") is None


def test_host_lost_is_noticed_within_ttl_and_etcds_granularity():
    for ttl in (2.0, 5.0, 30.0):
        assert budget_by_stage(Policy(ttl_s=ttl), "leader_lost")["detect"] == ttl + 0.5


def test_old_primary_is_dead_before_its_lease_can_end():
    for ttl in (2.0, 5.0, 300.0):
        budget = failover_budget(Policy(ttl_s=ttl))
        assert budget.renew_interval_s < budget.stop_begins_s < budget.fenced_s < ttl


def test_fault_on_a_live_host_does_not_depend_on_ttl():
    for cause in ("server_crashed", "switchover"):
        short, long = (failover_budget(Policy(ttl_s=ttl)).scenario(cause) for ttl in (2.0, 60.0))
        assert short.writable_s == long.writable_s
        assert short.routed_s > short.writable_s > short.typical_s


def test_cause_without_a_pipeline_has_no_budget():
    assert budget_by_stage(Policy(), "bootstrap") == {}
