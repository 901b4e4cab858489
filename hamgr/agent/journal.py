"""The log: one line a decision with its reason, one line an action's end; text or JSON on standard error.

A thread of its own writes it: a reader that stands still (a terminal, a pipe, a disk) must not stop the loop.

A decision is written when its reason changes, not each time that it is taken again, so that a log of years stays
readable. The flight recorder (agent/chronicle.py) keeps what was seen and begun, too.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from logging.handlers import QueueHandler
from typing import Any

from hamgr.agent.backlog import Backlog
from hamgr.core.actions import (
    Action,
    AskPeers,
    EnsureSentry,
    EnsureSlots,
    PointPools,
    PutMember,
    PutRoster,
    PutStatus,
    ReleasePools,
)
from hamgr.core.decide import Decision
from hamgr.core.reasons import Code
from hamgr.core.result import Outcome, Result
from hamgr.core.sentences import sentence
from hamgr.core.state import State
from hamgr.core.units import Instant
from hamgr.guard.words import ERROR, INFO, WARNING, logs_to_journal

LOGGER = logging.getLogger("hamgr")
REST_LOGGER = logging.getLogger("aiohttp.server")
QUIET_ACTIONS = (PutStatus, PutMember, PutRoster, EnsureSlots, EnsureSentry, AskPeers)
PATIENT_ACTIONS = (ReleasePools, PointPools)
"""Tried again for as long as it takes, which may be days: told when they end in another way than the last time."""

QUEUE_LINES = 2000
"""Some minutes of the busiest log, and at most some hundred KiB but for tracebacks."""
LAST_LINES_S = 0.5
"""An agent that ends waits so long for whoever reads: its successor is to begin soon."""

TIME_FORMAT = "%Y-%m-%dT%H:%M:%S"
PRIORITIES = {logging.DEBUG: INFO + 1, logging.INFO: INFO, logging.WARNING: WARNING, logging.ERROR: ERROR}
"""Level -> priority of syslog(3)."""
CHANGING_VALUES = ("left_s", "behind")
WARNINGS = frozenset(
    {
        Code.UNUSABLE_DATA,
        Code.FOREIGN_DATA,
        Code.STORE_DOWN,
        Code.NOT_ENTITLED,
        Code.OTHER_LEADS,
        Code.DEADLINE_NEAR,
        Code.ALONE,
        Code.LEADING_BY_PEERS,
        Code.ILL,
        Code.ILL_AND_NONE_BETTER,
        Code.PUTTING_DOWN,
        Code.UNFIT,
        Code.WAIT_QUORUM,
        Code.EXAMINING_CRASH,
        Code.CRASHED_AGAIN,
        Code.START_TOOK_TOO_LONG,
        Code.DIVERGED,
        Code.HAND_OVER_ABORTED,
        Code.BACKING_OFF,
    }
)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message and whatever fields the event has."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": time.strftime(TIME_FORMAT, time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "message": record.getMessage(),
        }
        fields.update(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class TextLines(logging.Formatter):
    """`<UTC time> LEVEL message`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", TIME_FORMAT)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return time.strftime(datefmt or TIME_FORMAT, time.gmtime(record.created))


class JournalLines(logging.Formatter):
    """`<priority>message`: systemd's journal reads the priority, and dates the line itself. A traceback follows in
    lines of its own.
    """

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        return _marked(self._lines.format(record), PRIORITIES.get(record.levelno, ERROR))


class MessageLines(logging.Formatter):
    """`message`, on one line whatever it quotes."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return " ".join(record.getMessage().split("\n"))


class StandardError(QueueHandler):
    """Lines are on standard error soon, or are counted. Not by `sys.stderr`: its lock would be held all the while."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._backlog = Backlog("log", QUEUE_LINES, _written, self._loss)
        super().__init__(self._backlog)  # type: ignore[arg-type]
        self.setFormatter(formatter)
        self._backlog.start()

    def prepare(self, record: logging.LogRecord) -> str:
        return self.format(record)

    def enqueue(self, record: Any) -> None:
        """`record` is what `prepare` made of it."""
        self._backlog.post(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Whatever it quotes has raised an error: whoever logged is not to end by that. What is certain is told."""
        self._backlog.post(self.format(_unformatted(record)))

    def flush(self) -> None:
        """What was logged is written, unless the reader stands still for longer than LAST_LINES_S."""
        self._backlog.flush(LAST_LINES_S)

    def _loss(self, count: int, _last: str) -> str:
        words = "%s lines of the log were lost: nobody read them"
        return self.format(logging.LogRecord(LOGGER.name, logging.WARNING, "", 0, words, (count,), None))


def _unformatted(record: logging.LogRecord) -> logging.LogRecord:
    message = record.msg if type(record.msg) is str else type(record.msg).__name__
    values = (record.name, message)
    return logging.LogRecord(record.name, record.levelno, "", 0, "a line of %s cannot be formatted: %r", values, None)


def _written(lines: list[str]) -> bool:
    content = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
    try:
        while content:
            content = content[os.write(2, content) :]
    except OSError:
        return False
    return True


def _marked(text: str, priority: int) -> str:
    return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


def complain(text: str) -> None:
    """An error on standard error, before anybody has said how the log is wanted."""
    print(_marked(text, ERROR) if logs_to_journal() else text, file=sys.stderr)


def set_up(level: str, *, as_json: bool) -> None:
    """Send the log to standard error from now on."""
    if logs_to_journal():
        handler = StandardError(JournalLines(JsonLines() if as_json else MessageLines()))
    else:
        handler = StandardError(JsonLines() if as_json else TextLines())
    # What libraries complain of would otherwise be written to standard error by whoever runs into it.
    logging.basicConfig(handlers=[handler])
    for logger in (LOGGER, REST_LOGGER):
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level)
    REST_LOGGER.filters[:] = [_is_told]


def _is_told(record: logging.LogRecord) -> bool:
    """A request that is no HTTP is a line at DEBUG: anybody may send them without end, and none is a defect."""
    kind = record.exc_info[0] if record.exc_info else None
    # By name: whoever only complains, as `hamgr agent` does, need not load aiohttp.
    if kind is None or kind.__module__ != "aiohttp.http_exceptions":
        return True
    record.exc_info, record.levelno, record.levelname = None, logging.DEBUG, "DEBUG"
    return REST_LOGGER.isEnabledFor(logging.DEBUG)


class Journal:
    """What the loop tells people."""

    def __init__(self) -> None:
        self._last: tuple[object, ...] = ()
        self._last_ends: dict[str, str] = {}

    def decided(self, state: State, decision: Decision, at: Instant) -> None:
        """A decision was taken. Written if its reason is another than the last time."""
        steady_values = tuple(item for item in decision.reason.values if item[0] not in CHANGING_VALUES)
        key = (decision.reason.code, steady_values)
        if key == self._last:
            return
        self._last = key
        words = sentence(decision.reason)
        level = logging.WARNING if decision.reason.code in WARNINGS else logging.INFO
        values = dict(decision.reason.values)
        term = int(values.get("term", state.cluster.term if state.cluster else 0))
        fields = {**values, "rule": decision.rule, "reason": decision.reason.code.value, "term": term}
        LOGGER.log(level, "%s", words, extra={"fields": fields})

    def ended(self, action: Action, outcome: Outcome, began_at: Instant, at: Instant) -> None:
        """An action came to its end. Routine that went well is left to the DEBUG level."""
        name = type(action).__name__
        if isinstance(action, PATIENT_ACTIONS) and not self._is_news(name, outcome):
            return
        text = f"{name} {outcome.result.value} after {(at - began_at) * 1000:.0f} ms"
        if outcome.text:
            text += f": {outcome.text}"
        went_well = outcome.result is Result.DONE
        level = logging.INFO if went_well else logging.WARNING
        if went_well and isinstance(action, QUIET_ACTIONS):
            level = logging.DEBUG
        fields = {"action": name, "result": outcome.result.value, "code": outcome.code}
        LOGGER.log(level, "%s", text, extra={"fields": fields})

    def _is_news(self, name: str, outcome: Outcome) -> bool:
        """It went well, or fails for another reason than the last time."""
        end = "" if outcome.result is Result.DONE else f"{outcome.result.value} {outcome.text}"
        before, self._last_ends[name] = self._last_ends.get(name), end
        return not end or end != before
