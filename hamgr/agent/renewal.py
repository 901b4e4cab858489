"""Renewal of the lease by a thread of its own, on permits that run out by themselves. DESIGN.md 3 and 5.1.

A busy decision loop does not cost the lease; a wedged one does, because nobody hands out permits any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from hamgr.agent.clock import now
from hamgr.agent.guardlink import GuardLink
from hamgr.agent.journal import LOGGER
from hamgr.core.cluster import ClusterView
from hamgr.core.facts import ClusterSeen, Fact, LeaseGone, Renewed, StoreFailed, StoreReset
from hamgr.core.policy import Policy, deadline_of, renew_interval_of
from hamgr.core.units import Instant
from hamgr.dcs.errors import LeaseExpired, StoreError
from hamgr.dcs.lease import Renewal

RETRY_S = 0.1
IDLE_S = 1.0


class RenewalCall(Protocol):
    """One renewal and the linearizable read that confirms it; blocking. hamgr.dcs.lease provides it."""

    def renew(self, lease_id: int, budget_s: float) -> Renewal: ...

    def read(self, budget_s: float) -> ClusterView: ...

    def close(self) -> None: ...


class Renewer(threading.Thread):
    """Keeps one lease alive while it has a permit, and moves the guard's deadline on with every confirmed renewal."""

    def __init__(self, me: str, call: RenewalCall, link: GuardLink, post: Callable[[Fact], None]) -> None:
        super().__init__(name="renewal", daemon=True)
        self._me = me
        self._call = call
        self._link = link
        self._post = post
        self._wake = threading.Event()
        self._lease_id = 0
        self._gone = 0
        self._confirmed: tuple[int, Instant] = (0, Instant(0.0))
        """The lease that was renewed last, and the deadline that this gave."""
        self._policy = Policy()
        self._known_revision = 0
        self._permit_until = Instant(0.0)
        self._ended = False

    def permit(self, lease_id: int, until: Instant, policy: Policy, known_revision: int = 0) -> None:
        """Renew that lease (0: none) until then at the latest. Called by the decision loop after each decision.

        `known_revision`: of the newest view so far; whatever is read from now on is at least as new.
        """
        self._known_revision = known_revision
        if lease_id == self._gone:
            # Told already, and perhaps not learned yet: asking again would be answered the same, over and over.
            lease_id = 0
        is_new = lease_id != self._lease_id
        self._permit_until = until
        self._policy = policy
        self._lease_id = lease_id
        if is_new:
            self._wake.set()

    def end(self) -> None:
        """No renewal is sent any more."""
        self._ended = True
        self._wake.set()

    def run(self) -> None:
        pause_s = IDLE_S
        while not self._ended:
            self._wake.wait(pause_s)
            self._wake.clear()
            pause_s = self._renew_once()
        self._call.close()

    def _renew_once(self) -> float:
        """Renew if there is a lease and a permit; the pause until the next time in seconds."""
        lease_id, policy, known_revision = self._lease_id, self._policy, self._known_revision
        if self._ended or not lease_id:
            return IDLE_S
        began_at = now()
        if began_at >= self._permit_until or not self._link.is_alive:
            return RETRY_S
        try:
            if self._is_overdue(lease_id, began_at):
                self._call.read(policy.retry_timeout_s)
            renewal = self._call.renew(lease_id, policy.retry_timeout_s)
        except LeaseExpired:
            return self._lost(lease_id, policy.retry_timeout_s, known_revision)
        except StoreError as error:
            self._post(StoreFailed(now(), str(error)))
            return RETRY_S
        # Another ttl may be wanted by now: the lease is as long as it was granted.
        ttl_s = renewal.granted_ttl_s
        deadline = deadline_of(renewal.sent_at, ttl_s)
        self._confirmed = (lease_id, deadline)
        self._extend(deadline, lease_id, renewal.view)
        if renewal.view.revision < known_revision:
            self._post(_reset(renewal.view, lease_id, deadline))
        else:
            self._post(Renewed(lease_id, deadline, ttl_s, renewal.view))
        return max(0.0, renew_interval_of(ttl_s, policy.loop_wait_s) - (now() - began_at))

    def _is_overdue(self, lease_id: int, at: Instant) -> bool:
        """The last renewal that was answered no longer counts. If etcd hears this member and cannot be heard by it, to
        renew on would keep for it a key that it cannot use, and that nobody else could take.
        """
        return self._confirmed[0] == lease_id and at >= self._confirmed[1]

    def _lost(self, lease_id: int, budget_s: float, known_revision: int) -> float:
        """The loop knows of the keys that went with the lease before it knows of the lease's end.

        The other way round, whoever leads by its peers would see the leader key on a lease that is not its own, which
        may be another's that lives under the same name, and stop its server.
        """
        try:
            view = self._call.read(budget_s)
        except StoreError as error:
            self._post(StoreFailed(now(), str(error)))
            return RETRY_S
        self._post(_reset(view) if view.revision < known_revision else ClusterSeen(view))
        self._gone, self._lease_id = lease_id, 0
        self._post(LeaseGone(lease_id, now()))
        return IDLE_S

    def _extend(self, deadline: Instant, lease_id: int, view: ClusterView) -> None:
        """The guard's deadline moves on only if the confirming read shows us leading, by this lease, in that term.

        Unarmed it binds no server; it is kept so that an agent's successor knows which lease is still in force.
        """
        if self._link.note_lease(lease_id, deadline):
            return
        leader = view.leader
        leads = leader is not None and leader.name == self._me and leader.lease_id == lease_id
        if leads:
            # Perhaps another one than it was armed with: the key had expired and was taken again, or was moved.
            self._link.extend_by_lease(deadline, view.term, lease_id)


def _reset(view: ClusterView, lease_id: int = 0, deadline: Instant = Instant(0.0)) -> StoreReset:
    """A linearizable read showed less than was known before it was sent."""
    LOGGER.warning("etcd was made anew or restored from a backup: going by what it has now")
    return StoreReset(view, lease_id, deadline)
