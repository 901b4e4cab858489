"""What a member remembers of the cluster: written whole, read back as it was, and not believed where it is odd."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hamgr.agent.clock import now
from hamgr.agent.memory import Memory
from hamgr.core.cluster import ClusterView, Config, Member, SyncState, Tags
from hamgr.core.units import Lsn, Timeline
from hamgr.dcs.keys import ScopeKeys
from hamgr.postgres.errors import ServerError
from tests.agent.workbench import until, view

KEYS = ScopeKeys.of("main")
ROSTER = {"a": "http://a:8008/patroni", "b": "http://b:8008/patroni"}


def seen(**rest: Any) -> ClusterView:
    members = tuple(
        Member(name, f"postgres://{name}:5432/postgres", url, role="replica", tags=Tags(nosync=True), lease_id=7)
        for name, url in ROSTER.items()
    )
    given = {
        "members": members,
        "initialize_revision": 2,
        "config": Config({"ttl": 5, "postgresql": {"parameters": {"work_mem": "8MB"}}}, 4),
        "term_revision": 9,
        "sync": SyncState("a", ("b",), 1, 8),
        "roster": ROSTER,
        "roster_revision": 6,
        **rest,
    }
    return view(**given)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.hamgr-cluster.json"


@pytest.fixture
async def memory(path: Path) -> AsyncIterator[Memory]:
    """One that writes what it notes."""
    made = Memory(path, KEYS)
    running = asyncio.create_task(made.run())
    yield made
    assert not running.done()
    running.cancel()


def text_of(path: Path) -> str:
    """Of the file; empty where there is none."""
    return path.read_text() if path.exists() else ""


def write(path: Path, text: str) -> None:
    path.write_text(text)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def written(memory: Memory, path: Path, noted: ClusterView) -> None:
    memory.note(noted)
    await until(lambda: memory._written == memory._text and path.exists(), "it is written")


async def test_it_is_read_back_as_it_was_seen_and_anything_is_newer(memory: Memory, path: Path) -> None:
    noted = seen()
    await written(memory, path, noted)
    at = now()
    recalled = await Memory(path, KEYS).recall(at)
    assert recalled == noted._replace(revision=0, seen_at=at)
    assert mode_of(path) == 0o600


async def test_what_changes_all_the_time_is_not_written(memory: Memory, path: Path) -> None:
    noted = seen()
    await written(memory, path, noted)
    busy = tuple(
        member._replace(xlog_location=Lsn(5000), timeline=Timeline(4), state="streaming", mod_revision=50)
        for member in noted.members
    )
    memory.note(noted._replace(revision=51, members=busy))
    assert not memory._noted.is_set()


@pytest.mark.parametrize(
    "change",
    [
        {"leader": "b", "lease_id": 8, "term": 4},
        {"roster": {"a": ROSTER["a"]}, "roster_revision": 11},
        {"config": Config({"ttl": 9}, 12)},
        {"sync": SyncState("a", (), 0, 13)},
        {"members": ()},
        {"initialize_revision": 14},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_every_change_that_matters_is_written(memory: Memory, path: Path, change: dict[str, Any]) -> None:
    await written(memory, path, seen())
    changed = seen(**change)
    await written(memory, path, changed)
    recalled = await Memory(path, KEYS).recall(now())
    assert recalled is not None
    assert recalled == changed._replace(revision=0, seen_at=recalled.seen_at)


async def test_nothing_remembered_is_no_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await Memory(path, KEYS).recall(now()) is None
    assert caplog.records == []


async def test_a_file_that_is_odd_is_ignored_with_a_warning(
    memory: Memory, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await written(memory, path, seen())
    good = text_of(path)
    fields = json.loads(good)
    odd = [
        "",
        "\0\xff",
        good[: len(good) // 2],
        "[]",
        "{}",
        json.dumps({**fields, "layout": 99}),
        json.dumps({**fields, "prefix": "/service/other/"}),
        json.dumps({**fields, "keys": 7}),
        json.dumps({**fields, "keys": [["leader", "a"]]}),
        json.dumps({**fields, "keys": [["leader", None, 0, 1]]}),
        json.dumps({**fields, "keys": [["term", "many", 0, 1]]}),
        "[" * 100_000,
    ]
    for text in odd:
        write(path, text)
        caplog.clear()
        assert await Memory(path, KEYS).recall(now()) is None, text[:80]
        assert [record.levelname for record in caplog.records] == ["WARNING"], text[:80]


async def test_a_failure_is_told_once_and_the_next_change_tries_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "no directory" / "file"
    path.parent.touch()
    memory = Memory(path, KEYS)
    running = asyncio.create_task(memory.run())
    for number in range(3):
        memory.note(seen(initialize_revision=number))
        await until(lambda: not memory._noted.is_set() and not memory._writing.locked(), "it was tried")
    assert len(caplog.records) == 1
    path.parent.unlink()
    await written(memory, path, seen())
    assert not running.done()
    running.cancel()


async def test_a_roster_is_on_disk_before_it_is_in_etcd_and_stays_until_it_is_seen(memory: Memory, path: Path) -> None:
    await written(memory, path, seen())
    wider = {**ROSTER, "c": "http://c:8008/patroni"}

    async def recalled() -> set[str]:
        found = await Memory(path, KEYS).recall(now())
        assert found is not None
        return set(found.roster)

    await memory.widen(wider)
    assert await recalled() == {"a", "b", "c"}
    await written(memory, path, seen(initialize_revision=99))
    assert await recalled() == {"a", "b", "c"}, "another change must not lose it"
    await written(memory, path, seen(roster=wider, roster_revision=20))
    await written(memory, path, seen(roster=ROSTER, roster_revision=21))
    assert await recalled() == {"a", "b"}


async def test_a_file_that_cannot_hold_a_new_member_is_removed(memory: Memory, path: Path) -> None:
    await written(memory, path, seen())
    beside = path.with_name(f".{path.name}.hamgr-tmp")
    beside.mkdir()
    await memory.widen({**ROSTER, "c": ""})
    assert text_of(path) == ""
    beside.rmdir()
    await written(memory, path, seen())


async def test_where_it_cannot_be_removed_either_the_roster_must_not_change(tmp_path: Path) -> None:
    path = tmp_path / "directory"
    path.mkdir()
    memory = Memory(path, KEYS)
    memory.note(seen())
    with pytest.raises(ServerError):
        await memory.widen({**ROSTER, "c": ""})
