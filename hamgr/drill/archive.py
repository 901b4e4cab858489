"""The file that `hamgr drill --json` writes: conditions and outcomes, and reading it again."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import TypeAdapter, ValidationError

from hamgr.drill.conditions import Conditions
from hamgr.drill.run import Outcome
from hamgr.drill.summary import summarised

FORMAT = "hamgr-drill/1"
"""Changes when a reader of the former one would misread it."""

_MOST_PROBLEMS = 3


class BadReport(Exception):
    """The file is not a report, or not one that this version reads. The text names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Report:
    """Drills of one call of `hamgr drill`, as far as they were carried out."""

    conditions: Conditions
    outcomes: tuple[Outcome, ...]


_READER = TypeAdapter(Report)


def write_json(path: Path, report: Report) -> None:
    """The file holds the report as a whole; until then it holds what it held before. Raises OSError."""
    text = json.dumps(
        {
            "format": FORMAT,
            "conditions": asdict(report.conditions),
            "summary": [asdict(row) for row in summarised(report.outcomes)],
            "outcomes": [outcome.as_json() for outcome in report.outcomes],
        },
        allow_nan=False,
    )
    replace_file(path, text + "\n")


def why_not_writable(path: Path) -> str:
    """Why no file can be made at `path`, to be known before hours of work; empty: it can."""
    folder = path.absolute().parent
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"no file can be written in {folder}"


def replace_file(path: Path, text: str) -> None:
    """The file at `path` has that text, all of it or none. Raises OSError."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def read_json(path: Path) -> Report:
    """What `write_json` wrote. Raises BadReport."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise BadReport(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadReport(f"{path}: not JSON, or cut short: {error}") from error
    said = value.get("format") if isinstance(value, dict) else None
    if said is None:
        raise BadReport(f"{path}: not a report of drills: give a file that `hamgr drill --json FILE` wrote")
    if said != FORMAT:
        raise BadReport(f"{path}: format {said!r}, this hamgr reads {FORMAT!r}: use the hamgr that wrote it")
    try:
        return _READER.validate_python(value)
    except ValidationError as error:
        raise BadReport(f"{path}: damaged or changed by hand: {_problems(error)}") from error


def _problems(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    words = [f"{'.'.join(str(step) for step in problem['loc'])}: {problem['msg']}" for problem in problems]
    more = len(words) - _MOST_PROBLEMS
    return "; ".join(words[:_MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
