"""A least file of a member, and a way to load variations of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from hamgr.settings import Loaded, Problem, SettingsError, load

Write = Callable[..., Path]


def least() -> dict[str, Any]:
    """The least that a member must be told to have nothing warned about."""
    return {
        "scope": "main",
        "name": "db1",
        "restapi": {"allowlist": ["10.0.0.0/24"]},
        "etcd3": {"hosts": "10.0.0.1:2379"},
        "postgresql": {
            "connect_address": "10.0.0.1:5432",
            "data_dir": "/var/lib/pg/data",
            "authentication": {
                "superuser": {"password": "geheim-1"},
                "replication": {"password": "geheim-2"},
            },
        },
    }


def merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with nested `changes`; None removes a key."""
    for key, value in changes.items():
        if value is None:
            base.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merged(base[key], value)
        else:
            base[key] = value
    return base


@pytest.fixture
def least_file() -> dict[str, Any]:
    """The least file's mapping."""
    return least()


@pytest.fixture
def load_with(tmp_path: Path) -> Callable[..., Loaded]:
    """Load the least file with changes, under an environment of its own."""

    def loader(changes: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Loaded:
        path = tmp_path / "hamgr.yml"
        path.write_text(yaml.safe_dump(merged(least(), changes or {})))
        return load(path, environ or {})

    return loader


@pytest.fixture
def problems_of(load_with: Callable[..., Loaded]) -> Callable[..., dict[str, Problem]]:
    """Problems by path, whether the file loads or not."""

    def finder(
        changes: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
    ) -> dict[str, Problem]:
        try:
            found = load_with(changes, environ).warnings
        except SettingsError as error:
            found = error.problems
        return {problem.path: problem for problem in found}

    return finder


@pytest.fixture
def load_text(tmp_path: Path) -> Callable[[str], Loaded]:
    """Load a file of exactly this text."""

    def loader(text: str) -> Loaded:
        path = tmp_path / "hamgr.yml"
        path.write_text(text)
        return load(path, {})

    return loader
