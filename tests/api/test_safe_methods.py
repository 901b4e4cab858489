"""GET, HEAD and OPTIONS over a real socket."""

from __future__ import annotations

import json
from dataclasses import replace

import aiohttp
import pytest
from fake_agent import MIB, NOW, FakeAgent, primary_state, replica_state, view

from hamgr.api.port import Unavailable
from hamgr.core.cluster import HistoryLine, SyncState, Tags
from hamgr.core.health import CHECK_OF_PATH
from hamgr.core.policy import Policy
from hamgr.core.portrait import PATRONI_VERSION
from hamgr.core.state import Myself
from hamgr.core.units import Instant, Lsn, Term, Timeline

ON_PRIMARY = {
    "/", "/primary", "/master", "/read-write", "/leader", "/read-only", "/read-only-sync", "/read-only-synchronous",
    "/read-only-quorum", "/health", "/liveness", "/readiness", "/patroni", "/cluster", "/history", "/metrics",
    "/config", "/failovers",
}  # fmt: skip
ON_REPLICA = {
    "/replica", "/read-only", "/async", "/asynchronous", "/health", "/liveness", "/readiness", "/patroni", "/cluster",
    "/history", "/metrics", "/config", "/failovers",
}  # fmt: skip
ALL = {*CHECK_OF_PATH, *ON_PRIMARY, *ON_REPLICA}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(("state", "good"), [(primary_state(), ON_PRIMARY), (replica_state(), ON_REPLICA)])
async def test_all_safe_methods_get_the_same_code(
    client: aiohttp.ClientSession, agent: FakeAgent, method: str, state: object, good: set[str]
) -> None:
    agent.become(state)  # type: ignore[arg-type]
    for path in ALL:
        async with client.request(method, path) as answer:
            body = await answer.read()
            assert (path, answer.status) == (path, 200 if path in good else 503)
            assert bool(body) == (method == "GET")


async def test_synchronous_standby_is_sync_by_all_its_names(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    cluster = view(sync=SyncState("one", ("two",)))
    agent.become(replica_state(cluster=cluster, policy=Policy(synchronous_mode="on")))
    for path, code in (("/sync", 200), ("/synchronous", 200), ("/read-only-sync", 200), ("/async", 503)):
        async with client.get(path) as answer:
            assert (path, answer.status) == (path, code)


async def test_health_body_is_the_status_whatever_the_code(client: aiohttp.ClientSession) -> None:
    async with client.get("/primary") as good, client.get("/replica") as bad, client.get("/patroni") as plain:
        assert (good.status, bad.status, plain.status) == (200, 503, 200)
        assert await good.json() == await bad.json() == await plain.json()
        body = await plain.json()
        assert (body["state"], body["role"], body["xlog"]) == ("running", "primary", {"location": MIB + 100})
        assert body["patroni"] == {"version": PATRONI_VERSION, "scope": "demo", "name": "one"}
        assert body["hamgr"] == {"version": "0.1.0"}
        assert plain.headers["X-Hamgr-Term"] == "4"
        assert plain.headers["Server"] == "hamgr"


async def test_primary_turns_503_at_the_deadline_though_nothing_was_learned(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    async with client.get("/primary") as answer:
        assert answer.status == 200
    deadline = agent.state.lease.deadline
    assert deadline is not None
    agent.at = deadline
    async with client.get("/primary") as answer:
        assert answer.status == 503


async def test_body_follows_the_snapshot(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    async with client.get("/patroni") as answer:
        assert (await answer.json())["role"] == "primary"
    agent.become(replica_state())
    async with client.get("/patroni") as answer:
        assert (await answer.json())["role"] == "replica"


async def test_first_good_primary_check_of_a_term_is_told_once(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    paths = ["/leader", "/read-only", "/primary", "/", "/primary"]
    for path in paths:
        async with client.get(path):
            pass
    assert agent.routings == [(NOW, 4)]
    later = agent.state._replace(lease=replace(agent.state.lease, term=Term(5)), verified_term=Term(5))
    agent.become(later)
    async with client.get("/primary"):
        pass
    assert agent.routings == [(NOW, 4), (NOW, 5)]


async def test_bad_primary_check_is_not_told(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.become(primary_state(verified_term=Term(0)))
    async with client.get("/primary") as answer:
        assert answer.status == 503
    assert agent.routings == []


async def test_replica_filters(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.become(replica_state(me=Myself("two", tags=Tags(extra={"zone": "a"}))))
    expected = {
        "lag=4096": 200,
        "lag=4kB": 200,
        "lag=4095": 503,
        "lag=10MB&replication_state=streaming": 200,
        "replication_state=archive": 503,
        "tag_zone=a": 200,
        "tag_zone=b": 503,
        "tag_rack=1": 503,
        "tag_zone=": 503,
        "somewhere=else": 200,
        "lag=plenty": 400,
        "lag=": 400,
    }
    for query, code in expected.items():
        for path in ("/replica", "/async", "/read-only"):
            async with client.get(f"{path}?{query}") as answer:
                assert (query, answer.status) == (query, code)


async def test_readiness_says_why_not(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.become(replica_state())
    async with client.get("/readiness?lag=10") as answer:
        assert answer.status == 503
        assert "lag 4096 exceeds" in (await answer.json())["reason"]
    async with client.get("/readiness?lag=2kB&mode=write") as answer:
        assert answer.status == 200
    async with client.get("/readiness?lag=x") as answer:
        assert answer.status == 400


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_liveness_fails_when_the_loop_stands_still(
    client: aiohttp.ClientSession, agent: FakeAgent, method: str
) -> None:
    agent.at = Instant(NOW + 6)
    async with client.request(method, "/liveness") as answer:
        assert answer.status == 503
    agent.become(primary_state(policy=Policy(pause=True)))
    async with client.request(method, "/liveness") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/primari", "/primary/x", "/failsafes", "/patroni.html", "/PRIMARY"])
async def test_unknown_path_is_404(client: aiohttp.ClientSession, method: str, path: str) -> None:
    async with client.request(method, f"{path}?lag=1") as answer:
        assert answer.status == 404


async def test_one_trailing_slash_is_no_other_path(client: aiohttp.ClientSession) -> None:
    async with client.get("/primary/?lag=1") as answer:
        assert answer.status == 200


async def test_wrong_method_is_405_and_names_the_right_ones(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    expected = {
        ("POST", "/primary"): "GET, HEAD, OPTIONS",
        ("GET", "/switchover"): "POST, DELETE",
        ("POST", "/config"): "GET, HEAD, OPTIONS, PATCH, PUT",
        ("DELETE", "/restart"): "POST",
    }
    for (method, path), allowed in expected.items():
        async with client.request(method, path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, allowed)
    assert agent.calls == []


async def test_cluster_body(client: aiohttp.ClientSession) -> None:
    async with client.get("/cluster") as answer:
        body = await answer.json()
    assert [(m["name"], m["role"], m["state"]) for m in body["members"]] == [
        ("one", "leader", "running"),
        ("two", "replica", "streaming"),
    ]
    assert body["scope"] == "demo"


async def test_history_has_patronis_shape(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    async with client.get("/history") as answer:
        assert await answer.json() == []
    line = HistoryLine(Timeline(2), Lsn(MIB), "no recovery target specified", "2026-11-23T20:00:00+00:00", "one")
    agent.become(primary_state(cluster=view(history=(line,))))
    async with client.get("/history") as answer:
        assert await answer.json() == [[2, MIB, "no recovery target specified", "2026-11-23T20:00:00+00:00", "one"]]


async def test_config_is_what_the_agent_reads(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    async with client.get("/config") as answer:
        assert await answer.json() == {"ttl": 5}
    agent.config = None
    async with client.get("/config") as answer:
        assert answer.status == 502
    agent.failure = Unavailable("etcd does not answer")
    async with client.get("/config") as answer:
        assert (answer.status, await answer.text()) == (503, "etcd does not answer")


async def test_failovers_are_limited(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.records = [{"term": term} for term in range(30, 0, -1)]
    async with client.get("/failovers") as answer:
        assert len(await answer.json()) == 20
    async with client.get("/failovers?limit=2") as answer:
        assert await answer.json() == [{"term": 30}, {"term": 29}]
    for bad in ("0", "-1", "x", "", "1001", "²", "9" * 5000):
        async with client.get(f"/failovers?limit={bad}") as answer:
            assert (bad, answer.status) == (bad, 400 if bad else 200)


async def test_the_status_names_the_rule_and_the_reason_by_which_it_is_what_it_is(
    client: aiohttp.ClientSession,
) -> None:
    async with client.get("/patroni") as answer:
        body = json.loads(await answer.text())
    assert (body["rule"], body["reason"], body["note"]) == ("lead.steady", "leading", "leading in term 4")


async def test_bodies_are_json_even_before_anything_is_known(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.become(type(agent.state)(me=Myself("one")))
    for path in ("/patroni", "/cluster", "/history", "/primary"):
        async with client.get(path) as answer:
            json.loads(await answer.text())
    async with client.get("/metrics") as answer:
        assert answer.status == 200
