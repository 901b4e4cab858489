"""The page that guard and agent share: it outlives both, and is new after a boot."""

from __future__ import annotations

from collections.abc import Callable

from hamgr.core.units import Instant, Term


class Page:
    """Deadlines are instants of the host's boot clock."""

    def __init__(self) -> None:
        self.on_deadline: Callable[[], None] = _nothing
        self.wipe()
        self.is_new = False

    def wipe(self) -> None:
        """The host has booted: nothing is known of what was before."""
        self.is_new = True
        self.armed = False
        self.deadline: Instant | None = None
        self.term = Term(0)
        self.lease_id = 0
        self.tried_id, self.tried_deadline = 0, Instant(0.0)
        self.meet_agent()
        self.promised_to = ""
        self.promised_until: Instant | None = None

    def meet_agent(self) -> None:
        """A fresh agent takes the lease that is named here for the key's, and knows of none that the key has left."""
        self.held_id, self.left_id = self.lease_id, 0

    def arm(self, deadline: Instant, term: Term, lease_id: int) -> None:
        """The server is under the deadline, no later than the one lasts to which the leader key may be moving."""
        self.deadline, self.term, self.lease_id, self.armed = self._limited(deadline, lease_id), term, lease_id, True
        self.on_deadline()

    def move_on(self, deadline: Instant) -> None:
        """The deadline is later, never earlier."""
        if self.deadline is None or deadline > self.deadline:
            self.deadline = deadline

    def move_on_by_lease(self, deadline: Instant, lease_id: int) -> None:
        """By a renewal of that lease: no further than the one lasts to which the leader key may have moved, and not at
        all by the one that it has left.
        """
        if lease_id == self.left_id:
            return
        deadline = self._limited(deadline, lease_id)
        self.move_on(deadline)
        self.lease_id = lease_id

    def _limited(self, deadline: Instant, lease_id: int) -> Instant:
        return deadline if self.tried_id in (0, lease_id) else Instant(min(deadline, self.tried_deadline))

    def limit(self, deadline: Instant, lease_id: int) -> None:
        """The leader key may move to that lease from now on: whichever of both ends first binds the server."""
        self.held_id, self.tried_id, self.tried_deadline = self.lease_id, lease_id, deadline
        if self.deadline is None or deadline < self.deadline:
            self.deadline = deadline
            self.on_deadline()

    def lift_limit(self, lease_id: int) -> None:
        """It is known on which lease the leader key is, if on any."""
        if self.tried_id == lease_id:
            self.left_id, self.lease_id = self.held_id, lease_id
        self.tried_id = 0

    def note_lease(self, lease_id: int, deadline: Instant) -> None:
        """Unarmed, it binds nobody; a new agent learns from it which lease is still in force."""
        self.lease_id, self.deadline = lease_id, deadline

    def disarm(self) -> None:
        """No deadline binds the server."""
        self.armed, self.term = False, Term(0)

    def promise(self, to: str, until: Instant) -> None:
        """A promise outlives the agent that gave it."""
        self.promised_to = to
        self.promised_until = until if self.promised_until is None else Instant(max(self.promised_until, until))


def _nothing() -> None:
    return None
