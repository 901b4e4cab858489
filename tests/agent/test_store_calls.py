"""What is written to the store, and what the loop knows when it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from hamgr.agent.clock import now
from hamgr.agent.store_calls import (
    cast_ballot,
    clear_request,
    grant_lease,
    move_leader,
    outcome_of,
    put_history,
    put_offer,
    put_record,
    put_roster,
    put_sync,
    release_leader,
    retake_leader,
    take_initialize,
    take_leader,
)
from hamgr.core import actions
from hamgr.core.cluster import Ballot, HistoryLine, LeaderKey, Offer, Request, SyncState, Tags
from hamgr.core.facts import ClusterSeen, LeaseGranted, LeaseTried
from hamgr.core.pipeline import Record
from hamgr.core.policy import margin_of
from hamgr.core.result import Outcome, Result
from hamgr.core.state import Lease, Myself
from hamgr.core.units import Instant, Lsn, Term, Timeline, WallTime
from hamgr.dcs.errors import StoreUnavailable
from hamgr.dcs.store import LeaseGrant, TxnOutcome
from hamgr.postgres.errors import ServerUnavailable
from tests.agent.workbench import Bench, Calls, ids

OFFER = Offer("a", Term(1), Timeline(4), Lsn(0x4000), "switchover")


@dataclass(frozen=True)
class Received:
    timeline: Timeline
    lsn: Lsn
    streaming: bool


@dataclass
class Remembering:
    """A memory whose `widen` is the test's."""

    widen: Callable[[Any], Awaitable[None]]


@pytest.fixture
async def initialized(bench: Bench) -> Bench:
    """`a` holds the key of term 1, by transactions on a store in memory."""
    await grant_lease(bench.world, actions.GrantLease(5.0))
    granted = bench.facts[-1]
    assert isinstance(granted, LeaseGranted)
    bench.state = bench.state._replace(lease=Lease(granted.lease_id, granted.deadline))
    assert (await take_initialize(bench.world, actions.TakeInitialize())).result is Result.DONE
    await bench.see_store()
    bench.facts.clear()
    return bench


def test_how_a_transaction_ended_is_how_the_action_ended() -> None:
    assert outcome_of(TxnOutcome(Result.DONE, 5)) == Outcome(Result.DONE)
    assert outcome_of(TxnOutcome(Result.REFUSED, text="taken")) == Outcome(Result.REFUSED, "compare", "taken")
    assert outcome_of(TxnOutcome(Result.UNKNOWN, text="sent")).result is Result.UNKNOWN


async def test_the_deadline_of_a_new_lease_counts_from_asking_for_it(bench: Bench) -> None:
    before = now()
    await grant_lease(bench.world, actions.GrantLease(5.0))
    granted = bench.facts[0]
    assert isinstance(granted, LeaseGranted)
    usable_s = 5.0 - bench.state.policy.margin_s
    assert before + usable_s <= granted.deadline <= now() + usable_s


async def test_the_margin_is_that_of_the_lease_as_etcd_granted_it(bench: Bench) -> None:
    bench.use_store(Calls(bench.log, grant_lease=LeaseGrant(8, 300.0, Instant(50.0))))
    await grant_lease(bench.world, actions.GrantLease(5.0))
    assert bench.facts == [LeaseGranted(8, Instant(50.0 + 300.0 - margin_of(300.0)), 300.0, 5.0)]


async def test_a_key_that_moves_is_bound_by_its_new_lease_before_anything_is_sent(
    initialized: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = initialized
    assert bench.state.cluster is not None
    old = bench.state.cluster.leader
    assert old is not None
    reattach, told = bench.store.reattach_leader, []

    async def look_and_reattach(me: str, key: LeaderKey, lease_id: int) -> TxnOutcome:
        told.extend((list(bench.link.limited_to), ids(bench.facts)))
        return await reattach(me, key, lease_id)

    monkeypatch.setattr(bench.store, "reattach_leader", look_and_reattach)
    outcome = await move_leader(bench.world, actions.MoveLeader(old, 30.0))
    assert outcome.result is Result.DONE
    tried, seen = bench.facts
    assert isinstance(tried, LeaseTried)
    assert (tried.ttl_s, tried.asked_ttl_s, tried.leader_revision) == (30.0, 30.0, old.mod_revision)
    assert told == [[(tried.deadline, tried.lease_id)], ["LeaseTried"]]
    assert isinstance(seen, ClusterSeen)
    assert seen.view.leader is not None
    assert (seen.view.leader.lease_id, seen.view.term) == (tried.lease_id, 1)


async def test_a_move_that_is_sent_again_is_sent_on_the_same_lease(initialized: Bench) -> None:
    bench = initialized
    assert bench.state.cluster is not None
    old = bench.state.cluster.leader
    assert old is not None
    lease_id = (await bench.store.grant_lease(30.0)).lease_id
    for _ in range(2):
        assert (await move_leader(bench.world, actions.MoveLeader(old, 30.0, lease_id))).result is Result.DONE
    assert (ids(bench.facts), bench.link.limited_to) == (["ClusterSeen"] * 2, [])
    other = (await bench.store.grant_lease(30.0)).lease_id
    assert (await move_leader(bench.world, actions.MoveLeader(old, 30.0, other))).code == "compare"


async def test_after_a_change_of_the_leadership_the_view_is_known_before_its_end(initialized: Bench) -> None:
    bench = initialized
    assert bench.state.cluster is not None
    assert bench.state.cluster.is_led_by("a")
    leader = bench.state.cluster.leader
    assert leader is not None
    outcome = await release_leader(bench.world, actions.ReleaseLeader(Term(1), leader.mod_revision, OFFER))
    assert outcome.result is Result.DONE
    seen = bench.facts[0]
    assert isinstance(seen, ClusterSeen)
    assert seen.view.leader is None
    assert seen.view.request is not None
    assert seen.view.request.offer == OFFER


async def test_a_change_that_cannot_be_read_back_is_of_unknown_end(bench: Bench) -> None:
    bench.use_store(Calls(bench.log, take_initialize=TxnOutcome(Result.DONE, 5), read=StoreUnavailable("no answer")))
    outcome = await take_initialize(bench.world, actions.TakeInitialize())
    assert (outcome.result, outcome.code) == (Result.UNKNOWN, "unknown")
    assert bench.facts == []


async def test_the_lead_is_not_taken_before_the_store_was_read(bench: Bench) -> None:
    bench.state = bench.state._replace(cluster=None)
    outcome = await take_leader(bench.world, actions.TakeLeader(Term(4), None, 0, 0, ()))
    assert (outcome.result, outcome.code) == (Result.REFUSED, "no_view")


async def test_the_lead_is_taken_from_a_view_and_refused_on_an_older_one(initialized: Bench) -> None:
    bench = initialized
    assert bench.state.cluster is not None
    assert bench.state.cluster.leader is not None
    await release_leader(bench.world, actions.ReleaseLeader(Term(1), bench.state.cluster.leader.mod_revision))
    await bench.see_store()
    take = actions.TakeLeader(Term(2), None, 0, bench.state.cluster.config_revision, ())
    assert (await take_leader(bench.world, take)).result is Result.DONE
    taken = bench.facts[-1]
    assert isinstance(taken, ClusterSeen)
    assert taken.view.leader is not None
    await release_leader(bench.world, actions.ReleaseLeader(Term(2), taken.view.leader.mod_revision))
    again = await take_leader(bench.world, take)
    assert (again.result, again.code) == (Result.REFUSED, "compare")


async def vacant(bench: Bench, electorate: SyncState) -> None:
    """`a` has given up a cluster with that electorate and a roster."""
    assert (await put_sync(bench.world, actions.PutSync(electorate, 0))).result is Result.DONE
    assert (await bench.store.put_roster("a", {"a": "http://a"}, 0)).is_done
    await release_leader(bench.world, actions.ReleaseLeader(Term(1)))
    await bench.see_store()


async def test_the_lead_is_taken_on_the_roster_and_electorate_that_were_judged(initialized: Bench) -> None:
    bench = initialized
    await vacant(bench, SyncState("a", ("b",), 0))
    view = bench.state.cluster
    assert view is not None
    assert view.sync is not None
    roster, sync = view.roster_revision, view.sync.mod_revision
    take = actions.TakeLeader(Term(2), None, 0, view.config_revision, (), roster, sync)
    for stale in (replace(take, roster_revision=roster - 1), replace(take, sync_revision=sync - 1)):
        assert (await take_leader(bench.world, stale)).result is Result.REFUSED
    assert (await take_leader(bench.world, take)).result is Result.DONE
    seen = bench.facts[-1]
    assert isinstance(seen, ClusterSeen)
    assert seen.view.sync is not None
    assert (seen.view.sync.leader, seen.view.sync.members) == ("a", ())


async def test_an_electorate_that_was_written_is_known_before_its_end(initialized: Bench) -> None:
    bench = initialized
    await put_sync(bench.world, actions.PutSync(SyncState("a", ("b",), 0), 0))
    seen = bench.facts[-1]
    assert isinstance(seen, ClusterSeen)
    assert seen.view.sync is not None
    assert seen.view.sync.members == ("b",)
    again = await put_sync(bench.world, actions.PutSync(SyncState("a", ("c",), 0), 0))
    assert (again.result, again.code) == (Result.REFUSED, "compare")


async def test_a_lead_is_retaken_in_its_term_on_the_roster_it_was_renewed_by(initialized: Bench) -> None:
    bench = initialized
    await vacant(bench, SyncState("a"))
    view = bench.state.cluster
    assert view is not None
    retake = actions.RetakeLeader(Term(1), view.term_revision, view.roster_revision)
    stale = replace(retake, roster_revision=view.roster_revision - 1)
    assert (await retake_leader(bench.world, stale)).result is Result.REFUSED
    assert (await retake_leader(bench.world, retake)).result is Result.DONE
    seen = bench.facts[-1]
    assert isinstance(seen, ClusterSeen)
    assert (seen.view.is_led_by("a"), seen.view.term) == (True, 1)


async def test_an_offer_names_its_holder_and_successor(initialized: Bench) -> None:
    bench = initialized
    assert bench.state.cluster is not None
    assert bench.state.cluster.leader is not None
    action = actions.PutOffer(OFFER, "b", 0, bench.state.cluster.leader.mod_revision)
    assert (await put_offer(bench.world, action)).result is Result.DONE
    seen = bench.facts[0]
    assert isinstance(seen, ClusterSeen)
    assert seen.view.request is not None
    assert (seen.view.request.leader, seen.view.request.candidate) == ("a", "b")


# -- ballots ---------------------------------------------------------------------------------------------------


def receiving(bench: Bench, *seen: Received) -> None:
    """What is received, one look after another; the last for ever."""
    looks = list(seen)
    bench.server.answers["received"] = lambda: looks.pop(0) if len(looks) > 1 else looks[0]

    def put_ballot(ballot: Ballot, lease_id: int, leader_revision: int) -> Ballot | None:
        return None if leader_revision else replace(ballot, mod_revision=lease_id)

    bench.use_store(Calls(bench.log, put_ballot=put_ballot))


async def test_a_vote_in_an_election_that_is_over_is_refused(bench: Bench) -> None:
    receiving(bench, Received(Timeline(4), Lsn(0x4100), streaming=False))
    outcome = await cast_ballot(bench.world, actions.CastBallot(Term(4), Lsn(0), leader_revision=9))
    assert outcome.result is Result.REFUSED


async def test_a_ballot_holds_a_fresh_measurement_and_hangs_on_the_lease(bench: Bench) -> None:
    bench.state = bench.state._replace(me=Myself("a", tags=Tags(failover_priority=3)))
    receiving(bench, Received(Timeline(4), Lsn(0x4100), streaming=False))
    ballot = (await cast_ballot(bench.world, actions.CastBallot(Term(4), Lsn(0)))).value
    assert ballot == Ballot("a", Term(4), Timeline(4), Lsn(0x4100), 3, mod_revision=bench.world.lease_id)


async def test_a_ballot_waits_for_offered_wal_while_it_streams_in(bench: Bench) -> None:
    looks = [Received(Timeline(4), Lsn(lsn), streaming=True) for lsn in (0x4000, 0x4080, 0x4100, 0x4200)]
    receiving(bench, *looks)
    ballot = (await cast_ballot(bench.world, actions.CastBallot(Term(4), Lsn(0x4100)))).value
    assert ballot.lsn == Lsn(0x4100)
    assert bench.log == ["received"] * 3 + ["put_ballot"]


async def test_a_ballot_does_not_wait_for_wal_that_nobody_sends(bench: Bench) -> None:
    receiving(bench, Received(Timeline(4), Lsn(0x4000), streaming=False))
    ballot = (await cast_ballot(bench.world, actions.CastBallot(Term(4), Lsn(0x4100)))).value
    assert ballot.lsn == Lsn(0x4000)
    assert bench.log == ["received", "put_ballot"]


async def test_a_ballot_stops_waiting_when_streaming_ends(bench: Bench) -> None:
    receiving(bench, *(Received(Timeline(4), Lsn(0x4000), streaming=streams) for streams in (True, False)))
    await cast_ballot(bench.world, actions.CastBallot(Term(4), Lsn(0x4100)))
    assert bench.log == ["received", "received", "put_ballot"]


async def test_a_ballot_does_not_wait_for_ever(bench: Bench) -> None:
    receiving(bench, Received(Timeline(4), Lsn(0x4000), streaming=True))
    ballot = (await cast_ballot(bench.world, actions.CastBallot(Term(4), Lsn(0x4100)))).value
    assert ballot.lsn == Lsn(0x4000)


async def test_a_ballot_is_measured_after_the_receiver_has_ended(bench: Bench) -> None:
    receiving(bench, Received(Timeline(4), Lsn(0x4000), streaming=False))
    await cast_ballot(bench.world, actions.CastBallot(Term(4), Lsn(0), stops_receiver=True))
    assert bench.log == ["probe", "stop_receiver", "received", "put_ballot"]


async def test_there_is_no_ballot_while_the_receiver_runs(bench: Bench) -> None:
    receiving(bench, Received(Timeline(4), Lsn(0x4000), streaming=True))
    bench.server.answers["stop_receiver"] = ServerUnavailable("the WAL receiver does not end")
    with pytest.raises(ServerUnavailable):
        await cast_ballot(bench.world, actions.CastBallot(Term(4), Lsn(0), stops_receiver=True))
    assert bench.log == ["probe", "stop_receiver"]


# -- records ---------------------------------------------------------------------------------------------------


async def test_a_refusal_is_kept_for_whoever_waits_for_the_request_before_it_is_removed(bench: Bench) -> None:
    kept: list[Any] = []
    bench.use_store(
        Calls(bench.log, clear_request=lambda _at: kept.append(dict(bench.world.refused)) or TxnOutcome(Result.DONE))
    )
    await clear_request(bench.world, actions.ClearRequest(12, "b is tagged nofailover"))
    assert kept == [{12: "b is tagged nofailover"}]


async def test_a_record_is_stamped_written_and_told(bench: Bench) -> None:
    record = Record(Term(2), "switchover", "a", "b", WallTime(0.0), Timeline(5), Lsn(0x5000), 0, False, ())
    await put_record(bench.world, actions.PutRecord(record))
    written = await bench.store.list_records()
    assert [entry["term"] for entry in written] == [2]
    assert [told.term for told in bench.records] == [2]
    assert bench.records[0].at > 0


async def test_only_the_last_line_of_the_history_gets_a_time_and_only_if_it_has_none(bench: Bench) -> None:
    old = HistoryLine(Timeline(1), Lsn(8), "no recovery target specified", "", "b")
    stamped = replace(old, timestamp="2026-01-01T00:00:00.000+00:00")
    given: list[tuple[HistoryLine, ...]] = []
    bench.use_store(
        Calls(bench.log, put_history=lambda _me, lines, _at: given.append(lines) or TxnOutcome(Result.DONE))
    )
    await put_history(bench.world, actions.PutHistory((old, old), 0))
    await put_history(bench.world, actions.PutHistory((old, stamped), 0))
    assert [bool(line.timestamp) for line in given[0]] == [False, True]
    assert given[1] == (old, stamped)


async def test_a_request_of_the_store_is_untouched_by_what_was_refused_elsewhere(bench: Bench) -> None:
    written = await bench.store.put_request(Request(leader="a", candidate="b"), 0)
    outcome = await clear_request(bench.world, actions.ClearRequest(written.revision + 1, "another"))
    assert outcome.result is Result.REFUSED
    assert (await bench.store.read()).request is not None


async def test_a_roster_is_remembered_here_before_it_is_in_etcd(initialized: Bench) -> None:
    """Else an agent that starts again while etcd is gone might not ask a member that may campaign."""
    bench = initialized
    kept: list[Any] = []

    async def unseen(roster: Any) -> None:
        kept.append((roster, (await bench.store.read()).roster))

    bench.world.memory = Remembering(unseen)  # type: ignore[assignment]
    assert (await put_roster(bench.world, actions.PutRoster({"a": "http://a"}, 0))).result is Result.DONE
    assert kept == [({"a": "http://a"}, {})]
    assert (await bench.store.read()).roster == {"a": "http://a"}


async def test_a_roster_that_cannot_be_remembered_is_not_entered(initialized: Bench) -> None:
    bench = initialized
    bench.memory.answers["widen"] = ServerUnavailable("the disk hangs")
    with pytest.raises(ServerUnavailable):
        await put_roster(bench.world, actions.PutRoster({"a": "http://a"}, 0))
    assert (await bench.store.read()).roster == {}


def test_an_end_that_nobody_knows_is_not_taken_for_a_refusal() -> None:
    assert outcome_of(TxnOutcome(Result.UNKNOWN, text="no answer")).code == "unknown"
    assert outcome_of(TxnOutcome(Result.REFUSED)).code == "compare"
    assert outcome_of(TxnOutcome(Result.DONE, 7)).code == ""


async def test_whoever_follows_an_agent_that_gave_the_lead_away_does_not_lead_on_by_the_page(bench: Bench) -> None:
    await release_leader(bench.world, actions.ReleaseLeader(Term(4)))
    assert "forget term" in bench.log
    bench.log.clear()
    offer = Offer("a", Term(4), Timeline(1), Lsn(99), "shutdown")
    await put_offer(bench.world, actions.PutOffer(offer, "", 0))
    assert "forget term" in bench.log
