"""May this hand-over begin? The same answer for CLI, REST and agent."""

from __future__ import annotations

from dataclasses import replace

from hamgr.core.cluster import ClusterView, Member, Request
from hamgr.core.policy import Policy
from hamgr.core.slotnames import slot_name
from hamgr.core.units import Lsn

UNDER_WAY = "another switchover or failover is under way"


def why_not(view: ClusterView, request: Request, policy: Policy) -> str:
    """The first check that the request fails, in words that say what to do; empty when it may begin."""
    if view.leader is None:
        return _why_no_failover(view, request)
    if not request.leader and not request.candidate:
        # Also what is left of a request key that nobody can read: it must not be taken for a wish.
        return "it names neither the leader nor a candidate"
    if request.leader and request.leader != view.leader.name:
        return f"{request.leader} does not lead, {view.leader.name} does"
    if request.candidate == view.leader.name:
        return f"{request.candidate} leads already"
    if request.candidate:
        return _why_not_candidate(view, request, policy)
    if not successors(view, policy):
        return "no member could take over: none is a running replica that may lead and is within the lag limit"
    return ""


def place_for(view: ClusterView, request: Request) -> tuple[Request, int] | None:
    """The request as it is to be written, and the revision of the one that it replaces, 0 where none stands.

    None where one is UNDER_WAY: it has to end, or to be taken back, first. With nobody leading nothing but the next
    leader would end it: a failover replaces it. What was offered stays: by that the last one is known to lead no more.
    """
    former = view.request
    if former is None:
        return request, 0
    if view.leader is not None or request.is_switchover:
        return None
    return replace(request, offer=former.offer), former.mod_revision


def successors(view: ClusterView, policy: Policy) -> tuple[Member, ...]:
    """Members that could take over from the leader, the one with the most WAL first."""
    leader = view.leader.name if view.leader else ""
    others = [member for member in view.members if member.name != leader]
    fit = [m for m in others if not (_why_unfit(view, m, policy, ignore_lag=False) or _why_not_elected(view, m))]
    return tuple(sorted(fit, key=lambda m: (-(known_position(view, m) or 0), -m.tags.failover_priority, m.name)))


def known_position(view: ClusterView, member: Member) -> Lsn | None:
    """The member's position: the greater of what the leader last wrote and what it announced itself; None: unknown.

    Either can be the older one: the leader writes once a tick, a member when something about it changes.
    """
    position = max(view.status.slots.get(slot_name(member.name)) or Lsn(0), member.xlog_location)
    return position or None


def _why_no_failover(view: ClusterView, request: Request) -> str:
    if request.leader:
        return "nobody leads: use `hamgr failover`"
    if not request.candidate:
        return "name the candidate"
    member = view.member(request.candidate)
    if member is None:
        return f"no member {request.candidate} is up; members: {_names(view)}"
    if barred := _why_barred(member):
        return barred
    return "" if request.allow_data_loss else _why_not_entered(view, member) or _why_not_in_sync(view, member)


def _why_not_entered(view: ClusterView, member: Member) -> str:
    """The last leader does not count on that member, and may be leading on by the promises of the others."""
    if view.counts_on(member.name) or view.released_term == view.term:
        return ""
    entered = ", ".join(sorted(view.roster))
    return (
        f"{member.name} was not up when the last leader looked ({entered} were), and that one may lead on without "
        "etcd: make sure that it does not run, then allow data loss"
    )


def _why_not_candidate(view: ClusterView, request: Request, policy: Policy) -> str:
    member = view.member(request.candidate)
    if member is None:
        return f"no member {request.candidate} is up; members: {_names(view)}"
    ignore_lag = request.allow_data_loss or not request.is_switchover
    unfit = _why_unfit(view, member, policy, ignore_lag=ignore_lag)
    return unfit or ("" if request.allow_data_loss else _why_not_elected(view, member))


def _why_not_elected(view: ClusterView, member: Member) -> str:
    """It would not take what the leader offers."""
    if not view.counts_on(member.name):
        return f"the leader has not entered {member.name} as up yet, which takes a second: try again"
    return _why_not_in_sync(view, member)


def _why_barred(member: Member) -> str:
    """Its tags say that it never leads."""
    if member.tags.may_lead:
        return ""
    tag = "nofailover" if member.tags.nofailover else "failover_priority 0"
    return f"{member.name} is tagged {tag}: take the tag away and reload the member"


def _why_unfit(view: ClusterView, member: Member, policy: Policy, *, ignore_lag: bool) -> str:
    if barred := _why_barred(member):
        return barred
    if member.state != "running":
        return f"{member.name} is not running, it is {member.state}"
    if member.role != "replica":
        return f"{member.name} is not a replica"
    if member.ill:
        return f"{member.name} is ill: {member.ill}"
    position = known_position(view, member)
    if ignore_lag:
        return ""
    if position is None:
        return f"the position of {member.name} is not known: it does not stream"
    behind = view.status.optime - position
    if behind > policy.maximum_lag_on_failover_bytes:
        limit = policy.maximum_lag_on_failover_bytes
        return f"{member.name} is {behind} bytes behind, maximum_lag_on_failover is {limit}"
    return ""


def _why_not_in_sync(view: ClusterView, member: Member) -> str:
    """With synchronous mode only members of the electorate have every commit: what another one may lack is named."""
    if view.sync is None or not view.sync.leader:
        return ""
    if member.name in (view.sync.leader, *view.sync.members):
        return ""
    return (
        f"{member.name} is not in the synchronous set: {bytes_at_risk(view, member)}; allow data loss to do it anyway"
    )


def bytes_at_risk(view: ClusterView, member: Member) -> str:
    """What may be lost if that member leads, in words; positions are those last written to etcd."""
    position = known_position(view, member)
    if position is None:
        return "how much it lacks is not known"
    behind = max(0, view.status.optime - position)
    return f"{behind} bytes of WAL are known to be at risk, and whatever was written since the leader last told"


def _names(view: ClusterView) -> str:
    return ", ".join(member.name for member in view.members) or "none"
