"""The file with the leader's address: written whole or not at all, and only where it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hamgr.routing.errors import RouteError
from hamgr.routing.pgbouncer import Pool
from hamgr.routing.targets import point, target_text, write_target

POOL = Pool("127.0.0.1", 6432, "pgbouncer")


def databases(text: str) -> list[str]:
    head, *lines = [line for line in text.splitlines() if not line.startswith(";")]
    assert head == "[databases]"
    return lines


def test_a_file_of_any_bytes_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "target.ini"
    path.write_bytes(b"; f\xfcr db1\n")
    write_target(path, "new\n")
    assert path.read_text() == "new\n"


def test_all_databases_are_one_line_and_named_ones_a_line_each() -> None:
    assert databases(target_text(POOL, "10.0.0.2", 5432)) == ["* = host=10.0.0.2 port=5432"]
    named = replace(POOL, databases=("app", "shop-1"), target_options="auth_user=auth pool_size=20")
    assert databases(target_text(named, "::1", 5433)) == [
        "app = host=::1 port=5433 auth_user=auth pool_size=20",
        "shop-1 = host=::1 port=5433 auth_user=auth pool_size=20",
    ]


def test_a_file_is_replaced_whole_and_readable_by_everybody(front_dir: Path) -> None:
    path = front_dir / "target.ini"
    path.write_text("old")
    with path.open() as before:
        write_target(path, "new and longer")
        assert before.read() == "old"
    assert path.read_text() == "new and longer"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in front_dir.iterdir()] == ["target.ini"]


def test_a_file_that_says_so_already_is_not_touched(front_dir: Path) -> None:
    path = front_dir / "target.ini"
    write_target(path, "same")
    before = path.stat()
    write_target(path, "same")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_a_directory_that_is_not_there_is_named(front_dir: Path) -> None:
    path = front_dir / "nowhere" / "target.ini"
    with pytest.raises(RouteError, match=rf"does not lead to 10.0.0.2:5432: {path}: No such file"):
        await point(POOL, path, "10.0.0.2", 5432)


def names_in(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


async def test_a_file_that_cannot_be_replaced_stays_as_it_was_and_leaves_nothing_beside_it(front_dir: Path) -> None:
    path = front_dir / "target.ini"
    path.mkdir()
    with pytest.raises(RouteError, match="Is a directory"):
        await point(POOL, path, "10.0.0.2", 5432)
    assert names_in(front_dir) == ["target.ini"]
