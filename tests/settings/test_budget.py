"""The failover budget follows from the policy."""

from __future__ import annotations

import pytest

from hamgr.core.budget import budget_by_stage, failover_budget
from hamgr.core.pipeline import STAGES
from hamgr.core.policy import Policy

CAUSES = ("leader_lost", "agent_lost", "server_crashed", "switchover", "shutdown")


@pytest.mark.parametrize("cause", CAUSES)
def test_every_scenario_bounds_every_stage_in_the_pipelines_order(cause):
    scenario = failover_budget(Policy()).scenario(cause)
    assert tuple(stage.name for stage in scenario.stages) == STAGES
    assert all(stage.bound_s >= stage.typical_s >= 0 and stage.why for stage in scenario.stages)


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
