"""Random faults in the miniature world, by seed: it stays safe throughout, and once faults stop somebody leads."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from core.world import Upset, World
from hamgr.core import facts
from hamgr.core.cluster import Request
from hamgr.core.units import Instant

SEEDS = int(os.environ.get("HAMGR_WORLDS", "60"))
NAMES = ("alpha", "beta", "gamma")
STEPS = 12
RECOVERY_S = 60.0
UPSETTABLE = ("TakeLeader", "PutOffer", "WithdrawOffer", "ReleaseLeader", "StartPrimary", "Promote", "HandOverStop")

Fault = Callable[[World, random.Random, str], None]


def crash(world: World, _dice: random.Random, name: str) -> None:
    if world.agents[name].server.is_alive:
        world.crash_server(name)


def hang(world: World, _dice: random.Random, name: str) -> None:
    if world.agents[name].server.is_alive:
        world.agents[name].server.is_hung = True


def lose_host(world: World, _dice: random.Random, name: str) -> None:
    world.lose_host(name)


def start_agent(world: World, _dice: random.Random, name: str) -> None:
    if not world.agents[name].is_alive:
        world.start_agent(name)


def kill_agent(world: World, _dice: random.Random, name: str) -> None:
    world.stop_agent(name)


def cut(world: World, _dice: random.Random, name: str) -> None:
    world.cut_off.add(name)


def isolate(world: World, _dice: random.Random, name: str) -> None:
    world.cut_off.add(name)
    world.isolated.add(name)


def heal(world: World, _dice: random.Random, _name: str) -> None:
    world.cut_off.clear()
    world.isolated.clear()
    world.etcd_answers = True


def stop_store(world: World, _dice: random.Random, _name: str) -> None:
    world.etcd_answers = False


def lag(world: World, _dice: random.Random, name: str) -> None:
    world.agents[name].server.receives = not world.agents[name].server.receives


def switch(world: World, dice: random.Random, name: str) -> None:
    leader = world.etcd.get("leader")
    if leader and world.etcd_answers:
        world.request(Request(leader=leader, candidate=dice.choice(("", name))))


def terminate(world: World, _dice: random.Random, name: str) -> None:
    world.agents[name].post(facts.StopOrdered(Instant(world.now)))


def order(world: World, dice: random.Random, name: str) -> None:
    kind = dice.choice(("restart", "reinitialize"))
    world.agents[name].post(facts.Ordered(dice.randrange(1_000_000), kind, Instant(world.now)))


def upset(world: World, dice: random.Random, name: str) -> None:
    how = dice.choice(("lost reply", "fail"))
    world.upsets[name, dice.choice(UPSETTABLE)] = Upset(how, "timeout", dice.randrange(1, 4))


def hold(world: World, dice: random.Random, name: str) -> None:
    """A transaction that is long on its way, and takes effect when nobody expects it any more."""
    kind = dice.choice(("PutOffer", "ReleaseLeader", "WithdrawOffer", "TakeLeader", "CastBallot"))
    world.upsets[name, kind] = Upset("hold")


def let_go(world: World, _dice: random.Random, name: str) -> None:
    world.release_held(name)


FAULTS: tuple[Fault, ...] = (
    crash, crash, hang, lose_host, start_agent, start_agent, kill_agent, cut, isolate, heal, heal, stop_store, lag,
    switch, terminate, order, upset, upset, hold, hold, let_go, let_go,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(SEEDS))
def test_world_stays_safe_and_comes_back(seed: int) -> None:
    dice = random.Random(seed)
    world = World()
    for name in NAMES:
        world.add(name)
    assert world.run_until(lambda: all(a.server.is_writable or a.server.streaming for a in world.agents.values()), 20.0)
    for _ in range(STEPS):
        world.write(dice.choice((100, 5000)))
        dice.choice(FAULTS)(world, dice, dice.choice(NAMES))
        world.run(dice.choice((0.0, 0.003, 0.02, 0.3, 1.0, 3.0, 8.0)))
    recover(world)
    assert world.run_until(lambda: is_well(world), RECOVERY_S), f"seed {seed}: {standing(world)}"


def recover(world: World) -> None:
    world.etcd_answers = True
    world.cut_off.clear()
    world.isolated.clear()
    world.upsets.clear()
    for name in NAMES:
        world.release_held(name)
    for name, agent in world.agents.items():
        agent.server.receives, agent.server.is_hung = True, False
        if not agent.is_alive:
            world.start_agent(name)


def is_well(world: World) -> bool:
    """One leads and was seen to accept writes; the others stream from it."""
    for name, agent in world.agents.items():
        if not agent.is_alive:
            world.start_agent(name)
    leader = world.agents.get(world.etcd.get("leader", ""))
    if leader is None or not leader.server.is_writable or leader.state.verified_term != world.etcd.get("term"):
        return False
    others = [agent for agent in world.agents.values() if agent is not leader]
    return all(a.server.streaming and a.server.upstream == world.address(leader.name) for a in others)


def standing(world: World) -> str:
    words = [f"{a.name}: {a.said[-1][1]}, server {a.server.phase.value}" for a in world.agents.values()]
    return f"{world.etcd.get('leader')} leads; " + "; ".join(words)
