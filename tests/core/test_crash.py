"""A server that ended by itself: when that is known, and when it is given up."""

from __future__ import annotations

import pytest

from hamgr.core import actions, facts
from hamgr.core.cluster import Member
from hamgr.core.observe import observe
from hamgr.core.result import Outcome, Result
from hamgr.core.scene import upstream_of
from hamgr.core.server import Phase, ServerView
from hamgr.core.state import SHORT_LIFE_S, Crash, Myself, State, has_lived_shortly
from hamgr.core.units import Instant, Lsn, Term, after

NOW = Instant(100.0)
DONE = Outcome(Result.DONE)
START = actions.StartPrimary(Term(1))
PROMOTE = actions.Promote(Term(1))
RESTART = actions.RestartServer(1, 5.0, Term(1), actions.Upstream())


def with_server(phase: Phase, crash: Crash | None) -> State:
    return State(Myself("a"), server=ServerView(phase, probed_at=NOW, written_lsn=Lsn(1000)), crash=crash)


@pytest.mark.parametrize("action", [START, RESTART], ids=["start", "restart"])
@pytest.mark.parametrize("phase", [Phase.CRASHED, Phase.STOPPED])
def test_a_server_that_is_down_when_its_start_has_ended_well_has_crashed_anew(
    action: actions.Action, phase: Phase
) -> None:
    """It died before anybody watched it: its tree is not known to be dead, and its WAL has not been read."""
    ended = observe(with_server(phase, Crash(NOW, examined_at=NOW)), facts.ActionEnded(action, DONE, after(NOW, 1.0)))
    assert ended.crash == Crash(after(NOW, 1.0))


@pytest.mark.parametrize("action", [START, RESTART], ids=["start", "restart"])
def test_one_that_runs_has_not(action: actions.Action) -> None:
    state = with_server(Phase.RUNNING, Crash(NOW, examined_at=NOW))
    assert observe(state, facts.ActionEnded(action, DONE, after(NOW, 1.0))).crash is None


@pytest.mark.parametrize("action", [START, RESTART], ids=["start", "restart"])
@pytest.mark.parametrize("known", [None, Crash(NOW, examined_at=NOW, offered_at=NOW, declined=True)])
def test_what_a_failed_start_may_have_left_is_looked_for(action: actions.Action, known: Crash | None) -> None:
    """The server may have let clients in before it died, and their backends acknowledge on."""
    failed = facts.ActionEnded(action, Outcome(Result.FAILED, "broken"), after(NOW, 1.0))
    crash = observe(with_server(Phase.STOPPED, known), failed).crash
    assert crash is not None
    assert (crash.examined_at, crash.declined) == (None, True)


def test_a_server_that_ends_in_its_promotion_has_crashed_also_where_a_probe_tells_it_first() -> None:
    replica = ServerView(Phase.RUNNING, probed_at=NOW, in_recovery=True, received_lsn=Lsn(1000))
    promoting = observe(State(Myself("a"), server=replica), facts.ActionStarted(PROMOTE, NOW))
    state = observe(promoting, facts.Probed(ServerView(Phase.STOPPED, probed_at=after(NOW, 1.0))))
    assert state.crash == Crash(after(NOW, 1.0))
    assert (state.server.phase, state.server.written_lsn) == (Phase.CRASHED, Lsn(1000))


def test_a_start_that_was_given_up_for_lost_leaves_no_crash_once_the_server_runs() -> None:
    """It hung, say, and came to. A crash that nobody forgets holds every later hand-over back."""
    starting = with_server(Phase.STARTING, Crash(NOW, examined_at=NOW))
    given_up = observe(starting, facts.ActionEnded(START, Outcome(Result.FAILED, "timeout"), after(NOW, 1.0)))
    assert given_up.crash is not None
    came_to = ServerView(Phase.RUNNING, probed_at=after(NOW, 2.0))
    assert observe(given_up, facts.Probed(came_to)).crash is None


def test_a_start_under_way_keeps_the_crash_that_it_follows() -> None:
    """How long that life was is counted when the start has ended."""
    under_way = observe(with_server(Phase.STARTING, Crash(NOW)), facts.ActionStarted(START, NOW))
    assert observe(under_way, facts.Probed(ServerView(Phase.RUNNING, probed_at=after(NOW, 1.0)))).crash == Crash(NOW)


@pytest.mark.parametrize("recovery_s", [0.3, 60.0])
@pytest.mark.parametrize(("lives_s", "counted"), [(1.0, 1), (SHORT_LIFE_S + 1.0, 0)])
def test_lives_are_counted_and_not_the_time_that_their_starts_take(
    recovery_s: float, lives_s: float, counted: int
) -> None:
    state, at = with_server(Phase.RUNNING, None), NOW
    for _ in range(2):
        at = after(at, recovery_s)
        state = observe(state._replace(crash=Crash(after(at, -recovery_s))), facts.ActionEnded(START, DONE, at))
        at = after(at, lives_s)
    assert (state.short_lives, has_lived_shortly(state, Crash(at))) == (counted, bool(counted))


@pytest.mark.parametrize("port", ["", "x", "²", "-1", "9" * 5000])
def test_an_address_that_is_none_is_left_alone(port: str) -> None:
    assert upstream_of(Member("b", f"postgres://b.host:{port}/postgres")) == actions.Upstream("b")
