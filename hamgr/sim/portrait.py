"""The server as the probe sees it."""

from __future__ import annotations

from hamgr.core.server import ControlFile, DataDir, Phase, ServerView, Walsender
from hamgr.core.units import Instant, Lsn, Timeline
from hamgr.sim.postgres import Server

CLUSTER_STATES = {
    (True, True): "shut down",
    (True, False): "in production",
    (False, True): "shut down in recovery",
    (False, False): "in archive recovery",
}
"""By (was primary, was stopped cleanly)."""


def view_of(server: Server, at: Instant, standbys: list[Server]) -> ServerView:
    """What a look at the server tells at that instant of its host."""
    if server.is_alive:
        return _alive(server, at, standbys)
    return ServerView(
        phase=Phase.STOPPED,
        data_dir=server.data_dir,
        problem=server.problem,
        probed_at=at,
        system_identifier=server.system_identifier,
        timeline=Timeline(server.timeline),
        birth=server.birth,
        control=_control(server) if server.data_dir is DataDir.VALID else None,
    )


def _alive(server: Server, at: Instant, standbys: list[Server]) -> ServerView:
    answers = server.phase is Phase.RUNNING and not server.is_stuck
    return ServerView(
        phase=server.phase,
        data_dir=server.data_dir,
        identity=server.identity,
        probed_at=at,
        answered=answers,
        system_identifier=server.system_identifier,
        in_recovery=server.in_recovery if answers or server.in_recovery else None,
        is_read_only=server.in_recovery,
        timeline=Timeline(server.timeline),
        birth=server.birth,
        written_lsn=Lsn(0 if server.in_recovery else server.lsn),
        received_lsn=Lsn(server.lsn if server.in_recovery else 0),
        replayed_lsn=Lsn(server.lsn if server.in_recovery else 0),
        upstream=server.upstream if server.in_recovery else "",
        streaming=server.streaming and server.in_recovery,
        walsenders=tuple(_walsender(server, standby) for standby in standbys),
        slots=dict(server.slots),
        makes_failover_slots=True,
        failover_slots={} if server.in_recovery else dict(server.failover_slots),
        former_slots=tuple(server.failover_slots) if server.in_recovery else (),
        awaited_slots=server.awaited_slots,
        sync_names=server.sync_shown.text,
        has_sentry=server.has_sentry,
    )


def _walsender(server: Server, standby: Server) -> Walsender:
    names = server.sync.names
    priority = 0
    if standby.name in names:
        priority = 1 if server.sync.any_of else names.index(standby.name) + 1
    kind = "async" if not priority else "quorum" if server.sync.any_of else "sync"
    flushed = Lsn(server.flushed.get(standby.name, 0))
    return Walsender(standby.name, "", "streaming", kind, priority, "replicator", flushed)


def _control(server: Server) -> ControlFile:
    state = CLUSTER_STATES[server.was_primary, server.was_clean]
    position = Lsn(server.lsn)
    return ControlFile(server.system_identifier, state, Timeline(server.timeline), position, position)
