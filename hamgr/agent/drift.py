"""What stands in the file and is not in force: `bootstrap.dcs` where the cluster has it otherwise, and what waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hamgr.settings import Loaded
from hamgr.settings.shown import leaves, shown

ABSENT = "nothing"
FROM_THE_START = (
    "scope",
    "namespace",
    "name",
    "restapi.listen",
    "restapi.connect_address",
    "postgresql.listen",
    "postgresql.connect_address",
    "postgresql.data_dir",
    "postgresql.bin_dir",
    "watchdog.",
    "log.format",
    "log.type",
    "recorder.",
    "guard.",
)
"""Keys, and beginnings of keys, that are read when guard and agent start."""


def changed_for_restart(old: Loaded, new: Loaded) -> list[str]:
    """Keys that the two files have otherwise and a reload does not take over."""
    before = dict(leaves(old.settings, old.seed))
    return [
        path
        for path, value in leaves(new.settings, new.seed)
        if path.startswith(FROM_THE_START) and before.get(path) != value
    ]


def differences(seed: Mapping[str, Any], values: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, here, in the cluster) for every key that the seed names and the cluster has otherwise.

    Only what the seed names counts: what others entered with `hamgr edit-config` is not this file's to say.
    """
    for key, wanted in seed.items():
        path = f"{at}.{key}" if at else str(key)
        present = values.get(key)
        if isinstance(wanted, Mapping):
            yield from differences(wanted, present if isinstance(present, Mapping) else {}, path)
        elif _plain(wanted) != _plain(present):
            yield path, _shown(path, wanted), _shown(path, present)


def _shown(path: str, value: Any) -> str:
    """Without the passwords that may stand in commands and connection strings."""
    return ABSENT if value is None else shown(path, _plain(value))


def _plain(value: Any) -> str:
    """YAML and JSON write the same value in more than one way: 5 and 5.0, true and 'true'."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
