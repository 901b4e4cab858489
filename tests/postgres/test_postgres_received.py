"""What a replica says that it received is all that it acknowledged, also before its restart."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from pglab import Lab, at, free_port, has_all_of, wait_until

from hamgr.core.actions import Upstream
from hamgr.core.units import Lsn, Timeline
from hamgr.postgres import programs, wal
from hamgr.postgres.server import LocalServer

SEGMENT = wal.DEFAULT_SEGMENT
CALM = {"shared_buffers": "16MB", "max_connections": 20, "bgwriter_lru_maxpages": 0}
"""No page is written before its time, which would have a restarted server replay more before it lets anybody in."""
DELAYED = {**CALM, "recovery_min_apply_delay": "1h"}


async def insert(server: LocalServer, rows: int = 1) -> None:
    await server.query("INSERT INTO public.t SELECT generate_series(1, %s)", (rows,), timeout_s=20.0)


async def acknowledged(primary: LocalServer, standby: str) -> Lsn:
    """A commit was just made, whose record begins here or later and is flushed by that standby, by its own word."""
    last = (await primary.query("SELECT pg_logical_emit_message(true, 'lab', '')::text"))[0][0]
    written = (await primary.probe()).written_lsn

    async def has_it() -> bool:
        senders = (await primary.probe()).walsenders
        return any(each.application_name == standby and each.flush_lsn >= written for each in senders)

    await wait_until(has_it, f"{standby} has flushed {written}")
    return Lsn.parse(last)


async def killed_and_alone(lab: Lab, server: LocalServer) -> LocalServer:
    """The same server after a crash, streaming from nobody, and seen by a new agent."""
    await lab.guard_of(server).kill_tree()
    fresh = await lab.again(server)
    await fresh.start_standby(Upstream())
    return fresh


async def no_program(*_: object, **__: object) -> programs.Ended:
    raise AssertionError("a program was run")


async def pid_of(server: LocalServer, backend_type: str) -> int:
    statement = "SELECT pid FROM pg_stat_activity WHERE backend_type = %s"
    return int((await server.query(statement, (backend_type,)))[0][0])


async def has_asked_for_wal(server: LocalServer) -> bool:
    return bool((await server.query("SELECT pg_last_wal_receive_lsn() IS NOT NULL"))[0][0])


async def replayed(server: LocalServer) -> Lsn:
    return (await server.probe()).replayed_lsn


async def test_restarted_replica_counts_wal_that_it_acknowledged_and_has_not_replayed(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one, parameters=DELAYED)
    await insert(one, 1000)
    committed = await acknowledged(one, "two")
    two = await killed_and_alone(lab, two)
    found = await two.received()
    assert await replayed(two) <= committed
    assert (found.timeline, found.streaming) == (1, False)
    assert found.lsn > committed


async def test_restarted_replica_counts_segments_that_it_has_not_replayed_and_reads_the_last_only(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await lab.primary()
    two = await lab.standby(one, parameters=DELAYED)
    await insert(one)
    await one.query("SELECT pg_switch_wal()")
    await insert(one, 400_000)
    committed = await acknowledged(one, "two")
    two = await killed_and_alone(lab, two)
    ran: list[Sequence[str]] = []
    run = programs.run

    async def watched(argv: Sequence[str], *, timeout_s: float, keep_out: int | None = None) -> programs.Ended:
        ran.append(argv)
        return await run(argv, timeout_s=timeout_s, keep_out=keep_out)

    monkeypatch.setattr(programs, "run", watched)
    assert (await two.received()).lsn > committed
    assert committed > await replayed(two) + 2 * SEGMENT
    assert [Lsn.parse(argv[argv.index("-s") + 1]) > committed - 2 * SEGMENT for argv in ran] == [True]
    await lab.guard_of(two).kill_tree()
    ran.clear()
    assert (await two.stopped_position()).lsn > committed
    dumps = [argv for argv in ran if "-s" in argv]
    assert [Lsn.parse(argv[argv.index("-s") + 1]) > committed - 2 * SEGMENT for argv in dumps] == [True]


async def test_restarted_replica_whose_wal_ends_with_a_segment_has_nothing_to_read(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await lab.primary(parameters={**CALM, "autovacuum": "off"})
    two = await lab.standby(one)
    await acknowledged(one, "two")
    # It writes now and then of its own accord.
    os.kill(await pid_of(one, "background writer"), signal.SIGSTOP)
    await one.query("SELECT pg_switch_wal()")
    await wait_until(lambda: has_all_of(two, one), "two has all")
    await lab.guard_of(one).kill_tree()
    end = (await two.received()).lsn
    assert end % SEGMENT == 0
    two = await killed_and_alone(lab, two)

    async def has_replayed_all() -> bool:
        return await replayed(two) == end

    await wait_until(has_replayed_all, "two has replayed all")
    monkeypatch.setattr(programs, "run", no_program)
    assert (await two.received()).lsn == end


async def test_restarted_replica_is_on_the_timeline_that_it_received_on_before_and_after_it_replays_that(
    lab: Lab,
) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    three = await lab.standby(one, "three", parameters=CALM)
    await insert(one)
    # So that nothing of timeline 2 stands where replay will be.
    await one.query("SELECT pg_switch_wal()")
    await acknowledged(one, "two")
    await acknowledged(one, "three")
    await one.stop(10.0)
    promotion = await two.promote(10.0, old_timeline=Timeline(1))
    await two.ensure_slots(["three"])
    await three.follow(at(two))
    await insert(two, 1000)
    committed = await acknowledged(two, "three")
    await three.apply_config(DELAYED, None)
    await lab.guard_of(three).kill_tree()
    three = await lab.again(three)
    stopped = await three.stopped_position()
    assert stopped.timeline == 2
    assert stopped.lsn > committed
    assert (await three.probe()).timeline == 2
    await three.start_standby(Upstream())
    assert (await three.probe()).timeline == 2
    found = await three.received()
    assert await replayed(three) < promotion.lsn
    assert found.timeline == 2
    assert found.lsn > committed
    assert (await three.check_history(at(two))).local.lsn > committed
    await three.apply_config(CALM, None)

    async def has_replayed_all() -> bool:
        return await replayed(three) > committed

    await wait_until(has_replayed_all, "three has replayed all")
    again = await three.received()
    assert (again.timeline, again.lsn) >= (found.timeline, found.lsn)
    await three.follow(Upstream("gone", "127.0.0.1", free_port()))
    await wait_until(lambda: has_asked_for_wal(three), "three has asked for WAL")
    again = await three.received()
    assert (again.timeline, again.lsn) >= (found.timeline, found.lsn)


async def test_replica_that_knows_of_a_timeline_and_received_nothing_on_it_is_not_on_it(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one, parameters=DELAYED)
    await insert(one, 1000)
    committed = await acknowledged(one, "two")
    (two.config.data_dir / "pg_wal" / "00000002.history").write_text(
        f"1\t{Lsn(committed + SEGMENT)}\tno recovery target\n"
    )
    two = await killed_and_alone(lab, two)
    found = await two.received()
    assert found.timeline == 1
    assert found.lsn > committed
    await lab.guard_of(two).kill_tree()
    assert (await two.stopped_position()).timeline == 1


async def test_replica_that_streamed_since_its_start_is_not_read_from_disk(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await insert(one)
    committed = await acknowledged(one, "two")
    await two.probe()
    monkeypatch.setattr(programs, "run", no_program)
    assert (await two.received()).lsn > committed
    await two.stop_receiver()
    assert (await two.received()).lsn > committed


async def test_replica_whose_receiver_ended_is_on_the_timeline_that_it_received_last(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    three = await lab.standby(two, "three")
    await one.stop(10.0)
    assert (await three.probe()).timeline == 1
    await two.promote(10.0, old_timeline=Timeline(1))
    await insert(two, 10)
    await wait_until(lambda: has_all_of(three, two), "three has all")
    await three.stop_receiver()
    assert (await three.received()).timeline == 2
    assert (await three.probe()).timeline == 2


def _file(data_dir: Path, number: int, address: int) -> None:
    path = data_dir / "pg_wal" / wal.segment_name(Timeline(1), number, SEGMENT)
    path.write_bytes(struct.pack("=HHIQ", 0xD110, 2, 1, address) + bytes(16))


def test_segment_that_was_only_made_ready_is_not_begun(pg_tmp: Path) -> None:
    (pg_tmp / "pg_wal").mkdir()
    assert wal.last_begun(pg_tmp, Timeline(1), Lsn(3 * SEGMENT + 40), SEGMENT) is None
    _file(pg_tmp, 3, 3 * SEGMENT)
    _file(pg_tmp, 4, 4 * SEGMENT)
    _file(pg_tmp, 5, 2 * SEGMENT)
    _file(pg_tmp, 6, 6 * SEGMENT)
    assert wal.last_begun(pg_tmp, Timeline(1), Lsn(3 * SEGMENT + 40), SEGMENT) == 4 * SEGMENT
    assert wal.last_begun(pg_tmp, Timeline(1), Lsn(5 * SEGMENT), SEGMENT) is None
