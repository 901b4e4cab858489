"""The leader's position in etcd: at most once per loop_wait, and seldom where only its own checks move it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from hamgr.core.actions import PutStatus
from hamgr.core.chores import IDLE_BYTES, IDLE_STATUS_S
from hamgr.core.cluster import ClusterView, LeaderKey, Member, Status
from hamgr.core.decide import decide
from hamgr.core.policy import Policy
from hamgr.core.server import Phase, ServerIdentity, ServerView
from hamgr.core.state import Lease, Myself, State
from hamgr.core.units import Instant, Lsn, Term, Timeline

NOW = Instant(1000.0)
AT = Lsn(50_000_000)
TIMELINE = Timeline(3)
LOOP_WAIT_S = 1.0


def state(written: Status, lsn: Lsn, slots: Mapping[str, Lsn], *, ago_s: float) -> State:
    """`a` leads, is at `lsn`, and wrote that status so long ago."""
    view = ClusterView(
        revision=9,
        seen_at=NOW,
        system_identifier="s",
        leader=LeaderKey("a", 1, 5),
        term=Term(2),
        status=written,
        members=(Member("a", "", ""),),
    )
    server = ServerView(
        Phase.RUNNING,
        identity=ServerIdentity(1, 1),
        answered=True,
        system_identifier="s",
        in_recovery=False,
        timeline=TIMELINE,
        written_lsn=lsn,
        slots=slots,
    )
    return State(
        Myself("a"),
        Policy(loop_wait_s=LOOP_WAIT_S),
        cluster=view,
        lease=Lease(1, Instant(NOW + 4.0), Term(2)),
        server=server,
        verified_term=Term(2),
        verified_at=NOW,
        status_written_at=Instant(NOW - ago_s),
    )


def writes(given: State) -> bool:
    return any(isinstance(action, PutStatus) for action in decide(given, NOW).actions)


@pytest.mark.parametrize(
    ("moved", "ago_s", "is_written"),
    [
        (0, 3600.0, False),
        (1, IDLE_STATUS_S - 0.1, False),
        (1, IDLE_STATUS_S, True),
        (IDLE_BYTES - 1, LOOP_WAIT_S, False),
        (IDLE_BYTES, LOOP_WAIT_S, True),
        (IDLE_BYTES, LOOP_WAIT_S - 0.1, False),
    ],
)
def test_how_soon_a_position_is_written_depends_on_how_far_it_moved(moved: int, ago_s: float, is_written: bool) -> None:
    written = Status(AT, TIMELINE, {"b": AT})
    assert writes(state(written, Lsn(AT + moved), {"b": AT}, ago_s=ago_s)) is is_written
    assert writes(state(written, AT, {"b": Lsn(AT + moved)}, ago_s=ago_s)) is is_written


@pytest.mark.parametrize("what", ["timeline", "slot more", "slot less"])
def test_what_is_no_mere_move_is_written_at_once(what: str) -> None:
    written = Status(AT, TIMELINE, {"b": AT})
    changed = {
        "timeline": replace(written, timeline=Timeline(2)),
        "slot more": replace(written, slots={}),
        "slot less": replace(written, slots={"b": AT, "c": AT}),
    }[what]
    assert writes(state(changed, AT, {"b": AT}, ago_s=LOOP_WAIT_S))
