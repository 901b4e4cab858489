"""Changes of leader in a recording: the stages that one member saw, from its own events. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hamgr.core.pipeline import STAGES
from hamgr.core.recording import Event, Kind
from hamgr.core.units import Instant, Term

ENDING = frozenset({"ExamineCrash", "HandOverStop", "PutDown", "Fence", "StopServer"})
"""Actions after which no process of a primary is left."""


@dataclass(frozen=True, slots=True)
class Step:
    """A stage of hamgr.core.pipeline as one member saw it. `start` and `end` None: it did not. `by`: what shows it."""

    name: str
    start: Instant | None = None
    end: Instant | None = None
    by: str = ""

    @property
    def took_s(self) -> float | None:
        return None if self.start is None or self.end is None else self.end - self.start


@dataclass(frozen=True, slots=True)
class Change:
    """One change of leader. `former` is empty where this member did not see who led before."""

    term: Term
    leader: str
    former: str
    steps: tuple[Step, ...]
    record: Mapping[str, Any] | None
    """Where this member wrote it: all stages, those that others measured, too."""


def changes_in(events: Sequence[Event]) -> tuple[Change, ...]:
    """The changes of leader that these events tell of, in order."""
    found = []
    since, former = 0, ""
    for index, event in enumerate(events):
        if event.kind is not Kind.SEEN:
            continue
        leader, before = str(event.values.get("leader") or ""), str(event.values.get("former") or "")
        if event.name == "leader" and _number(event.values, "term") > _number(event.values, "former_term"):
            found.append(_change(events, since, index, before or former))
            since = index
        if event.name in ("leader", "found_leader", "no_leader"):
            former = leader or before
    return tuple(found)


def _change(events: Sequence[Event], since: int, index: int, former: str) -> Change:
    term = _number(events[index].values, "term")
    before = events[since:index]
    own = [event for event in events if _term_of(event) == term]
    steps = {step.name: step for step in (_detect(before), _fence(before), *_rise(own)) if step.took_s is not None}
    records = [event.values for event in own if event.kind is Kind.RECORD]
    return Change(
        term=Term(term),
        leader=str(events[index].values.get("leader")),
        former=former,
        steps=tuple(steps.get(name, Step(name)) for name in STAGES),
        record=records[-1] if records else None,
    )


def _detect(before: Sequence[Event]) -> Step:
    """From what went wrong here to the first decision on it."""
    for index, event in enumerate(before):
        if event.kind is Kind.SEEN and event.name in ("server_exited", "ill"):
            decision = next((each for each in before[index:] if each.kind is Kind.DECIDED), None)
            if decision is not None:
                return Step("detect", event.at, decision.at, f"{event.name}, then rule {decision.name}")
    return Step("detect")


def _fence(before: Sequence[Event]) -> Step:
    ends = [each for each in before if each.kind is Kind.ENDED and each.name in ENDING and _is_done(each)]
    if not ends:
        return Step("fence")
    return Step("fence", _began_at(ends[0]), ends[-1].at, ", ".join(dict.fromkeys(each.name for each in ends)))


def _rise(own: Sequence[Event]) -> Iterable[Step]:
    """From vote to routed, on the member that was elected. Whoever only voted saw its vote."""
    ballot, taken = _end_of(own, "CastBallot"), _end_of(own, "TakeLeader")
    promotion = _end_of(own, "Promote")
    marks = {event.name: event.at for event in own if event.kind is Kind.SEEN}
    if ballot is not None:
        end = ballot.at if taken is None else _began_at(taken)
        yield Step("vote", _began_at(ballot), end, "CastBallot")
    if taken is not None:
        yield Step("elect", _began_at(taken), taken.at, "TakeLeader")
    if promotion is not None:
        yield Step("promote", _began_at(promotion), marks.get("promoted"), "Promote")
    yield Step("writable", marks.get("promoted"), marks.get("writable"), "Promote")
    yield Step("routed", marks.get("writable"), marks.get("routed"), "health check")


def _end_of(own: Sequence[Event], name: str) -> Event | None:
    ends = [each for each in own if each.kind is Kind.ENDED and each.name == name and _is_done(each)]
    return ends[-1] if ends else None


def _is_done(event: Event) -> bool:
    return event.values.get("result") == "done"


def _began_at(event: Event) -> Instant:
    began_at = event.values.get("began_at")
    return Instant(began_at) if isinstance(began_at, int | float) else event.at


def _term_of(event: Event) -> int:
    about = event.values.get("about")
    return _number(about if isinstance(about, Mapping) else event.values, "term")


def _number(values: Mapping[str, Any], key: str) -> int:
    """0 where there is none."""
    text = str(values.get(key) or "")
    return int(text) if re.fullmatch("[0-9]{1,19}", text) else 0
