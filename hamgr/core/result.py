"""How an action ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

NOT_SENT = "not_sent"
"""Code of a change that never left this host, or that etcd would not hear of: it has not taken effect and will not."""


UNANSWERED = "unanswered"
"""Code of a start for which the leader was to be asked first, and gave no answer, or did not let this member in."""


class Result(Enum):
    """How an action ended. UNKNOWN: it may have taken effect; only reading back settles it."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one action. `code` names a refusal or failure, `text` says it for people, `value` is by action."""

    result: Result
    code: str = ""
    text: str = ""
    value: Any = None
