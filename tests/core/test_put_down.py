"""An ill server is put down also in the middle of its start or promotion, if another member is better off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.leader import NOW, TERM, leading, primary_server, renewed, seen
from hamgr.core.actions import Action, Fence, Promote, PutDown, RestartServer, StartPrimary, Upstream
from hamgr.core.decide import decide
from hamgr.core.pipeline import Passage
from hamgr.core.policy import Policy
from hamgr.core.server import Illness, Phase, ServerView, Vital
from hamgr.core.state import Crash, Failure, State, UnderWay
from hamgr.core.units import Instant, Lsn, Term, after

DISK_HANGS = Illness(Vital.DATA_DISK, "no answer within 3 s", after(NOW, -20.0), is_hung=True)
STARTING = ServerView(Phase.STARTING, identity=primary_server(NOW).identity, probed_at=NOW)
REPLICA = primary_server(NOW, in_recovery=True, written_lsn=Lsn(0), received_lsn=Lsn(1000), replayed_lsn=Lsn(1000))
RESTART = RestartServer(1, 10.0, TERM, Upstream())


def ill(server: ServerView, *under_way: Action, illness: Illness | None = DISK_HANGS, ill_heirs: bool = False) -> State:
    view = seen()
    if ill_heirs:
        view = view._replace(members=tuple(member._replace(ill="data_disk") for member in view.members))
    tasks = tuple(UnderWay(action, after(NOW, -15.0)) for action in under_way)
    illnesses = () if illness is None else (illness,)
    rest = {"verified_term": Term(0), "under_way": tasks, "illnesses": illnesses}
    return leading(view, renewed(0.1), server=server, **rest)


def started(state: State) -> set[type]:
    return {type(action) for action in decide(state, NOW).actions}


def test_a_start_that_waits_for_a_server_on_a_dead_disk_is_overtaken() -> None:
    crash = Crash(after(NOW, -20.0), examined_at=after(NOW, -19.0), declined=True, end_lsn=Lsn(1000))
    state = ill(STARTING, StartPrimary(TERM))._replace(crash=crash)
    assert PutDown in started(state)
    assert PutDown not in started(ill(STARTING, StartPrimary(TERM), ill_heirs=True)._replace(crash=crash))


def test_a_promotion_on_a_dead_disk_is_overtaken_and_none_is_begun() -> None:
    assert PutDown in started(ill(REPLICA, Promote(TERM)))
    assert started(ill(REPLICA)) & {PutDown, Promote} == {PutDown}
    assert Promote in started(ill(REPLICA, ill_heirs=True)), "nobody is better off"


def test_in_maintenance_mode_nobody_is_better_off() -> None:
    paused = ill(REPLICA)._replace(policy=Policy(ttl_s=5.0, pause=True))
    assert started(paused) & {PutDown, Promote} == {Promote}


@pytest.mark.parametrize("action", [RESTART, Fence()])
def test_what_may_start_a_server_after_it_was_put_down_is_not_overtaken(action: Action) -> None:
    """The key would be given away, and a primary come up all the same."""
    assert PutDown not in started(ill(STARTING, action))


def failed_thrice(replayed: int, elected_ago_s: float) -> State:
    elected_at = after(NOW, -elected_ago_s)
    passage = Passage(TERM, "b", "host_lost", elected_at).marked(elected_at=elected_at)
    failure = Failure(Promote.__name__, "timeout", "not promoted in time", 3, after(NOW, -30.0))
    server = replace(REPLICA, replayed_lsn=Lsn(replayed))
    return ill(server, illness=None)._replace(passage=passage, failures=(failure,))


@pytest.mark.parametrize(
    ("replayed", "elected_ago_s", "may_renew"), [(1000, 95.0, False), (900, 95.0, True), (900, 301.0, False)]
)
def test_a_promotion_that_replays_its_way_is_not_hopeless(replayed: int, elected_ago_s: float, may_renew: bool) -> None:
    assert decide(failed_thrice(replayed, elected_ago_s), Instant(NOW)).may_renew is may_renew
