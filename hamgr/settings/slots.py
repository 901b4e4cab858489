"""`slots` of the dynamic configuration: permanent replication slots, as Patroni writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainValidator

from hamgr.settings.problem import Problem, join, warning

SYNC_SLOTS, AWAITED_SLOTS = "sync_replication_slots", "synchronized_standby_slots"
"""PostgreSQL's parameters. The second one given: hamgr leaves it as it is."""

SWITCHED_ON = ("on", "true", "yes", "1")
_NAME = re.compile(r"[a-z0-9_]{1,63}")


@dataclass(frozen=True, slots=True)
class PermanentSlot:
    """One declared slot. `database` and `plugin` are empty for a physical one."""

    database: str = ""
    plugin: str = ""
    failover: bool = True

    @property
    def is_logical(self) -> bool:
        return bool(self.database)

    @property
    def is_kept(self) -> bool:
        """hamgr makes it, and it outlives a change of leader."""
        return self.is_logical and self.failover


def parse_slots(value: object) -> dict[str, PermanentSlot]:
    """Slots by name: `type: logical` with `database` and `plugin`, or `type: physical`. null: left out."""
    if not isinstance(value, Mapping):
        raise ValueError("is not a mapping of slots, each `name: {type: logical, database: ..., plugin: ...}`")
    return {_name(name): _slot(name, given) for name, given in value.items() if given is not None}


def _name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("holds a name that no slot can have: write a-z, 0-9 and _, at most 63 of them")
    return name


def _slot(name: str, given: Any) -> PermanentSlot:
    if isinstance(given, PermanentSlot):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{name} is not a mapping: write for example {{type: logical, database: app, plugin: pgoutput}}"
        )
    kind = given.get("type", "physical")
    if kind == "physical":
        return PermanentSlot()
    if kind != "logical":
        raise ValueError(f"the type of {name} is neither logical nor physical")
    database, plugin, failover = given.get("database"), given.get("plugin"), given.get("failover", True)
    for key, text in (("database", database), ("plugin", plugin)):
        if not isinstance(text, str) or not text or re.search(r"[\x00-\x1f]", text):
            raise ValueError(f"{name} needs `{key}`, as every logical slot does")
    if not isinstance(failover, bool):
        raise ValueError(f"`failover` of {name} is neither true nor false")
    return PermanentSlot(str(database), str(plugin), failover)


def slot_problems(
    slots: Mapping[str, PermanentSlot], use_slots: bool, parameters: Mapping[str, str], at: str
) -> Iterator[Problem]:
    """Declared slots that are not kept, and parameters that keep them from being copied."""
    for name, slot in slots.items():
        path = join(at, "slots", name)
        if not slot.is_logical:
            yield warning(path, "not yet: a physical slot of one's own has no effect")
        elif not slot.failover:
            yield warning(path, "has no effect without failover", "make it by SQL")
        elif not use_slots:
            yield warning(path, "has no effect while use_slots is off", "it is copied over a member's slot")
    if any(slot.is_kept for slot in slots.values()):
        for parameter, needed in {"wal_level": ("logical",), "hot_standby_feedback": SWITCHED_ON}.items():
            if parameters.get(parameter, needed[0]).lower() not in needed:
                text = f"slots are not copied to replicas: that needs {needed[0]}"
                yield warning(join(at, "postgresql.parameters", parameter), text, "leave it out")


PermanentSlots = Annotated[dict[str, PermanentSlot], PlainValidator(parse_slots)]
