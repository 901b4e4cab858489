"""What samples come to, and what a survey means on paper."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hamgr.fleet.document import document_of, table
from hamgr.fleet.findings import Calm, Elections, Findings, Spread, Step, delays_of, spread_of
from hamgr.fleet.gauges import Load, MemberLoad, MemberReading, Reading, load_between, quantile
from hamgr.fleet.outlook import agents_for_room, bytes_per_write, hours_to_quota, line_through, outlook_for

S = 1_000_000_000


def test_spread_names_median_p99_and_worst() -> None:
    assert spread_of([float(number) for number in range(1, 201)]) == Spread(200, 100.5, 199.0, 200.0)
    assert spread_of([]) is None


def test_change_is_seen_by_each_watch_with_its_revision_or_a_later_one() -> None:
    sent = [("c1", 5, 1 * S), ("c1", 7, 2 * S)]
    seen = [("c1", "a", 5, int(1.5 * S)), ("c1", "a", 7, int(2.25 * S)), ("c1", "b", 8, 4 * S), ("c2", "a", 5, 9 * S)]
    delays = delays_of(sent, seen, members=2)
    assert delays.unseen == 0
    assert delays.spread == spread_of([0.5, 0.25, 3.0, 2.0])


def test_change_that_a_watch_never_yielded_is_unseen_not_fast() -> None:
    delays = delays_of([("c1", 5, 1 * S)], [("c1", "a", 4, 2 * S), ("c1", "b", 5, 2 * S)], members=3)
    assert delays.unseen == 2
    assert delays.spread is not None
    assert delays.spread.count == 1


def test_quantile_of_a_histogram_is_the_bound_of_its_bucket() -> None:
    assert quantile({0.001: 50.0, 0.002: 98.0, 0.004: 100.0, float("inf"): 100.0}, 0.99) == 0.004
    assert quantile({0.001: 0.0}, 0.99) is None


def reading(at_s: float, proposals: float, cpu_s: float) -> Reading:
    metrics = {
        "etcd_server_proposals_committed_total": proposals,
        "etcd_server_is_leader": 1.0,
        "etcd_server_leader_changes_seen_total": 1.0,
        "etcd_mvcc_db_total_size_in_bytes": 1000.0 * proposals,
        "etcd_debugging_mvcc_watcher_total": 9.0,
        "etcd_network_client_grpc_sent_bytes_total": 0.0,
        "process_open_fds": 20.0,
        "grpc_server_handled_total": 2 * proposals,
    }
    return Reading(at_s, (MemberReading("etcd1", cpu_s, 1 << 20, metrics, {}),), 2 * cpu_s, 0.0)


def test_load_is_what_happened_between_two_readings_per_second() -> None:
    load = load_between(reading(10.0, 100.0, 1.0), reading(20.0, 200.0, 3.0))
    assert (load.seconds, load.proposals_per_s, load.db_growth_bytes_per_s) == (10.0, 10.0, 10_000.0)
    assert (load.members[0].cpu_share, load.agents_cpu_share) == (0.2, 0.4)
    assert load.members[0].requests_per_s == 20.0
    assert load.fsync_p99_s is None


def load_of(cpu_share: float, proposals_per_s: float) -> Load:
    members = tuple(
        MemberLoad(f"etcd{number}", number == 1, cpu_share / number, 50 << 20, 10, 100, 30.0, 1000.0)
        for number in (1, 2, 3)
    )
    return Load(30.0, members, proposals_per_s, 1 << 20, 100 * proposals_per_s, 0.004, 0, 0.3, 0.5)


def step_of(clusters: int) -> Step:
    some = Spread(100, 0.002, 0.009, 0.05)
    agents = 3 * clusters
    idle, busy = load_of(0.001 * agents, 0.1), load_of(0.01 + 0.001 * agents, float(clusters))
    calms = [Calm(load, some, 0, clusters, delays_of([], [], 3)) for load in (idle, busy)]
    lost = Elections(3, False, some, 0, None, 17.0)
    return Step(clusters, agents, 1.0, *calms, lost, replace(lost, at_once=True, lateness=some), 0)


def findings_of(*sizes: int) -> Findings:
    steps = tuple(step_of(clusters) for clusters in sizes)
    return Findings("1", "3.4", "m", "netns", "2026", "scripts/fleet", 600.0, 3, 5, 1, False, steps)


def test_line_goes_through_points_that_lie_on_one() -> None:
    line = line_through([(10, 1.5), (20, 2.5), (40, 4.5)])
    assert line is not None
    assert (line.base, line.slope, line.worst_error) == (pytest.approx(0.5), pytest.approx(0.1), pytest.approx(0.0))
    assert line_through([(10, 1.0), (10, 2.0)]) is None


def test_outlook_goes_on_as_it_was_measured() -> None:
    named = {each.name: each.text for each in outlook_for(findings_of(3, 10, 100), 3000)}
    assert named["the same, clusters that are written to"] == "3.01 cores"
    assert named["proposals, written to"] == "1000.0/s"
    assert named["watches, all members"] == "some 30"


def test_room_and_quota_follow_from_the_lines() -> None:
    findings = findings_of(3, 10, 100)
    assert agents_for_room(findings) == 490
    assert bytes_per_write(findings) == pytest.approx(100)
    assert hours_to_quota(findings, 3000) == pytest.approx((2 << 30) / (100 * 1000) / 3600)


def test_page_says_what_went_wrong_and_the_survey_is_not_good() -> None:
    good = findings_of(3, 10)
    assert good.is_good
    assert "lost" not in document_of(good).partition("## 3,000")[0].rpartition("*late*")[2]
    first = good.steps[0]
    for bad, words in (
        (replace(first, lost_leases=2), "2 leases of living agents were lost"),
        (replace(first, problems=("c1/a was fenced",)), "c1/a was fenced"),
        (replace(first, single=replace(first.single, not_taken=1)), "3, 1 NOT TAKEN"),
    ):
        findings = replace(good, steps=(bad,))
        assert not findings.is_good
        assert words in document_of(findings)


def test_page_of_one_step_promises_nothing() -> None:
    assert "Nothing follows from a single step" in document_of(findings_of(3))


def test_page_has_the_command_and_json_the_same_figures() -> None:
    findings = findings_of(3, 10)
    page = document_of(findings)
    assert "```\nscripts/fleet\n```" in page
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120
    value = json.loads(json.dumps(findings.as_json()))
    assert (value["format"], value["is_good"]) == ("hamgr-fleet/1", True)
    assert [step["agents"] for step in value["steps"]] == [9, 30]


def test_cells_cannot_break_a_table() -> None:
    assert table(("a",), [("x|y",)]).splitlines()[2] == "| x\\|y |"
