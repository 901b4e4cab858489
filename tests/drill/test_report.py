"""Outcomes as people read them, and what the command line makes of names."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import click
import pytest
from rich.console import Console

from hamgr.drill.commands import chosen_faults, exit_code, plan_for
from hamgr.drill.demo import stop_script
from hamgr.drill.errors import DrillError
from hamgr.drill.faults import FAULTS
from hamgr.drill.hosts import loopback_hosts
from hamgr.drill.plan import Place
from hamgr.drill.report import pipeline_lines, print_line, print_outcome, print_summary
from hamgr.drill.run import Outcome
from hamgr.drill.session import open_session
from hamgr.drill.verdict import TwoPrimaries, Verdict

RECORD = {
    "term": 4,
    "cause": "switchover",
    "former": "db1",
    "leader": "db2",
    "stages": [
        {"name": "detect", "start_s": 0.0, "end_s": 0.002, "by": "db1", "clock": "boottime"},
        {"name": "fence", "start_s": 0.002, "end_s": 0.05, "by": "db1", "clock": "boottime"},
        {"name": "vote", "start_s": None, "end_s": None},
        {"name": "promote", "start_s": 0.05, "end_s": 0.1, "by": "db2", "clock": "boottime"},
    ],
}

SAFE = Verdict(0.11, 0, 0, 1000, (), (), ("db1/1", "db2/2"), {"db1": 0.4, "db2": 0.0})
UNSAFE = Verdict(0.0, 7, 0, 1000, (TwoPrimaries("db1/1", "db2/2", 3.0, 100),), (), ("db1/1", "db2/2"))


def printed(outcome: Outcome) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    print_outcome(console, "planned switchover", outcome)
    print_summary(console, [outcome])
    return stream.getvalue()


def test_each_stage_is_drawn_where_the_one_before_ends() -> None:
    lines = pipeline_lines(RECORD)
    assert [line.split()[0] for line in lines] == ["detect", "fence", "vote", "promote"]
    assert "48.0 ms" in lines[1]
    assert lines[3].index("█") >= lines[1].rindex("█")


def test_stage_that_nobody_measured_is_unknown_not_zero() -> None:
    vote = pipeline_lines(RECORD)[2]
    assert "unknown" in vote
    assert "█" not in vote


def test_record_with_missing_fields_is_still_shown() -> None:
    assert pipeline_lines({}) == ["no stage was measured"]
    assert "unknown" in pipeline_lines({"stages": [{"name": "detect"}, {"name": "x", "start_s": 0, "end_s": 1}]})[0]


def test_good_outcome_shows_pipeline_gap_and_verdict() -> None:
    text = printed(Outcome("switchover", 5, SAFE, RECORD))
    for part in (
        "promote",
        "write gap 110 ms (before the fault 0 ms)",
        "lost 0",
        "db1/1 then db2/2",
        "good",
        "db1 0.40 s",
    ):
        assert part in text


def test_bad_outcome_says_what_is_wrong() -> None:
    text = printed(Outcome("member-lost", 5, UNSAFE))
    assert "7 ACKNOWLEDGED WRITES LOST, TWO PRIMARIES (100 rows of the old one)" in text
    assert "hamgr shows no record" in text


def test_outcome_that_was_not_finished_says_why() -> None:
    assert "not settled after" in printed(Outcome("member-lost", 5, None, error="not settled after 9 s"))


def test_fault_that_ought_to_move_the_leader_and_did_not_is_named() -> None:
    assert "LEADER DID NOT CHANGE" in printed(Outcome("both-gone", 5, SAFE, stayed=True))
    assert "NOT WRITABLE WHILE IT LASTED" in printed(Outcome("both-gone", 5, SAFE, stalled=True))


def test_losses_on_record_are_good_and_said() -> None:
    verdict = replace(SAFE, lost=3, at_risk_bytes=(None,))
    assert "good, losses on record" in printed(Outcome("host-lost", 5, verdict))


def test_one_round_is_one_line() -> None:
    stream = io.StringIO()
    print_line(Console(file=stream, width=80), "3/200 switchover", Outcome("switchover", 5, SAFE, RECORD))
    assert stream.getvalue().count("\n") == 1
    assert "gap 110 ms, lost 0, two primaries 0 ms, changes 1, rejoin 0.4 s: good" in stream.getvalue()


def test_exit_code_is_zero_only_if_all_is_good() -> None:
    good = Outcome("switchover", 5, SAFE)
    unfinished = Outcome("switchover", 5, None, error="x")
    assert exit_code([good, good]) == 0
    assert exit_code([good, unfinished]) == 3
    assert exit_code([unfinished, Outcome("member-lost", 5, UNSAFE)]) == 1
    assert exit_code([Outcome("agent-killed", 5, SAFE, moved_needlessly=True)]) == 1


def test_all_faults_are_chosen_that_the_place_allows() -> None:
    on_loopback = {fault.name for fault in chosen_faults((), Place.LOOPBACK)}
    assert {"both-gone", "etcd-gone"} <= on_loopback
    assert not {"host-lost", "disk-hung", "clock-ahead", "isolated"} & on_loopback
    assert {"host-lost", "disk-hung", "clock-ahead"} <= {fault.name for fault in chosen_faults((), Place.NETNS)}
    in_containers = {fault.name for fault in chosen_faults((), Place.COMPOSE)}
    assert {"host-lost", "isolated", "container-ended", "haproxy-restarted", "etcd-gone"} <= in_containers
    assert not {"disk-hung", "clock-ahead", "both-gone"} & in_containers


def test_every_fault_can_be_drilled_somewhere() -> None:
    everywhere = [fault.name for place in Place for fault in chosen_faults((), place)]
    assert set(everywhere) == FAULTS.keys()


def test_random_choice_without_names_leaves_clocks_alone() -> None:
    assert not [fault for fault in chosen_faults((), Place.NETNS, at_random=True) if fault.needs_clocks]


def test_disks_are_built_only_for_a_fault_that_needs_them() -> None:
    def disks_for(*names: str) -> bool:
        faults = chosen_faults(names, Place.NETNS)
        return plan_for(faults, Place.NETNS, ttl_s=5, synchronous_mode="off").disks

    assert disks_for("host-lost", "disk-hung+replica-lost")
    assert not disks_for("host-lost")


def test_unknown_fault_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(click.BadParameter, match="postgres-killed"):
        chosen_faults(("postgress-killed",), Place.NETNS)


def test_fault_that_needs_own_hosts_is_refused_on_loopback() -> None:
    with pytest.raises(click.BadParameter, match="netns"):
        chosen_faults(("host-lost",), Place.LOOPBACK)


def test_faults_of_different_places_cannot_happen_at_once() -> None:
    with pytest.raises(click.BadParameter, match="different places"):
        chosen_faults(("disk-hung+haproxy-restarted",), Place.COMPOSE)


def test_stop_script_ends_hosts_but_spares_a_pid_that_is_somebody_elses_by_now(room: Path) -> None:
    kept = loopback_hosts(["kept"], room / "hosts", None)["kept"]
    other = subprocess.Popen(["sleep", "1000"])
    gone = subprocess.Popen(["true"])
    gone.wait()
    (room / "cluster-1").mkdir()
    (room / "of-somebody-else").touch()
    script = room / "stop"
    script.write_text(stop_script([kept.pid, other.pid, gone.pid], room))
    try:
        kept.keep()
        ended = subprocess.run(["sh", str(script)], check=False, timeout=30, capture_output=True, text=True)
        assert "/proc/" not in ended.stderr
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    kept.close()
    assert {path.name for path in room.iterdir()} == {"hosts", "of-somebody-else"}


def test_directory_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(DrillError, match="not empty"), open_session(tmp_path):
        pass
    assert (tmp_path / "precious").exists()


def test_evidence_stays_when_all_else_of_a_session_goes() -> None:
    with open_session(None) as session:
        (session.directory / "cluster-1").mkdir()
        folder = session.new_evidence("001-host-lost")
        folder.mkdir(parents=True)
    try:
        assert [path.name for path in session.directory.iterdir()] == ["failed"]
    finally:
        shutil.rmtree(session.directory)


def test_session_without_evidence_leaves_nothing() -> None:
    with open_session(None) as session:
        (session.directory / "cluster-1").mkdir()
    assert not session.directory.exists()
