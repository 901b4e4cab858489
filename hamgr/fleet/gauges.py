"""What etcd costs over a stretch of time: its own metrics, and the kernel's accounts of processes and machine."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
from prometheus_client.parser import text_string_to_metric_families

from hamgr.drill.errors import DrillError
from hamgr.drill.store import Store, StoreMember

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_FSYNC = "etcd_disk_wal_fsync_duration_seconds_bucket"
_COUNTED = (
    "etcd_server_proposals_committed_total",
    "etcd_server_is_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_slow_read_indexes_total",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "process_open_fds",
)
_REQUESTS = "grpc_server_handled_total"


@dataclass(frozen=True, slots=True)
class MemberReading:
    """One etcd member at one instant. Counters count from its start."""

    name: str
    cpu_s: float
    resident_bytes: int
    metrics: Mapping[str, float]
    fsyncs: Mapping[float, float]
    """Upper bound in seconds -> fsyncs of the WAL that took no longer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything at one instant."""

    at_s: float
    members: tuple[MemberReading, ...]
    agents_cpu_s: float
    machine_idle_s: float
    """Of all processors together."""


@dataclass(frozen=True, slots=True)
class MemberLoad:
    """What one etcd member did and held. A share of 1 is one core."""

    name: str
    is_leader: bool
    cpu_share: float
    resident_bytes: int
    watchers: int
    open_files: int
    requests_per_s: float
    sent_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """What all of it cost over a stretch of time."""

    seconds: float
    members: tuple[MemberLoad, ...]
    proposals_per_s: float
    db_bytes: int
    """The file of one member at the end, the greatest. Nothing was compacted."""
    db_growth_bytes_per_s: float
    fsync_p99_s: float | None
    """Upper bound of the bucket; None: there was none."""
    leader_changes: int
    """Of etcd itself."""
    agents_cpu_share: float
    machine_idle_share: float
    """0: the processors had nothing left, and what was measured is as much the machine's as etcd's."""

    @property
    def busiest(self) -> MemberLoad:
        return max(self.members, key=lambda member: member.cpu_share)


def read_all(store: Store, agent_pids: Sequence[int]) -> Reading:
    """Now. Raises DrillError when a member does not answer or a process is gone."""
    try:
        members = tuple(_read_member(member) for member in store.members)
        return Reading(time.monotonic(), members, sum(map(_cpu_s, agent_pids)), _machine_idle_s())
    except OSError as error:
        raise DrillError(f"a process of the survey is gone: {error}") from error


def load_between(before: Reading, after: Reading) -> Load:
    """What happened between two readings."""
    seconds = after.at_s - before.at_s
    pairs = list(zip(before.members, after.members, strict=True))
    cores = len(os.sched_getaffinity(0))
    return Load(
        seconds=seconds,
        members=tuple(_member_load(old, new, seconds) for old, new in pairs),
        proposals_per_s=max(_grown(old, new, "etcd_server_proposals_committed_total") for old, new in pairs) / seconds,
        db_bytes=int(max(new.metrics["etcd_mvcc_db_total_size_in_bytes"] for new in after.members)),
        db_growth_bytes_per_s=max(_grown(old, new, "etcd_mvcc_db_total_size_in_bytes") for old, new in pairs) / seconds,
        fsync_p99_s=_slowest_fsync(pairs),
        leader_changes=int(max(_grown(old, new, "etcd_server_leader_changes_seen_total") for old, new in pairs)),
        agents_cpu_share=(after.agents_cpu_s - before.agents_cpu_s) / seconds,
        machine_idle_share=max(0.0, (after.machine_idle_s - before.machine_idle_s) / seconds / cores),
    )


def _member_load(old: MemberReading, new: MemberReading, seconds: float) -> MemberLoad:
    return MemberLoad(
        name=new.name,
        is_leader=new.metrics["etcd_server_is_leader"] == 1,
        cpu_share=(new.cpu_s - old.cpu_s) / seconds,
        resident_bytes=new.resident_bytes,
        watchers=int(new.metrics["etcd_debugging_mvcc_watcher_total"]),
        open_files=int(new.metrics["process_open_fds"]),
        requests_per_s=_grown(old, new, _REQUESTS) / seconds,
        sent_bytes_per_s=_grown(old, new, "etcd_network_client_grpc_sent_bytes_total") / seconds,
    )


def _grown(old: MemberReading, new: MemberReading, name: str) -> float:
    return new.metrics[name] - old.metrics[name]


def _slowest_fsync(pairs: Sequence[tuple[MemberReading, MemberReading]]) -> float | None:
    """The p99 of the member where it is greatest."""
    found = [
        bound
        for old, new in pairs
        if (bound := quantile({le: count - old.fsyncs.get(le, 0.0) for le, count in new.fsyncs.items()}, 0.99))
    ]
    return max(found, default=None)


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Upper bound of the bucket in which that share of a cumulative histogram ends; None: it is empty."""
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    return min(bound for bound, count in buckets.items() if count >= share * total)


def _read_member(member: StoreMember) -> MemberReading:
    if member.process is None:
        raise DrillError(f"{member.name} does not run")
    try:
        answer = requests.get(f"http://{member.endpoint}/metrics", timeout=5.0)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise DrillError(f"{member.name} does not show its metrics: {error}") from error
    metrics, fsyncs = _parsed(answer.text)
    pid = member.process.pid
    return MemberReading(member.name, _cpu_s(pid), _resident_bytes(pid), metrics, fsyncs)


def _parsed(text: str) -> tuple[dict[str, float], dict[float, float]]:
    """Those that are counted, each summed over its labels, and the buckets of the WAL's fsyncs."""
    metrics = dict.fromkeys((*_COUNTED, _REQUESTS), 0.0)
    fsyncs: dict[float, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in metrics:
                metrics[sample.name] += sample.value
            elif sample.name == _FSYNC:
                fsyncs[float(sample.labels["le"])] = sample.value
    return metrics, fsyncs


def _cpu_s(pid: int) -> float:
    """User and system time of a process with all its threads. Source: proc(5), fields 14 and 15 of stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _machine_idle_s() -> float:
    """Idle time of all processors since boot. Source: proc(5), fourth number of the first line of /proc/stat."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[4]) / _TICKS_PER_S
