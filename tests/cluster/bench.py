"""One real cluster for all tests here, spare members to be started badly, and the command line as a user runs it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import requests
import yaml

import hamgr
from hamgr.drill.accounts import server_account
from hamgr.drill.cluster import SCOPE, Cluster
from hamgr.drill.errors import DrillError
from hamgr.drill.member import Member
from hamgr.drill.plan import Place, Plan

MEMBERS = 3
SPARES = 1
TTL_S = 5
PREFIX = f"/service/{SCOPE}/"

Seen = TypeVar("Seen")


def wait_until(what: str, look: Callable[[], Seen], timeout_s: float = 30.0) -> Seen:
    """What `look` returned as soon as that was true. AssertionError with `what` and the last look after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}; last seen: {seen!r}"
        time.sleep(0.05)
    return seen


class Bench:
    """The cluster of this test run. It is formed when first needed, and anew when a test has left it broken."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hamgr-cluster-"))
        self.directory.chmod(0o755)
        self.is_bad = False
        self.python = Path(sys.executable)
        self._built = 0
        self._cluster: Cluster | None = None
        self._spares: list[Member] = []

    def need_cluster(self) -> Cluster:
        """A settled cluster of three members."""
        if self._cluster is not None:
            try:
                self._cluster.wait_until_settled(45.0)
            except DrillError:
                self.is_bad = True
                self._close_cluster()
        if self._cluster is None:
            self._cluster = self._form()
        return self._cluster

    def spare(self) -> Member:
        """A member that has a host and a file, and was never started."""
        return self._spares[0]

    def close(self) -> None:
        """Nothing runs on; files stay only after a failure."""
        self._close_cluster()
        if not self.is_bad:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _form(self) -> Cluster:
        self._built += 1
        directory = self.directory / str(self._built)
        account = server_account()
        place = Place.NETNS if os.geteuid() == 0 else Place.LOOPBACK
        made = Cluster(Plan(directory, account, place, members=MEMBERS + SPARES, ttl_s=TTL_S))
        self._spares = made.members[MEMBERS:]
        del made.members[MEMBERS:]
        try:
            made.start()
        except BaseException:
            self.is_bad = True
            made.close()
            raise
        return made

    def _close_cluster(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Cli:
    """`hamgr -c FILE ...` in a process of its own."""

    config: Path

    def __call__(self, *arguments: str, timeout_s: float = 60.0) -> Said:
        started = self.start(*arguments)
        try:
            out, err = started.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            started.kill()
            raise
        return Said(started.returncode, out, err)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, not awaited."""
        argv = [sys.executable, "-m", "hamgr", "-c", str(self.config), *arguments]
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
        )


def _environment() -> dict[str, str]:
    """This package, wherever it stands, and nothing of the caller's PG* and HAMGR_* variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "HAMGR_"))}
    return {**kept, "PYTHONPATH": str(Path(hamgr.__file__).parents[1])}


# -- etcd, as somebody else would write it ----------------------------------------------------------------------


def put(cluster: Cluster, key: str, value: bytes) -> None:
    """Write a key below the cluster's prefix; its lease, if it had one, no longer holds it."""
    _etcd(cluster, "kv/put", key=_coded(PREFIX + key), value=base64.b64encode(value).decode())


def delete(cluster: Cluster, key: str) -> None:
    """Take a key below the cluster's prefix away."""
    _etcd(cluster, "kv/deleterange", key=_coded(PREFIX + key))


def raw(cluster: Cluster, key: str) -> bytes | None:
    """Value of a key below the cluster's prefix, None where there is none."""
    found = _etcd(cluster, "kv/range", key=_coded(PREFIX + key)).get("kvs", [])
    return base64.b64decode(found[0].get("value", "")) if found else None


def writes(cluster: Cluster, key: str) -> int:
    """How often the key was written since it was made."""
    found = _etcd(cluster, "kv/range", key=_coded(PREFIX + key)).get("kvs", [])
    return int(found[0]["version"]) if found else 0


def lag_of(cluster: Cluster, replica: Member) -> int:
    """Bytes by which the replica is behind, as the leader last wrote it to etcd."""
    status = json.loads(raw(cluster, "status") or b"{}")
    return int(status["optime"] - status["slots"].get(replica.name, 0))


def lease_of(cluster: Cluster, key: str) -> int:
    """The lease that a key below the cluster's prefix hangs on; 0 where there is none."""
    found = _etcd(cluster, "kv/range", key=_coded(PREFIX + key)).get("kvs", [])
    return int(found[0].get("lease", 0)) if found else 0


def granted_ttl_s(cluster: Cluster, key: str) -> int:
    """The ttl of the lease that a key hangs on; 0 where there is none."""
    lease_id = lease_of(cluster, key)
    return int(_etcd(cluster, "lease/timetolive", ID=lease_id).get("grantedTTL", 0)) if lease_id else 0


def left_s(cluster: Cluster, lease_id: int) -> int:
    """How long that lease lasts if nobody renews it; -1 when it is gone."""
    return int(_etcd(cluster, "lease/timetolive", ID=lease_id).get("TTL", 0))


def term(cluster: Cluster) -> int:
    """The cluster's term, as etcd has it."""
    return int(cluster.store.get(PREFIX + "term") or 0)


def _etcd(cluster: Cluster, method: str, **body: Any) -> dict[str, Any]:
    answer = requests.post(f"http://{cluster.store.endpoints[0]}/v3/{method}", json=body, timeout=5)
    answer.raise_for_status()
    return dict(answer.json())


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# -- members ----------------------------------------------------------------------------------------------------


def sql(member: Member, statement: str) -> list[tuple[Any, ...]]:
    """Rows of a statement on a member; none where it returns none."""
    with psycopg.connect(member.dsn, password=member.password, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def settings_of(member: Member) -> dict[str, Any]:
    """The member's file."""
    return dict(yaml.safe_load(member.config_path.read_text()))


def log_of(member: Member) -> str:
    """All that guard, agent and server of a member have said."""
    return member.log.read_text(errors="replace") if member.log.exists() else ""


def note_of(member: Member) -> str:
    """The reason that the member's REST gives for what it does."""
    return str(member.says().get("note", ""))


def end(member: Member) -> None:
    """Nothing of the member runs on its host."""
    member.host.kill_all()
    if member.guard is not None:
        assert member.guard.ended.wait(10)


def stop(member: Member, timeout_s: float = 60.0) -> int:
    """SIGTERM to the guard, as a service manager does; its exit status."""
    assert member.guard is not None
    member.guard.send(signal.SIGTERM)
    return exit_status(member, timeout_s)


def exit_status(member: Member, timeout_s: float = 30.0) -> int:
    """Of `hamgr agent`, awaited."""
    assert member.guard is not None
    assert member.guard.ended.wait(timeout_s), f"{member.name} runs on; log: {log_of(member)[-2000:]}"
    assert member.guard.status is not None
    return os.waitstatus_to_exitcode(member.guard.status)


def clear(member: Member) -> None:
    """Data and runtime directories are as new, and the log begins anew."""
    for path in (member.data_dir, member.runtime_dir):
        shutil.rmtree(path, ignore_errors=True)
    member.runtime_dir.mkdir()
    if member.host.account is not None:
        os.chown(member.runtime_dir, member.host.account.uid, member.host.account.gid)
    if member.log.exists():
        member.log.rename(member.log.with_suffix(f".{time.monotonic_ns()}.log"))
