"""Each step of a change of leader is read off the view that shows it."""

from __future__ import annotations

from dataclasses import replace

from hamgr.cli.progress import phases
from hamgr.core.cluster import ClusterView, LeaderKey, Offer, Request
from hamgr.core.units import Instant, Lsn, Term, Timeline

BEFORE = ClusterView(10, Instant(0.0), leader=LeaderKey("p1", 1, 5), term=Term(6))
REQUEST = Request("p1", "p2", mod_revision=11)
OFFER = Offer("p1", Term(6), Timeline(3), Lsn(0x5000200), "switchover")


def texts(**changes: object) -> list[str]:
    return [phase.text for phase in phases(BEFORE, BEFORE._replace(**changes))]


def test_steps_are_told_in_their_order() -> None:
    offered = replace(REQUEST, offer=OFFER)
    assert texts() == []
    assert texts(request=REQUEST) == ["requested"]
    assert texts(request=offered) == ["requested", "p1 stopped at 0/5000200 and offers the lead"]
    assert texts(leader=LeaderKey("p2", 2, 13), term=Term(7)) == ["taken by p2 in term 7"]


def test_a_request_that_stood_there_before_is_no_step() -> None:
    before = BEFORE._replace(request=REQUEST)
    assert phases(before, before) == ()
