"""What the parts of an agent are tested with: states, a world over fakes, and a wait for a condition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hamgr.agent.clock import now
from hamgr.agent.world import World
from hamgr.core.cluster import ClusterView, LeaderKey, Member
from hamgr.core.facts import Fact
from hamgr.core.pipeline import Record
from hamgr.core.policy import Policy
from hamgr.core.server import Phase, ServerIdentity, ServerView
from hamgr.core.standing import GuardStanding
from hamgr.core.state import Lease, Myself, State
from hamgr.core.units import Instant, Lsn, Term, Timeline, after
from hamgr.dcs.etcd import EtcdStore
from hamgr.dcs.keys import ScopeKeys
from hamgr.postgres.config import Credentials, ServerConfig
from hamgr.postgres.sentry import WatchedPage
from tests.dcs.fake import FakeClient, FakeEtcd

LEASE = 7
TERM = Term(3)
SERVER = ServerIdentity(4321, 99)
PATIENCE_S = 20.0


def view(leader: str = "a", *, lease_id: int = LEASE, term: int = TERM, revision: int = 10, **rest: Any) -> ClusterView:
    """The cluster of `a`, `b` and `c` with that leader; empty: nobody leads."""
    key = LeaderKey(leader, lease_id, 9) if leader else None
    members = tuple(member(name, "primary" if name == leader else "replica") for name in "abc")
    given = {"members": members, "system_identifier": "42", **rest}
    return ClusterView(revision=revision, seen_at=now(), leader=key, term=Term(term), **given)


def member(name: str, role: str = "replica", state: str = "running") -> Member:
    return Member(name, f"postgres://{name}:5432/postgres", state=state, role=role, xlog_location=Lsn(1000))


def replica(**rest: Any) -> ServerView:
    seen = ServerView(Phase.RUNNING, identity=SERVER, answered=True, in_recovery=True, timeline=Timeline(4))
    return replace(seen, **rest)


def leading(**rest: Any) -> State:
    """Member `a` holds the key in TERM on LEASE, far from its deadline; its server still runs as a replica."""
    lease = Lease(LEASE, after(now(), 100.0), TERM)
    given = {"lease": lease, "cluster": view(), "server": replica(), **rest}
    return State(Myself("a"), Policy(ttl_s=5.0, loop_wait_s=1.0), **given)


def dispossessed() -> State:
    """As `leading`, after `b` took the key."""
    return leading()._replace(cluster=view("b", lease_id=8, term=TERM + 1))


class Calls:
    """Every method is a coroutine function that notes its name in `log`, then returns or raises what `answers` has.

    An answer that can be called is called with the arguments.
    """

    def __init__(self, log: list[str], **answers: Any) -> None:
        self._log = log
        self.answers = answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **named: Any) -> Any:
            self._log.append(name)
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer(*args, **named) if callable(answer) else answer

        return call


WATCHED = WatchedPage("/run/hamgr/page", b"page", arming_at=8, fenced_arming_at=16, deadline_at=24)
STANDING = GuardStanding(
    is_alive=True,
    pid=77,
    is_stand_in=False,
    is_armed=True,
    memory_locked=True,
    realtime=True,
    watchdog="off",
    agent_restarts=0,
)


@dataclass
class FakeLink:
    """Notes in the log of the server's calls what the guard was told, so that the order is seen."""

    log: list[str]
    armed_with: list[tuple[Any, ...]] = field(default_factory=list)
    on_arm: Callable[[], None] = lambda: None
    extended_to: list[tuple[Instant, Term]] = field(default_factory=list)
    limited_to: list[tuple[Instant, int]] = field(default_factory=list)
    promised_until: Instant | None = None
    standing: GuardStanding = STANDING
    watched: WatchedPage = WATCHED

    async def arm(self, *given: Any) -> None:
        self.log.append("arm")
        self.armed_with.append(given)
        self.on_arm()

    def disarm(self) -> None:
        self.log.append("disarm")

    def extend(self, deadline: Instant, term: Term) -> bool:
        self.extended_to.append((deadline, term))
        return True

    def limit(self, deadline: Instant, lease_id: int) -> None:
        self.limited_to.append((deadline, lease_id))

    def note_promise(self, until: Instant) -> None:
        self.log.append("note promise")
        self.promised_until = until

    def name_lease(self, lease_id: int) -> None:
        self.log.append(f"name lease {lease_id}")

    def forget_term(self) -> None:
        self.log.append("forget term")

    def name_server(self, identity: ServerIdentity) -> None:
        self.log.append(f"name {identity.pid}")


@dataclass
class Bench:
    """A world whose parts can be looked at."""

    state: State
    log: list[str] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    etcd: FakeEtcd = field(default_factory=FakeEtcd)

    def __post_init__(self) -> None:
        self.server = Calls(self.log)
        self.link = FakeLink(self.log)
        self.peers = Calls(self.log, ask={})
        self.memory = Calls(self.log)
        self.store: Any = EtcdStore(FakeClient(self.etcd), ScopeKeys.of("main"))
        self.world = self._world()

    def _world(self) -> World:
        async def probe() -> None:
            self.log.append("probe")

        parts: dict[str, Any] = {
            "store": self.store,
            "server": self.server,
            "link": self.link,
            "peers": self.peers,
            "memory": self.memory,
        }
        return World(
            **parts,
            state=lambda: self.state,
            post=self.facts.append,
            probe=probe,
            probe_soon=lambda: self.log.append("probe soon"),
            recorded=self.records.append,
            seed_config=lambda: {"ttl": 5},
            wanted=lambda: ServerConfig("a", "main", Path("/nowhere"), Credentials("s"), Credentials("r")),
        )

    def use_store(self, store: Any) -> None:
        """Another store from now on."""
        self.store = self.world.store = store

    async def see_store(self) -> None:
        """The state knows what the store holds."""
        self.state = self.state._replace(cluster=await self.store.read())


def wait_until(claim: Callable[[], object], what: str) -> None:
    """Return once the claim holds; AssertionError after PATIENCE_S. For what threads do."""
    end = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.002)


async def until(claim: Callable[[], object], what: str) -> None:
    """As `wait_until`, for what tasks do."""
    end = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < end, f"waited in vain until {what}"
        await asyncio.sleep(0.001)


def ids(values: Sequence[object]) -> list[str]:
    return [type(value).__name__ for value in values]


FAR = Instant(1e9)
