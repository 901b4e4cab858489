"""The agent's actions on pools and load balancers, against a real PgBouncer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from hamgr.agent.executor import execute
from hamgr.agent.front import Front
from hamgr.agent.journal import LOGGER
from hamgr.core import actions
from hamgr.core.actions import Upstream
from hamgr.core.result import Result
from hamgr.core.route_outcomes import RouteNotes
from hamgr.core.state import State, UnderWay
from hamgr.core.units import Instant
from hamgr.routing.haproxy import Balancer
from tests.agent.workbench import TERM, Bench, dispossessed, leading, view
from tests.postgres.pglab import free_port
from tests.routing.frontlab import Haproxy, Pgbouncer, port_of, wait_until

AT = Instant(1.0)


def bench_with(bouncer: Pgbouncer, *more: object) -> Bench:
    bench = Bench(leading())
    bench.world.front = Front((bouncer.pool, *more), own=bouncer.own)  # type: ignore[arg-type]
    return bench


async def test_all_pools_are_held_and_released(bouncer: Pgbouncer) -> None:
    bench = bench_with(bouncer)
    async with await bouncer.client() as client:
        await port_of(client)
        held = await execute(bench.world, actions.HoldPools(3))
        assert (held.result, held.text) == (Result.DONE, "1 of 1 pools held")
        asked = asyncio.create_task(port_of(client))
        released = await execute(bench.world, actions.ReleasePools(TERM, AT))
        assert released.result is Result.DONE
        assert released.value == RouteNotes()
        assert await asked == bouncer.own.port


async def test_who_leads_no_more_tells_no_load_balancer(bouncer: Pgbouncer) -> None:
    """The host stood still between the decision and its push: another one is marked up meanwhile."""
    bench = bench_with(bouncer)
    bench.state = dispossessed()
    pushed = await execute(bench.world, actions.PushRoute(TERM, AT, ("db1",)))
    assert (pushed.result, pushed.code) == (Result.REFUSED, "not_entitled")


async def test_a_pool_that_is_gone_does_not_keep_the_other_from_being_held(bouncer: Pgbouncer) -> None:
    gone = replace(bouncer.pool, port=free_port())
    bench = bench_with(bouncer, gone)
    held = await execute(bench.world, actions.HoldPools(3))
    assert held.result is Result.FAILED
    assert isinstance(held.value, RouteNotes)
    (line,) = held.value.lines
    assert line.startswith(f"pool 127.0.0.1:{gone.port} was not held")
    released = await execute(bench.world, actions.ReleasePools(TERM, AT))
    assert released.result is Result.FAILED
    async with await bouncer.client() as client:
        assert await port_of(client) == bouncer.own.port


async def test_a_pool_that_is_gone_does_not_have_the_other_released_again(bouncer: Pgbouncer) -> None:
    """Not before the next verification or hold. It refuses RESUME where nothing is paused, and PAUSE where it is."""
    bench = bench_with(bouncer, replace(bouncer.pool, port=free_port()))

    async def release(verified_at: float) -> None:
        ended = await execute(bench.world, actions.ReleasePools(TERM, Instant(verified_at)))
        assert ended.result is Result.FAILED

    await release(1.0)
    await bouncer.admin("PAUSE")
    await release(1.0)
    await bouncer.admin("RESUME")
    await bouncer.admin("PAUSE")
    await release(2.0)
    await bouncer.admin("PAUSE")
    await execute(bench.world, actions.HoldPools(3))
    await release(2.0)
    await bouncer.admin("PAUSE")


def releasing() -> State:
    """The key is given up, and etcd has not answered yet."""
    return leading(under_way=(UnderWay(actions.ReleaseLeader(TERM), Instant(1.0)),))


@pytest.mark.parametrize("lost", [dispossessed, releasing])
async def test_a_pause_that_comes_after_the_lead_was_lost_is_undone(
    bouncer: Pgbouncer, lost: Callable[[], State]
) -> None:
    """As after a freeze of this agent. Whoever leads by now has released the pool already."""
    bench = bench_with(bouncer)
    async with await bouncer.client() as client:
        await client.execute("BEGIN")
        held = asyncio.create_task(execute(bench.world, actions.HoldPools(3)))
        await wait_until(bouncer.is_pausing, "the pause has begun")
        bench.state = lost()
        await client.execute("COMMIT")
        assert (await held).code == "not_entitled"
        assert await port_of(client) == bouncer.own.port


async def test_nothing_is_paused_by_a_member_that_does_not_lead(bouncer: Pgbouncer) -> None:
    bench = bench_with(bouncer)
    bench.state = dispossessed()
    assert (await execute(bench.world, actions.HoldPools(3))).code == "not_entitled"
    assert not await bouncer.is_pausing()


async def test_the_target_file_is_written_and_read_again(bouncer: Pgbouncer) -> None:
    bench = bench_with(bouncer)
    async with await bouncer.client() as client:
        await port_of(client)
        done = await execute(bench.world, actions.PointPools(Upstream("b", "127.0.0.9", 5499)))
        assert (done.result, done.text) == (Result.DONE, "to 127.0.0.9:5499")
        rows = await bouncer.admin("SHOW DATABASES")
    assert any(row[1:3] == ("127.0.0.9", 5499) for row in rows)


async def test_a_long_login_retry_is_warned_about_once(
    bouncer: Pgbouncer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGER, "propagate", False)
    bench = bench_with(bouncer)
    await bouncer.admin("SET server_login_retry = '15'")
    LOGGER.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING, "hamgr"):
            for _ in range(2):
                await execute(bench.world, actions.ReleasePools(TERM, AT))
    finally:
        LOGGER.removeHandler(caplog.handler)
    assert sum("server_login_retry is 15" in record.getMessage() for record in caplog.records) == 1


async def test_balancers_that_confirmed_are_counted_and_the_other_is_named(haproxy: Haproxy) -> None:
    haproxy.members[0].code, haproxy.members[1].code = 503, 200
    gone = Balancer("primary", host="127.0.0.1", port=free_port())
    bench = Bench(leading()._replace(me=replace(leading().me, name="db2"), cluster=view("db2")))
    bench.world.front = Front(balancers=(haproxy.balancer, gone))
    pushed = await execute(bench.world, actions.PushRoute(TERM, AT, ("db1",)))
    assert pushed.result is Result.FAILED
    assert isinstance(pushed.value, RouteNotes)
    assert pushed.value.confirmed == 1
    assert len(pushed.value.lines) == 1
    assert await haproxy.sends_to("db2")
