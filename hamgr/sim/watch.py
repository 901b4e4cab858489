"""The watch of one agent on etcd's keys: every change comes a moment later, and after a gap all is read again."""

from __future__ import annotations

from hamgr.core.cluster import ClusterView, Status
from hamgr.core.facts import ClusterRecalled, ClusterSeen, StoreFailed
from hamgr.sim.agent import Agent

RETRY_S = (0.3, 1.0)
RECALL_AFTER_S = 0.5


class Watch:
    """Runs as part of its agent's process. At most one delivery is on its way at a time."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._is_coming = False
        self._seen = 0
        self._memory: ClusterView | None = None
        """What the member's file remembers of the cluster; it outlives agent and host."""
        agent.ground.etcd.after_write.append(self.tell)

    def begin(self) -> None:
        """It reads everything, and watches from there on."""
        self._is_coming, self._seen = False, 0
        self._send()
        self._agent.at(self._agent.ground.now + RECALL_AFTER_S, self._recall)

    def tell(self) -> None:
        """Something was written."""
        if not self._is_coming and self._agent.is_running:
            self._send()

    def _send(self) -> None:
        agent, ground = self._agent, self._agent.ground
        self._is_coming = True
        late_s = ground.network.from_etcd_s(agent.name) if ground.etcd.answers else None
        if late_s is None or ground.network.is_cut(agent.name, "etcd"):
            agent.at(ground.later(RETRY_S), self._try_again)
            return
        view = ground.etcd.view(agent.clock_now())
        agent.at(ground.later(ground.pace.watch) + late_s, lambda: self._deliver(view))

    def _deliver(self, view: ClusterView) -> None:
        agent = self._agent
        self._is_coming, self._seen = False, view.revision
        known = agent.state.cluster
        if known is None or known.revision < view.revision:
            self._memory = view
            agent.post(ClusterSeen(view))
        if agent.ground.etcd.revision > view.revision:
            self._send()

    def _try_again(self) -> None:
        agent = self._agent
        self._is_coming = False
        if not agent.ground.etcd.answers or agent.ground.network.is_cut(agent.name, "etcd"):
            agent.post(StoreFailed(agent.clock_now(), "the watch has no connection"))
        self._send()

    def _recall(self) -> None:
        """etcd is silent: a fresh agent goes by what its member remembered, less what changes all the time. The lead
        that it remembers of itself counts only if the guard's page vouches for it.
        """
        agent, view = self._agent, self._memory
        if view is None or agent.state.cluster is not None:
            return
        is_vouched_for = agent.page.armed and agent.page.term == view.term
        leader = view.leader if not view.is_led_by(agent.name) or is_vouched_for else None
        known = view._replace(
            revision=0,
            seen_at=agent.clock_now(),
            leader=leader,
            status=Status(),
            request=None,
            ballots=(),
            members=tuple(member._replace(state="unknown") for member in view.members),
        )
        agent.ground.say(agent.name, "etcd is silent: the agent goes by what was remembered of the cluster")
        agent.post(ClusterRecalled(known))
