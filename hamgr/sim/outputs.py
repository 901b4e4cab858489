"""Where the findings of a simulation go: terminal, JSON, a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from hamgr.sim.svg import Canvas, NoPicture

EXIT_VIOLATION = 1
EXIT_BAD_CONFIG = 4
LOG_WIDTH = 190


class BadInput(click.ClickException):
    """What was given cannot be simulated; the message says why."""

    exit_code = EXIT_BAD_CONFIG


@dataclass(frozen=True, slots=True)
class Outputs:
    """`json_path`: "-" is standard output, which then has nothing else."""

    json_path: str | None = None
    picture_path: Path | None = None

    def console(self) -> Console:
        """For people; silent where JSON goes to standard output. A log is as wide as the widest table."""
        console = Console(quiet=self.json_path == "-", highlight=False)
        return console if console.is_terminal else Console(width=LOG_WIDTH, quiet=console.quiet, highlight=False)

    def write_json(self, value: Mapping[str, Any]) -> None:
        """The findings for programs, if they were asked for."""
        if self.json_path is None:
            return
        text = json.dumps(value, indent=1, ensure_ascii=False)
        if self.json_path == "-":
            click.echo(text)
        else:
            with writing(Path(self.json_path)) as path:
                path.write_text(text + "\n", encoding="utf-8")

    def write_picture(self, canvas: Canvas) -> None:
        """The picture, if it was asked for."""
        if self.picture_path is None:
            return
        try:
            with writing(self.picture_path) as path:
                canvas.write(path)
        except NoPicture as error:
            raise BadInput(str(error)) from None

    def check(self) -> None:
        """What cannot be written is said before the time is spent. Raises BadInput."""
        for path in (self.picture_path, None if self.json_path in (None, "-") else Path(str(self.json_path))):
            if path is not None:
                _check(path)
        if self.picture_path is not None and self.picture_path.suffix not in (".svg", ".png"):
            raise BadInput(f"{self.picture_path} is neither .svg nor .png")


def _check(path: Path) -> None:
    if not path.parent.is_dir():
        raise BadInput(f"there is no directory {path.parent}")
    if path.is_dir():
        raise BadInput(f"{path} is a directory")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadInput(f"cannot write {path}: Permission denied")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """What is written to the path meanwhile is there. Raises BadInput where it is not."""
    try:
        yield path
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from None
