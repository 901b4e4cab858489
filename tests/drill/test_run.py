"""A drill from the first settling to the verdict, on one member with a stand-in for the agent."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hamgr.drill import member as member_module
from hamgr.drill.accounts import server_account
from hamgr.drill.base_cluster import why_unsettled
from hamgr.drill.cluster import Cluster
from hamgr.drill.errors import DrillError
from hamgr.drill.evidence import keep_evidence
from hamgr.drill.fault import Victims
from hamgr.drill.faults import FAULTS, fault_named
from hamgr.drill.hosts import wait_until_all_ended
from hamgr.drill.plan import Plan
from hamgr.drill.run import Harm, Outcome, outcome_of, run_drill
from hamgr.drill.server import Standing
from hamgr.drill.verdict import Verdict

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


def test_fault_that_nobody_makes_up_for_is_undone_and_the_verdict_says_so(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hamgr.drill.run._FLOW_TIMEOUT_S", 0.5)
    cluster.start()
    outcome = run_drill(cluster, FAULTS["member-lost"], say_nothing)
    assert outcome.error == ""
    assert (outcome.stalled, outcome.stayed) == (True, True)
    assert not outcome.is_good
    assert cluster.wait_until_settled(30).name == "db1"


def test_time_to_rejoin_counts_from_the_end_of_a_fault_that_lasts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hamgr.drill.run._FLOW_TIMEOUT_S", 0.5)
    cluster.start()
    outcome = run_drill(cluster, FAULTS["member-lost"], say_nothing)
    assert outcome.verdict is not None
    assert outcome.verdict.write_gap_s is not None
    assert 0 < outcome.verdict.rejoin_s["db1"] < outcome.verdict.write_gap_s


def test_evidence_of_a_bad_run_is_complete(cluster: Cluster, room: Path) -> None:
    cluster.start()
    outcome = run_drill(cluster, FAULTS["postgres-killed"], say_nothing)
    folder = keep_evidence(room / "failed" / "1", cluster, outcome)
    kept = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert kept >= {
        "outcome.json",
        "members.json",
        "failovers.json",
        "etcd.json",
        "logs/db1.log",
        "logs/etcd1-etcd.log",
        "logs/client/routed.acks",
        "logs/client/pinned.acks",
    }
    assert json.loads((folder / "outcome.json").read_text())["fault"] == "postgres-killed"
    assert "/drill/etcd1" in json.loads((folder / "etcd.json").read_text())


def test_evidence_of_a_cluster_that_never_was_is_the_outcome(room: Path) -> None:
    folder = keep_evidence(room / "failed" / "1", None, Outcome("host-lost", 5, None, error="no etcd"))
    assert [path.name for path in folder.iterdir()] == ["outcome.json"]


def test_etcd_leader_killed_changes_nothing_here_and_comes_back(cluster: Cluster) -> None:
    cluster.start()
    outcome = run_drill(cluster, FAULTS["etcd-leader-killed"], say_nothing)
    assert outcome.is_good
    assert cluster.store.leader() is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise priorities")
def test_spinners_outrank_all_but_etcd_and_the_drill_and_everything_is_as_before_when_undone(cluster: Cluster) -> None:
    cluster.store.start()
    equals = [os.getpid(), *(member.process.pid for member in cluster.store.members if member.process is not None)]

    def priorities() -> list[int]:
        return [os.getpriority(os.PRIO_PROCESS, pid) for pid in equals]

    before = priorities()
    undo = FAULTS["cpu-starved"].arm(Victims(cluster, cluster.members[0], ()))
    try:
        spinners = list(cluster.client_host.processes.values())
        assert len(spinners) > (os.cpu_count() or 1)
        assert priorities() == [-20] * len(equals)
    finally:
        undo()
    assert wait_until_all_ended(spinners, 10)
    assert priorities() == before


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


def test_synchronous_cluster_is_settled_only_with_a_standby_to_wait_for() -> None:
    alone = {"a": PRIMARY, "b": STREAMING}
    assert why_unsettled("a", alone, synchronous=True) == "no commit on a waits for a standby"
    waiting = {"a": replace(PRIMARY, synchronous_standbys=1), "b": STREAMING}
    assert why_unsettled("a", waiting, synchronous=True) == ""


def verdict_of(leaderships: tuple[str, ...]) -> Verdict:
    return Verdict(0.1, 0, 0, 1000, (), (), leaderships)


CAME_BACK = Harm(0, 1, lasted=True, writes_came_back=True)
STALLED = Harm(0, 1, lasted=True, writes_came_back=False)
ONE, TWO, THREE = ("a/1",), ("a/1", "b/2"), ("a/1", "b/2", "c/3")


@pytest.mark.parametrize(
    ("fault", "leaderships", "harm", "is_good"),
    [
        ("agent-killed", ONE, CAME_BACK, True),
        ("agent-killed", TWO, CAME_BACK, False),
        ("postgres-killed", ONE, CAME_BACK, True),
        ("postgres-killed", TWO, CAME_BACK, True),
        ("postgres-killed", THREE, CAME_BACK, False),
        ("host-lost", ONE, CAME_BACK, False),
        ("host-lost", TWO, CAME_BACK, True),
        ("host-lost", TWO, STALLED, False),
        ("host-lost", THREE, CAME_BACK, False),
        ("again:host-lost", THREE, CAME_BACK, True),
        ("again:host-lost", TWO, STALLED, True),
        ("again:postgres-killed", TWO, STALLED, False),
        ("host-lost+etcd-gone", TWO, STALLED, True),
        ("host-lost+etcd-gone", ONE, STALLED, True),
    ],
)
def test_what_a_fault_may_do_to_the_leader(
    fault: str, leaderships: tuple[str, ...], harm: Harm, is_good: bool, room: Path
) -> None:
    outcome = outcome_of(fault_named(fault), Plan(room, None), harm, verdict_of(leaderships), [])
    assert outcome.is_good is is_good
