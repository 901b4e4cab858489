"""A control group of the server's own: who has one, and that nothing in it survives."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hamgr.guard.cgroup import ServerGroup
from tests.guard.bench import living, wait_until

ROOT = Path(__file__).resolve().parents[2]
FORKS_ON = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from hamgr.guard.cgroup import ServerGroup
group = ServerGroup("/run/hamgr/main-a", mount=sys.argv[2])
script = "setsid bash -c 'while :; do sleep 0.01 & sleep 1000 & wait -n; done' & exec sleep 1000"
server = subprocess.Popen(["bash", "-c", script], preexec_fn=group.enter, stdout=subprocess.DEVNULL)
other = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
while len(group._pids()) < 10:
    pass
own = open("/proc/self/cgroup").read().rpartition("0::")[2].strip()
killed = group.kill()
print(own, other.pid, server.wait(), *killed, flush=True)
sys.stdin.read()
other.kill()
"""
"""Outside the group: this program and `other`. Inside: a server, and what forks all the time in another session."""


def delegation() -> Path | None:
    """Where a control group can be made here."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2" and os.geteuid() == 0 and os.access(place, os.W_OK):
            return Path(place)
    return None


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A group that is given to user nobody, as systemd does for a service."""
    mount = delegation()
    if mount is None:
        pytest.skip("needs root, and control groups of version 2 that may be written")
    made = mount / f"hamgr-test-{os.getpid()}.service"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    nobody = pwd.getpwnam("nobody")
    for path in (made, made / "cgroup.procs"):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    yield made
    for directory in (*made.glob("*/"), made):
        (directory / "cgroup.kill").write_text("1")
        while "populated 1" in (directory / "cgroup.events").read_text():
            pass
        directory.rmdir()


def test_one_write_kills_all_that_is_in_it_and_nothing_else(delegated: Path) -> None:
    def enter() -> None:
        (delegated / "cgroup.procs").write_text("0")
        os.setgroups([])
        os.setgid(pwd.getpwnam("nobody").pw_gid)
        os.setuid(pwd.getpwnam("nobody").pw_uid)

    argv = ["/usr/bin/python3", "-c", FORKS_ON, str(ROOT), str(delegated.parent)]
    guard = subprocess.Popen(argv, preexec_fn=enter, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
    assert guard.stdout is not None
    assert guard.stdin is not None
    own, other, status, *killed = guard.stdout.readline().split()
    assert own == f"/{delegated.name}"
    assert int(status) == -9
    assert len(killed) >= 10
    events = delegated / "server-run-hamgr-main-a" / "cgroup.events"
    wait_until(lambda: "populated 0" in events.read_text(), "they are dead, and what they forked meanwhile")
    assert living([int(other), guard.pid])
    guard.stdin.close()
    assert guard.wait(20) == 0


def make_group(root: Path, *, line: str = "0::/hamgr.service") -> tuple[str, str]:
    """What looks like a delegated group of this user."""
    membership = root / "membership"
    membership.write_text(f"4:memory:/elsewhere\n{line}\n")
    inner = root / "mount" / "hamgr.service" / "server-run"
    inner.mkdir(parents=True, exist_ok=True)
    for name in ("cgroup.kill", "cgroup.procs"):
        (inner / name).write_text("")
    return str(membership), str(root / "mount")


def test_roots_own_group_is_nobodys_delegation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    membership, mount = make_group(tmp_path)
    procs = tmp_path / "mount" / "hamgr.service" / "server-run" / "cgroup.procs"
    for user, enters in ((0, False), (os.stat(procs).st_uid + 1, False)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        ServerGroup("/run", membership, mount).enter()
        assert (procs.read_text() == "0") is enters


@pytest.mark.parametrize("line", ["", "0::/gone.service", "1:name=systemd:/hamgr.service"])
def test_without_a_delegated_group_nothing_happens(tmp_path: Path, line: str) -> None:
    membership, mount = make_group(tmp_path, line=line)
    group = ServerGroup("/run", membership, mount)
    group.enter()
    assert group.kill() == []
    assert ServerGroup("/run", str(tmp_path / "no such file"), mount).kill() == []


def test_an_older_kernel_has_no_such_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    membership, mount = make_group(tmp_path)
    inner = tmp_path / "mount" / "hamgr.service" / "server-run"
    (inner / "cgroup.kill").unlink()
    (inner / "cgroup.procs").write_text("1\n")
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(inner).st_uid or 1)
    assert ServerGroup("/run", membership, mount).kill() == []
