"""`explain --at`: times as people write them, what a recording tells, and what is said where it cannot tell."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from hamgr.__main__ import cli
from hamgr.cli.moment import parse_moment, parse_span
from hamgr.core.recording import SIGHTS, SUFFIXES, Event, Kind, event_as_json, event_from_json, words
from hamgr.core.units import Instant, WallTime

LINE = '{"tool": "hamgr", "v": 1, "at": 1, "time": %s, "kind": "%s", "name": "", "values": {}}'
BERLIN = timezone(timedelta(hours=1), "CET")
NOON = datetime(2025, 11, 25, 12, 0, 0, tzinfo=BERLIN)
FAULT = datetime(2025, 11, 25, 10, 0, 0, tzinfo=UTC).timestamp()


def event(after_s: float, kind: Kind, name: str = "", **values: Any) -> Event:
    return Event(Instant(5000.0 + after_s), WallTime(FAULT + after_s), kind, name, values)


def done(after_s: float, name: str, took_s: float, **about: Any) -> Event:
    values = {"about": about, "result": "done", "began_at": 5000.0 + after_s - took_s, "took_s": took_s}
    return event(after_s, Kind.ENDED, name, **values)


def decided(after_s: float, rule: str, reason: str, **values: str) -> Event:
    told = {"reason": reason, "reason_values": values, "server": "primary", "term": 6, "left_s": 4.1}
    return event(after_s, Kind.DECIDED, rule, **told)


BEGAN = event(-600.0, Kind.BEGAN, member="db1", scope="main", version="0.3.0", pid=77, boot="b1")
OLD_PRIMARY = (
    BEGAN,
    decided(-599.0, "steady", "leading", term="6"),
    # Written in the order in which the loop learned of them, not in that of the instants.
    decided(0.004, "crashed", "examining_crash"),
    event(0.001, Kind.SEEN, "server_exited", pid=4321),
    event(0.004, Kind.STARTED, "ExamineCrash", about={}),
    done(0.030, "ExamineCrash", 0.026),
    done(0.036, "PutOffer", 0.005, cause="server_crashed", lsn="0/5000"),
    event(0.045, Kind.SEEN, "leader", leader="db2", term=7, former="db1", former_term=6),
)


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configuration file of a member whose recording stands beside its data directory."""
    monkeypatch.delenv("HAMGR_CONFIG", raising=False)
    file = tmp_path / "hamgr.yml"
    file.write_text(yaml.safe_dump({"scope": "main", "name": "db1", "postgresql": {"data_dir": f"{tmp_path}/data"}}))
    record(tmp_path, OLD_PRIMARY)
    return file


def record(folder: Path, events: tuple[Event, ...], suffix: str = SUFFIXES[1]) -> Path:
    path = folder / f"data{suffix}"
    path.write_text("".join(json.dumps(event_as_json(each)) + "\n" for each in events))
    return path


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def at_fault(member: Path, *options: str) -> Result:
    return explain("-c", str(member), "explain", "--at", "2025-11-25T10:00:00Z", *options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-11-25T11:30:00+01:00", "2025-11-25T10:30:00+00:00"),
        ("2025-11-25T10:30:00.250Z", "2025-11-25T10:30:00.250000+00:00"),
        ("2025-11-25 11:30:00", "2025-11-25T10:30:00+00:00"),
        ("11:30", "2025-11-25T10:30:00+00:00"),
        ("9:05:07", "2025-11-25T08:05:07+00:00"),
        ("-5m", "2025-11-25T10:55:00+00:00"),
        ("-1.5h", "2025-11-25T09:30:00+00:00"),
        ("-90", "2025-11-25T10:58:30+00:00"),
    ],
)
def test_time_is_read_as_people_write_it(text: str, expected: str) -> None:
    assert parse_moment(text, NOON, BERLIN).isoformat() == expected


@pytest.mark.parametrize("text", ["", "yesterday", "25:00", "11:61", "-5x", "-", "2025-13-01", "-99999999999d", "11"])
def test_what_is_no_time_is_refused_with_an_example(text: str, member: Path) -> None:
    result = explain("-c", str(member), "explain", "--at", text)
    assert result.exit_code == 2
    assert "write" in result.output or "calendar" in result.output


def test_span_is_read_as_people_write_it() -> None:
    assert [parse_span(text) for text in ("30s", "500ms", "2m", "1min", "7")] == [30.0, 0.5, 120.0, 60.0, 7.0]


def test_old_primary_tells_crash_rule_and_durations_and_which_stages_it_did_not_see(member: Path) -> None:
    result = at_fault(member)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("db1 of main, ")
    assert "rule steady: leading in term 6  [server primary, term 6, 4.1 s to the deadline]" in lines[1]
    told = [line.split("  ", 1)[1] for line in lines[3:9]]
    assert told == [
        "seen     the server ended without being asked (pid 4321)",
        "decided  rule crashed: the server ended without being asked: reading where its WAL ends"
        "  [server primary, term 6, 4.1 s to the deadline]",
        "doing    ExamineCrash begins",
        "did      ExamineCrash done after 26 ms",
        "did      PutOffer (cause server_crashed, lsn 0/5000) done after 5 ms",
        "seen     db2 holds the leader key, in term 7",
    ]
    stages = {line.split()[0]: line for line in lines[11:]}
    assert "change of leader from db1 to db2, term 7: the stages that db1 saw" in lines[10]
    assert "3.0 ms  server_exited, then rule crashed" in stages["detect"]
    assert "26.0 ms  ExamineCrash" in stages["fence"]
    assert all("not seen here" in stages[name] for name in ("vote", "elect", "promote", "writable", "routed"))


def test_programs_get_the_same_events(member: Path) -> None:
    value = json.loads(at_fault(member, "-f", "json").output)
    assert [each["name"] for each in value["events"]][:3] == ["server_exited", "crashed", "ExamineCrash"]
    assert value["events"][0]["time"] == "2025-11-25T10:00:00.001Z"
    assert value["standing"]["name"] == "steady"
    (change,) = value["changes"]
    assert {stage["name"]: stage["took_s"] for stage in change["stages"]}["fence"] == 0.026
    assert len(at_fault(member, "-f", "tsv").output.splitlines()) == len(value["events"]) + 1


def test_time_in_which_nothing_happened_is_told_by_what_held(member: Path) -> None:
    result = explain("-c", str(member), "explain", "--at", "2025-11-25T09:55:00Z")
    assert result.exit_code == 0
    assert "rule steady: leading in term 6" in result.output
    assert "nothing new was recorded in that time" in result.output


def test_span_bounds_what_is_told(member: Path) -> None:
    value = json.loads(at_fault(member, "--for", "10ms", "-f", "json").output)
    assert [each["name"] for each in value["events"]] == ["server_exited", "crashed", "ExamineCrash"]
    assert at_fault(member, "--for", "999999999d").exit_code == 0
    assert at_fault(member, "--for", "soon").exit_code == 2


def test_view_of_a_fresh_agent_is_no_change_of_leader(member: Path) -> None:
    found = event(0.01, Kind.SEEN, "found_leader", leader="db2", term=7, former="", former_term=0)
    record(member.parent, (BEGAN, found))
    assert json.loads(at_fault(member, "-f", "json").output)["changes"] == []


def test_older_file_comes_first_and_its_boot_keeps_its_clock(member: Path) -> None:
    """After a reboot the clock of instants begins anew."""
    record(member.parent, OLD_PRIMARY, SUFFIXES[0])
    fresh = Event(Instant(12.0), WallTime(FAULT + 20.0), Kind.BEGAN, "", {**BEGAN.values, "boot": "b2"})
    present = record(member.parent, (fresh,))
    for options in (("-c", str(member), "explain"), ("explain", "--file", str(present))):
        value = json.loads(explain(*options, "--at", "2025-11-25T10:00:00Z", "-f", "json").output)
        assert [each["kind"] for each in value["events"]][-1] == "began"
        assert len(value["events"]) == 7


def test_lines_cut_short_are_left_out_and_counted(member: Path) -> None:
    path = member.parent / f"data{SUFFIXES[1]}"
    path.write_text(path.read_text() + '{"v": 1, "tool": "ham')
    assert "1 lines of the recording were cut short" in at_fault(member).output


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no recording"),
        ("", "there is no recording"),
        ("2025-11-25 10:00:00 INFO: no action. I am (db1)\n", "is not a recording of hamgr"),
        ('{"level": "INFO", "message": "x"}\n', "line 1 is not an event of hamgr's flight recorder"),
        ('{"tool": "hamgr", "v": 99}\n', "line 1 is of version 99"),
        ('{"tool": "hamgr", "v": 1, "at": "x"}\n', "line 1 is not a whole event"),
        (LINE % ("1e300", "seen"), "line 1 is not a whole event"),
        (LINE % ("NaN", "seen"), "line 1 is not a whole event"),
        (LINE % ("1e9", "sung"), "line 1 is not a whole event"),
        ("[1, 2]\n", "line 1 is not an event"),
        ("\0\0\0\n", "is not a recording of hamgr"),
    ],
)
def test_what_is_no_recording_is_refused_by_name(content: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    if content is not None:
        path.write_text(content)
    result = explain("explain", "--at", "-5m", "--file", str(path))
    assert result.exit_code == 1
    assert says in result.output
    assert str(path) in result.output


@pytest.mark.parametrize(
    ("moment", "says"),
    [("2025-11-25T08:00:00Z", "the recording begins at"), ("2999-01-01", "lies in the future")],
)
def test_time_that_the_recording_cannot_know_is_refused(moment: str, says: str, member: Path) -> None:
    result = explain("-c", str(member), "explain", "--at", moment)
    assert result.exit_code == 1
    assert says in result.output


def test_file_of_no_member_is_refused(tmp_path: Path, member: Path) -> None:
    member.write_text("scope: main\n")
    result = at_fault(member)
    assert result.exit_code == 4
    assert "names no postgresql.data_dir" in result.output


@pytest.mark.parametrize("option", [("--for", "30s"), ("--file", "x")])
def test_options_of_the_past_need_a_time(option: tuple[str, str]) -> None:
    result = explain("explain", *option)
    assert result.exit_code == 2
    assert "--at TIME" in result.output


def test_every_event_comes_back_as_it_was_written() -> None:
    for each in OLD_PRIMARY:
        assert event_from_json(json.loads(json.dumps(event_as_json(each)))) == each


def test_every_sight_has_a_sentence_even_without_values() -> None:
    for name in SIGHTS:
        assert words(event(0.0, Kind.SEEN, name))
    assert words(event(0.0, Kind.SEEN, "of a later version")) == "of a later version"
    assert words(event(0.0, Kind.DECIDED, "new_rule", reason="new_reason")) == "new_reason {}"
