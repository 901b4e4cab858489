"""The environment of a forecast: network, disks, durations, and what breaks how often. Read from YAML and checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hamgr.core.policy import Policy, longest_ask_of
from hamgr.settings import Problem, SettingsError
from hamgr.settings.kinds import Bytes, Seconds
from hamgr.settings.problem import join
from hamgr.settings.relations import usable_s
from hamgr.settings.section import Section, option, section_of
from hamgr.settings.sort import sort_out, value_problems
from hamgr.settings.source import read_file
from hamgr.settings.yamltext import BadYaml, yaml_value
from hamgr.sim.forecast.spread import LONGEST_S, Both, Spread, SpreadOf, SpreadPace

MOST_MEMBERS = 15
MOST_PER_YEAR = 1_000_000
PLACE = "environment"
MEMBER_FILE_KEYS = ("scope", "postgresql", "bootstrap", "restapi")
WRITE_EVERY_S = 0.1
ROUNDS = 2
"""A renewal and the read that confirms it; and peers are asked twice."""


class Rate(Section):
    """How often something happens, and how long it lasts until it is over by itself or has been repaired."""

    per_year: float = option(..., "How often in a year.", ge=0, le=MOST_PER_YEAR, strict=True)
    lasts: SpreadOf = option(..., "Until it is over.")


class Often(Section):
    """How often something happens that is over at once."""

    per_year: float = option(..., "How often in a year.", ge=0, le=MOST_PER_YEAR, strict=True)


class Faults(Section):
    """Per member and year, but for what concerns etcd as a whole and the cluster."""

    host_lost: Rate = option(..., "A host loses power.")
    host_paused: Rate = option(..., "A whole host stands still: live migration, a snapshot, stolen CPU, swapping.")
    server_killed: Often = option(..., "PostgreSQL crashes, the host is well.")
    server_hung: Rate = option(..., "PostgreSQL stands still, the host is well.")
    disk_full: Rate = option(..., "No room on the disk.")
    disk_hung: Rate = option(..., "Writes to the disk do not return.")
    agent_killed: Often = option(..., "The agent dies.")
    agent_frozen: Rate = option(..., "The agent stands still.")
    network_cut: Rate = option(..., "A host reaches nobody, and nobody reaches it.")
    etcd_unreachable: Rate = option(..., "A member does not reach etcd, but everybody else.")
    etcd_stalled: Rate = option(..., "All of etcd does not answer for a while: a slow disk, a long compaction.")
    etcd_member_lost: Rate = option(..., "An etcd member is lost, per etcd member; how long until it is replaced.")
    switchover: Often = option(..., "Planned switchovers of the cluster.")


class Environment(Section):
    """Times of one round trip, one flush and so on, each with its spread."""

    members: int = option(..., "PostgreSQL hosts.", ge=2, le=MOST_MEMBERS, strict=True)
    etcd_members: int = option(..., "Members of etcd.", ge=1, le=9, strict=True)
    round_trip: SpreadOf = option(..., "A message and its answer, between any two hosts.")
    flush: SpreadOf = option(..., "A flush of etcd's disk; with it each request to etcd is so much later.")
    wal_flush: SpreadOf = option(..., "A flush of WAL on a standby.")
    packet_loss: float = option(..., "Share of packets that are lost and sent again.", ge=0, lt=0.5, strict=True)
    promotion: SpreadOf = option(..., "pg_promote to the end of recovery.")
    stop: SpreadOf = option(..., "A fast shutdown after a checkpoint.")
    start: SpreadOf = option(..., "A start of a server that was shut down in order.")
    recovery: SpreadOf = option(..., "What crash recovery adds to a start.")
    rewind: SpreadOf = option(..., "pg_rewind.")
    clone: SpreadOf = option(..., "A base backup.")
    etcd_election: SpreadOf = option(..., "How long etcd is without a leader after it has lost one.")
    wal_per_second: Bytes = option(..., "WAL that clients write.", ge=1)
    sit_out: Seconds = option(
        ..., "A failover is needless where the fault would have been over by itself within this time.", gt=0, le=86400
    )
    faults: Faults = option(..., "What breaks, how often.")

    def pace(self) -> SpreadPace:
        """How long things take in the simulator."""
        one_way = self.round_trip.one_way
        return SpreadPace(
            hop=Both(one_way, self.wal_flush),
            to_etcd=Both(one_way, self.flush),
            from_etcd=one_way,
            promote=self.promotion,
            stop=self.stop,
            start=self.start,
            recovery=self.recovery,
            rewind=self.rewind,
            clone=self.clone,
        )

    @property
    def longest_repair_s(self) -> float:
        """What may have to be waited for, at the longest, where everything takes as long as it can."""
        network = (self.round_trip, self.flush, self.wal_flush, self.etcd_election)
        server = (self.stop, self.start, self.recovery, self.promotion, self.rewind, self.clone)
        return sum(spread[1] for spread in (*network, *server))

    @property
    def write_bytes(self) -> int:
        """Of each of the writes that stand for all."""
        return max(1, int(self.wal_per_second * WRITE_EVERY_S))


DEFAULTS: Mapping[str, Any] = {
    "members": 3,
    "etcd_members": 3,
    "round_trip": {"p50": "0.5ms", "p99": "3ms", "p99.9": "20ms", "max": "300ms"},
    "flush": {"p50": "1ms", "p99": "10ms", "p99.9": "50ms", "max": "500ms"},
    "wal_flush": {"p50": "1ms", "p99": "10ms", "max": "300ms"},
    "packet_loss": 0.0001,
    "promotion": {"p50": "40ms", "p99": "200ms", "max": "1s"},
    "stop": {"p50": "40ms", "p99": "300ms", "max": "2s"},
    "start": {"p50": "120ms", "p99": "500ms", "max": "2s"},
    "recovery": {"p50": "400ms", "p99": "10s", "max": "60s"},
    "rewind": {"p50": "500ms", "max": "5s"},
    "clone": {"p50": "5s", "max": "20s"},
    "etcd_election": {"p50": "1.2s", "max": "3s"},
    "wal_per_second": "100kB",
    "sit_out": "30s",
    "faults": {
        "host_lost": {"per_year": 0.5, "lasts": {"p50": "10min", "max": "1d"}},
        "host_paused": {
            "per_year": 50,
            "lasts": {"p50": "100ms", "p90": "1s", "p99": "5s", "p99.9": "20s", "max": "60s"},
        },
        "server_killed": {"per_year": 1},
        "server_hung": {"per_year": 0.2, "lasts": {"p50": "1min", "max": "1h"}},
        "disk_full": {"per_year": 0.2, "lasts": {"p50": "30min", "max": "1d"}},
        "disk_hung": {"per_year": 1, "lasts": {"p50": "2s", "p90": "1min", "max": "1h"}},
        "agent_killed": {"per_year": 2},
        "agent_frozen": {"per_year": 1, "lasts": {"p50": "10s", "max": "1h"}},
        "network_cut": {"per_year": 10, "lasts": {"p50": "1s", "p90": "30s", "p99": "10min", "max": "2h"}},
        "etcd_unreachable": {"per_year": 2, "lasts": {"p50": "2s", "p90": "1min", "max": "1h"}},
        "etcd_stalled": {"per_year": 10, "lasts": {"p50": "500ms", "p90": "2s", "p99": "10s", "max": "60s"}},
        "etcd_member_lost": {"per_year": 1, "lasts": {"p50": "10min", "max": "1d"}},
        "switchover": {"per_year": 12},
    },
}
"""Assumptions, not measurements: what a small cluster of virtual machines in one place may see."""


def read_environment(path: Path | None, changes: Iterable[str]) -> Environment:
    """Defaults, over them the file, over that changes (a.b=value). Raises SettingsError with every problem."""
    raw: dict[str, Any] = _copied(DEFAULTS)
    written = _read(path) if path is not None else {}
    known, problems = sort_out(written, Environment, "", PLACE)
    raw = _merged(raw, known, Environment)
    wrong = [*problems, *_empty(written, Environment, "")]
    for change in changes:
        wrong += _changed(raw, change)
    known, problems = sort_out(raw, Environment, "", PLACE)
    try:
        environment = Environment.model_validate(known)
    except ValidationError as error:
        raise SettingsError((*wrong, *problems, *value_problems(error, Environment, ""))) from None
    if wrong or problems:
        raise SettingsError((*wrong, *problems))
    return environment


def environment_problems(environment: Environment, policy: Policy) -> list[Problem]:
    """What cannot be together: an environment in which that configuration cannot work at all."""
    problems = []
    limit_s, typical_s = policy.retry_timeout_s / 2, environment.round_trip.at(0.5)
    call_s = typical_s + environment.flush.at(0.5)
    slower = "round_trip" if 2 * typical_s >= call_s else "flush"
    if call_s >= limit_s:
        text = f"half of all calls to etcd take {call_s:g} s or longer, and each is given up after {limit_s:g} s"
        problems.append(Problem(slower, text, "raise retry_timeout"))
    renewal_s = ROUNDS * call_s
    if max(policy.renew_interval_s, renewal_s) + renewal_s >= usable_s(policy):
        text = f"half of all renewals take {renewal_s:g} s or longer, and a lease has {usable_s(policy):.2f} s for them"
        problems.append(Problem(slower, text, "raise ttl"))
    if typical_s * 2 >= longest_ask_of(policy.ttl_s):
        text = f"{typical_s:g} s leave peers no time to promise within ttl ({policy.ttl_s:g} s)"
        problems.append(Problem("round_trip", text, "raise ttl"))
    if policy.pause:
        problems.append(Problem("pause", "is on: nothing fails over", "take it out of bootstrap.dcs"))
    needed = policy.synchronous_node_count + 1
    if policy.synchronous_mode != "off" and environment.members < needed:
        text = f"{environment.members} are too few for synchronous_node_count: {policy.synchronous_node_count}"
        problems.append(Problem("members", text, f"{needed} at least"))
    for key, rate in environment.faults:
        if isinstance(rate, Rate) and rate.per_year * rate.lasts.mean > LONGEST_S:
            text = f"{rate.per_year:g} of {rate.lasts.mean:g} s in the mean are more than a year has"
            problems.append(Problem(f"faults.{key}", text))
    return problems


def _read(path: Path) -> Mapping[Any, Any]:
    try:
        raw = read_file(path).raw
    except SettingsError as error:
        raise SettingsError(tuple(Problem(each.path, each.text) for each in error.problems)) from None
    alien = [key for key in MEMBER_FILE_KEYS if key in raw]
    if alien:
        text = f"{path} has {', '.join(alien)}: it looks like the configuration of a member, not an environment"
        raise SettingsError((Problem("", text, "hamgr simulate FILE --environment OTHER"),))
    return raw


def _empty(written: Mapping[Any, Any], model: type[Section], at: str) -> Iterator[Problem]:
    """Keys without a value: whoever wrote one did not mean what is assumed without it."""
    for key, field in model.model_fields.items():
        value, inner = written.get(key, field), section_of(field)
        if value is None or (inner is not None and value == {}):
            yield Problem(join(at, key), "is empty", "write its value, or take the key out for what is assumed")
        elif inner is not None and isinstance(value, Mapping):
            yield from _empty(value, inner, join(at, key))


def _merged(base: dict[str, Any], over: Mapping[str, Any], model: type[Section]) -> dict[str, Any]:
    """Sections are merged key by key, values are replaced whole: quantiles of two spreads do not mix."""
    merged = dict(base)
    for key, value in over.items():
        inner = section_of(model.model_fields[key])
        merged[key] = _merged(base[key], value, inner) if inner is not None else value
    return merged


def _changed(raw: dict[str, Any], change: str) -> list[Problem]:
    """Make one change; what is wrong with it, if it cannot be."""
    path, equals, text = change.partition("=")
    parts = _parts(path.strip())
    if not equals or not parts:
        return [Problem("--set", "is not KEY=VALUE, for example --set faults.host_lost.per_year=2")]
    at: Any = raw
    for part in parts[:-1]:
        at = at.get(part) if isinstance(at, dict) else None
    if not isinstance(at, dict):
        return [Problem(path, "unknown key")]
    try:
        at[parts[-1]] = yaml_value(text)
    except BadYaml as problem:
        return [Problem(path, f"is not a value of YAML: {problem.reason}")]
    return []


def _parts(path: str) -> list[str]:
    """Keys of a path; a quantile's own dot (p99.9) is none between keys."""
    parts: list[str] = []
    for part in path.split("."):
        if part.isdigit() and parts and parts[-1].startswith("p") and parts[-1][1:].isdigit():
            parts[-1] = f"{parts[-1]}.{part}"
        else:
            parts.append(part)
    return parts if all(parts) else []


def _copied(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in raw.items()}


def fixed(seconds: float) -> Spread:
    """Always that long."""
    return Spread(((0.0, seconds), (1.0, seconds)))
