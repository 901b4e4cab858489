"""What is wrong in a configuration, said so that the reader can put it right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. `path` names the key with dots (`postgresql.listen`), empty for the file as a whole.

    Never holds the value that was found: it may be a password.
    """

    path: str
    text: str
    hint: str = ""
    is_error: bool = True

    def __str__(self) -> str:
        kind = "error" if self.is_error else "warning"
        place = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{kind}: {place}{self.text}{hint}"


class SettingsError(Exception):
    """The configuration cannot be used. `problems` holds errors and warnings alike, in the file's order."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems if problem.is_error))
        self.problems = problems


def warning(path: str, text: str, hint: str = "") -> Problem:
    """A problem that does not keep hamgr from starting."""
    return Problem(path, text, hint, is_error=False)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint that names the valid name most like `name`; empty if none is near."""
    found = get_close_matches(name, sorted(valid), n=1, cutoff=0.6)
    return f"did you mean {found[0]}?" if found else ""


def join(*parts: str) -> str:
    """The path of a key: its parts with dots between, empty parts left out."""
    return ".".join(part for part in parts if part)
