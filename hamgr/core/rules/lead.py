"""What the holder of the leader key does with its server. DESIGN.md 5.4 and 5.6."""

from __future__ import annotations

from hamgr.core import births
from hamgr.core.actions import (
    ExamineCrash,
    Promote,
    PutDown,
    PutOffer,
    ReleaseLeader,
    StartPrimary,
    StartStandby,
    Upstream,
    WithdrawOffer,
)
from hamgr.core.cluster import Member, Offer
from hamgr.core.policy import DISK_ILLNESS_SHOWS_S, HOPELESS_AFTER
from hamgr.core.reasons import Code, because
from hamgr.core.rules.lease import move
from hamgr.core.scene import Scene, Verdict
from hamgr.core.server import DataDir, Illness, Phase, Vital
from hamgr.core.state import Crash, has_lived_shortly
from hamgr.core.synchronous import first_rule
from hamgr.core.units import Instant, Lsn, after


def crashed(scene: Scene) -> Verdict | None:
    """The server ended without our asking: offer the lead to whoever has all its WAL, else start in place."""
    crash = scene.state.crash
    if crash is None or not scene.leads or not scene.is_server_down:
        return None
    if crash.examined_at is None:
        return Verdict(because(Code.EXAMINING_CRASH), (ExamineCrash(_known_written(scene)),))
    if scene.offer is not None:
        return _wait_for_taker(scene, crash)
    if not scene.holds_key or scene.state.store_failed_at is not None or _cannot_offer(scene):
        # Nobody can be told of an offer.
        return _start_in_place(scene)
    if not crash.declined and crash.end_lsn is not None and _takers(scene):
        return _offer(scene, crash)
    if _is_hopeless_here(scene, crash) and well_heirs(scene):
        return Verdict(because(Code.CRASHED_AGAIN), (_release(scene),))
    return _start_in_place(scene)


def _cannot_offer(scene: Scene) -> bool:
    """etcd answers, and takes no offer: it is out of space, or this member may not write there any more."""
    failure = scene.state.failure(PutOffer.__name__)
    return failure is not None and failure.count >= 2 and scene.is_settled


def _known_written(scene: Scene) -> Lsn:
    return scene.server.written_lsn


def heirs(scene: Scene) -> tuple[Member, ...]:
    """Members that are up, may lead and are counted on, other than this one."""
    view = scene.view
    up = (m for m in view.members if m.name != scene.me and m.tags.may_lead and m.state == "running")
    return tuple(m for m in up if view.counts_on(m.name))


def _offer(scene: Scene, crash: Crash) -> Verdict:
    offer = _offer_after(scene, crash, crash.examined_at or scene.now)
    request = scene.view.request
    request_revision = request.mod_revision if request else 0
    action = PutOffer(offer, "", request_revision, held_since(scene))
    return Verdict(because(Code.OFFERING, lsn=offer.lsn), (action,))


def _offer_after(scene: Scene, crash: Crash, at: Instant) -> Offer:
    return Offer(
        holder=scene.me,
        term=scene.view.term,
        timeline=crash.end_timeline,
        lsn=crash.end_lsn or Lsn(0),
        cause=crash.cause,
        elapsed_s={"detect": 0.0, "fence": at - crash.at},
        timeline_term=births.term_of_end(scene, crash.end_timeline),
    )


def _release(scene: Scene) -> ReleaseLeader:
    """Whoever is elected may lack WAL: how much is then on record."""
    crash = scene.state.crash
    parting = _offer_after(scene, crash, scene.now) if crash is not None and crash.end_lsn is not None else None
    return ReleaseLeader(scene.view.term, held_since(scene), parting)


def held_since(scene: Scene) -> int:
    """mod_revision of the leader key; 0 where nobody holds it."""
    return scene.leader.mod_revision if scene.leader else 0


def _wait_for_taker(scene: Scene, crash: Crash) -> Verdict:
    offered_at = crash.offered_at or crash.examined_at or crash.at
    give_up_at = after(offered_at, scene.policy.offer_timeout_s)
    end = crash.end_lsn or Lsn(0)
    if scene.now < give_up_at and not _nobody_can_take(scene, end):
        return Verdict(because(Code.OFFERING, lsn=end), wake_at=give_up_at)
    revision = scene.view.request.mod_revision if scene.view.request else 0
    return Verdict(because(Code.OFFER_DECLINED, lsn=end), (WithdrawOffer(revision),))


def _nobody_can_take(scene: Scene, end: Lsn) -> bool:
    """Every heir has voted since the offer and lacks some of its WAL, which none can get any more: the only server
    that has it is down. So there is nothing to wait for.
    """
    request = scene.view.request
    offered_in = request.mod_revision if request else 0
    voted = {b.name: b.lsn for b in scene.view.ballots if b.mod_revision > offered_in}
    return all(voted.get(heir.name, end) < end for heir in heirs(scene))


def _is_hopeless_here(scene: Scene, crash: Crash) -> bool:
    """It dies again and again right after its start, or its disk is what failed."""
    if scene.state.illness(Vital.DATA_DISK, Vital.WAL_DISK):
        return True
    return has_lived_shortly(scene.state, crash) and scene.state.short_lives > 0


def _start_in_place(scene: Scene) -> Verdict:
    if not scene.has_time:
        # Where etcd answers, it was this member's own illness that let the lease come so near its end.
        is_store_down = scene.state.store_failed_at is not None
        return Verdict(because(Code.STORE_DOWN, error=scene.state.store_error), may_renew=is_store_down)
    if scene.server.data_dir in (DataDir.EMPTY, DataDir.UNFINISHED):
        return Verdict(because(Code.START_TOOK_TOO_LONG, text="there is no data"), (_release(scene),))
    if scene.server.control is None:
        return Verdict(because(Code.SERVER_STARTING))
    action = _start(scene)
    retry_at = scene.retry_at(type(action))
    failure = scene.state.failure(type(action).__name__)
    if failure is not None and well_heirs(scene) and (failure.count >= 2 or failure.code == "timeout"):
        return Verdict(because(Code.START_TOOK_TOO_LONG, text=failure.text), (_release(scene),))
    if scene.now < retry_at:
        left = because(Code.BACKING_OFF, left_s=f"{retry_at - scene.now:.1f}", text=failure.text if failure else "")
        return Verdict(left, wake_at=retry_at)
    return Verdict(because(Code.RESTART_IN_PLACE), (action,))


def _start(scene: Scene) -> StartPrimary | StartStandby:
    """What was a primary goes on as one. A replica's data (elected, and stopped before its promotion) starts in
    recovery and is promoted then: out of recovery it would write a second history onto the old timeline.
    """
    if scene.server.was_primary:
        return StartPrimary(scene.view.term)
    return StartStandby(Upstream())


def recall(scene: Scene) -> Verdict | None:
    """An offer of ours that nobody here remembers (its agent was replaced, or its transaction came late): it is
    taken back before the server starts, for whoever takes it would be a second primary.
    """
    if not scene.holds_key or scene.offer is None:
        return None
    planned = scene.state.hand_over
    is_known = scene.state.crash is not None or (planned is not None and not planned.aborted)
    if is_known and scene.is_server_down:
        return None
    revision = scene.view.request.mod_revision if scene.view.request else 0
    return Verdict(because(Code.OFFER_DECLINED, lsn=scene.offer.lsn), (WithdrawOffer(revision),))


def stopped(scene: Scene) -> Verdict | None:
    """It holds the key and its server stands still, without a crash: a hand-over was aborted, or a cold start."""
    if not scene.leads or not scene.is_server_down:
        return None
    return _start_in_place(scene)


def starting(scene: Scene) -> Verdict | None:
    """The server recovers. One that lets nobody in for longer than primary_start_timeout is ill: `ill` comes first."""
    if not scene.leads or scene.server.phase not in (Phase.STARTING, Phase.STOPPING):
        return None
    return Verdict(because(Code.SERVER_STARTING))


def promote(scene: Scene) -> Verdict | None:
    """Elected, or adopted: promote the replica, or verify the primary that runs already."""
    if not scene.leads or scene.server.phase is not Phase.RUNNING:
        return None
    term = scene.view.term
    if scene.state.verified_term != term and not scene.server.answered:
        # An agent that was replaced finds a server that hung before: that is an illness, not a start.
        return Verdict(because(Code.SERVER_STARTING)) if scene.state.illness() is None else None
    if scene.state.verified_term == term and not scene.server.is_replica:
        return None
    is_disk_ill = scene.state.illness(Vital.DATA_DISK, Vital.WAL_DISK) is not None
    if is_disk_ill and scene.holds_key and well_heirs(scene) and not scene.policy.pause:
        # `ill` sees to it: a promotion on a disk that has failed could go on without end.
        return None
    retry_at = scene.retry_at(Promote)
    actions = (
        (Promote(term, first_rule(scene)),) if scene.now >= retry_at and scene.has_time and scene.is_settled else ()
    )
    failure = scene.state.failure(Promote.__name__)
    has_failed = failure is not None and failure.count >= HOPELESS_AFTER and not _still_replays(scene)
    is_hopeless = has_failed and bool(well_heirs(scene))
    if failure is not None and has_failed and _may_offer_unpromoted(scene):
        return Verdict(
            because(Code.PUTTING_DOWN, vital="promotion", problem=failure.text), (_put_down(scene, failure.at),)
        )
    code = Code.VERIFYING if scene.server.is_primary else Code.PROMOTING
    return Verdict(because(code, term=term), actions, wake_at=retry_at, may_renew=not is_hopeless)


def _may_offer_unpromoted(scene: Scene) -> bool:
    """In synchronous mode nobody else may be elected, as its own election made it all of the electorate; but whoever
    has all of its WAL may take what it offers.
    """
    is_bound = scene.electorate is not None and not well_heirs(scene)
    is_free = scene.holds_key and not scene.policy.pause
    return is_bound and is_free and bool(_takers(scene))


def _still_replays(scene: Scene) -> bool:
    """What is left to replay takes its time here as it would elsewhere; for as long as a recovery may take."""
    server, passage = scene.server, scene.state.passage
    began_at = passage.elected_at if passage is not None else None
    is_behind = server.is_replica and server.replayed_lsn < server.received_lsn
    return is_behind and began_at is not None and scene.now < after(began_at, scene.policy.primary_start_timeout_s)


def steady(scene: Scene) -> Verdict | None:
    """Nothing to do but to lead. The lease is renewed only while the server answers and is seen to be well."""
    if not scene.leads:
        return None
    code = Code.LEADING if scene.holds_key else Code.LEADING_BY_PEERS
    is_well = not unproven(scene)
    moving = move(scene) if is_well else None
    actions = () if moving is None else (moving,)
    return Verdict(because(code, term=scene.view.term), actions, may_renew=is_well)


def _answers(scene: Scene) -> bool:
    quiet_for = scene.now - scene.server.probed_at
    return scene.server.answered and quiet_for < max(scene.policy.ttl_s / 2, 2 * scene.policy.loop_wait_s)


def unproven(scene: Scene) -> str:
    """What speaks against a leader's permit: the server gives no answer (`answer`), or a vital check has not gone well
    for too long, and be it that it says nothing any more (that check's name). Empty: nothing does.
    """
    if not _answers(scene):
        return "answer"
    policy, known = scene.policy, dict(scene.state.vitals_at)
    pause_s = 3 * policy.loop_wait_s
    limits_s = {
        Vital.CONNECTION: policy.probe_connection_timeout_s + pause_s,
        Vital.COMMIT: policy.probe_connection_timeout_s + policy.probe_commit_timeout_s + pause_s,
        Vital.DATA_DISK: policy.probe_disk_timeout_s + pause_s,
    }
    proven_at = scene.state.verified_at
    late = (v for v, limit in limits_s.items() if scene.now - max(proven_at, known.get(v, proven_at)) >= limit)
    return next((vital.value for vital in late), "")


def ill(scene: Scene) -> Verdict | None:
    """The server runs or starts, and a vital check fails: where a member is better off, the server is put down and the
    lead goes there; where none is, it is left as it is, with its reason, and nothing flaps.
    """
    illness = scene.state.illness()
    if illness is None or not scene.leads or scene.server.phase not in (Phase.RUNNING, Phase.STARTING):
        return None
    words = {"vital": illness.vital.value, "problem": illness.problem}
    if not scene.holds_key or not well_heirs(scene):
        return Verdict(because(Code.ILL_AND_NONE_BETTER, **words))
    act_at = _known_ill_at(scene, illness)
    if scene.now < act_at:
        return Verdict(because(Code.ILL, **words), wake_at=act_at)
    return Verdict(because(Code.PUTTING_DOWN, **words), (_put_down(scene, illness.since),))


def _put_down(scene: Scene, since: Instant) -> PutDown:
    of_disk = scene.state.illness(Vital.DATA_DISK, Vital.WAL_DISK)
    return PutDown(
        from_lsn=scene.server.written_lsn,
        cause="disk_failed" if of_disk else "server_hung",
        since=since,
        reads_wal=of_disk is None or not of_disk.is_hung,
    )


def _known_ill_at(scene: Scene, illness: Illness) -> Instant:
    """A disk that several members share makes them ill within a moment of each other: then nobody is better off."""
    if not illness.vital.is_of_disk:
        return illness.since
    return after(illness.since, (scene.policy.probe_disk_timeout_s if illness.is_hung else 0.0) + DISK_ILLNESS_SHOWS_S)


def well_heirs(scene: Scene) -> tuple[Member, ...]:
    """Heirs that know of nothing that is wrong with them, and that may be elected where synchronous mode binds."""
    electorate = scene.electorate
    return tuple(member for member in _takers(scene) if electorate is None or member.name in electorate.members)


def _takers(scene: Scene) -> tuple[Member, ...]:
    """Heirs that know of nothing that is wrong with them: with all of its WAL they may take what is offered."""
    return tuple(heir for heir in heirs(scene) if not heir.ill)
