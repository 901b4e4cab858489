"""Ways to build the world wrong on purpose, so that it can be seen that the checkers would notice."""

from __future__ import annotations

from enum import Enum


class Mutant(Enum):
    """One mistake each in what surrounds the core."""

    NONE = "none"
    NO_GUARD = "no-guard"
    """Nobody kills the server at the deadline, and nobody starts a dead agent again."""
    LEASE_FROM_REPLY = "lease-from-reply"
    """A renewal counts from when its answer came, not from when it was sent."""
    SENTRY_TOO_LATE = "sentry-too-late"
    """A replica gets its sentry only after it was promoted."""
    POSTMASTER_ONLY = "postmaster-only"
    """Whoever kills the server kills its postmaster, and leaves the backends to themselves."""
    BALLOTS_NOT_COMPARED = "ballots-not-compared"
    """The transaction that takes the lead does not look at the ballots again."""
    PROMISE_IGNORED = "promise-ignored"
    """A member promises its leader not to campaign, and forgets it at once."""
    SYNC_ORDER_REVERSED = "sync-order-reversed"
    """Who can be elected reaches etcd long after the caller was told so: after PostgreSQL was changed."""
    RECEIVER_NOT_STOPPED = "receiver-not-stopped"
    """A replica votes while its WAL receiver goes on."""
    MOVE_NOT_LIMITED = "move-not-limited"
    """The leader key moves to a shorter lease, and the guard goes by the longer one."""

    BIRTHS_ALIKE = "births-alike"
    """Every timeline is noted as begun in one and the same term."""


NAMES = tuple(mutant.value for mutant in Mutant if mutant is not Mutant.NONE)
