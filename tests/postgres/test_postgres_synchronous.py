"""Synchronous replication on real servers: in force when it is said to be, and no acknowledgement after a vote."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from pglab import Lab, at, has_all_of, streams, wait_until

from hamgr.core.quorum import ALONE, BLOCKED, SyncRule
from hamgr.core.units import Lsn
from hamgr.postgres import promote as promotion
from hamgr.postgres import receiver, sql, synchronous
from hamgr.postgres.errors import ServerUnavailable
from hamgr.postgres.promote import COMMIT
from hamgr.postgres.server import LocalServer

GONE = SyncRule(("gone",), 1)
TWO = SyncRule(("two",), 1)


async def shown(server: LocalServer) -> str:
    return str((await server.query("SHOW synchronous_standby_names"))[0][0])


async def pid_of(server: LocalServer, backend_type: str) -> int:
    statement = "SELECT pid FROM pg_stat_activity WHERE backend_type = %s"
    return int((await server.query(statement, (backend_type,)))[0][0])


@asynccontextmanager
async def client(server: LocalServer) -> AsyncIterator[sql.Connection]:
    """A session whose commits wait for standbys, as a client's do."""
    connection = await sql.connect(server.config)
    try:
        await connection.execute("SET synchronous_commit = on")
        yield connection
    finally:
        await connection.close()


async def test_a_promotion_of_a_server_that_takes_no_configuration_fails_in_time_and_not_for_ever(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synchronous, "IN_FORCE_S", 0.5)
    two = await lab.standby(await lab.primary())
    timeline = (await two.probe()).timeline
    broken = two.config.data_dir / "postgresql.auto.conf"
    before = broken.read_text()
    broken.write_text(before + "no such line\n")
    with pytest.raises(ServerUnavailable, match="not in force"):
        await two.promote(10.0, old_timeline=timeline, sync=GONE)
    assert (await two.probe()).is_replica
    broken.write_text(before)
    monkeypatch.undo()
    await two.promote(10.0, old_timeline=timeline, sync=GONE)
    assert await shown(two) == GONE.text


async def waits_for_standbys(server: LocalServer) -> bool:
    """A commit of a client is seen to wait, or returns: False."""
    async with client(server) as connection:
        commit = asyncio.ensure_future(connection.execute(COMMIT.encode()))
        statement = "SELECT coalesce(wait_event, '') FROM pg_stat_activity WHERE pid = %s"
        while not commit.done():
            rows = await server.query(statement, (connection.info.backend_pid,))
            if rows[0][0] == "SyncRep":
                await server.query("SELECT pg_cancel_backend(%s)", (connection.info.backend_pid,))
                await commit
                return True
            await asyncio.sleep(0.001)
        return False


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def soon_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synchronous, "IN_FORCE_S", 0.3)


# -- in force --------------------------------------------------------------------------------------------------


async def test_a_rule_is_in_force_when_it_is_set_and_gone_when_it_is_taken_back(lab: Lab) -> None:
    one = await lab.primary(parameters={"shared_buffers": "16MB", "synchronous_standby_names": ""})
    await one.set_sync(GONE)
    assert await waits_for_standbys(one)
    assert (await one.probe()).sync_names == GONE.text
    await one.set_sync(ALONE)
    assert (await one.probe()).sync_names == ""
    await wait_until(lambda: _waits_not(one), "commits are free")


async def _waits_not(server: LocalServer) -> bool:
    return not await waits_for_standbys(server)


async def test_a_rule_wins_over_what_is_configured_and_altered_and_without_one_that_holds_again(lab: Lab) -> None:
    parameters = {"shared_buffers": "16MB", "synchronous_standby_names": "configured"}
    one = await lab.primary(parameters=parameters)
    assert await shown(one) == "configured"
    await one.set_sync(ALONE)
    assert await shown(one) == ""
    await one.query("ALTER SYSTEM SET synchronous_standby_names = 'altered'")
    await one.set_sync(GONE)
    assert await shown(one) == GONE.text
    await one.set_sync(None)
    assert await shown(one) == "configured"
    await one.set_sync(None)


async def test_a_rule_outlives_the_server(lab: Lab) -> None:
    one = await lab.primary()
    await one.set_sync(GONE)
    await one.stop(10.0)
    await one.start_primary()
    assert await waits_for_standbys(one)


async def test_a_standby_that_has_it_all_lets_commits_go(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await one.set_sync(TWO)
    async with client(one) as connection:
        lsn = (await (await connection.execute(COMMIT.encode())).fetchone() or ("0/0",))[0]
    assert (await two.received()).lsn >= Lsn.parse(lsn)


@pytest.mark.usefixtures("soon_given_up")
async def test_a_rule_is_not_in_force_before_commits_are_seen_to_wait_and_then_the_former_stands(lab: Lab) -> None:
    one = await lab.primary()
    with frozen(await pid_of(one, "checkpointer")):
        with pytest.raises(ServerUnavailable):
            await one.set_sync(GONE)
        assert not await waits_for_standbys(one)
    await wait_until(lambda: _shows(one, ""), "the former rule")
    assert not await waits_for_standbys(one)


async def _shows(server: LocalServer, text: str) -> bool:
    return await shown(server) == text


async def _may_release(server: LocalServer) -> bool:
    """The sender streams and has heard what its standby has: before that it releases no commit."""
    return bool(await server.query("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_priority > 0"))


@pytest.mark.usefixtures("soon_given_up")
async def test_a_rule_is_not_in_force_while_a_sender_goes_by_the_former(lab: Lab) -> None:
    one = await lab.primary()
    await lab.standby(one)
    await one.set_sync(TWO)
    await wait_until(lambda: _may_release(one), "the sender may release commits")
    with frozen(await pid_of(one, "walsender")):
        with pytest.raises(ServerUnavailable):
            await one.set_sync(GONE)
        await wait_until(lambda: _shows(one, TWO.text), "the former rule")
    await one.set_sync(GONE)
    assert await waits_for_standbys(one)


@pytest.mark.usefixtures("soon_given_up")
async def test_a_sender_that_was_told_no_position_yet_may_go_by_the_former_rule_as_soon_as_it_is(lab: Lab) -> None:
    """pg_receivewal tells none; nor does a standby in its first moment."""
    one = await lab.primary()
    await one.set_sync(TWO)
    received, config = lab.root / "received", one.config
    received.mkdir()
    dsn = f"host={config.sockets} port={config.port} user={config.superuser.username} application_name=two"
    program = [str(one.bin_dir / "pg_receivewal"), "-D", str(received), "-d", dsn, "-w"]
    password = {"PGPASSWORD": config.superuser.password}
    receiver = await asyncio.create_subprocess_exec(*program, env=os.environ | password)
    try:
        await wait_until(lambda: _streams(one), "it streams")
        with pytest.raises(ServerUnavailable):
            await one.set_sync(GONE)
    finally:
        receiver.kill()
        await receiver.wait()
    await one.set_sync(GONE)


async def _streams(server: LocalServer) -> bool:
    return bool(await server.query("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"))


# -- promotion -------------------------------------------------------------------------------------------------


async def test_nothing_is_acknowledged_before_the_rule_of_a_promotion_is_in_force(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await one.stop(10.0)
    before: list[str] = []
    promote = promotion.promote

    async def watched(*given: object, **named: object) -> promotion.Promotion:
        before.append(await shown(two))
        return await promote(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(promotion, "promote", watched)
    await two.promote(10.0, old_timeline=(await two.probe()).timeline, sync=GONE)
    assert before == [BLOCKED.text]
    assert await shown(two) == GONE.text
    assert await waits_for_standbys(two)


async def test_a_promotion_without_synchronous_mode_takes_an_old_rule_away(lab: Lab) -> None:
    one = await lab.primary()
    await one.set_sync(GONE)
    two = await lab.standby(one)
    assert await shown(two) == GONE.text
    await one.stop(10.0)
    await two.promote(10.0, old_timeline=(await two.probe()).timeline)
    assert not await waits_for_standbys(two)


# -- the receiver ----------------------------------------------------------------------------------------------


async def test_a_replica_whose_receiver_was_stopped_acknowledges_nothing_more(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await two.stop_receiver()
    final = (await two.received()).lsn
    await one.query("INSERT INTO public.t SELECT generate_series(1, 100)")
    await wait_until(lambda: _is_forgotten(one), "the sender is gone")
    assert (await two.received()).lsn == final
    assert (await two.received()).streaming is False
    await two.follow(at(one))
    await wait_until(lambda: has_all_of(two, one), "two has all again")


async def _is_forgotten(server: LocalServer) -> bool:
    return not (await server.probe()).walsenders


async def test_a_receiver_ends_even_while_a_query_holds_recovery_up(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await one.query("INSERT INTO public.t SELECT generate_series(1, 100)")
    await wait_until(lambda: has_all_of(two, one), "two has all")
    reader = await sql.connect(two.config)
    try:
        await reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await reader.execute("SELECT count(*) FROM public.t")
        await one.query("DELETE FROM public.t")
        await one.query("VACUUM public.t")
        await wait_until(lambda: _is_held_up(two), "replay waits for the query")
        await two.stop_receiver()
        assert await two.query("SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walreceiver'") == []
    finally:
        await reader.close()


async def _is_held_up(server: LocalServer) -> bool:
    statement = "SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'"
    return str((await server.query(statement))[0][0]).startswith("RecoveryConflict")


async def test_a_receiver_that_does_not_end_is_no_stopped_receiver(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "STOP_S", 0.3)
    one = await lab.primary()
    two = await lab.standby(one)
    with frozen(await pid_of(two, "walreceiver")), pytest.raises(ServerUnavailable):
        await two.stop_receiver()


async def test_a_standby_of_whoever_it_was_streams_from_there_again(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await two.stop(10.0)
    await two.start_standby(None)
    await wait_until(lambda: streams(two), "two streams")
