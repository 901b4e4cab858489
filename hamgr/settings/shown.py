"""The effective value of every key, as a person may see it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from hamgr.settings.dynamic import DynamicSettings
from hamgr.settings.kinds import Address, Listen
from hamgr.settings.problem import Problem, join
from hamgr.settings.section import Section
from hamgr.settings.table import Settings

HIDDEN = "***"
_SECRET_KEY = re.compile(r"passw|secret|token|authorization|cookie|conninfo", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"""(\w*passw\w*\s*=\s*)("[^"]*"|'[^']*'|\S+)|(//[^/@:\s]*:)[^@\s]+@""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that hamgr can start with. `origins` has the origin of every key: `file`, `default`,
    `environment NAME` or `adjusted`. `seed` is the dynamic configuration that `bootstrap.dcs` describes."""

    settings: Settings
    seed: DynamicSettings
    warnings: tuple[Problem, ...]
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Effective:
    """One key. `origin` is `file`, `default`, `environment NAME` or `adjusted`."""

    path: str
    value_shown: str
    origin: str


def effective(loaded: Loaded) -> list[Effective]:
    """Every key in the table's order; passwords as ***."""
    return [
        Effective(path, shown(path, value), loaded.origins.get(path, "default"))
        for path, value in leaves(loaded.settings, loaded.seed)
    ]


def leaves(settings: Settings, seed: DynamicSettings) -> Iterator[tuple[str, Any]]:
    """Path and value of every option; `bootstrap.dcs` with the defaults filled in, derived defaults worked out."""
    derived = {
        "postgresql.connect_address": settings.server_address,
        "restapi.connect_address": settings.rest_address,
        "guard.runtime_dir": settings.runtime_dir,
        "guard.agent_timeout": settings.guard.agent_timeout_for(seed.ttl),
    }
    for path, value in _leaves(settings, ""):
        if path == "bootstrap.dcs" or path.startswith("bootstrap.dcs."):
            continue
        yield path, derived.get(path, value)
        if path == "etcd3.key":
            yield from _leaves(seed, "bootstrap.dcs")


def _leaves(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Section):
        extra = value.__pydantic_extra__ or {}
        for key in (*type(value).model_fields, *extra):
            yield from _leaves(getattr(value, key), join(at, key))
    elif isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, join(at, str(key)))
    else:
        yield at, value


def shown(path: str, value: Any) -> str:
    """A value on one line. What a secret is, is told by type, by the key's name, and by `password=` in texts."""
    if value is None:
        return ""
    is_secret = isinstance(value, SecretStr) or _SECRET_KEY.search(path.rsplit(".", 1)[-1]) is not None
    if is_secret and not isinstance(value, bool | int | float):
        return HIDDEN if str(value) else ""
    return _text(value)


def _masked(text: str) -> str:
    """A text without the passwords that stand in it as `password=...` or `//user:password@`."""
    return _SECRET_TEXT.sub(lambda hit: f"{hit[1] or hit[3]}{HIDDEN}{'@' if hit[3] else ''}", text)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str | int | Address | Listen):
        return _masked(str(value))
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return {key: _plain(getattr(value, key)) for key in type(value).model_fields}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): HIDDEN if _SECRET_KEY.search(str(key)) else _plain(inner) for key, inner in value.items()}
    return value if isinstance(value, bool | int | float | None) else _masked(str(value))
