"""The failover budget: upper bounds per stage of the pipeline that follow from the configuration. DESIGN.md 6.

A bound holds after one fault, on hosts that are not overloaded. What is physical and not configured has a stated
allowance, several times what was measured (DESIGN.md 2), and the measured value beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hamgr.core.pipeline import STAGES
from hamgr.core.policy import (
    DISK_ILLNESS_SHOWS_S,
    KILL_BUDGET_S,
    SENTRY_BUDGET_S,
    STOP_BEFORE_KILL_S,
    Policy,
    agent_timeout_of,
)

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

CHECK_S = 0.25
"""A vital check's own time, and the loop's turn after it."""

BUSY_S = 0.1
"""Allowance for a commit that waits for a core or for the disk; 10 ms is usual on a machine with two cores."""

ADOPTION_S = 0.5
"""What a new agent needs, from its start, to adopt server and lease (DESIGN.md 3)."""

STOP_LATE_S = 0.1
"""How long before its stop a server may have acknowledged last: a client that waits."""

ROUTE_S = 1.0
"""Load balancer or pool has seen the new health answer: one check interval of 1 s."""


@dataclass(frozen=True, slots=True)
class StageBudget:
    """A stage and how long it takes. `best_s` and `bound_s`: where chance falls best and worst (between two checks, two
    renewals); `typical_s`: in the middle, with what was measured on an idle machine.
    """

    name: str
    best_s: float
    typical_s: float
    bound_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault and its pipeline. `cause` is the code that failover records carry."""

    name: str
    cause: str
    title: str
    stages: tuple[StageBudget, ...]
    remark: str = ""
    writes_until: str = ""
    """The old primary still acknowledges until this stage begins; empty: it does not from the fault on."""

    @property
    def gap(self) -> tuple[float, float, float]:
        """Write gap as the application sees it, in seconds: best, typical, upper bound."""
        stages = [stage for stage in self.stages if stage.name != "routed"]
        names = [stage.name for stage in stages]
        silent = stages[names.index(self.writes_until) :] if self.writes_until else stages
        return (
            sum(stage.best_s for stage in silent),
            sum(stage.typical_s for stage in silent),
            sum(stage.bound_s for stage in silent),
        )

    @property
    def writable_s(self) -> float:
        """Upper bound from the fault to the first write on the new primary."""
        return sum(stage.bound_s for stage in self.stages if stage.name != "routed")

    @property
    def routed_s(self) -> float:
        """Upper bound until load balancers have followed."""
        return sum(stage.bound_s for stage in self.stages)

    @property
    def typical_s(self) -> float:
        """From the fault to the first write, with what was measured on an idle machine."""
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

    def scenario(self, name: str) -> Scenario | None:
        """The scenario of that name, or the first of a record's cause; None if there is none."""
        named = (each for each in self.scenarios if each.name == name)
        return next(named, next((each for each in self.scenarios if each.cause == name), None))


def failover_budget(policy: Policy) -> Budget:
    """Bounds for every kind of leadership change under this policy. Seconds."""
    deadline_s = policy.ttl_s - policy.margin_s
    return Budget(
        scenarios=(
            *_without_loss(policy),
            *_by_expiry(policy),
            _server_crashed(policy),
            *_server_ill(policy),
            *_planned(policy),
        ),
        renew_interval_s=policy.renew_interval_s,
        stop_begins_s=deadline_s - KILL_BUDGET_S - STOP_BEFORE_KILL_S,
        fenced_s=deadline_s,
    )


def budget_by_stage(policy: Policy, cause: str) -> Mapping[str, float]:
    """Bound by stage for a failover record of this cause; empty for a cause without a pipeline (bootstrap)."""
    scenario = failover_budget(policy).scenario(cause)
    return {stage.name: round(stage.bound_s, 4) for stage in scenario.stages} if scenario else {}


def _without_loss(policy: Policy) -> tuple[Scenario, ...]:
    """Faults that take nothing from the data plane: nobody else leads, and writes go on."""
    busy = {"writable": BUSY_S}
    why = "the server is not touched; whoever starts anew takes CPU from it"
    quiet = tuple(StageBudget(name, 0.0, busy.get(name, 0.0) / 10, busy.get(name, 0.0), why) for name in STAGES)
    store = "the other members promise to wait" if policy.failsafe_mode else "failsafe_mode is off: as cut off"
    left_s = _left_for_adoption_s(policy, policy.renew_interval_s)
    remark = f"replaced within the lease, if it starts within {left_s:.1f} s"
    spared = [Scenario("agent_lost", "", "agent or guard killed, guard frozen", quiet, remark)]
    if _frozen_agent_is_replaced(policy, policy.renew_interval_s):
        spared.append(Scenario("agent_frozen", "", "agent frozen", quiet, "replaced within the lease"))
    if policy.failsafe_mode:
        spared.append(Scenario("store_lost", "", "all of etcd lost, or cut off from etcd alone", quiet, store))
    return tuple(spared)


def _frozen_agent_is_replaced(policy: Policy, renewed_before_s: float) -> bool:
    """Whether a new agent leads on before the guard has to kill, if the last renewal was so long before the freeze."""
    return agent_timeout_of(policy.ttl_s) + ADOPTION_S <= _left_for_adoption_s(policy, renewed_before_s)


def _left_for_adoption_s(policy: Policy, renewed_before_s: float) -> float:
    return max(0.0, policy.ttl_s - policy.margin_s - KILL_BUDGET_S - renewed_before_s)


def _by_expiry(policy: Policy) -> tuple[Scenario, ...]:
    """Nobody on the old primary's host can say anything: its lease has to run out."""
    ttl_s, margin_s = policy.ttl_s, policy.margin_s
    detect = StageBudget(
        "detect",
        ttl_s - policy.renew_interval_s,
        ttl_s - policy.renew_interval_s / 2 + ETCD_EXPIRY_S / 2,
        ttl_s + ETCD_EXPIRY_S,
        "what is left of the ttl, and etcd looks for expired leases every 0.5 s",
    )

    def until_expiry(ends_before_s: float, why: str) -> StageBudget:
        ends_s = ends_before_s + margin_s
        return StageBudget("fence", ends_s, ends_s + ETCD_EXPIRY_S / 2, ends_s + ETCD_EXPIRY_S + STOP_LATE_S, why)

    def still_writing(fence: StageBudget) -> tuple[StageBudget, ...]:
        begins = StageBudget(
            "detect",
            max(0.0, detect.best_s - fence.best_s),
            max(0.0, detect.typical_s - fence.typical_s),
            max(0.0, detect.bound_s - fence.best_s),
            "the old primary acknowledges until shortly before its deadline",
        )
        return (begins, fence, *_election(policy), *_promotion())

    fenced = StageBudget("fence", 0.0, 0.0, 0.0, "the old primary ended before the lease did")
    stopped = until_expiry(KILL_BUDGET_S + STOP_BEFORE_KILL_S, "its agent stops the server, then the lease runs out")
    ended = until_expiry(SENTRY_BUDGET_S, "the sentry ends the server, then the lease runs out")
    killed = until_expiry(KILL_BUDGET_S, "the guard kills the server, then the lease runs out")
    scenarios = [
        Scenario("host_lost", "leader_lost", "host lost", (detect, fenced, *_election(policy), *_promotion())),
        Scenario(
            "isolated",
            "leader_lost",
            "cut off from etcd and the members, clients reach it",
            still_writing(stopped),
            "asynchronous writes until the old primary ends are lost",
            writes_until="fence",
        ),
        Scenario(
            "control_lost",
            "leader_lost",
            "agent and guard lost, not started again",
            still_writing(ended),
            writes_until="fence",
        ),
    ]
    if not _frozen_agent_is_replaced(policy, policy.renew_interval_s):
        remark = "the ttl is too short for replacing it in time"
        if _frozen_agent_is_replaced(policy, 0.0):
            remark += ", unless it froze right after a renewal"
        frozen = still_writing(killed)
        scenarios.append(Scenario("agent_frozen", "leader_lost", "agent frozen", frozen, remark, writes_until="fence"))
    return tuple(scenarios)


def _election(policy: Policy) -> tuple[StageBudget, ...]:
    return (
        StageBudget("vote", 0.001, 0.01, policy.election_window_s, "election_window, if a live member does not vote"),
        StageBudget("elect", 0.001, 0.003, TAKE_S, "one transaction"),
    )


def _offered(policy: Policy) -> tuple[StageBudget, ...]:
    return (
        StageBudget("vote", 0.001, 0.01, policy.offer_timeout_s, "the lead is offered for so long"),
        StageBudget("elect", 0.001, 0.003, TAKE_S, "one transaction"),
        *_promotion(),
    )


def _server_crashed(policy: Policy) -> Scenario:
    stages = (
        StageBudget("detect", 0.001, 0.01, NOTICE_S, "the death is an event (pidfd)"),
        StageBudget("fence", 0.01, 0.03, EXAMINE_S, "rest of the tree killed, end of WAL read"),
        *_offered(policy),
    )
    remark = (
        "if no replica holds all WAL of the crashed server it restarts in place, "
        f"within primary_start_timeout ({policy.primary_start_timeout_s:g} s)"
    )
    return Scenario("server_crashed", "server_crashed", "PostgreSQL killed, host alive", stages, remark)


def _server_ill(policy: Policy) -> tuple[Scenario, ...]:
    """The server runs and cannot do its work: a vital check fails, and it is put down."""
    put_down = StageBudget("fence", 0.01, 0.05, EXAMINE_S, "the tree killed, end of WAL read")
    connection = _noticed(
        policy, policy.probe_connection_timeout_s, "probe_connection_timeout, checked every loop_wait"
    )
    commit = _noticed(policy, policy.probe_commit_timeout_s, "probe_commit_timeout, checked every loop_wait")
    disk = _noticed(policy, DISK_ILLNESS_SHOWS_S, "checked every loop_wait, and whether other members share it")
    remark = "only where another member is well"
    return (
        Scenario("server_hung", "server_hung", "server hung", (connection, put_down, *_offered(policy)), remark),
        Scenario("disk_hung", "server_hung", "disk hung", (commit, put_down, *_offered(policy)), remark),
        Scenario("disk_failed", "disk_failed", "disk full or read-only", (disk, put_down, *_offered(policy)), remark),
    )


def _noticed(policy: Policy, patience_s: float, why: str) -> StageBudget:
    wait_s = policy.loop_wait_s
    return StageBudget("detect", patience_s, patience_s + wait_s / 2, patience_s + wait_s + CHECK_S, why)


def _planned(policy: Policy) -> tuple[Scenario, Scenario]:
    vote_s = min(policy.election_window_s, policy.handover_timeout_s)
    take_s = max(TAKE_S, policy.handover_timeout_s - vote_s)
    stages = (
        StageBudget("detect", 0.0, 0.0, 0.0, "planned"),
        StageBudget("fence", 0.02, 0.04, policy.primary_stop_timeout_s, "primary_stop_timeout; checkpointed before"),
        StageBudget("vote", 0.001, 0.005, vote_s, "part of handover_timeout"),
        StageBudget("elect", 0.001, 0.005, take_s, "rest of handover_timeout, else the old primary starts again"),
        *_promotion(),
    )
    return (
        Scenario("switchover", "switchover", "planned switchover", stages),
        Scenario("shutdown", "shutdown", "leader shut down", stages),
    )


def _promotion() -> tuple[StageBudget, ...]:
    return (
        StageBudget("promote", 0.02, 0.04, PROMOTE_S, "allowance; WAL not yet replayed comes on top"),
        StageBudget("writable", 0.001, 0.01, VERIFY_S, "allowance: first write verified"),
        StageBudget("routed", 0.0, ROUTE_S / 2, ROUTE_S, "allowance: one health check interval of the load balancer"),
    )
