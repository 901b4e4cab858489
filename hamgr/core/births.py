"""Which timeline is which: two of one number are told apart by the terms in which they were begun (docs/adr/0018)."""

from __future__ import annotations

from collections.abc import Iterator

from hamgr.core.actions import Action, NoteBirth
from hamgr.core.cluster import Member
from hamgr.core.order import OnTimeline, have_forked
from hamgr.core.scene import Scene, upstream_of
from hamgr.core.server import NO_BIRTH, Birth, ServerView
from hamgr.core.state import State
from hamgr.core.units import Instant, Term, Timeline


def keep_birth(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """The term in which this server's timeline was begun, noted down in its data directory as soon as it is known.

    A note of the present timeline is never changed: what others have compared with it stays true.
    """
    server = scene.server
    if not server.timeline or server.timeline_term:
        return
    term = _term_of_timeline(scene)
    if term:
        yield NoteBirth(Birth(server.timeline, term))


def _term_of_timeline(scene: Scene) -> Term:
    """A leader names its timeline by its own term, a replica by what the leader says of the timeline that it streams.

    Where nothing proves that a replica is of the leader's history, only the end of its WAL may be that leader's. A
    leader that holds the key and has no note has told nobody of one: any term that no other leader has will do.
    """
    server = scene.server
    if server.is_primary and scene.leads and scene.state.verified_term == scene.view.term:
        return scene.view.term
    leader = scene.leader_member
    if leader is None or leader.role != "primary" or leader.timeline != server.timeline or not scene.is_checked:
        return Term(0)
    return leader.timeline_term if server.streaming and _is_pointed_at(server, leader) else Term(0)


def offered_by_upstream(scene: Scene) -> Birth:
    """The timeline that is offered, where this server follows the one that is: it did so only once that was proven to
    have all that this one had. Zeros where it does not, or nothing is offered.
    """
    offer = scene.offer
    holder = scene.view.member(offer.holder) if offer is not None else None
    if offer is None or holder is None:
        return NO_BIRTH
    return Birth(offer.timeline, offer.timeline_term) if _is_pointed_at(scene.server, holder) else NO_BIRTH


def term_of_end(scene: Scene, timeline: Timeline) -> Term:
    """The term of that timeline, where this member's server ended on it; it may have been promoted too shortly before
    for a note. 0: not known.
    """
    passage = scene.state.passage
    is_fresh = passage is not None and passage.term == scene.view.term and passage.timeline == timeline
    return scene.server.birth.term_of(timeline) or (scene.view.term if is_fresh and timeline else Term(0))


def with_proof(state: State) -> State:
    """Proven once by the notes while it streams from the leader, its history is the leader's as long as that one leads:
    what the leader's key does not say for a moment, as its server is slow to answer, takes nothing from that.
    """
    view, server = state.cluster, state.server
    if view is None or view.leader is None or not server.streaming or state.checked_in == view.term:
        return state
    leader = view.member(view.leader.name)
    if leader is None or not _is_pointed_at(server, leader) or not _is_same_timeline(server, leader):
        return state
    return state._replace(checked_in=view.term)


def is_of_leaders_history(scene: Scene) -> bool:
    """Proven: by the notes of both on their timeline, or because its WAL was compared since this leader leads. That it
    was told to stream from that address before proves nothing.
    """
    leader = scene.leader_member
    return scene.is_checked or (leader is not None and _is_same_timeline(scene.server, leader))


def _is_pointed_at(server: ServerView, member: Member) -> bool:
    return server.upstream == upstream_of(member).address


def _is_same_timeline(one: OnTimeline, other: OnTimeline) -> bool:
    known = one.timeline_term
    return known > 0 and (one.timeline, known) == (other.timeline, other.timeline_term)


def has_forked(scene: Scene) -> bool:
    """Proven: its timeline and the leader's have the number in common only. pg_rewind would see nothing to do. What was
    compared has not: then the leader has lost its note, and made another.
    """
    leader = scene.leader_member
    return leader is not None and not scene.is_checked and have_forked(scene.server, leader)
