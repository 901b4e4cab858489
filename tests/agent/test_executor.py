"""From action to outcome: every action has its call, every expected error its words."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import pytest

from hamgr.agent import executor
from hamgr.agent.executor import CALLS, Bug, execute
from hamgr.core import actions
from hamgr.core.actions import AFTER_PROMOTION, Action, Upstream
from hamgr.core.facts import StoreFailed
from hamgr.core.result import Outcome, Result
from hamgr.core.units import Instant, Lsn
from hamgr.dcs.errors import LeaseExpired, OutcomeUnknown, StoreRefused, StoreUnavailable
from hamgr.postgres.errors import DiskFull, Diverged, ServerBroken, ServerRefused, ServerUnavailable
from tests.agent.workbench import Bench, ids

CHECKPOINT = actions.Checkpoint(AFTER_PROMOTION)
STANDBY = actions.StartStandby(Upstream("b"))
RESTART = actions.RestartServer(5, 1.0, None, Upstream("b"))
REINITIALIZE = actions.Reinitialize(6, Upstream("b"))


def answer(monkeypatch: pytest.MonkeyPatch, action: Action, end: Any) -> None:
    """The action's call returns `end`, or raises it."""

    async def call(_world: Any, _action: Action) -> Any:
        if isinstance(end, BaseException):
            raise end
        return await end if asyncio.isfuture(end) else end

    monkeypatch.setitem(CALLS, type(action), call)


def test_every_action_but_exit_has_a_call() -> None:
    assert set(CALLS) == set(get_args(Action)) - {actions.Exit}


async def test_an_action_without_a_call_is_a_bug(bench: Bench) -> None:
    with pytest.raises(Bug, match="Exit"):
        await execute(bench.world, actions.Exit(0))


@pytest.mark.parametrize(
    ("error", "result", "code"),
    [
        (OutcomeUnknown("sent"), Result.UNKNOWN, "unknown"),
        (ServerUnavailable("slow"), Result.FAILED, "timeout"),
        (ServerRefused("no"), Result.REFUSED, "refused"),
        (Diverged("elsewhere"), Result.REFUSED, "diverged"),
        (ServerBroken("broken"), Result.FAILED, "broken"),
        (DiskFull("full"), Result.FAILED, "disk_full"),
        (PermissionError("denied"), Result.FAILED, "os"),
        (TimeoutError("late"), Result.FAILED, "os"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_an_expected_error_is_an_outcome_with_its_code_and_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, result: Result, code: str
) -> None:
    answer(monkeypatch, CHECKPOINT, error)
    assert await execute(bench.world, CHECKPOINT) == Outcome(result, code, str(error))
    assert bench.facts == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(StoreUnavailable("away"), "not_sent"), (StoreRefused("no"), "not_sent"), (LeaseExpired("gone"), "store")],
    ids=repr,
)
async def test_an_error_of_the_store_is_told_to_the_loop_as_well(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    answer(monkeypatch, CHECKPOINT, error)
    assert await execute(bench.world, CHECKPOINT) == Outcome(Result.FAILED, code, str(error))
    assert [(type(fact), getattr(fact, "text", "")) for fact in bench.facts] == [(StoreFailed, str(error))]


async def test_a_hint_is_part_of_the_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, CHECKPOINT, ServerBroken("it ended", hint="its log tells why"))
    assert (await execute(bench.world, CHECKPOINT)).text == "it ended (its log tells why)"


async def test_an_error_that_nobody_expected_goes_through(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, CHECKPOINT, ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        await execute(bench.world, CHECKPOINT)


@pytest.mark.parametrize("action", [STANDBY, actions.SetSync(None)], ids=lambda action: ids([action])[0])
@pytest.mark.parametrize("end", [Outcome(Result.DONE), ServerBroken("broken")], ids=["done", "failed"])
async def test_what_was_done_to_the_server_is_looked_at_before_its_end_is_known(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, end: object, action: Action
) -> None:
    answer(monkeypatch, action, end)
    await execute(bench.world, action)
    assert bench.log == ["probe"]


@pytest.mark.parametrize(
    "action",
    [
        actions.HandOverStop(1, "b", 1.0),
        actions.ExamineCrash(Lsn(0)),
        actions.PutDown(Lsn(0), "disk_failed", Instant(1.0), reads_wal=False),
    ],
    ids=lambda action: ids([action])[0],
)
async def test_an_offer_need_not_wait_for_a_look_at_the_server(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, action: Action
) -> None:
    answer(monkeypatch, action, Outcome(Result.DONE))
    await execute(bench.world, action)
    assert bench.log == ["probe soon"]


async def test_other_lanes_do_not_look_at_the_server(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, CHECKPOINT, Outcome(Result.DONE))
    await execute(bench.world, CHECKPOINT)
    assert bench.log == []


@pytest.mark.parametrize("action", [RESTART, REINITIALIZE], ids=["restart", "reinitialize"])
@pytest.mark.parametrize(
    ("end", "told"),
    [(Outcome(Result.DONE, text="well"), (True, "well")), (ServerBroken("broken"), (False, "broken"))],
    ids=["done", "failed"],
)
async def test_who_gave_an_order_is_told_its_end_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, action: Any, end: object, told: tuple[bool, str]
) -> None:
    heard: list[tuple[bool, str]] = []
    bench.world.order_ends[action.order_id] = lambda well, text: heard.append((well, text))
    answer(monkeypatch, action, end)
    await execute(bench.world, action)
    assert heard == [told]
    assert bench.world.order_ends == {}


async def test_who_gave_an_order_is_told_that_it_was_overtaken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bool] = []
    bench.world.order_ends[RESTART.order_id] = lambda well, _text: heard.append(well)
    answer(monkeypatch, RESTART, asyncio.get_running_loop().create_future())
    task = asyncio.create_task(execute(bench.world, RESTART))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == [False]
    assert executor.CUT_SHORT.result is Result.FAILED
