"""What the unit forbids is forbidden to the server, and what server and guard need is still there."""

from __future__ import annotations

import psycopg
import pytest

from tests.systemd.containers import Host, wait_until
from tests.systemd.trio import Session, Trio

pytestmark = pytest.mark.cluster


def test_the_unit_as_installed_is_what_systemd_verifies(leader: Host) -> None:
    assert leader.run("systemd-analyze verify /etc/systemd/system/hamgr.service 2>&1") == ""


def test_server_and_agent_have_no_rights_and_cannot_get_any(leader: Host) -> None:
    for pid in (leader.guard, leader.agent, leader.postmaster):
        lines = leader.run(f"cat /proc/{pid}/status").splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}


def test_server_writes_where_it_may_and_nowhere_else(leader: Host, settled: Trio) -> None:
    leader.run("install -d -m 0777 /srv/open /home/open")
    with settled.connect(leader) as connection:
        connection.execute("COPY (SELECT 1) TO '/tmp/hamgr-test'")
        assert leader.run("cat /tmp/hamgr-test") == "1", "the common /tmp, where backup programs keep their locks"
        for path, complaint in (("/srv/open/x", "Read-only file system"), ("/home/open/x", "Permission denied")):
            with pytest.raises(psycopg.Error, match=complaint):
                connection.execute(f"COPY (SELECT 1) TO '{path}'")
        for program, complaint in (("unshare -U true", "not permitted"), ("mount -t tmpfs x /tmp", "superuser")):
            with pytest.raises(psycopg.Error, match="exit") as caught:
                connection.execute(f"COPY (SELECT 1) TO PROGRAM '{program} 2>/tmp/hamgr-test-errors'")
            assert "exited with exit code" in str(caught.value)
            assert leader.ask(f"grep -E '{complaint}' /tmp/hamgr-test-errors")


def test_server_sees_no_other_users_processes_and_no_exotic_sockets(leader: Host, session: Session) -> None:
    # It reads what it is given: one that has ended before is not told from one that failed.
    program = "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; {} >/dev/null'"
    session.connection.execute(program.format("test ! -e /proc/1 && test -e /proc/$PPID"))
    session.connection.execute(program.format('python3 -c "import socket; socket.socket(socket.AF_NETLINK, 3, 0)"'))
    with pytest.raises(psycopg.errors.ExternalRoutineException):
        session.connection.execute(program.format("test -e /proc/1"))
    vsock = 'python3 -c "import socket; socket.socket(socket.AF_VSOCK)" 2>/tmp/hamgr-test-errors'
    with pytest.raises(psycopg.errors.ExternalRoutineException):
        session.connection.execute(program.format(vsock))
    assert "Address family not supported" in leader.run("cat /tmp/hamgr-test-errors")


def test_what_the_server_has_in_tmp_outlives_the_guard(leader: Host, session: Session) -> None:
    """It would not with PrivateTmp: systemd removes that with the main process."""
    guard = leader.guard
    session.connection.execute("COPY (SELECT 1) TO '/tmp/hamgr-test-before'")
    leader.run(f"kill -KILL {guard}")
    wait_until("another guard", lambda: leader.guard not in (0, guard))
    session.connection.execute("COPY (SELECT 2) TO '/tmp/hamgr-test-after'")
    assert leader.run("cat /tmp/hamgr-test-before /tmp/hamgr-test-after").split() == ["1", "2"]


def test_server_compiles_queries_and_uses_shared_memory_and_peer_authentication(leader: Host, session: Session) -> None:
    """JIT needs memory that is written and executed; parallel workers, /dev/shm; `peer` the client's own user."""
    with session.connection.transaction():
        session.connection.execute("SET LOCAL jit_above_cost = 0")
        plan = session.connection.execute(
            "EXPLAIN (ANALYZE, FORMAT TEXT) SELECT sum(x) FROM generate_series(1, 100000) x"
        ).fetchall()
    assert any("JIT" in line for (line,) in plan)
    session.connection.execute("CREATE TABLE IF NOT EXISTS wide AS SELECT generate_series(1, 200000) AS n")
    with session.connection.transaction():
        for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
            session.connection.execute(f"SET LOCAL {name} = 0")
        plan = session.connection.execute("EXPLAIN (ANALYZE, COSTS OFF) SELECT sum(n) FROM wide").fetchall()
    assert any("Workers Launched: 2" in line for (line,) in plan)
    session.connection.execute("DROP ROLE IF EXISTS daemon")
    session.connection.execute("CREATE ROLE daemon LOGIN")
    assert (
        leader.run("setpriv --reuid=daemon --clear-groups psql -AtX -d postgres -c 'SELECT current_user'") == "daemon"
    )


def test_server_has_a_control_group_of_its_own_also_when_it_was_adopted(leader: Host) -> None:
    guard, agent, server = leader.guard, leader.agent, leader.postmaster
    own = f"/system.slice/hamgr.service/server-run-hamgr-main-{leader.name}"
    assert leader.run(f"grep ^0:: /proc/{server}/cgroup") == f"0::{own}"
    leader.run(f"kill -KILL {guard}")
    wait_until("another guard", lambda: leader.guard not in (0, guard))
    assert leader.run(f"grep ^0:: /proc/{server}/cgroup") == f"0::{own}"
    for pid in (leader.guard, agent):
        assert leader.run(f"grep ^0:: /proc/{pid}/cgroup") == "0::/system.slice/hamgr.service"


def test_what_the_server_has_started_ends_with_it_whoever_its_parent_is(settled: Trio, leader: Host) -> None:
    """An orphan in a session of its own is nobody's child: the control group is how the guard knows of it."""
    with settled.connect(leader) as connection:
        connection.execute("COPY (SELECT 1) TO PROGRAM 'setsid -f sleep 1000 >/dev/null 2>&1'")
    assert leader.run("pgrep -x sleep")
    leader.run(f"kill -KILL {leader.postmaster}")
    wait_until("it is gone", lambda: not leader.ask("pgrep -x sleep"))
    settled.wait_until_settled()


def test_guard_has_the_priority_and_the_locked_memory_that_the_unit_gives_it(leader: Host) -> None:
    limits = leader.run(f"cat /proc/{leader.guard}/limits")
    locked = next(line for line in limits.splitlines() if line.startswith("Max locked memory"))
    if "unlimited" not in locked:
        pytest.skip("this container may not raise limits (CAP_SYS_RESOURCE): LimitMEMLOCK, LimitRTPRIO, OOMScoreAdjust")
    said = [entry["MESSAGE"] for entry in leader.journal()]
    assert not any("memory not locked" in text or "no raised priority" in text for text in said)
    assert leader.run(f"ps -o cls= -p {leader.guard}") in ("RR", "TS")
    assert leader.run(f"cat /proc/{leader.guard}/oom_score_adj") == "-900"
    backend = leader.run(f"pgrep -P {leader.postmaster} | head -n 1")
    assert leader.run(f"cat /proc/{backend}/oom_score_adj") == "0"
