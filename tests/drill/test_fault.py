"""Faults put together, and the random choice among them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from hamgr.drill.errors import DrillError
from hamgr.drill.fault import PRIMARY, REPLICA, STORE, Fault, Undo, Victims, again, all_of, at_once, nothing
from hamgr.drill.faults import FAULTS, UnknownFault, fault_named
from hamgr.drill.plan import Plan
from hamgr.drill.soak import LONGEST_HOLD_S, random_faults


class Diary:
    """Faults that only write down what happens to them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def fault(self, name: str, *, fails: bool = False) -> Fault:
        def arm(_: Victims) -> Undo:
            if fails:
                raise RuntimeError(name)
            self.lines.append(f"arm {name}")
            return lambda: self.lines.append(f"undo {name}")

        return Fault(name, name, arm, True, PRIMARY, hold_s=1.0)


NOBODY_IN_PARTICULAR: Victims = None  # type: ignore[assignment]


def test_faults_at_once_are_armed_in_order_and_undone_in_reverse() -> None:
    diary = Diary()
    at_once([diary.fault("a"), diary.fault("b")]).arm(NOBODY_IN_PARTICULAR)()
    assert diary.lines == ["arm a", "arm b", "undo b", "undo a"]


def test_what_was_armed_is_undone_when_the_next_cannot_be() -> None:
    diary = Diary()
    with pytest.raises(RuntimeError):
        at_once([diary.fault("a"), diary.fault("b", fails=True)]).arm(NOBODY_IN_PARTICULAR)
    assert diary.lines == ["arm a", "undo a"]


def test_every_undo_is_tried_even_if_one_fails() -> None:
    done: list[str] = []

    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        all_of([lambda: done.append("first"), fail])()
    assert done == ["first"]


@dataclass
class Server:
    """A member as far as `again` looks at it."""

    name: str
    pid: int
    leads: bool = False

    def is_leader(self) -> bool:
        return self.leads

    def postmaster_pid(self) -> int:
        return self.pid


@dataclass
class OnlyPlan:
    plan: Plan


def victims_of(primary: Server, *replicas: Server) -> Victims:
    return Victims(OnlyPlan(Plan(Path(), None)), primary, replicas)  # type: ignore[arg-type]


def test_fault_strikes_again_at_the_next_primary_and_both_are_undone() -> None:
    first, second, third = Server("a", 1, leads=True), Server("b", 2), Server("c", 3)
    struck: list[str] = []

    def arm(victims: Victims) -> Undo:
        name = victims.primary.name
        struck.append(name)
        first.leads, second.leads = False, name == "a"
        return lambda: struck.append(f"undo {name}")

    again(Fault("x", "x", arm, True, PRIMARY)).arm(victims_of(first, second, third))()
    assert struck == ["a", "b", "undo b", "undo a"]


def test_primary_that_came_back_with_another_server_is_the_next_one() -> None:
    only = Server("a", 1, leads=True)
    struck: list[int] = []

    def arm(victims: Victims) -> Undo:
        struck.append(victims.primary.postmaster_pid())
        only.pid = 7
        return nothing

    again(Fault("x", "x", arm, None, PRIMARY)).arm(victims_of(only))
    assert struck == [1, 7]


def test_first_strike_is_undone_when_no_other_primary_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hamgr.drill.fault._NEXT_LEADER_TIMEOUT_S", -5.0)
    diary = Diary()
    with pytest.raises(DrillError, match="strike again"):
        again(diary.fault("a")).arm(victims_of(Server("a", 1, leads=True)))
    assert diary.lines == ["arm a", "undo a"]


def test_faults_that_pass_by_themselves_need_no_undo() -> None:
    assert all_of([nothing, nothing]) is nothing


def test_two_at_once_take_whom_either_takes_and_last_as_long_as_the_longer() -> None:
    both = fault_named("host-lost+replica-lost")
    assert both.takes == PRIMARY | REPLICA
    assert both.moves_leader is True
    assert both.places == FAULTS["host-lost"].places
    assert both.hold_time_s(5) == FAULTS["replica-lost"].hold_time_s(5)


@pytest.mark.parametrize(
    ("name", "moves", "changes"),
    [
        ("agent-killed+replica-lost", False, 0),
        ("postgres-killed+replica-lost", None, 1),
        ("host-lost+replica-lost", True, 1),
        ("again:host-lost", True, 2),
        ("cut-from-peers+replica-lagging", False, 0),
        ("cut-from-peers+etcd-frozen", None, 1),
    ],
)
def test_leader_moves_as_often_as_the_parts_explain(name: str, moves: bool | None, changes: int) -> None:
    assert (fault_named(name).moves_leader, fault_named(name).changes_allowed) == (moves, changes)


@pytest.mark.parametrize(
    ("name", "asynchronous", "synchronous"),
    [
        ("host-lost", False, False),
        ("etcd-gone", False, False),
        ("host-lost+etcd-gone", True, True),
        ("cut-from-peers", False, False),
        ("cut-from-peers+etcd-frozen", True, True),
        ("again:host-lost", False, True),
        ("host-lost+replica-lost", False, True),
    ],
)
def test_writes_may_stop_only_where_nobody_could_take_them(name: str, asynchronous: bool, synchronous: bool) -> None:
    fault = fault_named(name)
    assert fault.may_stop_writes(synchronous=False) is asynchronous
    assert fault.may_stop_writes(synchronous=True) is synchronous


@pytest.mark.parametrize(
    "name", ["", "host-last", "host-lost+", "again:", "again:agent-killed", "again:again:host-lost"]
)
def test_name_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(UnknownFault):
        fault_named(name)


def test_random_choice_is_reproducible_from_its_seed() -> None:
    def names(seed: int) -> list[str]:
        return [fault.name for fault in random_faults(list(FAULTS.values()), 50, seed)]

    assert names(7) == names(7)
    assert names(7) != names(8)


@pytest.mark.parametrize("synchronous", [False, True])
def test_random_choice_leaves_somebody_who_can_take_writes(synchronous: bool) -> None:
    chosen = random_faults(list(FAULTS.values()), 2000, 1, synchronous=synchronous)
    assert not [fault.name for fault in chosen if fault.may_stop_writes(synchronous=synchronous)]
    assert max(fault.hold_s for fault in chosen) <= LONGEST_HOLD_S


def test_random_choice_takes_every_fault_alone_and_some_at_once_and_some_again() -> None:
    names = [fault.name for fault in random_faults(list(FAULTS.values()), 6000, 1)]
    assert set(names) >= FAULTS.keys()
    assert 0.1 < sum("+" in name for name in names) / len(names) < 0.3
    assert any(name.startswith("again:") for name in names)


def test_random_choice_prefers_light_faults() -> None:
    counts = Counter(fault.name for fault in random_faults(list(FAULTS.values()), 3000, 1))
    assert counts["host-lost"] > counts["etcd-gone"] > 0


def test_two_at_once_are_aimed_at_different_targets() -> None:
    for fault in random_faults(list(FAULTS.values()), 2000, 3):
        parts = [FAULTS[name] for name in fault.name.removeprefix("again:").split("+")]
        for part in parts[1:]:
            assert not part.harms & parts[0].harms


def test_each_fault_of_etcd_that_leaves_no_majority_takes_it() -> None:
    without = {"etcd-gone", "etcd-emptied", "etcd-frozen", "etcd-majority-lost"}
    assert {fault.name for fault in FAULTS.values() if fault.takes >= STORE} == without
