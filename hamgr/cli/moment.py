"""Instants and spans as people write them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, tzinfo

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|m|h|d)?")
_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d{1,6})?)?")


def parse_moment(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """The instant that `text` names, seen from `now`. `zone`: of a time that names none; None: this host's.

    ISO 8601 with or without zone, `HH:MM[:SS]` of today, or `-5m` for five minutes ago. Raises ValueError.
    """
    text = text.strip()
    if text.startswith("-"):
        ago_s = parse_span(text[1:])
        try:
            return datetime.fromtimestamp(now.timestamp() - ago_s, UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise ValueError(f"{text!r} is longer ago than a calendar reaches") from error
    try:
        if _OF_DAY.fullmatch(text):
            of_day = time.fromisoformat(text if text[1] != ":" else f"0{text}")
            found = datetime.combine(now.astimezone(zone).date(), of_day)
        else:
            found = datetime.fromisoformat(text)
        if found.tzinfo is None and zone is not None:
            found = found.replace(tzinfo=zone)
        return found.astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"{text!r} is not a time: write 2026-11-25T14:03:07, 2026-11-25T14:03:07Z, 14:03[:07] of today, or -5m"
        ) from error


def parse_span(text: str) -> float:
    """Seconds of `30s`, `500ms`, `5m`, `2h`, `1d` or a bare number of seconds. Raises ValueError."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a span of time: write 30s, 500ms, 5m, 2h or 1d")
    return float(found[1]) * UNITS_S[found[2] or "s"]


def shown(wall_s: float) -> str:
    """Time of day with milliseconds, in this host's zone."""
    return _here(wall_s).strftime("%H:%M:%S.%f")[:-3]


def shown_date(wall_s: float) -> str:
    """Date and time to the second, in this host's zone."""
    return _here(wall_s).strftime("%Y-%m-%d %H:%M:%S")


def shown_zone(wall_s: float) -> str:
    """The name of this host's zone at that time."""
    return _here(wall_s).strftime("%Z")


def _here(wall_s: float) -> datetime:
    at = datetime.fromtimestamp(wall_s, UTC)
    try:
        return at.astimezone()
    except (OverflowError, ValueError):
        # East of Greenwich the last day of the year 9999 is in the year 10000.
        return at


def iso(wall_s: float) -> str:
    """UTC with milliseconds, as programs want it."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
