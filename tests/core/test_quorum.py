"""Who can acknowledge and who can elect, held against brute force: every transition, interrupted at every step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, combinations

import pytest

from hamgr.core.cluster import SyncState
from hamgr.core.quorum import ALONE, BLOCKED, SyncRule, elects, is_safe, next_step

MEMBERS = ("alpha", "beta", "gamma", "delta")
LEADER = "leader"


def subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(names, size) for size in range(len(names) + 1))


def rules(names: tuple[str, ...]) -> list[SyncRule]:
    found = [ALONE, BLOCKED]
    for chosen in subsets(names):
        found += [SyncRule(chosen, count, any_of=True) for count in range(1, len(chosen) + 1)]
    return found


def acknowledging(rule: SyncRule) -> list[frozenset[str]]:
    """The least sets of standbys that can acknowledge a commit."""
    if rule == BLOCKED:
        return []
    return [frozenset(each) for each in combinations(rule.names, rule.count)]


def electing(electorate: SyncState) -> list[tuple[str, frozenset[str]]]:
    """(candidate, those that it compared itself with, itself included)."""
    found = []
    for others in subsets(electorate.members):
        found += [(each, frozenset(others)) for each in others if elects(electorate, each, others)]
    return found


def electorates(names: tuple[str, ...]) -> list[SyncState]:
    return [SyncState(LEADER, members, quorum) for members in subsets(names) for quorum in range(len(members) + 1)]


@pytest.mark.parametrize("electorate", electorates(MEMBERS[:3]), ids=str)
def test_safe_means_that_every_acknowledging_set_meets_every_electing_set(electorate: SyncState) -> None:
    for rule in rules(MEMBERS[:3]):
        meets = all(acked & compared for acked in acknowledging(rule) for _, compared in electing(electorate))
        assert is_safe(rule, electorate) == meets, (rule, electorate)


class Cluster:
    """A leader, its standbys, and every commit that was acknowledged: as the set of members that have it.

    The worst case throughout: a commit reaches only who has to acknowledge it, and nobody else until it catches up.
    """

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.rule = ALONE
        self.electorate = SyncState(LEADER)
        self.commits: list[set[str]] = []
        self.written_before_rule = 0

    def commit(self) -> None:
        sets = acknowledging(self.rule)
        if sets:
            self.commits.append(set(self.dice.choice(sets)))

    def has_caught_up(self) -> bool:
        """`count` standbys of the rule have everything that was committed before the rule."""
        before = self.commits[: self.written_before_rule]
        complete = [name for name in self.rule.names if all(name in holders for holders in before)]
        return len(complete) >= self.rule.count

    def catch_up(self) -> None:
        """A standby streams in order: it has a commit only with all before it."""
        for name in self.dice.sample(MEMBERS, self.dice.randrange(len(MEMBERS) + 1)):
            reach = self.dice.randrange(len(self.commits) + 1)
            for holders in self.commits[:reach]:
                holders.add(name)

    def step(self, wanted: SyncRule) -> bool:
        change = next_step(self.rule, self.electorate, wanted, leader=LEADER, has_caught_up=self.has_caught_up())
        if isinstance(change, SyncState):
            self.electorate = change
        elif change is not None:
            self.rule = change
            self.written_before_rule = len(self.commits)
        return change is not None

    def check(self) -> None:
        """Whoever can be elected has, or sees in a ballot that is ahead of its own, each acknowledged commit."""
        for candidate, compared in electing(self.electorate):
            for holders in self.commits:
                assert holders & compared, f"{candidate} with {set(compared)} lacks a commit that only {holders} has"


@pytest.mark.parametrize("seed", range(300))
def test_interrupted_transitions_lose_no_commit(seed: int) -> None:
    dice = random.Random(seed)
    cluster = Cluster(dice)
    wanted = ALONE
    for _ in range(60):
        if dice.random() < 0.25:
            wanted = dice.choice(rules(MEMBERS))
        for _ in range(dice.randrange(3)):
            cluster.commit()
        if dice.random() < 0.5:
            cluster.catch_up()
        cluster.step(wanted)
        cluster.check()


@pytest.mark.parametrize("seed", range(100))
def test_a_transition_ends_at_the_rule_and_its_widest_electorate(seed: int) -> None:
    dice = random.Random(seed)
    cluster = Cluster(dice)
    for wanted in dice.choices(rules(MEMBERS), k=4):
        for _ in range(10):
            cluster.commit()
            for holders in cluster.commits:
                holders.update(MEMBERS)
            if not cluster.step(wanted):
                break
        assert cluster.rule == wanted
        if wanted not in (BLOCKED, ALONE):
            assert cluster.electorate == SyncState(
                LEADER, tuple(sorted(wanted.names)), len(wanted.names) - wanted.count
            )


def test_an_electorate_that_does_not_go_with_the_rule_elects_nobody_else_before_anything_moves() -> None:
    """The rule was cleared by hand, or the mode was off for a moment: whom it names may lack what was acknowledged."""
    stale = SyncState(LEADER, ("beta",), 0)
    step = next_step(ALONE, stale, SyncRule(("beta",), 1), leader=LEADER, has_caught_up=False)
    assert step == SyncState(LEADER)


def test_a_rule_reads_as_postgresql_wants_it() -> None:
    assert SyncRule(("a", 'b"c'), 2).text == 'FIRST 2 ("a", "b""c")'
    assert SyncRule(("a", "b"), 1, any_of=True).text == 'ANY 1 ("a", "b")'
    assert ALONE.text == ""


def test_the_place_in_a_list_is_counted_as_the_server_counts_it() -> None:
    rule = SyncRule(("a", "B"), 1)
    assert [rule.place_of(name) for name in ("A", "b", "c")] == [1, 2, 0]
    assert [replace(rule, any_of=True).place_of(name) for name in ("A", "b", "c")] == [1, 1, 0]
