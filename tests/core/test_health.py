"""Health answers: when a member counts as primary, replica, alive, ready; and the bodies made for programs."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamgr.core.actions import (
    BEFORE_STOP,
    Checkpoint,
    Fence,
    HandOverStop,
    Promote,
    PutDown,
    Reinitialize,
    RestartServer,
    StopServer,
    Upstream,
)
from hamgr.core.cluster import ClusterView, LeaderKey, Member, Request, Status, SyncState, Tags
from hamgr.core.health import (
    CHECK_OF_PATH,
    Check,
    Query,
    code_of,
    is_alive,
    lag_bytes,
    parse_query,
    parse_size,
    why_not_ready,
)
from hamgr.core.policy import Policy
from hamgr.core.portrait import (
    PATRONI_VERSION,
    cluster_body,
    server_role,
    server_state,
    status_body,
    status_line,
)
from hamgr.core.reasons import Code, because
from hamgr.core.server import DataDir, Illness, Phase, ServerView, Vital, Walsender
from hamgr.core.state import Lease, Myself, State, UnderWay
from hamgr.core.units import Instant, Lsn, Term, Timeline, WallTime

NOW = Instant(1000.0)
END = Lsn(1 << 20)


def member(name: str, **changes: Any) -> Member:
    base = Member(
        name,
        conn_url=f"postgres://{name}.example:5433/postgres",
        api_url=f"http://{name}.example:8008/patroni",
        state="running",
        timeline=Timeline(3),
    )
    return base._replace(**changes)


def cluster(leader: str = "one", **changes: Any) -> ClusterView:
    base = ClusterView(
        revision=9,
        seen_at=Instant(NOW - 1),
        leader=LeaderKey(leader, 77, 5) if leader else None,
        term=Term(4),
        status=Status(END, Timeline(3), {"two": Lsn(END - 4096)}),
        members=(member("two", replication_state="streaming"), member("one", role="primary")),
    )
    return base._replace(**changes)


def primary(**changes: Any) -> State:
    server = ServerView(
        phase=Phase.RUNNING,
        data_dir=DataDir.VALID,
        answered=True,
        system_identifier="7",
        server_version=150008,
        in_recovery=False,
        timeline=Timeline(3),
        written_lsn=END,
    )
    base = State(
        me=Myself("one", version="0.1.0"),
        cluster=cluster(),
        lease=Lease(77, Instant(NOW + 3), Term(4)),
        verified_term=Term(4),
        server=server,
    )
    return base._replace(**changes)


def replica(**changes: Any) -> State:
    server = replace(
        primary().server,
        in_recovery=True,
        written_lsn=Lsn(0),
        received_lsn=Lsn(END - 1024),
        replayed_lsn=Lsn(END - 4096),
        streaming=True,
    )
    base = State(
        me=Myself("two", version="0.1.0"),
        cluster=cluster(),
        lease=Lease(88, Instant(NOW + 3), Term(0)),
        server=server,
    )
    return base._replace(**changes)


def doing(state: State, action: Any) -> State:
    return state._replace(under_way=(UnderWay(action, NOW),))


def server(state: State, **changes: Any) -> State:
    return state._replace(server=replace(state.server, **changes))


def ill(vital: Vital) -> Illness:
    return Illness(vital, "no answer", NOW, is_hung=True)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (primary(illnesses=(ill(Vital.COMMIT),)), 503),
        (primary(illnesses=(ill(Vital.CONNECTION),)), 503),
        (primary(illnesses=(ill(Vital.DATA_DISK),)), 200),
        (doing(primary(), PutDown(Lsn(0), "server_hung", NOW, reads_wal=True)), 503),
        (doing(primary(), HandOverStop(0, "", 1.0)), 503),
        (doing(primary(), Checkpoint(BEFORE_STOP)), 200),
    ],
)
def test_a_server_that_cannot_write_or_is_taken_away_is_no_primary(state: State, code: int) -> None:
    assert code_of(Check.PRIMARY, state, NOW) == code


def synchronous(state: State, mode: str, *names: str) -> State:
    view = cluster(sync=SyncState("one", names))
    return state._replace(cluster=view, policy=Policy(synchronous_mode=mode))


# -- primary ---------------------------------------------------------------------------------------------------


def test_verified_leader_within_its_deadline_is_primary() -> None:
    assert code_of(Check.PRIMARY, primary(), NOW) == 200
    assert code_of(Check.LEADER, primary(), NOW) == 200


def test_primary_ends_with_the_deadline_without_any_new_fact() -> None:
    state = primary()
    deadline = state.lease.deadline
    assert deadline is not None
    assert code_of(Check.PRIMARY, state, Instant(deadline - 0.001)) == 200
    assert code_of(Check.PRIMARY, state, deadline) == 503
    assert code_of(Check.LEADER, state, deadline) == 503


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(primary(lease=Lease(77, None, Term(4))), id="no deadline"),
        pytest.param(primary(lease=Lease(77, Instant(NOW + 3), Term(0))), id="no term"),
        pytest.param(primary(lease=Lease(77, Instant(NOW + 3), Term(0)), verified_term=Term(0)), id="no term at all"),
        pytest.param(primary(cluster=cluster("two")), id="another leads"),
        pytest.param(primary(cluster=cluster("")), id="nobody leads"),
        pytest.param(primary(verified_term=Term(0)), id="not verified"),
        pytest.param(primary(verified_term=Term(3)), id="verified in an older term"),
        pytest.param(server(primary(), phase=Phase.CRASHED), id="crashed"),
        pytest.param(server(primary(), phase=Phase.STARTING), id="starting"),
        pytest.param(server(primary(), answered=False), id="does not answer"),
        pytest.param(server(primary(), in_recovery=True), id="in recovery"),
        pytest.param(server(primary(), is_read_only=True), id="read-only"),
        pytest.param(doing(primary(), Fence()), id="being fenced"),
        pytest.param(doing(primary(), StopServer(5.0)), id="being stopped"),
        pytest.param(doing(primary(), RestartServer(1, 5.0, Term(4), Upstream())), id="being restarted"),
    ],
)
def test_primary_is_refused(state: State) -> None:
    assert code_of(Check.PRIMARY, state, NOW) == 503
    assert code_of(Check.READ_ONLY_SYNC, state, NOW) == 503


def test_leader_without_a_verified_server_leads_but_is_not_primary() -> None:
    state = doing(server(primary(verified_term=Term(0)), in_recovery=True), Promote(Term(4)))
    assert code_of(Check.LEADER, state, NOW) == 200
    assert code_of(Check.PRIMARY, state, NOW) == 503


def test_adopted_lease_counts_before_the_first_view() -> None:
    assert code_of(Check.PRIMARY, primary(cluster=None), NOW) == 200


# -- replica ---------------------------------------------------------------------------------------------------


def test_primary_is_no_replica_and_replica_no_primary() -> None:
    assert code_of(Check.REPLICA, primary(), NOW) == 503
    assert code_of(Check.REPLICA, replica(), NOW) == 200
    assert code_of(Check.PRIMARY, replica(), NOW) == 503
    assert code_of(Check.LEADER, replica(), NOW) == 503


def test_lag_filter_compares_replayed_with_the_greatest_known_end() -> None:
    assert lag_bytes(replica()) == 4096
    assert code_of(Check.REPLICA, replica(), NOW, Query(lag_bytes=4096)) == 200
    assert code_of(Check.REPLICA, replica(), NOW, Query(lag_bytes=4095)) == 503
    ahead_of_status = server(replica(), received_lsn=Lsn(END + 4096))
    assert lag_bytes(ahead_of_status) == 8192


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(replica(me=Myself("two", tags=Tags(noloadbalance=True))), id="noloadbalance"),
        pytest.param(server(replica(), phase=Phase.STOPPING), id="stopping"),
        pytest.param(doing(replica(), Reinitialize(1, Upstream())), id="being made anew"),
    ],
)
def test_replica_is_refused(state: State) -> None:
    for check in (Check.REPLICA, Check.READ_ONLY, Check.ASYNC):
        assert code_of(check, state, NOW) == 503


def test_replication_state_filter() -> None:
    wanted = Query(replication_state="streaming")
    assert code_of(Check.REPLICA, replica(), NOW, wanted) == 200
    assert code_of(Check.REPLICA, server(replica(), streaming=False), NOW, wanted) == 503


def test_tag_filter_knows_own_and_user_tags_and_spares_the_primary_check() -> None:
    tags = Tags(nosync=True, extra={"zone": "a", "big": True, "rack": 7})
    state = replica(me=Myself("two", tags=tags))
    for pair in (("zone", "a"), ("big", "true"), ("rack", "7"), ("nosync", "true")):
        assert code_of(Check.REPLICA, state, NOW, Query(tags=(pair,))) == 200
    for pair in (("zone", "b"), ("absent", "1"), ("nofailover", "false")):
        assert code_of(Check.REPLICA, state, NOW, Query(tags=(pair,))) == 503
    assert code_of(Check.HEALTH, state, NOW, Query(tags=(("zone", "b"),))) == 503
    assert code_of(Check.PRIMARY, primary(), NOW, Query(tags=(("zone", "b"),))) == 200


@pytest.mark.parametrize(
    ("mode", "names", "good"),
    [
        ("off", (), {Check.ASYNC, Check.REPLICA, Check.READ_ONLY}),
        ("off", ("two",), {Check.ASYNC, Check.REPLICA, Check.READ_ONLY}),
        ("on", (), {Check.ASYNC, Check.REPLICA, Check.READ_ONLY}),
        ("on", ("two",), {Check.SYNC, Check.READ_ONLY_SYNC, Check.REPLICA, Check.READ_ONLY}),
        ("quorum", ("two",), {Check.QUORUM, Check.READ_ONLY_QUORUM, Check.REPLICA, Check.READ_ONLY}),
    ],
)
def test_synchronous_standby_answers_its_own_kind(mode: str, names: tuple[str, ...], good: set[Check]) -> None:
    state = synchronous(replica(), mode, *names)
    answered = {check for check in Check if code_of(check, state, NOW) == 200}
    assert answered == good | {Check.HEALTH}


def test_writable_primary_answers_every_read_only_check() -> None:
    answered = {check for check in Check if code_of(check, primary(), NOW) == 200}
    read_only = {Check.READ_ONLY, Check.READ_ONLY_SYNC, Check.READ_ONLY_QUORUM}
    assert answered == read_only | {Check.PRIMARY, Check.LEADER, Check.HEALTH}


def test_asynchronous_is_unknown_without_a_view() -> None:
    assert code_of(Check.ASYNC, replica(cluster=None), NOW) == 503
    assert code_of(Check.REPLICA, replica(cluster=None), NOW) == 200


def test_every_path_has_a_check_and_none_is_both() -> None:
    assert set(CHECK_OF_PATH.values()) == set(Check)


# -- alive and ready -------------------------------------------------------------------------------------------


def test_liveness_is_patient_for_a_ttl_on_a_primary_and_two_on_a_replica() -> None:
    ttl = Policy().ttl_s
    assert is_alive(primary(), Instant(NOW - ttl), NOW)
    assert not is_alive(primary(), Instant(NOW - ttl - 0.1), NOW)
    assert is_alive(replica(), Instant(NOW - 2 * ttl), NOW)
    assert not is_alive(replica(), Instant(NOW - 2 * ttl - 0.1), NOW)
    assert is_alive(primary(policy=Policy(pause=True)), Instant(0.0), NOW)


def test_readiness_wants_a_leader_or_a_streaming_replica_within_the_lag() -> None:
    assert why_not_ready(primary(), NOW) == ""
    assert why_not_ready(replica(), NOW) == ""
    assert "not running" in why_not_ready(server(replica(), phase=Phase.STOPPED), NOW)
    assert "streaming" in why_not_ready(server(replica(), streaming=False), NOW)
    assert "apply lag 4096" in why_not_ready(replica(), NOW, Query(lag_bytes=4095))
    assert why_not_ready(replica(), NOW, Query(lag_bytes=1024, by_received=True)) == ""
    assert "write lag 1024" in why_not_ready(replica(), NOW, Query(lag_bytes=1023, by_received=True))


# -- query -----------------------------------------------------------------------------------------------------


def test_sizes_are_read_as_postgresql_reads_them() -> None:
    assert [parse_size(text) for text in ("0", "10MB", "1 kB", "1.5gb", "7B")] == [0, 10485760, 1024, 1610612736, 7]
    for text in ("", "-1", "ten", "1XB", "1e9", "٣"):
        with pytest.raises(ValueError, match="not a size"):
            parse_size(text)


@given(st.text())
def test_a_size_is_a_number_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_size(text) >= 0


def test_first_of_a_repeated_filter_counts() -> None:
    query = parse_query([("lag", "1kB"), ("lag", "9"), ("tag_a", "x"), ("mode", "write"), ("else", "1")])
    assert query == Query(lag_bytes=1024, by_received=True, tags=(("a", "x"),))


# -- bodies ----------------------------------------------------------------------------------------------------


def test_primary_status_has_patronis_keys() -> None:
    sender = Walsender("two", "10.0.0.2", "streaming", "async", 0, "replicator", END)
    state = server(primary(), walsenders=(sender,), pending_restart=True, started_at="2026-11-23 20:00:00+00:00")
    assert status_body(state, NOW, WallTime(5000.0), "demo", "leading in term 4") == {
        "state": "running",
        "postmaster_start_time": "2026-11-23 20:00:00+00:00",
        "role": "primary",
        "server_version": 150008,
        "xlog": {"location": END},
        "timeline": 3,
        "replication": [
            {
                "usename": "replicator",
                "application_name": "two",
                "client_addr": "10.0.0.2",
                "state": "streaming",
                "sync_state": "async",
                "sync_priority": 0,
            }
        ],
        "dcs_last_seen": 4999,
        "database_system_identifier": "7",
        "pending_restart": True,
        "patroni": {"version": PATRONI_VERSION, "scope": "demo", "name": "one"},
        "hamgr": {"version": "0.1.0"},
        "term": 4,
        "note": "leading in term 4",
    }


def test_replica_status_shows_what_it_received_and_replayed() -> None:
    body = status_body(synchronous(replica(), "quorum", "two"), NOW, WallTime(0.0), "demo")
    assert body["role"] == "replica"
    assert body["xlog"] == {
        "received_location": END - 1024,
        "replayed_location": END - 4096,
        "replayed_timestamp": None,
        "paused": False,
    }
    assert body["replication_state"] == "streaming"
    assert body["quorum_standby"] is True


def test_status_of_a_member_that_knows_nothing_claims_nothing() -> None:
    body = status_body(State(me=Myself("one")), NOW, WallTime(0.0), "demo")
    assert body["state"] == "unknown"
    assert body["cluster_unlocked"] is True
    assert "xlog" not in body
    assert body["dcs_last_seen"] == 0


def test_status_line_says_who_leads_and_the_reason_only_where_it_is_not_an_ordinary_one() -> None:
    following = because(Code.FOLLOWING, leader="one")
    assert status_line(primary(), because(Code.LEADING, term=4)) == "one: primary, running; leader in term 4"
    assert status_line(replica(), following) == "two: replica, streaming; leader is one, term 4"
    alone = replica(cluster=cluster(""))
    waiting = because(Code.WAIT_LEADER, why="nobody voted")
    assert status_line(alone, waiting).endswith("; no leader, term 4; waiting for a leader: nobody voted")


def test_status_line_of_a_member_that_knows_nothing_claims_nothing() -> None:
    line = status_line(State(me=Myself("one")), because(Code.NO_VIEW, error="no answer"))
    assert line == "one: replica, unknown; no leader, term 0; etcd has not been read yet: no answer"


def test_dead_server_is_never_called_primary() -> None:
    assert server_role(server(primary(), phase=Phase.CRASHED).server) == "replica"
    assert server_role(ServerView(data_dir=DataDir.EMPTY)) == "uninitialized"
    assert server_state(doing(primary(), StopServer(5.0))) == "stopping"
    assert server_state(server(primary(), answered=False)) == "unknown"


def test_cluster_shows_members_by_name_with_lag_from_the_leaders_slots() -> None:
    body = cluster_body(primary(), NOW, "demo")
    one, two = body["members"]
    assert one == {
        "name": "one",
        "role": "leader",
        "state": "running",
        "api_url": "http://one.example:8008/patroni",
        "host": "one.example",
        "port": 5433,
        "timeline": 3,
    }
    assert (two["role"], two["state"]) == ("replica", "streaming")
    assert (two["lsn"], two["lag"]) == (str(Lsn(END - 4096)), 4096)
    assert (two["replay_lsn"], two["replay_lag"]) == ("unknown", "unknown")
    assert body["scope"] == "demo"


def test_cluster_shows_this_replica_as_probed_and_a_silent_one_as_unknown() -> None:
    view = cluster(members=(member("two"), member("three", state="stopped", note="diverged: why")))
    two = cluster_body(replica(cluster=view), NOW, "demo")["members"][1]
    assert (two["receive_lag"], two["replay_lag"], two["state"]) == (1024, 4096, "streaming")
    three = cluster_body(replica(cluster=view), NOW, "demo")["members"][0]
    assert (three["lag"], three["lsn"], three["state"], three["note"]) == (
        "unknown",
        "unknown",
        "stopped",
        "diverged: why",
    )


def test_cluster_shows_synchronous_roles_pause_and_what_is_scheduled() -> None:
    request = Request(leader="one", candidate="two", scheduled_at=WallTime(1795000000.0))
    view = cluster(sync=SyncState("one", ("two",)), request=request)
    state = primary(cluster=view, policy=Policy(synchronous_mode="on", pause=True))
    body = cluster_body(state, NOW, "demo")
    assert body["members"][1]["role"] == "sync_standby"
    assert body["pause"] is True
    assert body["scheduled_switchover"] == {"at": "2026-11-18T11:06:40+00:00", "from": "one", "to": "two"}


# -- replicas that nobody should read from -----------------------------------------------------------------------


def test_a_standby_of_another_cluster_is_no_replica() -> None:
    other = replica(cluster=cluster(system_identifier="8"))
    for check in (Check.REPLICA, Check.READ_ONLY, Check.ASYNC):
        assert code_of(check, replica(cluster=cluster(system_identifier="7")), NOW) == 200
        assert code_of(check, other, NOW) == 503
    assert "another cluster" in why_not_ready(other, NOW)


def test_a_lag_that_cannot_be_known_is_within_no_limit() -> None:
    """Cut off from etcd and leader it would be compared with what the leader had then."""
    limit = Query(lag_bytes=1 << 30)
    cut_off = server(replica(cluster=cluster(seen_at=Instant(NOW - 60))), streaming=False)
    assert code_of(Check.REPLICA, cut_off, NOW, limit) == 503
    assert code_of(Check.REPLICA, cut_off, NOW) == 200, "nobody asked for a lag"
    assert code_of(Check.REPLICA, server(cut_off, streaming=True), NOW, limit) == 200
    assert code_of(Check.REPLICA, server(replica(), streaming=False), NOW, limit) == 200
