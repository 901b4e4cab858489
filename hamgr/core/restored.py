"""etcd that was made anew, or restored from a backup: what a member goes on with. docs/adr/0017."""

from __future__ import annotations

from dataclasses import replace

from hamgr.core.cluster import ClusterView
from hamgr.core.facts import StoreReset
from hamgr.core.scene import Scene
from hamgr.core.state import Lease, Reset, State
from hamgr.core.units import Instant, after

KEY_GONE_S = 2.0
"""A leader key whose lease nobody renews any more is gone so long after the ttl at most."""


def is_loss(state: State, view: ClusterView) -> bool:
    """The view, read after all that is known was, is older than that."""
    known = state.cluster
    return known is not None and (view.revision < known.revision or is_of_another_past(state, view))


def without_store(state: State, fact: StoreReset) -> State:
    """What this member knows of itself. All else went by revisions, terms and leases that are no more.

    Whoever led goes on, if etcd still shows it or shows no cluster at all. All others do as if they had promised to
    wait: the leader may not have heard of it yet, and what etcd shows of them may be long over.
    """
    view, lease, before = fact.view, state.lease, state.reset
    known = state.cluster if state.cluster is not None else view
    led = _leads_for_certain(state, view.seen_at) or (before is not None and before.led)
    if view.system_identifier and known.sync is not None and known.sync.leader:
        # The electorate of the backup is not the one that its commits wait for.
        led = False
    wait_until = after(view.seen_at, max(state.policy.ttl_s, lease.ttl_s))
    deadline = lease.deadline
    if fact.lease_id == lease.lease_id and deadline is not None:
        deadline = Instant(max(deadline, fact.deadline))
    identifier = known.system_identifier or (before.system_identifier if before is not None else "")
    sync = known.sync or (before.sync if before is not None else None)
    promised = state.promised_until or Instant(0.0)
    return State(state.me, state.policy)._replace(
        server=state.server,
        lease=Lease(lease.lease_id, deadline, ttl_s=lease.ttl_s, asked_ttl_s=lease.asked_ttl_s) if led else Lease(),
        reset=Reset(view.revision, after(wait_until, KEY_GONE_S), led, identifier, sync) if identifier else None,
        diverged=state.diverged,
        must_clone=state.must_clone,
        guard_alive=state.guard_alive,
        guard_problem=state.guard_problem,
        wall_ahead_s=state.wall_ahead_s,
        under_way=state.under_way,
        crash=state.crash,
        illnesses=state.illnesses,
        vitals_at=state.vitals_at,
        orders=state.orders,
        stopping_since=state.stopping_since,
        replace_ordered_at=state.replace_ordered_at,
        promised_to=state.promised_to,
        promised_until=state.promised_until if led else Instant(max(promised, wait_until)),
        memory_lost_at=state.memory_lost_at,
    )


def _leads_for_certain(state: State, now: Instant) -> bool:
    """And nobody else may have been given the lead, or be about to be."""
    scene, planned = Scene(state, now), state.hand_over
    is_handing_over = planned is not None and not planned.aborted
    is_offered = scene.offer is not None or (state.crash is not None and state.crash.offered_at is not None)
    return scene.leads and scene.is_settled and not is_handing_over and not is_offered


def is_of_another_past(state: State, view: ClusterView) -> bool:
    """Terms only grow, also where a restore saw to it that revisions do; and what was remembered was not unmade."""
    known = state.cluster
    if known is None:
        return False
    is_unmade = state.is_recalled and bool(known.system_identifier) and not view.system_identifier
    has_terms = view.term_revision != 0 and known.term_revision != 0
    return is_unmade or (has_terms and view.term < known.term and view.revision >= known.revision)


def reset_after(state: State, view: ClusterView) -> Reset | None:
    """What a loss means is over once somebody became leader after it, or leads on: a leader writes its position. A key
    that is only there may be on a lease of the backup, which can be long.
    """
    reset, leader = state.reset, view.leader
    if reset is None or leader is None:
        return reset
    is_mine = leader.name == state.me.name and leader.lease_id == state.lease.lease_id
    has_written = max(leader.mod_revision, view.status.mod_revision) > reset.revision
    if view.system_identifier and (has_written or is_mine):
        return None
    return replace(reset, led=reset.led and leader.name == state.me.name)
