# ruff: noqa: ASYNC221 -- a test has the loop to itself
"""What is an illness of a real server and what only looks like one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from pglab import Lab, as_root, at, has_all_of, streams, wait_until

from hamgr.api.samples import epoch_of
from hamgr.core.quorum import SyncRule
from hamgr.core.server import Phase
from hamgr.postgres import configuration, health, knock, sql
from hamgr.postgres.health import PROBE_BYTES, PROBE_FILE, Door
from hamgr.postgres.server import LocalServer
from hamgr.postgres.versions import version

T = TypeVar("T")


async def closed(door: Door) -> Door:
    if door.connection is not None:
        await door.connection.close()
    return door


async def in_time(work: Awaitable[T]) -> T:
    return await asyncio.wait_for(work, 20)


async def hangs(work: Awaitable[object]) -> bool:
    """It has not ended by the time that a check of a server that is well takes many times over."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=1.0)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    return not done


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def postmaster(server: LocalServer) -> int:
    assert server.identity is not None
    return server.identity.pid


@asynccontextmanager
async def all_taken(server: LocalServer) -> AsyncIterator[list[sql.Connection]]:
    """Sessions of superusers on every connection that there is."""
    taken: list[sql.Connection] = []
    try:
        with contextlib.suppress(Exception):
            while True:
                taken.append(await sql.connect(server.config))
        yield taken
    finally:
        for connection in taken:
            await connection.close()


# -- connections -----------------------------------------------------------------------------------------------


async def test_a_server_that_is_well_gives_a_connection_and_commits_on_it(lab: Lab) -> None:
    one = await lab.primary()
    before = (await one.probe()).written_lsn
    door = await in_time(one.open_door(1.0))
    assert door.connection is not None
    assert await in_time(one.commit(door)) == ""
    assert door.connection.closed
    assert (await one.probe()).written_lsn > before


async def test_a_frozen_postmaster_gives_no_answer(lab: Lab) -> None:
    one = await lab.primary()
    with frozen([postmaster(one)]):
        assert await hangs(one.open_door(1.0))
    assert (await closed(await in_time(one.open_door(1.0)))).connection is not None


async def test_a_frozen_backend_commits_nothing(lab: Lab) -> None:
    one = await lab.primary()
    door = await in_time(one.open_door(1.0))
    assert door.connection is not None
    with frozen([door.connection.info.backend_pid]):
        assert await hangs(one.commit(door))


async def test_where_all_connections_are_taken_that_is_an_answer_and_the_kept_one_commits(lab: Lab) -> None:
    one = await lab.primary()
    await one.probe()
    async with all_taken(one) as taken:
        assert len(taken) > 10
        assert await in_time(one.open_door(1.0)) == Door()
        assert await in_time(one.commit(Door())) == ""


async def test_clients_that_take_all_they_can_leave_us_our_own(lab: Lab) -> None:
    one = await lab.primary()
    await one.query("CREATE ROLE application LOGIN PASSWORD 'a'")
    config = replace(one.config, superuser=replace(one.config.superuser, username="application", password="a"))
    with (lab.root / "one" / "pg_hba.conf").open("a") as lines:
        lines.write("local all application scram-sha-256\n")
    await one.reload()
    taken: list[sql.Connection] = []

    async def is_full() -> bool:
        with contextlib.suppress(Exception):
            while True:
                taken.append(
                    await sql.open_connection(
                        5.0,
                        host=config.local_host,
                        port=config.port,
                        user="application",
                        password="a",
                        dbname="postgres",
                    )
                )
        return bool(taken)

    try:
        await wait_until(is_full, "clients take all connections")
        doors = [await in_time(one.open_door(1.0)) for _ in range(4)]
        assert all(door.connection is not None for door in doors)
        for door in doors:
            await closed(door)
    finally:
        for connection in taken:
            await connection.close()


async def test_a_server_that_lets_nobody_in_for_now_says_so_and_that_is_an_answer(lab: Lab) -> None:
    one = await lab.primary()
    held = (await in_time(one.open_door(1.0))).connection
    assert held is not None
    try:
        os.kill(postmaster(one), signal.SIGTERM)

        async def refuses() -> bool:
            return (await closed(await in_time(one.open_door(1.0)))).is_recovering

        await wait_until(refuses, "it waits for the session to end")
        assert (await one.probe()).phase is Phase.STOPPING
        assert await in_time(one.commit(Door(held))) == ""
    finally:
        await held.close()


async def test_a_server_that_recovers_from_the_crash_of_a_backend_is_starting(lab: Lab) -> None:
    one = await lab.primary()
    assert (await one.probe()).phase is Phase.RUNNING
    checkpointer = (await one.query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))[0][0]
    held = (await in_time(one.open_door(1.0))).connection
    assert held is not None
    with frozen([held.info.backend_pid]):
        # The postmaster waits for the end of that one before it recovers; SIGKILL after five seconds ends it.
        os.kill(checkpointer, signal.SIGKILL)

        async def starts() -> bool:
            view = await one.probe(timeout_s=0.5)
            assert view.identity == one.identity
            return view.phase is Phase.STARTING and not view.answered

        await wait_until(starts, "it lets nobody in")
    await wait_until(lambda: _runs(one), "it has recovered")
    await held.close()


async def _runs(server: LocalServer) -> bool:
    view = await server.probe()
    return view.is_primary


def test_the_code_of_a_refusal_does_not_depend_on_the_servers_language() -> None:
    body = b"SFATAL\0VFATAL\0C57P03\0Mdas Datenbanksystem startet\0\0"
    assert knock.code_of(body) == "57P03"
    assert knock.code_of(b"Mno code\0\0") == "?"


async def test_a_wrong_password_of_ours_is_no_illness_of_the_server(lab: Lab) -> None:
    one = await lab.primary()
    config = replace(one.config, superuser=replace(one.config.superuser, password="wrong"))
    door = await in_time(health.open_door(config, 1.0))
    assert door == Door()
    assert await in_time(health.commit(config, sql.Sql(config), door)) is None


async def test_a_server_that_ended_gives_no_answer(lab: Lab) -> None:
    one = await lab.primary()
    await one.stop(10.0)
    assert await hangs(one.open_door(0.1))


# -- commits ---------------------------------------------------------------------------------------------------


async def test_standbys_that_do_not_acknowledge_are_no_illness(lab: Lab) -> None:
    one = await lab.primary()
    await one.set_sync(SyncRule(("gone",), 1))
    assert await in_time(one.commit(await one.open_door(1.0))) == ""


async def test_a_connection_that_is_lost_says_nothing_of_commits(lab: Lab) -> None:
    one = await lab.primary()
    door = await in_time(one.open_door(1.0))
    assert door.connection is not None
    await one.query("SELECT pg_terminate_backend(%s)", (door.connection.info.backend_pid,))
    assert await in_time(one.commit(door)) == ""


async def test_a_server_that_is_read_only_by_default_commits(lab: Lab) -> None:
    one = await lab.primary(parameters={"default_transaction_read_only": "on"})
    assert await in_time(one.commit(await one.open_door(1.0))) == ""


async def test_a_standby_whose_default_is_serializable_is_seen(lab: Lab) -> None:
    """In that mode it would answer no statement, and nobody could be elected."""
    serializable = {"default_transaction_isolation": "serializable", "default_transaction_deferrable": "on"}
    two = await lab.standby(await lab.primary(parameters=serializable), parameters=serializable)
    assert (await two.probe()).is_replica
    assert (await two.received()).streaming


@pytest.mark.parametrize("style", ["German", "SQL, DMY"])
async def test_times_are_read_whatever_the_servers_date_style_is(lab: Lab, style: str) -> None:
    one = await lab.primary(parameters={"datestyle": style, "timezone": "Europe/Berlin"})
    assert epoch_of((await one.probe()).started_at) == pytest.approx(time.time(), abs=3600)


async def test_a_commit_that_is_refused_is_an_illness_in_the_servers_words(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await lab.primary()
    monkeypatch.setattr(health, "COMMIT_OF_PRIMARY", "SELECT pg_logical_emit_message(true, 'hamgr', (1/0)::text)")
    assert "division by zero" in (await in_time(one.commit(await one.open_door(1.0))) or "")


async def test_a_server_that_is_out_of_transaction_ids_is_none_that_another_could_replace(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await lab.primary()
    out = "DO $$ BEGIN RAISE EXCEPTION 'out of ids' USING ERRCODE = '54000'; END $$"
    monkeypatch.setattr(health, "COMMIT_OF_PRIMARY", out)
    assert await in_time(one.commit(await one.open_door(1.0))) == ""


async def test_a_standby_is_no_primary_that_does_not_commit(lab: Lab) -> None:
    two = await lab.standby(await lab.primary())
    assert await in_time(two.commit(await two.open_door(1.0))) is None


# -- disks -----------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(lab: Lab, size: str = "8m") -> Iterator[Path]:
    """A file system of its own; skips where the tests do not run as root."""
    mount = lab.root / "small"
    with as_root():
        mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", mount], check=True)
    try:
        yield mount
    finally:
        with as_root():
            subprocess.run(["umount", "-l", mount], check=True)


async def test_a_disk_that_is_well_takes_the_probe_and_gets_its_room_back(lab: Lab) -> None:
    one = await lab.primary()
    assert one.write_data_disk() == ""
    assert (one.config.data_dir / PROBE_FILE).stat().st_size == PROBE_BYTES
    assert (one.config.data_dir / PROBE_FILE).stat().st_blocks * 512 < 64 * 1024
    assert one.write_wal_disk() is None


async def test_a_full_disk_is_noticed_though_the_probes_own_file_stands_there(lab: Lab) -> None:
    two = await lab.server("two")
    with small_disk(lab) as disk:
        config = replace(two.config, data_dir=disk)
        (disk / "PG_VERSION").write_text("15\n")
        (disk / "pg_wal").mkdir()
        assert health.write_data_disk(config) == ""
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"\0" * 4096)
        assert "No space left" in (health.write_data_disk(config) or "")
        (disk / "filler").unlink()
        assert health.write_data_disk(config) == ""


async def test_a_standby_without_room_for_another_segment_is_ill_for_it_could_not_be_promoted(lab: Lab) -> None:
    two = await lab.server("two")
    with small_disk(lab) as disk:
        config = replace(two.config, data_dir=disk)
        (disk / "PG_VERSION").write_text("15\n")
        (disk / "pg_wal").mkdir()
        assert health.write_data_disk(config) == ""
        (disk / "standby.signal").touch()
        assert "No space left" in (health.write_data_disk(config) or "")


async def test_a_file_system_that_became_read_only_is_noticed(lab: Lab) -> None:
    two = await lab.server("two")
    with small_disk(lab) as disk:
        config = replace(two.config, data_dir=disk)
        (disk / "PG_VERSION").write_text("15\n")
        (disk / "pg_wal").mkdir()
        with as_root():
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert "Read-only" in (health.write_data_disk(config) or "")


async def test_a_wal_file_system_of_its_own_is_looked_at_for_itself(lab: Lab) -> None:
    two = await lab.server("two")
    data = two.config.data_dir
    data.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    with small_disk(lab) as disk:
        (data / "pg_wal").symlink_to(disk)
        assert health.write_wal_disk(two.config) == ""
        with as_root():
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert "Read-only" in (health.write_wal_disk(two.config) or "")
        assert health.write_data_disk(two.config) == ""


async def test_nothing_is_written_where_no_cluster_stands(lab: Lab) -> None:
    two = await lab.server("two")
    two.config.data_dir.mkdir()
    assert "PG_VERSION" in (two.write_data_disk() or "")
    assert list(two.config.data_dir.iterdir()) == []


async def test_the_probes_file_does_not_hinder_a_clone_or_a_start(lab: Lab) -> None:
    one = await lab.primary()
    assert one.write_data_disk() == ""
    two = await lab.standby(one)
    await two.stop(10.0)
    await two.start_standby(at(one))
    await wait_until(lambda: streams(two), "two streams")


# -- settings that go with it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "reserved"), [(100, 6), (9, 3), (2, 0)])
async def test_our_reserve_leaves_a_small_server_its_connections(lab: Lab, total: int, reserved: int) -> None:
    config = replace(lab.config("one"), parameters={"max_connections": total})
    text = configuration.rendered(config, version(15), {})
    assert f"superuser_reserved_connections = '{reserved}'" in text


async def test_an_operators_reserve_stands(lab: Lab) -> None:
    config = replace(lab.config("one"), parameters={"max_connections": 100, "superuser_reserved_connections": 10})
    assert "superuser_reserved_connections = '10'" in configuration.rendered(config, version(15), {})


async def test_a_replica_streams_again_before_its_default_pause_could_be_over(lab: Lab) -> None:
    """After a restart of the primary, beside one that pauses for a minute; PostgreSQL's own pause is five seconds."""
    one = await lab.primary()
    two = await lab.standby(one)
    control = await lab.standby(one, "control", parameters={"wal_retrieve_retry_interval": "60s"})
    await one.stop(10.0)
    await wait_until(lambda: _streams_not(two), "two lost its upstream")
    await wait_until(lambda: _streams_not(control), "control lost its upstream")
    await one.start_primary()
    await wait_until(lambda: streams(two), "two streams again")
    assert not await streams(control)
    await wait_until(lambda: has_all_of(two, one), "two has all")


async def _streams_not(server: LocalServer) -> bool:
    return not await streams(server)
