"""The flight recorder's events: what they hold, how one is written as plain values, and how it reads in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hamgr.core.pipeline import LARGEST, LATEST, is_record
from hamgr.core.reasons import Code, Reason
from hamgr.core.sentences import filled, sentence
from hamgr.core.units import Instant, WallTime

VERSION = 1
TOOL = "hamgr"
MAX_TEXT = 400
"""Characters of one value: an error may quote a page."""
SUFFIXES = (".hamgr-recording.1.jsonl", ".hamgr-recording.jsonl")
"""Of the two files' names, after that of the data directory: the older one, and the one that is written."""

_NO_TEXT = re.compile("[\ud800-\udfff]")
_SECRET = re.compile(r"(?i)(pass(?:word|file)?\s*[=:]\s*)('(?:[^'\\]|\\.)*'|\S+)")
_LOGIN = re.compile(r"(\w+://[^\s:/@]*):[^\s@]*@")


class Kind(Enum):
    """What an event tells of."""

    BEGAN = "began"
    """An agent began: name of the member, version, pid, and the boot to which its instants belong."""
    SEEN = "seen"
    """Something was learned; `name` is one of SIGHTS."""
    DECIDED = "decided"
    """Another decision than the one before; `name` is the rule."""
    STARTED = "started"
    """An action began; `name` is its class."""
    ENDED = "ended"
    """It came to its end, with `result` and `took_s`."""
    RECORD = "record"
    """This member wrote the record of a change of leader, which is in `values`."""
    DROPPED = "dropped"
    """So many events are missing here: the disk did not keep up."""


KINDS = frozenset(kind.value for kind in Kind)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a recording. `at` is an instant of the boot that the last BEGAN names, `wall` the same for people."""

    at: Instant
    wall: WallTime
    kind: Kind
    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


SIGHTS: dict[str, str] = {
    "server": "the server is {phase}{role}",
    "server_exited": "the server ended without being asked (pid {pid})",
    "streaming": "the server streams from {upstream}",
    "not_streaming": "the server does not stream any more",
    "ill": "vital check failed: {vital}: {problem}",
    "well": "vital check is well again: {vital}",
    "store_failed": "etcd does not answer: {error}",
    "store_answers": "etcd answers again",
    "found_leader": "this agent finds {leader} as the holder of the leader key, in term {term}",
    "found_none": "this agent finds that nobody holds the leader key; the last term is {term}",
    "leader": "{leader} holds the leader key, in term {term}",
    "no_leader": "nobody holds the leader key; the last term is {term}",
    "roster": "the roster is {members}",
    "members": "announced members: {members}",
    "member": "{member} is {state}, {role}{note}",
    "ballot": "{member} votes for term {term} with {lsn} on timeline {timeline}",
    "request": "a change of leader is asked for: to {candidate}",
    "offer": "{holder} offers the lead of term {term}: its WAL ends at {lsn} ({cause})",
    "no_request": "the request is gone",
    "electorate": "without loss may lead: {leader}; or of {members}, having compared {quorum} others",
    "no_electorate": "no synchronous set is written down any more",
    "lease": "lease {lease} is in force, {left_s} s are left",
    "no_lease": "lease {lease} is gone",
    "renewed_late": "the lease was renewed {gap_s} s after the renewal before: {left_s} s were left",
    "peers_promised": "every other member has promised to wait: {left_s} s more without etcd",
    "promised": "this member has promised {leader} to wait for {for_s} s",
    "guard_lost": "the guard's heartbeat stopped",
    "guard_back": "the guard's heartbeat is back",
    "guard_problem": "this member must not lead: {problem}",
    "policy": "dynamic configuration of revision {revision} is in force: ttl {ttl_s} s, loop_wait {loop_wait_s} s",
    "alone": "this host reaches neither etcd nor any member",
    "not_alone": "this host reaches others again",
    "ordered": "an operator ordered: {order}",
    "stop_ordered": "told to stop in order",
    "store_reset": "etcd was made anew or restored from a backup: revision {revision}, and {former} before",
    "replace_ordered": "this agent is told to make room for a fresh one",
    "diverged": "the local WAL is no ancestor of the leader's",
    "promoted": "the server is out of recovery, in term {term}",
    "writable": "the server was seen to accept a write, in term {term}",
    "routed": "the first health check as primary was answered with 200, in term {term}",
}
"""What `hamgr.core.notice` notices, in words."""


def event_as_json(event: Event) -> dict[str, Any]:
    """Plain values of an event. Texts are cut, and what looks like a password is not in them."""
    return {
        "v": VERSION,
        "tool": TOOL,
        "time": round(event.wall, 4),
        "at": round(event.at, 4),
        "kind": event.kind.value,
        "name": event.name,
        "values": _plain(event.values),
    }


def event_from_json(value: Any) -> Event:
    """The event of such values. Raises ValueError if they are of something else, or of another version."""
    if not isinstance(value, Mapping) or value.get("tool") != TOOL:
        raise ValueError("is not an event of hamgr's flight recorder")
    if value.get("v") != VERSION:
        raise ValueError(f"is of version {value.get('v')!r:.40} of the recording, this hamgr reads {VERSION}")
    match value:
        case {
            "at": int() | float() as at,
            "time": int() | float() as wall,
            "kind": str() as kind,
            "name": str() as name,
            "values": Mapping() as values,
        } if 0 <= at < LATEST and 0 <= wall < LATEST and kind in KINDS and _is_sound([name, values]):
            if kind != Kind.RECORD.value or is_record(values):
                return Event(Instant(at), WallTime(wall), Kind(kind), name, values)
    raise ValueError("is not a whole event")


def _is_sound(value: Any) -> bool:
    """Texts can be written, and numbers reckoned with."""
    if isinstance(value, Mapping):
        return all(_is_sound(key) and _is_sound(each) for key, each in value.items())
    if isinstance(value, list):
        return all(_is_sound(each) for each in value)
    if isinstance(value, str):
        return not _NO_TEXT.search(value)
    return value is None or abs(value) <= LARGEST


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bool | float) or value is None or type(value) is int:
        return value
    return without_secrets(str(value))[:MAX_TEXT]


def without_secrets(text: str) -> str:
    """The text with passwords of connection strings and URLs blotted out."""
    return _LOGIN.sub(r"\1:***@", _SECRET.sub(r"\1***", text))


def words(event: Event) -> str:
    """The event as a sentence. Whatever a file holds, this says something."""
    values = event.values
    match event.kind:
        case Kind.BEGAN:
            return filled("agent of {member} began (hamgr {version}, pid {pid})", values)
        case Kind.SEEN:
            return filled(SIGHTS[event.name], values) if event.name in SIGHTS else event.name
        case Kind.DECIDED:
            return _reason_in_words(values)
        case Kind.STARTED:
            return f"{event.name}{_about(values)} begins"
        case Kind.ENDED:
            return _end_in_words(event.name, values)
        case Kind.RECORD:
            return filled("wrote the record of the change of leader in term {term}", values)
        case Kind.DROPPED:
            return filled("{count} events are missing here: the disk of the recording did not keep up", values)


def _reason_in_words(values: Mapping[str, Any]) -> str:
    given = values.get("reason_values")
    pairs = tuple((str(key), str(each)) for key, each in given.items()) if isinstance(given, Mapping) else ()
    try:
        return sentence(Reason(Code(values.get("reason")), pairs))
    except ValueError:
        return f"{values.get('reason')} {dict(pairs)}"


def _about(values: Mapping[str, Any]) -> str:
    about = values.get("about")
    if not isinstance(about, Mapping) or not about:
        return ""
    return " (" + ", ".join(f"{key} {each}" for key, each in about.items()) + ")"


def _end_in_words(name: str, values: Mapping[str, Any]) -> str:
    took_s = values.get("took_s")
    took = f" after {took_s * 1000:.0f} ms" if isinstance(took_s, int | float) else ""
    text = f": {values['text']}" if values.get("text") else ""
    again = f"; had ended alike {values['repeats']} times before" if values.get("repeats") else ""
    return f"{name}{_about(values)} {values.get('result')}{took}{text}{again}"
