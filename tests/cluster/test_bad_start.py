"""A member that is started wrongly says what is wrong, does no harm, and comes right when that is mended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hamgr.drill.cluster import Cluster
from hamgr.drill.hosts import Process
from hamgr.drill.member import Member
from hamgr.drill.programs import postgres_bin_dir
from tests.cluster.bench import (
    Cli,
    exit_status,
    log_of,
    note_of,
    settings_of,
    stop,
    wait_until,
    writes,
)

pytestmark = pytest.mark.cluster

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="root only")
EXIT_SECOND_GUARD = 3
EXIT_REFUSED_CONFIGURATION = 78

LISTENER = """
import socket, sys, time
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
time.sleep(600)
"""


def takes_port(member: Member, port: int) -> Process:
    """A program on the member's host that listens on a port of its address."""
    log = member.host.directory / "listener.log"
    log.unlink(missing_ok=True)
    listener = member.host.spawn(
        ["/usr/bin/python3", "-c", LISTENER, member.host.address, str(port)], log, as_account=False
    )
    wait_until("the port is taken", lambda: log.exists() and "listening" in log.read_text())
    return listener


def listed(hamgr: Cli, member: Member) -> dict[str, str]:
    """The member's row in `hamgr list`, empty if it has none."""
    rows = hamgr("list", "-f", "json").value
    return next((row for row in rows if row["Member"] == member.name), {})


def wait_until_streaming(member: Member) -> None:
    wait_until(
        f"{member.name} streams",
        lambda: (standing := member.standing()) is not None and standing.is_streaming,
        60.0,
    )


def contents(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Every file below, with owner, size and time of change."""
    found = {}
    for path in sorted(directory.rglob("*")):
        stat = path.lstat()
        found[str(path)] = (stat.st_uid, stat.st_size, stat.st_mtime_ns)
    return found


def test_wrong_replication_password_is_named_and_corrected_by_a_reload(
    cluster: Cluster, spare: Member, hamgr: Cli
) -> None:
    good = settings_of(spare)
    wrong = settings_of(spare)
    wrong["postgresql"]["authentication"]["replication"]["password"] = "not-the-password"
    spare.write_config(wrong)
    cluster.start_member(spare)
    wait_until("the note names the password", lambda: "authentication failed" in note_of(spare))
    wait_until("so does the list", lambda: "authentication failed" in str(listed(hamgr, spare)))
    assert "not-the-password" not in log_of(spare)
    assert not (spare.data_dir / "PG_VERSION").exists()
    spare.write_config(good)
    assert hamgr("reload", spare.name, "--force").status == 0
    wait_until_streaming(spare)


def test_data_of_another_cluster_is_neither_started_nor_touched(cluster: Cluster, spare: Member) -> None:
    spare.host.run([str(postgres_bin_dir() / "initdb"), "-D", str(spare.data_dir), "-N"])
    before = contents(spare.data_dir)
    cluster.start_member(spare)
    wait_until("the note says so", lambda: "belongs to another cluster" in note_of(spare))
    assert "belongs to another cluster" in log_of(spare)
    assert contents(spare.data_dir) == before
    assert stop(spare) == 0
    assert contents(spare.data_dir) == before


@AS_ROOT
def test_data_directory_of_another_user_is_named_and_left_alone(cluster: Cluster, spare: Member) -> None:
    spare.data_dir.mkdir(mode=0o700)
    (spare.data_dir / "PG_VERSION").write_text("15\n")
    before = contents(spare.data_dir)
    cluster.start_member(spare)
    wait_until("the note names it", lambda: str(spare.data_dir) in note_of(spare) or "ermission" in note_of(spare))
    assert "the data directory cannot be used" in log_of(spare)
    assert contents(spare.data_dir) == before
    assert stop(spare) == 0


def test_server_port_in_use_is_named_and_the_member_joins_when_it_is_free(
    cluster: Cluster, spare: Member, hamgr: Cli
) -> None:
    listener = takes_port(spare, spare.postgres_port)
    cluster.start_member(spare)
    wait_until("the note says that it does not start", lambda: "ended while starting" in note_of(spare), 60.0)
    wait_until("so does the list", lambda: "ended while starting" in str(listed(hamgr, spare)))
    assert "Address already in use" in log_of(spare)
    listener.send(signal.SIGKILL)
    wait_until_streaming(spare)


def test_rest_port_in_use_ends_the_agent_with_a_clear_word(cluster: Cluster, spare: Member) -> None:
    listener = takes_port(spare, spare.rest_port)
    cluster.start_member(spare)
    assert exit_status(spare) == EXIT_REFUSED_CONFIGURATION
    assert f"{spare.host.address}:{spare.rest_port}" in log_of(spare).replace(" port ", ":")
    assert "in use" in log_of(spare)
    assert "Traceback" not in log_of(spare)
    listener.send(signal.SIGKILL)


@AS_ROOT
def test_file_of_another_user_is_refused_by_name(cluster: Cluster, spare: Member) -> None:
    os.chown(spare.config_path, 0, 0)
    cluster.start_member(spare)
    assert exit_status(spare) == EXIT_REFUSED_CONFIGURATION
    assert str(spare.config_path) in log_of(spare)
    assert "Traceback" not in log_of(spare)
    assert spare.host.account is not None
    os.chown(spare.config_path, spare.host.account.uid, spare.host.account.gid)


def test_second_agent_in_the_same_runtime_directory_ends_at_once(cluster: Cluster, undisturbed: Member) -> None:
    first = undisturbed.guard_pid()
    log = cluster.logs / "second.log"
    second = undisturbed.host.spawn([*undisturbed.guard.argv], log) if undisturbed.guard else None
    assert second is not None
    assert second.ended.wait(30)
    assert second.status is not None
    assert os.waitstatus_to_exitcode(second.status) == EXIT_SECOND_GUARD
    assert f"another guard, pid {first}" in log.read_text()
    assert undisturbed.guard_pid() == first


def test_second_member_of_the_same_name_stands_back_and_says_why(
    cluster: Cluster, spare: Member, undisturbed: Member
) -> None:
    twin = settings_of(spare)
    twin["name"] = undisturbed.name
    spare.write_config(twin)
    key = f"members/{undisturbed.name}"
    before = writes(cluster, key)
    cluster.start_member(spare)
    wait_until("the twin says so", lambda: "another agent lives under the name" in log_of(spare))
    seen = spare.says()["dcs_last_seen"]
    wait_until("the twin has had time to announce itself", lambda: spare.says()["dcs_last_seen"] > seen + 1)
    assert writes(cluster, key) == before
    assert not (spare.data_dir / "PG_VERSION").exists()


@pytest.fixture
def small_disk(spare: Member) -> Iterator[Path]:
    """The spare's data directory on a file system that is too small for the database."""
    spare.data_dir.mkdir()
    mount(spare.data_dir, "size=12m")
    if spare.host.account is not None:
        os.chown(spare.data_dir, spare.host.account.uid, spare.host.account.gid)
    spare.data_dir.chmod(0o700)
    yield spare.data_dir
    spare.host.kill_all()
    subprocess.run(["umount", "--lazy", str(spare.data_dir)], check=True)


def mount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)


@AS_ROOT
def test_disk_that_is_full_during_the_copy_is_named_and_the_copy_is_made_once_there_is_room(
    cluster: Cluster, spare: Member, small_disk: Path, hamgr: Cli
) -> None:
    cluster.start_member(spare)
    wait_until("the note names the disk", lambda: "No space left" in note_of(spare), 60.0)
    wait_until("so does the list", lambda: "No space left" in str(listed(hamgr, spare)))
    assert not (small_disk / "PG_VERSION").exists()
    mount(small_disk, "remount,size=600m")
    wait_until_streaming(spare)
