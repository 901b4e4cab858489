"""What may begin as a hand-over, and what is no wish at all."""

from hamgr.core.cluster import ClusterView, LeaderKey, Member, Request, Status, Tags
from hamgr.core.policy import Policy
from hamgr.core.precheck import why_not
from hamgr.core.units import Instant, Lsn


def led_by_alpha() -> ClusterView:
    beta = Member("beta", state="running", role="replica", xlog_location=Lsn(100))
    return ClusterView(9, Instant(1.0), leader=LeaderKey("alpha", 7, 3), members=(beta,), status=Status(Lsn(100)))


def test_request_that_names_nobody_is_refused() -> None:
    assert "neither" in why_not(led_by_alpha(), Request(mod_revision=8), Policy())


def test_request_that_names_the_leader_may_begin() -> None:
    assert why_not(led_by_alpha(), Request(leader="alpha"), Policy()) == ""


def test_a_member_that_has_announced_more_than_the_leader_wrote_last_is_not_too_far_behind() -> None:
    """Right after it was cloned the leader's word is that of a base backup, a tick old."""
    view = led_by_alpha()
    beta = view.members[0]._replace(xlog_location=Lsn(9_000_000))
    view = view._replace(members=(beta,), status=Status(Lsn(9_000_100), slots={"beta": Lsn(100)}))
    assert why_not(view, Request(leader="alpha"), Policy()) == ""


def test_a_member_that_its_tags_bar_is_named_with_the_tag_and_the_way_out() -> None:
    view = led_by_alpha()
    for tags, tag in ((Tags(nofailover=True), "nofailover"), (Tags(failover_priority=0), "failover_priority 0")):
        barred = view._replace(members=(view.members[0]._replace(tags=tags),))
        for seen in (barred, barred._replace(leader=None)):
            why = why_not(seen, Request(candidate="beta"), Policy())
            assert why == f"beta is tagged {tag}: take the tag away and reload the member"
