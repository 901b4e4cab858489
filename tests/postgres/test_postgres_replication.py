# ruff: noqa: ASYNC221 -- a test has the loop to itself
"""Two and three servers: clone, follow, promote, divergence, rewind, what the disks hold."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pglab import Lab, as_root, at, has_all_of, pid_reused, streams, wait_until

from hamgr.core.actions import Upstream
from hamgr.core.server import Birth, DataDir, Phase
from hamgr.core.units import Lsn, Term, Timeline
from hamgr.postgres import births, observer
from hamgr.postgres.clone import CloneProgress
from hamgr.postgres.control import UNFINISHED
from hamgr.postgres.errors import DiskFull, Diverged, RewindFailed, ServerRefused, ServerUnavailable
from hamgr.postgres.server import LocalServer


async def insert(server: LocalServer, rows: int = 1) -> None:
    await server.query("INSERT INTO public.t SELECT generate_series(1, %s)", (rows,), timeout_s=20.0)


async def count(server: LocalServer) -> int:
    return int((await server.query("SELECT count(*) FROM public.t"))[0][0])


async def test_clone_streams_and_tells_its_progress(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.server("two")
    seen: list[CloneProgress] = []
    await one.ensure_slots(["two"])
    await two.clone(at(one), seen.append)
    assert seen[-1].done_bytes > 0
    assert seen[-1].total_bytes >= seen[0].done_bytes
    await two.start_standby(at(one))
    await wait_until(lambda: streams(two), "two streams")
    view = await two.probe()
    assert view.is_replica
    assert view.upstream == f"127.0.0.1:{one.config.port}"
    assert view.timeline == 1
    assert view.last_message_age_s is not None
    await insert(one, 100)
    await wait_until(lambda: has_all_of(two, one), "two has all")
    sender = (await one.probe()).walsenders[0]
    assert (sender.application_name, sender.usename, sender.state) == ("two", "replicator", "streaming")


async def test_member_with_quotes_in_its_name_streams(lab: Lab) -> None:
    one = await lab.primary()
    await lab.standby(one, "it's two")


async def test_unreachable_source_leaves_an_empty_directory(lab: Lab) -> None:
    two = await lab.server("two")
    with pytest.raises(ServerUnavailable):
        await two.clone(Upstream("gone", "127.0.0.1", two.config.port))
    assert (await two.probe()).data_dir is DataDir.EMPTY


async def test_cancelled_clone_leaves_an_empty_directory(lab: Lab) -> None:
    one = await lab.primary()
    await insert(one, 500_000)
    two = await lab.server("two", basebackup_options=("--max-rate=1024",))
    cloning = asyncio.ensure_future(two.clone(at(one)))

    async def unfinished() -> bool:
        return (await two.probe()).data_dir is DataDir.UNFINISHED

    await wait_until(unfinished, "the clone is under way")
    cloning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cloning
    assert (await two.probe()).data_dir is DataDir.EMPTY


async def test_clone_onto_a_full_disk_says_so_and_leaves_nothing(lab: Lab) -> None:
    one = await lab.primary()
    mount = lab.root / "small"
    with as_root():
        mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs", mount], check=True)
    try:
        two = await lab.server("two", data_dir=mount / "two", passfile=lab.root / "two.pgpass")
        with pytest.raises(DiskFull):
            await two.clone(at(one))
        assert (await two.probe()).data_dir is DataDir.EMPTY
    finally:
        with as_root():
            subprocess.run(["umount", "-l", mount], check=True)


async def test_unfinished_clone_is_replaced_by_the_next(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.server("two")
    (two.config.data_dir / UNFINISHED / "base").mkdir(parents=True)
    two.config.data_dir.chmod(0o700)
    (two.config.data_dir / "PG_VERSION").write_text("15\n")
    assert (await two.probe()).data_dir is DataDir.UNFINISHED
    await two.clone(at(one))
    assert (await two.probe()).data_dir is DataDir.VALID


async def test_fresh_clone_and_stopped_standby_are_never_started_as_primary(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.server("two")
    await two.clone(at(one))
    with pytest.raises(ServerRefused):
        await two.start_primary()
    await two.start_standby(at(one))
    await two.stop(10.0)
    with pytest.raises(ServerRefused):
        await two.start_primary()


async def test_clean_stop_leaves_the_replica_with_all_that_the_primarys_disk_holds(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await insert(one, 1000)
    await one.stop(10.0)
    found = await two.received()
    timeline, received = found.timeline, found.lsn
    assert (timeline, received) == (1, await one.shutdown_lsn())


async def test_replica_that_received_all_holds_every_record_of_the_killed_primarys_disk(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await insert(one, 5000)
    await wait_until(lambda: has_all_of(two, one), "two has all")
    known = (await one.probe()).written_lsn
    await lab.guard_of(one).kill_tree()
    received = (await two.received()).lsn
    end = await one.wal_end(known)
    assert received >= end == await one.wal_end() > known - 8192
    assert (await one.probe()).phase is Phase.CRASHED


async def test_promotion_writes_on_a_new_timeline_from_where_the_old_one_ended(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await insert(one)
    await one.stop(10.0)
    end = await one.shutdown_lsn()
    promotion = await two.promote(10.0, old_timeline=Timeline(1))
    assert promotion.timeline == 2
    assert promotion.lsn == end
    await insert(two)
    view = await two.probe()
    assert view.is_primary
    assert view.timeline == 2
    assert await count(two) == 2


async def test_promotion_of_a_primary_is_refused(lab: Lab) -> None:
    one = await lab.primary()
    with pytest.raises(ServerRefused):
        await one.promote(2.0, old_timeline=Timeline(1))


async def test_stopped_primary_comes_back_as_standby_and_replicas_follow_without_restart(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    three = await lab.standby(one, "three")
    await one.ensure_slots(["two", "three"])
    before = three.identity
    await one.stop(10.0)
    await two.promote(10.0, old_timeline=Timeline(1))
    await two.ensure_slots(["one", "two", "three"])
    assert await three.follow(at(two))
    assert not await three.follow(at(two))
    check = await one.check_history(at(two))
    assert check.local.timeline == 1
    await one.start_standby(at(two))
    await insert(two)
    for replica in (one, three):
        await wait_until(lambda replica=replica: streams(replica), f"{replica.config.name} streams")  # type: ignore[misc]
        await wait_until(lambda replica=replica: has_all_of(replica, two), "it has all")  # type: ignore[misc]
        assert (await replica.probe()).timeline == 2
    assert three.identity == before
    await three.check_history(at(two))


async def test_part_of_a_record_from_a_killed_primary_is_no_divergence(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    three = await lab.standby(one, "three")
    # The WAL writer sends the page in which this commit's successor begins before that is complete.
    await insert(one, 5000)
    for replica in (two, three):
        await wait_until(lambda replica=replica: has_all_of(replica, one), "it has all")  # type: ignore[misc]
    await lab.guard_of(one).kill_tree()
    await two.promote(10.0, old_timeline=Timeline(1))
    await three.check_history(at(two))
    await one.check_history(at(two))
    await two.ensure_slots(["one", "three"])
    await three.follow(at(two))
    await one.start_standby(at(two))
    for replica in (one, three):
        await wait_until(lambda replica=replica: streams(replica), "it streams")  # type: ignore[misc]


async def diverge(lab: Lab, one: LocalServer, two: LocalServer) -> None:
    """`one` was killed with WAL that `two`, now primary, never got."""
    await wait_until(lambda: has_all_of(two, one), "two has all")
    await two.follow(Upstream())

    async def cut_off() -> bool:
        return not (await one.probe()).walsenders

    await wait_until(cut_off, "two is cut off")
    await insert(one, 3000)
    await lab.guard_of(one).kill_tree()
    await two.promote(10.0, old_timeline=Timeline(1))
    await insert(two)


@contextlib.contextmanager
def without_last_wal(server: LocalServer, timeline: int) -> Iterator[None]:
    """The source of a copy has written more before its position was taken."""
    last = max((server.config.data_dir / "pg_wal").glob(f"{timeline:08X}" + 16 * "?"))
    content = last.read_bytes()
    last.write_bytes(bytes(len(content)))
    yield
    last.write_bytes(content)


async def test_diverged_server_is_recognised_rewound_and_streams(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await diverge(lab, one, two)
    with pytest.raises(Diverged):
        await one.check_history(at(two))
    mine = (one.config.data_dir / "postgresql.conf").read_text() + "# of one\n"
    (one.config.data_dir / "postgresql.conf").write_text(mine)
    await two.checkpoint(30.0)
    assert await one.rewind(at(two))
    assert (one.config.data_dir / "postgresql.conf").read_text() == mine
    with without_last_wal(one, 2):
        with pytest.raises(ServerRefused, match="needs WAL up to"):
            await one.start_standby(Upstream())
        # What is not here does not differ.
        await one.check_history(at(two))
    await two.ensure_slots(["one"])
    await one.start_standby(at(two))
    await wait_until(lambda: streams(one), "one streams")
    await wait_until(lambda: has_all_of(one, two), "one has all")
    assert await count(one) == await count(two) == 1


async def test_note_on_the_timeline_outlives_a_restart_and_goes_where_the_data_is_made_anew(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    note = Birth(Timeline(1), Term(3))
    for each in (one, two):
        await each.note_birth(note)
        assert (await each.probe()).timeline_term == 3
    await two.stop(10.0)
    with pytest.raises(ServerRefused, match="does not run"):
        await two.note_birth(Birth(Timeline(1), Term(4)))
    assert (await two.probe()).birth == note
    await two.start_standby(at(one))
    assert (await two.probe()).birth == note
    three = await lab.standby(two, "three")
    assert (await three.probe()).birth == Birth()
    await diverge(lab, one, two)
    assert (await two.probe()).timeline_term == 0
    await two.note_birth(Birth(Timeline(2), Term(4)))
    await two.checkpoint(30.0)
    assert (await one.probe()).birth == note
    assert await one.rewind(at(two))
    assert (await one.probe()).birth == Birth()


async def test_server_is_rewound_although_another_process_has_its_pid(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await diverge(lab, one, two)
    await two.checkpoint(30.0)
    with pid_reused(one):
        assert await one.rewind(at(two))
    await two.ensure_slots(["one"])
    await one.start_standby(at(two))
    await wait_until(lambda: streams(one), "one streams")


async def test_killed_replica_that_had_more_than_the_new_primary_is_rewound(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    three = await lab.standby(one, "three")
    await wait_until(lambda: has_all_of(two, one), "two has all")
    await two.follow(Upstream())

    async def cut_off() -> bool:
        return [sender.application_name for sender in (await one.probe()).walsenders] == ["three"]

    await wait_until(cut_off, "two is cut off")
    await insert(one, 3000)
    await wait_until(lambda: has_all_of(three, one), "three has all")
    await lab.guard_of(one).kill_tree()
    await two.promote(10.0, old_timeline=Timeline(1))
    await two.checkpoint(30.0)
    with pytest.raises(Diverged):
        await three.check_history(at(two))
    await lab.guard_of(three).kill_tree()
    with pytest.raises(Diverged):
        await three.check_history(at(two))
    assert await three.rewind(at(two))
    await two.ensure_slots(["three"])
    await three.start_standby(at(two))
    await wait_until(lambda: streams(three), "three streams")
    await wait_until(lambda: has_all_of(three, two), "three has all")
    assert await count(three) == await count(two) == 0


async def test_rewind_that_fails_says_so_and_clone_beside_the_kept_directory_works(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await diverge(lab, one, two)
    await two.checkpoint(30.0)
    for segment in (one.config.data_dir / "pg_wal").glob("0000*"):
        segment.write_bytes(b"")
    with pytest.raises(RewindFailed, match="pg_rewind"):
        await one.rewind(at(two))
    aside = await one.keep_aside()
    assert aside is not None
    assert (aside / "PG_VERSION").exists()
    await two.ensure_slots(["one"])
    await one.clone(at(two))
    await one.start_standby(at(two))
    await wait_until(lambda: streams(one), "one streams")


async def test_rewind_from_an_unreachable_source_changes_nothing(lab: Lab) -> None:
    one = await lab.primary()
    await one.stop(10.0)
    with pytest.raises(ServerUnavailable):
        await one.rewind(Upstream("gone", "127.0.0.1", 1))
    assert (await one.probe()).data_dir is DataDir.VALID


async def test_standby_that_lacks_wal_starts_in_the_background_and_can_be_pointed_elsewhere(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.server("two")
    await one.ensure_slots(["two"])
    await two.clone(at(one))
    # The WAL that the copy needs to be consistent is only on the primary.
    for segment in (two.config.data_dir / "pg_wal").glob("0000*"):
        segment.unlink()
    with pytest.raises(ServerUnavailable):
        await two.start_standby(Upstream("gone", "127.0.0.1", 1), timeout_s=0.5)
    assert (await two.probe()).phase is Phase.STARTING
    await two.follow(at(one))
    await wait_until(lambda: streams(two), "two streams")


async def test_replica_keeps_slots_at_the_primarys_positions(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    await one.ensure_slots(["two", "three"])
    await insert(one, 100)
    await wait_until(lambda: has_all_of(two, one), "two has all")
    position = (await one.probe()).written_lsn

    async def advanced() -> bool:
        await two.ensure_slots(["one", "two", "three"], in_recovery=True, positions={"three": position})
        return (await two.probe()).slots.get("three", Lsn(0)) >= position

    await wait_until(advanced, "the slot of three advanced on two")
    assert set((await two.probe()).slots) == {"three"}


async def test_standby_starts_although_the_primary_allows_more_connections(lab: Lab) -> None:
    one = await lab.primary()
    parameters = {**one.config.parameters, "max_connections": 40}
    await one.apply_config(parameters, None)
    await one.restart(10.0, None)
    two = await lab.standby(one)
    assert (await two.query("SHOW max_connections"))[0][0] == "40"


async def test_timeline_of_a_replica_that_lost_its_primary_is_known_to_a_new_agent(lab: Lab) -> None:
    one = await lab.primary()
    two = await lab.standby(one)
    three = await lab.standby(one, "three")
    await one.stop(10.0)
    await two.promote(10.0, old_timeline=Timeline(1))
    await two.ensure_slots(["three"])
    await three.follow(at(two))
    await insert(two)
    await wait_until(lambda: has_all_of(three, two), "three has all")
    await lab.guard_of(two).kill_tree()
    fresh = await lab.again(three)

    async def receiver_is_gone() -> bool:
        return not (await fresh.probe()).streaming

    await wait_until(receiver_is_gone, "the WAL receiver is gone")
    later = await lab.again(three)
    assert (await later.probe()).timeline == 2
    assert (await later.received()).timeline == 2


async def test_server_of_another_cluster_is_not_taken_for_an_upstream(lab: Lab) -> None:
    one = await lab.primary()
    other = await lab.server("other")
    await other.initdb()
    await other.start_primary()
    await other.create_roles()
    with pytest.raises(Exception, match="another cluster"):
        await one.check_history(at(other))


async def test_a_note_on_the_timeline_that_was_slow_to_read_once_is_read_later(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await lab.primary()
    noted = await one.note_birth(Birth(Timeline(1), Term(3)))
    fresh = await lab.again(one)
    read = births.read

    def slowly(data_dir: Path) -> Birth:
        time.sleep(3 * observer.NOTE_S)
        return read(data_dir)

    monkeypatch.setattr(observer, "NOTE_PAUSE_S", 0.0)
    monkeypatch.setattr(births, "read", slowly)
    assert (await fresh.probe()).birth == Birth()
    monkeypatch.setattr(births, "read", read)
    assert (await fresh.probe()).birth == noted
