"""Peer leases over REST: what a leader may ask, who may ask it, and what the answer says."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fake_agent import FakeAgent, Serve, primary_state, replica_state, view

from hamgr.api.access import Caller, denial_of_member
from hamgr.api.config import ApiConfig
from hamgr.api.names import Names
from hamgr.core.peers import Claim, Promise
from hamgr.core.policy import Policy
from hamgr.core.units import Term

CLAIM = {"name": "one", "term": 4, "ttl": 5}
PATRONIS = {"conn_url": "postgres://h:5432/postgres", "api_url": "http://h:8008/patroni", "slots": {"two": 5}}
ROSTER = {"one": "http://10.0.0.1:8008/patroni", "two": "http://10.0.0.2:8008/patroni"}


async def post(client: aiohttp.ClientSession, body: Any, path: str = "/failsafe") -> tuple[int, str, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.post(path, data=raw) as answer:
        return answer.status, await answer.text(), answer.headers


@pytest.mark.parametrize("body", [CLAIM, {**CLAIM, **PATRONIS}, {**CLAIM, "slots": None}], ids=["own", "whole", "null"])
async def test_an_accepted_claim_names_who_promised_and_what_it_has_received(
    client: aiohttp.ClientSession, agent: FakeAgent, body: Any
) -> None:
    agent.become(replica_state())
    code, text, headers = await post(client, body)
    assert (code, text) == (200, "Accepted")
    assert headers["X-Hamgr-Member"] == "demo/two"
    assert headers["lsn"] == str(int(agent.state.server.received_lsn))
    assert agent.calls == [("promise", Claim("one", Term(4), 5.0))]


async def test_a_refused_claim_is_500_with_the_reason(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.promised = Promise(None, "Running as a leader")
    code, text, headers = await post(client, CLAIM)
    assert (code, text) == (500, "Running as a leader")
    assert "lsn" not in headers


async def test_a_ttl_of_0_is_a_question(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    assert (await post(client, {**CLAIM, "ttl": 0}))[0] == 200
    assert agent.calls == [("promise", Claim("one", Term(4), 0.0))]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "JSON object"),
        ({}, "empty"),
        ({"name": "one", "ttl": 5}, "'term' is missing"),
        ({"name": "one", "term": 4}, "'ttl' is missing"),
        ({"term": 4, "ttl": 5}, "'name' is missing"),
        ({**CLAIM, "name": ""}, "'name' is missing"),
        ({**CLAIM, "name": "a/b"}, "no member's name"),
        ({**CLAIM, "name": 5}, "must be a string"),
        ({**CLAIM, "term": 0}, "positive number"),
        ({**CLAIM, "term": "4"}, "positive number"),
        ({**CLAIM, "term": True}, "positive number"),
        ({**CLAIM, "term": 4.5}, "positive number"),
        ({**CLAIM, "ttl": -1}, "number of seconds"),
        ({**CLAIM, "ttl": "5"}, "number of seconds"),
        ({**CLAIM, "ttl": 1e9}, "number of seconds"),
        ({**CLAIM, "slots": []}, "JSON object"),
        ({**CLAIM, "tll": 5}, "did you mean 'ttl'?"),
    ],
    ids=str,
)
async def test_a_wrong_body_is_400_and_binds_nobody(
    client: aiohttp.ClientSession, agent: FakeAgent, body: Any, says: str
) -> None:
    code, text, _ = await post(client, body)
    assert (code, says in text) == (400, True), text
    assert agent.calls == []


async def test_with_failsafe_mode_off_nobody_promises_anything(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.become(primary_state(policy=Policy(failsafe_mode=False)))
    assert (await post(client, CLAIM))[:2] == (502, "failsafe_mode is off")
    assert agent.calls == []
    async with client.get("/failsafe") as answer:
        assert answer.status == 502


async def test_the_roster_can_be_read(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.become(primary_state(cluster=view(roster=ROSTER)))
    async with client.get("/failsafe") as answer:
        assert (answer.status, await answer.json()) == (200, ROSTER)
    agent.become(primary_state(cluster=None))
    async with client.get("/failsafe") as answer:
        assert answer.status == 503


# -- access ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "address", "allowed"),
    [
        (ApiConfig(), "10.0.0.9", True),
        (ApiConfig(allowlist_include_members=True), "10.0.0.9", True),
        (ApiConfig(allowlist=(ip_network("10.0.0.0/8"),)), "10.0.0.9", True),
        (ApiConfig(allowlist=(ip_network("10.0.0.0/8"),)), "11.0.0.9", False),
        (ApiConfig(allowlist=(ip_network("10.0.0.0/8"),)), "", False),
        (ApiConfig(allowlist=(ip_network("10.0.0.0/8"),), allowlist_include_members=True), "11.0.0.9", True),
    ],
)
async def test_members_need_not_be_known_by_their_address(config: ApiConfig, address: str, allowed: bool) -> None:
    assert (denial_of_member(config, Caller(address, False, None), Names()) is None) == allowed


async def test_password_and_client_certificate_are_wanted_all_the_same(serve: Serve, agent: FakeAgent) -> None:
    running = await serve(ApiConfig(port=0, username="admin", password="s3cret", allowlist_include_members=True))
    address = f"http://127.0.0.1:{running.address[1]}"
    async with aiohttp.ClientSession(address) as stranger:
        assert (await post(stranger, CLAIM))[0] == 401
    assert agent.calls == []
    async with aiohttp.ClientSession(address, auth=aiohttp.BasicAuth("admin", "s3cret")) as member:
        assert (await post(member, CLAIM))[0] == 200
    https = replace(ApiConfig(), certfile=Path("/some.crt"), verify_client="required")
    assert denial_of_member(https, Caller("127.0.0.1", False, None), Names()) is not None
    assert denial_of_member(https, Caller("127.0.0.1", True, None), Names()) is None
