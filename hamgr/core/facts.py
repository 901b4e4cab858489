"""What can be learned: a closed union of frozen values that `observe` folds into the state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hamgr.core.actions import Action
from hamgr.core.cluster import ClusterView, Tags
from hamgr.core.policy import Policy
from hamgr.core.result import Outcome, Result
from hamgr.core.routes import Routes
from hamgr.core.server import ServerIdentity, ServerView, Vital
from hamgr.core.units import Instant, Term


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """The keys of the scope, by a linearizable read or brought up to date by the watch."""

    view: ClusterView


@dataclass(frozen=True, slots=True)
class ClusterRecalled:
    """The keys as this member last saw them before its agent ended, while etcd does not answer a fresh one."""

    view: ClusterView


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """etcd gave no proper answer."""

    at: Instant
    text: str


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """A new lease; `deadline` counts from the instant before the grant was asked for."""

    lease_id: int
    deadline: Instant
    ttl_s: float
    """As etcd granted it, which may be more than `asked_ttl_s`."""
    asked_ttl_s: float


@dataclass(frozen=True, slots=True)
class LeaseTried:
    """The leader key is about to be moved to this new lease, by a transaction that may take effect at any time from now
    on: as long as the key has not been written since `leader_revision`.
    """

    lease_id: int
    deadline: Instant
    ttl_s: float = 0.0
    """0: not known, a predecessor of this agent tried it."""
    asked_ttl_s: float = 0.0
    leader_revision: int = 0
    """0: not known."""


@dataclass(frozen=True, slots=True)
class LeaseAdopted:
    """The lease that this agent's predecessor left in the guard's page, still within its deadline."""

    lease_id: int
    deadline: Instant
    term: Term
    """The term it was armed for; 0 if it did not lead."""
    tried: LeaseTried | None = None
    """The lease to which that predecessor was moving the leader key."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """A renewal that a later linearizable read confirmed."""

    lease_id: int
    deadline: Instant
    ttl_s: float
    """As etcd granted the lease."""
    view: ClusterView


@dataclass(frozen=True, slots=True)
class LeaseGone:
    """etcd says that the lease no longer exists."""

    lease_id: int
    at: Instant


@dataclass(frozen=True, slots=True)
class Probed:
    """The local server as just seen."""

    server: ServerView


@dataclass(frozen=True, slots=True)
class VitalChecked:
    """One vital check came to its end: well if `problem` is empty. `is_hung`: by its deadline."""

    vital: Vital
    began_at: Instant
    problem: str = ""
    is_hung: bool = False


@dataclass(frozen=True, slots=True)
class Promised:
    """This member has promised `to` a leader not to campaign until then."""

    to: str
    until: Instant


@dataclass(frozen=True, slots=True)
class MemoryLost:
    """Nobody knows what an agent here promised before `at` (the page is new): it may have been a moment ago."""

    at: Instant


@dataclass(frozen=True, slots=True)
class ServerExited:
    """The postmaster ended, told by its pidfd."""

    identity: ServerIdentity
    at: Instant


@dataclass(frozen=True, slots=True)
class ActionStarted:
    """The executor took this on."""

    action: Action
    at: Instant


@dataclass(frozen=True, slots=True)
class ActionEnded:
    """The executor is through with it."""

    action: Action
    outcome: Outcome
    at: Instant

    @property
    def is_done(self) -> bool:
        return self.outcome.result is Result.DONE


@dataclass(frozen=True, slots=True)
class ActionProgressed:
    """How far a long action is, in words for people ('base backup: 40 %')."""

    text: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """An operator's order to this member: restart or reinit, with `options` as the REST body names them."""

    order_id: int
    kind: str
    at: Instant
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyRead:
    """The dynamic configuration of that revision, as it holds now (the last good one where it is broken)."""

    policy: Policy
    revision: int
    problems: tuple[str, ...] = ()
    is_broken: bool = False
    """Some of it cannot be used: what is not in it may have been meant otherwise."""


@dataclass(frozen=True, slots=True)
class SettingsReread:
    """SIGHUP: the configuration file was read again; what it changes is to be applied."""

    at: Instant
    routes: Routes | None = None
    """Poolers and load balancers as the file names them now; None: as before."""
    tags: Tags | None = None
    """This member's tags as the file has them now; None: as before."""


@dataclass(frozen=True, slots=True)
class StopOrdered:
    """SIGTERM: hand over, stop the server, exit."""

    at: Instant


@dataclass(frozen=True, slots=True)
class ReplaceOrdered:
    """SIGUSR2: exit at once and be replaced; server and lease stay."""

    at: Instant


@dataclass(frozen=True, slots=True)
class StoreReset:
    """etcd was made anew, or restored from a backup: this view, by a linearizable read, is older than what it had shown
    before that was sent. `lease_id`: the lease that was renewed just before it, until `deadline`; 0: none was.
    """

    view: ClusterView
    lease_id: int = 0
    deadline: Instant = Instant(0.0)


@dataclass(frozen=True, slots=True)
class GuardSeen:
    """Whether the guard's heartbeat is fresh, and what this member lacks without which it must not lead."""

    alive: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class WallClockSeen:
    """What the wall clock shows beyond CLOCK_BOOTTIME, in seconds. For schedules that people made, nothing else."""

    ahead_s: float


@dataclass(frozen=True, slots=True)
class Routed:
    """The first health check that was answered 200 as primary in this term."""

    at: Instant
    term: Term


HostFact = GuardSeen | WallClockSeen | VitalChecked | Promised | MemoryLost

Fact = (
    HostFact
    | ClusterSeen
    | ClusterRecalled
    | StoreFailed
    | LeaseGranted
    | LeaseTried
    | LeaseAdopted
    | Renewed
    | LeaseGone
    | Probed
    | ServerExited
    | ActionStarted
    | ActionEnded
    | ActionProgressed
    | Ordered
    | PolicyRead
    | SettingsReread
    | StopOrdered
    | ReplaceOrdered
    | StoreReset
    | Routed
)
