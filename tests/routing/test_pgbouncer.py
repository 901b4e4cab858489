"""A pool is held and let go at the admin console of a real PgBouncer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg
import pytest

from hamgr.routing.errors import RouteError
from hamgr.routing.pgbouncer import Pool, hold, resume, slow_retry
from hamgr.routing.release import OwnServer, release
from hamgr.routing.session import Refused, session
from hamgr.routing.targets import point
from tests.postgres.pglab import Lab, free_port
from tests.routing.frontlab import Pgbouncer, port_of, wait_until


async def in_use(bouncer: Pgbouncer) -> int:
    """Server connections of any state."""
    rows = await bouncer.admin("SHOW SERVERS")
    return len(rows)


async def waiting(bouncer: Pgbouncer) -> int:
    """Clients that wait for a server connection."""
    async with session(bouncer.pool.fields) as console:
        return sum(int(row["cl_waiting"] or 0) for row in await console.ask("SHOW POOLS"))


async def test_clients_of_a_held_pool_wait_and_go_on_when_it_is_released(bouncer: Pgbouncer) -> None:
    async with await bouncer.client() as client:
        await port_of(client)
        await hold(bouncer.pool)
        assert await in_use(bouncer) == 0
        asked = asyncio.create_task(port_of(client))
        await wait_until(lambda: _has(waiting(bouncer), 1), "the client waits")
        assert await release(bouncer.pool, bouncer.own) == ""
        assert await asked == bouncer.own.port


async def _has(counted: object, wanted: int) -> bool:
    return await counted == wanted  # type: ignore[misc]


async def test_a_running_transaction_ends_before_the_pool_is_held(bouncer: Pgbouncer) -> None:
    async with await bouncer.client() as client:
        await client.execute("BEGIN")
        held = asyncio.create_task(hold(bouncer.with_pool(pause_timeout_s=20.0)))
        await wait_until(bouncer.is_pausing, "the pause has begun")
        async with await bouncer.client() as other:
            asked = asyncio.create_task(port_of(other))
            await wait_until(lambda: _has(waiting(bouncer), 1), "the other client waits")
            assert not held.done()
            await client.execute("COMMIT")
            await held
            assert await in_use(bouncer) == 0
            await release(bouncer.pool, bouncer.own)
            assert await asked == bouncer.own.port


async def test_a_transaction_that_does_not_end_leaves_the_pool_going_on(bouncer: Pgbouncer) -> None:
    async with await bouncer.client() as client, await bouncer.client() as other:
        await client.execute("BEGIN")
        with pytest.raises(RouteError, match=r"not held: server connections were still in use .*\(1 of them"):
            await hold(bouncer.with_pool(pause_timeout_s=0.2))
        assert await port_of(other) == bouncer.own.port
        await client.execute("COMMIT")


async def test_a_client_in_session_pooling_keeps_the_pool_from_being_held(lab: Lab) -> None:
    primary = await lab.primary()
    bouncer = Pgbouncer(lab.root / "bouncer", primary.config, pool_mode="session")
    await bouncer.start()
    try:
        async with await bouncer.client() as client:
            await port_of(client)
            with pytest.raises(RouteError, match="session pooling"):
                await hold(bouncer.with_pool(pause_timeout_s=0.2))
            assert await port_of(client) == bouncer.own.port
    finally:
        bouncer.stop()


async def test_clients_that_come_while_it_is_held_and_pointed_elsewhere_wait_as_well(
    bouncer: Pgbouncer, lab: Lab
) -> None:
    other = await lab.primary("other")
    async with await bouncer.client() as client:
        await port_of(client)
        await hold(bouncer.pool)
        await point(bouncer.pool, bouncer.target, other.config.connect_host, other.config.port)
        late = [asyncio.create_task(bouncer.client()) for _ in range(3)]
        await wait_until(lambda: _has(waiting(bouncer), 3), "all three wait")
        await release(bouncer.pool, OwnServer(other.config.connect_host, other.config.port, bouncer.own.login))
        for each in late:
            async with await each as newcomer:
                assert await port_of(newcomer) == other.config.port
        assert await port_of(client) == other.config.port


async def test_a_pool_that_somebody_paused_before_counts_as_held(bouncer: Pgbouncer) -> None:
    async with await bouncer.client() as client:
        await port_of(client)
        await bouncer.admin("PAUSE")
        await hold(bouncer.pool)
        assert await in_use(bouncer) == 0
        await release(bouncer.pool, bouncer.own)
        assert await port_of(client) == bouncer.own.port


async def test_only_the_databases_that_are_named_are_held(bouncer: Pgbouncer) -> None:
    await bouncer.admin("RELOAD")
    pool = bouncer.with_pool(databases=("template1", "with-dash"))
    async with await bouncer.client("template1") as named, await bouncer.client() as other:
        await port_of(named)
        await port_of(other)
        await hold(pool)
        asked = asyncio.create_task(port_of(named))
        await wait_until(lambda: _has(waiting(bouncer), 1), "the client of the named database waits")
        assert await port_of(other) == bouncer.own.port
        assert await release(pool, bouncer.own) == ""
        assert await asked == bouncer.own.port


async def test_a_pool_that_is_not_there_is_said_to_be_so_and_nothing_waits(bouncer: Pgbouncer) -> None:
    bouncer.stop()
    with pytest.raises(RouteError, match=r"pool 127.0.0.1:\d+ was not held: .*refused"):
        await hold(bouncer.pool)
    with pytest.raises(RouteError, match=r"was not released: .*refused"):
        await release(bouncer.pool, bouncer.own)


async def test_a_wrong_password_is_named_and_the_pool_goes_on(bouncer: Pgbouncer) -> None:
    async with await bouncer.client() as client:
        for call in (hold, lambda pool: release(pool, bouncer.own)):
            with pytest.raises(RouteError, match="SASL authentication failed") as caught:
                await call(bouncer.with_pool(password="wrong"))
            assert "wrong" not in str(caught.value)
        assert await port_of(client) == bouncer.own.port


async def test_a_user_who_is_no_admin_is_named_and_the_pool_goes_on(bouncer: Pgbouncer) -> None:
    login = bouncer.own.login
    with pytest.raises(RouteError, match=r"not held: .*(not allowed|admin)"):
        await hold(bouncer.with_pool(username=login["user"], password=login["password"]))
    async with await bouncer.client() as client:
        assert await port_of(client) == bouncer.own.port


async def test_a_frozen_pool_costs_a_bounded_time(bouncer: Pgbouncer) -> None:
    assert bouncer.program is not None
    bouncer.program.freeze()
    async with asyncio.timeout(20.0):
        with pytest.raises(RouteError, match="no connection within"):
            await hold(bouncer.pool)
        with pytest.raises(RouteError, match="no connection within"):
            await release(bouncer.pool, bouncer.own)


async def test_a_pool_that_freezes_while_it_is_being_held_costs_a_bounded_time(bouncer: Pgbouncer) -> None:
    assert bouncer.program is not None
    async with await bouncer.client() as client:
        await client.execute("BEGIN")
        held = asyncio.create_task(hold(bouncer.with_pool(pause_timeout_s=2.0)))
        await wait_until(bouncer.is_pausing, "the pause has begun")
        async with await bouncer.client() as other:
            asked = asyncio.create_task(port_of(other))
            await wait_until(lambda: _has(waiting(bouncer), 1), "the other client waits")
            bouncer.program.freeze()
            with pytest.raises(RouteError, match="could not be resumed"):
                async with asyncio.timeout(20.0):
                    await held
            bouncer.program.thaw()
            await release(bouncer.pool, bouncer.own)
            assert await asked == bouncer.own.port
        await client.execute("COMMIT")


async def test_a_pool_that_nobody_held_is_released_without_a_word(bouncer: Pgbouncer) -> None:
    async with await bouncer.client() as client:
        await port_of(client)
        assert await release(bouncer.pool, bouncer.own) == ""
        assert await release(bouncer.pool, OwnServer("127.0.0.1", free_port(), bouncer.own.login)) == ""


async def test_the_pool_is_let_go_only_when_it_leads_to_a_primary(bouncer: Pgbouncer, lab: Lab) -> None:
    """As in a hand-over: it leads to the old server, until the agent of its host has pointed it to the new one."""
    other = await lab.primary("other")
    await lab.servers[0].stop(10.0)
    new = OwnServer(other.config.connect_host, other.config.port, bouncer.own.login)
    await bouncer.admin("PAUSE")
    async with asyncio.timeout(20.0):
        late = asyncio.create_task(bouncer.client())
        await wait_until(lambda: _has(waiting(bouncer), 1), "a client waits")
        released = asyncio.create_task(release(bouncer.pool, new))
        await point(bouncer.pool, bouncer.target, new.host, new.port)
        assert await released == ""
        async with await late as client:
            assert await port_of(client) == new.port


async def test_a_route_that_leads_to_a_primary_by_another_address_will_do(bouncer: Pgbouncer) -> None:
    async with await bouncer.client() as client:
        await port_of(client)
        await hold(bouncer.pool)
        elsewhere = OwnServer("localhost.invalid", bouncer.own.port, bouncer.own.login)
        assert await release(bouncer.pool, elsewhere) == ""


async def test_a_route_to_a_replica_is_waited_for_and_named_and_the_pool_let_go_all_the_same(
    bouncer: Pgbouncer, lab: Lab
) -> None:
    replica = await lab.standby(lab.servers[0])
    async with await bouncer.client() as client:
        await port_of(client)
        await hold(bouncer.pool)
        await point(bouncer.pool, bouncer.target, replica.config.connect_host, replica.config.port)
        asked = asyncio.create_task(port_of(client))
        remark = await release(bouncer.pool, bouncer.own)
        assert remark.endswith(f"was resumed although 127.0.0.1:{replica.config.port}, where it leads, is a replica")
        assert await asked == replica.config.port


async def test_a_route_that_lets_hamgr_not_in_is_named_and_the_pool_let_go(bouncer: Pgbouncer) -> None:
    stranger = OwnServer("elsewhere.invalid", 1, {**bouncer.own.login, "password": "wrong"})
    async with await bouncer.client() as client:
        await port_of(client)
        await hold(bouncer.pool)
        assert "does not let hamgr in" in await release(bouncer.pool, stranger)
        assert await port_of(client) == bouncer.own.port


@pytest.mark.parametrize(("seconds", "is_warned"), [(15, True), (1, False)])
async def test_a_long_login_retry_is_warned_about(bouncer: Pgbouncer, seconds: int, is_warned: bool) -> None:
    await bouncer.admin(f"SET server_login_retry = '{seconds}'")
    async with session(bouncer.pool.fields) as console:
        assert bool(await slow_retry(console)) == is_warned


async def test_a_password_does_not_show(bouncer: Pgbouncer) -> None:
    assert bouncer.pool.password not in repr(bouncer.pool)
    assert bouncer.own.login["password"] not in repr(bouncer.own)


async def test_the_pool_is_closed_to_errors_of_clients(bouncer: Pgbouncer) -> None:
    """What a client does wrong in its transaction does not keep the pool from being held."""
    async with await bouncer.client() as client:
        with pytest.raises(psycopg.errors.SyntaxError):
            await client.execute("NONSENSE")
        await hold(bouncer.pool)
        await release(bouncer.pool, bouncer.own)


class Console:
    """Answers RESUME of each database by what `answers` has; others are resumed."""

    def __init__(self, **answers: str) -> None:
        self.answers, self.asked = answers, list[str]()

    async def ask(self, command: str) -> None:
        self.asked.append(command)
        for name, refusal in self.answers.items():
            if name in command:
                raise Refused(refusal)


async def test_one_database_that_cannot_be_resumed_keeps_no_other_waiting() -> None:
    pool = Pool("127.0.0.1", 6432, "pgbouncer", databases=("bad", "gone", "idle", "app"))
    console = Console(bad="not allowed", gone="no such database: gone", idle="database idle is not paused")
    with pytest.raises(Refused, match="not allowed"):
        await resume(pool, console)  # type: ignore[arg-type]
    assert len(console.asked) == 4
    assert await resume(replace(pool, databases=("gone", "app")), console)  # type: ignore[arg-type]
    assert not await resume(replace(pool, databases=("gone", "idle")), console)  # type: ignore[arg-type]
