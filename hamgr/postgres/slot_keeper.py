"""Keeps the members' slots on the local server, and remembers across restarts which slots are ours."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from hamgr.core.slotnames import slot_name
from hamgr.core.units import Lsn
from hamgr.postgres import files, slots
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import ServerRefused
from hamgr.postgres.sql import Sql

LEDGER = "hamgr.slots"

PRESENT = """
SELECT slot_name, active, coalesce(restart_lsn, '0/0')::text, coalesce(wal_status = 'lost', false)
  FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary
"""


class SlotKeeper:
    """Slots that users made are never touched: ours are named in a file of the data directory."""

    def __init__(self, config: ServerConfig, disk: Disk, sql: Sql) -> None:
        self._config, self._disk, self._sql = config, disk, sql
        self._wanted_at: dict[str, float] = {}

    def configure(self, config: ServerConfig) -> None:
        self._config = config

    async def ensure(self, members: Collection[str], *, in_recovery: bool, positions: Mapping[str, Lsn]) -> None:
        """One slot for each named member; of members that vanished, none after `member_slots_ttl_s`.

        On a replica slots are made and advanced only for members in `positions` (member -> position of its slot
        on the primary), so that after a failover the WAL that they need is still there. Counted on the monotonic
        clock of this process: a restart starts the wait anew.
        """
        others = [slot_name(member) for member in members if member != self._config.name]
        present = [slots.Slot(row[0], row[1], Lsn.parse(row[2]), row[3]) for row in await self._sql.query(PRESENT)]
        expired = await self._expired(others, [slot.name for slot in present])
        at = {slot_name(member): lsn for member, lsn in positions.items() if lsn}
        if in_recovery:
            plan = slots.plan_on_replica({name: lsn for name, lsn in at.items() if name in others}, present, expired)
        else:
            plan = slots.plan_on_primary(others, present, expired)
        await self._carry_out(plan)

    async def _expired(self, others: list[str], present: list[str]) -> list[str]:
        path = self._config.data_dir / LEDGER
        text = await self._disk.run(lambda: files.read_text(path), "read the list of our slots")
        ours = [name for name in (text or "").split() if name in present]
        now = time.monotonic()
        for name in {*ours, *others}:
            self._wanted_at.setdefault(name, now)
        self._wanted_at.update(dict.fromkeys(others, now))
        listing = "".join(f"{name}\n" for name in sorted({*ours, *others}))
        await self._disk.run(lambda: files.write_if_changed(path, listing), "write the list of our slots")
        ttl_s = self._config.member_slots_ttl_s
        return [name for name in ours if name not in others and now - self._wanted_at[name] >= ttl_s]

    async def _carry_out(self, plan: slots.SlotPlan) -> None:
        for name in plan.drop:
            await self._sql.query("SELECT pg_drop_replication_slot(%s)", (name,))
        for name in plan.create:
            await self._sql.query("SELECT pg_create_physical_replication_slot(%s, true)", (name,))
        for name, lsn in plan.advance.items():
            await self._advance(name, lsn)

    async def _advance(self, name: str, lsn: Lsn) -> None:
        try:
            await self._sql.query("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)::text", (name, str(lsn)))
        except ServerRefused as error:
            # Not replayed so far, or taken by a cascading standby, which advances it itself.
            if "cannot advance" not in str(error) and "is active" not in str(error):
                raise
