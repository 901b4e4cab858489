"""Names of members' replication slots, as Patroni makes them."""

from __future__ import annotations

import re

MAX_LENGTH = 63


def slot_name(member: str) -> str:
    """The physical slot of a member: lower case, `-` and `.` become `_`, anything else not allowed uXXXX."""
    return re.sub(r"[^a-z0-9_]", _replacement, member.lower())[:MAX_LENGTH]


def _replacement(found: re.Match[str]) -> str:
    character = found[0]
    return "_" if character in "-." else f"u{ord(character):04d}"
