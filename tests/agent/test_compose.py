"""What an agent starts with: its predecessor's promises, and a memory that counts no further than the guard's page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from hamgr.agent import compose, translate
from hamgr.agent.clock import now
from hamgr.agent.compose import Agent
from hamgr.agent.guardlink import nanoseconds
from hamgr.agent.memory import Memory
from hamgr.agent.world import World
from hamgr.api import server as rest
from hamgr.api.port import AgentPort
from hamgr.core.actions import MoveLeader
from hamgr.core.cluster import Config, LeaderKey
from hamgr.core.facts import ClusterRecalled, Fact, LeaseAdopted, LeaseTried, MemoryLost, Promised
from hamgr.core.state import Lease, UnderWay
from hamgr.core.units import after
from hamgr.dcs.keys import ScopeKeys
from hamgr.guard.layout import SharedPage
from hamgr.postgres.config import ServerConfig
from hamgr.settings import Loaded, load
from tests.agent.workbench import LEASE, TERM, leading, until, view

FILE = """
scope: main
name: a
restapi: {{listen: "127.0.0.1:8008", connect_address: "10.0.0.1:8008"}}
etcd3: {{hosts: ["127.0.0.1:1"]}}
bootstrap: {{dcs: {{ttl: 5, loop_wait: 1, retry_timeout: 1}}}}
postgresql:
  listen: "127.0.0.1:5432"
  connect_address: "10.0.0.1:5432"
  data_dir: {directory}/data
  authentication:
    superuser: {{username: postgres, password: s}}
    replication: {{username: replicator, password: r}}
"""
TTL_S = 5.0


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    path = tmp_path / "hamgr.yml"
    path.write_text(FILE.format(directory=tmp_path))
    return load(path, {})


@pytest.fixture
def start(tmp_path: Path, loaded: Loaded) -> Callable[[], Agent]:
    """An agent that has not begun to run."""
    return lambda: Agent(tmp_path / "hamgr.yml", loaded, str(tmp_path))


def posted(agent: Agent) -> list[Fact | None]:
    """What the agent has told its loop so far."""
    facts: list[Fact | None] = []
    with contextlib.suppress(asyncio.QueueEmpty):
        while True:
            facts.append(agent._loop._facts.get_nowait())
    return facts


async def test_on_a_new_page_nobody_knows_what_was_promised(start: Callable[[], Agent]) -> None:
    began_at = now()
    agent = start()
    agent._adopt_promise()
    (fact,) = posted(agent)
    assert isinstance(fact, MemoryLost)
    assert began_at <= fact.at <= now()


async def test_nor_does_a_successor_that_comes_at_once(start: Callable[[], Agent]) -> None:
    start()._adopt_promise()
    lost_at = now()
    successor = start()
    successor._adopt_promise()
    (fact,) = posted(successor)
    assert isinstance(fact, Promised)
    assert after(lost_at, TTL_S - 1) < fact.until <= after(lost_at, TTL_S)


async def test_what_was_lost_is_counted_in_the_clusters_ttl(start: Callable[[], Agent], tmp_path: Path) -> None:
    """The file's may be another one."""
    agent = start()
    agent._adopt_promise()
    (fact,) = posted(agent)
    assert isinstance(fact, MemoryLost)
    agent._note_loss(60.0)
    assert SharedPage.open(str(tmp_path)).promised_until_ns == nanoseconds(after(fact.at, 60.0))


async def test_a_promise_of_the_predecessor_binds_until_it_runs_out(start: Callable[[], Agent], tmp_path: Path) -> None:
    page = SharedPage.open(str(tmp_path))
    until_then = after(now(), 3.0)
    page.agent_heartbeat_ns, page.promised_until_ns = 1, nanoseconds(until_then)
    agent = start()
    agent._adopt_promise()
    (fact,) = posted(agent)
    assert isinstance(fact, Promised)
    assert abs(fact.until - until_then) < 1e-6
    page.promised_until_ns = nanoseconds(after(now(), -1.0))
    later = start()
    later._adopt_promise()
    assert posted(later) == []


# -- dynamic configuration -------------------------------------------------------------------------------------

BROKEN = {"synchronous_mode": True, "ttl": 7, "no_such_key": 1}


async def test_a_fresh_agent_goes_by_what_can_be_read_of_a_broken_configuration(start: Callable[[], Agent]) -> None:
    """Its file knows nothing of the synchronous mode, which commits were promised."""
    agent = start()
    state = agent._state()._replace(cluster=view(config=Config(BROKEN, 5)))
    read = agent._read_policy(state)
    assert read is not None
    assert (read.policy.synchronous_mode, read.policy.ttl_s, read.is_broken) == ("on", 7.0, True)


async def test_an_agent_that_has_read_a_good_one_keeps_it(start: Callable[[], Agent]) -> None:
    agent = start()
    good = agent._state()._replace(policy=replace(agent._state().policy, ttl_s=9.0), policy_revision=4)
    read = agent._read_policy(good._replace(cluster=view(config=Config(BROKEN, 5))))
    assert read is not None
    assert (read.policy, read.is_broken) == (good.policy, True)


# -- the end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_armed", [True, False])
async def test_the_lease_is_given_back_only_where_no_server_is_guarded(
    start: Callable[[], Agent], monkeypatch: pytest.MonkeyPatch, is_armed: bool
) -> None:
    """A server that could not be seen may write until its deadline: nobody may be elected before that."""
    agent, revoked = start(), []

    async def revoke(lease_id: int) -> None:
        revoked.append(lease_id)

    monkeypatch.setattr(agent._store, "revoke_lease", revoke)
    agent._loop.state = agent._state()._replace(lease=Lease(LEASE, after(now(), 5.0)))
    if is_armed:
        agent._link.page.arm(nanoseconds(after(now(), 5.0)), 1, 1)
    await agent._leave()
    assert revoked == ([] if is_armed else [LEASE])


# -- lease -----------------------------------------------------------------------------------------------------


async def test_a_successor_adopts_the_lease_to_which_the_key_was_being_moved(start: Callable[[], Agent]) -> None:
    agent = start()
    page, deadline, limit = agent._link.page, after(now(), 60.0), after(now(), 3.0)
    page.lease_id, page.term = LEASE, TERM
    page.arm(nanoseconds(deadline), 1, 1)
    agent._link.limit(limit, 8)
    agent._adopt_lease()
    (fact,) = posted(agent)
    assert isinstance(fact, LeaseAdopted)
    assert (fact.lease_id, fact.term) == (LEASE, TERM)
    assert fact.tried is not None
    assert fact.tried.lease_id == 8
    # On the way through seconds a nanosecond may get lost, but none is won.
    assert 0 <= page.tried_deadline_ns - nanoseconds(fact.tried.deadline) <= 1
    assert page.deadline_ns == nanoseconds(limit)


async def test_the_limit_of_a_move_stays_until_its_end_is_known(start: Callable[[], Agent]) -> None:
    agent = start()
    link, page = agent._link, agent._link.page
    page.lease_id = LEASE
    link.limit(after(now(), 3.0), 8)
    known = Lease(LEASE, after(now(), 3.0), TERM)
    agent._lift_limit(leading(lease=Lease()))
    agent._lift_limit(leading(lease=replace(known, tried=LeaseTried(8, after(now(), 3.0)))))
    moving = UnderWay(MoveLeader(LeaderKey("a", LEASE, 9), TTL_S), now())
    agent._lift_limit(leading(lease=known, under_way=(moving,)))
    assert (page.tried_lease_id, page.lease_id) == (8, LEASE)
    agent._lift_limit(leading(lease=known))
    assert (page.tried_lease_id, page.lease_id) == (0, LEASE)
    link.limit(after(now(), 3.0), 8)
    agent._lift_limit(leading(lease=replace(known, lease_id=8)))
    assert (page.tried_lease_id, page.lease_id) == (0, 8)


# -- memory ----------------------------------------------------------------------------------------------------


async def recalled(agent: Agent, tmp_path: Path, armed_in: int) -> ClusterRecalled:
    """What the agent recalls of a cluster that it led in TERM, when the page is armed in that term (0: not at all)."""
    memory = Memory(tmp_path / "data.hamgr-cluster.json", ScopeKeys.of("main"))
    memory.note(view(term_revision=9))
    await memory._write()
    page = agent._link.page
    page.lease_id, page.term, page.deadline_ns = LEASE, armed_in, nanoseconds(after(now(), 60.0))
    if armed_in:
        page.arm(page.deadline_ns, 1, 1)
    agent._adopt_lease()
    posted(agent)
    remembering = asyncio.create_task(agent._remember())
    await until(lambda: not agent._loop._facts.empty(), "the cluster is recalled")
    remembering.cancel()
    (fact,) = posted(agent)
    assert isinstance(fact, ClusterRecalled)
    return fact


async def test_a_lead_that_the_page_vouches_for_is_recalled(start: Callable[[], Agent], tmp_path: Path) -> None:
    fact = await recalled(start(), tmp_path, TERM)
    assert (fact.view.revision, fact.view.term, fact.view.is_led_by("a")) == (0, TERM, True)


@pytest.mark.parametrize("armed_in", [0, TERM + 1], ids=["not armed", "in another term"])
async def test_a_lead_that_may_have_been_given_up_since_is_not_recalled(
    start: Callable[[], Agent], tmp_path: Path, armed_in: int
) -> None:
    fact = await recalled(start(), tmp_path, armed_in)
    assert fact.view.leader is None
    assert fact.view.members, "the rest is"


async def test_a_cluster_that_has_been_read_is_not_recalled(
    start: Callable[[], Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "RECALL_AFTER_S", 0.0)
    agent = start()
    agent._loop.state = agent._loop.state._replace(cluster=view())
    noted: list[str] = []

    async def run() -> None:
        noted.append("run")

    monkeypatch.setattr(agent._memory, "run", run)
    await agent._remember()
    assert posted(agent) == []
    assert noted == ["run"]


# -- the file is read again --------------------------------------------------------------------------------------


class Reloading:
    """An agent that answers REST and calls peers, and whose file can be rewritten."""

    def __init__(self, tmp_path: Path, agent: Agent) -> None:
        self.file = tmp_path / "hamgr.yml"
        self.agent = agent
        self.logins: list[ServerConfig] = []

    async def use_logins(self, wanted: ServerConfig) -> None:
        self.logins.append(wanted)

    def write(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))


@pytest.fixture
async def reloading(tmp_path: Path, start: Callable[[], Agent]) -> AsyncIterator[Reloading]:
    agent = start()
    made = Reloading(tmp_path, agent)
    config = replace(translate.api_config(agent._loaded.settings), host="127.0.0.1", port=0)
    agent._api = await rest.start(config, cast(AgentPort, None))
    wanted = translate.server_config(agent._loaded.settings, agent._loaded.seed)
    agent._world = cast(World, SimpleNamespace(server=made, wanted=lambda: wanted, front=None))
    yield made
    await agent._api.close()
    await agent._peers.close()


async def test_a_file_that_cannot_be_read_is_told_and_changes_nothing(reloading: Reloading) -> None:
    loaded = reloading.agent._loaded
    reloading.write("scope: main", "scope: [")
    (told,) = await reloading.agent._reload()
    assert "not valid YAML" in told
    assert reloading.agent._loaded is loaded
    assert reloading.logins == []


async def test_members_ask_and_answer_by_the_new_password(reloading: Reloading) -> None:
    agent = reloading.agent
    reloading.write("restapi: {", "restapi: {authentication: {username: u, password: new}, ")
    assert await agent._reload() == ()
    assert agent._api is not None
    assert (agent._api._api.config.username, agent._api._api.config.password) == ("u", "new")
    assert agent._peers._access.password == "new"
    assert len(reloading.logins) == 1


async def test_connections_to_etcd_are_made_anew_only_where_they_would_be_others(reloading: Reloading) -> None:
    agent = reloading.agent
    connections = agent._client.connections
    before = connections.config
    assert await agent._reload() == ()
    assert connections.config is before
    reloading.write("etcd3: {", "etcd3: {username: agent, password: new, ")
    assert await agent._reload() == ()
    assert connections.config.password == agent._renewal._config.password == "new"


async def test_what_waits_for_a_restart_is_named(reloading: Reloading, caplog: pytest.LogCaptureFixture) -> None:
    reloading.write('listen: "127.0.0.1:8008"', 'listen: "127.0.0.1:8009"')
    reloading.write("name: a", "name: z")
    with caplog.at_level("WARNING"):
        await reloading.agent._reload()
    named = {record.args[0] for record in caplog.records if isinstance(record.args, tuple) and len(record.args) == 1}
    assert named == {"restapi.listen", "name", "guard.runtime_dir"}
