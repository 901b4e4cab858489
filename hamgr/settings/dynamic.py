"""Dynamic configuration: what the whole cluster agreed on, kept in etcd under `config`.

`bootstrap.dcs` of the file only seeds it. Field defaults are those of hamgr.core.policy.Policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from hamgr.core.policy import Policy
from hamgr.settings.kinds import Bytes, Lines, Parameters, Seconds, SynchronousMode
from hamgr.settings.plain import unwritable
from hamgr.settings.problem import Problem, join, warning
from hamgr.settings.relations import adjust_timings, overridden_rule, timing_problems
from hamgr.settings.section import OWN, Section, option
from hamgr.settings.slots import AWAITED_SLOTS, SWITCHED_ON, SYNC_SLOTS, PermanentSlot, PermanentSlots, slot_problems
from hamgr.settings.sort import fit, sort_out

_DEFAULT = Policy()
ETCD_TTL_FLOOR_S = 2
"""The shortest lease that etcd grants with its default election timeout of 1 s (measured, DESIGN.md 2)."""


class DynamicPostgresql(Section):
    """PostgreSQL as all members run it. `postgresql.parameters` of a member's file win over these."""

    use_pg_rewind: bool = option(
        _DEFAULT.use_pg_rewind,
        "A server whose history diverged is rewound to the leader's before it is cloned anew.",
        origin="Patroni: false",
        sample=True,
    )
    use_slots: bool = option(_DEFAULT.use_slots, "Each member has a physical replication slot on the leader.")
    parameters: Parameters = option({}, "PostgreSQL parameters of every member.", sample={"max_connections": 100})
    pg_hba: Lines = option((), "Lines of pg_hba.conf of every member whose file has no `postgresql.pg_hba`.")


class DynamicSettings(Section):
    """Kept in etcd; `hamgr edit-config` changes it, every member takes a change at once."""

    ttl: Seconds = option(
        _DEFAULT.ttl_s,
        "Life of the leader's lease without renewal, whole seconds; bounds the write gap when a host is lost.",
        origin="Patroni: 30, at least 20",
        sample=5,
        ge=ETCD_TTL_FLOOR_S,
        le=86400,
        multiple_of=1,
    )
    loop_wait: Seconds = option(
        _DEFAULT.loop_wait_s,
        "Longest pause between two decisions. Events are acted on at once; this is the safety net.",
        origin="Patroni: 10, at least 1",
        sample=1,
        ge=0.1,
        le=3600,
    )
    retry_timeout: Seconds = option(
        _DEFAULT.retry_timeout_s,
        "How long a call to etcd or PostgreSQL is tried before it counts as failed.",
        origin="Patroni: 10, at least 3",
        sample=2,
        ge=0.1,
        le=3600,
    )
    maximum_lag_on_failover: Bytes = option(
        _DEFAULT.maximum_lag_on_failover_bytes,
        "A replica that lacks more WAL than this does not become leader in asynchronous mode.",
        sample="1MB",
        shown="1MB",
        ge=0,
    )
    maximum_lag_on_syncnode: Bytes = option(
        _DEFAULT.maximum_lag_on_syncnode_bytes,
        "A synchronous standby that lags by more is replaced by another; -1: never.",
        ge=-1,
    )
    primary_start_timeout: Seconds = option(
        _DEFAULT.primary_start_timeout_s,
        "A crashed primary may recover in place for this long before another member takes over; 0: never.",
        ge=0,
    )
    primary_stop_timeout: Seconds = option(
        _DEFAULT.primary_stop_timeout_s,
        "Budget of a stop in every mode: fast, then immediate, then SIGKILL of the whole tree.",
        origin="Patroni: 0 (no bound)",
        gt=0,
        le=3600,
    )
    handover_timeout: Seconds = option(
        _DEFAULT.handover_timeout_s,
        "If the successor of a switchover has not taken the key by then, the old primary starts again.",
        origin=OWN,
        gt=0,
        le=3600,
    )
    election_window: Seconds = option(
        _DEFAULT.election_window_s,
        "How long an election waits for ballots of live members that have not voted.",
        origin=OWN,
        gt=0,
        le=60,
    )
    probe_connection_timeout: Seconds = option(
        _DEFAULT.probe_connection_timeout_s,
        "A primary that gives no fresh connection for so long is ill: another member takes over if one is better off.",
        origin=OWN,
        ge=0.1,
        le=3600,
    )
    probe_commit_timeout: Seconds = option(
        _DEFAULT.probe_commit_timeout_s,
        "A primary that takes longer than this to flush a small commit is ill; standbys do not matter here.",
        origin=OWN,
        ge=0.1,
        le=3600,
    )
    probe_disk_timeout: Seconds = option(
        _DEFAULT.probe_disk_timeout_s,
        "A member whose data or WAL file system takes longer for a small write and fsync, or has no room, is ill.",
        origin=OWN,
        ge=0.1,
        le=3600,
    )
    member_slots_ttl: Seconds = option(
        _DEFAULT.member_slots_ttl_s,
        "The slot of a member that vanished is kept for this long.",
        shown="30min",
        ge=0,
    )
    pause: bool = option(_DEFAULT.pause, "No automatic failover; hamgr only watches.")
    failsafe_mode: bool = option(
        _DEFAULT.failsafe_mode,
        "With etcd unreachable the leader stays writable while every member of the roster agrees.",
        origin="Patroni: false",
    )
    check_timeline: bool = option(
        _DEFAULT.check_timeline,
        "A member on an older timeline does not become leader.",
        origin="Patroni: false",
    )
    synchronous_mode: SynchronousMode = option(
        _DEFAULT.synchronous_mode,
        "`on`: named standbys confirm each commit; `quorum`: any of them; only they may take over.",
        sample="off",
    )
    synchronous_mode_strict: bool = option(
        _DEFAULT.synchronous_mode_strict, "Without a synchronous standby the primary takes no writes."
    )
    synchronous_node_count: int = option(
        _DEFAULT.synchronous_node_count, "How many standbys must confirm a commit.", ge=1, le=1000
    )
    slots: PermanentSlots = option(
        {},
        "Permanent logical slots by name, each `{type: logical, database: ..., plugin: ...}`, kept across a change of "
        "leader. From PostgreSQL 17 on; taking one out does not drop it.",
        origin="Patroni: from 11 on, physical ones too",
    )
    ignore_slots: tuple[dict[str, Any], ...] = option((), "Slots, matched by their properties, that hamgr leaves.")
    postgresql: DynamicPostgresql = Field(default=DynamicPostgresql())

    @property
    def logical_slots(self) -> dict[str, PermanentSlot]:
        """Declared slots that hamgr keeps."""
        return {name: slot for name, slot in self.slots.items() if slot.is_kept and self.postgresql.use_slots}

    @property
    def syncs_slots(self) -> bool:
        """Replicas copy failover slots: unless told otherwise, where one is declared."""
        said = self.postgresql.parameters.get(SYNC_SLOTS)
        wanted = bool(self.logical_slots) if said is None else said.lower() in SWITCHED_ON
        return wanted and self.postgresql.use_slots

    def policy(self) -> Policy:
        """What decisions depend on of this configuration."""
        return Policy(
            ttl_s=self.ttl,
            loop_wait_s=self.loop_wait,
            retry_timeout_s=self.retry_timeout,
            maximum_lag_on_failover_bytes=self.maximum_lag_on_failover,
            primary_start_timeout_s=self.primary_start_timeout,
            primary_stop_timeout_s=self.primary_stop_timeout,
            handover_timeout_s=self.handover_timeout,
            election_window_s=self.election_window,
            member_slots_ttl_s=self.member_slots_ttl,
            pause=self.pause,
            failsafe_mode=self.failsafe_mode,
            check_timeline=self.check_timeline,
            synchronous_mode=self.synchronous_mode,
            synchronous_mode_strict=self.synchronous_mode_strict,
            synchronous_node_count=self.synchronous_node_count,
            maximum_lag_on_syncnode_bytes=self.maximum_lag_on_syncnode,
            use_pg_rewind=self.postgresql.use_pg_rewind,
            use_slots=self.postgresql.use_slots,
            logical_slots=tuple(sorted(self.logical_slots)),
            syncs_slots=self.syncs_slots,
            names_awaited_slots=AWAITED_SLOTS not in self.postgresql.parameters,
            probe_connection_timeout_s=self.probe_connection_timeout,
            probe_commit_timeout_s=self.probe_commit_timeout,
            probe_disk_timeout_s=self.probe_disk_timeout,
        )


def parse_dynamic(raw: object, at: str = "") -> tuple[DynamicSettings, tuple[Problem, ...]]:
    """Dynamic configuration from what etcd's `config` key or `bootstrap.dcs` holds, decoded.

    Always returns usable settings: a key that is wrong has its default, and so have timings that contradict each
    other. A caller that already has good settings keeps those if any problem `is_error`. `at` is put before the paths
    of problems. Never raises.
    """
    if not isinstance(raw, Mapping):
        return DynamicSettings(), (Problem(at, "is not a mapping of dynamic configuration"),)
    plain, problems = _plain(raw, at)
    known, strangers = sort_out(plain, DynamicSettings, at, "dcs")
    settings, wrong = fit(DynamicSettings, known, at)
    problems = (*problems, *strangers, *wrong)
    broken = timing_problems(settings.policy(), at)
    if any(problem.is_error for problem in broken):
        default = DynamicSettings()
        timings = {name: getattr(default, name) for name in ("ttl", "loop_wait", "retry_timeout")}
        return settings.model_copy(update=timings), (*problems, *broken)
    adjusted, notes = adjust_timings(settings.policy(), frozenset(map(str, raw)), at)
    changes = {"loop_wait": adjusted.loop_wait_s, "retry_timeout": adjusted.retry_timeout_s}
    silent = tuple(_without_effect(settings, at))
    return settings.model_copy(update=changes), (*problems, *broken, *notes, *silent)


def _plain(raw: Mapping[Any, Any], at: str) -> tuple[dict[Any, Any], tuple[Problem, ...]]:
    """The keys whose values etcd can hold, and the problems of the others."""
    found = {key: tuple(unwritable(value, join(at, key))) for key, value in raw.items() if isinstance(key, str)}
    plain = {key: value for key, value in raw.items() if not found.get(key)}
    return plain, tuple(problem for problems in found.values() for problem in problems)


def _without_effect(settings: DynamicSettings, at: str) -> Iterator[Problem]:
    """What an operator asked for by name and would rely on, and what is not done."""
    yield from overridden_rule(settings.synchronous_mode, settings.postgresql.parameters, join(at, "postgresql"))
    yield from slot_problems(settings.slots, settings.postgresql.use_slots, settings.postgresql.parameters, at)
    if settings.ignore_slots:
        yield warning(join(at, "ignore_slots"), "has no effect", "hamgr leaves every slot that it has not made")
