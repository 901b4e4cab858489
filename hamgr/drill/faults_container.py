"""Faults of containers, and of what stands between clients and members there."""

from __future__ import annotations

import os
import signal

from hamgr.drill.compose_cluster import ComposeCluster
from hamgr.drill.errors import DrillError
from hamgr.drill.fault import COMPOSE_ONLY, POOLER, PRIMARY, Fault, Undo, Victims, nothing
from hamgr.drill.freezing import freeze

_STOP_TIMEOUT_S = 60
"""As `stop_grace_period` in docker-compose.yml."""
_POOLER_STOP_TIMEOUT_S = 2


def _first_process_frozen(victims: Victims) -> Undo:
    """The guard. Nobody within the container can end its first process, and start another."""
    return freeze([victims.primary.guard_pid()])


def _container_ended(victims: Victims) -> Undo:
    """Not through Docker, which would take it for a stop that is wanted."""
    os.kill(victims.primary.guard_pid(), signal.SIGKILL)
    return nothing


def _container_restarted(victims: Victims) -> Undo:
    _compose(victims).container(victims.primary.name).restart(_STOP_TIMEOUT_S)
    return nothing


def _haproxy_restarted(victims: Victims) -> Undo:
    _compose(victims).container("haproxy").restart(_POOLER_STOP_TIMEOUT_S)
    return nothing


def _pgbouncer_restarted(victims: Victims) -> Undo:
    _compose(victims).container("pgbouncer").restart(_POOLER_STOP_TIMEOUT_S)
    return nothing


def _compose(victims: Victims) -> ComposeCluster:
    if not isinstance(victims.cluster, ComposeCluster):
        raise DrillError("this needs containers: --on compose")
    return victims.cluster


CONTAINER_FAULTS = (
    Fault(
        "first-process-frozen",
        "guard of the primary, the first process of its container, frozen (SIGSTOP)",
        _first_process_frozen,
        True,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
        places=COMPOSE_ONLY,
    ),
    Fault(
        "container-ended",
        "guard of the primary killed, its container ends with it and is started again by its restart policy",
        _container_ended,
        None,
        PRIMARY,
        places=COMPOSE_ONLY,
    ),
    Fault(
        "container-restarted",
        "container of the primary stopped in order and started again",
        _container_restarted,
        True,
        PRIMARY,
        places=COMPOSE_ONLY,
    ),
    Fault("haproxy-restarted", "HAProxy restarted", _haproxy_restarted, False, POOLER, places=COMPOSE_ONLY),
    Fault("pgbouncer-restarted", "PgBouncer restarted", _pgbouncer_restarted, False, POOLER, places=COMPOSE_ONLY),
)
