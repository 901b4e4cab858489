"""Handing the lead over in order: the present leader's side. DESIGN.md 5.5."""

from __future__ import annotations

from hamgr.core import births
from hamgr.core.actions import Checkpoint, ClearRequest, HandOverStop, HoldPools, PutOffer, WithdrawOffer
from hamgr.core.cluster import Offer, Request
from hamgr.core.precheck import successors, why_not
from hamgr.core.reasons import Code, because
from hamgr.core.rules.lead import held_since
from hamgr.core.scene import Scene, Verdict
from hamgr.core.state import HandOver
from hamgr.core.units import Instant, Lsn, after

SUCCESSOR_PREPARES_S = 5.0
"""How long the leader, still serving, waits for the successor's checkpoint once its own is done."""


def hand_over(scene: Scene) -> Verdict | None:
    """A request stands: check it, prepare both sides while serving, hold the pools, stop, offer the lead."""
    request = scene.view.request
    if not scene.holds_key or request is None:
        return None
    stopped = _stopped_for(scene, request)
    if stopped is not None and stopped.end_lsn is None:
        why = "where its WAL ends could not be read: nobody can be offered the lead"
        return Verdict(because(Code.REQUEST_REFUSED, why=why), (ClearRequest(request.mod_revision, why),))
    if stopped is not None:
        return after_stop(scene, stopped, cause="switchover")
    if request.offer is not None or scene.state.crash is not None or not scene.server.is_primary:
        return None
    if not scene.is_due(request):
        return None
    refusal = why_not(scene.view, request, scene.policy)
    if refusal:
        clear = ClearRequest(request.mod_revision, refusal)
        return Verdict(because(Code.REQUEST_REFUSED, why=refusal), (clear,))
    return _prepare(scene, request)


def _stopped_for(scene: Scene, request: Request) -> HandOver | None:
    """The hand-over for which the server was stopped, while its request (or the offer made of it) stands."""
    planned = scene.state.hand_over
    if planned is None or planned.aborted or not scene.is_server_down:
        return None
    is_same = planned.request_revision == request.mod_revision or request.offer is not None
    return planned if is_same else None


def _prepare(scene: Scene, request: Request) -> Verdict:
    candidates = successors(scene.view, scene.policy)
    successor = request.candidate or candidates[0].name
    preparing = because(Code.PREPARING_HAND_OVER, successor=successor)
    if scene.state.prepared_for != request.mod_revision:
        return Verdict(preparing, (Checkpoint(request.mod_revision),))
    member = scene.view.member(successor)
    is_ready = member is not None and member.ready_for == request.mod_revision
    wait_until = after(scene.state.prepared_at or scene.now, SUCCESSOR_PREPARES_S)
    if not is_ready and scene.now < wait_until:
        return Verdict(preparing, wake_at=wait_until)
    if scene.state.me.routes.pools and scene.state.held_for != request.mod_revision:
        return Verdict(preparing, (HoldPools(request.mod_revision),))
    stop = HandOverStop(request.mod_revision, successor, scene.policy.primary_stop_timeout_s)
    return Verdict(because(Code.HANDING_OVER, successor=successor), (stop,))


def after_stop(scene: Scene, stopped: HandOver, cause: str) -> Verdict:
    """The server has ended: offer the lead; take it back if nobody takes it in time."""
    successor = stopped.successor or "any replica that has all WAL"
    handing = because(Code.HANDING_OVER, successor=successor)
    revision = scene.view.request.mod_revision if scene.view.request else 0
    if stopped.offered_at is None:
        return Verdict(handing, (_put_offer(scene, stopped, cause, revision),))
    give_up_at: Instant = after(stopped.offered_at, scene.policy.handover_timeout_s)
    if scene.now < give_up_at:
        return Verdict(handing, wake_at=give_up_at)
    return Verdict(because(Code.HAND_OVER_ABORTED, successor=successor), (WithdrawOffer(revision),))


def _put_offer(scene: Scene, stopped: HandOver, cause: str, revision: int) -> PutOffer:
    offer = Offer(
        holder=scene.me,
        term=scene.view.term,
        timeline=stopped.end_timeline,
        lsn=stopped.end_lsn or Lsn(0),
        cause=cause,
        elapsed_s={"detect": 0.0, "fence": stopped.stopped_at - stopped.began_at},
        notes=scene.state.hold_notes if scene.state.held_for == stopped.request_revision else (),
        timeline_term=births.term_of_end(scene, stopped.end_timeline),
    )
    return PutOffer(offer, stopped.successor, revision, held_since(scene))


def prepares_for(scene: Scene) -> int:
    """Revision of the request for which this replica should run its checkpoint now; 0: none."""
    request = scene.view.request
    if request is None or request.offer is not None or not scene.server.is_replica:
        return 0
    if not scene.is_due(request):
        return 0
    is_open = bool(request.leader) and not request.candidate and scene.state.me.tags.may_lead
    is_meant = request.candidate == scene.me or is_open
    return request.mod_revision if is_meant and scene.state.prepared_for != request.mod_revision else 0
