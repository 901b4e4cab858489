"""What a manager costs while nothing happens: memory and CPU of its processes, writes to its authority, WAL."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import psycopg

from hamgr.bench.managers.manager import Node
from hamgr.bench.stage import Stage

IDLE_S = 60.0
_CALM_S = 10.0
"""After forming, before it counts as idle; a whole period at least."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds since each process began, of all nodes together, and the authority's counters."""

    manager_s: float
    server_s: float
    authority_s: float
    counters: dict[str, float]
    wal_bytes: float


def measure_idle(stage: Stage, seconds: float = IDLE_S) -> dict[str, Any]:
    """Costs of an idle cluster per node, over `seconds`. Raises DrillError, or psycopg.Error."""
    time.sleep(max(_CALM_S, stage.plan.variant.period_s))
    before, began = _spent(stage), time.monotonic()
    time.sleep(seconds)
    after, took_s = _spent(stage), time.monotonic() - began
    nodes = len(stage.nodes)
    rates = {f"{name}_per_s": (value - before.counters[name]) / took_s for name, value in after.counters.items()}
    return {
        "manager_rss_mib": mean(memory_mib(node.manager_pids(), "status", "VmRSS") for node in stage.nodes),
        "manager_pss_mib": mean(memory_mib(node.manager_pids(), "smaps_rollup", "Pss") for node in stage.nodes),
        "manager_processes": mean(len(node.manager_pids()) for node in stage.nodes),
        "manager_cpu_percent": 100 * (after.manager_s - before.manager_s) / took_s / nodes,
        "server_cpu_percent": 100 * (after.server_s - before.server_s) / took_s / nodes,
        "authority_cpu_percent": 100 * (after.authority_s - before.authority_s) / took_s,
        "wal_bytes_per_s": (after.wal_bytes - before.wal_bytes) / took_s,
        **rates,
    }


def _spent(stage: Stage) -> Spent:
    authority = stage.manager.authority
    return Spent(
        manager_s=sum(cpu_s(node.manager_pids(), ended_children=True) for node in stage.nodes),
        server_s=sum(_server_s(node) for node in stage.nodes),
        authority_s=cpu_s(authority.pids()),
        counters=dict(authority.counters()),
        wal_bytes=_wal_bytes(stage),
    )


def _server_s(node: Node) -> float:
    """Of a server's living processes, and of those that its postmaster has reaped."""
    postmaster = node.postmaster_pid()
    children = node.server_pids() - {postmaster}
    return cpu_s(children) + cpu_s([postmaster], ended_children=True)


def _wal_bytes(stage: Stage) -> float:
    with psycopg.connect(stage.primary().dsn, password=stage.password, autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return float(row[0])


def cpu_s(pids: Iterable[int], *, ended_children: bool = False) -> float:
    """CPU seconds, user and system, of each process so far; on demand with those of its children that have ended.

    A process that is gone counts nothing.
    """
    last = 17 if ended_children else 15
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        # proc(5): utime is the 14th field, the 17th is cstime; the first two stand before the parenthesis.
        total += sum(int(field) for field in fields[11 : last - 2])
    return total / _TICKS_PER_S


def memory_mib(pids: Iterable[int], file: str, name: str) -> float:
    """Sum of a figure in kB over the processes. One that is gone, as a short-lived child may be, counts nothing."""
    total_kib = 0
    for pid in pids:
        try:
            found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
        except OSError:
            continue
        total_kib += int(found.group(1)) if found else 0
    return total_kib / 1024
