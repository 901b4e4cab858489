"""What the store promises, of real etcd and of the fake alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from hamgr.core.cluster import Ballot, ClusterView, HistoryLine, Member, Offer, Request, Status, SyncState
from hamgr.core.result import Result
from hamgr.core.units import Lsn, Term, Timeline
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.errors import LeaseExpired
from hamgr.dcs.etcd import EtcdStore
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Gap, Put, Txn
from hamgr.dcs.store import Store, ViewChange
from hamgr.dcs.transactions import LeaderClaim
from hamgr.dcs.view import NO_MEMBER
from tests.dcs.etcd_members import EtcdCluster
from tests.dcs.fake import FakeClient, FakeEtcd

Client = EtcdClient | FakeClient


@pytest.fixture(params=["real", "fake"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[], Client]]:
    """Makes clients of one and the same store."""
    made: list[Client] = []
    fake = FakeEtcd()
    etcd: EtcdCluster | None = request.getfixturevalue("shared_etcd") if request.param == "real" else None

    def connect() -> Client:
        made.append(EtcdClient(etcd.config()) if etcd else FakeClient(fake))
        return made[-1]

    yield connect
    for client in made:
        await client.close()


@pytest.fixture
def store(connect: Callable[[], Client], keys: ScopeKeys) -> EtcdStore:
    return EtcdStore(connect(), keys)


async def leading(store: Store, name: str = "a") -> int:
    """Make `name` the leader of a finished cluster; its lease."""
    grant = await store.grant_lease(30)
    assert (await store.take_initialize(name, grant.lease_id)).is_done
    assert (await store.finish_initialize(name, "7001", {"ttl": 5})).is_done
    return grant.lease_id


def claim_of(view: ClusterView, me: str, lease_id: int, **changes: object) -> LeaderClaim:
    claim = LeaderClaim(
        me=me,
        lease_id=lease_id,
        term=Term(view.term + 1),
        term_revision=view.term_revision,
        from_holder=view.leader,
        request_revision=view.request.mod_revision if view.request else 0,
        config_revision=view.config_revision,
        ballots={ballot.name: ballot.mod_revision for ballot in view.ballots},
    )
    return replace(claim, **changes)  # type: ignore[arg-type]


async def next_view(views: AsyncIterator[ViewChange]) -> ClusterView:
    async with asyncio.timeout(20):
        while not isinstance(change := await anext(views), ClusterView):
            assert not isinstance(change, Gap), change
        return change


async def test_keys_of_an_empty_scope_make_an_empty_view(store: EtcdStore) -> None:
    view = await store.read()
    assert (view.leader, view.term, view.members, view.config, view.problems) == (None, 0, (), None, ())


async def test_of_two_initializers_exactly_one_leads_in_term_one(
    connect: Callable[[], Client], keys: ScopeKeys
) -> None:
    stores = {name: EtcdStore(connect(), keys) for name in "abcd"}
    leases = {name: (await store.grant_lease(30)).lease_id for name, store in stores.items()}
    outcomes = await asyncio.gather(*(store.take_initialize(name, leases[name]) for name, store in stores.items()))
    assert sorted(outcome.result.value for outcome in outcomes) == ["done", "refused", "refused", "refused"]
    winner = next(name for name, outcome in zip(stores, outcomes, strict=True) if outcome.is_done)
    view = await stores["a"].read()
    assert view.is_led_by(winner)
    assert (view.term, view.system_identifier, view.leader.lease_id) == (1, "", leases[winner])  # type: ignore[union-attr]


async def test_initialize_and_leader_vanish_with_the_initializers_lease(store: EtcdStore) -> None:
    grant = await store.grant_lease(30)
    await store.take_initialize("a", grant.lease_id)
    await store.revoke_lease(grant.lease_id)
    view = await store.read()
    assert (view.leader, view.initialize_revision, view.term) == (None, 0, 1)


async def test_a_finished_cluster_outlives_its_initializer(store: EtcdStore) -> None:
    lease_id = await leading(store)
    await store.revoke_lease(lease_id)
    view = await store.read()
    assert (view.system_identifier, view.leader) == ("7001", None)
    assert view.config is not None
    assert view.config.values == {"ttl": 5}


async def test_finishing_keeps_a_configuration_that_is_there(store: EtcdStore) -> None:
    assert (await store.put_config({"ttl": 9}, 0)).is_done
    await leading(store)
    config = (await store.read()).config
    assert config is not None
    assert config.values == {"ttl": 9}


async def test_only_the_leader_finishes_the_cluster(store: EtcdStore) -> None:
    outcome = await store.finish_initialize("a", "7001", {})
    assert outcome.result is Result.REFUSED
    assert (await store.read()).system_identifier == ""


async def test_of_two_claims_on_a_vacant_lead_exactly_one_is_done(
    connect: Callable[[], Client], keys: ScopeKeys
) -> None:
    first, second = EtcdStore(connect(), keys), EtcdStore(connect(), keys)
    await first.revoke_lease(await leading(first, "old"))
    view = await first.read()
    leases = [(await first.grant_lease(30)).lease_id, (await first.grant_lease(30)).lease_id]
    outcomes = await asyncio.gather(
        first.take_leader(claim_of(view, "b", leases[0])), second.take_leader(claim_of(view, "c", leases[1]))
    )
    assert sorted(outcome.result.value for outcome in outcomes) == ["done", "refused"]
    after = await first.read()
    assert after.term == view.term + 1
    assert after.is_led_by("b" if outcomes[0].is_done else "c")


async def test_a_claim_is_refused_when_anything_it_compared_has_changed(store: EtcdStore) -> None:
    await store.revoke_lease(await leading(store, "old"))
    lease_id = (await store.grant_lease(30)).lease_id
    ballot = await store.put_ballot(Ballot("b", Term(2), Timeline(1), Lsn(5), 1), lease_id, 0)
    await store.put_request(Request(candidate="b"), 0)
    view = await store.read()
    claim = claim_of(view, "b", lease_id)
    stale = (
        replace(claim, term_revision=claim.term_revision - 1),
        replace(claim, request_revision=0),
        replace(claim, config_revision=0),
        replace(claim, ballots={"b": ballot.mod_revision - 1}),
        replace(claim, ballots={"b": ballot.mod_revision, "c": 5}),
        replace(claim, ballots={"b": 0}),
    )
    for wrong in stale:
        assert (await store.take_leader(wrong)).result is Result.REFUSED
    assert (await store.take_leader(replace(claim, ballots={**claim.ballots, "c": 0}))).is_done


async def test_a_claim_that_is_done_clears_ballots_and_the_request_when_told(store: EtcdStore) -> None:
    await store.revoke_lease(await leading(store, "old"))
    lease_id = (await store.grant_lease(30)).lease_id
    await store.put_ballot(Ballot("b", Term(2), Timeline(1), Lsn(5), 1), lease_id, 0)
    await store.put_request(Request(candidate="b"), 0)
    outcome = await store.take_leader(claim_of(await store.read(), "b", lease_id, delete_request=True))
    view = await store.read()
    assert (view.ballots, view.request, view.term) == ((), None, 2)
    assert view.leader is not None
    assert view.leader.mod_revision == outcome.revision == view.term_revision


async def test_claiming_twice_is_done_twice_and_counts_once(store: EtcdStore) -> None:
    await store.revoke_lease(await leading(store, "old"))
    lease_id = (await store.grant_lease(30)).lease_id
    claim = claim_of(await store.read(), "b", lease_id)
    assert [(await store.take_leader(claim)).is_done for _ in range(2)] == [True, True]
    assert (await store.read()).term == claim.term


async def test_an_offer_is_taken_from_its_holder_without_a_vacancy(store: EtcdStore) -> None:
    held_by = await leading(store, "a")
    await store.put_request(Request(leader="a", candidate="b"), 0)
    view = await store.read()
    assert view.request is not None
    offer = Offer("a", view.term, Timeline(1), Lsn(99), "switchover", {"detect": 0.5})
    assert (await store.put_offer("a", replace(view.request, offer=offer))).is_done
    view = await store.read()
    assert view.request is not None
    assert view.request.offer == offer
    lease_id = (await store.grant_lease(30)).lease_id
    assert (await store.take_leader(claim_of(view, "b", lease_id))).is_done
    assert (await store.withdraw_offer("a", held_by, view.request.mod_revision)).result is Result.REFUSED
    assert (await store.read()).is_led_by("b")


async def test_a_withdrawn_offer_can_no_longer_be_taken(store: EtcdStore) -> None:
    held_by = await leading(store, "a")
    view = await store.read()
    offer = Offer("a", view.term, Timeline(1), Lsn(99), "switchover")
    assert (await store.put_offer("a", Request(offer=offer))).is_done
    view = await store.read()
    assert view.request is not None
    assert (await store.withdraw_offer("a", held_by, view.request.mod_revision)).is_done
    lease_id = (await store.grant_lease(30)).lease_id
    assert (await store.take_leader(claim_of(view, "b", lease_id))).result is Result.REFUSED


async def test_reattaching_moves_the_leader_key_and_keeps_the_term(store: EtcdStore) -> None:
    old_lease = await leading(store, "a")
    view = await store.read()
    assert view.leader is not None
    new_lease = (await store.grant_lease(30)).lease_id
    assert (await store.reattach_leader("a", view.leader, new_lease)).is_done
    await store.revoke_lease(old_lease)
    after = await store.read()
    assert after.leader is not None
    assert (after.leader.name, after.leader.lease_id, after.term) == ("a", new_lease, view.term)
    assert (await store.reattach_leader("a", view.leader, old_lease)).result is Result.REFUSED


async def test_an_expired_lead_is_retaken_only_while_term_and_roster_stand(store: EtcdStore) -> None:
    lease_id = await leading(store, "a")
    await store.put_roster("a", {"a": "http://a", "b": "http://b"}, 0)
    view = await store.read()
    await store.revoke_lease(lease_id)
    lease_id = (await store.grant_lease(30)).lease_id
    roster = view.roster_revision
    assert (await store.retake_leader("a", lease_id, view.term_revision, roster - 1)).result is Result.REFUSED
    assert (await store.retake_leader("a", lease_id, view.term_revision - 1, roster)).result is Result.REFUSED
    assert (await store.retake_leader("a", lease_id, view.term_revision, roster)).is_done
    after = await store.read()
    assert (after.is_led_by("a"), after.term) == (True, view.term)


async def test_a_retaken_lead_has_its_term_still_and_no_ballot_of_the_time_between(store: EtcdStore) -> None:
    await store.revoke_lease(await leading(store, "a"))
    mine, voter = (await store.grant_lease(30)).lease_id, (await store.grant_lease(30)).lease_id
    await store.put_ballot(Ballot("b", Term(2), Timeline(1), Lsn(5), 1), voter, 0)
    view = await store.read()
    assert (await store.retake_leader("a", mine, view.term_revision, view.roster_revision)).is_done
    assert await store.put_ballot(Ballot("b", Term(2), Timeline(1), Lsn(5), 1), voter, 0) is None
    after = await store.read()
    assert (after.ballots, after.term) == ((), view.term)


async def test_a_lead_of_a_later_term_is_not_the_one_that_was_to_be_retaken(store: EtcdStore) -> None:
    old = await leading(store, "a")
    earlier = await store.read()
    await store.revoke_lease(old)
    lease_id = (await store.grant_lease(30)).lease_id
    assert (await store.take_leader(claim_of(await store.read(), "a", lease_id))).is_done
    outcome = await store.retake_leader("a", lease_id, earlier.term_revision, earlier.roster_revision)
    assert outcome.result is Result.REFUSED


async def test_a_lead_is_not_retaken_from_whoever_took_it(store: EtcdStore) -> None:
    await store.revoke_lease(await leading(store, "a"))
    view = await store.read()
    mine, other = (await store.grant_lease(30)).lease_id, (await store.grant_lease(30)).lease_id
    assert (await store.take_leader(claim_of(view, "b", other))).is_done
    outcome = await store.retake_leader("a", mine, view.term_revision, view.roster_revision)
    assert outcome.result is Result.REFUSED
    assert (await store.read()).is_led_by("b")


async def test_a_claim_on_a_roster_is_refused_once_the_roster_has_changed(store: EtcdStore) -> None:
    old = await leading(store, "old")
    await store.put_roster("old", {"b": "http://b"}, 0)
    before = await store.read()
    await store.put_roster("old", {"b": "http://b", "c": "http://c"}, before.roster_revision)
    await store.revoke_lease(old)
    view = await store.read()
    lease_id = (await store.grant_lease(30)).lease_id
    stale = claim_of(view, "b", lease_id, roster_revision=before.roster_revision)
    assert (await store.take_leader(stale)).result is Result.REFUSED
    assert (await store.take_leader(replace(stale, roster_revision=view.roster_revision))).is_done


async def test_a_claim_on_an_electorate_is_refused_once_it_has_changed_and_leaves_the_winner_alone(
    store: EtcdStore,
) -> None:
    old = await leading(store, "old")
    first = await store.put_sync("old", SyncState("old", ("b",), 0), 0)
    second = await store.put_sync("old", SyncState("old", ("b", "c"), 1), first.revision)
    await store.revoke_lease(old)
    view = await store.read()
    lease_id = (await store.grant_lease(30)).lease_id
    for stale in (0, first.revision):
        claim = claim_of(view, "b", lease_id, sync_revision=stale)
        assert (await store.take_leader(claim)).result is Result.REFUSED
    taken = await store.take_leader(claim_of(view, "b", lease_id, sync_revision=second.revision))
    assert taken.is_done
    assert (await store.read()).sync == SyncState("b", (), 0, taken.revision)


async def test_without_synchronous_mode_a_claim_leaves_the_electorate_as_it_is(store: EtcdStore) -> None:
    old = await leading(store, "old")
    written = await store.put_sync("old", SyncState("old", ("b",), 0), 0)
    await store.revoke_lease(old)
    lease_id = (await store.grant_lease(30)).lease_id
    assert (await store.take_leader(claim_of(await store.read(), "c", lease_id))).is_done
    assert (await store.read()).sync == SyncState("old", ("b",), 0, written.revision)


async def test_release_gives_up_the_own_term_only_and_says_which(store: EtcdStore) -> None:
    await leading(store, "a")
    assert (await store.release_leader("a", Term(9))).result is Result.REFUSED
    assert (await store.read()).released_term == 0
    assert (await store.release_leader("a", Term(1))).is_done
    view = await store.read()
    assert (view.leader, view.released_term) == (None, 1)


async def test_a_lead_that_merely_expired_was_not_released(store: EtcdStore) -> None:
    await store.revoke_lease(await leading(store, "a"))
    assert (await store.read()).released_term == 0


async def test_a_gone_lease_refuses_a_lead_and_a_member(store: EtcdStore) -> None:
    lease_id = await leading(store, "a")
    await store.revoke_lease(lease_id)
    view = await store.read()
    assert (await store.take_leader(claim_of(view, "a", lease_id))).result is Result.REFUSED
    with pytest.raises(LeaseExpired):
        await store.put_member(Member("a"), lease_id)


async def test_only_the_leader_writes_status_history_roster_and_sync(store: EtcdStore) -> None:
    await leading(store, "a")
    line = HistoryLine(Timeline(1), Lsn(7), "no recovery target specified", "2026-01-01T00:00:00+00:00", "a")
    for me, result in (("b", Result.REFUSED), ("a", Result.DONE)):
        outcomes = (
            await store.put_status(Status(Lsn(7), Timeline(1), {"b": Lsn(6)}), me),
            await store.put_history(me, (line,), 0),
            await store.put_roster(me, {"a": "http://a"}, 0),
            await store.put_sync(me, SyncState("a", ("b", "c"), 1), 0),
        )
        assert {outcome.result for outcome in outcomes} == {result}
    view = await store.read()
    assert (view.status.optime, view.status.slots, view.history) == (7, {"b": 6}, (line,))
    assert view.sync is not None
    assert (view.roster, view.sync.members, view.sync.quorum) == ({"a": "http://a"}, ("b", "c"), 1)
    assert (await store.put_roster("a", {}, 0)).result is Result.REFUSED


async def test_requests_and_configuration_are_written_over_the_revision_that_was_read(store: EtcdStore) -> None:
    first = await store.put_request(Request(candidate="b"), 0)
    assert (await store.put_request(Request(candidate="c"), 0)).result is Result.REFUSED
    assert (await store.put_request(Request(candidate="c"), first.revision)).is_done
    assert (await store.clear_request(first.revision)).result is Result.REFUSED
    view = await store.read()
    assert view.request is not None
    assert view.request.candidate == "c"
    assert (await store.clear_request(view.request.mod_revision)).is_done
    config = await store.put_config({"ttl": 5}, 0)
    assert (await store.put_config({"ttl": 6}, 0)).result is Result.REFUSED
    assert (await store.put_config({"ttl": 6}, config.revision)).is_done


async def test_records_are_listed_newest_first_and_pruned(store: EtcdStore) -> None:
    for term in range(1, 13):
        await store.put_record(Term(term), {"term": term}, keep=11)
    assert [record["term"] for record in await store.list_records()] == list(range(12, 1, -1))
    assert [record["term"] for record in await store.list_records(2)] == [12, 11]


async def test_records_are_no_part_of_the_view(store: EtcdStore) -> None:
    before = await store.read()
    views = store.watch(before.revision, 5.0)
    await store.put_record(Term(1), {"term": 1})
    await store.put_request(Request(candidate="b"), 0)
    view = await next_view(views)
    assert view.request is not None
    assert (await store.read()).problems == ()
    await views.aclose()  # type: ignore[attr-defined]


async def test_a_watch_yields_what_a_read_would_see(store: EtcdStore) -> None:
    views = store.watch((await store.read()).revision, 5.0)
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: store.put_config({"ttl": 5}, 0),
        lambda: leading(store, "a"),
        lambda: store.put_request(Request(leader="a"), 0),
        lambda: store.release_leader("a", Term(1)),
    ]
    for change in changes:
        await change()
        expected = await store.read()
        seen = await next_view(views)
        while seen.revision < expected.revision:
            seen = await next_view(views)
        assert seen._replace(seen_at=expected.seen_at) == expected
    await views.aclose()  # type: ignore[attr-defined]


async def test_a_watch_from_another_revision_than_the_last_read_reports_a_gap(store: EtcdStore) -> None:
    view = await store.read()
    assert [type(change) async for change in store.watch(view.revision - 1, 5.0)] == [Gap]


async def test_garbage_in_any_key_hides_nothing_else(connect: Callable[[], Client], keys: ScopeKeys) -> None:
    client = connect()
    store = EtcdStore(client, keys)
    lease_id = await leading(store, "a")
    await store.put_member(Member("a", state="running"), lease_id)
    names = ("config", "status", "failover", "sync", "history", "failsafe", "released", "members/b", "ballots/b")
    await client.txn(Txn(then=tuple(Put(keys.prefix + name, '{"lsn": [') for name in names)))
    view = await store.read()
    assert sorted(problem.split(":")[0] for problem in view.problems) == sorted(keys.prefix + name for name in names)
    assert view.is_led_by("a")
    assert [member.name for member in view.members] == ["a"]
    assert view.request is not None
    assert (await store.clear_request(view.request.mod_revision)).is_done
    assert view.sync is not None
    assert (view.sync.leader, view.sync.members) == (NO_MEMBER, ()), "it binds, and elects nobody"
    assert (await store.put_sync("a", SyncState("a"), view.sync.mod_revision)).is_done


async def test_remove_leaves_nothing(store: EtcdStore, connect: Callable[[], Client], keys: ScopeKeys) -> None:
    neighbour = EtcdStore(connect(), ScopeKeys(keys.prefix[:-1] + "2/"))
    await neighbour.put_config({"ttl": 5}, 0)
    await leading(store, "a")
    await store.put_record(Term(1), {})
    await store.delete_all()
    view = await store.read()
    assert (view.leader, view.term, view.config, await store.list_records()) == (None, 0, None, ())
    assert (await neighbour.read()).config is not None


async def test_a_withdrawal_leaves_neither_ballots_nor_room_for_a_late_copy_of_the_offer(store: EtcdStore) -> None:
    held_by = await leading(store, "a")
    lease_id = (await store.grant_lease(30)).lease_id
    before = await store.read()
    assert before.leader is not None
    offer = Request(offer=Offer("a", before.term, Timeline(1), Lsn(99), "server_crashed"))
    assert (await store.put_offer("a", offer, before.leader.mod_revision)).is_done
    vote, held = Ballot("b", Term(before.term + 1), Timeline(1), Lsn(99), 1), before.leader.mod_revision
    assert await store.put_ballot(vote, lease_id, held) is not None
    view = await store.read()
    assert view.request is not None
    assert (await store.withdraw_offer("a", held_by, view.request.mod_revision)).is_done
    assert await store.put_ballot(vote, lease_id, held) is None
    assert (await store.read()).ballots == ()
    assert (await store.put_offer("a", offer, before.leader.mod_revision)).result is Result.REFUSED
    assert (await store.read()).request is None
