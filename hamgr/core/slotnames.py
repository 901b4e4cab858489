"""Names of members' replication slots, as Patroni makes them."""

from __future__ import annotations

import re

MAX_LENGTH = 63


def slot_name(member: str) -> str:
    """The physical slot of a member: lower case, '-' and '.' as '_', anything else not allowed as its code."""
    lowered = member.lower()
    plain = re.sub(r"[-.]", "_", lowered)
    return re.sub(r"[^a-z0-9_]", lambda hit: f"u{ord(hit.group()):04d}", plain)[:MAX_LENGTH]
