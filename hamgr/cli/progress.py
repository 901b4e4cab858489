"""What a change of leader has come to, read off etcd's view before and now. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hamgr.core.cluster import ClusterView


@dataclass(frozen=True, slots=True)
class Phase:
    """One step that has been reached; `code` is the same each time, `text` names who and what."""

    code: str
    text: str


def phases(before: ClusterView, now: ClusterView) -> tuple[Phase, ...]:
    """Phases of a switchover that `now` shows, in order; `before` was read before it was asked for.

    A view that shows a late phase need not show the earlier ones: a watcher may have missed them.
    """
    reached = []
    request = now.request
    if request is not None and not _is_same_request(before, now):
        reached.append(Phase("requested", "requested"))
        ready = [m.name for m in now.members if m.ready_for and m.ready_for == request.mod_revision]
        if ready:
            reached.append(Phase("preparing", f"prepared on {', '.join(sorted(ready))}"))
    offer = request.offer if request is not None else None
    if offer is not None:
        reached.append(Phase("offered", f"{offer.holder} stopped at {offer.lsn} and offers the lead"))
    if has_new_leader(before, now):
        assert now.leader is not None
        reached.append(Phase("taken", f"taken by {now.leader.name} in term {now.term}"))
    return tuple(reached)


def has_new_leader(before: ClusterView, now: ClusterView) -> bool:
    """True when somebody holds the leader key in a later term, or where terms are not counted, another one."""
    if now.leader is None:
        return False
    was = before.leader.name if before.leader else ""
    return now.term > before.term or now.leader.name != was


def is_withdrawn(before: ClusterView, now: ClusterView, asked_revision: int) -> bool:
    """True when the request written at `asked_revision` is gone and the leader is who it was: it was refused."""
    return now.request is None and now.revision > asked_revision and not has_new_leader(before, now)


def _is_same_request(before: ClusterView, now: ClusterView) -> bool:
    return (
        before.request is not None
        and now.request is not None
        and before.request.mod_revision == now.request.mod_revision
    )
