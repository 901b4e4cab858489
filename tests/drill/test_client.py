"""The client finds gaps, losses and second primaries of real servers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psycopg
import pytest

from hamgr.drill.client import Client, Route, is_steady, make_table, stored_numbers
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host
from hamgr.drill.verdict import Ack, Verdict, judge
from tests.drill.plainserver import PlainServer
from tests.drill.test_hosts import wait_until


def verdict_of(client: Client, dsn: str, fault_ns: int) -> Verdict:
    end_ns = time.monotonic_ns()
    client.stop()
    return judge(
        client.routed.read(),
        client.pinned.read(),
        stored_routed=stored_numbers(dsn, "", "routed"),
        stored_pinned=stored_numbers(dsn, "", "pinned"),
        fault_ns=fault_ns,
        end_ns=end_ns,
    )


def test_killed_server_is_a_gap_as_long_as_it_is_down_and_loses_nothing(
    server: PlainServer, hosts: dict[str, Host], room: Path
) -> None:
    make_table(server.dsn, "")
    client = Client(hosts["client"], {"a": server.dsn}, "", room / "client")
    client.wait_until_writing(time.monotonic_ns(), 0.3, 20)
    fault_ns = time.monotonic_ns()
    hosts["a"].kill_all()
    down_ns = time.monotonic_ns()
    server.start()
    up_ns = time.monotonic_ns()
    client.wait_until_writing(up_ns, 0.3, 20)
    verdict = verdict_of(client, server.dsn, fault_ns)
    assert verdict.write_gap_s is not None
    assert verdict.write_gap_s > 0.5 * (up_ns - down_ns) / 1e9
    assert verdict.is_safe
    assert verdict.leaderships == ("a/1",)


def test_application_moves_on_when_its_host_dies_and_the_loss_is_counted(
    server: PlainServer, other_server: PlainServer, hosts: dict[str, Host], room: Path
) -> None:
    """Two servers that know nothing of each other are the worst cluster there is."""
    for each in (server, other_server):
        make_table(each.dsn, "")
    targets = {"a": server.dsn, "b": other_server.dsn}
    client = Client(hosts["client"], targets, "", room / "client")
    client.wait_until_writing(time.monotonic_ns(), 0.3, 20)
    first = client.routed.read()[-1].host
    fault_ns = time.monotonic_ns()
    hosts[first].kill_all()
    client.wait_until_writing(fault_ns, 0.3, 20)
    survivor = other_server if first == "a" else server
    verdict = verdict_of(client, survivor.dsn, fault_ns)
    assert verdict.lost > 0
    assert verdict.two_primaries
    assert verdict.timelines_twice == (1,)
    assert client.routed.acks[-1].host == survivor.host.name


def set_standbys(server: PlainServer, names: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        connection.execute("SELECT pg_reload_conf()")


def test_every_host_is_tried_all_the_time_also_while_a_commit_on_another_waits_for_a_standby(
    server: PlainServer, other_server: PlainServer, hosts: dict[str, Host], room: Path
) -> None:
    for each in (server, other_server):
        make_table(each.dsn, "")
    client = Client(hosts["client"], {"a": server.dsn, "b": other_server.dsn}, "", room / "client")

    def acks_of(host: str) -> int:
        return sum(ack.host == host for ack in client.pinned.read())

    try:
        wait_until(lambda: min(acks_of("a"), acks_of("b")) > 10)
        set_standbys(server, "nobody")
        wait_until(lambda: not has_answered(client, "a", 1.0), 20)
        before_a, before_b = acks_of("a"), acks_of("b")
        wait_until(lambda: acks_of("b") > before_b + 50)
        assert acks_of("a") == before_a
        set_standbys(server, "")
        wait_until(lambda: acks_of("a") > before_a + 10)
    finally:
        client.stop()


def test_row_whose_commit_waited_for_a_standby_when_the_server_was_shut_down_is_not_acknowledged(
    server: PlainServer, hosts: dict[str, Host], room: Path
) -> None:
    make_table(server.dsn, "")
    client = Client(hosts["client"], {"a": server.dsn}, "", room / "client")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    try:
        client.wait_until_writing(time.monotonic_ns(), 0.3, 20)
        set_standbys(server, "nobody")
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            wait_until(lambda: (connection.execute(waiting).fetchone() or (0,))[0] > 1)
            assert server.process is not None
            server.process.send(signal.SIGINT)
        assert server.process.ended.wait(20)
    finally:
        client.stop()
    server.start()
    for writer, log in (("routed", client.routed), ("pinned", client.pinned)):
        waited = max(stored_numbers(server.dsn, "", writer))
        assert waited > max(ack.number for ack in log.read())


def has_answered(client: Client, host: str, for_s: float) -> bool:
    """Whether the host has acknowledged a row of the pinned writer within the last `for_s`."""
    since_ns = time.monotonic_ns() - int(for_s * 1e9)
    return any(ack.host == host and ack.acknowledged_ns > since_ns for ack in client.pinned.read())


def test_refused_writes_stay_out_of_the_servers_log(server: PlainServer, hosts: dict[str, Host], room: Path) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        make_table(server.dsn, "")
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
    client = Client(hosts["client"], {"a": server.dsn}, "", room / "client")
    with pytest.raises(DrillError, match="no steady writes"):
        client.wait_until_writing(time.monotonic_ns(), 0.3, 1.0)
    client.stop()
    assert client.routed.read() == []
    assert "read-only transaction" not in server.log.read_text()


def test_client_that_died_is_an_error_not_a_gap(server: PlainServer, hosts: dict[str, Host], room: Path) -> None:
    make_table(server.dsn, "")
    client = Client(hosts["client"], {"a": server.dsn}, "", room / "client")
    client.wait_until_writing(time.monotonic_ns(), 0.3, 20)
    hosts["client"].kill_all()
    with pytest.raises(DrillError, match="client died"):
        client.wait_until_writing(time.monotonic_ns() + 10**12, 0.3, 20)


def test_password_is_not_on_the_command_line(server: PlainServer, hosts: dict[str, Host], room: Path) -> None:
    make_table(server.dsn, "")
    client = Client(hosts["client"], {"a": server.dsn}, "s3cret", room / "client")
    client.wait_until_writing(time.monotonic_ns(), 0.3, 20)
    commands = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
    assert not any(b"s3cret" in command.read_bytes() for command in commands if command.exists())
    client.stop()


def test_application_behind_an_intermediary_knows_members_by_the_addresses_that_they_give(
    server: PlainServer, hosts: dict[str, Host], room: Path
) -> None:
    make_table(server.dsn, "")
    names = {f"{server.host.address}:{server.port}": "db7"}
    client = Client(hosts["client"], {"a": server.dsn}, "", room / "client", Route(server.dsn, "", names))
    try:
        client.wait_until_writing(time.monotonic_ns(), 0.3, 20)
    finally:
        client.stop()
    assert {ack.host for ack in client.routed.read()} == {"db7"}
    assert {ack.host for ack in client.pinned.read()} == {"a"}


def acks_every(step_ms: int, begin_ms: int, end_ms: int) -> list[Ack]:
    return [Ack(at, "a", 1, at * 10**6, at * 10**6 + 1) for at in range(begin_ms, end_ms, step_ms)]


def test_writes_are_steady_only_without_a_long_pause() -> None:
    before, after = acks_every(4, 0, 1000), acks_every(4, 1800, 3000)
    assert is_steady([*before, *after], 0, 3_000_000_000, 1.0)
    assert not is_steady([*before, *after[:100]], 0, 2_200_000_000, 1.0)


def test_writes_from_before_the_fault_do_not_count_as_steady() -> None:
    assert not is_steady(acks_every(4, 0, 1000), 900_000_000, 1_000_000_000, 0.5)


def test_writes_that_ceased_are_not_steady() -> None:
    assert not is_steady(acks_every(4, 0, 1000), 0, 1_600_000_000, 0.9)
