"""Declared logical slots are made once; consumers wait for whoever may be elected; what is lost is not hidden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.leader import primary_server
from hamgr.core import actions, facts
from hamgr.core.cluster import ClusterView, LeaderKey, Member, Status, SyncState, Tags
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.policy import Policy
from hamgr.core.result import Outcome, Result
from hamgr.core.server import ServerView, Walsender
from hamgr.core.state import Lease, Myself, State
from hamgr.core.units import Instant, Lsn, Term, Timeline

NOW = Instant(100.0)
LEASE_ID = 7
DECLARED = Policy(logical_slots=("cdc",), syncs_slots=True)
OLD = Timeline(1)
NEW = Timeline(2)


def member(name: str, **changes: Any) -> Member:
    address = f"postgres://{name}.host:5432/postgres"
    return Member(name, address, f"http://{name}:8008/patroni", "running")._replace(**changes)


def seen(leader: str, **changes: Any) -> ClusterView:
    known = ClusterView(
        revision=20,
        seen_at=NOW,
        system_identifier="s",
        leader=LeaderKey(leader, LEASE_ID if leader == "a" else LEASE_ID + 1, 5),
        term=Term(2),
        term_revision=5,
        members=tuple(member(name) for name in "abc"),
        roster=dict.fromkeys("abc", ""),
        roster_revision=6,
    )
    return known._replace(**changes)


def primary(**changes: Any) -> ServerView:
    """`a`, with slots for `b` and `c`, which stream."""
    senders = tuple(Walsender(name, "", "streaming", "async", 0, "replicator", Lsn(900)) for name in "bc")
    known = primary_server(
        NOW,
        timeline=NEW,
        walsenders=senders,
        slots={"b": Lsn(900), "c": Lsn(900)},
        makes_failover_slots=True,
    )
    return replace(known, **changes)


def replica(**changes: Any) -> ServerView:
    known = {"in_recovery": True, "walsenders": (), "slots": {}, "streaming": True, "received_lsn": Lsn(1000)}
    return primary(**{**known, **changes})


def leading(server: ServerView, view: ClusterView | None = None, policy: Policy = DECLARED) -> State:
    """`a` leads in term 2 on a new timeline."""
    return State(
        Myself("a"),
        policy,
        cluster=view or seen("a"),
        lease=Lease(LEASE_ID, Instant(NOW + 4.0), Term(2)),
        server=server,
        verified_term=Term(2),
        verified_at=NOW,
        slots_ensured_at=Instant(NOW - 2.0),
    )


def following(server: ServerView, view: ClusterView | None = None, policy: Policy = DECLARED) -> State:
    """`a` is a replica of `b`."""
    return State(
        Myself("a"),
        policy,
        cluster=view or seen("b"),
        lease=Lease(LEASE_ID, Instant(NOW + 4.0)),
        server=server,
    )


def wanted(state: State, kind: type, at: Instant = NOW) -> Any:
    found = [action for action in decide(state, at).actions if isinstance(action, kind)]
    return found[0] if found else None


def statuses(slots: Mapping[str, int], lost: Mapping[str, int] | None = None, timeline: Timeline = OLD) -> Status:
    known = {name: Lsn(at) for name, at in slots.items()}
    return Status(Lsn(1000), timeline, known, lost_slots={name: Lsn(at) for name, at in (lost or {}).items()})


# -- made once -------------------------------------------------------------------------------------------------


def test_declared_slot_that_nobody_had_is_made() -> None:
    assert wanted(leading(primary()), actions.EnsureSlots) == actions.EnsureSlots(("b", "c"), ("cdc",))


def test_slot_is_not_made_by_a_server_that_cannot_or_where_it_is() -> None:
    cannot = leading(primary(makes_failover_slots=False))
    has_it = leading(primary(failover_slots={"cdc": Lsn(5)}))
    for state in (cannot, has_it):
        assert wanted(state, actions.EnsureSlots) is None
        later = state._replace(slots_ensured_at=None)
        assert wanted(later, actions.EnsureSlots) == actions.EnsureSlots(("b", "c"))


def test_slot_that_cannot_be_made_is_not_tried_each_second() -> None:
    state = leading(primary())
    action = wanted(state, actions.EnsureSlots)
    refused = Outcome(Result.REFUSED, "refused", "no such database")
    state = observe(observe(state, facts.ActionStarted(action, NOW)), facts.ActionEnded(action, refused, NOW))
    for passed, due in ((8.0, False), (31.0, True)):
        at = Instant(NOW + passed)
        lasting = state._replace(lease=replace(state.lease, deadline=Instant(at + 4.0)))
        assert (wanted(lasting, actions.EnsureSlots, at) is not None) is due


def test_slot_that_the_former_leader_had_is_lost_and_not_made_anew() -> None:
    state = leading(primary(), seen("a", status=statuses({"cdc": 700, "b": 1})))._replace(slots_ensured_at=None)
    assert wanted(state, actions.EnsureSlots) == actions.EnsureSlots(("b", "c"), (), ("cdc",))


def test_a_lost_slot_stays_lost_when_the_leader_has_written_its_own_status() -> None:
    first = leading(primary(), seen("a", status=statuses({"cdc": 700})))
    status = wanted(first, actions.PutStatus).status
    assert status.lost_slots == {"cdc": Lsn(700)}
    assert "cdc" not in status.slots
    second = leading(primary(), seen("a", status=status))._replace(slots_ensured_at=None)
    assert wanted(second, actions.EnsureSlots).lost == ("cdc",)
    # Somebody has made it by hand, or it is no longer declared.
    healed = leading(primary(failover_slots={"cdc": Lsn(990)}), seen("a", status=status))
    assert wanted(healed, actions.PutStatus).status.lost_slots == {}
    dropped = leading(primary(), seen("a", status=status), Policy(syncs_slots=True))
    assert wanted(dropped, actions.PutStatus).status.lost_slots == {}


def test_a_slot_is_lost_also_to_a_leader_that_cannot_make_one_before_its_restart() -> None:
    """After that it would be made anew, and its consumer skip what was written in between."""
    cannot_yet = leading(primary(makes_failover_slots=False), seen("a", status=statuses({"cdc": 700})))
    status = wanted(cannot_yet, actions.PutStatus).status
    assert status.lost_slots == {"cdc": Lsn(700)}
    restarted = leading(primary(), seen("a", status=status))._replace(slots_ensured_at=None)
    assert wanted(restarted, actions.EnsureSlots) == actions.EnsureSlots(("b", "c"), (), ("cdc",))


# -- consumers wait for whoever may be elected ------------------------------------------------------------------


def awaited(state: State, at: Instant = NOW) -> tuple[str, ...] | None:
    action = wanted(state._replace(slots_ensured_at=at, status_written_at=at), actions.AwaitStandbys, at)
    return None if action is None else action.slots


def test_consumers_wait_for_the_standbys_that_stream_and_are_entered() -> None:
    assert awaited(leading(primary())) == ("b", "c")
    assert awaited(leading(primary(awaited_slots=("c", "b")))) is None
    assert awaited(leading(primary(), seen("a", roster=dict.fromkeys("ac", "")))) == ("c",)
    assert awaited(leading(primary(slots={"b": Lsn(1)}))) == ("b",), "no slot, nothing to wait for"


def test_consumers_do_not_wait_for_a_member_that_never_leads() -> None:
    barred = (member("a"), member("b", tags=Tags(nofailover=True)), member("c"))
    assert awaited(leading(primary(), seen("a", members=barred))) == ("c",)


def test_with_synchronous_mode_consumers_wait_for_the_electorate() -> None:
    policy = replace(DECLARED, synchronous_mode="on")
    server = primary(sync_names='FIRST 1 ("b")', awaited_slots=("b", "c"))
    view = seen("a", sync=SyncState("a", ("b",), 0, 9))
    assert awaited(leading(server, view, policy)) == ("b",)


def test_nobody_is_awaited_unless_slots_are_copied_or_where_the_operator_names_them() -> None:
    for policy in (Policy(), replace(DECLARED, names_awaited_slots=False)):
        assert awaited(leading(primary(), policy=policy)) is None
    assert awaited(leading(primary(makes_failover_slots=False))) is None
    assert awaited(leading(primary())._replace(verified_term=Term(0))) is None


def test_standby_that_went_away_is_waited_for_but_not_for_ever() -> None:
    gone = primary(walsenders=primary().walsenders[:1], awaited_slots=("b", "c"))
    state = observe(leading(primary(awaited_slots=("b", "c"))), facts.Probed(gone))
    assert awaited(state) is None
    for passed, slots in ((9.9, None), (10.0, ("b",))):
        at = Instant(NOW + passed)
        seen_again = observe(state, facts.Probed(replace(gone, probed_at=at)))
        lasting = seen_again._replace(lease=replace(state.lease, deadline=Instant(at + 4.0)))
        assert awaited(lasting, at) == slots
    back = observe(state, facts.Probed(replace(gone, probed_at=NOW, walsenders=primary().walsenders)))
    assert back.unstreamed_since == ()


# -- the former primary ----------------------------------------------------------------------------------------


def test_former_primary_gives_its_slot_up_once_its_leader_has_it() -> None:
    server = replica(former_slots=("cdc", "own"))
    status = statuses({"cdc": 700}, timeline=NEW)
    state = following(server, seen("b", status=status))
    assert wanted(state, actions.DropFormerSlots) == actions.DropFormerSlots(("cdc",))


def test_former_primary_keeps_its_slot_while_nobody_else_is_known_to_have_it() -> None:
    server = replica(former_slots=("cdc",))
    by_itself = statuses({"cdc": 700}, timeline=OLD)
    is_lost = statuses({}, {"cdc": 700}, timeline=NEW)
    for status in (by_itself, is_lost):
        state = following(server, seen("b", status=status))
        assert wanted(state, actions.DropFormerSlots) is None
    known = seen("b", status=statuses({"cdc": 700}, timeline=NEW))
    assert wanted(following(replace(server, streaming=False), known), actions.DropFormerSlots) is None
    assert wanted(following(server, known, Policy()), actions.DropFormerSlots) is None
