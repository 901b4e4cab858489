"""Where this member's `bootstrap.dcs` says something else than the cluster's configuration in etcd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ABSENT = "nothing"


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
            yield path, _plain(wanted), _plain(present)


def _plain(value: Any) -> str:
    """YAML and JSON write the same value in more than one way: 5 and 5.0, true and 'true'."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
