"""The transactions that change leadership and what hangs on it, as plain values.

Each can be sent twice without harm: either a comparison no longer holds the second time, or the second time
writes the same. Each knows by the keys that its `otherwise` branch reads whether it has taken effect
already. That is how an outcome that is unknown gets settled: by sending the transaction again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hamgr.core.cluster import Ballot, LeaderKey, SyncState
from hamgr.core.units import Term
from hamgr.dcs import codec
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Compare, Delete, Entry, Op, Put, Range, Txn, absent, holds, prefix_end, unchanged

Found = Mapping[str, Entry]
"""What the `otherwise` branch read, by key."""


@dataclass(frozen=True, slots=True)
class Change:
    """A transaction, and how to tell from the keys that it compared that it has been done already."""

    txn: Txn
    is_done: Callable[[Found], bool]


@dataclass(frozen=True, slots=True)
class LeaderClaim:
    """All that was compared in deciding to take the leader key, to be compared again by the transaction."""

    me: str
    lease_id: int
    term: Term
    """The term to be entered: the view's term + 1."""
    term_revision: int
    """The view's `term_revision`."""
    from_holder: LeaderKey | None = None
    """The holder that offers it; None: the key must be absent."""
    request_revision: int = 0
    config_revision: int = 0
    ballots: Mapping[str, int] = field(default_factory=dict)
    """Member -> mod_revision of its ballot; 0: it must have none."""
    delete_request: bool = False
    roster_revision: int = 0
    """The roster named `me` at this revision; 0: there was none."""
    sync_revision: int | None = None
    """None: there is no synchronous mode. Else the electorate of that revision (0: none) becomes `me` alone."""


def _change(
    compares: tuple[Compare, ...], then: tuple[Op, ...], is_done: Callable[[Found], bool], *also_read: str
) -> Change:
    names = dict.fromkeys((*(compare.key for compare in compares), *also_read))
    return Change(Txn(compares, then, tuple(Range(key) for key in names)), is_done)


def _value(found: Found, key: str) -> str | None:
    entry = found.get(key)
    return entry.value if entry else None


def _lead_in(keys: ScopeKeys, me: str, lease_id: int, term: Term) -> Callable[[Found], bool]:
    """I lead by that lease, in that term, and both were written at once: so it was by my transaction."""

    def is_done(found: Found) -> bool:
        leader, counted = found.get(keys.leader), found.get(keys.term)
        return (
            leader is not None
            and counted is not None
            and (leader.value, leader.lease_id) == (me, lease_id)
            and counted.value == str(term)
            and counted.mod_revision == leader.mod_revision
        )

    return is_done


def _enter(keys: ScopeKeys, me: str, lease_id: int, term: Term) -> tuple[Put, Put]:
    return Put(keys.leader, me, lease_id), Put(keys.term, str(term))


def take_initialize(keys: ScopeKeys, me: str, lease_id: int, term: Term, term_revision: int) -> Change:
    """No cluster, no leader: I lead in `term` and make the cluster; both vanish with my lease."""
    return _change(
        (absent(keys.initialize), absent(keys.leader), unchanged(keys.term, term_revision)),
        (Put(keys.initialize, "", lease_id), *_enter(keys, me, lease_id, term)),
        _lead_in(keys, me, lease_id, term),
    )


def finish_initialize(keys: ScopeKeys, me: str, system_identifier: str, config: str | None) -> Change:
    """I lead: the cluster exists for good. `config`, if given, is entered and must be absent."""
    compares = (holds(keys.leader, me),)
    puts = (Put(keys.initialize, system_identifier),)

    def is_done(found: Found) -> bool:
        entry = found.get(keys.initialize)
        return entry is not None and entry.value == system_identifier and config_is_done(found)

    def config_is_done(found: Found) -> bool:
        return config is None or _value(found, keys.config) == config

    if config is None:
        return _change(compares, puts, is_done, keys.initialize)
    return _change((*compares, absent(keys.config)), (*puts, Put(keys.config, config)), is_done, keys.initialize)


def take_leader(keys: ScopeKeys, claim: LeaderClaim) -> Change:
    """The leader key becomes mine and the term grows, if nothing that the claim rests on has changed."""
    holder = claim.from_holder
    leader = unchanged(keys.leader, holder.mod_revision if holder else 0)
    compares = (
        leader,
        *((holds(keys.leader, holder.name),) if holder else ()),
        unchanged(keys.term, claim.term_revision),
        unchanged(keys.request, claim.request_revision),
        unchanged(keys.config, claim.config_revision),
        unchanged(keys.roster, claim.roster_revision),
        *((unchanged(keys.sync, claim.sync_revision),) if claim.sync_revision is not None else ()),
        *(unchanged(keys.ballot(name), revision) for name, revision in sorted(claim.ballots.items())),
    )
    alone = Put(keys.sync, codec.encode_sync(SyncState(claim.me)))
    then: tuple[Op, ...] = (
        *_enter(keys, claim.me, claim.lease_id, claim.term),
        _no_ballots(keys),
        *((Delete(keys.request),) if claim.delete_request else ()),
        *((alone,) if claim.sync_revision is not None else ()),
    )
    return _change(compares, then, _lead_in(keys, claim.me, claim.lease_id, claim.term))


def put_ballot(keys: ScopeKeys, ballot: Ballot, lease_id: int, leader_revision: int) -> Txn:
    """A vote in the election that goes by that leader key, or by its absence."""
    vote = Put(keys.ballot(ballot.name), codec.encode_ballot(ballot), lease_id)
    return Txn((unchanged(keys.leader, leader_revision),), (vote,))


def _no_ballots(keys: ScopeKeys) -> Delete:
    return Delete(keys.ballots, prefix_end(keys.ballots))


def reattach_leader(keys: ScopeKeys, me: str, old: LeaderKey, lease_id: int) -> Change:
    """The leader key that names me moves to another lease of mine; the term stays."""
    return _change(
        (holds(keys.leader, me), unchanged(keys.leader, old.mod_revision)),
        (Put(keys.leader, me, lease_id),),
        _is_led_by_lease(keys, me, lease_id),
    )


def retake_leader(keys: ScopeKeys, me: str, lease_id: int, term_revision: int, roster_revision: int) -> Change:
    """The leader key expired while etcd was gone and nobody led since: mine again, in the same term.

    All ballots go: who voted has streamed and acknowledged since, so that what it voted with is no longer what it has.
    """
    is_led = _is_led_by_lease(keys, me, lease_id)

    def is_done(found: Found) -> bool:
        counted = found.get(keys.term)
        return is_led(found) and (counted.mod_revision if counted else 0) == term_revision

    return _change(
        (absent(keys.leader), unchanged(keys.term, term_revision), unchanged(keys.roster, roster_revision)),
        (Put(keys.leader, me, lease_id), _no_ballots(keys)),
        is_done,
    )


def _is_led_by_lease(keys: ScopeKeys, me: str, lease_id: int) -> Callable[[Found], bool]:
    def is_done(found: Found) -> bool:
        leader = found.get(keys.leader)
        return leader is not None and (leader.value, leader.lease_id) == (me, lease_id)

    return is_done


def _held(keys: ScopeKeys, leader_revision: int) -> tuple[Compare, ...]:
    """The leader key was not written since that revision; 0: in any case.

    What gives the lead away compares it, so that the holder can make sure that nothing it sent before takes effect
    late: it writes the key afresh.
    """
    return (unchanged(keys.leader, leader_revision),) if leader_revision else ()


def release_leader(
    keys: ScopeKeys, me: str, term: Term, leader_revision: int = 0, parting: str | None = None
) -> Change:
    """The leader key is not mine any more, and `released` says so of this term: nobody renews it through its peers.

    Done as well when it was not mine before. `parting`: left in `failover`.
    """
    parting_put = () if parting is None else (Put(keys.request, parting),)
    return _change(
        (holds(keys.leader, me), holds(keys.term, str(term)), *_held(keys, leader_revision)),
        (Delete(keys.leader), Put(keys.released, str(term)), *parting_put),
        lambda found: _value(found, keys.leader) != me,
    )


def put_as_leader(keys: ScopeKeys, me: str, key: str, value: str, expected_revision: int | None) -> Change:
    """While I lead: that key has that value, if it was not written since `expected_revision` (None: in any case)."""
    guards = () if expected_revision is None else (unchanged(key, expected_revision),)
    return _change(
        (holds(keys.leader, me), *guards),
        (Put(key, value),),
        lambda found: _value(found, keys.leader) == me and _value(found, key) == value,
        key,
    )


def put_offer(
    keys: ScopeKeys, me: str, term: Term, value: str, expected_revision: int, leader_revision: int = 0
) -> Change:
    """While I lead in `term`: the request key becomes my offer."""
    return _change(
        (
            holds(keys.leader, me),
            holds(keys.term, str(term)),
            *_held(keys, leader_revision),
            unchanged(keys.request, expected_revision),
        ),
        (Put(keys.request, value),),
        lambda found: _value(found, keys.leader) == me and _value(found, keys.request) == value,
    )


def withdraw_offer(keys: ScopeKeys, me: str, lease_id: int, request_revision: int) -> Change:
    """While I lead by that lease: the offer of that revision is gone.

    The leader key is written afresh, so that no copy of the offer which is still on its way can take effect. The
    ballots go: who voted for the offer streams again, and acknowledges what its ballot does not know of.
    """
    is_led = _is_led_by_lease(keys, me, lease_id)
    return _change(
        (
            holds(keys.leader, me),
            Compare(keys.leader, "lease_id", lease_id),
            unchanged(keys.request, request_revision),
        ),
        (Delete(keys.request), Put(keys.leader, me, lease_id), _no_ballots(keys)),
        lambda found: is_led(found) and keys.request not in found,
    )


def put_if_unchanged(key: str, value: str, expected_revision: int) -> Change:
    """That key has that value, if it was not written since `expected_revision` (0: if there was none)."""
    return _change((unchanged(key, expected_revision),), (Put(key, value),), lambda found: _value(found, key) == value)


def delete_if_unchanged(key: str, expected_revision: int) -> Change:
    """That key is gone, if it was not written since `expected_revision`."""
    return _change((unchanged(key, expected_revision),), (Delete(key),), lambda found: key not in found)
