"""Light agents against a real etcd: they form clusters, keep their leases, and elect as agents do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hamgr.dcs import codec
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Put, Txn
from hamgr.drill.store import Store
from hamgr.fleet.agent import NAMESPACE, SYSTEM_IDENTIFIER, LightAgent, revoke
from hamgr.fleet.findings import delays_of
from hamgr.fleet.samples import Samples
from hamgr.fleet.witness import Witness
from tests.dcs.etcd_members import until

DEADLINE_S = 40.0
"""For what takes a second or a lease."""


@asynccontextmanager
async def cluster(store: Store, room: Path, samples: Samples) -> AsyncIterator[dict[str, LightAgent]]:
    """Three agents of one cluster, settled."""
    etcd = EtcdConfig(tuple(store.endpoints))
    keys = ScopeKeys.of("c1", NAMESPACE)
    async with EtcdClient(etcd) as client:
        settings = codec.encode_json({"ttl": 5, "loop_wait": 1})
        await client.txn(Txn(then=(Put(keys.initialize, SYSTEM_IDENTIFIER), Put(keys.config, settings))))
    agents = {name: LightAgent("c1", name, 3, etcd, room / name, samples) for name in "abc"}
    try:
        for agent in agents.values():
            agent.start()
        await until(lambda: all(agent.standing().is_settled for agent in agents.values()), DEADLINE_S)
        yield agents
    finally:
        for agent in agents.values():
            await agent.end()


def leaders(agents: dict[str, LightAgent]) -> list[str]:
    return [name for name, agent in agents.items() if agent.standing().leads]


async def test_cluster_has_what_real_agents_enter(store: Store, tmp_path: Path) -> None:
    async with cluster(store, tmp_path, Samples()) as agents:
        (leader,) = leaders(agents)
        keys = {key.removeprefix("/fleet/c1/"): value for key, value in store.dump().items() if "/fleet/" in key}
    assert keys["leader"] == leader
    assert keys.keys() >= {"term", "failsafe", "members/a", "members/b", "members/c", "initialize", "config"}
    assert json.loads(keys[f"members/{leader}"])["role"] == "primary"


async def test_lost_leader_is_followed_by_another_that_won_by_ballots(store: Store, tmp_path: Path) -> None:
    samples = Samples()
    async with cluster(store, tmp_path, samples) as agents, EtcdClient(EtcdConfig(tuple(store.endpoints))) as client:
        (leader,) = leaders(agents)
        lost = agents.pop(leader)
        async with Witness(client, "c1") as witness:
            lease_id = lost.lease_id
            await lost.end()
            await revoke(client, lease_id)
            vacancy_s = await witness.vacancy_s(DEADLINE_S)
        assert vacancy_s is not None
        await until(lambda: len(leaders(agents)) == 1, DEADLINE_S)
        await until(lambda: store.get("/fleet/c1/failovers/2") is not None, DEADLINE_S)
        record = json.loads(store.get("/fleet/c1/failovers/2") or "")
    assert (record["former"], record["leader"]) == (leader, leaders(agents)[0])
    assert record["ballots"].keys() == agents.keys()


async def test_ended_agents_lease_runs_out_and_is_not_called_lost(store: Store, tmp_path: Path) -> None:
    samples = Samples()
    async with cluster(store, tmp_path, samples) as agents, EtcdClient(EtcdConfig(tuple(store.endpoints))) as client:
        (leader,) = leaders(agents)
        async with Witness(client, "c1") as witness:
            await agents.pop(leader).end()
            assert witness.gone_at_s is None
            assert await witness.vacancy_s(DEADLINE_S) is not None
        await until(lambda: len(leaders(agents)) == 1, DEADLINE_S)
    assert samples.lost_leases == []


async def test_living_agents_lost_lease_is_noticed(store: Store, tmp_path: Path) -> None:
    samples = Samples()
    async with cluster(store, tmp_path, samples) as agents, EtcdClient(EtcdConfig(tuple(store.endpoints))) as client:
        replica = next(name for name in agents if name not in leaders(agents))
        await revoke(client, agents[replica].lease_id)
        await until(lambda: samples.lost_leases == [f"c1/{replica}"], DEADLINE_S)


async def test_positions_of_a_leader_that_is_written_to_reach_all_watches(store: Store, tmp_path: Path) -> None:
    samples = Samples()
    async with cluster(store, tmp_path, samples) as agents:
        samples.take()
        for agent in agents.values():
            agent.write(True)
        await until(lambda: len(samples.sent) >= 3, DEADLINE_S)
        for agent in agents.values():
            agent.write(False)
        await until(lambda: delays_of(samples.sent, samples.seen, 3).unseen == 0, DEADLINE_S)
    assert samples.renewals_s


def test_survey_measures_each_step_and_writes_page_and_json(tmp_path: Path) -> None:
    options = ["--clusters", "1,2", "--window", "1", "--elections", "1", "--on", "loopback"]
    paths = ["--json", str(tmp_path / "scale.json"), "--markdown", str(tmp_path / "scale.md")]
    ran = subprocess.run(
        [sys.executable, "-m", "hamgr.fleet", *options, *paths],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    value = json.loads((tmp_path / "scale.json").read_text())
    assert ran.returncode == (0 if value["is_good"] else 1)
    assert [(step["agents"], step["single"]["lost"], step["storm"]["lost"]) for step in value["steps"]] == [
        (3, 1, 1),
        (6, 1, 1),
    ]
    for step in value["steps"]:
        assert step["single"]["not_taken"] == step["storm"]["not_taken"] == 0
        assert step["idle"]["renewals"]["count"] > 0
        assert step["busy"]["load"]["proposals_per_s"] > step["idle"]["load"]["proposals_per_s"]
    assert "## 3,000 agents, on paper" in (tmp_path / "scale.md").read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--clusters", "10,3"], "give growing numbers"),
        (["--clusters", "many"], "give growing numbers"),
        (["--ttl", "2", "--loop-wait", "30"], "loop_wait"),
        (["--json", "/absent/scale.json"], "no file can be written"),
    ],
)
def test_survey_that_cannot_be_made_is_refused_at_once(options: list[str], says: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "hamgr.fleet", *options], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 2
    assert says in ran.stderr
