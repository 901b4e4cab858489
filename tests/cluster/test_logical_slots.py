"""A consumer of a declared logical slot goes on after a change of leader: nothing left out, nothing that was undone.

The consumer is pg_recvlogical, which connects to whoever is writable. What it wrote down is compared with what the last
primary holds.
"""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hamgr.drill.accounts import server_account
from hamgr.drill.cluster import Cluster
from hamgr.drill.faults import FAULTS
from hamgr.drill.hosts import Process
from hamgr.drill.member import Member
from hamgr.drill.plan import Place, Plan
from hamgr.drill.programs import missing_programs, postgres_bin_dir
from hamgr.drill.run import run_drill
from hamgr.drill.writer import TABLE
from tests.cluster.bench import TTL_S, log_of, raw, sql, wait_until

PLACE = Place.NETNS if os.geteuid() == 0 else Place.LOOPBACK

pytestmark = pytest.mark.cluster

FIRST_MAJOR = 17
SLOT = {"type": "logical", "database": "postgres", "plugin": "test_decoding"}
ROW = re.compile(rf"^table public\.{TABLE}: INSERT: number\[bigint\]:(\d+) writer\[text\]:'(\w+)' host\[text\]:'(\w+)'")
COPIED = """
SELECT 1 FROM pg_replication_slots
 WHERE slot_name = 'cdc' AND synced AND NOT temporary AND invalidation_reason IS NULL
"""
DROP = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'cdc' AND NOT active"
LOST = "not in sync when this member took over: cdc"
Row = tuple[int, str, str]


@dataclass
class Consumer:
    """pg_recvlogical on the client's host. `taken`: bytes of its output that belong to former drills."""

    process: Process
    output: Path
    taken: int = 0

    def rows(self) -> set[Row]:
        """Rows of the drill's table that it got."""
        if not self.output.exists():
            return set()
        text = self.output.read_bytes()[self.taken :].decode()
        found = (ROW.match(line) for line in text.splitlines())
        return {(int(row[1]), row[2], row[3]) for row in found if row}

    def forget(self) -> None:
        self.taken = self.output.stat().st_size if self.output.exists() else 0


@pytest.fixture(scope="module")
def sliced() -> Iterator[Cluster]:
    """Three members with a declared slot. Its files stay when something failed."""
    missing = missing_programs(PLACE)
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")
    major = int(re.sub(r"\D", "", postgres_bin_dir().parent.name) or 0)
    if major < FIRST_MAJOR:
        pytest.skip(f"PostgreSQL {major} has no failover slots; {FIRST_MAJOR} and newer have")
    directory = Path(tempfile.mkdtemp(prefix="hamgr-slots-"))
    directory.chmod(0o755)
    plan = Plan(directory, server_account(), PLACE, ttl_s=TTL_S, dcs={"slots": {"cdc": SLOT}})
    made = Cluster(plan)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def consumer(sliced: Cluster) -> Consumer:
    host = sliced.client_host
    output = host.directory / "changes"
    addresses = ",".join(member.host.address for member in sliced.members)
    ports = ",".join(str(member.postgres_port) for member in sliced.members)
    where = (
        f"host={addresses} port={ports} user=postgres dbname=postgres sslmode=disable connect_timeout=2 "
        "target_session_attrs=read-write tcp_user_timeout=1000"
    )
    # It confirms what it has flushed, and tries again five seconds after it lost its connection.
    argv = [str(postgres_bin_dir() / "pg_recvlogical"), "-d", where, "--slot=cdc", "--start", "-f", str(output)]
    argv += ["--fsync-interval=1", "--status-interval=1", "--no-password"]
    wait_until("the slot is there", lambda: has_slot(sliced.need_leader()), 60.0)
    process = host.spawn(argv, host.directory / "consumer.log", env={"PGPASSWORD": sliced.password})
    return Consumer(process, output)


def has_slot(member: Member) -> bool:
    return bool(sql(member, "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'cdc'"))


def wait_until_copied(cluster: Cluster, consumer: Consumer) -> None:
    """Every replica could go on with the slot. It is so once the consumer has moved on since the replica came."""
    leader = cluster.need_leader()
    sql(leader, "CREATE TABLE IF NOT EXISTS pump (n int)")

    def copied() -> bool:
        assert not consumer.process.ended.is_set()
        sql(leader, "INSERT INTO pump VALUES (1)")
        sql(leader, "SELECT pg_log_standby_snapshot()")
        return all(sql(member, COPIED) for member in cluster.members if member is not leader)

    wait_until("every replica has copied the slot", copied, 120.0)


def stored(member: Member) -> set[Row]:
    return {
        (int(number), str(writer), str(host))
        for number, writer, host in sql(member, f"SELECT number, writer, host FROM {TABLE}")
    }


@pytest.mark.parametrize("fault", ["switchover", "postgres-killed", "member-lost", "postgres-tree-killed"])
def test_consumer_goes_on_without_gap_or_ghost(sliced: Cluster, consumer: Consumer, fault: str) -> None:
    sliced.wait_until_settled(60.0)
    wait_until_copied(sliced, consumer)
    consumer.forget()
    outcome = run_drill(sliced, FAULTS[fault], lambda _: None)
    assert outcome.error == ""
    assert outcome.verdict is not None
    assert outcome.verdict.leader_changes or fault.startswith("postgres")
    rows = stored(sliced.need_leader())
    assert rows
    wait_until("the consumer has every row", lambda: rows <= consumer.rows(), 60.0)
    assert consumer.rows() - rows == set(), "the consumer was given rows that no longer exist"


def test_consumers_wait_for_the_replicas_and_for_no_member_that_is_gone(sliced: Cluster, consumer: Consumer) -> None:
    leader = sliced.wait_until_settled(60.0)
    others = {member.name for member in sliced.members if member is not leader}

    def awaited() -> set[str]:
        return {name.strip() for name in str(sql(leader, "SHOW synchronized_standby_slots")[0][0]).split(",")}

    wait_until("both replicas are waited for", lambda: awaited() == others)
    gone = next(member for member in sliced.members if member is not leader)
    gone.host.kill_all()
    wait_until("who is gone is not waited for", lambda: awaited() == others - {gone.name}, 60.0)
    consumer.forget()
    sql(leader, f"INSERT INTO {TABLE} (number, writer, host) VALUES (0, 'alone', 'client')")
    wait_until("the consumer goes on", lambda: (0, "alone", "client") in consumer.rows())
    sliced.start_member(gone)
    sliced.wait_until_settled(60.0)
    wait_until("both replicas are waited for", lambda: awaited() == others)


def test_a_slot_that_was_not_in_sync_is_not_made_anew(sliced: Cluster, consumer: Consumer) -> None:
    """Its consumer would skip what was written in between, and not be told."""
    leader = sliced.wait_until_settled(60.0)
    wait_until_copied(sliced, consumer)
    consumer.process.send(signal.SIGKILL)
    assert consumer.process.ended.wait(10.0)
    wait_until("the slot is dropped", lambda: drop(leader))
    wait_until("the leader tells that it is lost", lambda: LOST in log_of(leader), 60.0)
    assert not has_slot(leader)
    assert "lost_slots" in status(sliced)
    sql(leader, "SELECT pg_create_logical_replication_slot('cdc', 'test_decoding', failover => true)")
    wait_until("it is no longer lost", lambda: "lost_slots" not in status(sliced))
    assert "cdc" in status(sliced)["slots"]


def status(cluster: Cluster) -> dict[str, Any]:
    return dict(json.loads(raw(cluster, "status") or b"{}"))


def drop(member: Member) -> bool:
    return bool(sql(member, DROP))
