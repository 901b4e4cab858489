"""An AgentPort made of a state written by hand, which notes what it is asked to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hamgr.api.config import ApiConfig
from hamgr.api.port import Answer, OrderKind, Snapshot
from hamgr.api.server import RunningApi
from hamgr.core.cluster import ClusterView, LeaderKey, Member, Request, Status
from hamgr.core.peers import Claim, Promise
from hamgr.core.server import DataDir, Phase, ServerView
from hamgr.core.standing import GuardStanding
from hamgr.core.state import Lease, Myself, State
from hamgr.core.tally import Tally
from hamgr.core.units import Instant, Lsn, Term, Timeline

Serve = Callable[[ApiConfig], Awaitable[RunningApi]]

NOW = Instant(1000.0)
MIB = 1 << 20
GUARD = GuardStanding(
    is_alive=True,
    pid=77,
    is_stand_in=False,
    is_armed=True,
    memory_locked=True,
    realtime=False,
    watchdog="off",
    agent_restarts=2,
)


def view(leader: str = "one", **changes: Any) -> ClusterView:
    """Members one and two, 1 MiB of WAL at the leader, two 4096 bytes behind."""
    members = tuple(
        Member(
            name,
            conn_url=f"postgres://127.0.0.1:{port}/postgres",
            api_url=f"http://127.0.0.1:{port + 1}/patroni",
            state="running",
            role="primary" if name == leader else "replica",
            timeline=Timeline(3),
            replication_state="" if name == leader else "streaming",
        )
        for name, port in (("two", 5434), ("one", 5432))
    )
    base = ClusterView(
        revision=9,
        seen_at=Instant(NOW - 1),
        system_identifier="7000000000000000001",
        leader=LeaderKey(leader, 77, 5) if leader else None,
        term=Term(4),
        status=Status(Lsn(MIB), Timeline(3), {"two": Lsn(MIB - 4096)}),
        members=members,
    )
    return base._replace(**changes)


def primary_state(**changes: Any) -> State:
    """Member one leads in term 4 with a verified server; its deadline is 3 s away."""
    server = ServerView(
        phase=Phase.RUNNING,
        data_dir=DataDir.VALID,
        answered=True,
        system_identifier="7000000000000000001",
        server_version=150008,
        major_version=15,
        in_recovery=False,
        timeline=Timeline(3),
        written_lsn=Lsn(MIB + 100),
        started_at="2026-11-23 20:00:00.123456+00:00",
    )
    base = State(
        me=Myself("one", version="0.1.0"),
        cluster=view(),
        lease=Lease(77, Instant(NOW + 3), Term(4)),
        verified_term=Term(4),
        server=server,
    )
    return base._replace(**changes)


def replica_state(**changes: Any) -> State:
    """Member two streams from one, 4096 bytes behind in replay, 1024 in what it received."""
    server = replace(
        primary_state().server,
        in_recovery=True,
        is_read_only=True,
        written_lsn=Lsn(0),
        received_lsn=Lsn(MIB - 1024),
        replayed_lsn=Lsn(MIB - 4096),
        streaming=True,
    )
    base = State(
        me=Myself("two", version="0.1.0"),
        cluster=view(),
        lease=Lease(88, Instant(NOW + 3), Term(0)),
        server=server,
    )
    return base._replace(**changes)


@dataclass
class FakeAgent:
    """Answers with what its fields say."""

    state: State
    at: Instant = NOW
    loop_ran_at: Instant = NOW
    changed: int = 1
    tally: Tally = field(default_factory=Tally)
    guard: GuardStanding | None = GUARD
    scope: str = "demo"
    answer: Answer = field(default_factory=lambda: Answer(200, "done"))
    failure: Exception | None = None
    promised: Promise = field(default_factory=lambda: Promise(Instant(NOW + 5.0)))
    config: Mapping[str, Any] | None = field(default_factory=lambda: {"ttl": 5})
    records: list[Mapping[str, Any]] = field(default_factory=list)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    routings: list[tuple[Instant, Term]] = field(default_factory=list)

    def become(self, state: State) -> None:
        """The next snapshot."""
        self.state = state
        self.changed += 1

    def snapshot(self) -> Snapshot:
        return Snapshot(
            self.state,
            "leading in term 4",
            "leading",
            self.loop_ran_at,
            self.changed,
            rule="lead.steady",
            tally=self.tally,
            guard=self.guard,
        )

    def now(self) -> Instant:
        return self.at

    def routed(self, at: Instant, term: Term) -> None:
        self.routings.append((at, term))

    def _note(self, what: str, given: Any = None) -> Answer:
        self.calls.append((what, given))
        if self.failure is not None:
            raise self.failure
        return self.answer

    def promise(self, claim: Claim) -> Promise:
        self.calls.append(("promise", claim))
        return self.promised

    async def switchover(self, request: Request) -> Answer:
        return self._note("switchover", request)

    async def cancel_switchover(self) -> Answer:
        return self._note("cancel_switchover")

    async def order(self, kind: OrderKind, options: Mapping[str, Any]) -> Answer:
        return self._note(kind, dict(options))

    async def reload(self) -> Answer:
        return self._note("reload")

    async def read_config(self) -> Mapping[str, Any] | None:
        self._note("read_config")
        return self.config

    async def patch_config(self, patch: Mapping[str, Any]) -> Answer:
        return self._note("patch_config", dict(patch))

    async def put_config(self, values: Mapping[str, Any]) -> Answer:
        return self._note("put_config", dict(values))

    async def failovers(self, limit: int) -> Sequence[Mapping[str, Any]]:
        self._note("failovers", limit)
        return self.records[:limit]
