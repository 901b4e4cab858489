"""Peer leases: with etcd gone, a leader leads on by the promises of every member of its roster. DESIGN.md 5.8.

Safe since only members of the roster may campaign, each of them has promised not to for one ttl, and a promise is kept
whatever its giver learns meanwhile. The leader counts from before the first was asked, its peers from when they answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from hamgr.core.actions import RetakeLeader, TakeInitialize, TakeLeader
from hamgr.core.scene import Scene
from hamgr.core.state import State
from hamgr.core.units import Instant, Term, after

SETTLING = (TakeLeader, TakeInitialize, RetakeLeader)
"""Actions by which this member may come to lead, perhaps later than it knows."""


LONGEST_TTL_S = 300.0
"""A claim for longer counts only where such leases are known to be granted."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A leader asks for a promise: it leads in `term` and leases last `ttl_s` seconds.

    `ttl_s` 0: it asks whether it would get one. So a leader that cannot get all of them binds nobody, and the others
    can elect as soon as its lease is over.
    """

    name: str
    term: Term
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Promise:
    """`until`: this member does not campaign before (now: it would promise); None: it refuses, and `why` says so."""

    until: Instant | None
    why: str = ""


def answer(state: State, now: Instant, claim: Claim) -> Promise:
    """The answer to a claim. Whoever accepts has to keep it in the very turn of the loop in which it was given."""
    why = _why_not(state, now, claim)
    if why:
        return Promise(None, why)
    return Promise(after(now, max(claim.ttl_s, state.policy.ttl_s)) if claim.ttl_s else now)


def _why_not(state: State, now: Instant, claim: Claim) -> str:
    scene = Scene(state, now)
    view = state.cluster
    if claim.name == state.me.name:
        return f"{claim.name} is my own name"
    if scene.may_be_primary or state.server.is_primary:
        return "Running as a leader"
    if any(state.running(kind) for kind in SETTLING) or any(_may_have_taken(state, kind) for kind in SETTLING):
        return "I may be taking the lead myself"
    if claim.ttl_s > max(LONGEST_TTL_S, state.policy.ttl_s):
        # Nobody leads by such leases: it would only bind this member for long.
        return f"ttl is {state.policy.ttl_s:g} s here, not {claim.ttl_s:g} s"
    if view is not None and view.term > claim.term:
        return f"the term is {view.term}, not {claim.term}"
    if scene.other_leader and scene.other_leader != claim.name:
        return f"{scene.other_leader} leads"
    return ""


def _may_have_taken(state: State, kind: type) -> bool:
    """It was sent, nobody knows how it ended, and no newer view has shown it."""
    failure = state.failure(kind.__name__)
    if failure is None or failure.code not in ("unknown", "store", "timeout"):
        return False
    return state.cluster is None or state.cluster.seen_at <= failure.at
