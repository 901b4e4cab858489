"""Who leads when nobody does, or when the holder offers the lead. DESIGN.md 5.3 and 5.11."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hamgr.core import births
from hamgr.core.actions import CastBallot, Promote, Reinitialize, RestartServer, StopServer, TakeLeader
from hamgr.core.cluster import Ballot
from hamgr.core.order import best_first, has_no_more_wal, is_ahead_of
from hamgr.core.policy import HOPELESS_AFTER
from hamgr.core.quorum import elects
from hamgr.core.reasons import Code, Reason, because
from hamgr.core.rules.lead import heirs, held_since, well_heirs
from hamgr.core.scene import Scene, Verdict
from hamgr.core.server import Vital
from hamgr.core.state import Vacancy
from hamgr.core.units import Instant, Lsn, after

COLD_WINDOW_S = 10.0
"""After the loss of all members, or of their keys: how long the ballots of the whole roster are awaited."""

CANDIDATE_PATIENCE_S = 10.0
"""How long the others leave the lead to the candidate that an operator named."""


SILENCE_TICKS = 2
"""An old primary that has not been heard of for so many ticks is silent."""

VOTE_AGAIN_S = 0.05
"""A ballot that lacks offered WAL, or is unfit, is cast again after this pause, not as fast as etcd answers."""

SIT_OUT_S = 10.0
"""For how long a member that failed as a leader leaves the lead to others, if there are any."""


def campaign(scene: Scene) -> Verdict | None:
    """A replica's part in an election: vote, wait for the others' votes, take the key or leave it to the winner."""
    vacancy = scene.state.vacancy
    if vacancy is None or not scene.server.is_replica or scene.leads or _is_being_taken_down(scene):
        return None
    bound = bound_until(scene)
    if scene.now < bound and scene.offer is None:
        left = because(Code.PROMISED, left_s=f"{bound - scene.now:.1f}", leader=scene.state.promised_to or "a leader")
        return Verdict(left, wake_at=bound)
    refusal = _why_not_leading(scene, vacancy) or _why_not_electable(scene)
    if refusal is not None and not _is_ballot_needed(scene):
        return Verdict(refusal)
    mine = scene.view.ballot(scene.me)
    is_short = mine is not None and _counts(mine, vacancy) and _needs_more_wal(scene, mine)
    if mine is None or vacancy.voted_at is None or not _counts(mine, vacancy) or is_short:
        at_least = scene.offer.lsn if scene.offer else Lsn(0)
        # An offer's holder acknowledges nothing any more; else the old primary may, while anybody streams from it.
        stops = scene.offer is None and scene.electorate is not None
        retry_at = scene.retry_at(CastBallot)
        if is_short and vacancy.voted_at is not None:
            retry_at = Instant(max(retry_at, after(vacancy.voted_at, VOTE_AGAIN_S)))
        vote = CastBallot(vacancy.term, at_least, stops, held_since(scene), births.offered_by_upstream(scene))
        actions = (vote,) if scene.now >= retry_at else ()
        return Verdict(refusal or _why_voting(scene, vacancy, mine), actions, wake_at=retry_at)
    if refusal is not None:
        return Verdict(refusal)
    unfit = _why_ballot_is_unfit(scene, mine)
    if unfit is not None:
        return Verdict(unfit)
    heard_until = _old_primary_heard_until(scene, vacancy)
    if scene.now < heard_until:
        return Verdict(because(Code.OLD_PRIMARY_HEARD), wake_at=heard_until)
    return _wait_or_take(scene, vacancy, mine)


def _is_being_taken_down(scene: Scene) -> bool:
    """It still runs, and is about to be stopped, or thrown away: what it has received is nothing to lead with."""
    return any(scene.state.running(kind) for kind in (Reinitialize, RestartServer, StopServer))


def bound_until(scene: Scene) -> Instant:
    """Until when this member may not campaign because of what it promised, or may have promised before it forgot."""
    state = scene.state
    promised = Instant(0.0) if state.promised_until is None else state.promised_until
    forgotten = Instant(0.0) if state.memory_lost_at is None else after(state.memory_lost_at, scene.policy.ttl_s)
    return Instant(max(promised, forgotten))


def _why_not_electable(scene: Scene) -> Reason | None:
    """Whoever lacks a commit that was acknowledged must not lead, nor whoever the last leader does not count on: once
    that one is lost before it is entered, nobody could be elected.
    """
    view = scene.view
    electorate = scene.electorate
    # Where this member itself led last, in synchronous mode, nobody else can be leading on by that roster.
    led_last = electorate is not None and electorate.leader == scene.me
    nobody_leads_on = led_last or view.released_term == view.term
    if not view.counts_on(scene.me) and not nobody_leads_on and not _is_forced(scene, loses=True):
        return because(Code.NOT_IN_ROSTER, roster=", ".join(sorted(view.roster)))
    if scene.offer is not None:
        return None
    if electorate is None or scene.me in (electorate.leader, *electorate.members) or _is_forced(scene, loses=True):
        return None
    return because(Code.NOT_IN_SYNC)


def _is_forced(scene: Scene, *, loses: bool = False) -> bool:
    """An operator named this member, when nobody led; `loses`: and allowed for commits to be lost."""
    request = scene.view.request
    if request is None or request.candidate != scene.me or request.is_switchover:
        return False
    if scene.state.reset is not None and request.mod_revision <= scene.state.reset.revision:
        # Of a backup: whoever asked for it did so long ago.
        return False
    return request.allow_data_loss or not loses


def _is_ballot_needed(scene: Scene) -> bool:
    """Where synchronous mode binds, others can be elected only once they know what this member has, though it does not
    lead itself.
    """
    return scene.is_of_electorate and scene.offer is None


def _why_not_leading(scene: Scene, vacancy: Vacancy) -> Reason | None:
    if not scene.state.me.tags.may_lead:
        return because(Code.MAY_NOT_LEAD)
    if scene.state.guard_problem:
        return because(Code.NO_WATCHDOG, problem=scene.state.guard_problem)
    illness = scene.state.illness(Vital.DATA_DISK, Vital.WAL_DISK)
    if illness is not None and (scene.offer is not None or well_heirs(scene)):
        return because(Code.UNFIT, vital=illness.vital.value, problem=illness.problem)
    left_s = _sits_out_s(scene)
    if left_s > 0 and heirs(scene):
        return because(Code.GAVE_UP, left_s=f"{left_s:.1f}")
    named = _named_candidate(scene, vacancy)
    if named and named != scene.me:
        return because(Code.NOT_CANDIDATE, candidate=named)
    return None


def _sits_out_s(scene: Scene) -> float:
    """Seconds for which this member leaves the lead to others, because it failed as a leader a moment ago."""
    failure = scene.state.failure(Promote.__name__)
    hopeless_at = failure.at if failure is not None and failure.count >= HOPELESS_AFTER else None
    since = max((at for at in (scene.state.gave_up_at, hopeless_at) if at is not None), default=None)
    return after(since, SIT_OUT_S) - scene.now if since is not None else 0.0


def _named_candidate(scene: Scene, vacancy: Vacancy) -> str:
    """The member that alone may take the lead now: the offer's successor, or an operator's candidate.

    A switchover names its successor for an orderly hand-over: once its leader is lost, the election is free.
    """
    request = scene.view.request
    if request is None or not request.candidate:
        return ""
    if scene.offer is not None:
        return request.candidate
    if request.is_switchover:
        return ""
    is_patient = scene.now < after(vacancy.since, CANDIDATE_PATIENCE_S)
    return request.candidate if is_patient and scene.view.member(request.candidate) else ""


def _counts(ballot: Ballot, vacancy: Vacancy) -> bool:
    """Cast in this very vacancy. One left from an offer that was withdrawn has an old position in the same term."""
    return ballot.term == vacancy.term and ballot.mod_revision > vacancy.open_after


def _needs_more_wal(scene: Scene, mine: Ballot) -> bool:
    """Nothing can be won with it, and there may be more by now, or there is."""
    if _lacks_offered_wal(scene, mine):
        return True
    has_more = (scene.server.timeline, scene.server.received_lsn) > (mine.timeline, mine.lsn)
    return has_more and _why_ballot_is_unfit(scene, mine) is not None


def _lacks_offered_wal(scene: Scene, ballot: Ballot) -> bool:
    """More bytes on another timeline are not the offered WAL: the end of that one has to be reached. It may have the
    same number: where it is known which one is offered, it has to be proven.
    """
    offer = scene.offer
    if offer is None:
        return False
    may_be_another = offer.timeline_term > 0 and ballot.timeline_term != offer.timeline_term
    return ballot.timeline != offer.timeline or ballot.lsn < offer.lsn or may_be_another


def _why_voting(scene: Scene, vacancy: Vacancy, mine: Ballot | None) -> Reason:
    if mine is not None and scene.offer is not None and _counts(mine, vacancy) and _lacks_offered_wal(scene, mine):
        return because(Code.LACKS_OFFERED_WAL, own=mine.lsn, lsn=scene.offer.lsn)
    return because(Code.VOTING, term=vacancy.term)


def _why_ballot_is_unfit(scene: Scene, mine: Ballot) -> Reason | None:
    if _is_forced(scene):
        return None
    status = scene.view.status
    if scene.policy.check_timeline and mine.timeline < status.timeline:
        return because(Code.OLD_TIMELINE, own=mine.timeline, cluster=status.timeline)
    behind = status.optime - mine.lsn
    limit = scene.policy.maximum_lag_on_failover_bytes
    if behind > limit:
        return because(Code.LAGS_TOO_FAR, behind=behind, limit=limit)
    return None


def _wait_or_take(scene: Scene, vacancy: Vacancy, mine: Ballot) -> Verdict:
    rivals = _rivals(scene, vacancy)
    cast = {b.name: b for b in scene.view.ballots if _counts(b, vacancy)}
    quorum = _why_no_quorum(scene, mine, cast)
    if quorum is not None:
        return Verdict(quorum)
    missing = rivals - cast.keys()
    window_end = _window_end(scene, vacancy)
    if missing and scene.now < window_end:
        names = ", ".join(sorted(missing))
        return Verdict(because(Code.WAIT_BALLOTS, members=names), wake_at=window_end)
    fit = _fit(scene, (cast[name] for name in rivals & cast.keys()))
    ahead = [ballot for ballot in best_first(fit) if is_ahead_of(ballot, mine)]
    take_at = _turn_at(scene, vacancy, len(ahead))
    if scene.now < take_at:
        return Verdict(because(Code.WAIT_WINNER, winner=ahead[0].name), wake_at=take_at)
    compared = rivals if scene.electorate is None else rivals | cast.keys() - {scene.me}
    return _take(scene, vacancy, mine, compared)


def _old_primary_heard_until(scene: Scene, vacancy: Vacancy) -> Instant:
    """Until when the old primary's life is waited out, where it is heard of although its key is gone.

    Its lease ran out only if its server ended before. But etcd (3.4, a leader that was frozen and thaws) has been seen
    to revoke a lease that was renewed meanwhile: then the holder is well, and learns of it no sooner than this member.
    Its server's commit of each loop_wait keeps the stream from falling silent. One ttl after the key went the holder's
    deadline has passed in any case.
    """
    state, view = scene.state, scene.view
    if scene.offer is not None or view.released_term == view.term or not scene.server.streaming:
        return Instant(0.0)
    heard_at = state.leader_heard_at
    silent_at = Instant(0.0) if heard_at is None else after(heard_at, SILENCE_TICKS * scene.policy.loop_wait_s)
    return Instant(min(silent_at, after(vacancy.since, scene.policy.ttl_s)))


def _why_no_quorum(scene: Scene, mine: Ballot, cast: Mapping[str, Ballot]) -> Reason | None:
    """With synchronous mode: so many of the electorate have to show that they have no more WAL, without limit of time.
    A ballot that is missing may be that of the only member that has a commit.
    """
    electorate = scene.electorate
    if electorate is None or scene.offer is not None or _is_forced(scene, loses=True):
        return None
    not_ahead = [ballot.name for ballot in cast.values() if has_no_more_wal(ballot, mine)]
    if elects(electorate, scene.me, not_ahead):
        return None
    needed = electorate.quorum - len({*not_ahead} & {*electorate.members} - {scene.me})
    others = ", ".join(name for name in electorate.members if name != scene.me)
    return because(Code.WAIT_QUORUM, needed=needed, members=others)


def _rivals(scene: Scene, vacancy: Vacancy) -> frozenset[str]:
    """Members whose vote counts, other than this one. Where keys do not tell who is there it is the whole roster."""
    if _named_candidate(scene, vacancy) == scene.me:
        return frozenset()
    holder = scene.offer.holder if scene.offer else ""
    names = {m.name for m in scene.view.members if m.tags.may_lead and (m.state == "running" or vacancy.cold)}
    if vacancy.cold:
        never_vote = {m.name for m in scene.view.members if not m.tags.may_lead}
        names |= scene.view.roster.keys() - never_vote
    return frozenset(names - {scene.me, holder})


def _window_end(scene: Scene, vacancy: Vacancy) -> Instant:
    """An offer ends soon: with all its WAL at hand, a ballot that is missing could win by priority at most."""
    window_s = COLD_WINDOW_S if vacancy.cold else scene.policy.election_window_s
    if scene.offer is not None:
        window_s = min(scene.policy.election_window_s, scene.policy.offer_timeout_s / 2)
    began_at = vacancy.since if scene.state.reset is None else max(vacancy.since, scene.state.reset.until)
    return after(began_at, window_s)


def _fit(scene: Scene, ballots: Iterable[Ballot]) -> list[Ballot]:
    return [ballot for ballot in ballots if not _lacks_offered_wal(scene, ballot)]


def _turn_at(scene: Scene, vacancy: Vacancy, ahead: int) -> Instant:
    """The winner may take the key at once; each further member once those before it have had their time."""
    if ahead == 0:
        return Instant(0.0)
    voted_at = vacancy.voted_at or vacancy.since
    return after(voted_at, scene.policy.election_window_s + ahead * scene.policy.winner_patience_s)


def _revision_of(scene: Scene, name: str) -> int:
    ballot = scene.view.ballot(name)
    return ballot.mod_revision if ballot else 0


def _take(scene: Scene, vacancy: Vacancy, mine: Ballot, rivals: frozenset[str]) -> Verdict:
    """With an offer only the own ballot is compared: whoever has all its WAL loses nothing, and those that
    lack it keep voting, which must not refuse those that do not.
    """
    compared = [(mine.name, mine.mod_revision)]
    if scene.offer is None:
        compared += [(name, _revision_of(scene, name)) for name in sorted(rivals)]
    request = scene.view.request
    action = TakeLeader(
        term=vacancy.term,
        from_holder=scene.leader if scene.offer else None,
        request_revision=request.mod_revision if request else 0,
        config_revision=scene.view.config_revision,
        ballots=tuple(compared),
        roster_revision=scene.view.roster_revision,
        sync_revision=_sync_revision(scene),
    )
    retry_at = scene.retry_at(TakeLeader)
    actions = (action,) if scene.now >= retry_at else ()
    return Verdict(because(Code.TAKING_LEAD, term=vacancy.term), actions, wake_at=retry_at)


def _sync_revision(scene: Scene) -> int | None:
    """With synchronous mode the winner is at first the only one that can be elected after itself."""
    if scene.policy.synchronous_mode == "off" and scene.electorate is None:
        return None
    return scene.view.sync.mod_revision if scene.view.sync is not None else 0
