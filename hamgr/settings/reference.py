"""Makes docs/configuration.md and config/hamgr.yml from the option table: `python -m hamgr.settings.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hamgr.settings.dynamic import DynamicSettings
from hamgr.settings.kinds import NAMES
from hamgr.settings.problem import join
from hamgr.settings.section import Section, about, list_section_of, section_of, variable_of
from hamgr.settings.shown import shown
from hamgr.settings.source import PREFIXES
from hamgr.settings.table import Settings

PAGE = Path("docs/configuration.md")
SAMPLE = Path("config/hamgr.yml")

_INTRO = """\
# Configuration

Made from the option table by `python -m hamgr.settings.reference`; change the table, not this page.

A member reads one YAML file. Key names are Patroni's where the meaning is the same, and an existing Patroni file
with etcd starts hamgr. A key that Patroni knows and hamgr does not is a warning that names it; a key that neither
knows is an error with the nearest valid name. `hamgr validate FILE` says what is wrong, shows the effective value of
every key with its origin, and prints the failover budget that follows from the timings.

- **Times** are seconds (`5`, `0.5`) or `500ms`, `5s`, `1min`, `2h`, `1d`. **Sizes** are bytes or `512kB`, `1MB`, `2GB`.
- **Environment**: an option with a variable takes it as `HAMGR_…` or `PATRONI_…`. HAMGR_ wins over PATRONI_, both
  win over the file. An empty variable counts as not set; one of these names that nothing reads is a warning.
- **Dynamic configuration** lives in etcd and is the same for all members. `bootstrap.dcs` of the file only seeds it
  when the cluster is made; afterwards `hamgr edit-config` changes it.
- The column *Patroni* compares: key and meaning as Patroni's, the same with another default, or hamgr's own.
"""

_TIMINGS = """\
### Relations between the timings

- `ttl` is whole seconds and at least 2, the shortest lease that etcd grants with its default election timeout. A host
  that is lost is noticed after `ttl` + 0.5 s at the latest (etcd looks for expired leases every 0.5 s).
- A leader's deadline is `ttl` less a margin (0.5 % of `ttl` + 0.05 s) from the instant before its renewal was sent.
  0.7 s before the deadline the agent begins to stop the server, 0.3 s before it the guard kills what is left. At
  least two renewals must fit into the rest.
- `loop_wait` + 2 × `retry_timeout` must not exceed `ttl`. As Patroni does, hamgr shrinks `loop_wait` first (not below
  a fifth of `ttl`), then `retry_timeout`, and says so.
- `probe_connection_timeout`, `probe_commit_timeout` and `probe_disk_timeout` bound how long a server or a disk that
  hangs goes unnoticed, beside one `loop_wait`. They want to be longer than the slowest fsync of a healthy day, and are
  warned about where they exceed 4 × `ttl`.
- Patroni's least values (`ttl` 20, `loop_wait` 1, `retry_timeout` 3) are not hamgr's.
"""

_LOGICAL_SLOTS = """\
### Logical slots

- `slots: {cdc: {type: logical, database: app, plugin: pgoutput}}` has the leader make a slot with `failover`, which
  PostgreSQL 17 and newer keep in sync on the replicas; on older servers it has no effect.
- Where a slot is declared, the members' parameters `wal_level` (logical), `hot_standby_feedback` and
  `sync_replication_slots` (on) are set unless you set them. In a cluster that runs already, `hamgr list` then shows
  that a restart is pending, for `wal_level`.
- Slots made by others (a subscription `WITH (failover = true)`) are kept in sync too; where none is declared here, put
  `sync_replication_slots: on` among the parameters.
- Replicas ask for the slots as the replication role, in the database `postgres`: `pg_hba` lines of your own must let
  it in.
- Consumers get only what has reached the members that may be elected (`synchronized_standby_slots`; hamgr keeps that
  list unless it is among your parameters). A replica that is lost holds them up for 10 s (or 2 × `ttl`).
- A replica's copy is of use once the consumer has moved on since the replica came. A slot that was not in sync when
  another member took over is not made anew, since its consumer would skip changes: the leader's log says "not in sync
  when this member took over". Switch back to the member that has it; or refill the consumer, then
  `SELECT pg_create_logical_replication_slot(NAME, PLUGIN, failover => true)`; or take it out of `slots`.
- A slot that is taken out of `slots` stays until you drop it, and keeps WAL.
"""

_SAMPLE_HEAD = """\
# A member of a cluster of three hosts, 10.0.0.11 to 10.0.0.13, each with etcd and PostgreSQL.
# This is the file of the first. On the others change name, restapi.connect_address and postgresql.connect_address.
# Keys with # have their default. Every key is explained in docs/configuration.md; `hamgr validate FILE` checks a file.
# Made from the option table by `python -m hamgr.settings.reference`.
"""


def page() -> str:
    """The reference page."""
    parts = [_INTRO, *_sections(Settings, "", "Top level")]
    parts += [
        "## Dynamic configuration (`bootstrap.dcs`)\n",
        *_sections(DynamicSettings, "bootstrap.dcs", ""),
    ]
    return "\n".join([*parts, _TIMINGS, _LOGICAL_SLOTS])


def _sections(model: type[Section], at: str, title: str) -> Iterator[str]:
    heading = title or f"`{at}`"
    yield f"### {heading}\n\n{cleandoc(model.__doc__ or '')}\n"
    hints = get_type_hints(model, include_extras=True)
    plain = [key for key, info in model.model_fields.items() if section_of(info) is None]
    if plain:
        yield "| key | type | default | meaning | Patroni |\n|---|---|---|---|---|"
        yield "\n".join(_row(model, at, key, hints[key]) for key in plain) + "\n"
    for key, info in model.model_fields.items():
        inner, item = section_of(info), list_section_of(info)
        if inner is not None:
            yield from _sections(inner, join(at, key), "")
        elif item is not None:
            yield from _sections(item, f"{join(at, key)}[]", "")


def _row(model: type[Section], at: str, key: str, hint: Any) -> str:
    info, path, variable = model.model_fields[key], join(at, key), variable_of(model, key)
    meaning = info.description or ""
    if variable:
        meaning += f" `{PREFIXES[0]}{variable}`"
    cells = (f"`{path}`", type_name(hint), _default(path, info), meaning, str(about(info).get("origin", "")))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def type_name(hint: Any) -> str:
    """A type in a reader's words."""
    if hint in NAMES:
        return NAMES[hint]
    if get_origin(hint) is Literal:
        return ", ".join(str(word) for word in get_args(hint) if word)
    parts = [part for part in get_args(hint) if part is not type(None)]
    if parts and get_origin(hint) not in (tuple, dict):
        return "secret" if hint_is_secret(hint) else type_name(parts[0])
    origin = get_origin(hint)
    if origin is tuple:
        return "list"
    names = {str: "text", bool: "boolean", int: "integer", float: "number", dict: "mapping"}
    return names.get(origin or hint, "text")


def hint_is_secret(hint: Any) -> bool:
    """True for a password's type."""
    return hint is SecretStr or any(hint_is_secret(part) for part in get_args(hint))


def _default(path: str, info: FieldInfo) -> str:
    if info.default in (PydanticUndefined, ...):
        return "*required*"
    words = about(info).get("shown")
    text = str(words) if words else shown(path, info.default)
    return f"`{text}`" if text and text not in ("[]", "{}") else ""


def sample() -> str:
    """The sample file."""
    return "\n".join([_SAMPLE_HEAD, *_sample_lines(Settings, 0, "")]) + "\n"


def _sample_lines(model: type[Section], depth: int, at: str) -> Iterator[str]:
    indent = "  " * depth
    for key, info in model.model_fields.items():
        inner = section_of(info)
        path = join(at, key)
        if path == "bootstrap.dcs":
            yield f"{indent}dcs:  # seeds the dynamic configuration, once"
            yield from _sample_lines(DynamicSettings, depth + 1, path)
        elif inner is None:
            yield from _sample_option(key, info, indent, path)
        elif _has_samples(inner):
            yield ("" if depth else "\n") + f"{indent}{key}:  # {_first_sentence(inner)}"
            yield from _sample_lines(inner, depth + 1, path)
        elif not depth:
            yield f"\n# {key}:  # {_first_sentence(inner)}"
            yield from _commented(inner, path)


def _sample_option(key: str, info: FieldInfo, indent: str, path: str) -> Iterator[str]:
    value = about(info).get("sample")
    if value is None:
        if not _is_rare(info):
            yield f"{indent}# {key}: {_default_yaml(path, info)}"
        return
    if isinstance(value, list | dict):
        yield f"{indent}{key}:  # {_meaning(info)}"
        dumped = yaml.safe_dump(value, sort_keys=False, width=200)
        yield from (f"{indent}  {line}" for line in dumped.splitlines())
        return
    text = "off" if value == "off" else yaml.safe_dump(value).splitlines()[0]
    yield f"{indent}{key}: {text}  # {_meaning(info)}"


def _commented(model: type[Section], at: str) -> Iterator[str]:
    for key, info in model.model_fields.items():
        if section_of(info) is None and not _is_rare(info):
            yield f"#   {key}: {_default_yaml(join(at, key), info)}"


def _is_rare(info: FieldInfo) -> bool:
    """True for an option without a default to show: it is on the page, not in the sample."""
    return about(info).get("shown") is None and info.default in (None, "", (), {})


def _default_yaml(path: str, info: FieldInfo) -> str:
    words = about(info).get("shown")
    return str(words) if words else shown(path, info.default)


def _has_samples(model: type[Section]) -> bool:
    return any(
        about(info).get("sample") is not None or (inner is not None and _has_samples(inner))
        for info in model.model_fields.values()
        for inner in (section_of(info),)
    )


def _meaning(info: FieldInfo) -> str:
    return (info.description or "").rstrip(".")


def _first_sentence(model: type[Section]) -> str:
    return (model.__doc__ or "").strip().split(". ")[0].rstrip(".")


def outputs() -> Mapping[Path, str]:
    """What the generated files, relative to the project's root, must hold."""
    return {PAGE: page(), SAMPLE: sample()}


def main(root: Path) -> None:
    """Write the generated files below `root`."""
    for path, text in outputs().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
