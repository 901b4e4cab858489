# ruff: noqa: ASYNC221, ASYNC240 -- a test has the loop to itself
"""Tablespaces, and WAL outside the data directory: cloned, reinitialized, kept aside, cut short."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pglab import Lab, as_root, at, has_all_of, streams, wait_until

from hamgr.core.actions import Upstream
from hamgr.core.server import DataDir
from hamgr.postgres import clone, elsewhere
from hamgr.postgres.config import Credentials
from hamgr.postgres.control import ASIDE, UNFINISHED, inspect, rewind_marker
from hamgr.postgres.errors import ServerError, ServerRefused
from hamgr.postgres.server import LocalServer

OURS = "PG_15_202209061"


def far(lab: Lab) -> Path:
    """The source's tablespace."""
    return lab.root / "far = one"


def tablespace(lab: Lab) -> Path:
    """The replica's tablespace."""
    return lab.root / "disk" / "space = two"


def wal(lab: Lab) -> Path:
    return lab.root / "disk" / "wal"


async def primary(lab: Lab) -> LocalServer:
    """A primary with a table of some megabytes in a tablespace."""
    one = await lab.primary()
    far(lab).mkdir()
    await one.query(f"CREATE TABLESPACE far LOCATION '{far(lab)}'")
    await one.query("CREATE TABLE public.far (n bigint) TABLESPACE far")
    await one.query("INSERT INTO public.far SELECT generate_series(1, 200000)", timeout_s=20.0)
    return one


async def replica(lab: Lab, *more: str, **changes: object) -> LocalServer:
    old, new = (str(path).replace("=", "\\=") for path in (far(lab), tablespace(lab)))
    options = (f"--tablespace-mapping={old}={new}", f"--waldir={wal(lab)}", "--no-sync", *more)
    return await lab.server("two", basebackup_options=options, **changes)


async def follow(two: LocalServer, one: LocalServer) -> None:
    """`two`, just cloned, streams from `one`, and has all of it in the places that were named."""
    await one.ensure_slots(["two"])
    await two.start_standby(at(one))
    await wait_until(lambda: streams(two), "two streams")
    await wait_until(lambda: has_all_of(two, one), "two has all")
    assert await rows(two) == await rows(one)


async def rows(server: LocalServer) -> int:
    return int((await server.query("SELECT count(*) FROM public.far"))[0][0])


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def tablespace_of(data_dir: Path) -> Path:
    (link,) = (data_dir / "pg_tblspc").iterdir()
    return link.readlink()


async def test_copy_is_in_the_places_that_were_named(lab: Lab) -> None:
    one, two = await primary(lab), await replica(lab)
    await two.clone(at(one))
    assert tablespace_of(two.config.data_dir) == tablespace(lab)
    assert (two.config.data_dir / "pg_wal").readlink() == wal(lab)
    assert names(tablespace(lab)) == names(far(lab))
    assert not [name for name in names(wal(lab)) if name.startswith(UNFINISHED)]
    await follow(two, one)


async def test_reinitialized_member_streams_again(lab: Lab) -> None:
    one, two = await primary(lab), await replica(lab)
    await two.clone(at(one))
    await two.remove_cluster()
    assert names(tablespace(lab)) == names(wal(lab)) == []
    assert (await two.probe()).data_dir is DataDir.EMPTY
    await two.clone(at(one))
    await follow(two, one)


async def test_cluster_is_kept_aside_whole_and_its_places_are_free_again(lab: Lab) -> None:
    one, two = await primary(lab), await replica(lab)
    await two.clone(at(one))
    await follow(two, one)
    await two.stop(10.0)
    aside = await two.keep_aside()
    assert aside is not None
    await two.clone(at(one))
    await follow(two, one)
    assert tablespace_of(aside) != tablespace(lab)
    kept = await lab.server("kept", data_dir=aside)
    await kept.start_standby(Upstream())
    assert await rows(kept) == await rows(one)
    await kept.stop(10.0)
    await two.stop(10.0)
    later = await two.keep_aside()
    assert later is not None
    assert names(lab.root / "disk") == sorted([tablespace_of(later).name, (later / "pg_wal").readlink().name])


async def test_kept_aside_is_inside_where_the_directory_above_is_not_ours(lab: Lab) -> None:
    one, two = await primary(lab), await replica(lab)
    await two.clone(at(one))
    tablespace(lab).parent.chmod(0o500)
    try:
        aside = await two.keep_aside()
        assert aside is not None
        assert tablespace_of(aside).parent == tablespace(lab)
        await two.clone(at(one))
        await follow(two, one)
        await two.stop(10.0)
        await two.remove_cluster()
        for place, kept in ((tablespace(lab), tablespace_of(aside)), (wal(lab), (aside / "pg_wal").readlink())):
            assert names(place) == [kept.name]
            assert names(kept)
        assert not rewind_marker(two.config.data_dir).exists()
    finally:
        tablespace(lab).parent.chmod(0o700)


async def test_wal_that_is_a_mount_point_is_kept_aside_inside_it(lab: Lab) -> None:
    one, two = await primary(lab), await replica(lab)
    wal(lab).mkdir(parents=True)
    with as_root():
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m,mode=0777", "tmpfs", wal(lab)], check=True)
    try:
        (wal(lab) / "lost+found").mkdir()
        await two.clone(at(one))
        aside = await two.keep_aside()
        assert aside is not None
        assert (aside / "pg_wal").readlink().parent == wal(lab)
        await two.clone(at(one))
        await follow(two, one)
    finally:
        await lab.guard_of(two).kill_tree()
        with as_root():
            subprocess.run(["umount", "-l", wal(lab)], check=True)


@pytest.fixture
def unattended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The agent dies with the copy: nobody clears up."""

    async def nobody(*_: object) -> None:
        pass

    with monkeypatch.context() as patch:
        patch.setattr(clone, "_discard", nobody)
        yield


async def begun(two: LocalServer, one: LocalServer, place: Path) -> asyncio.Future[None]:
    """The copy of `one`, which has begun to fill `place`."""

    async def is_filling() -> bool:
        return any(path.is_file() for path in place.rglob("*"))

    cloning = asyncio.ensure_future(two.clone(at(one)))
    await wait_until(is_filling, "the tablespace is being copied")
    return cloning


async def cut_short(two: LocalServer, one: LocalServer, place: Path) -> None:
    cloning = await begun(two, one, place)
    cloning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cloning


async def test_copy_cut_short_leaves_nothing_elsewhere(lab: Lab) -> None:
    one, two = await primary(lab), await replica(lab, "--max-rate=1024")
    await cut_short(two, one, tablespace(lab))
    assert names(tablespace(lab)) == names(wal(lab)) == []
    assert (await two.probe()).data_dir is DataDir.EMPTY


async def test_copy_whose_source_dies_leaves_nothing_elsewhere(lab: Lab) -> None:
    one, two = await primary(lab), await replica(lab, "--max-rate=1024")
    cloning = await begun(two, one, tablespace(lab))
    await lab.guard_of(one).kill_tree()
    with pytest.raises(ServerError):
        await cloning
    assert names(tablespace(lab)) == names(wal(lab)) == []
    assert (await two.probe()).data_dir is DataDir.EMPTY


@pytest.mark.usefixtures("unattended")
async def test_copy_cut_short_with_its_agent_is_replaced_by_the_next(lab: Lab) -> None:
    one, two = await primary(lab), await replica(lab, "--max-rate=1024")
    await cut_short(two, one, tablespace(lab))
    assert (await two.probe()).data_dir is DataDir.UNFINISHED
    (left,) = names(tablespace(lab))
    assert left.startswith(UNFINISHED)
    again = await replica(lab)
    await again.clone(at(one))
    await follow(again, one)


@pytest.mark.usefixtures("unattended")
async def test_copy_cut_short_is_gone_although_the_tablespace_is_no_more(lab: Lab) -> None:
    one, two = await primary(lab), await replica(lab, "--max-rate=1024")
    await cut_short(two, one, tablespace(lab))
    await two.remove_cluster()
    assert names(tablespace(lab)) == []


async def test_place_that_holds_anything_else_is_refused_and_left_as_it_is(lab: Lab) -> None:
    one, two = await primary(lab), await replica(lab)
    (tablespace(lab) / OURS).mkdir(parents=True)
    (tablespace(lab) / OURS / "of another").write_text("")
    with pytest.raises(ServerRefused, match="is not empty"):
        await two.clone(at(one))
    assert names(tablespace(lab)) == [OURS]
    assert names(tablespace(lab) / OURS) == ["of another"]
    assert (await two.probe()).data_dir is DataDir.EMPTY


async def test_member_that_may_only_replicate_is_cloned(lab: Lab) -> None:
    one, two = await primary(lab), await replica(lab, rewind=Credentials("rewinder", "wrong"))
    await two.clone(at(one))
    assert tablespace_of(two.config.data_dir) == tablespace(lab)
    await follow(two, one)


def cluster(data_dir: Path, disk: Path) -> tuple[Path, Path]:
    """A data directory with a tablespace and WAL on `disk`: these places."""
    space, segments = disk / "space", disk / "wal"
    for directory in (data_dir / "global", data_dir / "pg_tblspc", space / OURS, segments / "archive_status"):
        directory.mkdir(parents=True)
    data_dir.chmod(0o700)
    (data_dir / "PG_VERSION").write_text("15\n")
    for file in (data_dir / "global" / "pg_control", space / OURS / "1", segments / "0001", segments / "0002"):
        file.write_text("")
    (data_dir / "pg_tblspc" / "16384").symlink_to(space)
    (data_dir / "pg_wal").symlink_to(segments)
    return space, segments


def test_what_is_not_the_clusters_is_never_removed_nor_moved(pg_tmp: Path) -> None:
    space, segments = cluster(pg_tmp / "d", pg_tmp / "disk")
    others = ["PG_14_202107181", "PG_150_209901011", f"{ASIDE}1", "lost+found", "of a person"]
    for name in others:
        (space / name).mkdir()
    (segments / f"{ASIDE}1").mkdir()
    aside = clone.keep_aside(pg_tmp / "d", "2")
    assert aside is not None
    assert names(space) == sorted([*others, f"{ASIDE}2"])
    assert names(segments) == [f"{ASIDE}1", f"{ASIDE}2"]
    clone.remove_cluster(aside)
    assert names(space / f"{ASIDE}2") == names(segments / f"{ASIDE}2") == []
    assert names(space) == sorted([*others, f"{ASIDE}2"])


def test_copy_interrupted_while_a_tablespace_is_moved_up_is_removable(pg_tmp: Path) -> None:
    data_dir = pg_tmp / "d"
    data_dir.mkdir()
    space, segments = cluster(data_dir / UNFINISHED, pg_tmp / "disk")
    (space / UNFINISHED).mkdir()
    elsewhere.note(data_dir, [space / UNFINISHED])
    clone.remove_unfinished(data_dir)
    assert names(data_dir) == names(space) == names(segments) == []


def test_place_that_another_server_took_meanwhile_stays_its_own(pg_tmp: Path) -> None:
    data_dir = pg_tmp / "d"
    data_dir.mkdir()
    space, _ = cluster(data_dir / UNFINISHED, pg_tmp / "disk")
    elsewhere._point(data_dir / UNFINISHED / "pg_tblspc" / "16384", space / UNFINISHED)
    (space / UNFINISHED / OURS).mkdir(parents=True)
    with pytest.raises(ServerRefused, match="not empty any more"):
        elsewhere.move_up(data_dir)
    clone.remove_unfinished(data_dir)
    assert names(space) == [OURS]
    assert names(space / OURS) == ["1"]


def test_cluster_whose_wal_is_half_away_is_kept_aside_again(pg_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, segments = cluster(pg_tmp / "d", pg_tmp / "disk")
    segments.parent.chmod(0o500)
    really, moved = Path.rename, list[Path]()

    def rename(path: Path, target: Path) -> Path:
        if moved and path.parent == segments:
            raise InterruptedError
        if path.parent == segments:
            moved.append(path)
        return really(path, target)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            with pytest.raises(InterruptedError):
                clone.keep_aside(pg_tmp / "d", "1")
        assert inspect(pg_tmp / "d", 15).state is DataDir.UNFINISHED
        assert clone.keep_aside(pg_tmp / "d", "2") is not None
        assert inspect(pg_tmp / "d", 15).state is DataDir.EMPTY
        assert names(segments) == [f"{ASIDE}1", f"{ASIDE}2"]
    finally:
        segments.parent.chmod(0o700)


def test_options_of_a_base_backup_lead_to_directories_to_build_in() -> None:
    options = ["--tablespace-mapping=/a\\=1/=/b\\=2", "--waldir=/v", "--waldir=/w", "--no-sync"]
    arguments, buildings = elsewhere.redirected(options, ["/a=1", "/c"], Path("/data/two"))
    name = f"{UNFINISHED}-data-two"
    assert buildings == [Path("/b=2", name), Path("/c", name), Path("/w", name)]
    assert arguments == [
        f"--tablespace-mapping=/a\\=1=/b\\=2/{name}",
        f"--tablespace-mapping=/c=/c/{name}",
        *options,
        f"--waldir=/w/{name}",
    ]


def test_copy_of_another_member_that_is_under_way_in_the_same_place_is_left_alone(pg_tmp: Path) -> None:
    theirs = elsewhere.make_room(pg_tmp / "space" / f"{UNFINISHED}-two")
    (theirs / OURS).mkdir()
    with pytest.raises(ServerRefused, match="is not empty"):
        elsewhere.make_room(pg_tmp / "space" / f"{UNFINISHED}-three")
    assert names(theirs) == [OURS]
