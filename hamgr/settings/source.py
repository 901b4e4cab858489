"""Reading the file and the environment into plain values, with where each came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hamgr.settings.problem import Problem, SettingsError, join, nearest, warning
from hamgr.settings.section import Section, list_section_of, section_of, variable_of
from hamgr.settings.table import Settings
from hamgr.settings.yamltext import BadYaml, read_yaml

PREFIXES = ("HAMGR_", "PATRONI_")
"""Of the environment's variables; the first wins."""
READ_ELSEWHERE = frozenset(
    name
    for names in (
        "CONFIG RUNTIME_DIR SIM_SEEDS BENCH_ARGUMENTS VENV SYSTEMD_TRIO",
        # Of docker-compose.yml, which hands most of them to all containers.
        "APP_DATABASE APP_PASSWORD APP_USER BASE BIND DB1_PORT DB2_PORT DB3_PORT DB_MEMORY HAPROXY_PORT MEMBER_FILE",
        "MEMLOCK NET POOL_ADMIN_PASSWORD POOL_ADMIN_USER POOL_PORT PROMETHEUS_PORT READ_PORT RTPRIO TAG WRITE_PORT",
    )
    for name in names.split()
)
"""Variables HAMGR_… that are no option's."""
MAX_DEPTH = 12
MOST_BYTES = 4 << 20
"""Of a configuration file; what is larger, or has no end, is a file of something else."""


@dataclass(slots=True)
class Source:
    """Plain values to be checked. `written` has numbers as they stand in the file, `variables` the name of the
    environment's variable, both by path of the key."""

    raw: dict[Any, Any]
    written: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


def read_file(path: Path) -> Source:
    """The file's mapping. Raises SettingsError if it cannot be read, is no YAML or no mapping; the text names
    line and column and quotes nothing of the file, which holds passwords.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise _unusable(f"{path} is larger than {MOST_BYTES >> 20} MiB: it is no configuration file")
        text = content.decode()
    except OSError as error:
        raise _unusable(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _unusable(f"{path} is not UTF-8 text (byte {error.start + 1})") from None
    try:
        root, raw = read_yaml(text)
    except BadYaml as error:
        place = f" {error.place}" if error.place else ""
        raise _unusable(f"{path}{place}: not valid YAML: {error.reason}") from None
    if root is None or not isinstance(raw, dict):
        what = "is empty" if root is None else "is not a mapping of keys"
        raise _unusable(f"{path} {what}", "the first keys are scope and name")
    return Source(raw, dict(_numbers(root, "", 0)))


def _unusable(text: str, hint: str = "") -> SettingsError:
    return SettingsError((Problem("", text, hint),))


def _numbers(node: yaml.Node, at: str, depth: int) -> Iterator[tuple[str, str]]:
    """Path and text of every number: 0123 is a password that YAML reads as 83."""
    if depth > MAX_DEPTH:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _numbers(value, join(at, str(key.value)), depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for number, entry in enumerate(node.value):
            yield from _numbers(entry, join(at, str(number)), depth + 1)
    elif isinstance(node, yaml.ScalarNode) and node.tag in (
        "tag:yaml.org,2002:int",
        "tag:yaml.org,2002:float",
    ):
        yield at, node.value


def add_environment(source: Source, environ: Mapping[str, str]) -> None:
    """Put the environment's values over the file's. An empty variable counts as not set."""
    for path, name in environment_names(Settings):
        names = [prefix + part for prefix in PREFIXES for part in _synonyms(name)]
        variable = next((each for each in names if environ.get(each)), None)
        if variable is not None and _put(source.raw, path.split("."), environ[variable]):
            source.variables[path] = variable
            source.written.pop(path, None)
    for key, name, variable in _of_entries(environ):
        _fill_in(source, key, name, variable, environ[variable])


def unread_variables(environ: Mapping[str, str]) -> Iterator[Problem]:
    """A warning for each variable that looks like an option's and is none's."""
    options = [name for _, name in environment_names(Settings)] + [name for *_, name in _entry_names()]
    read = {prefix + part for prefix in PREFIXES for name in options for part in _synonyms(name)}
    read |= {PREFIXES[0] + name for name in READ_ELSEWHERE}
    for name in sorted(environ):
        if name.startswith(PREFIXES) and environ[name] and name not in read:
            hint = nearest(name, read) if name.startswith(PREFIXES[0]) else "hamgr has no such option"
            yield warning(name, "this variable of the environment has no effect", hint)


def _of_entries(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Key of a list of sections, option of its entries, and the variable that is set for it."""
    for key, name, env in _entry_names():
        variable = next((prefix + env for prefix in PREFIXES if environ.get(prefix + env)), None)
        if variable is not None:
            yield key, name, variable


def _entry_names() -> Iterator[tuple[str, str, str]]:
    """Key of a list of sections, option of its entries, and its variable (without prefix)."""
    for key, info in Settings.model_fields.items():
        entry = list_section_of(info)
        if entry is not None:
            yield from ((key, name, variable) for name, variable in environment_names(entry))


def _fill_in(source: Source, key: str, name: str, variable: str, value: str) -> None:
    """Every entry has it that does not have it in the file: one variable stands for all of them."""
    entries = source.raw.get(key)
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict) and entry.get(name) is None:
            entry[name] = value
            source.variables[f"{key}.{number}.{name}"] = variable


def environment_names(model: type[Section], at: str = "") -> Iterator[tuple[str, str]]:
    """Path and variable (without prefix) of every option that the environment can set."""
    for key, info in model.model_fields.items():
        inner = section_of(info)
        if inner is not None:
            yield from environment_names(inner, join(at, key))
        elif variable_of(model, key):
            yield join(at, key), variable_of(model, key)


def _synonyms(name: str) -> tuple[str, ...]:
    return (name, name.replace("ETCD3_", "ETCD_")) if name.startswith("ETCD3_") else (name,)


def _put(raw: dict[Any, Any], keys: list[str], value: str) -> bool:
    """Set a nested value; False where the file has something else than a mapping on the way."""
    for key in keys[:-1]:
        if raw.get(key) is None:
            raw[key] = {}
        inner = raw[key]
        if not isinstance(inner, dict):
            return False
        raw = inner
    raw[keys[-1]] = value
    return True
