"""POST, PUT, PATCH and DELETE: what is let through, what is refused and in which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from fake_agent import FakeAgent, primary_state
from hypothesis import given
from hypothesis import strategies as st

from hamgr.api.config import ApiConfig
from hamgr.api.orders import (
    Refusal,
    failover_of,
    parse_object,
    reinitialize_options,
    restart_options,
    switchover_of,
)
from hamgr.api.port import Answer, Unavailable
from hamgr.core.cluster import Request
from hamgr.core.policy import Policy
from hamgr.core.units import WallTime

FUTURE = "2999-01-01T00:00:00+00:00"
FUTURE_S = 32472144000.0

Sent = tuple[str, str, Any]


async def send(client: aiohttp.ClientSession, method: str, path: str, body: Any) -> tuple[int, str]:
    raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    async with client.request(method, path, data=raw) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("method", "path", "body", "call"),
    [
        ("POST", "/switchover", {"leader": "one"}, ("switchover", Request("one"))),
        ("POST", "/switchover", {"leader": "one", "candidate": "two"}, ("switchover", Request("one", "two"))),
        ("POST", "/switchover", {"leader": "one", "member": "two"}, ("switchover", Request("one", "two"))),
        ("POST", "/switchover", {"leader": "one", "candidate": None}, ("switchover", Request("one"))),
        (
            "POST",
            "/switchover",
            {"leader": "one", "scheduled_at": FUTURE},
            ("switchover", Request("one", "", WallTime(FUTURE_S))),
        ),
        ("POST", "/failover", {"candidate": "two"}, ("switchover", Request("", "two"))),
        ("POST", "/failover", {"leader": "one", "candidate": "two"}, ("switchover", Request("one", "two"))),
        (
            "POST",
            "/failover",
            {"candidate": "two", "allow_data_loss": True},
            ("switchover", Request("", "two", allow_data_loss=True)),
        ),
        ("DELETE", "/switchover", None, ("cancel_switchover", None)),
        ("POST", "/restart", None, ("restart", {})),
        ("POST", "/restart", {}, ("restart", {})),
        (
            "POST",
            "/restart",
            {"role": "primary", "postgres_version": "15.9", "timeout": "1min"},
            ("restart", {"role": "primary", "postgres_version": "15.9", "timeout": 60.0}),
        ),
        ("POST", "/reinitialize", None, ("reinitialize", {"from_leader": False})),
        (
            "POST",
            "/reinitialize",
            {"force": "on", "from-leader": True},
            ("reinitialize", {"force": True, "from_leader": True}),
        ),
        ("POST", "/reload", None, ("reload", None)),
        ("PATCH", "/config", {"ttl": None}, ("patch_config", {"ttl": None})),
        ("PUT", "/config", {"ttl": 3}, ("put_config", {"ttl": 3})),
    ],
)
async def test_order_reaches_the_agent(
    client: aiohttp.ClientSession, agent: FakeAgent, method: str, path: str, body: Any, call: tuple[str, Any]
) -> None:
    assert await send(client, method, path, body) == (200, "done")
    assert agent.calls == [call]


@pytest.mark.parametrize(
    ("path", "body", "code", "says"),
    [
        ("/switchover", b"", 400, "not JSON"),
        ("/switchover", b"{", 400, "not JSON"),
        ("/switchover", b"\xff\xfe", 400, "not JSON"),
        ("/switchover", b"[" * 100_000, 400, "not JSON"),
        ("/switchover", b"[]", 400, "JSON object"),
        ("/switchover", b"{}", 400, "empty"),
        ("/switchover", {"candidate": "two"}, 400, "from a specific leader"),
        ("/switchover", {"leader": "one", "candidat": "two"}, 400, "did you mean 'candidate'?"),
        ("/switchover", {"leader": "one", "zzz": 1}, 400, "known: leader"),
        ("/switchover", {"leader": 1}, 400, "'leader' must be a string"),
        ("/switchover", {"leader": "a/b"}, 400, "no member's name"),
        ("/switchover", {"leader": "one", "candidate": "one"}, 400, "the same"),
        ("/switchover", {"leader": "one", "scheduled_at": "2999-01-01T00:00"}, 400, "Timezone"),
        ("/switchover", {"leader": "one", "scheduled_at": "2001-01-01T00:00Z"}, 422, "in the past"),
        ("/switchover", {"leader": "one", "scheduled_at": "tomorrow"}, 422, "ISO 8601"),
        ("/switchover", {"leader": "one", "scheduled_at": "9999-12-31T23:59:59-23:59"}, 422, "so late"),
        ("/switchover", {"leader": "one", "scheduled_at": "9999-12-31T23:59:59.999999Z"}, 422, "so late"),
        ("/switchover", {"leader": "one", "scheduled_at": "0001-01-01T00:00:00+23:59"}, 422, "in the past"),
        ("/switchover", {"leader": "one", "scheduled_at": 5}, 400, "must be a string"),
        ("/failover", {"leader": "one"}, 400, "specific candidate"),
        ("/failover", {"candidate": "two", "scheduled_at": FUTURE}, 400, "can't be scheduled"),
        ("/failover", {"candidate": "two", "allow_data_loss": "perhaps"}, 400, "true or false"),
        ("/restart", b"nonsense", 400, "not JSON"),
        ("/restart", {"role": "boss"}, 400, "either primary"),
        ("/restart", {"postgres_version": "new"}, 400, "PostgreSQL version"),
        ("/restart", {"timeout": 0}, 400, "positive number"),
        ("/restart", {"timeout": True}, 400, "positive number"),
        ("/restart", {"schedule": FUTURE}, 400, "does not schedule"),
        ("/restart", {"restart_pendin": True}, 400, "did you mean 'restart_pending'?"),
        ("/restart", {"role": "replica"}, 503, "not replica"),
        ("/restart", {"postgres_version": "15.8"}, 503, "not older"),
        ("/restart", {"restart_pending": True}, 503, "no restart is pending"),
        ("/reinitialize", {"force": 2}, 400, "true or false"),
        ("/reinitialize", {"from_lead": True}, 400, "did you mean 'from_leader'?"),
    ],
)
async def test_wrong_body_is_refused_with_the_reason(
    client: aiohttp.ClientSession, agent: FakeAgent, path: str, body: Any, code: int, says: str
) -> None:
    status, text = await send(client, "POST", path, body)
    assert (status, says in text) == (code, True), text
    assert agent.calls == []


@pytest.mark.parametrize(("method", "body"), [("PATCH", b"{}"), ("PUT", b""), ("PUT", b"7"), ("PUT", b'{"ttl": NaN}')])
async def test_wrong_config_body_is_refused(
    client: aiohttp.ClientSession, agent: FakeAgent, method: str, body: bytes
) -> None:
    assert (await send(client, method, "/config", body))[0] == 400
    assert agent.calls == []


async def test_pause_wants_a_candidate_and_no_schedule(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.become(primary_state(policy=Policy(pause=True)))
    scheduled = {"leader": "one", "candidate": "two", "scheduled_at": FUTURE}
    assert (await send(client, "POST", "/switchover", scheduled))[0] == 400
    assert (await send(client, "POST", "/switchover", {"leader": "one"}))[0] == 400
    assert (await send(client, "POST", "/switchover", {"leader": "one", "candidate": "two"}))[0] == 200


async def test_agents_answer_is_passed_on(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.answer = Answer(412, "no member two is up")
    assert await send(client, "POST", "/switchover", {"leader": "one"}) == (412, "no member two is up")
    agent.answer = Answer(200, body={"ttl": 3})
    status, text = await send(client, "PATCH", "/config", {"ttl": 3})
    assert (status, json.loads(text)) == (200, {"ttl": 3})
    agent.failure = Unavailable("etcd does not answer")
    assert await send(client, "POST", "/reload", None) == (503, "etcd does not answer")


async def test_reason_that_quotes_what_is_no_text_is_sent_all_the_same(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    agent.answer = Answer(400, "error: \ud800: unknown key")
    assert await send(client, "PATCH", "/config", {"\ud800": 1}) == (400, "error: ?: unknown key")


async def test_text_is_never_markup(client: aiohttp.ClientSession) -> None:
    async with client.post("/switchover", json={"<script>": 1}) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")


async def test_body_too_large_is_413(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    size = ApiConfig().max_body_bytes
    status, _ = await send(client, "PUT", "/config", b'{"a": "' + b"x" * size + b'"}')
    assert status == 413
    assert agent.calls == []


async def test_restart_filter_passes_where_it_matches(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.become(agent.state._replace(server=replace(agent.state.server, pending_restart=True)))
    assert (await send(client, "POST", "/restart", {"restart_pending": True, "role": "primary"}))[0] == 200


def refusal_code(read: Callable[[], object]) -> int:
    """The code that it is refused with, 0 if it is read; anything but a refusal comes through."""
    try:
        read()
    except Refusal as refusal:
        return refusal.code
    return 0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(
    ["leader", "candidate", "member", "scheduled_at", "role", "timeout", "postgres_version", "force", "from-leader"]
)
texts = st.sampled_from([FUTURE, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "15", "1e999", "٣s"])


@given(st.dictionaries(names | st.text(max_size=5), values | texts, max_size=4))
def test_any_object_is_read_or_refused(fields: dict[str, Any]) -> None:
    wall_now = WallTime(0.0)
    assert refusal_code(lambda: switchover_of(fields, wall_now)) in (0, 400, 422)
    assert refusal_code(lambda: failover_of(fields, wall_now)) in (0, 400, 422)
    assert refusal_code(lambda: restart_options(fields)) in (0, 400)
    assert refusal_code(lambda: reinitialize_options(fields)) in (0, 400)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    assert refusal_code(lambda: parse_object(raw, may_be_empty=True)) in (0, 400)
