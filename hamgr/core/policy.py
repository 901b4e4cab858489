"""What the cluster agreed on (dynamic configuration, kept in etcd) as far as decisions depend on it.

All times in seconds. The names are Patroni's where the meaning is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from hamgr.core.units import Instant, after

MIB = 1024 * 1024

KILL_BUDGET_S = 0.3
"""The guard starts to kill this long before the deadline: SIGKILL of a whole tree took 2-50 ms."""

CLOCK_DRIFT = 0.005
"""Share of the ttl given away for clocks that run at different speeds (NTP slews by at most 0.0005)."""

STOP_BEFORE_KILL_S = 0.4
"""Before the guard's kill the agent tries to stop the server in order, so that replicas get the last WAL."""

SENTRY_BUDGET_S = 0.2
"""Where guard and agent are gone, the sentry ends the server this long before the deadline. Less than the guard's kill
budget, so that the guard acts first. Two looks, a shell and its sweeps fit into it.
"""

DISK_ILLNESS_SHOWS_S = 1.0
"""How long a leader with a bad disk waits for others to find out that theirs is no better."""

HOPELESS_AFTER = 3
"""So many promotions (or initdbs) failed in a row: the lease is left to run out, another may have more luck."""


def margin_of(ttl_s: float) -> float:
    """What a deadline gives away of a lease of that length. Seconds."""
    return ttl_s * CLOCK_DRIFT + 0.05


def deadline_of(sent_at: Instant, ttl_s: float) -> Instant:
    """Until when this host relies on a lease or promise of `ttl_s` seconds that was asked for at `sent_at`."""
    return after(sent_at, ttl_s - margin_of(ttl_s))


def counted_from(deadline: Instant, ttl_s: float) -> Instant:
    """When that was asked for of which `deadline` is the deadline."""
    return after(deadline, -(ttl_s - margin_of(ttl_s)))


def renew_interval_of(ttl_s: float, loop_wait_s: float) -> float:
    """Pause between renewals of a lease of that length, in seconds: at least four tries fit into it."""
    return min(loop_wait_s, (ttl_s - margin_of(ttl_s) - KILL_BUDGET_S) / 4)


def agent_timeout_of(ttl_s: float) -> float:
    """How many seconds without a heartbeat the guard allows an agent, where the host's file does not say."""
    return min(2.0, 0.4 * ttl_s)


def longest_ask_of(ttl_s: float) -> float:
    """When a leader gives up an ask of its peers, in seconds: early enough for another one within the ttl."""
    return min(1.0, ttl_s / 5)


@dataclass(frozen=True, slots=True)
class Policy:
    """Dynamic configuration of one cluster. Relations between the timings are checked where it is parsed."""

    ttl_s: float = 5.0
    loop_wait_s: float = 1.0
    retry_timeout_s: float = 2.0
    maximum_lag_on_failover_bytes: int = MIB
    primary_start_timeout_s: float = 300.0
    primary_stop_timeout_s: float = 5.0
    handover_timeout_s: float = 3.0
    election_window_s: float = 0.5
    winner_patience_s: float = 1.0
    offer_timeout_s: float = 0.25
    member_slots_ttl_s: float = 1800.0
    pause: bool = False
    failsafe_mode: bool = True
    check_timeline: bool = True
    synchronous_mode: str = "off"
    synchronous_mode_strict: bool = False
    synchronous_node_count: int = 1
    maximum_lag_on_syncnode_bytes: int = -1
    use_pg_rewind: bool = True
    use_slots: bool = True
    logical_slots: tuple[str, ...] = ()
    """Declared logical slots, which outlive a change of leader from PostgreSQL 17 on."""
    syncs_slots: bool = False
    """Replicas copy the primary's failover slots, declared or not."""
    names_awaited_slots: bool = True
    """`synchronized_standby_slots` is left to hamgr."""
    probe_connection_timeout_s: float = 1.5
    probe_commit_timeout_s: float = 2.0
    probe_disk_timeout_s: float = 3.0

    @property
    def margin_s(self) -> float:
        """What a deadline gives away of the ttl, so that it comes before etcd's own whatever clocks do."""
        return margin_of(self.ttl_s)

    @property
    def renew_interval_s(self) -> float:
        """Pause between renewals of a lease of that ttl."""
        return renew_interval_of(self.ttl_s, self.loop_wait_s)
