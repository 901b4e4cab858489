"""What JSON can hold, and with it etcd: YAML knows more, and so does Python's reader of JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from hamgr.settings.problem import Problem, join

DEEPEST = 32


def unwritable(value: object, at: str, depth: int = 0) -> Iterator[Problem]:
    """A problem for each part of `value` that cannot be kept in etcd and read back as it was."""
    if depth > DEEPEST:
        yield Problem(at, f"is nested more than {DEEPEST} deep")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str):
                yield from unwritable(inner, join(at, key), depth + 1)
            else:
                yield Problem(at, f"holds a key that YAML reads as a {type(key).__name__}", "write it in quotes")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from unwritable(inner, join(at, str(number)), depth + 1)
    elif text := _why_unwritable(value):
        yield Problem(at, text)


def _why_unwritable(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isfinite(value) else "is not a finite number"
    if isinstance(value, int):
        return "" if abs(value) < 1 << 64 else "is a number of more than 64 bits"
    if isinstance(value, str):
        return "" if _is_utf8(value) else "is no text in UTF-8: it holds half a surrogate pair"
    return "" if value is None else f"is a {type(value).__name__}, which JSON does not know: write it in quotes"


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
