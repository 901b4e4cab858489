"""Keys and values: what is written is read back, Patroni's shapes are read, garbage is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamgr.core.cluster import Ballot, ClusterView, HistoryLine, Member, Offer, Request, Status, SyncState, Tags
from hamgr.core.quorum import can_elect
from hamgr.core.units import Instant, Lsn, Term, Timeline, WallTime
from hamgr.dcs import codec
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Entry
from hamgr.dcs.view import NO_MEMBER, decode_view

KEYS = ScopeKeys.of("demo")

texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
lsns = st.integers(0, 2**64 - 1).map(Lsn)
timelines = st.integers(0, 2**32 - 1).map(Timeline)
terms = st.integers(0, 2**40).map(Term)
small = st.integers(0, 1000)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
tags = st.builds(
    Tags, *[st.booleans()] * 4, st.integers(), st.integers(), extra=st.dictionaries(names.map("x_{}".format), small)
)
members = st.builds(
    Member, names, texts, texts, texts.filter(bool), st.sampled_from(("primary", "replica")), texts, small, timelines,
    terms, lsns, texts, tags, st.booleans(), small, texts, texts, st.just(7), st.just(9),
)  # fmt: skip
offers = st.builds(
    Offer,
    names,
    terms,
    timelines,
    lsns,
    texts,
    st.dictionaries(names, st.floats(0, 1e6, allow_nan=False)),
    st.lists(texts, max_size=2).map(tuple),
    terms,
)
requests = st.builds(
    Request,
    names,
    names,
    st.none() | st.integers(0, 4_000_000_000).map(WallTime),
    st.booleans(),
    st.none() | offers,
    st.just(9),
)
lines = st.lists(st.builds(HistoryLine, timelines, lsns, texts, texts, texts), max_size=4).map(tuple)


def view_of(**values: str | None) -> ClusterView:
    """The view of keys by their names, `__` for the slash; lease 7, revision 9."""
    entries = [Entry(KEYS.prefix + name.replace("__", "/"), value, 7, 9) for name, value in values.items()]
    return decode_view(KEYS, entries, 10, Instant(1.0))


@given(members)
def test_members_are_read_as_written(member: Member) -> None:
    view = decode_view(KEYS, [Entry(KEYS.member(member.name), codec.encode_member(member), 7, 9)], 10, Instant(1.0))
    assert (view.members, view.problems) == ((member,), ())


@given(requests)
def test_requests_are_read_as_written(request: Request) -> None:
    assert view_of(failover=codec.encode_request(request)).request == request


@given(st.builds(Ballot, st.just("b"), terms, timelines, lsns, st.integers(), terms, st.just(9)))
def test_ballots_are_read_as_written(ballot: Ballot) -> None:
    assert view_of(ballots__b=codec.encode_ballot(ballot)).ballots == (ballot,)


@given(
    st.builds(Status, lsns, timelines, st.dictionaries(names, lsns), st.just(9), st.dictionaries(names, lsns), terms),
    st.builds(SyncState, names, st.lists(names, max_size=3).map(tuple), small, st.just(9)),
    lines,
    st.dictionaries(names, texts),
)
def test_documents_are_read_as_written(
    status: Status, sync: SyncState, history: tuple[HistoryLine, ...], roster: dict[str, str]
) -> None:
    view = view_of(
        status=codec.encode_status(status),
        sync=codec.encode_sync(sync),
        history=codec.encode_history(history),
        failsafe=codec.encode_roster(roster),
    )
    assert (view.status, view.sync, view.history, view.roster) == (status, sync, history, roster)
    assert view.problems == ()


KEY_NAMES = ("initialize", "config", "leader", "term", "released", "status", "failover", "sync", "history", "failsafe")


@given(st.sampled_from((*KEY_NAMES, "members/b", "ballots/b")), st.none() | st.text() | json_values.map(json.dumps))
def test_no_value_of_one_key_hides_another(name: str, value: str | None) -> None:
    entries = [Entry(KEYS.prefix + name, value, 7, 9), Entry(KEYS.member("a"), codec.encode_member(Member("a")), 7, 9)]
    view = decode_view(KEYS, entries, 10, Instant(1.0))
    assert view.member("a") is not None
    assert all(problem.startswith(KEYS.prefix + name) for problem in view.problems)


@given(json_values.filter(lambda value: not isinstance(value, dict)))
def test_what_is_no_object_is_a_problem(value: Any) -> None:
    view = view_of(config=json.dumps(value), status=json.dumps(value), sync=json.dumps(value))
    assert len(view.problems) == 3
    assert (view.status, view.sync) == (Status(), SyncState(NO_MEMBER, mod_revision=9))


@pytest.mark.parametrize("value", ["", "{", "[" * 100_000, "9" * 10_000, '{"optime": -1}', '{"optime": "0/5"}', None])
def test_a_status_that_cannot_be_read_counts_as_absent_and_is_named(value: str | None) -> None:
    view = view_of(status=value, term="3")
    assert (view.status, view.term) == (Status(), 3)
    assert view.problems[0].startswith("/service/demo/status: ")


def test_a_term_that_cannot_be_read_leaves_no_revision_to_count_on_from() -> None:
    view = view_of(term="three")
    assert (view.term, view.term_revision, len(view.problems)) == (0, 0, 1)


def test_a_request_that_cannot_be_read_asks_for_nothing_and_can_be_cleared() -> None:
    assert view_of(failover="garbage").request == Request(mod_revision=9)


def test_an_electorate_that_cannot_be_read_elects_nobody_and_can_be_written_over() -> None:
    sync = view_of(sync="garbage").sync
    assert sync == SyncState(NO_MEMBER, mod_revision=9)
    assert not can_elect(sync)


@pytest.mark.parametrize("value", ["", "three", "-1", None])
def test_a_release_that_cannot_be_read_releases_nothing_and_is_named(value: str | None) -> None:
    view = view_of(released=value)
    assert (view.released_term, len(view.problems)) == (0, 1)


def test_an_illness_is_announced_and_a_member_that_is_well_says_nothing_of_it() -> None:
    assert json.loads(codec.encode_member(Member("a", ill="data_disk,commit")))["ill"] == "data_disk,commit"
    assert "ill" not in json.loads(codec.encode_member(Member("a")))


def test_patronis_own_values_are_read() -> None:
    member = {
        "conn_url": "postgres://10.0.0.1:5432/postgres",
        "api_url": "http://10.0.0.1:8008/patroni",
        "state": "running",
        "role": "master",
        "version": "3.0.1",
        "xlog_location": 67108960,
        "timeline": 2,
        "replication_state": "streaming",
        "proxy_url": None,
        "tags": {"nofailover": True, "site": "north"},
        "pending_restart": True,
        "pending_restart_reason": {"max_connections": {"old_value": "100", "new_value": "200"}},
    }
    view = view_of(
        initialize="7001",
        leader="pg1",
        members__pg1=json.dumps(member),
        status='{"optime":67108960,"slots":{"pg2":67108864},"retain_slots":["pg2"]}',
        sync='{"leader":"pg1","sync_standby":null}',
        history='[[1,25623960,"no recovery target specified","2026-01-01T10:00:00+00:00","pg1"],[2,26000000,"x"]]',
        failover='{"leader":"pg1","member":"pg2","scheduled_at":"2026-01-01T10:00:00+01:00"}',
        optime__leader="5",
    )
    pg1 = view.member("pg1")
    assert view.problems == ()
    assert pg1 is not None
    assert (pg1.role, pg1.timeline, pg1.tags.may_lead, pg1.tags.extra) == ("primary", 2, False, {"site": "north"})
    assert view.sync == SyncState("pg1", (), 0, 9)
    assert (view.history[0].new_leader, view.history[1].new_leader) == ("pg1", "")
    assert view.request is not None
    assert (view.request.candidate, view.request.scheduled_at) == ("pg2", 1767258000.0)


def test_members_are_written_as_patronis_tools_expect_them() -> None:
    member = Member(
        "a", "postgres://h/postgres", "http://h:8008/patroni", "running", "primary", "0.1", timeline=Timeline(2)
    )
    assert json.loads(codec.encode_member(member)) == {
        "conn_url": "postgres://h/postgres",
        "api_url": "http://h:8008/patroni",
        "state": "running",
        "role": "primary",
        "version": "0.1",
        "timeline": 2,
    }
    assert codec.encode_sync(SyncState()) == '{"leader":null,"sync_standby":null,"quorum":0}'


@pytest.mark.parametrize("namespace", ["service", "/service", "/service/", "//service//"])
def test_slashes_of_the_namespace_do_not_matter(namespace: str) -> None:
    assert ScopeKeys.of("demo", namespace).leader == "/service/demo/leader"


def test_an_empty_scope_is_refused() -> None:
    with pytest.raises(ValueError, match="scope"):
        ScopeKeys.of("")


def test_the_records_lie_outside_the_ranges_of_the_view() -> None:
    first, second = KEYS.view_ranges
    record, request = KEYS.record(7), KEYS.request
    assert not first.key <= record < first.end
    assert not second.key <= record < second.end
    assert first.key <= request < first.end
    assert second.key <= KEYS.term < second.end
