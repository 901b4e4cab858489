"""A real etcd, and worlds in it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import SYSTEM, World, free_port, status, wait_until_healthy

PG_BIN = "/usr/lib/postgresql/15/bin"


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real etcd of our own."""
    client, peer = free_port(), free_port()
    process = subprocess.Popen(
        [
            "etcd",
            f"--data-dir={tmp_path_factory.mktemp('etcd')}",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_healthy(f"127.0.0.1:{client}")
        yield f"127.0.0.1:{client}"
    finally:
        process.terminate()
        process.wait(10)


_scopes = iter(range(10**6))


@pytest.fixture
def empty(etcd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A scope without keys."""
    for name in [name for name in os.environ if name.startswith(("HAMGR_", "PATRONI_"))]:
        monkeypatch.delenv(name)
    world = World(etcd, f"demo{next(_scopes)}", tmp_path)
    world.write_config()
    yield world
    world.stop()


@pytest.fixture
def world(empty: World) -> World:
    """p1 leads in term 6, p2 streams, p3 does not answer by REST."""
    empty.put("initialize", SYSTEM)
    empty.put("config", {"ttl": 5, "loop_wait": 1, "retry_timeout": 1})
    empty.put("term", "6")
    empty.put("leader", "p1")
    empty.put("status", {"optime": 0x5000200, "timeline": 3, "slots": {"p2": 0x5000100, "p3": 0x5000080}})
    leader = empty.add_member("p1", 5432, role="primary", replication_state="", xlog_location=0x5000200)
    leader.routes["GET", "/patroni"] = (200, status("primary", location=0x5000200, note="leading in term 6"))
    replica = empty.add_member("p2", 5433, tags={"clonefrom": True})
    replica.routes["GET", "/patroni"] = (
        200,
        status("replica", received_location=0x5000200, replayed_location=0x5000180, note="following p1"),
    )
    empty.add_member("p3", 5434, with_rest=False, xlog_location=0x5000080)
    return empty


def unprivileged() -> str | None:
    """The user to run a server as; None where we are not root and may run it ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture(scope="session")
def server_port() -> Iterator[int]:
    """The port of a real PostgreSQL of our own, user postgres, no password."""
    user, port = unprivileged(), free_port()
    root = Path(tempfile.mkdtemp(prefix="hamgr-cli-"))
    if user is not None:
        shutil.chown(root, user)
    folder = str(root / "data")
    initdb = [f"{PG_BIN}/initdb", "-D", folder, "-U", "postgres", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, user=user, cwd=root, check=True, stdout=subprocess.DEVNULL)
    options = ["-p", str(port), "-h", "127.0.0.1", "-c", f"unix_socket_directories={root}", "-c", "fsync=off"]
    server = subprocess.Popen(
        [f"{PG_BIN}/postgres", "-D", folder, *options], user=user, cwd=root, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_ready(port)
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)
        shutil.rmtree(root)


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        check = [f"{PG_BIN}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        if subprocess.run(check, check=False).returncode == 0:
            return
    raise AssertionError("PostgreSQL did not become ready")
