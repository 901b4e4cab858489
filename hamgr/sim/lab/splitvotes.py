"""How wide Raft's election timeouts have to be spread: the experiment of the paper's figure 16.

Five servers, messages that take about 15 ms there and back with their flush, a leader that crashes at a random moment
right after a broadcast, followers whose logs differ in length, so that not all are eligible.
"""

from __future__ import annotations

import random
from dataclasses import replace

from hamgr.sim.lab.field import Field, Setting
from hamgr.sim.lab.protocols import raft_node
from hamgr.sim.lab.raft import RaftNode, RaftSetting
from hamgr.sim.pace import AT_ONCE, Pace, Range

SPREADS_MS: tuple[tuple[int, int], ...] = ((150, 151), (150, 155), (150, 175), (150, 200), (150, 300))
"""As in the figure, but for 150-150, which never elects in a world where timers are exact."""
MEMBERS = 5
PATIENCE_S = 60.0
PACE = replace(Pace(), hop=(0.002, 0.004), promote=AT_ONCE, stop=AT_ONCE)
FLUSH: Range = (0.002, 0.007)
BEHIND_BYTES = 10
ELIGIBLE = 3
"""As many followers have all of the log; the others' votes are all that they can give."""


def election_s(spread_ms: tuple[int, int], seed: int) -> float:
    """Seconds from the leader's crash until another leads; PATIENCE_S if none does by then."""
    dice = random.Random(f"{spread_ms}/{seed}")
    timeout = (spread_ms[0] / 1000, spread_ms[1] / 1000)
    forming = RaftSetting(flush=FLUSH)
    narrow = replace(forming, election_timeout=timeout, heartbeat_s=timeout[0] / 2)
    field = Field(dice, Setting(MEMBERS, pace=PACE), raft_node(forming))
    for name in field.names:
        field.bring_back(name)
    leader = _await_leader(field, PATIENCE_S)
    nodes = [node for node in field.nodes.values() if isinstance(node, RaftNode)]
    for node in nodes:
        node.setting = narrow
    _run(field, 1.0 + dice.uniform(0.0, narrow.heartbeat_s))
    _make_ineligible(field, leader, dice)
    next(node for node in nodes if node.name == leader).send_heartbeats()
    crashed_at = field.ground.now
    field.lose(leader)
    return field.ground.now - crashed_at if _await_leader(field, PATIENCE_S) else PATIENCE_S


def _make_ineligible(field: Field, leader: str, dice: random.Random) -> None:
    followers = [name for name in field.names if name != leader]
    for name in dice.sample(followers, ELIGIBLE):
        field.databases[name].append(1, BEHIND_BYTES)


def _await_leader(field: Field, within_s: float) -> str:
    """Who leads as soon as somebody does; empty if nobody does in time."""
    schedule = field.ground.schedule
    end = schedule.now + within_s
    while not field.accepting():
        if schedule.next_at > end:
            return ""
        schedule.step()
    return field.accepting()[0]


def _run(field: Field, seconds: float) -> None:
    schedule = field.ground.schedule
    end = schedule.now + seconds
    while schedule.next_at <= end:
        schedule.step()
    schedule.now = end
