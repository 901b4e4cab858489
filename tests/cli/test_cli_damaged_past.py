"""`explain --at` over a recording that is damaged, and at times at the ends of the calendar."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cli_world import World
from cli_world import record as record_of
from click.testing import CliRunner, Result

from hamgr.__main__ import cli
from hamgr.cli.output import FORMATS
from hamgr.core.recording import Event, Kind, event_as_json
from hamgr.core.units import Instant, WallTime

AT = datetime(2025, 11, 25, 10, 0, 0, tzinfo=UTC).timestamp()
NASTY: tuple[Any, ...] = (
    None, True, -1, 7, 1.5, 10**400, 1e400, float("nan"), "", "{x", "{0.x}", "\ud800", "9" * 5000, [], [[]], [7],
    ["x"], {}, {"x": 1}, {"x": []},
)  # fmt: skip


def lines_of(*, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A change of leader as one member saw it, with every kind of event."""
    told: list[tuple[Kind, str, Mapping[str, Any]]] = [
        (Kind.BEGAN, "", {"member": "db1", "scope": "main", "version": "0.3.0", "pid": 7, "boot": "b1"}),
        (Kind.SEEN, "server_exited", {"pid": 4321}),
        (Kind.DECIDED, "steady", {"reason": "leading", "reason_values": {"term": "6"}, "term": 6, "left_s": 4.1}),
        (Kind.STARTED, "ExamineCrash", {"about": {"term": 7}}),
        (
            Kind.ENDED,
            "ExamineCrash",
            {"about": {}, "result": "done", "began_at": 5001.0, "took_s": 1.0, "text": "x", "repeats": 2},
        ),
        (Kind.SEEN, "leader", {"leader": "db2", "term": 7, "former": "db1", "former_term": 6}),
        (Kind.ENDED, "TakeLeader", {"about": {"term": 7}, "result": "done", "began_at": 5003.0, "took_s": 1.0}),
        (Kind.DROPPED, "", {"count": 3}),
        (Kind.RECORD, "", record),
    ]
    return [
        event_as_json(Event(Instant(5000.0 + at), WallTime(AT + at), kind, name, values))
        for at, (kind, name, values) in enumerate(told)
    ]


def damaged(value: Any) -> Iterator[Any]:
    """The value with each of its parts taken out, and with each of NASTY in the place of each."""
    if isinstance(value, dict):
        for key in value:
            yield {name: each for name, each in value.items() if name != key}
            yield from ({**value, key: each} for each in (*damaged(value[key]), *NASTY))
    elif isinstance(value, list):
        for at, part in enumerate(value[:1]):
            yield from ([*value[:at], each, *value[at + 1 :]] for each in (*damaged(part), *NASTY))


def explain(*words: str) -> Result:
    return CliRunner().invoke(cli, ["explain", *words], catch_exceptions=False)


def test_a_damaged_line_costs_that_line_whatever_is_wrong_in_it(tmp_path: Path) -> None:
    lines = lines_of(record=record_of(7, "db2", "db1"))
    path = tmp_path / "some.jsonl"
    tried = 0
    for at, line in enumerate(lines):
        for broken in (*damaged(line), *NASTY):
            path.write_text("".join(f"{json.dumps(each)}\n" for each in (*lines[:at], broken, *lines[at + 1 :])))
            fmt = FORMATS[tried % len(FORMATS)]
            result = explain("--at", "2025-11-25T10:00:00Z", "--file", str(path), "-f", fmt)
            assert result.exit_code == 0, broken
            tried += 1
    assert tried > 1000


@pytest.mark.parametrize(
    "damage", ["5", "[]", "{}", '{"tool": "hamgr", "v": 1, "at": "x"}', '{"tool": "hamgr", "v": 2}']
)
def test_a_damaged_line_is_counted(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "some.jsonl"
    lines = [json.dumps(each) for each in lines_of(record={})]
    path.write_text("\n".join([damage, *lines]))
    result = explain("--at", "2025-11-25T10:00:00Z", "--file", str(path))
    assert result.exit_code == 0
    assert "1 lines of the recording were cut short or damaged" in result.output
    assert "db2 holds the leader key, in term 7" in result.output


def test_a_record_in_etcd_that_is_none_is_left_out(world: World) -> None:
    world.put("failovers/7", record_of(7, "p2", "p1"))
    for term, field in enumerate(({"at": "x"}, {"stages": [7]}, {"over_budget": 5}, {"at_risk_bytes": "1"}), start=8):
        world.put(f"failovers/{term}", {**record_of(term, "p2", "p1"), **field})
    for term in ("8", "9", "10", "11"):
        assert "terms on record: 7" in world.run("failovers", term).output
    assert world.run("failovers").exit_code == 0
    shown = world.run("failovers", "-f", "json")
    assert [each["term"] for each in json.loads(shown.output)] == [7]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("moment", ["9999-12-31", "9999-12-31T23:59:59Z", "0001-01-01", "0001-01-01T00:00:00Z"])
def test_the_ends_of_the_calendar_are_refused_in_every_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str, moment: str
) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in lines_of(record={})))
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        result = explain("--at", moment, "--file", str(path))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert result.exit_code in (1, 2)
    assert any(words in result.output for words in ("lies in the future", "the recording begins at", "is not a time"))
