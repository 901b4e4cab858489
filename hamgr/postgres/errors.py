"""What can go wrong with the local server, in the four families of the project (bugs are plain exceptions)."""

from __future__ import annotations


class ServerError(Exception):
    """Base: `code` is stable and for programs, `hint` says what to do, `is_retryable` whether waiting helps."""

    code = "server"
    is_retryable = False

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class ServerRefused(ServerError):
    """Not allowed now; the text names the check that failed. Nothing was changed."""

    code = "refused"


class ServerUnavailable(ServerError):
    """No proper answer in time; whether the action took effect is unknown until it is read back."""

    code = "unavailable"
    is_retryable = True


class ServerBroken(ServerError):
    """Data or environment need a person (or a clone); retrying the same gives the same."""

    code = "broken"


class Diverged(ServerRefused):
    """The local WAL holds what the upstream's history does not: it must not be started as its standby."""

    code = "diverged"


class Forked(Diverged):
    """The local WAL differs where the histories do not: two timelines bear one number. pg_rewind would not see it."""

    code = "forked"


class WalGone(ServerBroken):
    """The upstream removed WAL that this server still needs: it would never stream. A clone heals it."""

    code = "wal_gone"


class WalUnreadable(ServerBroken):
    """No record stands on the local disk where the control file says that one does."""

    code = "wal_unreadable"


class DiskFull(ServerBroken):
    """No space left on a file system of the server."""

    code = "disk_full"


class RewindFailed(ServerBroken):
    """pg_rewind gave up; the text is the tool's. With `directory_touched` the directory must never be started."""

    code = "rewind_failed"

    def __init__(self, text: str, *, directory_touched: bool, hint: str = "") -> None:
        super().__init__(text, hint=hint)
        self.directory_touched = directory_touched
