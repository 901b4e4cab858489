"""What the REST server needs of the agent, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hamgr.core.cluster import Request
from hamgr.core.peers import Claim, Promise
from hamgr.core.standing import GuardStanding
from hamgr.core.state import State
from hamgr.core.tally import Tally
from hamgr.core.units import Instant, Term

OrderKind = Literal["restart", "reinitialize"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The agent at one instant. Two snapshots with the same `changed` hold the same state and reason."""

    state: State
    reason: str
    """Why the last decision was what it was, as a sentence."""
    reason_code: str
    loop_ran_at: Instant
    changed: int
    rule: str = ""
    """Which rule decided last."""
    tally: Tally = field(default_factory=Tally)
    """What was counted since the agent started."""
    guard: GuardStanding | None = None
    """None: nothing has been decided yet."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How an operator's request ended: HTTP code with a text for people, or with `body` as JSON instead."""

    code: int
    text: str = ""
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Unavailable(Exception):
    """What a coroutine of the port raises when etcd gives no proper answer: 503 with the text."""


class AgentPort(Protocol):
    """Implemented by the agent. Each coroutine is bounded by the agent and says in its answer how it ended.

    Any may raise Unavailable.
    """

    @property
    def scope(self) -> str: ...

    def snapshot(self) -> Snapshot:
        """The present state; no I/O, no waiting."""
        ...

    def now(self) -> Instant:
        """This host's CLOCK_BOOTTIME."""
        ...

    def routed(self, at: Instant, term: Term) -> None:
        """The first health check of this term was answered 200 as primary."""
        ...

    def promise(self, claim: Claim) -> Promise:
        """A leader's claim judged by the present state. Given, it binds this member and its successors already.

        No I/O, no waiting: nothing may come between the judgement and its being known.
        """
        ...

    async def switchover(self, request: Request) -> Answer:
        """Write the request (a failover if it names no leader) and follow it to its end: 200, 202, 409, 412, 503."""
        ...

    async def cancel_switchover(self) -> Answer:
        """Remove the scheduled request: 200, 404, 409."""
        ...

    async def order(self, kind: OrderKind, options: Mapping[str, Any]) -> Answer:
        """Have this member's server restarted or made anew: 200, 503."""
        ...

    async def reload(self) -> Answer:
        """Read the configuration file again: 202."""
        ...

    async def read_config(self) -> Mapping[str, Any] | None:
        """Dynamic configuration as kept in etcd; None: there is none."""
        ...

    async def patch_config(self, patch: Mapping[str, Any]) -> Answer:
        """Merge into the dynamic configuration, null deletes: 200 with the result as body, 400, 409, 503."""
        ...

    async def put_config(self, values: Mapping[str, Any]) -> Answer:
        """Replace the dynamic configuration: 200 with the result as body, 400, 503."""
        ...

    async def failovers(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """The latest `limit` records, the newest first."""
        ...
