"""Physical replication slots for the other members, so that the primary keeps the WAL that they still need."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from hamgr.core.units import Lsn


@dataclass(frozen=True, slots=True)
class Slot:
    """One physical slot of this server."""

    name: str
    is_active: bool
    restart_lsn: Lsn
    is_lost: bool = False
    """Its WAL is gone (max_slot_wal_keep_size): it can only be made anew."""


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """What to do to reach the wanted slots; dropped before created."""

    drop: tuple[str, ...] = ()
    create: tuple[str, ...] = ()
    advance: Mapping[str, Lsn] = field(default_factory=dict)


def plan_on_primary(wanted: Collection[str], present: Iterable[Slot], expired: Iterable[str]) -> SlotPlan:
    """`wanted`: slots of the other members; `expired`: ours whose member has been gone for long enough."""
    slots = {slot.name: slot for slot in present}
    lost = [slot.name for slot in slots.values() if slot.is_lost and slot.name in wanted]
    gone = [name for name in expired if name in slots and not slots[name].is_active]
    return SlotPlan((*lost, *gone), tuple(name for name in wanted if name not in slots or name in lost))


def plan_on_replica(positions: Mapping[str, Lsn], present: Iterable[Slot], expired: Iterable[str]) -> SlotPlan:
    """`positions`: where the primary's slots stand. A slot of unknown position is not made: it would never advance.

    One that lies ahead of its position on the primary was made too late to be of use; it stays until it is right.
    """
    slots = {slot.name: slot for slot in present}
    advance = {name: lsn for name, lsn in positions.items() if name in slots and slots[name].restart_lsn < lsn}
    lost = [slot.name for slot in slots.values() if slot.is_lost and slot.name in positions]
    gone = [name for name in expired if name in slots and not slots[name].is_active]
    create = tuple(name for name in positions if name not in slots or name in lost)
    return SlotPlan((*lost, *gone), create, advance)
