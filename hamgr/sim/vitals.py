"""The vital checks of one agent: once every loop_wait, each with a deadline of its own."""

from __future__ import annotations

from hamgr.core.actions import Clone, InitDb, Reinitialize, Rewind
from hamgr.core.facts import VitalChecked
from hamgr.core.server import DataDir, Phase, Vital
from hamgr.core.units import Instant
from hamgr.sim.agent import STUCK_LOOK_S, Agent
from hamgr.sim.postgres import Disk

REMAKING = (InitDb, Clone, Rewind, Reinitialize)

CHECKED = (Vital.CONNECTION, Vital.COMMIT, Vital.DATA_DISK)
"""The WAL is on the same file system as the data."""


class Vitals:
    """Runs as part of its agent's process. What hangs is told at its deadline, and again at each turn."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def begin(self) -> None:
        """It checks from now on."""
        self._turn()

    def _turn(self) -> None:
        agent = self._agent
        for vital in CHECKED:
            self._check(vital)
        agent.at(agent.ground.now + agent.state.policy.loop_wait_s, self._turn)

    def _check(self, vital: Vital) -> None:
        agent = self._agent
        if self._applies(vital):
            self._await(vital, agent.clock_now(), agent.ground.now + self._patience_s(vital), agent.server.generation)

    def _await(self, vital: Vital, began_at: Instant, give_up_at: float, generation: int) -> None:
        """A check ends as soon as what it hung on lets go of it, and is given up at its deadline."""
        agent = self._agent
        is_same = vital.is_of_disk or generation == agent.server.generation
        if not is_same or not self._applies(vital):
            return
        if not self._hangs(vital):
            agent.post(VitalChecked(vital, began_at, self._problem(vital)))
        elif agent.ground.now >= give_up_at:
            agent.post(VitalChecked(vital, began_at, "no answer in time", is_hung=True))
        else:
            look_at = min(agent.ground.now + STUCK_LOOK_S, give_up_at)
            agent.at(look_at, lambda: self._await(vital, began_at, give_up_at, generation))

    def _applies(self, vital: Vital) -> bool:
        server, state = self._agent.server, self._agent.state
        if any(state.running(action) for action in REMAKING):
            return False
        if vital.is_of_disk:
            return server.data_dir is DataDir.VALID
        return server.phase is Phase.RUNNING and not server.in_recovery

    def _hangs(self, vital: Vital) -> bool:
        server = self._agent.server
        if vital.is_of_disk or vital is Vital.COMMIT:
            return server.disk is Disk.HUNG or (not vital.is_of_disk and server.is_frozen)
        return server.is_frozen

    def _problem(self, vital: Vital) -> str:
        is_full = self._agent.server.disk is Disk.FULL
        return "no space left on device" if is_full and vital is not Vital.CONNECTION else ""

    def _patience_s(self, vital: Vital) -> float:
        policy = self._agent.state.policy
        return {
            Vital.CONNECTION: policy.probe_connection_timeout_s,
            Vital.COMMIT: policy.probe_commit_timeout_s,
        }.get(vital, policy.probe_disk_timeout_s)
