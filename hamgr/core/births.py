"""Which timeline is which: two of one number are told apart by the terms in which they were begun (docs/adr/0018)."""

from __future__ import annotations

from collections.abc import Iterator

from hamgr.core.actions import Action, NoteBirth
from hamgr.core.cluster import Member
from hamgr.core.scene import Scene, upstream_of
from hamgr.core.server import NO_BIRTH, Birth, ServerView
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

    A leader that holds the key and has no note has told nobody of one: any term that no other leader has will do.
    """
    server = scene.server
    if server.is_primary and scene.leads and scene.state.verified_term == scene.view.term:
        return scene.view.term
    leader = scene.leader_member
    if leader is None or leader.role != "primary" or leader.timeline != server.timeline:
        return Term(0)
    streams_from_it = server.streaming and server.upstream == upstream_of(leader).address
    return leader.timeline_term if streams_from_it else Term(0)


def offered_by_upstream(scene: Scene) -> Birth:
    """The timeline that is offered, where this server follows the one that is: it did so only once that was proven to
    have all that this one had. Zeros where it does not, or nothing is offered.
    """
    offer = scene.offer
    holder = scene.view.member(offer.holder) if offer is not None else None
    if offer is None or holder is None:
        return NO_BIRTH
    follows = scene.server.upstream == upstream_of(holder).address
    return Birth(offer.timeline, offer.timeline_term) if follows else NO_BIRTH


def term_of_end(scene: Scene, timeline: Timeline) -> Term:
    """The term of that timeline, where this member's server ended on it; it may have been promoted too shortly before
    for a note. 0: not known.
    """
    passage = scene.state.passage
    is_fresh = passage is not None and passage.term == scene.view.term and passage.timeline == timeline
    return scene.server.birth.term_of(timeline) or (scene.view.term if is_fresh and timeline else Term(0))


def is_of_timeline_of(server: ServerView, other: Member | None) -> bool:
    """True where the server's timeline is proven to be the other's, and not another one of the same number."""
    known = server.timeline_term
    return other is not None and known > 0 and (server.timeline, known) == (other.timeline, other.timeline_term)
