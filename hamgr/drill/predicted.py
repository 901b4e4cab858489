"""What the product itself predicts for a fault, to stand beside what the client measured."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

Gap = tuple[float, float, float]
"""Write gap in seconds: best, typical, worst."""

_TIMEOUT_S = 30.0

_NO_GAP = (
    *("agent-killed", "agent-replaced", "guard-killed", "guard-frozen", "guard-gone", "control-killed"),
    *("replica-lost", "replica-lagging", "backend-stuck", "cpu-busy", "disk-busy", "clock-ahead", "clock-stepping"),
    *("cut-from-peers", "one-way-peers", "etcd-leader-killed", "etcd-member-killed", "etcd-leader-frozen"),
)
_ETCD_AWAY = (
    *("cut-from-etcd", "one-way-to-etcd", "one-way-from-etcd"),
    *("etcd-frozen", "etcd-gone", "etcd-emptied", "etcd-majority-lost"),
)

SCENARIOS: Mapping[str, str] = {
    **dict.fromkeys(_NO_GAP, "agent_lost"),
    **dict.fromkeys(_ETCD_AWAY, "store_lost"),
    "switchover": "switchover",
    "postgres-killed": "server_crashed",
    "postgres-tree-killed": "server_crashed",
    "postgres-hung": "server_hung",
    "data-disk-full": "disk_failed",
    "disk-read-only": "disk_failed",
    "disk-hung": "disk_hung",
    "host-lost": "host_lost",
    "host-frozen": "host_lost",
    "member-lost": "host_lost",
    "isolated": "isolated",
    "agent-frozen": "agent_frozen",
    "both-gone": "control_lost",
}
"""Fault -> the name of its scenario in `hamgr validate`; combined faults, and those that depend on load, have none."""


def predicted_gaps(python: Path, config: Path) -> Mapping[str, Gap]:
    """Gap by scenario, as `hamgr validate` computes it from a member's file; empty where it does not say."""
    argv = [str(python), "-m", "hamgr", "validate", "-f", "json", str(config)]
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        scenarios = json.loads(ran.stdout)["budget"]["scenarios"]
        return {each["name"]: _gap(each["gap_s"]) for each in scenarios}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return {}


def _gap(said: Mapping[str, float]) -> Gap:
    return float(said["best"]), float(said["typical"]), float(said["worst"])


def gap_of(fault: str, gaps: Mapping[str, Gap]) -> Gap | None:
    """What is predicted for that fault, None where nothing is."""
    return gaps.get(SCENARIOS.get(fault, ""))
