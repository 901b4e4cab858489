"""Logical slots with `failover` on real servers: made, copied by a standby, usable after its promotion."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pglab import Lab, at, has_all_of, streams, wait_until

from hamgr.core.units import Timeline
from hamgr.postgres.config import LogicalSlot, LogicalSlots, find_bin_dir
from hamgr.postgres.configuration import STANDBYS, rendered
from hamgr.postgres.control import program_major
from hamgr.postgres.errors import ServerRefused
from hamgr.postgres.server import LocalServer
from hamgr.postgres.versions import VERSIONS

LOGICAL = LogicalSlots({"cdc": LogicalSlot("postgres", "test_decoding")}, are_synced=True)
CHANGES = "SELECT data FROM pg_logical_slot_get_changes('cdc', NULL, NULL) WHERE data LIKE 'table%'"


@pytest.fixture
async def slots_lab(lab: Lab) -> Lab:
    """Servers that know failover slots."""
    installed = await program_major(find_bin_dir(lab.root))
    if not VERSIONS[installed].syncs_slots:
        pytest.skip(f"PostgreSQL {installed} has no failover slots; 17 and newer have")
    return lab


async def insert(server: LocalServer, *numbers: int) -> None:
    for number in numbers:
        await server.query("INSERT INTO public.t VALUES (%s)", (number,))


async def consume(server: LocalServer) -> list[int]:
    """The next numbers that the slot's consumer gets, which are then confirmed."""
    return [int(row[0].rpartition(":")[2]) for row in await server.query(CHANGES, (), timeout_s=20.0)]


async def pair(lab: Lab) -> tuple[LocalServer, LocalServer]:
    """Primary and standby with a slot that the standby has copied, so that it could be used there."""
    one = await lab.primary(logical=LOGICAL)
    await one.create_logical_slots(["cdc"])
    two = await lab.standby(one, logical=LOGICAL)
    await wait_until_copied(one, two)
    return one, two


async def wait_until_copied(primary: LocalServer, standby: LocalServer) -> None:
    """A copy can be used once the consumer has moved past where the standby began to copy."""

    async def copied() -> bool:
        await primary.query("SELECT pg_log_standby_snapshot()")
        await insert(primary, 0)
        await consume(primary)
        return "cdc" in (await standby.probe()).failover_slots

    await wait_until(copied, "the standby has the slot")


async def test_consumer_goes_on_after_the_standby_was_promoted(slots_lab: Lab) -> None:
    one, two = await pair(slots_lab)
    await insert(one, 1, 2)
    assert await consume(one) == [1, 2]
    await insert(one, 3)
    await wait_until(lambda: has_all_of(two, one), "two has all")
    await slots_lab.guard_of(one).kill_tree()
    await two.promote(10.0, old_timeline=Timeline(1))
    await insert(two, 4)
    got = await consume(two)
    # What was confirmed a moment before may come once more; nothing is left out, nothing comes out of order.
    assert got[-2:] == [3, 4]
    assert got == sorted(got)
    assert (await two.probe()).failover_slots.keys() == {"cdc"}


async def test_former_primary_gives_up_its_own_slot_and_copies_the_new_primarys(slots_lab: Lab) -> None:
    one, two = await pair(slots_lab)
    await one.stop(10.0)
    await two.promote(10.0, old_timeline=Timeline(1))
    await two.ensure_slots(["one"])
    await one.start_standby(at(two))
    await wait_until(lambda: streams(one), "one streams")
    view = await one.probe()
    assert (view.former_slots, dict(view.failover_slots)) == (("cdc",), {})
    await one.drop_former_slots(["cdc"])
    assert (await one.probe()).former_slots == ()
    await wait_until_copied(two, one)
    await one.drop_former_slots(["cdc"])
    assert (await one.probe()).failover_slots.keys() == {"cdc"}, "a copy is not dropped"


async def test_slot_of_a_primary_is_not_dropped_as_a_former_one(slots_lab: Lab) -> None:
    one = await slots_lab.primary(logical=LOGICAL)
    await one.create_logical_slots(["cdc"])
    await one.drop_former_slots(["cdc"])
    assert (await one.probe()).failover_slots.keys() == {"cdc"}


async def test_consumer_gets_nothing_that_the_awaited_standby_lacks(slots_lab: Lab) -> None:
    one, two = await pair(slots_lab)
    await one.await_standbys(["two"])

    async def is_awaited() -> bool:
        return (await one.probe()).awaited_slots == ("two",)

    await wait_until(is_awaited, "two is awaited")
    await insert(one, 1)
    assert await consume(one) == [1]
    await slots_lab.guard_of(two).kill_tree()
    await insert(one, 2)
    await one.query("SET statement_timeout = '1s'")
    with pytest.raises(ServerRefused, match="statement timeout"):
        await consume(one)
    await one.query("SET statement_timeout = '60s'")
    await one.await_standbys([])
    assert await consume(one) == [2]


async def test_server_started_as_a_standby_awaits_nobody(slots_lab: Lab) -> None:
    one, two = await pair(slots_lab)
    await one.await_standbys(["two"])
    await one.stop(10.0)
    assert (one.config.data_dir / STANDBYS).exists()
    await two.promote(10.0, old_timeline=Timeline(1))
    await two.ensure_slots(["one"])
    await one.start_standby(at(two))
    await wait_until(lambda: streams(one), "one streams")
    assert (await one.probe()).awaited_slots == ()


async def test_running_server_copies_slots_only_from_the_restart_that_brings_its_wal_level(slots_lab: Lab) -> None:
    one = await slots_lab.primary()
    two = await slots_lab.standby(one)
    for server in (one, two):
        assert not (await server.probe()).makes_failover_slots
        await server.apply_config(server.config.parameters, None, logical=LOGICAL)

    async def waits_for_restart() -> bool:
        return "wal_level" in (await two.probe()).pending_restart_reason

    await wait_until(waits_for_restart, "wal_level awaits a restart")
    assert await two.query("SHOW sync_replication_slots") == [("off",)]
    await one.stop(10.0)
    await one.start_primary()
    await two.restart(10.0, at(one))
    await wait_until(lambda: streams(two), "two streams")
    assert (await one.probe()).makes_failover_slots
    assert await two.query("SHOW sync_replication_slots") == [("on",)]


@pytest.mark.parametrize("declared", [LogicalSlot("nowhere", "test_decoding"), LogicalSlot("postgres", "nothing")])
async def test_slot_that_cannot_be_made_is_named_and_others_are_made(slots_lab: Lab, declared: LogicalSlot) -> None:
    slots = {"cdc": LOGICAL.declared["cdc"], "wrong": declared}
    one = await slots_lab.primary(logical=replace(LOGICAL, declared=slots))
    with pytest.raises(ServerRefused, match=r"logical slot wrong: .*(nowhere|nothing)"):
        await one.create_logical_slots(["cdc", "wrong"])
    await one.create_logical_slots(["cdc"])
    assert (await one.probe()).failover_slots.keys() == {"cdc"}


@pytest.mark.parametrize("major", sorted(VERSIONS))
async def test_only_versions_that_copy_slots_are_told_to(lab: Lab, major: int) -> None:
    config = replace(lab.config("one"), logical=LOGICAL)
    text = rendered(config, VERSIONS[major], {})
    assert ("sync_replication_slots = 'on'" in text) == (major >= 17)
    assert ("wal_level = 'logical'" in text) == (major >= 17)
    configured = replace(config, parameters={"wal_level": "replica"})
    assert "sync_replication_slots" not in rendered(configured, VERSIONS[major], {})
    assert "sync_replication_slots" not in rendered(config, VERSIONS[major], {}, may_sync=False)
