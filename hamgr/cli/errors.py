"""What a command says when it fails, and the exit status that programs see.

1 refused or failed, 2 wrong usage (click's own), 3 nobody answered, 4 the configuration cannot be used.
"""

from __future__ import annotations

from typing import IO, Any

import click


class CliError(click.ClickException):
    """Ends the command with its message on stderr; `hint` says what the operator can do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        super().show(file)
        if self.hint:
            click.echo(f"Hint: {self.hint}", file=file, err=file is None)


class Refused(CliError):
    """Not allowed now, or tried and not done; the message names the check that failed."""


class Unavailable(CliError):
    """No proper answer in time: trying again may help."""

    exit_code = 3


class BadConfig(CliError):
    """The configuration file is missing or wrong."""

    exit_code = 4
