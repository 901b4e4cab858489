"""Peer leases: a leader asks the others for their promises, and each answers by the real rule. DESIGN.md 5.8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hamgr.core import actions, facts, peers
from hamgr.core.outcomes import PeersAnswered
from hamgr.core.policy import deadline_of, longest_ask_of
from hamgr.core.result import Outcome, Result
from hamgr.core.units import Instant
from hamgr.sim.agent import Agent
from hamgr.sim.mutants import Mutant
from hamgr.sim.steps import Resume, Steps, Wait

NO_ANSWER = "no answer in time"

Answers = dict[str, str]
"""By peer: why it did not promise; empty: it did."""


def ask_peers(agent: Agent, action: actions.AskPeers) -> Steps:
    """Every peer has promised, and the guard's deadline has moved on; else it is told who did not, and why.

    First all are asked whether they would (a ttl of 0 binds nobody). The deadline counts from the second round.
    """
    ground = agent.ground
    names = [name for name, _ in action.peers]
    give_up_at = ground.now + longest_ask_of(agent.state.policy.ttl_s)
    sent_at = agent.clock_now()
    for ttl_s in (0.0, action.ttl_s):
        sent_at = agent.clock_now()
        claim = peers.Claim(agent.name, action.term, ttl_s)
        answers: Answers = {}
        if names:
            answers = yield _ask_all(agent, names, claim, max(0.0, give_up_at - ground.now))
        refused = {name: why for name, why in answers.items() if why}
        if refused:
            return _refused(agent, sent_at, names, refused)
    if agent.page.armed and agent.page.term == action.term:
        agent.page.move_on(deadline_of(sent_at, action.ttl_s))
    return Outcome(Result.DONE, value=PeersAnswered(sent_at))


def _refused(agent: Agent, sent_at: Instant, names: list[str], refused: Answers) -> Outcome:
    is_alone = len(refused) == len(names) and agent.ground.network.is_unplugged(agent.name)
    words = "; ".join(f"{name}: {why}" for name, why in refused.items())
    return Outcome(Result.FAILED, "peers", f"not promised by {words}", PeersAnswered(sent_at, refused, is_alone))


def _ask_all(agent: Agent, names: list[str], claim: peers.Claim, within_s: float) -> Wait:
    """All at once; answered when the last of them has answered, or when the time is over."""

    def begin(resume: Resume) -> None:
        ground, missing = agent.ground, list(names)
        answers: Answers = dict.fromkeys(names, NO_ANSWER)
        give_up_at = ground.now + within_s

        def over() -> None:
            if missing:
                missing.clear()
                resume(answers)

        def answered(name: str, why: str) -> None:
            if name in missing:
                missing.remove(name)
                answers[name] = why
                if not missing:
                    resume(answers)

        for name in names:
            _ask_one(agent, name, claim, answered)
        agent.at(give_up_at, over)

    return begin


def _ask_one(agent: Agent, name: str, claim: peers.Claim, answered: Callable[[str, str], None]) -> None:
    ground, peer = agent.ground, agent.shared.agents.get(name)
    to_s = ground.network.talk_s(agent.name, name)
    if peer is None or to_s is None or not peer.is_running:
        return

    def arrive() -> None:
        why = _answer(peer, claim)
        back_s = ground.network.talk_s(name, agent.name)
        if back_s is not None:
            agent.at(ground.now + back_s, lambda: answered(name, why))

    peer.at(ground.now + to_s, arrive)


def _answer(peer: Agent, claim: peers.Claim) -> str:
    """A promise is on the page before it is known to anybody; then it binds the next decision of that member."""
    if not peer.state.policy.failsafe_mode:
        return "failsafe mode is off"
    now = peer.clock_now()
    promise = peers.answer(peer.state, now, claim)
    if promise.until is None:
        return promise.why
    if promise.until > now and peer.ground.mutant is not Mutant.PROMISE_IGNORED:
        peer.page.promise(claim.name, promise.until)
        peer.post(facts.Promised(claim.name, promise.until))
    return ""


PEER_CALLS: dict[type, Callable[[Agent, Any], Steps]] = {actions.AskPeers: ask_peers}
