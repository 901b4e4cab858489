"""All that a member knows, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hamgr.core.actions import Action, Lane, Upstream
from hamgr.core.cluster import ClusterView, SyncState, Tags
from hamgr.core.facts import LeaseTried
from hamgr.core.pipeline import Passage
from hamgr.core.policy import Policy
from hamgr.core.routes import Routes
from hamgr.core.server import Illness, ServerView, Vital
from hamgr.core.units import Instant, Lsn, Term, Timeline


@dataclass(frozen=True, slots=True)
class Myself:
    """This member as configured on its host."""

    name: str
    conn_url: str = ""
    api_url: str = ""
    version: str = ""
    tags: Tags = field(default_factory=Tags)
    routes: Routes = field(default_factory=Routes)


@dataclass(frozen=True, slots=True)
class Lease:
    """By what this member may lead, and until when. `term` is the one in which it leads, 0 while it does not."""

    lease_id: int = 0
    deadline: Instant | None = None
    """Of the lease in etcd, on which the leader key hangs."""
    term: Term = Term(0)
    peer_deadline: Instant | None = None
    """By the promises of every member of the roster."""
    ttl_s: float = 0.0
    """As etcd granted it; 0: adopted, and not renewed yet."""
    asked_ttl_s: float = 0.0
    """What was asked for; 0: not known. etcd grants no less than some seconds."""
    confirmed_at: Instant | None = None
    """From when its ttl counts: before the last renewal was sent."""
    promised_at: Instant | None = None
    """From when the peers' promises count."""
    tried: LeaseTried | None = None
    """The leader key may be on this lease instead. Until that is settled no deadline is later than its own."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """An action that the executor has not ended yet."""

    action: Action
    since: Instant


@dataclass(frozen=True, slots=True)
class Failure:
    """Failures in a row of one kind of action, by its class name."""

    kind: str
    code: str
    text: str
    count: int
    at: Instant


@dataclass(frozen=True, slots=True)
class Crash:
    """The server of a leader ended without our asking, or was put down because it was ill."""

    at: Instant
    cause: str = "server_crashed"
    """Code for the record of the failover that follows."""
    examined_at: Instant | None = None
    end_timeline: Timeline = Timeline(0)
    end_lsn: Lsn | None = None
    """Where the WAL on this disk ends; None: could not be read."""
    offered_at: Instant | None = None
    declined: bool = False
    """It was offered, and no replica that holds everything took it in time."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """A planned change of leader, as its present leader sees it."""

    request_revision: int
    """0: not asked for by a request but by the end of this agent."""
    successor: str
    began_at: Instant
    stopped_at: Instant
    end_timeline: Timeline = Timeline(0)
    end_lsn: Lsn | None = None
    was_clean: bool = False
    offered_at: Instant | None = None
    aborted: bool = False


@dataclass(frozen=True, slots=True)
class Vacancy:
    """Nobody leads, or the holder offers the lead: an election for `term` is on."""

    term: Term
    since: Instant
    cold: bool
    """Who could be elected cannot be told from the members' keys: this server did not run as a replica when the vacancy
    was first seen, its own key was gone, or etcd was restored.
    """
    voted_at: Instant | None = None
    open_after: int = 0
    """Revision of the last view before it: a ballot as old as that was cast for something else."""
    offered_in: int = 0
    """mod_revision of the request that holds the offer which opened it; 0: nobody led."""


@dataclass(frozen=True, slots=True)
class SyncInForce:
    """A synchronous rule that every walsender was seen to go by, and the end of WAL when that was first seen."""

    names: str
    """synchronous_standby_names."""
    lsn: Lsn
    has_caught_up: bool = False
    """So many standbys as it waits for hold that WAL: whoever is elected by it lacks nothing older than the rule."""


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's order that has not been carried out yet."""

    order_id: int
    kind: str
    at: Instant
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reset:
    """etcd has lost data while this agent lived, and nobody is known to have become leader since."""

    revision: int
    """What is as old as this, or older, etcd has from its backup."""
    until: Instant
    """Whom the backup shows leading leads no more by then, unless it does so now."""
    led: bool
    """This member led until then, and nobody else."""
    system_identifier: str
    """Of the cluster that was lost."""
    sync: SyncState | None = None
    """The electorate when it was lost, which is newer than that of a backup."""


class State(NamedTuple):
    """What is known. Made anew by every fact; nothing in it is ever changed.

    A named tuple, since a copy with one field changed is what an agent, and a simulator above all, makes most often:
    a tuple's takes a tenth of the time of a dataclass's.
    """

    me: Myself
    policy: Policy = Policy()
    policy_revision: int = -1
    policy_problems: tuple[str, ...] = ()
    policy_is_broken: bool = False
    applied_revision: int = -1
    """Revision of the configuration whose server parameters are in force; -1 asks for them to be applied."""
    cluster: ClusterView | None = None
    is_recalled: bool = False
    """`cluster` is what an earlier agent of this member remembered: etcd has not been read by this one."""
    store_error: str = ""
    store_failed_at: Instant | None = None
    lease: Lease = Lease()
    server: ServerView = ServerView()
    guard_alive: bool = True
    guard_problem: str = ""
    """Why this member must not lead, though its guard lives: a watchdog device that is required cannot be had."""
    wall_ahead_s: float | None = None
    """The wall clock less CLOCK_BOOTTIME; None: not seen yet."""
    under_way: tuple[UnderWay, ...] = ()
    progress: str = ""
    failures: tuple[Failure, ...] = ()
    crash: Crash | None = None
    started_in_place_at: Instant | None = None
    """When this server was last up again as a primary after a crash."""
    stopped_for_lease: bool = False
    """The server was a leader's, and was stopped because the lease could not be renewed."""
    short_lives: int = 0
    """How many times in a row before that it had not stayed up for SHORT_LIFE_S since the start in place before."""
    hand_over: HandOver | None = None
    vacancy: Vacancy | None = None
    passage: Passage | None = None
    diverged: bool = False
    """The local WAL is no ancestor of the leader's history."""
    checked_in: Term = Term(0)
    """In this term the local WAL was found to be part of its leader's history."""
    must_clone: bool = False
    """It cannot be mended in place: pg_rewind gave up, or the WAL that it needs is gone."""
    prepared_for: int = 0
    """Revision of the request for which this member's checkpoint is done."""
    prepared_at: Instant | None = None
    is_ready_to_stop: bool = False
    """The checkpoint before the end of this agent is done, or was tried."""
    verified_term: Term = Term(0)
    """The term in which this server was seen to accept writes; 0: it has not been."""
    verified_at: Instant = Instant(0.0)
    status_written_at: Instant | None = None
    not_streaming_since: Instant | None = None
    leader_heard_at: Instant | None = None
    """When this replica last had a message from its upstream: dates the fault when a host is lost."""
    slots_ensured_at: Instant | None = None
    unstreamed_since: tuple[tuple[str, Instant], ...] = ()
    """Slots that logical consumers wait for and that nobody streams from, and since when."""
    sentry_checked_at: Instant | None = None
    orders: tuple[Order, ...] = ()
    stopping_since: Instant | None = None
    replace_ordered_at: Instant | None = None
    reset: Reset | None = None
    unmade_since: Instant | None = None
    """Since then etcd has shown neither a cluster nor a leader."""
    foreign_since: Instant | None = None
    gave_up_at: Instant | None = None
    """When this member gave the leader key up because its server failed it."""
    illnesses: tuple[Illness, ...] = ()
    """Vital checks that failed the last time, at most one of each kind."""
    vitals_at: tuple[tuple[Vital, Instant], ...] = ()
    """When the last check of each kind that ended well began."""
    promised_to: str = ""
    promised_until: Instant | None = None
    """Until then this member does not campaign: it has promised that to a leader."""
    memory_lost_at: Instant | None = None
    """What was promised before is not known: within one ttl of this it may be anything."""
    peers_asked_at: Instant | None = None
    """When the last round of asking the peers ended."""
    alone_since: Instant | None = None
    """Neither etcd nor any peer can be reached, for reasons that lie on this host (no link, no route)."""
    roster_sent: tuple[str, ...] = ()
    """Members entered by a roster of which nobody knows yet whether it took effect."""
    absent_since: tuple[tuple[str, Instant], ...] = ()
    """Members of the roster whose keys are gone, and since when."""
    sync: SyncInForce | None = None
    sync_given_up: bool = False
    """The synchronous rule was left to the configuration again."""
    held_for: int | None = None
    """Revision of the request that the pools were held for, as far as they could be; 0: for the end of this agent."""
    hold_notes: tuple[str, ...] = ()
    """What became of that, for the record."""
    released_at: Instant | None = None
    """`verified_at` of the verification after which all pools were released."""
    pushed_at: Instant | None = None
    """The same of the load balancers that were told of it."""
    pointed_at: Upstream | None = None
    """Where the pools of this host's target files lead."""

    def is_busy(self, lane: Lane) -> bool:
        """True while an action of that lane is under way."""
        return any(task.action.lane is lane for task in self.under_way)

    def running(self, kind: type) -> UnderWay | None:
        """The action of that class which is under way, if any."""
        for task in self.under_way:
            if isinstance(task.action, kind):
                return task
        return None

    def illness(self, *vitals: Vital) -> Illness | None:
        """The longest illness of these kinds (of any, if none is named)."""
        found = [each for each in self.illnesses if not vitals or each.vital in vitals]
        return min(found, key=lambda each: each.since, default=None)

    def failure(self, kind: str) -> Failure | None:
        """The present run of failures of that kind of action, if any."""
        for failure in self.failures:
            if failure.kind == kind:
                return failure
        return None

    def forgiven(self, *kinds: type) -> State:
        """With no failures of these kinds of action on record: the next try is the first."""
        names = {kind.__name__ for kind in kinds}
        return self._replace(failures=tuple(failure for failure in self.failures if failure.kind not in names))


SHORT_LIFE_S = 10.0
"""A server that ends twice in a row so soon after its start in place does not stay up (docs/adr/0005). How long the
starts took does not count: recovery may be long.
"""


def has_lived_shortly(state: State, crash: Crash) -> bool:
    """Whether the life that this crash ended had begun in place, a moment before."""
    started_at = state.started_in_place_at
    return started_at is not None and crash.at - started_at < SHORT_LIFE_S
