"""Properties of order, observe and decide, against oracles too dumb to be wrong."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hamgr.core import actions, facts
from hamgr.core.actions import Exit, Fence, Lane
from hamgr.core.cluster import Ballot, ClusterView, LeaderKey, Member, Offer, Request, Status, Tags
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.order import best_first, is_ahead_of
from hamgr.core.policy import Policy
from hamgr.core.result import Outcome, Result
from hamgr.core.route_outcomes import RouteNotes
from hamgr.core.routes import Routes
from hamgr.core.scene import Scene
from hamgr.core.server import ControlFile, DataDir, Phase, ServerIdentity, ServerView
from hamgr.core.server_outcomes import Promoted, WalEnd
from hamgr.core.state import Myself, State
from hamgr.core.units import Instant, Lsn, Term, Timeline

NAMES = ("alpha", "beta", "gamma")
SYSTEM = "system-1"
NOW = Instant(1000.0)

lsns = st.integers(0, 3).map(lambda n: Lsn(0x5000000 + 1000 * n))
timelines = st.integers(1, 3).map(Timeline)
instants = st.floats(990.0, 1010.0).map(Instant)
names = st.sampled_from(NAMES)
lease_ids = st.sampled_from((0, 1, 2))
ttls_s = st.sampled_from((5.0, 30.0))
terms = st.integers(0, 2).map(Term)
revisions = st.integers(0, 9)

ballots = st.builds(Ballot, names, terms, timelines, lsns, st.integers(1, 3), revisions)
offers = st.builds(Offer, names, terms, timelines, lsns, st.just("switchover"))
requests = st.builds(
    Request, leader=st.just("") | names, candidate=st.just("") | names, allow_data_loss=st.booleans(),
    offer=st.none() | offers, mod_revision=revisions,
)  # fmt: skip
members = st.builds(
    lambda *values, **others: Member(*values, **others), names, st.just("postgres://host:5432/postgres"), st.just("http://host:8008"),
    state=st.sampled_from(("running", "stopped", "starting")), role=st.sampled_from(("primary", "replica")),
    tags=st.builds(Tags, nofailover=st.booleans()), lease_id=lease_ids, mod_revision=revisions,
)  # fmt: skip


def unique(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(strategy, max_size=3, unique_by=lambda each: each.name).map(tuple)


# Of a named tuple itself `builds` would make up every field, also those with a default.
views = st.builds(
    lambda **values: ClusterView(**values), revision=st.integers(1, 20), seen_at=instants,
    system_identifier=st.sampled_from(("", SYSTEM, SYSTEM)),
    leader=st.none() | st.builds(LeaderKey, names, lease_ids, revisions), term=terms,
    status=st.builds(Status, lsns, timelines), members=unique(members), request=st.none() | requests,
    ballots=unique(ballots),
)  # fmt: skip
controls = st.builds(
    ControlFile, st.just(SYSTEM), st.sampled_from(("shut down", "in production", "shut down in recovery")),
    timelines, lsns, lsns,
)  # fmt: skip
servers = st.builds(
    ServerView, phase=st.sampled_from(Phase), data_dir=st.sampled_from(DataDir),
    identity=st.none() | st.builds(ServerIdentity, st.integers(1, 2), st.just(1)), probed_at=instants,
    answered=st.booleans(), system_identifier=st.sampled_from((SYSTEM, "", "foreign")),
    in_recovery=st.sampled_from((None, True, False)), timeline=timelines, written_lsn=lsns, received_lsn=lsns,
    upstream=st.sampled_from(("", "host:5432")), streaming=st.booleans(), control=st.none() | controls,
)  # fmt: skip
values = (
    st.none()
    | st.builds(WalEnd, timelines, st.none() | lsns, st.booleans(), st.none() | instants)
    | st.builds(Promoted, timelines, lsns, instants, instants)
    | st.builds(RouteNotes, st.sampled_from(((), ("gone",))), st.integers(0, 1))
    | ballots
)
some_actions = st.sampled_from(
    (
        actions.InitDb(), actions.Fence(), actions.Promote(Term(1)), actions.StartPrimary(Term(1)),
        actions.StartStandby(actions.Upstream()), actions.StopServer(1.0), actions.HandOverStop(3, "beta", 1.0),
        actions.ExamineCrash(Lsn(0)), actions.Rewind(actions.Upstream("beta")), actions.Clone(actions.Upstream("beta")),
        actions.ReleaseLeader(Term(1)), actions.CastBallot(Term(2), Lsn(0)), actions.WithdrawOffer(3),
        actions.GrantLease(5.0), actions.TakeInitialize(), actions.Checkpoint(3), actions.ApplyConfig(1),
        actions.PutOffer(Offer("alpha", Term(1), Timeline(1), Lsn(1), "x"), "", 3),
        actions.CheckHistory(actions.Upstream("beta")), actions.ReattachLeader(LeaderKey("alpha", 1, 1)),
        actions.HoldPools(3), actions.ReleasePools(Term(1), NOW), actions.PushRoute(Term(1), NOW, ("beta",)),
        actions.PointPools(actions.Upstream("beta", "host")),
    )
)  # fmt: skip
outcomes = st.builds(
    Outcome, st.sampled_from(Result), st.sampled_from(("", "timeout", "diverged", "compare")), value=values
)
all_facts = st.one_of(
    st.builds(facts.ClusterSeen, views),
    st.builds(facts.StoreFailed, instants, st.just("down")),
    st.builds(facts.LeaseGranted, st.integers(1, 2), instants, ttls_s, ttls_s),
    st.builds(facts.LeaseTried, st.integers(1, 3), instants, ttls_s, ttls_s, revisions),
    st.builds(facts.LeaseAdopted, st.integers(1, 2), instants, terms),
    st.builds(facts.Renewed, st.integers(1, 2), instants, ttls_s, views),
    st.builds(facts.LeaseGone, st.integers(1, 2), instants),
    st.builds(facts.Probed, servers),
    st.builds(facts.ServerExited, st.builds(ServerIdentity, st.integers(1, 2), st.just(1)), instants),
    st.builds(facts.ActionStarted, some_actions, instants),
    st.builds(facts.ActionEnded, some_actions, outcomes, instants),
    st.builds(facts.ActionProgressed, st.just("40 %")),
    st.builds(facts.Ordered, st.integers(1, 2), st.sampled_from(("restart", "reinitialize", "nonsense")), instants),
    st.builds(facts.PolicyRead, st.builds(Policy, pause=st.booleans()), st.integers(0, 3)),
    st.builds(facts.SettingsReread, instants),
    st.builds(facts.StopOrdered, instants),
    st.builds(facts.ReplaceOrdered, instants),
    st.builds(facts.GuardSeen, st.booleans()),
    st.builds(facts.Routed, instants, terms),
)
histories = st.lists(all_facts, max_size=25)

thorough = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


def learned(history: list[facts.Fact]) -> State:
    state = State(Myself("alpha", routes=Routes(pools=True, targets=True, balancers=True)))
    for fact in history:
        state = observe(state, fact)
    return state


@thorough
@given(st.lists(ballots, min_size=1, max_size=6, unique_by=lambda each: each.name), st.randoms())
def test_order_is_total_and_the_same_for_whoever_looks(cast: list[Ballot], dice: random.Random) -> None:
    shuffled = list(cast)
    dice.shuffle(shuffled)
    ranked = best_first(cast)
    assert best_first(shuffled) == ranked
    for one in cast:
        assert not is_ahead_of(one, one)
        for other in cast:
            assert one is other or is_ahead_of(one, other) != is_ahead_of(other, one)
    best = ranked[0]
    assert all((b.timeline, b.lsn) <= (best.timeline, best.lsn) for b in cast)


@thorough
@given(histories, instants)
def test_whatever_is_learned_a_decision_follows(history: list[facts.Fact], now: Instant) -> None:
    state = learned(history)
    assert decide(state, now) == decide(state, now)


@thorough
@given(histories, instants)
def test_a_busy_lane_gets_nothing_but_a_fence(history: list[facts.Fact], now: Instant) -> None:
    state = learned(history)
    busy = {task.action.lane for task in state.under_way}
    wanted = decide(state, now).actions
    assert all(action.lane not in busy or isinstance(action, Fence) for action in wanted)
    assert len({action.lane for action in wanted}) == len(wanted)


@thorough
@given(histories, instants)
def test_deciding_twice_does_nothing_twice(history: list[facts.Fact], now: Instant) -> None:
    state = learned(history)
    first = decide(state, now).actions
    for action in first:
        state = observe(state, facts.ActionStarted(action, now))
    again = decide(state, now).actions
    assert not {action.lane for action in first} & {action.lane for action in again if not isinstance(action, Fence)}
    assert not (any(isinstance(a, Fence) for a in first) and any(isinstance(a, Fence) for a in again))


@thorough
@given(histories, instants)
def test_no_pool_is_released_while_something_is_done_with_the_server(history: list[facts.Fact], now: Instant) -> None:
    state = learned(history)
    wanted = decide(state, now).actions
    lanes = {action.lane for action in wanted} | {task.action.lane for task in state.under_way}
    if any(isinstance(action, actions.ReleasePools) for action in wanted):
        assert Lane.SERVER not in lanes


def is_entitled(state: State, now: Instant) -> bool:
    """By the plainest reading of promise 1: the key names us, by our lease, and the deadline has not come; or all peers
    have promised to wait, in the term in which we lead, and nobody holds the key.
    """
    view, lease = state.cluster, state.lease
    by_lease = lease.deadline is not None and now < lease.deadline
    if view is None:
        return lease.term > 0 and by_lease
    holds = view.leader is not None and (view.leader.name, view.leader.lease_id) == ("alpha", lease.lease_id)
    by_peers = lease.peer_deadline is not None and now < lease.peer_deadline and 0 < lease.term == view.term
    is_given = (
        view.released_term == view.term or Scene(state, now).offer is not None or not Scene(state, now).is_settled
    )
    return (holds and by_lease) or (by_peers and (holds or view.leader is None) and not is_given)


@thorough
@given(histories, instants)
def test_a_primary_is_made_only_with_key_and_time(history: list[facts.Fact], now: Instant) -> None:
    state = learned(history)
    for action in decide(state, now).actions:
        makes = isinstance(action, actions.StartPrimary | actions.Promote)
        if makes or (isinstance(action, actions.RestartServer) and action.as_primary_in is not None):
            assert is_entitled(state, now)
        if makes:
            deadlines = [each for each in (state.lease.deadline, state.lease.peer_deadline) if each is not None]
            assert max(deadlines) - now > 0.7
            assert not state.is_busy(Lane.LEADERSHIP) or not (
                state.running(actions.PutOffer) or state.running(actions.ReleaseLeader)
            )


@thorough
@given(histories, instants)
def test_a_server_that_may_write_without_right_is_fenced_and_nothing_else(
    history: list[facts.Fact], now: Instant
) -> None:
    state = learned(history)
    may_write = state.server.is_alive and state.server.in_recovery is not True
    is_new = state.cluster is not None and not state.cluster.system_identifier and state.cluster.leader is None
    ids = {state.server.system_identifier, state.cluster.system_identifier if state.cluster else ""} - {""}
    is_foreign = len(ids) == 2
    if not may_write or is_entitled(state, now) or is_new or is_foreign:
        return
    decision = decide(state, now)
    on_server = [action for action in decision.actions if action.lane is Lane.SERVER]
    assert on_server == ([] if state.running(Fence) else [Fence()])
    assert not decision.may_renew


@thorough
@given(histories, instants)
def test_the_key_is_given_up_only_when_no_server_is_left(history: list[facts.Fact], now: Instant) -> None:
    state = learned(history)
    for action in decide(state, now).actions:
        if isinstance(action, actions.ReleaseLeader | actions.PutOffer):
            assert not state.server.is_alive
        if isinstance(action, actions.PutOffer):
            assert action.offer.lsn > 0


@thorough
@given(histories, instants)
def test_an_agent_exits_in_order_only_without_a_server(history: list[facts.Fact], now: Instant) -> None:
    state = learned(history)
    leaves = [action for action in decide(state, now).actions if isinstance(action, Exit) and action.code == 0]
    foreign = state.cluster is not None and state.server.system_identifier == "foreign"
    assert not leaves or not state.server.is_alive or foreign


@thorough
@given(histories, views)
def test_an_older_view_changes_nothing(history: list[facts.Fact], view: ClusterView) -> None:
    state = learned(history)
    if state.cluster is not None:
        old = view._replace(revision=state.cluster.revision - 1)
        assert observe(state, facts.ClusterSeen(old)) == state
