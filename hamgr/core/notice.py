"""What a fact has changed that people will want to know later: for the flight recorder. Pure.

The states before and after are compared, not the facts told: a view that shows nothing new is no news.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hamgr.core.cluster import Ballot, ClusterView, Member
from hamgr.core.facts import Fact, Promised, Renewed, ServerExited
from hamgr.core.pipeline import Passage
from hamgr.core.policy import renew_interval_of
from hamgr.core.portrait import server_role
from hamgr.core.state import State
from hamgr.core.units import Instant, Term


class Sight(NamedTuple):
    """Something learned: a name of `recording.SIGHTS` and the values of its sentence. `at`: None: just now."""

    name: str
    values: Mapping[str, Any]
    at: Instant | None = None


NOTHING = ClusterView(0, Instant(0.0))
"""Before the first view."""
LATE_INTERVALS = 2.0
LATE_S = 0.5
"""A renewal is late if it was sent so many intervals, and so much longer than one, after the last."""


def noticed(before: State, fact: Fact, after: State, now: Instant) -> Iterator[Sight]:
    """The news in `after`, in the order in which a reader wants them."""
    yield from _of_server(before, fact, after)
    if after.cluster is not before.cluster and after.cluster is not None:
        yield from _of_cluster(before.cluster or NOTHING, after.cluster)
    yield from _of_store(before, after)
    if after.lease is not before.lease:
        yield from _of_lease(before, fact, after, now)
    yield from _of_host(before, fact, after)
    if after.passage is not before.passage and after.passage is not None:
        yield from _of_passage(before.passage, after.passage)


def _of_server(before: State, fact: Fact, after: State) -> Iterator[Sight]:
    if isinstance(fact, ServerExited) and after.crash is not before.crash:
        yield Sight("server_exited", {"pid": fact.identity.pid}, fact.at)
    old, new = before.server, after.server
    if new is old:
        return
    role = server_role(new)
    if (new.phase, role) != (old.phase, server_role(old)):
        shown = f", {role}" if new.is_alive else ""
        yield Sight("server", {"phase": new.phase.value, "role": shown}, new.probed_at or None)
    if new.streaming and not old.streaming:
        yield Sight("streaming", {"upstream": new.upstream}, new.probed_at)
    if old.streaming and not new.streaming and new.is_replica:
        yield Sight("not_streaming", {}, new.probed_at)
    if after.diverged and not before.diverged:
        yield Sight("diverged", {})


def _of_cluster(old: ClusterView, new: ClusterView) -> Iterator[Sight]:
    if new.revision < old.revision:
        yield Sight("store_reset", {"revision": new.revision, "former": old.revision})
    leader = new.leader.name if new.leader is not None else ""
    before = old.leader.name if old.leader is not None else ""
    if (leader, new.term) != (before, old.term) or old is NOTHING:
        values = {"leader": leader, "term": new.term, "former": before, "former_term": old.term}
        names = ("leader", "no_leader") if old is not NOTHING else ("found_leader", "found_none")
        yield Sight(names[0 if leader else 1], values)
    if sorted(new.roster) != sorted(old.roster):
        yield Sight("roster", {"members": ", ".join(sorted(new.roster))})
    yield from _of_members(old, new)
    for ballot in new.ballots if new.ballots is not old.ballots else ():
        known = old.ballot(ballot.name)
        if known is None or _vote(known) != _vote(ballot):
            values = {"member": ballot.name, "term": ballot.term, "lsn": str(ballot.lsn), "timeline": ballot.timeline}
            yield Sight("ballot", values)
    yield from _of_request(old, new)
    if _elects(new) != _elects(old):
        yield _electorate(new)


def _of_members(old: ClusterView, new: ClusterView) -> Iterator[Sight]:
    if new.members is old.members:
        return
    names = [member.name for member in new.members]
    if names != [member.name for member in old.members]:
        yield Sight("members", {"members": ", ".join(names) or "none"})
    for member in new.members:
        known = old.member(member.name)
        if known is None or _standing(known) != _standing(member):
            note = f" ({member.note})" if member.note else ""
            values = {"member": member.name, "state": member.state, "role": member.role, "note": note}
            yield Sight("member", values)


def _standing(member: Member) -> tuple[str, str, str]:
    return member.state, member.role, member.note


def _of_request(old: ClusterView, new: ClusterView) -> Iterator[Sight]:
    if new.request == old.request:
        return
    if new.request is None:
        yield Sight("no_request", {})
    elif new.request.offer is not None:
        offer = new.request.offer
        values = {"holder": offer.holder, "term": offer.term, "lsn": str(offer.lsn), "cause": offer.cause}
        yield Sight("offer", values)
    else:
        yield Sight("request", {"candidate": new.request.candidate or "whoever is fit"})


def _vote(ballot: Ballot) -> tuple[int, int, int]:
    return ballot.term, ballot.timeline, ballot.lsn


def _elects(view: ClusterView) -> tuple[str, tuple[str, ...], int] | None:
    return None if view.sync is None else (view.sync.leader, view.sync.members, view.sync.quorum)


def _electorate(view: ClusterView) -> Sight:
    if view.sync is None:
        return Sight("no_electorate", {})
    members = ", ".join(view.sync.members) or "none"
    return Sight("electorate", {"leader": view.sync.leader, "members": members, "quorum": view.sync.quorum})


def _of_store(before: State, after: State) -> Iterator[Sight]:
    if after.store_error and not before.store_error:
        yield Sight("store_failed", {"error": after.store_error})
    if before.store_error and not after.store_error:
        yield Sight("store_answers", {})


def _of_lease(before: State, fact: Fact, after: State, now: Instant) -> Iterator[Sight]:
    old, new = before.lease, after.lease
    if new.lease_id != old.lease_id:
        if new.lease_id and new.deadline is not None:
            yield Sight("lease", {"lease": f"{new.lease_id:x}", "left_s": _seconds(new.deadline - now)})
        else:
            yield Sight("no_lease", {"lease": f"{old.lease_id:x}"})
    elif isinstance(fact, Renewed) and old.deadline is not None and new.deadline is not None:
        gap_s = new.deadline - old.deadline
        pause_s = renew_interval_of(fact.ttl_s, after.policy.loop_wait_s)
        if old.ttl_s == new.ttl_s and gap_s > max(LATE_INTERVALS * pause_s, pause_s + LATE_S):
            yield Sight("renewed_late", {"gap_s": _seconds(gap_s), "left_s": _seconds(old.deadline - now)})
    failing_since = after.store_failed_at
    if new.promised_at != old.promised_at and new.peer_deadline is not None and failing_since is not None:
        is_first = old.promised_at is None or old.promised_at < failing_since
        if is_first:
            yield Sight("peers_promised", {"left_s": _seconds(new.peer_deadline - now)})


def _of_host(before: State, fact: Fact, after: State) -> Iterator[Sight]:
    if after.guard_alive != before.guard_alive:
        yield Sight("guard_back" if after.guard_alive else "guard_lost", {})
    if after.guard_problem and after.guard_problem != before.guard_problem:
        yield Sight("guard_problem", {"problem": after.guard_problem})
    if after.illnesses is not before.illnesses:
        old, new = ({each.vital: each for each in state.illnesses} for state in (before, after))
        for vital in new.keys() - old.keys():
            yield Sight("ill", {"vital": vital.value, "problem": new[vital].problem})
        for vital in old.keys() - new.keys():
            yield Sight("well", {"vital": vital.value})
    if after.policy_revision != before.policy_revision:
        policy = after.policy
        values = {"revision": after.policy_revision, "ttl_s": policy.ttl_s, "loop_wait_s": policy.loop_wait_s}
        yield Sight("policy", values)
    if isinstance(fact, Promised):
        yield from _of_promise(before, after)
    if (after.alone_since is None) != (before.alone_since is None):
        yield Sight("not_alone" if after.alone_since is None else "alone", {})
    yield from _of_orders(before, after)


def _of_promise(before: State, after: State) -> Iterator[Sight]:
    """A promise to another than before, or after a while without: renewed every second, it is told once."""
    until, known = after.promised_until, before.promised_until
    if until is None or until == known:
        return
    is_run = known is not None and until - known < after.policy.ttl_s
    if not is_run or after.promised_to != before.promised_to:
        values = {"leader": after.promised_to or "somebody", "for_s": _seconds(after.policy.ttl_s)}
        yield Sight("promised", values)


def _of_orders(before: State, after: State) -> Iterator[Sight]:
    for order in after.orders:
        if order not in before.orders:
            yield Sight("ordered", {"order": order.kind}, order.at)
    if after.stopping_since is not None and before.stopping_since is None:
        yield Sight("stop_ordered", {}, after.stopping_since)
    if after.replace_ordered_at is not None and before.replace_ordered_at is None:
        yield Sight("replace_ordered", {}, after.replace_ordered_at)


def _of_passage(old: Passage | None, new: Passage) -> Iterator[Sight]:
    """What this member measured of its own promotion."""
    known = old if old is not None and old.term == new.term else Passage(Term(0), "", "", new.seen_at)
    marks = (
        ("promoted", known.promoted_at, new.promoted_at),
        ("writable", known.writable_at, new.writable_at),
        ("routed", known.routed_at, new.routed_at),
    )
    for name, before, at in marks:
        if at is not None and at != before:
            yield Sight(name, {"term": new.term}, at)


def _seconds(seconds: float) -> float:
    return round(seconds, 3)
