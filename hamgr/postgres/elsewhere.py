"""What a cluster has outside its data directory: tablespaces, and WAL where `waldir` says so. Blocking.

A base backup is written to `<place>/hamgr.unfinished-<data_dir>` there, and moved up when complete: so what it left
behind is known by its name, and a place may hold what was kept aside and cannot leave it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from hamgr.postgres import files
from hamgr.postgres.control import ASIDE, UNFINISHED
from hamgr.postgres.errors import ServerRefused

TABLESPACES = "pg_tblspc"
WAL = "pg_wal"
WALDIR = "--waldir="
MAPPING = "--tablespace-mapping="
MAPPED = re.compile(MAPPING + r"(/.*?)(?<!\\)=(/.*)")


def redirected(options: Sequence[str], locations: Sequence[str], data_dir: Path) -> tuple[list[str], list[Path]]:
    """pg_basebackup's `options` with all that goes elsewhere put to directories to build in, and these directories.

    `locations`: of the source's tablespaces.
    """
    # Named after its owner: no other member of this host that has the same place takes it for its own.
    name = f"{UNFINISHED}-{str(data_dir).strip('/').replace('/', '-')[-200:]}"
    wanted = {os.path.normpath(_plain(found[1])): _plain(found[2]) for found in map(MAPPED.fullmatch, options) if found}
    tablespaces = {location: Path(wanted.get(location, location), name) for location in locations}
    mappings = [f"{MAPPING}{_escaped(old)}={_escaped(str(new))}" for old, new in tablespaces.items()]
    wal = [Path(option.removeprefix(WALDIR), name) for option in options if option.startswith(f"{WALDIR}/")][-1:]
    # It goes by the first mapping of a tablespace and by the last waldir.
    arguments = [*mappings, *options, *(f"{WALDIR}{building}" for building in wal)]
    return arguments, [*tablespaces.values(), *wal]


def _escaped(path: str) -> str:
    return path.replace("=", "\\=")


def _plain(path: str) -> str:
    return path.replace("\\=", "=")


def is_spared(name: str) -> bool:
    """Such an entry is no part of a cluster: kept aside, or the file system's own."""
    return name.startswith(ASIDE) or name == "lost+found"


def make_room(building: Path) -> Path:
    """It is an empty directory, in a place that holds nothing else. Raises ServerRefused if that does."""
    place = Path(os.path.realpath(building.parent))
    building = place / building.name
    existed = place.exists()
    if existed and not all(is_spared(name) or name == building.name for name in os.listdir(place)):
        raise ServerRefused(f"{place} is not empty", hint="keep it aside or remove it first")
    files.remove_tree(building)
    place.mkdir(parents=True, exist_ok=True)
    if not existed:
        place.chmod(0o700)
    building.mkdir(mode=0o700)
    files.sync_dir(place)
    return building


def note(data_dir: Path, buildings: Sequence[Path]) -> None:
    """Links to these stand where the copy's own will, which come last: by them `remove` finds what is built there."""
    if buildings:
        noted = data_dir / TABLESPACES
        noted.mkdir(mode=0o700)
        for number, building in enumerate(buildings):
            (noted / str(number)).symlink_to(building)
        files.sync_dir(noted)
        files.sync_dir(data_dir)


def move_up(data_dir: Path) -> None:
    """What was built in places elsewhere stands in them, and the links in the copy lead there. No `note` is left.

    Raises ServerRefused if somebody else wrote there meanwhile.
    """
    for link in _links(data_dir / UNFINISHED):
        built = Path(os.readlink(link))
        if not built.name.startswith(UNFINISHED):
            continue
        place, names = built.parent, os.listdir(built)
        if taken := [name for name in names if os.path.lexists(place / name)]:
            raise ServerRefused(f"{place} is not empty any more ({taken[0]})", hint="two servers cannot share it")
        # Linked before it is moved: what an interrupted move left is found by the link.
        _point(link, place)
        for name in names:
            os.rename(built / name, place / name)
        built.rmdir()
        files.sync_dir(place)
    files.remove_tree(data_dir / TABLESPACES)


def remove(*parts: Path) -> None:
    """Nothing of the cluster whose data directory stands in these `parts` is left elsewhere, and all else is."""
    major = _major(*parts)
    for link in (link for part in parts for link in _links(part)):
        for path in _belongings(link, major):
            files.remove_tree(path)


def keep_aside(cluster: Path, stamp: str, half_done: Path) -> None:
    """What the cluster has elsewhere stands aside, beside where it was or else inside, and its links lead there.

    The file `half_done` may stand afterwards: with it the cluster is not started, but kept aside again.
    """
    for link in _links(cluster):
        if mine := _belongings(link, _major(cluster)):
            _point(link, _put_aside(Path(os.path.realpath(link)), mine, stamp, half_done))


def _put_aside(place: Path, mine: Sequence[Path], stamp: str, half_done: Path) -> Path:
    if len(mine) == len(os.listdir(place)):
        # Fails for a mount point, and where the directory above is not ours, which is common for tablespaces.
        with contextlib.suppress(OSError):
            return place.rename(place.with_name(f"{place.name}.diverged-{stamp}"))
    inside = place / f"{ASIDE}{stamp}"
    inside.mkdir(mode=0o700)
    # With half of its WAL it might start, and not know that it has diverged.
    with contextlib.suppress(OSError):
        files.write_if_changed(half_done, "keep aside\n")
    for path in mine:
        path.rename(inside / path.name)
    return inside


def forget(kept: Path) -> None:
    """What was kept aside together with this data directory is gone."""
    for link in _links(kept):
        place = Path(os.path.realpath(link))
        # An older one may still name the place that is in use now.
        if ".diverged-" in place.name:
            shutil.rmtree(place, ignore_errors=True)


def _links(cluster: Path) -> list[Path]:
    tablespaces = cluster / TABLESPACES
    found = [cluster / WAL, *(tablespaces.iterdir() if tablespaces.is_dir() else ())]
    return [link for link in found if link.is_symlink()]


def _belongings(link: Path, major: str) -> list[Path]:
    """What is the cluster's in the place that `link` leads to. A tablespace's may be shared with another version's.

    Source: src/include/common/relpath.h, TABLESPACE_VERSION_DIRECTORY.
    """
    place = Path(os.path.realpath(link))
    if not place.is_dir():
        return []
    if place.name.startswith(UNFINISHED):
        return [place]
    if link.name == WAL:
        return [path for path in place.iterdir() if not is_spared(path.name)]
    return [path for path in place.iterdir() if re.fullmatch(rf"PG_{re.escape(major)}_\d+", path.name)]


def _major(*parts: Path) -> str:
    found = (files.read_text(part / "PG_VERSION") for part in parts)
    return next((text.strip() for text in found if text), "")


def _point(link: Path, place: Path) -> None:
    link.unlink()
    link.symlink_to(place)
    files.sync_dir(link.parent)
