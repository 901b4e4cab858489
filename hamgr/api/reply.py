"""An HTTP answer as a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reply:
    """Code, body and the headers beyond the usual ones."""

    code: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(value: Any) -> bytes:
    """`value` as compact JSON; what JSON has no form for is shown as text."""
    return json.dumps(value, separators=(", ", ": "), default=str).encode()


def json_reply(code: int, value: Any) -> Reply:
    """An answer for programs."""
    return Reply(code, as_json(value))


def text_reply(code: int, text: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer for people, as Patroni gives it to all that changes something. It may quote half a surrogate pair."""
    return Reply(code, text.encode(errors="replace"), TEXT, headers or {})
