"""Getting a lease, and keeping the leader key on it. DESIGN.md 5.1."""

from __future__ import annotations

from hamgr.core.actions import (
    GIVING_AWAY,
    AskPeers,
    GrantLease,
    Lane,
    MoveLeader,
    PutOffer,
    ReattachLeader,
    RetakeLeader,
)
from hamgr.core.policy import counted_from, renew_interval_of
from hamgr.core.reasons import Code, because
from hamgr.core.scene import Scene, Verdict
from hamgr.core.units import Instant, after

OVERDUE_S = 0.5
"""A renewal by etcd that is so late is made up for by the peers."""

PEERS_RETRY_S = 0.25


def need_view(scene: Scene) -> Verdict | None:
    """Nothing is decided about the cluster before it was read once."""
    if scene.state.cluster is not None:
        return None
    return Verdict(because(Code.NO_VIEW, error=scene.state.store_error or "waiting for the first answer"))


def need_lease(scene: Scene) -> Verdict | None:
    """Without a lease nothing can be announced. Granted only when the server is known not to need the old one."""
    if scene.state.lease.lease_id or scene.leads_by_peers:
        return None
    reason = because(Code.STORE_DOWN, error=scene.state.store_error) if scene.state.store_error else None
    retry_at = scene.retry_at(GrantLease)
    actions = (GrantLease(scene.policy.ttl_s),) if scene.now >= retry_at else ()
    return Verdict(reason or because(Code.NO_LEASE), actions, wake_at=None if actions else retry_at)


def has_given_up(scene: Scene) -> bool:
    """The key hangs on this lease, whose deadline passed although etcd answers: this member let it pass, because it
    was not well. The lease is left to run out, so that another leads.
    """
    leader, lease = scene.leader, scene.state.lease
    return (
        leader is not None
        and (leader.name, leader.lease_id) == (scene.me, lease.lease_id)
        and lease.deadline is not None
        and scene.now >= lease.deadline
        and scene.state.store_failed_at is None
        and not scene.leads_by_peers
    )


def twin(scene: Scene) -> Verdict | None:
    """Another agent lives under this name at another address: it must not be disturbed. Whoever holds the key is not
    the one to make room.
    """
    if scene.leads:
        return None
    other = scene.view.member(scene.me)
    if other is None or other.lease_id == scene.state.lease.lease_id or other.conn_url == scene.state.me.conn_url:
        return None
    return Verdict(because(Code.TWIN, name=scene.me, address=other.conn_url))


def key_on_old_lease(scene: Scene) -> Verdict | None:
    """The key names this member but hangs on a lease that it did not adopt: it lets that one run out. To move the key
    would be to take it from whoever else may live under this name, and lead.
    """
    leader = scene.leader
    if leader is None or leader.name != scene.me or leader.lease_id == scene.state.lease.lease_id:
        return None
    return None if scene.leads_by_peers else Verdict(because(Code.OLD_LEASE))


def retake(scene: Scene) -> Verdict | None:
    """It has led on by its peers, etcd answers again, and the key has expired meanwhile: it is taken again, in the same
    term, before the promises run out.
    """
    view = scene.view
    if not scene.leads_by_peers or view.leader is not None or not scene.state.lease.lease_id:
        return None
    action = RetakeLeader(view.term, view.term_revision, view.roster_revision)
    return Verdict(because(Code.RETAKING_LEAD, term=view.term), (action,))


def is_of_another_ttl(scene: Scene) -> bool:
    """The lease lasts for longer or shorter than the configuration says by now. What etcd made of the ttl that it was
    asked for stands: it would grant the same again.
    """
    lease = scene.state.lease
    return lease.ttl_s > 0 and scene.policy.ttl_s not in (lease.ttl_s, lease.asked_ttl_s)


def is_calm(scene: Scene) -> bool:
    """One leads, nobody is about to take over, and etcd answers: another lease may take the place of this one."""
    state = scene.state
    nothing_on = state.vacancy is None and not scene.is_change_due and state.stopping_since is None
    return nothing_on and scene.leader is not None and state.store_failed_at is None and twin(scene) is None


def new_lease(scene: Scene) -> GrantLease | None:
    """A member that does not lead changes its lease for one of the ttl that holds now. Its keys move by and by, and
    the old one is left to run out. Not while it may be taking the lead on the old one.
    """
    is_due = bool(scene.other_leader) and is_of_another_ttl(scene) and is_calm(scene)
    return GrantLease(scene.policy.ttl_s) if is_due and not scene.state.is_busy(Lane.LEADERSHIP) else None


def move(scene: Scene) -> MoveLeader | None:
    """A leader that is well changes its lease for one of the ttl that holds now, and the leader key moves along."""
    if not scene.holds_key or not is_of_another_ttl(scene) or not is_calm(scene) or not scene.leader:
        return None
    is_first_try = scene.state.lease.tried is None
    may_lead_on = scene.has_time and scene.is_settled and scene.state.guard_alive
    return MoveLeader(scene.leader, scene.policy.ttl_s) if is_first_try and may_lead_on else None


def settle_move(scene: Scene) -> MoveLeader | None:
    """A move of the leader key whose end is not known is sent again, until it is: meanwhile the deadline of neither
    lease may be passed.
    """
    tried, leader = scene.state.lease.tried, scene.leader
    if tried is None or leader is None or leader.name != scene.me:
        return None
    return MoveLeader(leader, scene.policy.ttl_s, tried.lease_id)


def peer_renewal(scene: Scene) -> tuple[AskPeers | None, Instant | None]:
    """What to ask the peers now, and when to look again. They are asked as soon as etcd's renewal is overdue, beside
    the tries that go on to reach etcd, so that the change from one to the other costs nothing of the deadline.
    """
    deadline, policy, view = scene.deadline, scene.policy, scene.state.cluster
    if not scene.leads or deadline is None or view is None or not policy.failsafe_mode or scene.me not in view.roster:
        return None, None
    if not scene.state.guard_alive or scene.state.running(AskPeers):
        return None, None
    ttl_s = min(policy.ttl_s, scene.state.lease.ttl_s or policy.ttl_s)
    confirmed_at = scene.confirmed_at
    if confirmed_at is None:
        confirmed_at = counted_from(deadline, policy.ttl_s)
    due_at = after(confirmed_at, renew_interval_of(ttl_s, policy.loop_wait_s) + min(OVERDUE_S, ttl_s / 10))
    if scene.state.peers_asked_at is not None:
        due_at = Instant(max(due_at, after(scene.state.peers_asked_at, PEERS_RETRY_S)))
    if scene.now < due_at:
        return None, due_at
    return AskPeers(view.term, _peers(scene), policy.ttl_s), None


def _peers(scene: Scene) -> tuple[tuple[str, str], ...]:
    """Whoever may campaign: the roster, and what may have become the roster without this member knowing."""
    view = scene.view
    urls = {member.name: member.api_url for member in view.members} | dict(view.roster)
    names = sorted({*view.roster, *scene.state.roster_sent} - {scene.me})
    return tuple((name, urls.get(name, "")) for name in names)


def reassert(scene: Scene) -> Verdict | None:
    """Something that gives the key away was sent, and etcd has not answered yet, or its end is not known. Before a
    server starts here, the key is written afresh, so that it cannot take effect any more.
    """
    if not scene.holds_key or scene.is_settled or scene.leader is None:
        return None
    if not scene.is_server_down and not scene.server.is_replica:
        return None
    sent = next((task.action for task in scene.state.under_way if isinstance(task.action, GIVING_AWAY)), None)
    if isinstance(sent, PutOffer):
        return Verdict(because(Code.OFFERING, lsn=sent.offer.lsn))
    if sent is not None:
        return Verdict(because(Code.RELEASING))
    return Verdict(because(Code.RETAKING_KEY), (ReattachLeader(scene.leader),))
