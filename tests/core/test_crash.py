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
