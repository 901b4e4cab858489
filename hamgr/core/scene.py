"""The state at one instant, with the questions that rules ask of it; and what a rule answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from hamgr.core.actions import GIVING_AWAY, Action, Upstream
from hamgr.core.cluster import ClusterView, LeaderKey, Member, Offer, Request, SyncState
from hamgr.core.policy import KILL_BUDGET_S, STOP_BEFORE_KILL_S, Policy
from hamgr.core.reasons import Reason
from hamgr.core.result import NOT_SENT
from hamgr.core.server import DOWN, ServerView
from hamgr.core.state import State
from hamgr.core.units import Instant, WallTime, after

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0

LONGEST_PORT = 5
"""Digits of a port: what else stands in the address of a member's key is no number that can be used."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A rule's answer: what to do, why, and when to look again even if nothing is learned until then."""

    reason: Reason
    actions: tuple[Action, ...] = ()
    wake_at: Instant | None = None
    may_renew: bool = True
    """False ends the permit: the lease is left to run out."""


class Scene:
    """State and clock: claims that hold at `now`. Never changed; what nearly every rule asks is answered once."""

    __slots__ = (
        *("state", "now", "me", "policy", "server", "leader", "other_leader", "offer", "deadline"),
        *("holds_key", "leads_by_peers", "leads", "_holds_key_of_lease"),
    )

    def __init__(self, state: State, now: Instant) -> None:
        self.state = state
        self.now = now
        self.me = state.me.name
        self.policy: Policy = state.policy
        self.server: ServerView = state.server
        leader = state.cluster.leader if state.cluster is not None else None
        self.leader: LeaderKey | None = leader
        self.other_leader = leader.name if leader is not None and leader.name != self.me else ""
        """The other member that holds the leader key; empty when nobody does, or this member."""
        lease = state.lease
        self._holds_key_of_lease = leader is not None and leader.name == self.me and leader.lease_id == lease.lease_id
        self.holds_key = self._holds_key_of_lease and lease.deadline is not None and now < lease.deadline
        """The leader key names this member, hangs on its present lease, and the deadline has not come."""
        self.deadline = self._latest_deadline()
        """Until when this member may be primary, by whichever lasts longer; None: by nothing."""
        self.offer = self._valid_offer()
        """What the holder of the key offers: only while it still has the key in the term that this was written for."""
        self.leads_by_peers = self._is_led_by_peers()
        """Leads by the promises of its peers: they last, its term goes on, the key is its own or nobody's, and it has
        not given the lead away.
        """
        self.leads = self.holds_key or self.leads_by_peers
        """This member leads: by the key, or by its peers."""

    def _latest_deadline(self) -> Instant | None:
        lease = self.state.lease
        by_key = None if self.state.cluster is not None and not self._holds_key_of_lease else lease.deadline
        by_peers = lease.peer_deadline if lease.term else None
        if by_key is None or by_peers is None:
            return by_key if by_peers is None else by_peers
        return max(by_key, by_peers)

    def _valid_offer(self) -> Offer | None:
        view, leader = self.state.cluster, self.leader
        if view is None or leader is None or view.request is None or view.request.offer is None:
            return None
        offer = view.request.offer
        return offer if offer.holder == leader.name and offer.term == view.term else None

    def _is_led_by_peers(self) -> bool:
        lease, view = self.state.lease, self.state.cluster
        if lease.term == 0 or lease.peer_deadline is None or self.now >= lease.peer_deadline or view is None:
            return False
        is_own = view.leader is None or self._holds_key_of_lease
        # An offer outlives the key that it was made with, and would be valid again with the key taken again.
        offer = view.request.offer if view.request is not None else None
        has_offered = offer is not None and (offer.holder, offer.term) == (self.me, view.term)
        gives_away = has_offered or view.released_term == view.term or not self.is_settled
        return is_own and view.term == lease.term and not gives_away

    @property
    def view(self) -> ClusterView:
        """The cluster; only for rules that come after the one which demands that it was read."""
        if self.state.cluster is None:
            raise AssertionError("a rule asked for the cluster before it was read")
        return self.state.cluster

    @property
    def confirmed_at(self) -> Instant | None:
        """When etcd or the peers last vouched for what `deadline` goes by; None: not since this agent began."""
        lease = self.state.lease
        by_key = lease.confirmed_at if self.state.cluster is None or self._holds_key_of_lease else None
        by_peers = lease.promised_at if lease.term else None
        return max((each for each in (by_key, by_peers) if each is not None), default=None)

    @property
    def may_be_primary(self) -> bool:
        """Entitled to a writable server: by the view, or, before the first view, by the lease it was adopted with."""
        if self.state.cluster is not None:
            return self.leads
        lease = self.state.lease
        return lease.term > 0 and lease.deadline is not None and self.now < lease.deadline

    def instant_of(self, wall: WallTime) -> Instant | None:
        """When the wall clock of this host will show that time; None while it has not been read."""
        ahead_s = self.state.wall_ahead_s
        return None if ahead_s is None else Instant(wall - ahead_s)

    def is_due(self, request: Request) -> bool:
        """Its time has come, or it has none. The tick looks often enough for a time that people chose."""
        due_at = self.instant_of(request.scheduled_at) if request.scheduled_at is not None else self.now
        return due_at is not None and self.now >= due_at

    @property
    def is_change_due(self) -> bool:
        """A change of leader is asked for, and its time has come, or it has begun."""
        request = self.view.request
        return request is not None and (request.offer is not None or self.is_due(request))

    @property
    def has_time(self) -> bool:
        """Enough is left of the lease for starting something that would have to be stopped before its end."""
        deadline = self.deadline
        return deadline is not None and deadline - self.now > KILL_BUDGET_S + 2 * STOP_BEFORE_KILL_S

    @property
    def is_settled(self) -> bool:
        """Nothing is on its way that gives the key away, and nothing that was sent to can take effect any more: a
        server started while it can could be a second primary. What failed counts until the key was written afresh, also
        what was refused: a copy that is still on its way may find the comparison to hold again. What never left this
        host does not.
        """
        for kind in GIVING_AWAY:
            failure = self.state.failure(kind.__name__)
            if self.state.running(kind) or (failure is not None and failure.code != NOT_SENT):
                return False
        return True

    @property
    def electorate(self) -> SyncState | None:
        """With synchronous mode: who may be elected without losing an acknowledged commit; None: it does not bind.

        Where the mode was turned off it binds until its leader has put that into force.
        """
        lost = self.state.reset
        sync = self.view.sync
        if lost is not None and lost.sync is not None and (sync is None or sync.mod_revision <= lost.revision):
            sync = lost.sync
        return sync if sync is not None and sync.leader else None

    @property
    def is_of_electorate(self) -> bool:
        """With synchronous mode: this member may be elected, or its ballot is needed to elect another one."""
        electorate = self.electorate
        return electorate is not None and self.me in electorate.members

    @property
    def is_checked(self) -> bool:
        """The local WAL was found to be part of the leader's history since it leads."""
        return self.state.checked_in == self.view.term > 0

    @property
    def leader_member(self) -> Member | None:
        """Whoever else leads, as it announced itself."""
        return self.view.member(self.other_leader) if self.other_leader else None

    @property
    def upstream(self) -> Upstream:
        """Where a replica should stream from: the leader, as far as its address is known."""
        member = self.leader_member
        return upstream_of(member) if member else Upstream(self.other_leader)

    @property
    def is_foreign(self) -> bool:
        """The local data belongs to another cluster: whatever runs on it is not ours to touch.

        A leader that was seen to write in this term is the cluster, whatever `initialize` says meanwhile.
        """
        if self.holds_key and self.state.verified_term == self.view.term:
            return False
        local, lost = self.server.system_identifier, self.state.reset
        cluster = self.state.cluster.system_identifier if self.state.cluster else ""
        if lost is not None:
            cluster = cluster or lost.system_identifier
        return bool(local) and bool(cluster) and local != cluster

    @property
    def is_server_down(self) -> bool:
        return self.server.phase in DOWN

    def retry_at(self, kind: type) -> Instant:
        """When an action of that kind may be tried (again): doubling pauses after failures in a row."""
        failure = self.state.failure(kind.__name__)
        if failure is None:
            return Instant(0.0)
        pause = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(failure.count - 1, 10))
        return after(failure.at, pause)


def upstream_of(member: Member) -> Upstream:
    """Host and port out of a member's `postgres://host:port/db`."""
    return _upstream(member.name, member.conn_url)


@lru_cache(maxsize=256)
def _upstream(name: str, conn_url: str) -> Upstream:
    address = conn_url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    host, _, port = address.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and len(port) <= LONGEST_PORT
    return Upstream(name, host.strip("[]"), int(port)) if is_port else Upstream(name)
