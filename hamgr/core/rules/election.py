"""Who leads when nobody does, or when the holder offers the lead. DESIGN.md 5.3 and 5.11."""

from __future__ import annotations

from collections.abc import Iterable

from hamgr.core.actions import CastBallot, TakeLeader
from hamgr.core.cluster import Ballot, Request
from hamgr.core.order import best_first, is_ahead_of
from hamgr.core.reasons import Code, Reason, because
from hamgr.core.scene import Scene, Verdict
from hamgr.core.state import Vacancy
from hamgr.core.units import Instant, Lsn, after

COLD_WINDOW_S = 10.0
"""After the loss of all members: how long the ballots of the whole roster are awaited."""

CANDIDATE_PATIENCE_S = 10.0
"""How long the others leave the lead to the candidate that an operator named."""


def campaign(scene: Scene) -> Verdict | None:
    """A replica's part in an election: vote, wait for the others' votes, take the key or leave it to the winner."""
    vacancy = scene.state.vacancy
    if vacancy is None or not scene.server.is_replica:
        return None
    refusal = _why_not_voting(scene, vacancy)
    if refusal is not None:
        return Verdict(refusal)
    mine = scene.view.ballot(scene.me)
    if mine is None or mine.term != vacancy.term or _should_vote_again(scene, mine):
        at_least = scene.offer.lsn if scene.offer else Lsn(0)
        retry_at = scene.retry_at(CastBallot)
        actions = (CastBallot(vacancy.term, at_least),) if scene.now >= retry_at else ()
        return Verdict(because(Code.VOTING, term=vacancy.term), actions, wake_at=retry_at)
    unfit = _why_ballot_is_unfit(scene, mine)
    if unfit is not None:
        return Verdict(unfit)
    return _wait_or_take(scene, vacancy, mine)


def _why_not_voting(scene: Scene, vacancy: Vacancy) -> Reason | None:
    if not scene.state.me.tags.may_lead:
        return because(Code.MAY_NOT_LEAD)
    named = _named_candidate(scene, vacancy)
    if named and named != scene.me:
        return because(Code.NOT_CANDIDATE, candidate=named)
    return None


def _named_candidate(scene: Scene, vacancy: Vacancy) -> str:
    """The member that alone may take the lead now: the offer's successor, or an operator's candidate."""
    request = scene.view.request
    if request is None or not request.candidate:
        return ""
    if scene.offer is not None:
        return request.candidate
    is_patient = scene.now < after(vacancy.since, CANDIDATE_PATIENCE_S)
    return request.candidate if is_patient and scene.view.member(request.candidate) else ""


def _should_vote_again(scene: Scene, mine: Ballot) -> bool:
    return scene.offer is not None and mine.lsn < scene.offer.lsn


def _why_ballot_is_unfit(scene: Scene, mine: Ballot) -> Reason | None:
    request: Request | None = scene.view.request
    is_forced = request is not None and request.candidate == scene.me and request.offer is None
    if is_forced:
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
    cast = {b.name: b for b in scene.view.ballots if b.term == vacancy.term and b.name in rivals}
    missing = rivals - cast.keys()
    window_end = _window_end(scene, vacancy)
    if missing and scene.now < window_end:
        names = ", ".join(sorted(missing))
        return Verdict(because(Code.WAIT_BALLOTS, members=names), wake_at=window_end)
    ahead = [ballot for ballot in best_first(_fit(scene, cast.values())) if is_ahead_of(ballot, mine)]
    take_at = _turn_at(scene, vacancy, len(ahead))
    if scene.now < take_at:
        return Verdict(because(Code.WAIT_WINNER, winner=ahead[0].name), wake_at=take_at)
    return _take(scene, vacancy, mine, rivals, cast)


def _rivals(scene: Scene, vacancy: Vacancy) -> frozenset[str]:
    """Members whose vote counts, other than this one. In a cold start the whole roster is waited for."""
    if _named_candidate(scene, vacancy) == scene.me:
        return frozenset()
    holder = scene.offer.holder if scene.offer else ""
    names = {m.name for m in scene.view.members if m.tags.may_lead and (m.state == "running" or vacancy.cold)}
    if vacancy.cold:
        names |= scene.view.roster.keys()
    return frozenset(names - {scene.me, holder})


def _window_end(scene: Scene, vacancy: Vacancy) -> Instant:
    window_s = COLD_WINDOW_S if vacancy.cold else scene.policy.election_window_s
    return after(vacancy.since, window_s)


def _fit(scene: Scene, ballots: Iterable[Ballot]) -> list[Ballot]:
    least = scene.offer.lsn if scene.offer else Lsn(0)
    return [ballot for ballot in ballots if ballot.lsn >= least]


def _turn_at(scene: Scene, vacancy: Vacancy, ahead: int) -> Instant:
    """The winner may take the key at once; each further member once those before it have had their time."""
    if ahead == 0:
        return Instant(0.0)
    voted_at = vacancy.voted_at or vacancy.since
    return after(voted_at, scene.policy.election_window_s + ahead * scene.policy.winner_patience_s)


def _take(scene: Scene, vacancy: Vacancy, mine: Ballot, rivals: frozenset[str], cast: dict[str, Ballot]) -> Verdict:
    compared = [(mine.name, mine.mod_revision)]
    compared += [(name, cast[name].mod_revision if name in cast else 0) for name in sorted(rivals)]
    request = scene.view.request
    action = TakeLeader(
        term=vacancy.term,
        from_holder=scene.leader if scene.offer else None,
        request_revision=request.mod_revision if request else 0,
        config_revision=scene.view.config_revision,
        ballots=tuple(compared),
    )
    retry_at = scene.retry_at(TakeLeader)
    actions = (action,) if scene.now >= retry_at else ()
    return Verdict(because(Code.TAKING_LEAD, term=vacancy.term), actions, wake_at=retry_at)
