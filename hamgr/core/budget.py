"""The failover budget: upper bounds per stage of the pipeline that follow from the configuration. DESIGN.md 6.

A bound holds after one fault, on hosts that are not overloaded. What is physical and not configured has a stated
allowance, several times what was measured (DESIGN.md 2), and the measured value beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hamgr.core.policy import KILL_BUDGET_S, STOP_BEFORE_KILL_S, Policy

ETCD_EXPIRY_S = 0.5
"""etcd looks for expired leases every 0.5 s: one of 2 s was seen to end after 2.0-2.5 s."""

NOTICE_S = 0.05
"""A dead postmaster is known by pidfd after 2-50 ms."""

EXAMINE_S = 0.5
"""After a crash: the last of the tree killed, the end of WAL on disk read."""

TAKE_S = 0.1
"""One transaction and its watch event: etcd put 0.8 ms, delete to watch 1.3 ms, WAL fsync of a slow disk."""

PROMOTE_S = 0.5
"""pg_promote to the end of recovery: 33-43 ms measured, when no WAL is left to replay."""

VERIFY_S = 0.1
"""First write on the new timeline verified, health answers published."""

ROUTE_S = 1.0
"""Load balancer or pool has seen the new health answer: one check interval of 1 s."""


@dataclass(frozen=True, slots=True)
class StageBudget:
    """A stage and how long it may take. `typical_s` is what was measured on an idle machine."""

    name: str
    bound_s: float
    typical_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault and its pipeline. `cause` is the code that failover records carry."""

    cause: str
    title: str
    stages: tuple[StageBudget, ...]
    remark: str = ""

    @property
    def writable_s(self) -> float:
        """Upper bound of the write gap: from the fault to the first write on the new primary."""
        return sum(stage.bound_s for stage in self.stages if stage.name != "routed")

    @property
    def routed_s(self) -> float:
        """Upper bound until load balancers have followed."""
        return sum(stage.bound_s for stage in self.stages)

    @property
    def typical_s(self) -> float:
        """Write gap as it was measured on an idle machine."""
        return sum(stage.typical_s for stage in self.stages if stage.name != "routed")


@dataclass(frozen=True, slots=True)
class Budget:
    """What `hamgr validate` prints. `fenced_s`: an isolated or frozen primary is dead this long after its last
    renewal was sent, before anybody else can lead.
    """

    scenarios: tuple[Scenario, ...]
    renew_interval_s: float
    stop_begins_s: float
    fenced_s: float

    def scenario(self, cause: str) -> Scenario | None:
        """The scenario of a record's cause, None if it has none."""
        return next((each for each in self.scenarios if each.cause == cause), None)


def failover_budget(policy: Policy) -> Budget:
    """Bounds for every kind of leadership change under this policy. Seconds."""
    deadline_s = policy.ttl_s - policy.margin_s
    return Budget(
        scenarios=(_host_lost(policy), _agent_lost(policy), _server_crashed(policy), *_planned(policy)),
        renew_interval_s=policy.renew_interval_s,
        stop_begins_s=deadline_s - KILL_BUDGET_S - STOP_BEFORE_KILL_S,
        fenced_s=deadline_s,
    )


def budget_by_stage(policy: Policy, cause: str) -> Mapping[str, float]:
    """Bound by stage for a failover record of this cause; empty for a cause without a pipeline (bootstrap)."""
    scenario = failover_budget(policy).scenario(cause)
    return {stage.name: round(stage.bound_s, 4) for stage in scenario.stages} if scenario else {}


def _host_lost(policy: Policy) -> Scenario:
    return Scenario("leader_lost", "host lost, or cut off from etcd", _by_expiry(policy))


def _agent_lost(policy: Policy) -> Scenario:
    remark = "the agent alone, killed or frozen, is replaced by the guard: no write gap"
    return Scenario("agent_lost", "agent and guard lost, not started again", _by_expiry(policy), remark)


def _by_expiry(policy: Policy) -> tuple[StageBudget, ...]:
    detect_s = policy.ttl_s + ETCD_EXPIRY_S
    detect = StageBudget("detect", detect_s, policy.ttl_s, "ttl, and etcd looks for expired leases every 0.5 s")
    fence = StageBudget("fence", 0.0, 0.0, "the old primary ended before the lease did")
    vote = StageBudget("vote", policy.election_window_s, 0.01, "election_window, if a live member does not vote")
    elect = StageBudget("elect", TAKE_S, 0.003, "one transaction")
    return (detect, fence, vote, elect, *_promotion())


def _server_crashed(policy: Policy) -> Scenario:
    stages = (
        StageBudget("detect", NOTICE_S, 0.01, "the death is an event (pidfd)"),
        StageBudget("fence", EXAMINE_S, 0.03, "rest of the tree killed, end of WAL read"),
        StageBudget("vote", policy.offer_timeout_s, 0.01, "the lead is offered for so long"),
        StageBudget("elect", TAKE_S, 0.003, "one transaction"),
        *_promotion(),
    )
    remark = (
        "if no replica holds all WAL of the crashed server it restarts in place, "
        f"within primary_start_timeout ({policy.primary_start_timeout_s:g} s)"
    )
    return Scenario("server_crashed", "PostgreSQL killed, host alive", stages, remark)


def _planned(policy: Policy) -> tuple[Scenario, Scenario]:
    vote_s = min(policy.election_window_s, policy.handover_timeout_s)
    take_s = max(TAKE_S, policy.handover_timeout_s - vote_s)
    stages = (
        StageBudget("detect", 0.0, 0.0, "planned"),
        StageBudget("fence", policy.primary_stop_timeout_s, 0.04, "primary_stop_timeout; checkpointed before"),
        StageBudget("vote", vote_s, 0.005, "part of handover_timeout"),
        StageBudget("elect", take_s, 0.005, "rest of handover_timeout, else the old primary starts again"),
        *_promotion(),
    )
    return Scenario("switchover", "planned switchover", stages), Scenario("shutdown", "leader shut down", stages)


def _promotion() -> tuple[StageBudget, ...]:
    return (
        StageBudget("promote", PROMOTE_S, 0.04, "allowance; WAL not yet replayed comes on top"),
        StageBudget("writable", VERIFY_S, 0.01, "allowance: first write verified"),
        StageBudget("routed", ROUTE_S, ROUTE_S / 2, "allowance: one health check interval of the load balancer"),
    )
