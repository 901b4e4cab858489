"""Reading a flight recorder's files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from hamgr.cli.errors import BadConfig, Refused
from hamgr.core.recording import SUFFIXES, Event, Kind, event_from_json


@dataclass(frozen=True, slots=True)
class Recording:
    """Events in the order in which they happened, at least one."""

    events: tuple[Event, ...]
    skipped: int
    """Lines that a crash or a full disk cut short, or that were damaged otherwise."""


def paths_beside(data_dir: Path) -> tuple[Path, ...]:
    """The files of the member with that data directory, the older one first."""
    return tuple(data_dir.with_name(data_dir.name + suffix) for suffix in SUFFIXES)


def paths_of(file: Path) -> tuple[Path, ...]:
    """A recording named by hand, after the older one beside it if there is one."""
    older, present = SUFFIXES
    if not file.name.endswith(present) or file.name.endswith(older):
        return (file,)
    return (file.with_name(file.name.removesuffix(present) + older), file)


def read_recording(paths: Sequence[Path]) -> Recording:
    """All that these files hold. Raises Refused if there are none, or if one is of something else."""
    events: list[Event] = []
    skipped = 0
    for path in paths:
        for event in _events_of(path):
            if event is None:
                skipped += 1
            else:
                events.append(event)
    if not events:
        raise Refused(
            f"there is no recording: {paths[-1]} is missing or empty",
            "name the member's file with -c, or a recording with --file; `recorder.size: 0` turns the recorder off",
        )
    return Recording(tuple(_in_order(events)), skipped)


def _events_of(path: Path) -> Iterator[Event | None]:
    """The events of a file; None for each line that is none. Raises Refused where all are."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {error.strerror}", "run this as the user that hamgr runs as") from error
    whole, first_damage = 0, ""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = _event_of(line)
        except ValueError as error:
            first_damage = first_damage or f"line {number} {error}"
            yield None
        else:
            yield event
            whole += 1
    if first_damage and not whole:
        raise Refused(f"{path} is not a recording of hamgr that this version can read: {first_damage}")


def _event_of(line: bytes) -> Event:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    return event_from_json(value)


def _in_order(events: list[Event]) -> Iterator[Event]:
    """By the clock that does not step, boot by boot: an exit is older than the look that followed it."""
    boot = ""
    marked = []
    for event in events:
        if event.kind is Kind.BEGAN:
            boot = str(event.values.get("boot"))
        marked.append((boot, event))
    for _, run in groupby(marked, key=lambda pair: pair[0]):
        yield from sorted((event for _, event in run), key=lambda event: event.at)
