"""Who can acknowledge a commit, who can elect, and in which order both may change. DESIGN.md 5.10.

Two settings face each other. PostgreSQL: a commit is acknowledged once `count` of the standbys `names` have flushed it.
etcd: a member of the electorate may lead once it has compared `quorum` other ballots of the electorate with its own and
none of them has more WAL. No acknowledged commit is lost as long as every set that can acknowledge shares a member with
every set that can elect. With S names of the rule and E members of the electorate that holds if and only if

    count + quorum >= |S | E|        (or nobody can be elected at all)

since `count` of S and `quorum + 1` of E can avoid each other only if both fit into the union.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hamgr.core.cluster import SyncState

NOBODY = "__patroni_strict_sync_replica_placeholder__"
"""Stands for a standby that never comes, so that commits wait. Patroni's name for it, which no member may have."""


@dataclass(frozen=True, slots=True)
class SyncRule:
    """`synchronous_standby_names` as hamgr writes it: commits wait for `count` of `names`. Empty: for nobody."""

    names: tuple[str, ...] = ()
    count: int = 0
    any_of: bool = False
    """True: ANY; False: FIRST, with as many names as are waited for."""

    @property
    def text(self) -> str:
        """As PostgreSQL reads it. Source: its manual, synchronous_standby_names."""
        if not self.count:
            return ""
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in self.names)
        return f"{'ANY' if self.any_of else 'FIRST'} {self.count} ({names})"

    def place_of(self, name: str) -> int:
        """pg_stat_replication.sync_priority of a standby of that name; 0: commits do not wait for it.

        Source: src/backend/replication/syncrep.c, SyncRepGetStandbyPriority (names are compared without case).
        """
        names = [each.lower() for each in self.names]
        if name.lower() not in names:
            return 0
        return 1 if self.any_of else names.index(name.lower()) + 1


ALONE = SyncRule()
"""Commits wait for no standby."""

BLOCKED = SyncRule((NOBODY,), 1)
"""Commits wait until there is a synchronous standby (synchronous_mode_strict)."""


def can_elect(electorate: SyncState) -> bool:
    """Some member of it could lead; else nobody but the leader that wrote it."""
    return electorate.quorum + 1 <= len(electorate.members)


def is_safe(rule: SyncRule, electorate: SyncState) -> bool:
    """Whoever is elected by that electorate has every commit that was acknowledged under that rule."""
    if not can_elect(electorate) or rule == BLOCKED:
        return True
    return rule.count + electorate.quorum >= len({*rule.names, *electorate.members})


def electorate_of(leader: str, rule: SyncRule) -> SyncState:
    """The widest electorate that is safe with that rule, once everybody it names has caught up."""
    if not rule.count:
        return SyncState(leader)
    return SyncState(leader, tuple(sorted(rule.names)), len(rule.names) - rule.count)


def bridge(leader: str, rule: SyncRule, wanted: SyncRule, present: SyncState) -> SyncState:
    """An electorate that is safe with both rules, and with every earlier one that `present` is safe with."""
    named = {name for each in (rule, wanted) if each != BLOCKED for name in each.names}
    union = {*present.members, *named}
    # Commits of rules before these two are held by at least so many of its members.
    covered = len(present.members) - present.quorum
    counts = [each.count for each in (rule, wanted) if each != BLOCKED]
    electorate = SyncState(leader, tuple(sorted(union)), len(union) - min(covered, *counts))
    return electorate if can_elect(electorate) else SyncState(leader)


def next_step(
    rule: SyncRule, electorate: SyncState, wanted: SyncRule, *, leader: str, has_caught_up: bool
) -> SyncRule | SyncState | None:
    """What to change next on the way to `wanted`: the rule in PostgreSQL, or the electorate in etcd; None: nothing now.

    `has_caught_up`: `count` standbys of the present rule hold all WAL that was written before it was in force.
    The order makes every step safe: an electorate that would not be safe with the wanted rule is replaced by one that
    is safe with both, then the rule changes, then, once its standbys have caught up, the electorate that goes with it.
    """
    if electorate.leader != leader or not is_safe(rule, electorate):
        # Of another leader, or the rule was changed by hand, or while another mode was on.
        return SyncState(leader)
    if rule != wanted:
        return wanted if is_safe(wanted, electorate) else bridge(leader, rule, wanted, electorate)
    if wanted == BLOCKED:
        # Nothing is acknowledged any more: whoever could be elected before still has everything.
        return None
    final = electorate_of(leader, wanted)
    is_final = (electorate.members, electorate.quorum) == (final.members, final.quorum)
    if is_final or (can_elect(final) and not has_caught_up):
        return None
    return final


def elects(electorate: SyncState, candidate: str, not_ahead: Iterable[str]) -> bool:
    """`candidate` may lead: it wrote the electorate itself, or so many others of it were compared and lack nothing.

    `not_ahead`: members whose ballots were compared and hold no more WAL than the candidate's.
    """
    if candidate == electorate.leader:
        return True
    voters = {*electorate.members}
    return candidate in voters and len(voters & {*not_ahead, candidate}) >= electorate.quorum + 1
