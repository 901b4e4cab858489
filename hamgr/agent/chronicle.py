"""What of the loop's work goes to the flight recorder: news, other decisions than the last, actions and how they end.

Steady work is not news: a leader that is well writes nothing for days.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hamgr.agent.clock import now, wall
from hamgr.agent.journal import QUIET_ACTIONS
from hamgr.core.actions import Action, PutRecord, RestartServer
from hamgr.core.decide import Decision
from hamgr.core.facts import Fact
from hamgr.core.notice import noticed
from hamgr.core.pipeline import record_as_json
from hamgr.core.portrait import server_role
from hamgr.core.recording import Event, Kind
from hamgr.core.result import Outcome, Result
from hamgr.core.scene import Scene
from hamgr.core.state import State
from hamgr.core.units import Instant, WallTime

ROUTINE = QUIET_ACTIONS
"""Taken up again and again while nothing changes: told only where they fail, and when that is over."""
CHANGING = ("left_s", "behind", "text", "error", "problem")
"""Values of a reason that may change with nothing else having changed: numbers in them make no news."""
TOLD = ("term", "successor", "cause", "candidate", "revision", "reads_wal", "check_history", "end_lsn", "from_lsn")
"""Fields of an action that are worth a word. Named, so that no secret gets into a file by a new field."""
NAMED = ("upstream", "source")

_NUMBERS = re.compile(r"[\d.]+")


class Chronicle:
    """Makes events of what the loop does, and hands them to `post`, which must not wait."""

    def __init__(self, post: Callable[[Event], None]) -> None:
        self._post = post
        self._last: tuple[object, ...] = ()
        self._last_actions: tuple[str, ...] = ()
        self._failing: dict[str, tuple[tuple[str, ...], int]] = {}

    def began(self, values: Mapping[str, Any]) -> None:
        """An agent begins: who it is, and to which boot its instants belong."""
        self._tell(now(), Kind.BEGAN, "", values)

    def folded(self, before: State, fact: Fact, after: State) -> None:
        """A fact was folded into the state."""
        at = now()
        for sight in noticed(before, fact, after, at):
            self._tell(at if sight.at is None else sight.at, Kind.SEEN, sight.name, sight.values)

    def decided(self, state: State, decision: Decision, at: Instant) -> None:
        """A decision was taken: told if rule, reason or actions are others than before."""
        reason = decision.reason
        values = tuple((key, _without_numbers(text) if key in CHANGING else text) for key, text in reason.values)
        key = (decision.rule, reason.code, values)
        actions = tuple(type(action).__name__ for action in decision.actions if not isinstance(action, ROUTINE))
        if key == self._last and (not actions or actions == self._last_actions):
            return
        self._last, self._last_actions = key, actions
        told: dict[str, Any] = {
            "reason": reason.code.value,
            "reason_values": dict(reason.values),
            "actions": actions,
            "server": server_role(state.server) if state.server.is_alive else state.server.phase.value,
            "term": state.cluster.term if state.cluster is not None else 0,
            "may_renew": decision.may_renew,
        }
        deadline = Scene(state, at).deadline
        if deadline is not None:
            told["left_s"] = round(deadline - at, 3)
        self._tell(at, Kind.DECIDED, decision.rule, told)

    def started(self, action: Action, at: Instant) -> None:
        """An action was taken on."""
        name = type(action).__name__
        if not isinstance(action, ROUTINE) and name not in self._failing:
            self._tell(at, Kind.STARTED, name, {"about": about(action)})

    def ended(self, action: Action, outcome: Outcome, began_at: Instant, at: Instant) -> None:
        """An action came to its end. Of failures in a row that are alike the first is told, and how many there were."""
        name = type(action).__name__
        repeats = 0
        if outcome.result is Result.DONE:
            failure = self._failing.pop(name, None)
            if isinstance(action, ROUTINE) and failure is None:
                return
            repeats = failure[1] if failure is not None else 0
        else:
            end = (outcome.result.value, outcome.code, _without_numbers(outcome.text))
            before, repeats = self._failing.get(name, ((), 0))
            self._failing[name] = (end, repeats + 1 if end == before else 1)
            if end == before:
                return
        values = {
            "about": about(action),
            "result": outcome.result.value,
            "code": outcome.code,
            "text": outcome.text,
            "began_at": round(began_at, 4),
            "took_s": round(at - began_at, 4),
            "repeats": repeats,
        }
        self._tell(at, Kind.ENDED, name, values)
        if isinstance(action, PutRecord) and outcome.result is Result.DONE:
            self._tell(at, Kind.RECORD, "", record_as_json(action.record))

    def _tell(self, at: Instant, kind: Kind, name: str, values: Mapping[str, Any]) -> None:
        self._post(Event(at, WallTime(wall() - (now() - at)), kind, name, values))


def about(action: Action) -> dict[str, Any]:
    """What an action is about, in few values."""
    told = {name: str(getattr(action, name)) for name in TOLD if getattr(action, name, None)}
    for name in NAMED:
        upstream = getattr(action, name, None)
        if upstream is not None and not isinstance(action, RestartServer):
            told[name] = upstream.name
    offer = getattr(action, "offer", None) or getattr(action, "parting", None)
    if offer is not None:
        told |= {"cause": offer.cause, "lsn": str(offer.lsn)}
    return told


def _without_numbers(text: str) -> str:
    return _NUMBERS.sub("#", text)
