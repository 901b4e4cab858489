"""Everything that is wanted is planned once, and what takes milliseconds is left alone."""

from __future__ import annotations

from itertools import groupby

from hamgr.bench.schedule import TASKS, applies, is_alone, units
from hamgr.bench.variants import VARIANTS

ALL = list(VARIANTS)


def planned(done: set[tuple[str, str, int]] | None = None, rounds: int = 3) -> list[tuple[str, str, int]]:
    return [
        (unit.variant, task, unit.round) for unit in units(ALL, TASKS, rounds, done or set()) for task in unit.tasks
    ]


def test_everything_is_planned_exactly_once() -> None:
    wanted = {(v, task, n) for v in ALL for task in TASKS for n in (1, 2, 3) if applies(v, task)}
    assert sorted(planned()) == sorted(wanted)


def test_what_is_done_is_not_planned_again() -> None:
    everything = planned()
    done = set(everything[::2])
    assert sorted(planned(done)) == sorted(set(everything) - done)
    assert planned(set(everything)) == []


def test_what_must_be_alone_comes_before_all_else() -> None:
    groups = [alone for alone, _ in groupby(units(ALL, TASKS, 2, set()), key=lambda unit: unit.alone)]
    assert groups == [True, False]
    for unit in units(ALL, TASKS, 2, set()):
        assert {is_alone(task) for task in unit.tasks} == {unit.alone}


def test_costs_are_measured_before_anything_is_broken() -> None:
    first = next(unit for unit in units(["hamgr-ttl5"], TASKS, 1, set()) if unit.alone)
    assert first.tasks[:3] == ("idle", "rest", "switchover")


def test_only_a_full_disk_needs_disks() -> None:
    assert {unit.tasks for unit in units(ALL, TASKS, 1, set()) if unit.disks} == {("disk-full",)}


def test_pg_auto_failover_has_no_rest_to_measure() -> None:
    assert {VARIANTS[variant].product for variant, task, _ in planned() if task == "rest"} == {"hamgr", "patroni"}


def test_each_round_begins_with_another_variant() -> None:
    first = {unit.round: unit.variant for unit in reversed(units(ALL, ["switchover"], 3, set()))}
    assert len(set(first.values())) == 3
