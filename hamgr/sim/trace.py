"""What happened, kept cheaply while the world runs and told as a story when it has gone wrong."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from hamgr.core.actions import Action, ApplyConfig, EnsureSlots, PutHistory, PutMember, PutRecord, PutStatus
from hamgr.core.decide import Decision
from hamgr.core.result import Outcome, Result
from hamgr.core.sentences import sentence

UNTOLD = (PutMember, PutStatus, PutRecord, PutHistory, EnsureSlots, ApplyConfig)
"""Chores that tell a reader nothing."""

SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an action, to be told if it was not as wished."""

    action: Action
    outcome: Outcome


class Trace:
    """Moments of the world with who and what; words are made only for the reader."""

    __slots__ = ("_lines", "began_at")

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self._lines: list[tuple[float, str, Any]] = []

    def add(self, now: float, who: str, what: str | Decision | Action | Ended) -> None:
        """Keep it."""
        self._lines.append((now, who, what))

    def tell(self, since: float = 0.0, last: int | None = None) -> str:
        """The story from `since` on, at most the `last` lines of it."""
        told = [line for at, who, what in self._lines if at >= since and (line := self._line(at, who, what))]
        return "\n".join(told if last is None else told[-last:])

    def _line(self, at: float, who: str, what: Any) -> str:
        words = _words(what)
        return f"{at - self.began_at:9.3f}  {who:<7} {words}" if words else ""


def _words(what: Any) -> str:
    if isinstance(what, str):
        return what
    if isinstance(what, Decision):
        return f"[{what.rule}] {sentence(what.reason)}"
    if isinstance(what, Ended):
        outcome = what.outcome
        if outcome.result is Result.DONE:
            return ""
        return f"{type(what.action).__name__} ended {outcome.result.value}: {outcome.code} {outcome.text}"
    return "" if isinstance(what, UNTOLD) else f"does {_deed(what)}"


def _deed(action: Action) -> str:
    """The action's name, and what of it is short enough to be read."""
    shown = [
        f"{each.name} {value}"
        for each in fields(action)
        if (value := getattr(action, each.name)) not in (None, "", (), 0) and len(str(value)) <= SHOWN_CHARACTERS
    ]
    return f"{type(action).__name__} ({', '.join(shown)})" if shown else type(action).__name__
