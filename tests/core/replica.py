"""A replica of three members, as tests build on it: `b`, which follows `a`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core.leader import NOW, TERM, member, seen
from hamgr.core import actions
from hamgr.core.actions import Upstream
from hamgr.core.cluster import ClusterView
from hamgr.core.decide import decide
from hamgr.core.policy import Policy
from hamgr.core.result import Outcome, Result
from hamgr.core.server import Birth, DataDir, Phase, ServerIdentity, ServerView
from hamgr.core.state import Lease, Myself, State
from hamgr.core.units import Lsn, Timeline, after

TIMELINE = Timeline(8)
NOBODY = Upstream()
OF_LEADER = Upstream("a", "a.host", 5432)
DONE = Outcome(Result.DONE)
LEASE_ID = 9
NOTE = Birth(TIMELINE, TERM)
"""What the leader of these tests has noted."""


def cluster(**changes: Any) -> ClusterView:
    """`a` leads on TIMELINE, which it began in TERM; the roster is of all three."""
    a = member("a")._replace(role="primary", timeline=TIMELINE, timeline_term=TERM)
    b = member("b")._replace(lease_id=LEASE_ID)
    return seen()._replace(members=(a, b, member("c")), **changes)


def standby(**changes: Any) -> ServerView:
    """A replica that streams TIMELINE from `a`, and has no note."""
    server = ServerView(
        Phase.RUNNING,
        data_dir=DataDir.VALID,
        identity=ServerIdentity(1, 1),
        probed_at=NOW,
        answered=True,
        system_identifier="s",
        in_recovery=True,
        timeline=TIMELINE,
        received_lsn=Lsn(1000),
        upstream="a.host:5432",
        streaming=True,
    )
    return replace(server, **changes)


def following(server: ServerView, view: ClusterView | None = None, **rest: Any) -> State:
    """`b`, which follows `a`."""
    lease = Lease(LEASE_ID, after(NOW, 4.0))
    return State(Myself("b"), Policy(), cluster=view or cluster(), lease=lease, server=server, **rest)


def wanted(state: State, *kinds: type) -> list[actions.Action]:
    return [action for action in decide(state, NOW).actions if isinstance(action, kinds)]
