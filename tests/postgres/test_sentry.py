# ruff: noqa: ASYNC240 -- a test has the loop to itself
"""The sentry in a real server, with neither guard nor agent about."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from pglab import DEADLINE_S, Lab, children, wait_until

from hamgr.agent.guardlink import watched_page
from hamgr.guard.layout import PAGE_NAME, SharedPage, boottime_ns
from hamgr.postgres import sentry, sql
from hamgr.postgres.errors import ServerBroken, ServerRefused, ServerUnavailable
from hamgr.postgres.sentry import APPLICATION
from hamgr.postgres.server import LocalServer
from tests.guard.bench import living

SECOND_NS = 1_000_000_000
SENTRIES = f"SELECT pid, xact_start FROM pg_stat_activity WHERE application_name = '{APPLICATION}' AND state = 'active'"
BUSY = "DO $$ BEGIN LOOP PERFORM count(*) FROM generate_series(1, 1000); END LOOP; END $$"


class Watched:
    """A server with a sentry, and the page that it watches."""

    def __init__(self, lab: Lab, server: LocalServer) -> None:
        self.server = server
        self.page = SharedPage.open(str(lab.root))
        self.watched = watched_page(str(lab.root), self.page)

    async def sentries(self) -> list[int]:
        return [pid for pid, _ in await self.server.query(SENTRIES)]

    def tree(self) -> list[int]:
        assert self.server.identity is not None
        return [self.server.identity.pid, *children(self.server.identity.pid)]

    def arm(self, in_s: float) -> int:
        """Armed with a deadline so far off, which is returned."""
        deadline_ns = boottime_ns() + int(in_s * SECOND_NS)
        self.page.arm(deadline_ns, 0, 0)
        return deadline_ns

    async def next_look(self) -> None:
        """The sentry has looked at the page since this was called."""
        for _ in range(2):
            begun = [begun for _, begun in await self.server.query(SENTRIES)]
            assert begun
            await wait_until(lambda begun=begun: self._began_another(begun), "the sentry looks")

    async def _began_another(self, begun: list[object]) -> bool:
        return [each for _, each in await self.server.query(SENTRIES)] != begun


@pytest.fixture
async def place(lab: Lab) -> Watched:
    """A primary with its sentry."""
    made = Watched(lab, await lab.primary())
    assert await made.server.ensure_sentry(made.watched)
    return made


async def end_of(tree: list[int]) -> int:
    """When nothing of it was left, in nanoseconds since boot."""
    end_ns = boottime_ns() + int(DEADLINE_S * SECOND_NS)
    while living(tree):
        assert boottime_ns() < end_ns, f"still there: {living(tree)}"
        await asyncio.sleep(0.001)
    return boottime_ns()


async def busy_session(server: LocalServer) -> None:
    """A backend computes and never looks up."""
    connection = await sql.connect(server.config)
    connection.pgconn.send_query(BUSY.encode())
    busy = f"SELECT 1 FROM pg_stat_activity WHERE pid = {connection.pgconn.backend_pid} AND state = 'active'"

    async def computes() -> bool:
        return bool(await server.query(busy))

    await wait_until(computes, "it is busy")
    await connection.close()


async def test_nothing_of_the_server_is_left_at_the_deadline(place: Watched) -> None:
    await busy_session(place.server)
    tree = place.tree()
    assert len(tree) > 7
    deadline_ns = place.arm(1.5)
    assert deadline_ns - SECOND_NS // 2 < await end_of(tree) < deadline_ns


async def test_a_stopped_postmaster_is_no_hindrance(place: Watched) -> None:
    await busy_session(place.server)
    tree = place.tree()
    os.kill(tree[0], signal.SIGSTOP)
    deadline_ns = place.arm(1.5)
    assert await end_of(tree) < deadline_ns


async def test_what_a_backend_runs_beside_itself_ends_too(place: Watched) -> None:
    """An archiver's shell is in the process group of the archiver."""
    connection = await sql.connect(place.server.config)
    connection.pgconn.send_query(b"COPY (SELECT 1) TO PROGRAM 'sleep 1000'")
    backend = connection.pgconn.backend_pid

    async def runs() -> bool:
        return bool(children(backend))

    await wait_until(runs, "the program runs")
    tree = [*place.tree(), *children(backend)]
    deadline_ns = place.arm(1.5)
    assert await end_of(tree) < deadline_ns
    await connection.close()


async def test_the_kill_goes_on_when_the_sentry_dies_over_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = "is_ours $2 && kill -s STOP $2\n"
    assert begun in sentry.KILL_SERVER
    dying = begun + "kill -s KILL $PPID; while is_ours $PPID; do :; done\n"
    monkeypatch.setattr(sentry, "KILL_SERVER", sentry.KILL_SERVER.replace(begun, dying))
    place = Watched(lab, await lab.primary())
    await place.server.ensure_sentry(place.watched)
    tree = place.tree()
    deadline_ns = place.arm(1.5)
    assert await end_of(tree) < deadline_ns


async def test_a_session_that_is_lost_before_it_watches_is_no_sentry(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(_connection: sql.Connection, _sql: sql.Sql) -> None:
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    place = Watched(lab, await lab.primary())
    monkeypatch.setattr(sentry, "_wait_until_it_sleeps", lost)
    with pytest.raises(ServerUnavailable, match="no sentry: server closed"):
        await place.server.ensure_sentry(place.watched)


async def test_another_server_on_this_host_is_left_alone(lab: Lab, place: Watched) -> None:
    other = await lab.primary("other")
    place.arm(0.5)
    await end_of(place.tree())
    assert (await other.probe()).is_primary


async def test_a_deadline_that_moves_on_or_is_disarmed_or_fenced_harms_nobody(place: Watched) -> None:
    for _ in range(5):
        place.arm(1.0)
        await place.next_look()
    place.page.disarm()
    place.page.deadline_ns = boottime_ns()
    await place.next_look()
    place.page.fenced_arming = place.page.arming + 1
    place.page.arming += 1
    await place.next_look()
    place.arm(1000)
    place.page.deadline_ns = 0
    await place.next_look()
    assert len(await place.sentries()) == 1


async def test_it_needs_no_client_and_survives_a_cancelled_statement(place: Watched) -> None:
    """Whoever started it has closed the connection since: all looks here are without a client."""
    (pid,) = await place.sentries()
    assert await place.server.query(f"SELECT pg_cancel_backend({pid})") == [(True,)]
    await place.next_look()
    assert await place.sentries() == [pid]


async def test_time_limits_of_the_role_do_not_end_it(lab: Lab) -> None:
    place = Watched(lab, await lab.primary())
    for limit in ("statement_timeout", "idle_in_transaction_session_timeout", "client_connection_check_interval"):
        await place.server.query(f"ALTER ROLE postgres SET {limit} = '50ms'")
    assert await place.server.ensure_sentry(place.watched)
    (pid,) = await place.sentries()
    await place.next_look()
    assert await place.sentries() == [pid]


async def test_there_are_never_two(place: Watched) -> None:
    assert not await place.server.ensure_sentry(place.watched)
    (pid,) = await place.sentries()
    connection = await sql.connect(place.server.config)
    await connection.execute(sentry.watch_statement(place.watched).encode())
    await connection.close()
    assert await place.sentries() == [pid]


async def test_one_that_hangs_in_a_step_of_the_clock_is_woken(place: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sentry counts as stuck here: it is cancelled, and goes on."""
    monkeypatch.setattr(sentry, "STUCK_S", -1.0)
    (pid,) = await place.sentries()
    assert not await place.server.ensure_sentry(place.watched)
    monkeypatch.undo()
    await place.next_look()
    assert await place.sentries() == [pid]


@pytest.mark.parametrize("other_page", ["gone", "of another boot"])
async def test_it_ends_with_its_page_and_can_be_had_again(lab: Lab, place: Watched, other_page: str) -> None:
    if other_page == "gone":
        (lab.root / PAGE_NAME).unlink()
    else:
        place.page.boot_id_low ^= 1

    async def over() -> bool:
        return not await place.sentries()

    await wait_until(over, "it has ended")
    place.page = SharedPage.open(str(lab.root))
    assert await place.server.ensure_sentry(watched_page(str(lab.root), place.page))


async def test_a_page_that_cannot_be_read_is_said(lab: Lab, place: Watched) -> None:
    other = await lab.primary("other")
    for path, said in (("/proc/1/environ", "could not open file"), ("/nowhere", "no such page")):
        with pytest.raises(ServerRefused, match=said):
            await other.ensure_sentry(replace(place.watched, path=path))


async def test_a_server_with_a_clock_of_its_own_gets_none(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Watched(lab, await lab.primary())
    monkeypatch.setattr(sentry.time, "clock_gettime", lambda _: 1.0)
    with pytest.raises(ServerBroken, match="boot clock"):
        await place.server.ensure_sentry(place.watched)


async def test_it_holds_no_snapshot_for_long(place: Watched) -> None:
    """What VACUUM may remove, and what waits for old transactions, moves on."""
    oldest = "SELECT backend_xmin::text::int8 FROM pg_stat_activity WHERE application_name = %s"

    async def moved(first: int) -> bool:
        ((xmin,),) = await place.server.query(oldest, (APPLICATION,))
        return xmin is not None and xmin > first

    ((first,),) = await place.server.query("SELECT txid_current()")
    await place.server.query("SELECT txid_current()")
    await wait_until(lambda: moved(first), "its xmin passes that transaction")


async def test_it_runs_on_a_standby_and_through_its_promotion(lab: Lab) -> None:
    primary = await lab.primary()
    standby = await lab.standby(primary)
    place = Watched(lab, standby)
    assert await standby.ensure_sentry(place.watched)
    (pid,) = await place.sentries()
    before = await standby.probe()
    place.arm(1000)
    await standby.promote(DEADLINE_S, old_timeline=before.timeline)
    assert await place.sentries() == [pid]
    tree = place.tree()
    place.page.deadline_ns = deadline_ns = boottime_ns() + SECOND_NS
    assert await end_of(tree) < deadline_ns
    assert (await primary.probe()).is_primary


async def test_on_a_standby_that_is_not_promoted_it_ends_by_itself(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry, "USELESS_S", 0.5)
    primary = await lab.primary()
    idle, busy = Watched(lab, await lab.standby(primary)), Watched(lab, primary)
    for place in (idle, busy):
        assert await place.server.ensure_sentry(place.watched)

    async def has_ended() -> bool:
        return not await idle.sentries()

    await wait_until(has_ended, "it has ended")
    assert await busy.sentries()


async def test_a_fast_stop_finds_it_asleep(place: Watched) -> None:
    (pid,) = await place.sentries()
    await place.server.stop(DEADLINE_S)
    assert not Path(f"/proc/{pid}").exists() or not living([pid])
    assert "aborting any active transactions" in (place.server.config.data_dir.parent / "one.log").read_text()
