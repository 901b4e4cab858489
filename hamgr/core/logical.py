"""Logical slots that outlive a change of leader: made on the primary, copied by the replicas, none lost in silence.

The copying is PostgreSQL's own, from 17 on. A copy is of use only on a member that has all WAL that the slot's consumer
was given: so consumers wait for the members that may be elected, and for no other.
Source: PostgreSQL's manual, chapters Replication Slot Synchronization and Logical Replication Failover.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hamgr.core.actions import Action, AwaitStandbys, DropFormerSlots
from hamgr.core.scene import Scene
from hamgr.core.server import ServerView
from hamgr.core.slotnames import slot_name
from hamgr.core.units import Instant, Lsn, after

STANDBY_PATIENCE_S = 10.0
"""For so long at least consumers wait for a standby that streams no more: it may be back, or elected, any moment."""


def missing(scene: Scene) -> tuple[str, ...]:
    """Declared slots that no leader had so far."""
    server, status = scene.server, scene.view.status
    if not scene.policy.logical_slots:
        return ()
    known = server.failover_slots.keys() | status.slots.keys() | status.lost_slots.keys()
    return tuple(name for name in scene.policy.logical_slots if server.makes_failover_slots and name not in known)


def lost(scene: Scene) -> Mapping[str, Lsn]:
    """Declared slots that a leader before this one had, and where they stood.

    Made anew here they would skip, without a word to the consumer, what was written in between.
    """
    server, status = scene.server, scene.view.status
    known = {**status.lost_slots, **status.slots}
    return {name: known[name] for name in scene.policy.logical_slots if name in known.keys() - server.failover_slots}


def await_standbys(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """Consumers wait for whoever streams and may be elected; for one that does not stream, for a bounded time only."""
    server, policy, view = scene.server, scene.policy, scene.view
    if not (policy.syncs_slots and policy.names_awaited_slots and server.makes_failover_slots and server.is_primary):
        return
    if scene.state.verified_term != view.term:
        return
    streaming = streamed_slots(server)
    wanted = streaming & _slots_of_electable(scene)
    for name, since in scene.state.unstreamed_since:
        gone_at = after(since, max(STANDBY_PATIENCE_S, 2 * policy.ttl_s))
        if name not in _slots_of_electable(scene):
            continue
        if scene.now < gone_at:
            wanted |= {name}
            yield gone_at
    wanted &= server.slots.keys()
    if wanted != set(server.awaited_slots):
        yield AwaitStandbys(tuple(sorted(wanted)))


def _slots_of_electable(scene: Scene) -> set[str]:
    """Of the members that are entered and, with synchronous mode, are in the electorate."""
    view, electorate = scene.view, scene.electorate
    names = {name for name in view.roster if name != scene.me}
    if electorate is not None:
        names &= {electorate.leader, *electorate.members}
    barred = {member.name for member in view.members if not member.tags.may_lead}
    return {slot_name(name) for name in names - barred}


def streamed_slots(server: ServerView) -> set[str]:
    """Physical slots of the standbys that stream from the primary."""
    return {slot_name(sender.application_name) for sender in server.walsenders if sender.state == "streaming"}


def unstreamed(known: tuple[tuple[str, Instant], ...], server: ServerView) -> tuple[tuple[str, Instant], ...]:
    """Of the slots that consumers wait for those which nobody streams from, and since when (by what was `known`)."""
    if not server.is_primary:
        return ()
    since, streaming = dict(known), streamed_slots(server)
    return tuple((name, since.get(name, server.probed_at)) for name in server.awaited_slots if name not in streaming)


def drop_former(scene: Scene, _note: str) -> Iterator[Action | Instant]:
    """A replica that was the primary gives up its own slots, once its leader is seen to have those of that name.

    The others are kept: if nobody else has them, a switchover back to this member is what saves their consumers.
    """
    server, status = scene.server, scene.view.status
    if not (scene.policy.syncs_slots and server.is_replica and server.streaming and scene.other_leader):
        return
    # What this member itself wrote when it led says nothing of its successor.
    is_of_leader = status.timeline == server.timeline
    names = tuple(name for name in server.former_slots if is_of_leader and name in status.slots)
    if names:
        yield DropFormerSlots(names)
