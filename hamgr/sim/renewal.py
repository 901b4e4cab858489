"""The renewal of one agent's lease, as hamgr/agent/renewal.py does it: on a permit, beside the loop."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from hamgr.core.cluster import ClusterView
from hamgr.core.facts import ClusterSeen, LeaseGone, Renewed, StoreFailed
from hamgr.core.policy import deadline_of, renew_interval_of
from hamgr.core.units import Instant
from hamgr.sim.agent import Agent
from hamgr.sim.asking import NoAnswer, ask
from hamgr.sim.mutants import Mutant
from hamgr.sim.steps import Drive, Wait

RETRY_S = 0.1


class Renewal:
    """Runs as part of its agent's process."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._confirmed: tuple[int, Instant] = (0, Instant(0.0))

    def begin(self) -> None:
        """It renews from now on, for as long as this agent lives."""
        agent = self._agent
        drive = Drive(self._steps(), lambda: agent.ground.now, agent.at, lambda _outcome: None)
        drive.advance()

    def _steps(self) -> Generator[Wait, Any, Any]:
        while True:
            pause_s = yield from self._renew_once()
            yield pause_s

    def _renew_once(self) -> Generator[Wait, Any, float]:
        """Renew if there is a lease and a permit; the pause until the next time in seconds."""
        agent, ground = self._agent, self._agent.ground
        lease_id, policy = agent.lease_id, agent.state.policy
        sent_at = agent.clock_now()
        if not lease_id or sent_at >= agent.permit_until or not agent.guard.looks_alive:
            return RETRY_S
        began, within_s = ground.now, policy.retry_timeout_s
        if self._confirmed[0] == lease_id and sent_at >= self._confirmed[1]:
            answer = yield ask(ground, agent, agent.name, lambda: ground.etcd.view(sent_at), within_s / 2)
            if not isinstance(answer, ClusterView):
                return (yield from self._failed(answer, began + within_s))
            sent_at = agent.clock_now()
        answer = yield ask(ground, agent, agent.name, lambda: ground.etcd.renew(lease_id, ground.now), within_s / 2)
        ttl_s = answer
        if ttl_s == 0.0:
            return (yield from self._lost(lease_id, within_s, began))
        if not isinstance(ttl_s, NoAnswer):
            read_at = agent.clock_now()
            answer = yield ask(ground, agent, agent.name, lambda: ground.etcd.view(read_at), within_s / 2)
        if not isinstance(answer, ClusterView):
            return (yield from self._failed(answer, began + within_s))
        if ground.mutant is Mutant.LEASE_FROM_REPLY:
            sent_at = agent.clock_now()
        deadline = deadline_of(sent_at, ttl_s)
        self._confirmed = (lease_id, deadline)
        self._extend(deadline, lease_id, answer)
        agent.post(Renewed(lease_id, deadline, ttl_s, answer))
        return max(0.0, renew_interval_of(ttl_s, policy.loop_wait_s) - (ground.now - began))

    def _lost(self, lease_id: int, within_s: float, began: float) -> Generator[Wait, Any, float]:
        """The loop knows of the keys that went with the lease before it knows of the lease's end, as with the agent."""
        agent, etcd, read_at = self._agent, self._agent.ground.etcd, self._agent.clock_now()
        answer = yield ask(agent.ground, agent, agent.name, lambda: etcd.view(read_at), within_s / 2)
        if not isinstance(answer, ClusterView):
            return (yield from self._failed(answer, began + within_s))
        agent.post(ClusterSeen(answer))
        agent.post(LeaseGone(lease_id, agent.clock_now()))
        return RETRY_S

    def _failed(self, answer: NoAnswer, give_up_at: float) -> Generator[Wait, Any, float]:
        """The next try comes once this one has had its time, or soon after a refusal."""
        agent, ground = self._agent, self._agent.ground
        agent.post(StoreFailed(agent.clock_now(), f"etcd does not answer ({answer.value})"))
        if answer is NoAnswer.REFUSED and ground.pace.cuts_refuse:
            yield give_up_at - ground.now
        return RETRY_S

    def _extend(self, deadline: Instant, lease_id: int, view: ClusterView) -> None:
        """The guard's deadline moves on only if the confirming read shows us leading, by this lease, in that term."""
        agent, page = self._agent, self._agent.page
        if not page.armed:
            page.note_lease(lease_id, deadline)
            return
        leader = view.leader
        if leader is not None and (leader.name, leader.lease_id) == (agent.name, lease_id) and page.term == view.term:
            page.move_on_by_lease(deadline, lease_id)
