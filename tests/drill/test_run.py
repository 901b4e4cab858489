"""A drill from the first settling to the verdict, on one member with a stand-in for the agent."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hamgr.drill import member as member_module
from hamgr.drill.accounts import server_account
from hamgr.drill.cluster import Cluster, Plan, why_unsettled
from hamgr.drill.errors import DrillError
from hamgr.drill.faults import FAULTS
from hamgr.drill.member import Standing
from hamgr.drill.run import run_drill

STUB = Path(__file__).with_name("stub_agent.py")


@pytest.fixture
def cluster(room: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(member_module, "AGENT", (str(STUB),))
    made = Cluster(Plan(directory=room, account=server_account(), members=1, store_members=3, ttl_s=2))
    yield made
    made.close()


def say_nothing(_: str) -> None:
    return


def test_killed_server_gives_a_safe_verdict_with_a_gap(cluster: Cluster) -> None:
    cluster.start()
    outcome = run_drill(cluster, FAULTS["postgres-killed"], say_nothing)
    assert outcome.error == ""
    assert outcome.verdict is not None
    assert outcome.verdict.is_safe
    assert outcome.verdict.write_gap_s is not None
    assert outcome.verdict.write_gap_s > 0.02
    assert outcome.verdict.leader_changes == 0
    assert outcome.is_good


def test_drill_is_not_finished_when_writes_do_not_come_back_and_the_fault_is_undone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hamgr.drill.run._FLOW_TIMEOUT_S", 0.5)
    cluster.start()
    outcome = run_drill(cluster, FAULTS["member-lost"], say_nothing)
    assert "no steady writes" in outcome.error
    assert not outcome.is_good
    assert cluster.wait_until_settled(30).name == "db1"


def test_etcd_leader_killed_changes_nothing_here_and_comes_back(cluster: Cluster) -> None:
    cluster.start()
    outcome = run_drill(cluster, FAULTS["etcd-leader-killed"], say_nothing)
    assert outcome.is_good
    assert cluster.store.leader() is not None


def test_pids_of_guard_agent_and_postmaster_are_those_of_living_processes(cluster: Cluster) -> None:
    cluster.start()
    (member,) = cluster.members
    assert member.guard_pid() != member.postmaster_pid()
    member.host.kill_all()
    with pytest.raises(DrillError, match="dead"):
        member.postmaster_pid()


def test_a_dead_process_that_nobody_has_reaped_yet_does_not_live(cluster: Cluster) -> None:
    (member,) = cluster.members
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    member.data_dir.mkdir(parents=True, exist_ok=True)
    (member.data_dir / "postmaster.pid").write_text(f"{zombie.pid}\n")
    with pytest.raises(DrillError, match="dead"):
        member.postmaster_pid()
    zombie.wait()


PRIMARY = Standing(is_primary=True, is_streaming=False, timeline=3)
STREAMING = Standing(is_primary=False, is_streaming=True, timeline=3)


def test_one_primary_and_streaming_replicas_are_settled() -> None:
    assert why_unsettled("a", {"a": PRIMARY, "b": STREAMING, "c": STREAMING}) == ""


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        (None, "b: postgres does not answer"),
        (PRIMARY, "b and a are both primary by SQL"),
        (Standing(False, False, 3), "b does not stream"),
        (Standing(False, True, 2), "b streams timeline 2, a writes 3"),
    ],
)
def test_anything_else_is_not_settled_and_says_why(standing: Standing | None, reason: str) -> None:
    assert why_unsettled("a", {"a": PRIMARY, "b": standing, "c": STREAMING}) == reason


def test_leader_by_rest_that_is_a_standby_by_sql_is_not_settled() -> None:
    assert why_unsettled("a", {"a": STREAMING, "b": STREAMING}) == "a leads by REST but by SQL it is a standby"
