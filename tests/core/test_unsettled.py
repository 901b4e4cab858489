"""What was sent and not answered may still take effect: nothing is built on it before it is void."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.leader import primary_server
from hamgr.core import actions, facts
from hamgr.core.cluster import ClusterView, LeaderKey, Member, Offer, SyncState
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.policy import Policy
from hamgr.core.reasons import Code, because
from hamgr.core.result import NOT_SENT, Outcome, Result
from hamgr.core.scene import Scene
from hamgr.core.server import Phase, Walsender
from hamgr.core.state import Crash, Lease, Myself, State, SyncInForce
from hamgr.core.units import Instant, Lsn, Term, Timeline

NOW = Instant(100.0)
LEASE_ID = 7
UNKNOWN = Outcome(Result.UNKNOWN, "unknown", "no answer in time")
UNSENT = Outcome(Result.FAILED, NOT_SENT, "cannot connect")
OFFER = Offer("a", Term(1), Timeline(1), Lsn(1000), "server_crashed")
REFUSED = Outcome(Result.REFUSED, "compare", "a comparison did not hold")


def member(name: str) -> Member:
    return Member(name, f"postgres://{name}.host:5432/postgres", f"http://{name}:8008/patroni", "running")


def leading(sync: SyncState, rule: str, streaming: tuple[str, ...]) -> State:
    """`a` leads three members in term 1 with that rule in force; those members stream."""
    view = ClusterView(
        revision=20,
        seen_at=NOW,
        system_identifier="s",
        leader=LeaderKey("a", LEASE_ID, 5),
        term=Term(1),
        term_revision=5,
        members=tuple(member(name) for name in "abc"),
        sync=sync,
        roster=dict.fromkeys("abc", ""),
        roster_revision=6,
    )
    senders = tuple(
        Walsender(name, "", "streaming", "sync", int(f'"{name}"' in rule), "replicator", Lsn(900)) for name in streaming
    )
    server = primary_server(NOW, walsenders=senders, sync_names=rule)
    return State(
        Myself("a"),
        Policy(synchronous_mode="on"),
        cluster=view,
        lease=Lease(LEASE_ID, Instant(NOW + 4.0), Term(1)),
        server=server,
        verified_term=Term(1),
        verified_at=NOW,
        sync=SyncInForce(rule, Lsn(800), has_caught_up=True),
    )


def sync_steps(state: State, now: Instant) -> list[actions.Action]:
    wanted = decide(state, now).actions
    return [action for action in wanted if isinstance(action, actions.SetSync | actions.PutSync)]


def test_the_rule_stays_while_the_end_of_an_electorate_is_unknown() -> None:
    """It may be in force: then whoever it elects would lack what the next rule acknowledges."""
    bridge = SyncState("a", ("b", "c"), 1, mod_revision=9)
    state = leading(bridge, 'FIRST 1 ("c")', ("b", "c"))
    sent = sync_steps(state, NOW)
    assert sent == [actions.PutSync(SyncState("a", ("c",)), 9)]
    state = observe(state, facts.ActionStarted(sent[0], NOW))
    state = observe(state, facts.ActionEnded(sent[0], UNKNOWN, NOW))
    lost_c = state.server.walsenders[:1]
    state = observe(state, facts.Probed(replace(state.server, walsenders=lost_c, probed_at=Instant(NOW + 0.5))))
    assert sync_steps(state, Instant(NOW + 0.5)) == [actions.PutSync(bridge, 9)]
    known = observe(state, facts.ActionEnded(actions.PutSync(bridge, 9), Outcome(Result.DONE), Instant(NOW + 0.6)))
    assert [type(step) for step in sync_steps(known, Instant(NOW + 0.6))] == [actions.SetSync]


def test_the_electorate_is_written_afresh_before_a_fresh_agent_moves_the_rule() -> None:
    """What the agent before it sent may be on its way still, and would fit the rule no more."""
    bridge = SyncState("a", ("b", "c"), 1, mod_revision=9)
    state = leading(bridge, 'FIRST 1 ("c")', ("b",))
    assert [type(step) for step in sync_steps(state, NOW)] == [actions.SetSync]
    fresh = observe(state, facts.LeaseAdopted(LEASE_ID, Instant(NOW + 4.0), Term(1)))
    assert sync_steps(fresh, NOW) == [actions.PutSync(bridge, 9)]


def test_a_rule_that_was_tried_and_taken_back_counts_as_caught_up_no_more() -> None:
    state = leading(SyncState("a", ("c",)), 'FIRST 1 ("c")', ("b", "c"))
    failed = Outcome(Result.FAILED, "unavailable", "not in force in time")
    assert observe(state, facts.ActionEnded(actions.SetSync(None), failed, NOW)).sync is None


def test_no_step_is_taken_from_an_electorate_that_is_only_remembered() -> None:
    """The agent before this one may have changed it in etcd: what is released by it then, whom it elects may lack."""
    known = leading(SyncState("a", ("c",), 1), 'ANY 1 ("c")', ("b",))
    assert sync_steps(known, NOW)
    assert known.cluster is not None
    recalled = observe(known._replace(cluster=None), facts.ClusterRecalled(known.cluster))
    recalled = recalled._replace(verified_term=known.verified_term)
    assert sync_steps(recalled, NOW) == []
    read = observe(recalled, facts.ClusterSeen(known.cluster))
    assert sync_steps(read, NOW) == sync_steps(known, NOW)


@pytest.mark.parametrize("outcome", [UNKNOWN, REFUSED], ids=["unknown", "refused"])
def test_an_offer_that_may_still_take_effect_lets_no_server_start(outcome: Outcome) -> None:
    """Refused, too: the comparison that failed may hold again when a copy arrives that is still on its way."""
    state = leading(SyncState(), "", ())
    offer = actions.PutOffer.__new__(actions.PutOffer)
    state = observe(state, facts.ActionEnded(offer, outcome, NOW))
    assert not Scene(state, NOW).is_settled
    done = facts.ActionEnded(actions.ReattachLeader(LeaderKey("a", LEASE_ID, 5)), Outcome(Result.DONE), NOW)
    assert Scene(observe(state, done), NOW).is_settled


def offered(*outcomes: Outcome) -> State:
    """The lead was offered that often, each time with that end."""
    state, offer = leading(SyncState(), "", ()), actions.PutOffer(OFFER, "", 0, 5)
    for number, outcome in enumerate(outcomes):
        begun = observe(state, facts.ActionStarted(offer, Instant(NOW + number)))
        state = observe(begun, facts.ActionEnded(offer, outcome, Instant(NOW + number + 0.1)))
    return state


def test_an_offer_that_never_left_this_host_gives_nothing_away() -> None:
    assert Scene(offered(UNSENT, UNSENT), NOW).is_settled


@pytest.mark.parametrize("sent", [UNKNOWN, REFUSED])
def test_one_that_was_sent_counts_whatever_became_of_the_next(sent: Outcome) -> None:
    assert not Scene(offered(sent, UNSENT), NOW).is_settled
    assert not Scene(offered(UNSENT, sent, UNSENT), NOW).is_settled


def test_an_agent_that_adopts_a_lease_without_a_term_counts_on_an_offer_of_its_predecessor() -> None:
    fresh = State(Myself("a"))
    not_leading = observe(fresh, facts.LeaseAdopted(LEASE_ID, Instant(NOW + 3.0), Term(0)))
    assert not Scene(not_leading, NOW).is_settled
    leads = observe(fresh, facts.LeaseAdopted(LEASE_ID, Instant(NOW + 3.0), Term(1)))
    assert Scene(leads, NOW).is_settled


def test_the_mode_binds_until_its_leader_has_turned_it_off() -> None:
    state = leading(SyncState("a", ("c",)), 'FIRST 1 ("c")', ("c",))
    off = state._replace(policy=Policy(synchronous_mode="off"))
    assert Scene(off, NOW).electorate is not None
    assert sync_steps(off, NOW) == [actions.SetSync(None)]


def test_while_an_offer_is_on_its_way_nothing_else_is_said_or_begun() -> None:
    state = leading(SyncState(), "", ())
    down = replace(state.server, phase=Phase.CRASHED, identity=None, answered=False, in_recovery=None)
    state = state._replace(server=down, crash=Crash(NOW, examined_at=NOW, end_lsn=OFFER.lsn, end_timeline=Timeline(1)))
    decision = decide(observe(state, facts.ActionStarted(actions.PutOffer(OFFER, "", 0, 5), NOW)), NOW)
    assert decision.reason == because(Code.OFFERING, lsn=OFFER.lsn)
    assert not any(isinstance(action, actions.StartPrimary | actions.ReattachLeader) for action in decision.actions)
