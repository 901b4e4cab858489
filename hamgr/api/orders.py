"""Bodies of the methods that change something: read as strictly as a person would want them read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from hamgr.core.cluster import Request
from hamgr.core.peers import Claim
from hamgr.core.portrait import server_role
from hamgr.core.server import ServerView
from hamgr.core.units import Term, WallTime

TRUE_WORDS = frozenset({"true", "on", "yes", "1"})
FALSE_WORDS = frozenset({"false", "off", "no", "0"})
LONGEST_TTL_S = 86400.0
"""Nobody is bound for longer by a promise, whatever is asked for."""
TIME_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class Refusal(Exception):
    """The request cannot be taken: HTTP code and reason."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def parse_object(raw: bytes, *, may_be_empty: bool) -> dict[str, Any]:
    """The JSON object in a body; {} for none where that will do. Raises Refusal(400)."""
    if not raw.strip() and may_be_empty:
        return {}
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise Refusal(400, f"the body is not JSON: {problem}") from problem
    if not isinstance(value, dict):
        raise Refusal(400, "the body must be a JSON object")
    if not value and not may_be_empty:
        raise Refusal(400, "the body is an empty JSON object")
    return value


def _refuse_constant(word: str) -> None:
    """Python reads NaN and Infinity, which are no JSON: nobody could read back what they were written into."""
    raise ValueError(f"{word} is no JSON value")


def switchover_of(fields: Mapping[str, Any], wall_now: WallTime) -> Request:
    """A planned hand-over. Raises Refusal: 400, or 422 for a time that is none or has passed."""
    read = _fields(fields, {"leader": _name, "candidate": _name, "member": _name, "scheduled_at": _text})
    if not read.get("leader"):
        raise Refusal(400, "Switchover could be performed only from a specific leader")
    return _request(read, wall_now)


def failover_of(fields: Mapping[str, Any], wall_now: WallTime) -> Request:
    """A manual failover; one that names the leader is a switchover. Raises Refusal."""
    known = {
        "leader": _name,
        "candidate": _name,
        "member": _name,
        "scheduled_at": _text,
        "allow_data_loss": _flag,
    }
    read = _fields(fields, known)
    if not (read.get("candidate") or read.get("member")):
        raise Refusal(400, "Failover could be performed only to a specific candidate")
    if read.get("scheduled_at"):
        raise Refusal(400, "Failover can't be scheduled")
    return _request(read, wall_now)


def claim_of(fields: Mapping[str, Any]) -> Claim:
    """What a leader that cannot renew its lease asks of this member: Patroni's body, with term and ttl. Raises Refusal.

    A ttl of 0 asks whether it would promise, and binds it to nothing. The other fields are not read.
    """
    known = {"name": _name, "term": _term, "ttl": _ttl_s, "conn_url": _text, "api_url": _text, "slots": _object}
    read = _fields(fields, known)
    missing = [name for name in ("name", "term", "ttl") if read.get(name) in (None, "")]
    if missing:
        raise Refusal(400, f"{missing[0]!r} is missing: a leader says its name, its term and its ttl in seconds")
    return Claim(read["name"], read["term"], read["ttl"])


def _request(read: Mapping[str, Any], wall_now: WallTime) -> Request:
    leader = read.get("leader") or ""
    candidate = read.get("candidate") or read.get("member") or ""
    if leader and leader == candidate:
        raise Refusal(400, "Switchover target and source are the same")
    scheduled = read.get("scheduled_at")
    at = _future(scheduled, wall_now) if scheduled else None
    return Request(leader, candidate, at, allow_data_loss=bool(read.get("allow_data_loss")))


def _future(text: str, wall_now: WallTime) -> WallTime:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as problem:
        hint = "It should be in an unambiguous format, e.g. ISO 8601"
        raise Refusal(422, f"Unable to parse scheduled timestamp. {hint}: {text!r}") from problem
    if at.tzinfo is None:
        raise Refusal(400, "Timezone information is mandatory for the scheduled switchover")
    if at.timestamp() <= wall_now:
        raise Refusal(422, "Cannot schedule switchover in the past")
    try:
        # As it will be written: in UTC it may be a day later, and there is no year 10000.
        datetime.fromtimestamp(at.timestamp(), UTC)
    except (ValueError, OverflowError) as problem:
        raise Refusal(422, "Cannot schedule switchover so late") from problem
    return WallTime(at.timestamp())


def restart_options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Options of POST /restart: role, postgres_version, timeout (seconds), restart_pending. Raises Refusal(400)."""
    if "schedule" in fields:
        raise Refusal(400, "hamgr does not schedule restarts: leave 'schedule' out to restart now")
    known = {"role": _role, "postgres_version": _version, "timeout": _timeout_s, "restart_pending": _flag}
    return _fields(fields, known)


def why_not_restart(options: Mapping[str, Any], server: ServerView) -> str:
    """The filter that this server does not pass; empty when it is to be restarted."""
    role = options.get("role")
    if role is not None and role != server_role(server):
        return f"this member is not {role}"
    version = options.get("postgres_version")
    if version is not None and _version_number(version) <= server.server_version:
        return f"PostgreSQL is not older than {version}"
    if options.get("restart_pending") and not server.pending_restart:
        return "no restart is pending"
    return ""


def reinitialize_options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Options of POST /reinitialize: force, from_leader (from-leader will do). Raises Refusal(400)."""
    read = _fields(fields, {"force": _flag, "from_leader": _flag, "from-leader": _flag})
    dashed = read.pop("from-leader", False)
    return read | {"from_leader": bool(read.get("from_leader") or dashed)}


# -- fields ----------------------------------------------------------------------------------------------------


def _fields(fields: Mapping[str, Any], known: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    for name in fields:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise Refusal(400, f"unknown field {name!r}: {hint}")
    return {name: known[name](name, value) for name, value in fields.items() if value is not None}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Refusal(400, f"{name!r} must be a string")
    return value


def _name(name: str, value: Any) -> str:
    text = _text(name, value)
    if "/" in text or not text.isprintable():
        raise Refusal(400, f"{name!r} is no member's name: {text!r}")
    return text


def _term(name: str, value: Any) -> Term:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise Refusal(400, f"{name!r} must be a positive number")
    return Term(value)


def _ttl_s(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_TTL_S:
        raise Refusal(400, f"{name!r} must be a number of seconds up to {LONGEST_TTL_S:g}")
    return float(value)


def _object(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(400, f"{name!r} must be a JSON object")
    return value


def _flag(name: str, value: Any) -> bool:
    word = str(value).lower()
    if isinstance(value, bool | int | str) and word in TRUE_WORDS | FALSE_WORDS:
        return word in TRUE_WORDS
    raise Refusal(400, f"{name!r} must be true or false")


def _role(name: str, value: Any) -> str:
    if value not in ("primary", "replica", "standby_leader"):
        raise Refusal(400, "PostgreSQL role should be either primary, standby_leader, or replica")
    return str(value)


def _version(name: str, value: Any) -> str:
    text = _text(name, value)
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,3})?", text):
        raise Refusal(400, f"{name!r} must be a PostgreSQL version, e.g. '15.2'")
    return text


def _version_number(text: str) -> int:
    major, _, minor = text.partition(".")
    return int(major) * 10000 + int(minor or 0)


def _timeout_s(name: str, value: Any) -> float:
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(ms|s|min|h|d|)\s*", str(value))
    seconds = float(match.group(1)) * TIME_UNITS_S[match.group(2)] if match else 0.0
    if isinstance(value, bool) or seconds <= 0:
        raise Refusal(400, "Timeout should be a positive number of seconds")
    return seconds
