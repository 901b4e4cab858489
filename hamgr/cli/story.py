"""What happened around an instant, as the flight recorder of one member tells it: text and JSON from the same value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hamgr.cli.errors import Refused
from hamgr.cli.moment import iso, shown, shown_date, shown_zone
from hamgr.cli.output import Column, Table
from hamgr.cli.recording import Recording
from hamgr.cli.timeline import record_text
from hamgr.core.changes import Change, Step, changes_in
from hamgr.core.recording import Event, Kind, event_as_json, words

BEFORE_S = 10.0
AFTER_S = 30.0
LABELS = {Kind.STARTED: "doing", Kind.ENDED: "did", Kind.RECORD: "did", Kind.DROPPED: "missing"}


@dataclass(frozen=True, slots=True)
class Story:
    """The events from `since_s` to `until_s` (wall clock), and what held before them."""

    member: str
    scope: str
    since_s: float
    until_s: float
    standing: Event | None
    """The last decision before."""
    events: tuple[Event, ...]
    changes: tuple[Change, ...]
    begins_s: float
    skipped: int


def story_around(recording: Recording, at: datetime, now: datetime, after_s: float = AFTER_S) -> Story:
    """From 10 s before `at` to `after_s` after it, or to now. Raises Refused where the recording cannot know."""
    begins_s = min(event.wall for event in recording.events)
    since_s, until_s = at.timestamp() - BEFORE_S, min(at.timestamp() + after_s, now.timestamp())
    if at > now:
        raise Refused(f"{shown_date(at.timestamp())} lies in the future", "a time without a date is of today")
    if until_s < begins_s:
        raise Refused(
            f"the recording begins at {shown_date(begins_s)}, after that time",
            "the two files hold `recorder.size` bytes: what is older is gone; try another member",
        )
    events = tuple(event for event in recording.events if since_s <= event.wall <= until_s)
    earlier = [event for event in recording.events if event.wall < since_s]
    decisions = [event for event in earlier if event.kind is Kind.DECIDED]
    began = [event for event in recording.events if event.kind is Kind.BEGAN]
    who = began[-1].values if began else {}
    return Story(
        member=str(who.get("member", "?")),
        scope=str(who.get("scope", "?")),
        since_s=since_s,
        until_s=until_s,
        standing=decisions[-1] if decisions else None,
        events=events,
        changes=changes_in(events),
        begins_s=begins_s,
        skipped=recording.skipped,
    )


def story_text(story: Story) -> str:
    """For people: times in this host's zone."""
    lines = [
        f"{story.member} of {story.scope}, {shown_date(story.since_s)} to {shown(story.until_s)[:8]}"
        f" {shown_zone(story.since_s)}"
    ]
    if story.standing is not None:
        lines.append(f"since {shown_date(story.standing.wall)}: {_decision(story.standing)}")
    elif story.since_s < story.begins_s:
        lines.append(f"the recording begins at {shown_date(story.begins_s)}")
    lines.append("")
    lines += [_line(event) for event in story.events] or ["nothing new was recorded in that time"]
    for change in story.changes:
        lines += ["", *_change_lines(story.member, change)]
    if story.skipped:
        lines += ["", f"{story.skipped} lines of the recording were cut short or damaged and are left out"]
    return "\n".join(lines)


def _line(event: Event) -> str:
    label = LABELS.get(event.kind, event.kind.value)
    text = _decision(event) if event.kind is Kind.DECIDED else words(event)
    return f"{shown(event.wall)}  {label:<8} {text}"


def _decision(event: Event) -> str:
    values = event.values
    standing = [f"server {values.get('server')}", f"term {values.get('term')}"]
    if isinstance(values.get("left_s"), int | float):
        standing.append(f"{values['left_s']:.1f} s to the deadline")
    if values.get("may_renew") is False:
        standing.append("the lease is not renewed")
    return f"rule {event.name}: {words(event)}  [{', '.join(standing)}]"


def _change_lines(member: str, change: Change) -> list[str]:
    former = f" from {change.former}" if change.former else ""
    lines = [f"change of leader{former} to {change.leader}, term {change.term}: the stages that {member} saw"]
    lines += [_step_line(step) for step in change.steps]
    if change.record is not None:
        lines += ["", f"the record that {member} wrote:", record_text(change.record)]
    return lines


def _step_line(step: Step) -> str:
    if step.took_s is None:
        return f"  {step.name:<9} not seen here"
    return f"  {step.name:<9} {step.took_s * 1000:>8.1f} ms  {step.by}"


def story_as_values(story: Story) -> dict[str, Any]:
    """For programs: times in UTC and in seconds."""
    return {
        "member": story.member,
        "scope": story.scope,
        "since": iso(story.since_s),
        "until": iso(story.until_s),
        "recording_begins": iso(story.begins_s),
        "standing": _event_as_values(story.standing) if story.standing is not None else None,
        "events": [_event_as_values(event) for event in story.events],
        "changes": [_change_as_values(change) for change in story.changes],
        "lines_cut_short": story.skipped,
    }


def events_table(story: Story) -> Table:
    """The events alone, as rows."""
    columns = tuple(Column(key) for key in ("time", "at_s", "kind", "name", "text"))
    return Table(columns, [_event_as_values(event) for event in story.events])


def _event_as_values(event: Event) -> dict[str, Any]:
    told = event_as_json(event)
    return {
        "time": iso(event.wall),
        "at_s": told["at"],
        "kind": told["kind"],
        "name": told["name"],
        "text": words(event),
        "values": told["values"],
    }


def _change_as_values(change: Change) -> dict[str, Any]:
    def rounded(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds, 4)

    steps = [
        {"name": step.name, "start_s": rounded(step.start), "end_s": rounded(step.end), "took_s": rounded(step.took_s)}
        | {"by": step.by, "is_seen": step.took_s is not None}
        for step in change.steps
    ]
    return {
        "term": change.term,
        "leader": change.leader,
        "former": change.former,
        "stages": steps,
        "record": change.record,
    }
