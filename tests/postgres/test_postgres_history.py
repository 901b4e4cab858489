"""Who may stream from whom: twin timelines, and WAL that the upstream has removed."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from pglab import Lab, at, has_all_of, streams, wait_until

from hamgr.core.actions import Upstream
from hamgr.core.units import Lsn, Timeline
from hamgr.postgres import control, history, lineage, source, wal
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.errors import Diverged, Forked, RewindFailed, ServerError, WalGone
from hamgr.postgres.server import LocalServer


async def insert(server: LocalServer, rows: int = 1) -> None:
    await server.query("INSERT INTO public.t SELECT generate_series(1, %s)", (rows,), timeout_s=20.0)


async def count(server: LocalServer) -> int:
    return int((await server.query("SELECT count(*) FROM public.t"))[0][0])


async def promote_alone(server: LocalServer, old_timeline: int) -> Timeline:
    """A stopped server becomes primary although nobody knows what others did."""
    await server.start_standby(Upstream())
    return (await server.promote(10.0, old_timeline=Timeline(old_timeline))).timeline


async def twins(lab: Lab) -> tuple[LocalServer, LocalServer]:
    """A running primary and a stopped server, both on timeline 2, which each began by itself elsewhere."""
    one = await lab.primary()
    two = await lab.standby(one)
    await wait_until(lambda: has_all_of(two, one), "two has all")
    await two.stop(10.0)
    await insert(one, 3000)
    await one.stop(10.0)
    assert await promote_alone(two, 1) == 2
    await insert(two)
    await two.stop(10.0)
    assert await promote_alone(one, 1) == 2
    await insert(one, 3000)
    await one.checkpoint(30.0)
    return one, two


async def test_twin_timelines_have_diverged_and_only_a_clone_heals(lab: Lab) -> None:
    one, two = await twins(lab)
    with pytest.raises(Diverged, match="timeline 2 began"):
        await two.check_history(at(one))
    with pytest.raises(RewindFailed) as caught:
        await two.rewind(at(one))
    assert not caught.value.directory_touched
    await two.keep_aside()
    await one.ensure_slots(["two"])
    await two.clone(at(one))
    await two.start_standby(at(one))
    await wait_until(lambda: streams(two), "two streams")
    assert (await two.check_history(at(one))).is_wal_kept
    assert await count(two) == await count(one) == 6000


async def test_twin_of_a_parent_timeline_is_rewound(lab: Lab) -> None:
    one, two = await twins(lab)
    await one.stop(10.0)
    assert await promote_alone(one, 2) == 3
    await one.checkpoint(30.0)
    with pytest.raises(Diverged, match="timeline 2 began"):
        await two.check_history(at(one))
    assert await two.rewind(at(one))
    await one.ensure_slots(["two"])
    await two.start_standby(at(one))
    await wait_until(lambda: streams(two), "two streams")
    await two.check_history(at(one))
    assert await count(two) == await count(one) == 6000


async def test_rewind_of_a_server_that_did_not_diverge_changes_nothing(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await two.stop(10.0)
    assert not await two.rewind(at(one))
    assert (two.config.data_dir / "standby.signal").exists()


async def twins_of_one_position(lab: Lab, *, rows: int = 10, **more: Any) -> tuple[LocalServer, LocalServer]:
    """As `twins`; even the history files of both are the same. `rows`: how many the running one writes."""
    one = await lab.primary(**more)
    two = await lab.standby(one)
    await one.stop(10.0)
    await two.stop(10.0)
    for server in (two, one):
        assert await promote_alone(server, 1) == 2
        await insert(server, 5 if server is two else rows)
        if server is two:
            await server.stop(10.0)
    histories = [(server.config.data_dir / "pg_wal/00000002.history").read_text() for server in (one, two)]
    assert histories[0] == histories[1]
    return one, two


async def let_in_replicas_only(server: LocalServer) -> None:
    await server.apply_config(server.config.parameters, ["host replication replicator all scram-sha-256"])

    async def is_in_force() -> bool:
        try:
            await source.tablespaces(server.config, at(server))
        except ServerError:
            return True
        return False

    await wait_until(is_in_force, "the new pg_hba.conf is in force")


async def test_twins_promoted_from_the_same_position_are_told_apart_by_their_wal(lab: Lab) -> None:
    one, two = await twins_of_one_position(lab)
    with pytest.raises(Forked, match="other WAL"):
        await two.check_history(at(one))
    with pytest.raises(RewindFailed):
        await two.rewind(at(one))


async def test_twins_are_told_apart_also_where_only_replication_is_let_in(lab: Lab) -> None:
    one, two = await twins_of_one_position(lab)
    await let_in_replicas_only(one)
    with pytest.raises(Forked, match="other WAL"):
        await two.check_history(at(one))


@pytest.mark.parametrize("rows", [1, 10], ids=["the longer one", "the shorter one"])
async def test_twins_are_told_apart_after_one_went_on_to_the_next_timeline(lab: Lab, rows: int) -> None:
    """Its archiver has given the segment in which the timeline was left another name, and the next one has a copy.

    pg_rewind would take what both wrote on that timeline for the same.
    """
    archiving = {"archive_mode": "on", "archive_command": "false"}
    one, two = await twins_of_one_position(lab, rows=rows, parameters=archiving)
    # Stopped in order it would leave the segment, for the archiver's sake.
    await lab.guard_of(one).kill_tree()
    one = await lab.again(one)
    assert await promote_alone(one, 2) == 3
    await one.checkpoint(30.0)
    end = (await two.stopped_position()).lsn
    left = wal.segment_name(Timeline(2), end // wal.DEFAULT_SEGMENT, wal.DEFAULT_SEGMENT)
    assert (one.config.data_dir / "pg_wal" / f"{left}.partial").exists()
    with pytest.raises(Forked, match="other WAL"):
        await two.check_history(at(one))
    with pytest.raises(RewindFailed) as caught:
        await two.rewind(at(one))
    assert not caught.value.directory_touched


async def outlived(lab: Lab) -> tuple[LocalServer, LocalServer]:
    """A primary, and a stopped replica whose next WAL the primary has removed."""
    frugal = {"shared_buffers": "16MB", "wal_keep_size": 0, "min_wal_size": "32MB"}
    one = await lab.primary(use_slots=False, parameters=frugal)
    two = await lab.standby(one, use_slots=False, parameters=frugal)
    await two.stop(10.0)
    for _ in range(3):
        await insert(one)
        await one.query("SELECT pg_switch_wal()::text")
    await one.checkpoint(30.0)
    return one, two


async def test_replica_whose_next_wal_was_removed_says_so_stopped_and_running_and_is_cloned(lab: Lab) -> None:
    one, two = await outlived(lab)
    with pytest.raises(WalGone) as caught:
        await two.check_history(at(one))
    assert caught.value.code == "wal_gone"
    await two.start_standby(at(one))
    with pytest.raises(WalGone):
        await two.check_history(at(one))
    await two.stop(10.0)
    await two.keep_aside()
    await two.clone(at(one))
    await two.start_standby(at(one))
    await wait_until(lambda: streams(two), "two streams")
    assert (await two.check_history(at(one))).is_wal_kept


async def test_a_segment_that_was_left_complete_may_be_removed(lab: Lab) -> None:
    frugal = {"shared_buffers": "16MB", "wal_keep_size": 0, "min_wal_size": "32MB"}
    one = await lab.primary(parameters=frugal)
    two = await lab.standby(one, parameters=frugal)
    # Else the probes that follow may be the first to see a row of a catalog, which writes its page to WAL (hint bits).
    await one.query("VACUUM (FREEZE)", timeout_s=20.0)
    await one.query("SELECT pg_switch_wal()::text")
    await wait_until(lambda: has_all_of(two, one), "two has all")
    await two.stop(10.0)
    end = await two.stopped_position()
    left = wal.segment_name(end.timeline, end.lsn // wal.DEFAULT_SEGMENT - 1, wal.DEFAULT_SEGMENT)
    assert end.lsn % wal.DEFAULT_SEGMENT == 0, "the switch is the last record: this is another case"
    for _ in range(2):
        await insert(one)
        await one.checkpoint(30.0)
    assert not (one.config.data_dir / "pg_wal" / left).exists()
    assert (await two.check_history(at(one))).is_wal_kept


async def test_removed_wal_is_not_missed_where_an_archive_may_hold_it(lab: Lab) -> None:
    one, two = await outlived(lab)
    archived = {**two.config.parameters, "restore_command": "false"}
    await two.apply_config(archived, None)
    assert (await two.check_history(at(one))).is_wal_kept is None


async def test_removed_wal_is_missed_also_where_only_replication_is_let_in(lab: Lab) -> None:
    one, two = await outlived(lab)
    await let_in_replicas_only(one)
    with pytest.raises(WalGone):
        await two.check_history(at(one))


async def test_the_end_of_wal_at_the_end_of_a_segment_is_read_before_pg_waldump_gives_up_the_next(lab: Lab) -> None:
    one = await lab.primary()
    await one.query("SELECT pg_switch_wal()")
    await lab.guard_of(one).kill_tree()
    base = wal.base_of((await control.read_control(one.bin_dir, one.config.data_dir)).file)
    folder, timeline = str(one.config.data_dir / "pg_wal"), str(base.timeline)
    program = str(one.bin_dir / "pg_waldump")
    patient = await asyncio.create_subprocess_exec(
        program, "-p", folder, "-t", timeline, "-s", str(base.lsn), "-q", stderr=asyncio.subprocess.DEVNULL
    )
    end = await one.wal_end()
    assert patient.returncode is None, "pg_waldump found the next segment: this is another case"
    patient.kill()
    await patient.wait()
    assert end % wal.DEFAULT_SEGMENT == 0


async def test_what_follows_a_switch_in_its_segment_is_no_divergence(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    # Else the probes that follow may be the first to see a row of a catalog, which writes its page to WAL (hint bits).
    await one.query("VACUUM (FREEZE)", timeout_s=20.0)
    await one.query("SELECT pg_switch_wal()")
    await wait_until(lambda: has_all_of(two, one), "two has all")
    await two.stop(10.0)
    end = await two.stopped_position()
    await one.stop(10.0)
    await one.start_primary()
    begins = Lsn(end.lsn - 1) // wal.DEFAULT_SEGMENT
    assert end.lsn % wal.DEFAULT_SEGMENT == 0, "the switch is the last record: this is another case"
    path = two.config.data_dir / "pg_wal" / wal.segment_name(end.timeline, begins, wal.DEFAULT_SEGMENT)
    with path.open("r+b") as stream:
        stream.seek(-100, 2)
        stream.write(b"stale" * 20)
    assert (await two.check_history(at(one))).local == end


@pytest.mark.parametrize(("positions", "asked"), [((900, 950, 1000), 3), ((1000,), 1), ((900,) * 9, 5)])
async def test_wal_that_the_upstream_is_about_to_flush_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, positions: tuple[int, ...], asked: int
) -> None:
    """A copy of its files may hold records that it has written and not flushed; for others it does not wait."""
    answers = [source.Source("7", lineage.Position(Timeline(2), Lsn(lsn)), ()) for lsn in positions]
    asks: list[Upstream] = []

    async def ask(_config: object, upstream: Upstream) -> source.Source:
        asks.append(upstream)
        return answers[len(asks) - 1]

    monkeypatch.setattr(history.source, "ask", ask)
    monkeypatch.setattr(history, "WAL_WRITER_S", 0.0)
    there = await history._ask(cast(ServerConfig, None), lineage.Position(Timeline(2), Lsn(1000)), Upstream("b"))
    assert (len(asks), there) == (asked, answers[asked - 1])
