"""A leader of three members, as tests build on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hamgr.core.cluster import ClusterView, LeaderKey, Member
from hamgr.core.policy import Policy
from hamgr.core.server import Phase, ServerIdentity, ServerView
from hamgr.core.state import Lease, Myself, State
from hamgr.core.units import Instant, Lsn, Term, Timeline, after

NOW = Instant(100.0)
TERM = Term(1)
LEADER = LeaderKey("a", 7, 5)


def member(name: str) -> Member:
    return Member(name, f"postgres://{name}.host:5432/postgres", f"http://{name}:8008/patroni", "running")


def seen(roster: str = "abc", members: str = "abc", revision: int = 6) -> ClusterView:
    return ClusterView(
        revision=20,
        seen_at=NOW,
        system_identifier="s",
        leader=LEADER,
        term=TERM,
        term_revision=5,
        members=tuple(member(name) for name in members),
        roster={name: member(name).api_url for name in roster},
        roster_revision=revision,
    )


def primary_server(probed_at: Instant, **changes: Any) -> ServerView:
    """A primary that is well."""
    server = ServerView(
        Phase.RUNNING,
        identity=ServerIdentity(1, 1),
        probed_at=probed_at,
        answered=True,
        system_identifier="s",
        in_recovery=False,
        timeline=Timeline(1),
        written_lsn=Lsn(1000),
        has_sentry=True,
    )
    return replace(server, **changes)


def leading(view: ClusterView, lease: Lease, **rest: Any) -> State:
    """`a` has led for a while, and its server is well."""
    given = {
        "policy": Policy(ttl_s=5.0),
        "server": primary_server(NOW),
        "verified_term": TERM,
        "verified_at": NOW,
        **rest,
    }
    return State(Myself("a", member("a").conn_url), cluster=view, lease=lease, **given)


def renewed(ago_s: float) -> Lease:
    return Lease(7, after(NOW, 4.8 - ago_s), TERM, ttl_s=5.0, confirmed_at=after(NOW, -ago_s))
