"""All runs in one JSON file, written anew after each: what was measured so far is never lost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hamgr.drill.errors import DrillError

FORMAT = 1


class BadResults(DrillError):
    """The file is not one of this program's, or of another version of it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One task of one variant. `result`: figures by name; None: it failed, and `error` says why.

    `logs`: name of the folder of its logs, where something went wrong.
    """

    variant: str
    task: str
    round: int
    at: str
    took_s: float
    result: Mapping[str, Any] | None = None
    error: str = ""
    logs: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """One call of the program. `environment`: label -> version or size, as on the report."""

    at: str
    command: str
    environment: Mapping[str, str]


@dataclass(slots=True)
class Results:
    """What the file holds."""

    path: Path
    sessions: list[Session] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """Keep a run; it is on disk on return."""
        self.runs.append(run)
        self.save()

    def save(self) -> None:
        """Write the file whole or not at all."""
        text = json.dumps(
            {
                "format": FORMAT,
                "sessions": [asdict(session) for session in self.sessions],
                "runs": [asdict(run) for run in self.runs],
            },
            indent=1,
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.new")
        fresh.write_text(text + "\n")
        os.replace(fresh, self.path)


def load_results(path: Path) -> Results:
    """What the file holds, nothing if there is none. Raises BadResults."""
    if not path.exists():
        return Results(path)
    try:
        body = json.loads(path.read_text())
        if body["format"] != FORMAT:
            raise BadResults(f"{path} has format {body['format']}, this program writes {FORMAT}")
        sessions = [Session(**session) for session in body["sessions"]]
        return Results(path, sessions, [Run(**run) for run in body["runs"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadResults(f"{path} is not a file of results: {error!r}") from error
