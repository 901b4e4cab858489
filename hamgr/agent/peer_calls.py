"""Actions on the other members: a leader that etcd does not answer asks them for their promises. DESIGN.md 5.8."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hamgr.agent.clock import now
from hamgr.agent.peers import NoPromise
from hamgr.agent.world import World
from hamgr.core import actions
from hamgr.core.outcomes import PeersAnswered
from hamgr.core.policy import deadline_of, longest_ask_of
from hamgr.core.result import Outcome, Result
from hamgr.core.units import Instant, after


async def ask_peers(world: World, action: actions.AskPeers) -> Outcome:
    """Every peer has promised, and the guard's deadline has moved on; else it is told who did not, and why.

    First all are asked whether they would (a ttl of 0 binds nobody). The deadline counts from the second round.
    """
    give_up_at = after(now(), longest_ask_of(world.state().policy.ttl_s))
    sent_at = now()
    for ttl_s in (0.0, action.ttl_s):
        sent_at = now()
        body = _claim(world, action, ttl_s)
        missing = await world.peers.ask(action.peers, body, max(0.0, give_up_at - sent_at))
        if missing:
            return _refused(action, sent_at, missing)
    world.link.extend(deadline_of(sent_at, action.ttl_s), action.term)
    return Outcome(Result.DONE, value=PeersAnswered(sent_at))


def _claim(world: World, action: actions.AskPeers, ttl_s: float) -> dict[str, Any]:
    """Patroni's body, with term and ttl."""
    me = world.state().me
    urls = {"conn_url": me.conn_url, "api_url": me.api_url}
    return {"name": me.name, "term": action.term, "ttl": ttl_s, **urls, "slots": {}}


def _refused(action: actions.AskPeers, sent_at: Instant, missing: Mapping[str, NoPromise]) -> Outcome:
    is_alone = len(missing) == len(action.peers) and all(one.is_local for one in missing.values())
    words = "; ".join(f"{name}: {one.why}" for name, one in missing.items())
    value = PeersAnswered(sent_at, {name: one.why for name, one in missing.items()}, is_alone)
    return Outcome(Result.FAILED, "peers", f"not promised by {words}", value)


PEER_CALLS: dict[type, Callable[[World, Any], Awaitable[Outcome]]] = {actions.AskPeers: ask_peers}
