"""The executor: one coroutine from action to outcome. It calls the world and decides nothing."""

from __future__ import annotations

import asyncio

from hamgr.agent.clock import now
from hamgr.agent.journal import LOGGER
from hamgr.agent.peer_calls import PEER_CALLS
from hamgr.agent.route_calls import ROUTE_CALLS
from hamgr.agent.server_calls import SERVER_CALLS
from hamgr.agent.store_calls import STORE_CALLS
from hamgr.agent.world import World
from hamgr.core.actions import (
    Action,
    ExamineCrash,
    HandOverStop,
    Lane,
    PutDown,
    Reinitialize,
    RestartServer,
    SetSync,
)
from hamgr.core.facts import StoreFailed
from hamgr.core.result import NOT_SENT, Outcome, Result
from hamgr.dcs.errors import LeaseExpired, OutcomeUnknown, StoreError, StoreRefused, StoreUnavailable
from hamgr.postgres.errors import ServerError, ServerRefused, ServerUnavailable

CALLS = {**SERVER_CALLS, **STORE_CALLS, **PEER_CALLS, **ROUTE_CALLS}
CUT_SHORT = Outcome(Result.FAILED, "overtaken", "cut short: the server was fenced, or this agent ends")


class Bug(Exception):
    """An invariant failed. The agent ends, and the guard starts a fresh one, which adopts server and lease; a server
    that leads goes on meanwhile, to its deadline at the latest.
    """


async def execute(world: World, action: Action) -> Outcome:
    """Carry the action out. Never raises but for cancellation and bugs: an error is an outcome with its words."""
    try:
        outcome = await _attempt(world, action)
        await _look(world, action)
    except asyncio.CancelledError:
        _tell_end(world, action, CUT_SHORT)
        raise
    _tell_end(world, action, outcome)
    return outcome


async def _look(world: World, action: Action) -> None:
    """See what the action did to the server."""
    if isinstance(action, HandOverStop | ExamineCrash | PutDown):
        # The pidfd has told of the server's end: the offer need not wait for another look at the disk, which may hang.
        world.probe_soon()
    elif action.lane is Lane.SERVER or isinstance(action, SetSync):
        await world.probe()


def _tell_end(world: World, action: Action, outcome: Outcome) -> None:
    """Whoever ordered it learns how it ended: done, failed or cut short."""
    if isinstance(action, RestartServer | Reinitialize):
        tell = world.order_ends.pop(action.order_id, None)
        if tell is not None:
            tell(outcome.result is Result.DONE, outcome.text)


async def _attempt(world: World, action: Action) -> Outcome:
    call = CALLS.get(type(action))
    if call is None:
        raise Bug(f"no call for {type(action).__name__}")
    try:
        return await call(world, action)
    except OutcomeUnknown as error:
        return Outcome(Result.UNKNOWN, "unknown", str(error))
    except StoreError as error:
        world.post(StoreFailed(now(), str(error)))
        # A lease that is gone may have been there for a try that was not answered.
        is_void = isinstance(error, StoreUnavailable | StoreRefused) and not isinstance(error, LeaseExpired)
        return Outcome(Result.FAILED, NOT_SENT if is_void else "store", str(error))
    except ServerUnavailable as error:
        return Outcome(Result.FAILED, "timeout", _words(error))
    except ServerError as error:
        return Outcome(Result.REFUSED if isinstance(error, ServerRefused) else Result.FAILED, error.code, _words(error))
    except OSError as error:
        LOGGER.debug("%s", action, exc_info=error)
        return Outcome(Result.FAILED, "os", str(error))


def _words(error: ServerError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)
