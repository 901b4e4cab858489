"""libpq with all members in one string (`hamgr dsn --multi-host`) finds whoever is of the role, in every state."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from hamgr.cli.commands_dsn import ATTRIBUTES
from hamgr.drill.cluster import Cluster
from hamgr.drill.member import Member
from tests.cluster.bench import Cli, wait_until

pytestmark = pytest.mark.cluster

OF_PRIMARY = ("read-write", "primary")
OF_STANDBY = ("standby", "prefer-standby", "read-only")
WHERE = "SELECT host(inet_server_addr()), inet_server_port(), pg_is_in_recovery()"

Place = tuple[str, int]


def place(member: Member) -> Place:
    return member.host.address, member.postgres_port


def string_by(hamgr: Cli, *options: str) -> str:
    """As an operator gets it, with user and database of the drill."""
    said = hamgr("dsn", "--multi-host", "-U", "postgres", "-d", "postgres", *options)
    assert said.status == 0, said.err
    return said.out.strip()


def land(dsn: str, password: str) -> tuple[Place, bool]:
    """Where libpq has connected to, and whether that server is in recovery. Raises psycopg.OperationalError."""
    with psycopg.connect(dsn, password=password, autocommit=True) as connection:
        return whereabouts(connection)


def whereabouts(connection: psycopg.Connection) -> tuple[Place, bool]:
    """Which server the session is on, and whether that is in recovery. Raises psycopg.OperationalError."""
    row = connection.execute(WHERE).fetchone()
    assert row is not None
    return (row[0], row[1]), row[2]


@dataclass
class Client:
    """Connects again and again until it is told to end."""

    dsn: str
    password: str
    landings: list[tuple[Place, bool]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Nothing to connect to was found."""
    cut: list[str] = field(default_factory=list)
    """Something was, and then the session ended by itself."""

    def run(self, end: threading.Event) -> None:
        while not end.is_set():
            try:
                connection = psycopg.connect(self.dsn, password=self.password, autocommit=True)
            except psycopg.OperationalError as error:
                self.errors.append(str(error))
                continue
            with connection:
                try:
                    self.landings.append(whereabouts(connection))
                except psycopg.OperationalError as error:
                    self.cut.append(str(error))


@contextlib.contextmanager
def running(clients: dict[str, Client]) -> Iterator[None]:
    """Each of them in a thread of its own."""
    end = threading.Event()
    threads = [threading.Thread(target=client.run, args=(end,)) for client in clients.values()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join(30)


@pytest.fixture
def strings(cluster: Cluster, hamgr: Cli) -> dict[str, str]:
    """target_session_attrs -> a string with it. They differ in nothing else but the order of the hosts."""
    given = string_by(hamgr, "-r", "any")
    return {attributes: make_conninfo(given, target_session_attrs=attributes) for attributes in ATTRIBUTES}


def test_with_a_leader_each_role_is_found(
    cluster: Cluster, undisturbed: Member, hamgr: Cli, strings: dict[str, str]
) -> None:
    password, replicas = undisturbed.password, {place(member) for member in cluster.replicas()}
    for attributes in OF_PRIMARY:
        assert land(strings[attributes], password) == (place(undisturbed), False)
    for attributes in OF_STANDBY:
        where, is_standby = land(strings[attributes], password)
        assert (where in replicas, is_standby) == (True, True), attributes
    assert land(strings["any"], password)[0] in {*replicas, place(undisturbed)}
    assert land(string_by(hamgr), password) == (place(undisturbed), False)
    assert land(string_by(hamgr, "-r", "replica"), password)[0] in replicas
    single = hamgr("dsn", "-f", "uri").out.strip()
    assert (urlsplit(single).hostname, urlsplit(single).port) == place(undisturbed)


def test_the_servers_own_psql_reads_the_string_too(undisturbed: Member, strings: dict[str, str]) -> None:
    for attributes in ATTRIBUTES:
        said = subprocess.run(
            ["psql", strings[attributes], "-Atc", "SELECT pg_is_in_recovery()"],
            env={**os.environ, "PGPASSWORD": undisturbed.password},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        expected = {"f"} if attributes in OF_PRIMARY else {"t"} if attributes in OF_STANDBY else {"t", "f"}
        assert said.stdout.strip() in expected, attributes


def test_during_a_failover_reads_never_fail_and_writes_find_the_next_leader(
    cluster: Cluster, strings: dict[str, str]
) -> None:
    leader = cluster.need_leader()
    clients = {attributes: Client(dsn, leader.password) for attributes, dsn in strings.items()}
    with running(clients):
        wait_until("all have connected", lambda: all(client.landings for client in clients.values()))
        os.kill(leader.postmaster_pid(), signal.SIGKILL)
        heir = cluster.wait_until_settled(45.0)
        seen = {attributes: len(clients[attributes].landings) for attributes in OF_PRIMARY}
        wait_until("writes land again", lambda: all(len(clients[a].landings) > seen[a] for a in OF_PRIMARY))
    for attributes in OF_PRIMARY:
        assert not any(in_recovery for _, in_recovery in clients[attributes].landings)
        assert clients[attributes].landings[-1] == (place(heir), False)
    for attributes in (*OF_STANDBY, "any"):
        assert clients[attributes].errors == [], attributes
    for attributes in OF_STANDBY:
        assert clients[attributes].cut == [], attributes
    # Its one session may have been on the server that was killed.
    assert len(clients["any"].cut) <= 1


def test_without_a_leader_reads_go_on_and_writes_are_refused_until_there_is_one(
    cluster: Cluster, hamgr: Cli, strings: dict[str, str]
) -> None:
    leader, replicas = cluster.need_leader(), {place(member) for member in cluster.replicas()}
    assert hamgr("pause", "--wait").status == 0
    try:
        os.kill(leader.postmaster_pid(), signal.SIGKILL)
        wait_until("nobody leads", lambda: leader.standing() is None and not leader.is_leader())
        for attributes in OF_PRIMARY:
            with pytest.raises(psycopg.OperationalError, match=r"read-only|hot standby"):
                land(strings[attributes], leader.password)
        for attributes in (*OF_STANDBY, "any"):
            where, is_standby = land(strings[attributes], leader.password)
            assert (where in replicas, is_standby) == (True, True), attributes
    finally:
        assert hamgr("resume", "--wait").status == 0
    heir = cluster.wait_until_settled(45.0)
    for attributes in OF_PRIMARY:
        assert land(strings[attributes], leader.password) == (place(heir), False)
