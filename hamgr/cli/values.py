"""Changes of a configuration as mapping: `-s key=value`, patches, and the difference for people to read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from hamgr.settings.yamltext import BadYaml, yaml_value

PARAMETERS = "postgresql.parameters."


def assignments(settings: Sequence[str], parameters: Sequence[str]) -> dict[str, Any]:
    """A patch from `a.b=value` texts; `parameters` are those below postgresql.parameters.

    Values are YAML. Names of PostgreSQL parameters may hold dots. Raises ValueError with the text at fault.
    """
    patch: dict[str, Any] = {}
    for text in [*settings, *(PARAMETERS + parameter for parameter in parameters)]:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            shown = text.removeprefix(PARAMETERS)
            raise ValueError(f"{shown!r} is not of the form key=value")
        patch = patched(patch, _nested(_path(name.strip()), _yaml(value, name)), keep_null=True)
    return patch


def patched(values: Mapping[str, Any], patch: Mapping[str, Any], *, keep_null: bool = False) -> dict[str, Any]:
    """`values` with `patch` laid over it: mappings merge, null takes a key away, anything else replaces."""
    result = dict(values)
    for key, change in patch.items():
        present = result.get(key)
        if change is None and not keep_null:
            result.pop(key, None)
        elif isinstance(change, Mapping):
            result[key] = patched(present if isinstance(present, Mapping) else {}, change, keep_null=keep_null)
        else:
            result[key] = change
    return result


def as_yaml(values: Mapping[str, Any]) -> str:
    """The configuration as people read and edit it."""
    return yaml.safe_dump(dict(values), default_flow_style=False, allow_unicode=True) if values else ""


def read_mapping(text: str, source: str) -> dict[str, Any]:
    """The mapping that a YAML text holds; ValueError that names `source`, line and column where it does not."""
    try:
        values = yaml_value(text)
    except BadYaml as problem:
        where = f", {problem.place}" if problem.place else ""
        raise ValueError(f"{source}{where}: {problem.reason}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{source}: not a mapping of keys to values")
    return values


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A unified diff of the two as YAML; empty when they are the same."""
    lines = difflib.unified_diff(as_yaml(before).splitlines(), as_yaml(after).splitlines(), lineterm="", n=3)
    return "\n".join(list(lines)[2:])


def _path(name: str) -> list[str]:
    if name.startswith(PARAMETERS):
        return ["postgresql", "parameters", name.removeprefix(PARAMETERS)]
    return name.split(".")


def _nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def _yaml(value: str, name: str) -> Any:
    try:
        return yaml_value(value)
    except BadYaml as problem:
        raise ValueError(f"the value of {name.removeprefix(PARAMETERS)} is not YAML: {problem.reason}") from None
