"""One fault on one cluster: settle, write, harm, wait, judge."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hamgr.bench.faults import Fault, Victims
from hamgr.bench.managers.manager import Node
from hamgr.bench.stage import Stage
from hamgr.drill.client import Client, is_steady, make_table, stored_numbers
from hamgr.drill.errors import DrillError
from hamgr.drill.fault import Undo
from hamgr.drill.verdict import judge

Say = Callable[[str], None]
"""Where progress goes, a short sentence at a time."""

SETTLE_TIMEOUT_S = 120.0
_STEADY_S = 1.0
_WARM_UP_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Harm:
    """When a fault was armed and undone, CLOCK_MONOTONIC ns."""

    armed_ns: int
    undone_ns: int
    came_back: bool
    """Whether writes flowed when it was undone."""


@dataclass(frozen=True, slots=True)
class End:
    """How the cluster stood at last. `settled_s`: since the fault was undone; None: not in time, for `why`."""

    primary: Node
    settled_s: float | None
    why: str = ""


def run_fault(stage: Stage, fault: Fault, say: Say) -> dict[str, Any]:
    """Carry out one fault on a formed cluster and return what came of it, as plain values.

    Raises DrillError, or psycopg.Error, where it could not be carried out or nobody is left to ask.
    """
    say("waiting until the cluster is settled")
    stage.wait_until_settled(SETTLE_TIMEOUT_S)
    stage.wait_until_at_rest(SETTLE_TIMEOUT_S)
    make_table(stage.primary().dsn, stage.password)
    client = Client(stage.client_host, stage.targets, stage.password, stage.logs / "client")
    try:
        say("client warms up")
        client.wait_until_writing(time.monotonic_ns(), _STEADY_S, _WARM_UP_TIMEOUT_S)
        # One whole period for a manager that has just settled, then any instant of the next.
        time.sleep(stage.plan.variant.period_s * (1.0 + random.random()))
        harm = _harm(stage, fault, client, say)
        say("waiting until every node is back in its place")
        end = _await_end(stage, client, harm.undone_ns)
        end_ns = time.monotonic_ns()
    finally:
        client.stop()
    return _judge(stage, fault, client, harm, end, end_ns)


def _harm(stage: Stage, fault: Fault, client: Client, say: Say) -> Harm:
    primary = stage.primary()
    victims = Victims(stage, primary, tuple(node for node in stage.nodes if node is not primary))
    say(fault.title)
    armed_ns = time.monotonic_ns()
    undo: Undo = fault.arm(victims)
    try:
        came_back = _hold(client, fault, armed_ns)
    finally:
        undone_ns = time.monotonic_ns()
        undo()
    return Harm(armed_ns, undone_ns, came_back)


def _hold(client: Client, fault: Fault, armed_ns: int) -> bool:
    """Wait as long as the fault lasts. Returns whether writes flowed at its end."""
    while True:
        time.sleep(_LOOK_EVERY_S)
        now_ns = time.monotonic_ns()
        held_s = (now_ns - armed_ns) / 1e9
        if held_s < fault.hold_s:
            continue
        flows = is_steady(client.routed.read(), armed_ns, now_ns, min(_STEADY_S, fault.hold_s))
        if flows or held_s >= fault.longest_s:
            return flows


def _await_end(stage: Stage, client: Client, undone_ns: int) -> End:
    """Wait until writes flow and every node is in its place, or that takes too long."""
    client.wait_until_writing(undone_ns, _STEADY_S, SETTLE_TIMEOUT_S)
    try:
        primary = stage.wait_until_settled(SETTLE_TIMEOUT_S)
    except DrillError as error:
        return End(stage.primary(), None, str(error))
    return End(primary, (time.monotonic_ns() - undone_ns) / 1e9)


def _judge(stage: Stage, fault: Fault, client: Client, harm: Harm, end: End, end_ns: int) -> dict[str, Any]:
    stored = {writer: stored_numbers(end.primary.dsn, stage.password, writer) for writer in ("routed", "pinned")}
    verdict = judge(
        client.routed.read(),
        client.pinned.read(),
        stored_routed=stored["routed"],
        stored_pinned=stored["pinned"],
        fault_ns=harm.armed_ns,
        end_ns=end_ns,
    )
    return {
        "gap_s": verdict.write_gap_s,
        "quiet_gap_s": verdict.quiet_gap_s,
        "two_primaries_s": verdict.two_primaries_s,
        "lost": verdict.lost,
        "lost_pinned": verdict.lost_pinned,
        "acknowledged": verdict.acknowledged,
        "timelines_twice": list(verdict.timelines_twice),
        "leaderships": list(verdict.leaderships),
        "leader_changes": verdict.leader_changes,
        "came_back": harm.came_back,
        "held_s": (harm.undone_ns - harm.armed_ns) / 1e9,
        "settled_s": end.settled_s,
        "unsettled": end.why,
    }
