"""The page says what the runs say, and where another manager is better."""

from __future__ import annotations

import re

from hamgr.bench.faults import FAULTS
from hamgr.bench.report import report
from hamgr.bench.report_text import FAULT_NOTES
from hamgr.bench.rest import LOADS
from hamgr.bench.variants import VARIANTS
from tests.bench.runs import SESSION, failure, results_of, run

HAMGR, PATRONI = VARIANTS["hamgr-ttl5"].title, VARIANTS["patroni-tight"].title
SWITCH = "switchover"


def row(page: str, section: str, first: str) -> list[str]:
    """Cells of the row that begins with `first` in the section of that title."""
    part = page.split(f"\n## {section}", 1)[1].split("\n## ", 1)[0]
    line = next(line for line in part.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_medians_ranges_and_ratios_come_from_the_runs() -> None:
    runs = [run("hamgr-ttl5", SWITCH, n, gap_s=gap) for n, gap in enumerate((0.10, 0.20, 0.40))]
    runs += [run("patroni-tight", SWITCH, n, gap_s=gap) for n, gap in enumerate((1.0, 2.0, 3.0))]
    cells = row(report(results_of(*runs)), "Planned switchover", PATRONI)
    assert cells[1:5] == ["3", "2.00 s", "1.00 s – 3.00 s", "10.0×"]


def test_the_page_says_where_another_manager_is_better() -> None:
    page = report(results_of(run("hamgr-ttl5", SWITCH, gap_s=0.3), run("patroni-tight", SWITCH, gap_s=0.1)))
    assert f"- planned switchover, write gap: {PATRONI} 100 ms, {HAMGR} 300 ms" in page
    assert row(page, "Planned switchover", PATRONI)[2] == "**100 ms**"
    assert row(page, "At a glance", "planned switchover")[-1] == "**100 ms**"


def test_a_better_median_within_the_range_is_called_so() -> None:
    hamgr = [run("hamgr-ttl5", SWITCH, n, gap_s=gap) for n, gap in enumerate((0.1, 0.3, 0.5))]
    patroni = [run("patroni-tight", SWITCH, n, gap_s=gap) for n, gap in enumerate((0.2, 0.2, 0.2))]
    assert "200 ms, hamgr, ttl 5 (default) 300 ms (the ranges overlap)" in report(results_of(*hamgr, *patroni))


def test_nothing_is_called_better_where_nothing_is() -> None:
    page = report(results_of(run("hamgr-ttl5", SWITCH, gap_s=0.1), run("patroni-tight", SWITCH, gap_s=1.0)))
    assert "In none of these figures." in page


def test_losses_and_two_primaries_stand_beside_the_gap_at_a_glance() -> None:
    split = {"two_primaries_s": 40.7, "lost": 10_000, "lost_pinned": 100}
    page = report(results_of(run("hamgr-ttl5", "agent-killed"), run("patroni-tight", "agent-killed", **split)))
    assert row(page, "At a glance", FAULTS["agent-killed"].title)[1:] == [
        "20 ms",
        "20 ms; two primaries 40.7 s; lost 10,100",
    ]


def test_a_fault_that_was_sat_out_is_noted() -> None:
    runs = [run("hamgr-ttl5", "postgres-hung", 1), run("hamgr-ttl5", "postgres-hung", 2, came_back=False)]
    assert row(report(results_of(*runs)), "Postgres hung", HAMGR)[-1] == "writes only after the fault's end: 1 of 2"


def test_failed_runs_are_counted_and_told() -> None:
    page = report(results_of(run("hamgr-ttl5", SWITCH, 1), failure("hamgr-ttl5", SWITCH, "refused: a | b", 2)))
    assert row(page, "Planned switchover", HAMGR)[-1] == "failed: 1 of 2"
    assert f"- {HAMGR}, switchover, round 2: refused: a \\| b" in page


def test_a_variant_that_only_failed_has_no_figures() -> None:
    page = report(results_of(run("hamgr-ttl5", SWITCH), failure("patroni-tight", SWITCH, "died")))
    assert row(page, "Planned switchover", PATRONI)[2:5] == ["—", "—", "—"]
    assert row(page, "At a glance", "planned switchover")[-1] == "failed"


def test_the_commands_and_versions_that_made_it_stand_on_the_page() -> None:
    page = report(results_of(run("hamgr-ttl5", SWITCH)))
    assert f"`{SESSION.command}`" in page
    assert "hamgr 9.9, cores 2" in page


def test_costs_are_compared_as_well() -> None:
    idle = [
        run("hamgr-ttl5", "idle", manager_rss_mib=90.0, manager_cpu_percent=1.0),
        run("patroni-tight", "idle", manager_rss_mib=50.0, manager_cpu_percent=2.0),
    ]
    page = report(results_of(*idle))
    assert f"- idle, memory (RSS), MiB: {PATRONI} 50.0, {HAMGR} 90.0" in page
    assert row(page, "An idle cluster", "CPU of the manager, % of a core")[1:] == [
        "1.00 (1.00 – 1.00)",
        "2.00 (2.00 – 2.00)",
    ]


def test_a_server_that_answers_nothing_has_no_latencies() -> None:
    answers = {load.name: {"requests_per_s": 900.0, "p50_ms": 1.0, "p99_ms": 5.0, "failed": 0} for load in LOADS}
    page = report(
        results_of(run("patroni-tight", "rest", **{**answers, LOADS[2].name: {"requests_per_s": 0.0, "failed": 30}}))
    )
    last = page.split(f"| {LOADS[2].title} |")[1]
    assert "| p99, ms | — |" in last
    assert "| without an answer in 2 s | 30 (30 – 30) |" in last


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    runs = [run(variant, fault) for variant in VARIANTS for fault in FAULTS]
    for table in re.findall(r"(?:^\|.*\n)+", report(results_of(*runs)), re.MULTILINE):
        assert len({line.count(" |") for line in table.splitlines()}) == 1, table


def test_every_fault_and_cost_is_explained() -> None:
    assert set(FAULT_NOTES) == {*FAULTS, "idle", "rest"}
